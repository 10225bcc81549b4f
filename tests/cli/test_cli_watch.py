"""`arlow watch`."""

from __future__ import annotations

from pathlib import Path


def test_watching_what_is_no_run_is_reported(arlow, tmp_path: Path) -> None:
    code, _, err = arlow("watch", str(tmp_path / "none"), "--once")
    assert code == 78
    assert f"{tmp_path}/none: neither a run's folder, nor a manifest, nor a preset" in err
