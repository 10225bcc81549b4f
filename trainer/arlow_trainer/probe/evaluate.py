"""Probes a checkpoint: its tower, and the same tower with random weights, on a labelled set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import torch

from arlow_trainer.checkpoint.load import load_autoencoder
from arlow_trainer.checkpoint.location import newest_step
from arlow_trainer.checkpoint.reader import read_manifest
from arlow_trainer.config import ProbeSection
from arlow_trainer.engine import build_autoencoder
from arlow_trainer.probe.features import split_features
from arlow_trainer.probe.labelled import open_labelled
from arlow_trainer.probe.results import ProbeResult, compare
from arlow_trainer.probe.stored import PROBE_FILE
from arlow_trainer.storage.jsonl import StoredLines
from arlow_trainer.storage.store import Store

NEIGHBORS = 20


@dataclass(frozen=True)
class Probed:
    """Results of probing a checkpoint.

    Attributes:
        run: the run's name.
        step: the checkpoint's step.
        data: the labelled set's path, with its configuration's name where it has one.
        classes: number of classes.
        samples: number of samples of each split, "train" and "test".
        broken: number of images skipped because they cannot be decoded.
        results: one for each method.
    """

    run: str
    step: int
    data: str
    classes: int
    samples: dict[str, int]
    broken: int
    results: Sequence[ProbeResult]


def run_probe(
    store: Store,
    step: int | None,
    section: ProbeSection,
    neighbors: int = NEIGHBORS,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Probed:
    """Probes a checkpoint of a run on a labelled set.

    Images have the run's image size and are normalised as in training. The random weights are the
    run's initial weights. Uses a GPU where there is one.

    Args:
        store: the run's store.
        step: the checkpoint's step; None takes the newest complete one.
        section: the labelled set.
        neighbors: k of k-nearest neighbours.
        on_progress: called with the number of images processed so far, and of all images.

    Raises:
        StoreError: there is no such checkpoint, or it is damaged.
        DataError, CredentialsError: the set cannot be read or has no usable labels.
    """
    # Check first what is cheap to check: data and weights take long to fetch.
    step = read_manifest(store, newest_step(store) if step is None else step).step
    labelled = open_labelled(section)
    module, run, state = load_autoencoder(store, step)
    training = run.spec.training
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    random = build_autoencoder(training).eval().requires_grad_(False)
    towers = [each.to(device).tower for each in (module, random)]
    total, done = len(labelled.train) + len(labelled.test), 0

    def advance(images: int) -> None:
        nonlocal done
        done += images
        on_progress(done, total)

    size = training.data.image_size
    train, broken_train = split_features(towers, labelled.train, size, advance)
    test, broken_test = split_features(towers, labelled.test, size, advance)
    tower, baseline = zip(train, test, strict=True)
    name = section.data.name
    return Probed(
        run=run.metadata.name,
        step=state.step,
        data=section.data.path if name is None else f"{section.data.path} ({name})",
        classes=labelled.classes,
        samples={"train": len(train[0]), "test": len(test[0])},
        broken=broken_train + broken_test,
        results=compare(tower, baseline, labelled.classes, neighbors),
    )


def to_records(probed: Probed) -> list[dict[str, object]]:
    """Returns the results as records of `probe.jsonl`."""
    now = datetime.now(UTC)
    return [
        result.to_record(probed.step, probed.data, probed.samples, now) for result in probed.results
    ]


def append_records(store: Store, records: Sequence[dict[str, object]]) -> None:
    """Appends records to the run's `probe.jsonl`. Raises StoreError, CredentialsError."""
    StoredLines(store, PROBE_FILE).append_json(records)
