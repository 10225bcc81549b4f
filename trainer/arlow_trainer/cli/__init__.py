"""The command `arlow`."""

from arlow_trainer.cli.app import app, main

__all__ = ["app", "main"]
