"""What a running process answers over HTTP to Prometheus and to people."""

from __future__ import annotations

import json
import math
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from threading import Event, Thread

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from telemetry_reports import make_readout, make_report

from arlow_trainer.config import RunStatus
from arlow_trainer.config.status import LastCheckpoint, Phase
from arlow_trainer.telemetry import STEP_PHASES, CheckpointReport, ResumeReport, Telemetry
from arlow_trainer.telemetry.server import TelemetryServer

Start = Callable[..., Telemetry]
SAVED = datetime(2026, 1, 1, tzinfo=UTC)


def checkpoint_500(overflows: int = 0) -> ResumeReport:
    checkpoint = LastCheckpoint(url="s3://b/quick/checkpoint-500", step=500, time=SAVED)
    return ResumeReport(checkpoint, total_steps=900, loss=0.7, overflows=overflows)


def get(port: int, path: str, host: str = "127.0.0.1") -> str:
    with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=5) as answer:
        return str(answer.read().decode())


def samples(port: int) -> dict[str, float]:
    """Every sample on /metrics by name and labels, the run's label left out."""
    found = {}
    for family in text_string_to_metric_families(get(port, "/metrics")):
        for sample in family.samples:
            labels = {key: value for key, value in sample.labels.items() if key != "run"}
            assert sample.labels["run"] == "quick"
            name = sample.name + "".join(f"[{value}]" for value in labels.values())
            found[name] = sample.value
    return found


