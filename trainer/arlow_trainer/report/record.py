"""Reads everything in a run's store that its report shows."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from PIL import Image

from arlow_trainer.checkpoint.contents import list_readable
from arlow_trainer.checkpoint.export import CARD
from arlow_trainer.checkpoint.layout import checkpoint_name
from arlow_trainer.checkpoint.reader import CheckpointInfo, read_manifest
from arlow_trainer.checkpoint.saver import read_state
from arlow_trainer.checkpoint.training_state import TRAINING_STATE, TrainingState, saved_run
from arlow_trainer.config import ArlowPretrain, RunStatus
from arlow_trainer.config.errors import StoreError
from arlow_trainer.config.shown_text import redact_urls
from arlow_trainer.pictures.drawing import DESCRIPTION
from arlow_trainer.pictures.stored import StoredPicture, list_pictures
from arlow_trainer.probe.stored import PROBE_FILE, Probe, read_probes
from arlow_trainer.report.curves import read_curve
from arlow_trainer.storage.errors import MissingObject, UnreadableObject
from arlow_trainer.storage.events import Event, read_events
from arlow_trainer.storage.jsonl import read_lines
from arlow_trainer.storage.store import Store
from arlow_trainer.telemetry import STATUS_FILE, HistoryPoint
from arlow_trainer.telemetry.status_source import NoAnswer, parse_status

MAX_PICTURES = 8
MAX_PIXELS = 50_000_000
_WEBP_QUALITY = 82

T = TypeVar("T")


@dataclass(frozen=True)
class Picture:
    """A reconstruction of the gallery: a WebP file, its size in pixels and its description."""

    step: int
    modality: str
    webp: bytes
    width: int
    height: int
    description: str


@dataclass(frozen=True)
class Record:
    """The contents of a run's store; what is not there yet is None or empty.

    `run`, `state` and `card` are those of one checkpoint. `unread` are the reasons why parts are
    missing that cannot be read.
    """

    url: str
    status: RunStatus | None
    history: Sequence[HistoryPoint]
    events: Sequence[Event]
    checkpoints: Sequence[CheckpointInfo]
    run: ArlowPretrain | None
    state: TrainingState | None
    card: str
    probes: Sequence[Probe]
    pictures: Sequence[Picture]
    unread: Sequence[str] = ()


def read_record(store: Store, step: int | None = None) -> Record:
    """Reads the contents of a run's store.

    Args:
        store: the run's store.
        step: the checkpoint whose configuration, state and card to read; None takes the newest
            complete one.

    Raises:
        StoreError: the store cannot be read, it holds no run, or there is no such checkpoint.
    """
    unread: list[str] = []

    def readable(read: Callable[[], T], otherwise: T) -> T:
        try:
            return read()
        except UnreadableObject as error:
            unread.append(str(error))
            return otherwise

    checkpoints = list_readable(store)
    valid = [info.step for info in checkpoints if info.valid]
    chosen = step if step is not None else max(valid, default=None)
    run, state, card = None, None, ""
    if chosen is not None:
        read_manifest(store, chosen)  # which says so where there is no such checkpoint
        state = read_state(store, chosen)
        run = saved_run(state, store.url_of(f"{checkpoint_name(chosen)}/{TRAINING_STATE}"))
        text = readable(lambda: _text(store, f"{checkpoint_name(chosen)}/{CARD}"), None)
        card = redact_urls(text or "")
    status = readable(lambda: _status(store), None)
    history: list[HistoryPoint] = readable(lambda: read_curve(store), [])
    if state is None and status is None and not history:
        raise StoreError(
            "\n".join(unread)
            or f"{store.url} holds no run: give the run's URL, <checkpoint url>/<run name>"
        )
    pictures = [
        readable(partial(_picture, store, each), None)
        for each in chosen_pictures(list_pictures(store))
    ]
    return Record(
        url=store.url,
        status=status,
        history=history,
        events=readable(lambda: read_events(store), []),
        checkpoints=checkpoints,
        run=run,
        state=state,
        card=card,
        probes=read_probes(readable(lambda: read_lines(store, PROBE_FILE), [])),
        pictures=[picture for picture in pictures if picture is not None],
        unread=unread,
    )


def chosen_pictures(found: Sequence[StoredPicture]) -> list[StoredPicture]:
    """Returns at most `MAX_PICTURES` of each modality, evenly spread from first to last."""
    chosen = []
    for modality in ("image", "video"):
        of_modality = [each for each in found if each.modality == modality]
        count = min(len(of_modality), MAX_PICTURES)
        last = len(of_modality) - 1
        chosen += [of_modality[round(index * last / max(1, count - 1))] for index in range(count)]
    return chosen


def _picture(store: Store, each: StoredPicture) -> Picture:
    data = store.read_bytes(each.key)
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            # Before it is decoded: a few kilobytes may be gigabytes of one colour.
            if image.width * image.height > MAX_PIXELS:
                raise OSError(f"it has {image.width:,} x {image.height:,} pixels")
            image.load()
            buffer = io.BytesIO()
            image.save(buffer, "WEBP", quality=_WEBP_QUALITY)
            description = redact_urls(str(image.info.get(DESCRIPTION, "")))
            return Picture(each.step, each.modality, buffer.getvalue(), *image.size, description)
    except Exception as error:
        # Pillow raises errors of many classes for damaged files.
        raise StoreError(
            f"{store.url_of(each.key)} is damaged: {error}; delete it and run `arlow report` again"
        ) from None


def _status(store: Store) -> RunStatus | None:
    text = _text(store, STATUS_FILE)
    try:
        return None if text is None else parse_status(text.encode(), STATUS_FILE)
    except NoAnswer:
        return None


def _text(store: Store, key: str) -> str | None:
    try:
        return store.read_bytes(key).decode("utf-8", "replace")
    except MissingObject:
        return None
