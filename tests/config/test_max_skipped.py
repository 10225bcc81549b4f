"""`data.maxSkipped`: a number of files, or a share of the samples."""

from __future__ import annotations

import pytest

from arlow_trainer.config import load_run
from arlow_trainer.config.errors import ConfigError


@pytest.mark.parametrize(
    ("value", "samples", "most"),
    [
        ("100", 10_000_000, 100),
        ("0", 50, 0),
        ("0.1%", 10_000_000, 10_000),
        ("0.1%", 500, 1),
        ("0.29%", 100, 1),
        ("7%", 100, 7),
        ("100%", 30, 30),
        ("0%", 30, 0),
    ],
)
def test_how_many_files_it_allows(value: str, samples: int, most: int) -> None:
    run = load_run("tiny", [f"data.maxSkipped={value}"])
    assert run.spec.training.data.most_skipped(samples) == most


@pytest.mark.parametrize("value", ["-1", "1.5", "true", "many", "101%", "-1%", "1 %", "'100'"])
def test_what_is_neither_is_refused_in_one_line(value: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.maxSkipped: .*allowed: a whole number") as error:
        load_run("tiny", [f"data.maxSkipped={value}"])
    assert "\n" not in str(error.value)
