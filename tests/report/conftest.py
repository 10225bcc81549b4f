"""Stored runs."""

from support.reported_run import reported_run
from support.stored_run import run_store

__all__ = ["reported_run", "run_store"]
