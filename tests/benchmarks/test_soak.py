"""The soak: its drawing, its judgement, its proxy, and a few faults over a real run."""

from __future__ import annotations

import http.client
import http.server
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.soak.faults import (  # noqa: E402
    FAULTS_PER_RUN,
    GRACE_S,
    KINDS,
    MAX_ENDING,
    Fault,
    Mode,
    Phase,
    fits,
    next_fault,
    plan_runs,
)
from benchmarks.soak.judge import Attempted, problems_of  # noqa: E402
from benchmarks.soak.page import BEGIN, END, write_between_markers  # noqa: E402
from benchmarks.soak.phases import first_step, last_step, phase_of, resumed_at  # noqa: E402
from benchmarks.soak.proxy import SLOW_S, FaultyProxy, faulty_proxy  # noqa: E402

from arlow_trainer.config.ending import Ending  # noqa: E402
from arlow_trainer.config.errors import ExitCode  # noqa: E402
from support.s3_server import S3Unavailable, find_weed  # noqa: E402


def test_a_few_faults_change_no_weight(tmp_path: Path) -> None:
    """The soak in its quick form: a run on two ranks, on a real S3 server behind the proxy."""
    try:
        find_weed()
    except S3Unavailable as error:
        pytest.skip(str(error))
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    command = [sys.executable, "-m", "benchmarks.soak", "--seed", "2", "--faults", "3"]
    command += ["--out", str(page)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all weights are those of runs that were never cut" in done.stdout
    before, text, after = page.read_text().partition(BEGIN)[0], page.read_text(), "after"
    assert before == "before\n"
    assert text.endswith(f"{END}\n{after}\n")
    assert "old" not in text
    assert text.count("| 1: S3, 2 ranks, 0 decoding each |") == 3


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 130))
def test_as_many_faults_as_asked_each_where_it_can_be_met(seed: int, count: int) -> None:
    plans = plan_runs(seed, count)
    assert plans == plan_runs(seed, count)
    assert sum(len(plan.faults) for plan in plans) == count
    for plan in plans:
        ending = [fault.phase is Phase.ENDING for fault in plan.faults]
        assert len(ending) <= FAULTS_PER_RUN
        assert sum(ending) <= MAX_ENDING
        assert ending == sorted(ending)
        for fault in plan.faults:
            assert fits(fault.kind, plan.shape)
            assert fault.phase in fault.kind.phases


@given(seed=st.integers(0, 2**32))
def test_sixty_faults_are_of_every_kind_and_everywhere(seed: int) -> None:
    faults = [fault for plan in plan_runs(seed, 60) for fault in plan.faults]
    assert {fault.kind.name for fault in faults} == {kind.name for kind in KINDS}
    assert {fault.phase for fault in faults} == set(Phase)


def fault(phase: Phase, ends: bool = True, grace_s: float = GRACE_S) -> Fault:
    kind = next(
        kind for kind in KINDS if kind.ends == ends and (not ends or kind.grace_s == grace_s)
    )
    return Fault(kind, phase, 0.5, 3.0)


@pytest.mark.parametrize(
    ("faults", "phase", "expected"),
    [
        ([fault(Phase.SAVING), fault(Phase.STEPPING)], Phase.STARTING, 0),
        ([fault(Phase.LOADING), fault(Phase.STEPPING)], Phase.SAVING, 1),
        ([fault(Phase.STARTING), fault(Phase.LOADING)], Phase.LOADING, 1),
        ([fault(Phase.SAVING), fault(Phase.ENDING)], Phase.ENDING, 1),
        ([fault(Phase.SAVING)], Phase.PRUNING, 0),
        ([fault(Phase.LOADING)], Phase.STEPPING, None),
        ([fault(Phase.SAVING, grace_s=1.0), fault(Phase.SAVING)], Phase.STEPPING, 1),
        ([fault(Phase.SAVING, ends=False)], Phase.STEPPING, 0),
        ([], Phase.STEPPING, None),
    ],
)
def test_the_next_fault_is_one_that_can_still_be_met(
    faults: list[Fault], phase: Phase, expected: int | None
) -> None:
    found = next_fault(faults, phase, GRACE_S)
    assert found is (None if expected is None else faults[expected])


LOADING = "05:18:51 [info     ] loading: opening the data\n"
RESUMING = "05:18:53 [info     ] loading: resuming from s3://runs/a/small/checkpoint-8\n"
TRAINING = f"{LOADING}05:19:00 [info     ] training: from step 0 to 40, micro-batch 5\n"
STEP = f"{TRAINING}05:19:10 [info     ] step 1/40  loss 1.6\n"
STEPS = f"{STEP}05:19:10 [info     ] step 1,012/4,000  loss 1.6\n"
WHOLE = ["checkpoint-4/manifest.json", "checkpoint-4/a", "checkpoint-4/b"]


