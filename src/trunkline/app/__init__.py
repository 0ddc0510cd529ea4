"""Composition roots: what runs, put together from the settings."""
