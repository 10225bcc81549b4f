"""`arlow report`."""

from __future__ import annotations

from pathlib import Path

import pytest

from arlow_trainer.storage.store import Store
from support.stored_run import save_checkpoint, tiny_run

pytestmark = pytest.mark.usefixtures("empty_folder")


def test_the_report_of_a_run(arlow, store: Store) -> None:
    code, out, _ = arlow("report", store.url)
    assert code == 0
    assert "wrote the report to report.html" in out
    assert Path("report.html").read_text().startswith("<!doctype html>")


def test_a_step_chooses_the_checkpoint_of_card_and_configuration(arlow, store: Store) -> None:
    save_checkpoint(store, tiny_run(maskRatio=0.5), 20)
    for options, ratio in (((), "0.5"), (("--step", "10"), "0.75")):
        assert arlow("report", store.url, *options)[0] == 0
        assert f"maskRatio: {ratio}" in Path("report.html").read_text()


def test_a_report_without_a_run_is_refused(arlow, tmp_path: Path) -> None:
    code, _, err = arlow("report", str(tmp_path / "none"))
    assert code == 74
    assert "holds no run" in err
    assert not Path("report.html").exists()
