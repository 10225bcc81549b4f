"""`arlow plan`."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from arlow_trainer.cli.app import app
from arlow_trainer.plan import HARDWARE

run = CliRunner()


def test_a_plan_is_tables() -> None:
    result = run.invoke(app, ["plan", "manifests/pretrain.yaml", "--gpu", "h100", "--gpu", "h200"])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["the", "run", "arlow-vision-3072"]
    assert any(
        line.startswith("GPUs") and "8 x h100" in line and "8 x h200" in line for line in lines
    )
    assert all(any(f" x {name} " in f"{line} " for line in lines) for name in HARDWARE)
    assert max(map(len, lines)) < 200


def test_a_plan_as_json_holds_all_gpus_and_parts() -> None:
    result = run.invoke(app, ["plan", "tiny", "--json"])
    found = json.loads(result.stdout)
    assert [device["gpu"] for device in found["devices"]] == list(HARDWARE)
    card = found["devices"][0]
    parts = card["choice"]["memory"]
    held = sum(
        parts[part] for part in ("parameters", "gradients", "optimizer", "buffers", "graphs")
    )
    assert parts["total"] == held + max(parts["activations"], parts["update"])
    seconds = card["seconds"]
    total, hidden = seconds.pop("total"), seconds.pop("hidden")
    assert total == sum(seconds.values())
    assert hidden > 0
    assert card["utilization"] > 0
    assert min(found["imageFlops"].values()) > 0


def test_a_gpu_that_a_run_does_not_fit_is_told_in_words() -> None:
    arguments = ["plan", "--gpu", "v100-16gb", "--set", "nodes.gpus=1"]
    result = run.invoke(app, arguments)
    assert result.exit_code == 0
    assert "1 x v100-16gb: the run needs" in result.stdout


def test_an_unknown_gpu_is_refused() -> None:
    result = run.invoke(app, ["plan", "--gpu", "gtx-1080"])
    assert "gtx-1080 is not known; allowed: rtx-8000" in str(result.exception)
