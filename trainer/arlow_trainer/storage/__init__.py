"""Stores behind fsspec made safe: timeouts, retries, failures in words, JSON lines, events."""
