"""What a run says at its end."""

from __future__ import annotations

import pytest

from arlow_trainer.run.train import stopped_text


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (0, "stopped at step 0 of 1,000 as asked: there is nothing to save yet, and the same"),
        (1, "stopped at step 1 of 1,000 as asked; everything is saved in runs/a, and the same"),
    ],
)
def test_a_run_says_what_is_saved(step: int, words: str) -> None:
    assert words in stopped_text(step, 1000, "runs/a")
