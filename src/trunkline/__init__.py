"""Trunkline: a durable message backbone for chat."""

__version__ = "0.1.0"
