"""A stored run."""

from support.stored_run import run_store

__all__ = ["run_store"]
