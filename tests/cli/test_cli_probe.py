"""`arlow probe`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from arlow_trainer.cli import main
from arlow_trainer.storage.store import Store


@pytest.fixture
def arlow(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs a command; returns exit code, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["arlow", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


def lines(store: Store) -> list[dict]:
    return [json.loads(line) for line in store.read_bytes("probe.jsonl").splitlines()]


def test_the_table_and_the_record(arlow, store: Store, folder: Path) -> None:
    code, out, err = arlow("probe", store.url, "--data", str(folder))
    assert (code, err) == (0, "")
    for words in ("tiny-run, step 10", "pretrained", "random weights", "margin", "±", "2 classes"):
        assert words in out
    knn, linear = lines(store)
    assert set(knn) == {
        *("time", "step", "method", "accuracy", "spread", "baseline", "baseline_spread"),
        *("data", "samples", "neighbors"),
    }
    assert (knn["method"], linear["method"]) == ("knn", "linear")
    assert (knn["neighbors"], linear["neighbors"]) == (20, None)
    assert knn["step"] == 10
    assert knn["data"] == str(folder)
    assert knn["samples"] == {"train": 12, "test": 8}
    # `save_checkpoint` saves the run's own weights of before its first step.
    for line in (knn, linear):
        assert 0 <= line["accuracy"] == line["baseline"] <= 1


def test_json_lines_are_those_of_the_record(arlow, store: Store, folder: Path) -> None:
    for _ in range(2):
        code, out, _ = arlow(
            *("probe", f"{store.url}/checkpoint-10", "--data", str(folder)),
            *("--limit=6", "--neighbors=3", "--json"),
        )
        assert code == 0
    assert len(lines(store)) == 4
    assert [json.loads(line) for line in out.splitlines()] == lines(store)[2:]
    assert lines(store)[2]["samples"] == {"train": 6, "test": 6}
    assert lines(store)[2]["neighbors"] == 3
    first, second = lines(store)[0], lines(store)[2]
    assert first | {"time": ""} == second | {"time": ""}


def test_a_broken_picture_is_told(arlow, store: Store, folder: Path) -> None:
    (folder / "test" / "down" / "1.png").write_bytes(b"no picture")
    code, _, err = arlow("probe", store.url, "--data", str(folder))
    assert code == 0
    assert "warning:" in err
    assert "1 pictures cannot be decoded and are left out" in err
    assert lines(store)[0]["samples"] == {"train": 12, "test": 7}


def test_mistakes_end_in_words(arlow, store: Store, folder: Path) -> None:
    code, _, err = arlow("probe", store.url, "--data", str(folder), "--label", "kind")
    assert code == 65
    assert "error:" in err
    assert "name one with --label" in err
    code, _, err = arlow("probe", store.url, "--data", str(folder), "--step", "11")
    assert code == 74
    assert "is no checkpoint" in err
    code, _, err = arlow("probe", f"{store.url}-not", "--data", str(folder))
    assert code == 74
    assert "holds no complete checkpoint" in err
    assert not store.exists("probe.jsonl")
