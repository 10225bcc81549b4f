"""A stored run, and a labelled set."""

from support.class_folders import class_set
from support.stored_run import run_store

__all__ = ["class_set", "run_store"]
