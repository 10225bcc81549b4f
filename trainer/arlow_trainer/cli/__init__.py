"""The command `arlow`."""

from arlow_trainer.run.held_signals import hold_signals, release_signals


def main() -> None:
    """Runs `arlow` with the process's arguments: see `app.main`."""
    hold_signals()
    try:
        from arlow_trainer.cli import app

        app.main()
    finally:
        release_signals()


__all__ = ["main"]
