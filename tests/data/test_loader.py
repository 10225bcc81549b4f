"""A rank's steps: the same samples however they are divided, broken files, processes that end."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import psutil
import pytest

from arlow_trainer.config import DataSection, Modality, ModelSection, SourceSection
from arlow_trainer.config.errors import DataError, ProcessKilled
from arlow_trainer.data import Source, StepBatch, StepLoader, open_source
from arlow_trainer.data.loader import token_costs
from support.loaders import training_on

GLOBAL_BATCH = 12
MODEL = ModelSection(depth=1, embed_dim=32, num_heads=2, hidden_size=32)


@pytest.fixture(scope="module")
def sources(image_folder: Path, video_folder: Path) -> Mapping[Modality, Source]:
    return {
        "image": open_source(SourceSection(path=str(image_folder)), "image"),
        "video": open_source(SourceSection(path=str(video_folder)), "video"),
    }


def loader(
    sources: Mapping[Modality, Source],
    rank: int = 0,
    ranks: int = 1,
    micro_batch: int = 4,
    workers: int = 0,
    start_step: int = 0,
    **data: object,
) -> StepLoader:
    settings: dict[str, object] = {"image_size": 56, "clip_frames": 4, **data}
    return StepLoader(
        training_on(DataSection.model_validate(settings), MODEL, seed=3),
        sources,
        global_batch_size=GLOBAL_BATCH,
        rank=rank,
        ranks=ranks,
        micro_batch=micro_batch,
        workers=workers,
        start_step=start_step,
    )


def contents(batches: list[StepBatch]) -> dict[int, tuple[object, ...]]:
    """What a step's samples are, by global index."""
    found: dict[int, tuple[object, ...]] = {}
    for batch in batches:
        for micro in batch.micro_batches:
            assert len(micro.frames) == len(micro.mask_seeds) == len(micro.indexes)
            for frames, mask_seed, index in zip(
                micro.frames, micro.mask_seeds, micro.indexes, strict=True
            ):
                assert index not in found
                pixels = hashlib.sha256(frames.numpy().tobytes()).hexdigest()
                found[index] = (micro.modality, tuple(frames.shape), pixels, mask_seed)
    return found


@pytest.fixture(scope="module")
def two_steps(sources: Mapping[Modality, Source]) -> list[dict[int, tuple[object, ...]]]:
    return [contents([batch]) for batch in islice(loader(sources), 2)]


def test_a_step_holds_its_indexes(two_steps: list[dict[int, tuple[object, ...]]]) -> None:
    for step, found in enumerate(two_steps):
        assert sorted(found) == list(range(step * GLOBAL_BATCH, (step + 1) * GLOBAL_BATCH))
        assert {(modality, shape) for modality, shape, _, _ in found.values()} == {
            ("image", (1, 56, 56, 3)),
            ("video", (4, 56, 56, 3)),
        }


@pytest.mark.parametrize(
    ("ranks", "workers", "micro_batch"), [(1, 2, 1), (2, 0, 4), (3, 0, 1), (2, 2, 4), (20, 0, 2)]
)
def test_samples_and_pixels_depend_on_none_of_ranks_workers_micro_batch(
    sources: Mapping[Modality, Source],
    two_steps: list[dict[int, tuple[object, ...]]],
    ranks: int,
    workers: int,
    micro_batch: int,
) -> None:
    shares = [
        list(islice(loader(sources, rank, ranks, micro_batch, workers), 2)) for rank in range(ranks)
    ]
    for step in range(2):
        assert [share[step].step for share in shares] == [step] * ranks
        assert contents([share[step] for share in shares]) == two_steps[step]


def test_resuming_is_running_through(
    sources: Mapping[Modality, Source], two_steps: list[dict[int, tuple[object, ...]]]
) -> None:
    (batch,) = islice(loader(sources, start_step=1), 1)
    assert batch.step == 1
    assert contents([batch]) == two_steps[1]


def test_micro_batches_hold_one_modality_and_fit(sources: Mapping[Modality, Source]) -> None:
    (batch,) = islice(loader(sources, micro_batch=4), 1)
    limits = {"image": 4, "video": 2}  # a clip of 4 frames is 2 images' tokens
    assert all(len(m.frames) <= limits[m.modality] for m in batch.micro_batches)


def test_the_global_random_state_is_left_alone(sources: Mapping[Modality, Source]) -> None:
    import torch

    before = torch.get_rng_state()
    list(islice(loader(sources), 1))
    assert torch.equal(torch.get_rng_state(), before)