@pytest.mark.parametrize(
    ("log", "names", "expected"),
    [
        ("", [], Phase.STARTING),
        (LOADING, WHOLE, Phase.LOADING),
        (TRAINING, [], None),
        (STEP, WHOLE, Phase.STEPPING),
        (STEP, ["events.jsonl", *WHOLE, "checkpoint-8/save.json"], Phase.SAVING),
        (STEP, [*WHOLE, "checkpoint-8/save.json", "checkpoint-8/a"], Phase.SAVING),
        (STEP, [*WHOLE, "checkpoint-8/save.json", "checkpoint-8/a", "checkpoint-8/b"],
         Phase.COMMITTING),
        (STEP, [*WHOLE, "checkpoint-2/save.json", "checkpoint-2/a"], Phase.PRUNING),
        (f"{STEP}05:19:26 [info     ] saving\n", WHOLE, Phase.ENDING),
    ],
)  # fmt: skip
def test_where_a_run_is(log: str, names: list[str], expected: Phase | None) -> None:
    assert phase_of(log, names, complete=2) is expected


def test_steps_of_a_log() -> None:
    assert (first_step(STEPS), last_step(STEPS), last_step(LOADING)) == (1, 1012, 0)
    assert resumed_at(LOADING) is None
    assert resumed_at(STEPS) == 0
    assert resumed_at(LOADING + RESUMING) == 8
    assert resumed_at("finished: all 1,060 steps were done before") == 1060


def attempted(code: int, ending: Ending | None, log: str = "") -> Attempted:
    return Attempted(code, None if ending is None else ending.line().encode(), log)


KILLED = Ending.of(ExitCode.KILLED, "killed", rank=1, step=10, saved=8)


@pytest.mark.parametrize(
    ("ended", "allowed", "message", "words"),
    [
        (attempted(5, KILLED), {5}, True, None),
        (attempted(-9, None), {-9}, False, None),
        (attempted(0, Ending.of(ExitCode.FINISHED, "", step=60, saved=60)), {0}, True, None),
        (attempted(5, KILLED), {75}, True, "ended with 5, expected [75]"),
        (attempted(1, None), {1}, False, "not documented"),
        (attempted(5, None), {5}, True, "no termination message"),
        (Attempted(5, b"{", ""), {5}, True, "no termination message"),
        (attempted(70, KILLED), {70}, True, "says 5, not 70"),
        (attempted(5, KILLED.model_copy(update={"cause": "crash"})), {5}, True, "'crash'"),
        (attempted(5, KILLED.model_copy(update={"finished": True})), {5}, True, "finished is"),
        (attempted(5, KILLED.model_copy(update={"step": 17})), {5}, True, "9 steps after"),
        (attempted(5, KILLED, "internal error (a bug)"), {5}, True, "internal error"),
    ],
)
def test_how_an_attempt_may_end(
    ended: Attempted, allowed: set[int], message: bool, words: str | None
) -> None:
    problems = problems_of(ended, allowed, message, most_lost=8)
    if words is None:
        assert problems == []
    else:
        assert any(words in problem for problem in problems), problems


class Answering(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def proxy() -> Iterator[FaultyProxy]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with faulty_proxy(f"http://127.0.0.1:{server.server_port}") as proxy:
            yield proxy
        server.shutdown()


def ask(proxy: FaultyProxy, timeout_s: float = 30.0) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(
        proxy.endpoint.removeprefix("http://"), timeout=timeout_s
    )
    try:
        connection.request("PUT", "/a", body=b"x" * 300_000)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_fine_and_a_slow_way(proxy: FaultyProxy) -> None:
    assert ask(proxy) == (200, b"x" * 300_000)
    proxy.change(Mode.SLOW)
    began = time.monotonic()
    assert ask(proxy) == (200, b"x" * 300_000)
    assert time.monotonic() - began >= SLOW_S


@pytest.mark.parametrize("mode", [Mode.AWAY, Mode.CUT, Mode.SILENT])
def test_a_broken_way_answers_nothing_and_is_mended(proxy: FaultyProxy, mode: Mode) -> None:
    proxy.change(mode)
    assert not proxy.met
    for _ in range(2):
        with pytest.raises((OSError, http.client.HTTPException)):
            ask(proxy, timeout_s=0.5)
    assert proxy.met
    proxy.change(Mode.FINE)
    assert ask(proxy)[0] == 200


@pytest.mark.parametrize(("mode", "status"), [(Mode.BUSY, 503), (Mode.FORBIDDEN, 403)])
def test_a_refusing_way_says_so(proxy: FaultyProxy, mode: Mode, status: int) -> None:
    proxy.change(mode)
    found, body = ask(proxy)
    assert found == status
    assert body.endswith(b"</Error>")
    proxy.change(Mode.FINE)
    assert ask(proxy)[0] == 200


def test_a_silence_that_ends_loses_nothing(proxy: FaultyProxy) -> None:
    proxy.change(Mode.SILENT)
    threading.Timer(1.0, proxy.change, [Mode.FINE]).start()
    assert ask(proxy) == (200, b"x" * 300_000)


def test_the_tests_that_the_page_names_exist() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text()
    path = Path()
    named = re.findall(r"`(tests/\S+\.py)?::(\w+)`", page)
    assert len(named) > 20
    for file, name in named:
        path = ROOT / file if file else path
        assert f"def {name}(" in path.read_text(), f"{path.name}::{name}"


def test_a_page_without_markers_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{BEGIN} alone")
    with pytest.raises(SystemExit, match="no markers"):
        write_between_markers(page, "text")
