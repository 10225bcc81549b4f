"""Stores behind fsspec made safe: timeouts, retries, failures classified, JSON lines, events."""
