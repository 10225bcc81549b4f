"""Measurements of the trainer against what it is built on: `python -m benchmarks`."""