def busy_run(telemetry: Telemetry) -> None:
    telemetry.phase("training")
    for step in range(1, 21):
        readout = make_readout(overflows=step // 10) if step % 10 == 0 else None
        telemetry.step(make_report(step, readout=readout))
    telemetry.checkpoint(CheckpointReport(20, "s3://b/quick/checkpoint-20", 3.0, 4096, 0.2))
    telemetry.checkpoint_failed(21, "the store refused")
    telemetry.skipped("a.jpg", "truncated")


def test_metrics_of_a_run(telemetry: Start, free_port: int) -> None:
    busy_run(telemetry())
    found = samples(free_port)
    expected = {
        "arlow_images_total": 480,
        "arlow_video_clips_total": 160,
        "arlow_tokens_total": 40_000,
        "arlow_steps_total": 20,
        "arlow_global_step": 20,
        "arlow_planned_steps": 100,
        "arlow_step_seconds_count": 20,
        "arlow_step_phase_seconds_total[data]": 2.0,
        "arlow_step_phase_seconds_total[checkpoint]": 0.0,
        "arlow_loss": 0.5,
        "arlow_image_loss": 0.45,
        "arlow_video_loss": 0.65,
        "arlow_learning_rate": 1e-4,
        "arlow_grad_norm": 0.8,
        "arlow_grad_norm_max": 1.5,
        "arlow_loss_scale": 65536,
        "arlow_overflow_steps_total": 2,
        "arlow_max_attention_logit": 12,
        "arlow_rank_skew_seconds": 0.02,
        "arlow_gpu_memory_bytes": 2e9,
        "arlow_model_flops_utilization_ratio": 0.002,
        "arlow_median_step_seconds": 0.5,
        "arlow_eta_seconds": 40,
        "arlow_skipped_samples_total": 1,
        "arlow_checkpoints_total": 1,
        "arlow_checkpoint_failures_total": 1,
        "arlow_checkpoint_duration_seconds": 3,
        "arlow_checkpoint_stall_seconds": 0.2,
        "arlow_checkpoint_bytes": 4096,
        "arlow_run_phase[training]": 1,
        "arlow_run_phase[failed]": 0,
        "arlow_non_finite_steps_total": 0,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert found["arlow_last_step_timestamp_seconds"] >= found["arlow_run_start_timestamp_seconds"]
    assert not [name for name in found if name.endswith("_created")]


def test_counters_start_at_zero_and_what_does_not_apply_is_absent(
    telemetry: Start, free_port: int
) -> None:
    started = telemetry(peak_flops=None)
    before = samples(free_port)
    assert before["arlow_steps_total"] == 0
    assert all(before[f"arlow_step_phase_seconds_total[{phase}]"] == 0 for phase in STEP_PHASES)
    started.step(make_report(1, readout=make_readout(loss_scale=None, video_loss=None)))
    later = samples(free_port)
    absent = {"arlow_loss_scale", "arlow_video_loss", "arlow_model_flops_utilization_ratio"}
    assert not absent & later.keys()


def test_lost_steps_are_counted_and_reported(telemetry: Start, free_port: int) -> None:
    kinds: list[str] = []
    started = telemetry(record_event=lambda kind, **fields: kinds.append(kind))
    started.lost_step("step 3 was skipped: numbers were not finite in the loss")
    assert samples(free_port)["arlow_non_finite_steps_total"] == 1
    assert started.status().message.startswith("step 3 was skipped")
    assert kinds == ["start", "warning"]


def test_an_overflowed_step_leaves_the_last_gradient_norm(telemetry: Start, free_port: int) -> None:
    started = telemetry()
    started.step(make_report(1, readout=make_readout()))
    started.step(make_report(2, readout=make_readout(grad_norm=math.inf)))
    assert samples(free_port)["arlow_grad_norm"] == 0.8


def test_overflows_from_before_a_resume_are_not_counted_again(
    telemetry: Start, free_port: int
) -> None:
    resumed = telemetry()
    resumed.resumed(checkpoint_500(overflows=12))
    for step in (510, 520):
        resumed.step(make_report(step, readout=make_readout(overflows=12 + step // 10 - 50)))
    assert samples(free_port)["arlow_overflow_steps_total"] == 2


def test_a_resumed_run_shows_the_step_of_its_checkpoint(telemetry: Start, free_port: int) -> None:
    events: list[tuple[str, dict[str, object]]] = []
    started = telemetry(record_event=lambda kind, **fields: events.append((kind, fields)))
    started.resumed(checkpoint_500())
    found = samples(free_port)
    assert found["arlow_global_step"] == found["arlow_checkpoint_step"] == 500
    assert found["arlow_planned_steps"] == 900
    assert found["arlow_checkpoint_last_success_timestamp_seconds"] == SAVED.timestamp()
    assert found["arlow_checkpoints_total"] == 0, "written by another process"
    status = RunStatus.model_validate_json(get(free_port, "/status"))
    assert (status.step, status.total_steps, status.loss) == (500, 900, 0.7)
    assert status.last_checkpoint is not None
    assert status.last_checkpoint.url == "s3://b/quick/checkpoint-500"
    assert events[-1] == ("resume", {"step": 500, "url": "s3://b/quick/checkpoint-500"})


def test_skipped_samples_of_all_ranks_are_counted_once(telemetry: Start, free_port: int) -> None:
    started = telemetry()
    started.skipped("a.jpg", "truncated")
    started.step(make_report(1, readout=make_readout(skipped_samples=3)))
    started.step(make_report(2, readout=make_readout(skipped_samples=3)))
    assert samples(free_port)["arlow_skipped_samples_total"] == 3


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is missing: apt-get install prometheus"
)
def test_promtool_finds_nothing(telemetry: Start, free_port: int) -> None:
    busy_run(telemetry())
    text = get(free_port, "/metrics")
    check = subprocess.run(
        ["promtool", "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (check.returncode, check.stdout, check.stderr) == (0, "", "")


def test_status_is_the_contract(telemetry: Start, free_port: int) -> None:
    busy_run(telemetry())
    raw = json.loads(get(free_port, "/status"))
    contract = {
        "phase", "step", "totalSteps", "loss", "imagesPerSecond", "etaSeconds", "lastStepTime",
        "medianStepSeconds", "lastCheckpoint", "message",
    }  # fmt: skip
    assert contract <= raw.keys()
    assert raw["lastCheckpoint"].keys() == {"url", "step", "time"}
    status = RunStatus.model_validate(raw)
    assert (status.phase, status.step) == ("training", 20)
    assert status.message == "skipped a.jpg: truncated"


def test_health_and_unknown_paths(telemetry: Start, free_port: int) -> None:
    telemetry()
    assert get(free_port, "/healthz") == "ok\n"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(free_port, "/other")


def test_openmetrics_is_answered_when_asked_for(telemetry: Start, free_port: int) -> None:
    telemetry()
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    request = urllib.request.Request(f"http://127.0.0.1:{free_port}/metrics", headers=accept)
    with urllib.request.urlopen(request, timeout=5) as answer:
        assert answer.read().endswith(b"# EOF\n")


def test_a_port_in_use_is_a_warning(
    telemetry: Start, free_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("", free_port)):
        started = telemetry()
        busy_run(started)
    assert started.status().step == 20
    out = capsys.readouterr().out
    assert f"port {free_port}: /metrics and /status are not served: Address already in use" in out


def test_other_ranks_serve_nothing(telemetry: Start, free_port: int) -> None:
    busy_run(telemetry(rank=1))
    with pytest.raises(urllib.error.URLError):
        get(free_port, "/status")


@pytest.mark.parametrize("phase", ["finished", "failed"])
def test_a_scraper_reads_how_the_run_ended(telemetry: Start, free_port: int, phase: Phase) -> None:
    started = telemetry()
    started.phase("training")
    assert samples(free_port)["arlow_run_phase[training]"] == 1
    started.phase(phase)
    closing = Thread(target=started.close)
    closing.start()
    time.sleep(0.2)
    assert samples(free_port)[f"arlow_run_phase[{phase}]"] == 1
    closing.join(5)
    assert not closing.is_alive()


def test_a_watcher_reads_how_the_run_ended(telemetry: Start, free_port: int) -> None:
    started = telemetry()
    started.phase("training")
    assert json.loads(get(free_port, "/status"))["phase"] == "training"
    samples(free_port)
    started.phase("finished")
    closing = Thread(target=started.close)
    closing.start()
    samples(free_port)
    assert json.loads(get(free_port, "/status"))["phase"] == "finished", (
        "the end waits for both readers"
    )
    closing.join(5)
    assert not closing.is_alive()


def test_the_end_waits_for_no_reader_that_has_read_it(telemetry: Start, free_port: int) -> None:
    started = telemetry()
    started.phase("finished")
    samples(free_port)
    get(free_port, "/status")
    began = time.monotonic()
    started.close()
    assert time.monotonic() - began < 5


def test_a_reader_that_is_being_answered_is_waited_for() -> None:
    asked, answer = Event(), Event()

    def status() -> RunStatus:
        asked.set()
        assert answer.wait(30)
        return RunStatus(run="quick", phase="finished", started_at=SAVED)

    server = TelemetryServer(0, CollectorRegistry(), status)
    since = time.monotonic()
    reading = Thread(target=get, args=(server.port, "/status"))
    waiting = Thread(target=server.wait_for_readers, args=(since, 30.0))
    reading.start()
    assert asked.wait(30)
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive()
    answer.set()
    waiting.join(10)
    reading.join(10)
    assert not waiting.is_alive()
    server.close()


@pytest.mark.parametrize(("phase", "scraped"), [("finished", False), ("saving", True)])
def test_the_end_waits_for_no_reader_that_is_not_there_or_learns_nothing(
    telemetry: Start, free_port: int, phase: Phase, scraped: bool
) -> None:
    started = telemetry()
    if scraped:
        samples(free_port)
    started.phase(phase)
    closing = Thread(target=started.close)
    closing.start()
    closing.join(5)
    assert not closing.is_alive()


def test_closing_frees_the_port(telemetry: Start, free_port: int) -> None:
    telemetry().close()
    with socket.create_server(("", free_port)):
        pass


def test_stacks_are_written_at_most_every_ten_seconds(telemetry: Start, free_port: int) -> None:
    written: list[float] = []
    telemetry(write_stacks=lambda: written.append(time.monotonic()))
    assert "written to the log" in get(free_port, "/stacks")
    for _ in range(3):
        with pytest.raises(urllib.error.HTTPError, match="429"):
            get(free_port, "/stacks")
    assert len(written) == 1


def test_a_process_that_cannot_write_stacks_has_no_such_path(
    telemetry: Start, free_port: int
) -> None:
    telemetry()
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(free_port, "/stacks")
