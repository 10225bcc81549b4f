"""`arlow probe`."""

from __future__ import annotations

import json
from pathlib import Path

from arlow_trainer.storage.store import Store


def lines(store: Store) -> list[dict]:
    return [json.loads(line) for line in store.read_bytes("probe.jsonl").splitlines()]


def test_the_table_and_the_record(arlow, store: Store, folder: Path) -> None:
    code, out, err = arlow("probe", store.url, "--data", str(folder))
    assert (code, err) == (0, "")
    for text in ("tiny-run, step 10", "pretrained", "random weights", "margin", "±", "2 classes"):
        assert text in out
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
    # `save_checkpoint` saves the run's initial weights, which are those of the baseline.
    for line in (knn, linear):
        assert 0 <= line["accuracy"] == line["baseline"] <= 1


def test_json_lines_are_those_of_the_record(arlow, store: Store, folder: Path) -> None:
    for _ in range(2):
        code, out, _ = arlow(
            *("probe", store.url, "--step=10", "--data", str(folder)),
            *("--limit=6", "--neighbors=3", "--json"),
        )
        assert code == 0
    assert len(lines(store)) == 4
    assert [json.loads(line) for line in out.splitlines()] == lines(store)[2:]
    assert lines(store)[2]["samples"] == {"train": 6, "test": 6}
    assert lines(store)[2]["neighbors"] == 3
    first, second = lines(store)[0], lines(store)[2]
    assert first | {"time": ""} == second | {"time": ""}


def test_a_broken_image_is_reported(arlow, store: Store, folder: Path) -> None:
    (folder / "test" / "down" / "1.png").write_bytes(b"no image")
    code, _, err = arlow("probe", store.url, "--data", str(folder))
    assert code == 0
    assert "warning:" in err
    assert "skipped 1 images that cannot be decoded" in err
    assert lines(store)[0]["samples"] == {"train": 12, "test": 7}


def test_mistakes_end_in_a_message_and_an_exit_code(arlow, store: Store, folder: Path) -> None:
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


def test_credentials_in_a_url_are_refused(arlow, store: Store) -> None:
    for arguments in (
        ("probe", store.url, "--data", "http://user:SECRET@host/x"),
        ("probe", "s3://KEY:SECRET@bucket/run", "--data", "./x"),
        ("logs", "s3://KEY:SECRET@bucket/run"),
        ("watch", "s3://KEY:SECRET@bucket/run"),
    ):
        code, out, err = arlow(*arguments)
        assert code == 78
        assert "environment" in err
        assert "SECRET" not in out + err
        assert "Traceback" not in err
