"""Decisions without I/O: plain functions from values to values, no clock, no random source."""
