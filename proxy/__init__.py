"""Sluicegate: an inline HTTP/TCP proxy that enforces stream-layer policy."""

__version__ = "0.1.0"