@contextmanager
def broken_folder(image_folder: Path, tmp_path: Path, broken: int) -> Iterator[Path]:
    folder = tmp_path / "broken"
    shutil.copytree(image_folder, folder)
    whole = (folder / "rocket.jpg").read_bytes()
    for number in range(broken):
        (folder / f"torn-{number}.jpg").write_bytes(whole[: len(whole) // 2])
    yield folder


def test_a_broken_file_is_replaced_counted_and_named_once(
    image_folder: Path, tmp_path: Path
) -> None:
    with broken_folder(image_folder, tmp_path, 2) as folder:
        source = {"image": open_source(SourceSection(path=str(folder)), "image")}
        runs = [
            list(islice(loader(source, workers=workers, video_probability=0.0), 4))
            for workers in (0, 2)
        ]
    assert [contents([batch]) for batch in runs[0]] == [contents([batch]) for batch in runs[1]]
    assert all(len(contents([batch])) == GLOBAL_BATCH for batch in runs[0])
    for run in runs:
        skipped = [skipped for batch in run for skipped in batch.skipped]
        assert sorted(s.name for s in skipped) == [f"{folder}/torn-{n}.jpg" for n in (0, 1)]
        assert all("truncated" in s.reason for s in skipped)


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_broken_files_stop_the_run_and_are_named(
    image_folder: Path, tmp_path: Path, workers: int
) -> None:
    with broken_folder(image_folder, tmp_path, 4) as folder:
        source = {"image": open_source(SourceSection(path=str(folder)), "image")}
        steps = loader(source, workers=workers, video_probability=0.0, max_skipped=2)
        with pytest.raises(DataError, match=r"[34] files cannot be decoded, more than 2") as error:
            list(islice(steps, 20))
    assert "torn-" in str(error.value)
    assert "data.maxSkipped" in str(error.value)
    assert "Traceback" not in str(error.value)


def test_a_set_of_broken_files_alone_is_called_that(image_folder: Path, tmp_path: Path) -> None:
    names = [f"{number}.jpg" for number in range(3)]
    for name in names:
        shutil.copy(image_folder / "rocket.jpg", tmp_path / name)
    source = {"image": open_source(SourceSection(path=str(tmp_path)), "image")}
    for name in names:
        (tmp_path / name).write_bytes(b"torn")
    steps = loader(source, video_probability=0.0)
    with pytest.raises(DataError, match="every sample tried was broken, all 3 images of") as error:
        list(islice(steps, 1))
    assert all(name in str(error.value) for name in names)
    assert "maxSkipped" not in str(error.value)


def test_video_alone(sources: Mapping[Modality, Source]) -> None:
    (batch,) = islice(loader({"video": sources["video"]}, video_probability=1.0), 1)
    assert {micro.modality for micro in batch.micro_batches} == {"video"}


def test_token_costs_are_patches() -> None:
    assert token_costs(DataSection(), ModelSection()) == {"image": 256, "video": 2048}


def test_copying_a_sample_starts_no_threads(sources: Mapping[Modality, Source]) -> None:
    """torch divides a copy of more than 32,768 numbers among its threads, and waits for all."""
    import torch

    def others() -> int:
        """Threads that Python did not start."""
        return psutil.Process().num_threads() - threading.active_count()

    torch_threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        for workers in (0, 1):
            steps = iter(loader(sources, workers=workers, image_size=112, clip_frames=16))
            before = others()
            list(islice(steps, 6))
            assert others() == before
            steps.close()
        # As torch would in the thread that gathers.
        one, other = torch.empty(200_000, dtype=torch.uint8), torch.zeros(200_000).byte()
        teams: list[int] = []
        thread = threading.Thread(target=lambda: (one.copy_(other), teams.append(others())))
        thread.start()
        thread.join()
        assert teams[0] >= before + 3
    finally:
        torch.set_num_threads(torch_threads)


@pytest.mark.parametrize("workers", [0, 1])
def test_steps_that_nobody_holds_lend_their_memory_to_later_ones(
    sources: Mapping[Modality, Source], workers: int
) -> None:
    steps = iter(loader(sources, workers=workers))
    used = set()
    for _ in range(30):
        batch = next(steps)
        used.add(batch.micro_batches[0].frames.untyped_storage().data_ptr())
        del batch
    steps.close()
    # One with the rank, four ahead, one that waits, one that is filled; some gave way to larger.
    assert len(used) <= 14


def test_a_step_that_is_held_is_not_written_over(sources: Mapping[Modality, Source]) -> None:
    steps = iter(loader(sources, workers=1))
    held = list(islice(steps, 3))
    before = [contents([batch]) for batch in held]
    list(islice(steps, 12))
    assert [contents([batch]) for batch in held] == before
    steps.close()


def test_steps_are_decoded_and_gathered_ahead(sources: Mapping[Modality, Source]) -> None:
    """With its processes dead, the loader still has the steps that it was ahead."""
    steps = iter(loader(sources, workers=1))
    next(steps)
    (worker,) = workers_of(os.getpid())
    deadline = time.monotonic() + 60
    spent = -1.0
    while (now := sum(worker.cpu_times()[:2])) != spent:
        assert time.monotonic() < deadline
        spent = now
        time.sleep(1)
    worker.kill()
    ahead = [next(steps).step for _ in range(4)]
    assert ahead == [1, 2, 3, 4]
    with pytest.raises(ProcessKilled):
        list(islice(steps, 50))


RANK = """
    from arlow_trainer.config import DataSection, SourceSection, TrainingSection
    from arlow_trainer.data import StepLoader, open_source
    if __name__ == "__main__":
        source = open_source(SourceSection(path={folder!r}), "image")
        data = DataSection(image_size=56, video_probability=0)
        steps = iter(StepLoader(
            TrainingSection().model_copy(update={{"data": data}}), {{"image": source}},
            global_batch_size=4, rank=0, ranks=1, micro_batch=4, workers=2, start_step=0,
        ))
"""


def run_rank(image_folder: Path, then: str) -> subprocess.Popen[str]:
    """Starts a process that makes `steps` and continues with `then`."""
    script = textwrap.dedent(RANK).format(folder=str(image_folder))
    return subprocess.Popen(
        [sys.executable, "-c", script + textwrap.indent(textwrap.dedent(then), "    ")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def workers_of(pid: int) -> list[psutil.Process]:
    children = psutil.Process(pid).children()
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def test_workers_ignore_signals_and_die_with_their_rank(image_folder: Path) -> None:
    loop = """
        import sys
        for step in steps:
            print(step.step, flush=True)
            sys.stdin.readline()
    """
    with run_rank(image_folder, loop) as rank:
        assert rank.stdin is not None
        assert rank.stdout is not None
        assert rank.stdout.readline() == "0\n"
        workers = workers_of(rank.pid)
        assert len(workers) == 2
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
            worker.send_signal(signal.SIGINT)
        for step in range(1, 8):
            rank.stdin.write("\n")
            rank.stdin.flush()
            assert rank.stdout.readline() == f"{step}\n"
        rank.kill()
        deadline = time.monotonic() + 60
        while any(w.is_running() and w.status() != psutil.STATUS_ZOMBIE for w in workers):
            assert time.monotonic() < deadline, "workers outlived their rank"
            time.sleep(0.05)


def test_signals_to_workers_that_are_still_starting_do_not_end_them(image_folder: Path) -> None:
    loop = """
        import sys
        print("started", flush=True)
        sys.stdin.readline()
        print(next(steps).step, flush=True)
    """
    with run_rank(image_folder, loop) as rank:
        assert rank.stdin is not None
        assert rank.stdout is not None
        assert rank.stdout.readline() == "started\n"
        workers = workers_of(rank.pid)
        assert len(workers) == 2
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
            worker.send_signal(signal.SIGINT)
        _, messages = rank.communicate("\n", timeout=120)
        assert rank.returncode == 0, messages


@pytest.mark.parametrize(
    "then", ["next(steps)\nraise SystemExit(75)", "next(steps)\nraise ValueError", "pass"]
)
def test_a_rank_that_ends_in_the_middle_does_not_wait_for_its_workers(
    image_folder: Path, then: str
) -> None:
    with run_rank(image_folder, then) as rank:
        _, messages = rank.communicate(timeout=60)
    assert rank.returncode == {"S": 75, "V": 1, "p": 0}[then.split("raise ")[-1][0]]
    assert "leaked" not in messages


def test_too_little_shared_memory_is_explained(image_folder: Path) -> None:
    alone = ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c"]
    small = "mount -t tmpfs -o size=1m tmpfs /dev/shm"
    if subprocess.run([*alone, small], check=False, capture_output=True).returncode:
        pytest.skip("no mounts here: run it as root to see /dev/shm too small")
    script = textwrap.dedent(RANK).format(folder=str(image_folder))
    script = script.replace("image_size=56", "image_size=224")
    result = subprocess.run(
        [*alone, f'{small} && exec "$@"', "rank", sys.executable, "-c", script],
        check=False,
        capture_output=True,
        text=True,
    )
    assert "share 16 MiB, more than /dev/shm has left" in result.stderr


def test_clips_longer_than_a_job(sources: Mapping[Modality, Source]) -> None:
    settings = {"video_probability": 1.0, "clip_frames": 20, "frame_stride": 1}
    video = {"video": sources["video"]}
    here, there = (next(iter(loader(video, workers=w, **settings))) for w in (0, 1))
    assert here.micro_batches[0].frames.shape[1:] == (20, 56, 56, 3)
    assert contents([here]) == contents([there])


def test_a_dead_worker_is_explained(sources: Mapping[Modality, Source]) -> None:
    steps = iter(loader(sources, workers=1))
    next(steps)
    (worker,) = workers_of(os.getpid())
    worker.kill()
    with pytest.raises(ProcessKilled, match=r"a decoding process was killed by SIGKILL.*workers"):
        list(islice(steps, 50))


@pytest.mark.parametrize(("number", "name"), [(signal.SIGSEGV, "SIGSEGV"), (35, "signal 35")])
def test_a_crashed_worker_is_a_data_error(
    sources: Mapping[Modality, Source], number: int, name: str
) -> None:
    steps = iter(loader(sources, workers=1))
    next(steps)
    (worker,) = workers_of(os.getpid())
    worker.send_signal(number)
    with pytest.raises(DataError, match=f"a decoding process crashed with {name}"):
        list(islice(steps, 50))


def test_a_dead_worker_disturbs_no_other_work(sources: Mapping[Modality, Source]) -> None:
    """torch's own SIGCHLD handler raises wherever the main thread stands."""
    steps = iter(loader(sources, workers=1))
    next(steps)
    (worker,) = workers_of(os.getpid())
    worker.kill()
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        time.sleep(0.01)
    steps.close()
