"""TensorBoard's event files in the run's URL: `tensorboard/events.out.tfevents.<attempt>.<part>`.

TensorBoard reads the files of a folder in the order of their names, and only the last one may
grow. Object stores cannot append: there a write repeats the file, which is why a file is followed
by another when it is large.
"""

from __future__ import annotations

import io
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

import yaml

from arlow_trainer.storage.store import Store
from arlow_trainer.trackers.records import Outcome, Picture, Record, Scalars, TrackedRun

FOLDER = "tensorboard"
PART_BYTES = 2**20
_PNG_SIZE = slice(16, 24)  # width and height, in the first chunk of every PNG
_RGB = 3


class TensorBoardFiles:
    """The event files of one attempt.

    They begin with a mark by which TensorBoard drops what earlier attempts logged at the steps that
    this one does again.
    """

    def __init__(self, run: TrackedRun, store: Store, part_bytes: int = PART_BYTES) -> None:
        """Writes nothing yet. Raises ImportError without the package `tensorboard`."""
        from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._session = event_pb2.Event, event_pb2.SessionLog
        self._summary, self._metadata = summary_pb2.Summary, summary_pb2.SummaryMetadata
        self._tensor = tensor_pb2.TensorProto
        self._framed: Callable[[io.BytesIO], Any] = RecordWriter
        self._run, self._store, self._part_bytes = run, store, part_bytes
        self._part, self._written = 0, b""
        self._newest: Record | None = None

    def write(self, records: Sequence[Record]) -> None:
        """Appends records. Raises what the store raises; those written by then stay written."""
        added = b""
        for record in self._after_newest(records):
            event = self._event_of(record)
            if event is not None:
                added += self._frames(event)
            if len(self._written) + len(added) > self._part_bytes:
                self._append(added, record)
                self._part, self._written, added = self._part + 1, b"", b""
        if added:
            self._append(added, records[-1])

    def end(self, outcome: Outcome) -> None:
        """Does nothing: files have no end."""

    def _after_newest(self, records: Sequence[Record]) -> Sequence[Record]:
        """Returns the records without those that an earlier try of them has written."""
        for number, record in enumerate(records):
            if record is self._newest:
                return records[number + 1 :]
        return records

    def _append(self, frames: bytes, newest: Record) -> None:
        content = (self._written or self._beginning()) + frames
        key = f"{FOLDER}/events.out.tfevents.{self._run.attempt:010d}.{self._part:06d}"
        self._store.extend(key, content, known=len(self._written))
        self._written, self._newest = content, newest

    def _beginning(self) -> bytes:
        now, step = time.time(), self._run.step
        events = [self._event(wall_time=now, file_version="brain.Event:2")]
        if self._part == 0:
            again = self._session(status=self._session.START)
            events += [
                self._event(wall_time=now, step=step + 1, session_log=again),
                self._event(wall_time=now, step=step, summary=self._settings()),
            ]
        return self._frames(*events)

    def _settings(self) -> Any:
        written = yaml.safe_dump(dict(self._run.settings), sort_keys=False, allow_unicode=True)
        text = f"{self._run.name}, attempt {self._run.attempt}\n\n```yaml\n{written}```\n"
        tensor = self._tensor(
            dtype="DT_STRING",
            string_val=[text.encode()],
            tensor_shape={"dim": [{"size": 1}]},
        )
        metadata = self._metadata(plugin_data={"plugin_name": "text"})
        value = self._summary.Value(tag="training", tensor=tensor, metadata=metadata)
        return self._summary(value=[value])

    def _event_of(self, record: Record) -> Any | None:
        """Returns the event of a record; None of a picture that is gone."""
        match record:
            case Scalars():
                values = [
                    self._summary.Value(tag=name, simple_value=value)
                    for name, value in record.values.items()
                ]
            case Picture():
                png = self._run.read(record.key)
                if png is None:
                    return None
                width, height = struct.unpack(">II", png[_PNG_SIZE])
                image = self._summary.Image(
                    encoded_image_string=png, width=width, height=height, colorspace=_RGB
                )
                values = [self._summary.Value(tag=record.name, image=image)]
        summary = self._summary(value=values)
        return self._event(wall_time=record.time, step=record.step, summary=summary)

    def _frames(self, *events: Any) -> bytes:
        buffer = io.BytesIO()
        writer = self._framed(buffer)
        for event in events:
            writer.write(event.SerializeToString())
        return buffer.getvalue()
