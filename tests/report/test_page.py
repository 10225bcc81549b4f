"""The report page: what it shows, and that it is whole by itself."""

from __future__ import annotations

import io
import json
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from arlow_trainer.config import RunStatus
from arlow_trainer.config.errors import StoreError
from arlow_trainer.pictures.drawing import DESCRIPTION, png
from arlow_trainer.pictures.stored import StoredPicture, list_pictures, picture_key
from arlow_trainer.probe.stored import PROBE_FILE, Probe
from arlow_trainer.report.event_text import describe_event
from arlow_trainer.report.page import (
    MAX_EVENTS,
    card_html,
    columns,
    page,
    phase_shares,
    seconds_and_share,
)
from arlow_trainer.report.plotting import Palette
from arlow_trainer.report.probe_plots import MIN_SPAN, probe_plots
from arlow_trainer.report.record import MAX_PICTURES, chosen_pictures, read_record
from arlow_trainer.storage.events import Event, EventLog
from arlow_trainer.storage.store import Store
from arlow_trainer.telemetry import HISTORY_FILE, STATUS_FILE, HistoryPoint
from support.stored_run import save_checkpoint, tiny_run

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
HOSTILE = "<script>alert('x')</script> & \"quotes\""
VOID = {"meta", "link", "img", "br", "hr", "input"}
SECTIONS = ["pictures", "curves", "probes", "step", "card", "checkpoints", "events", "config"]


class Page(HTMLParser):
    """Ids, links, text and tag balance of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                self.links.append(value or "")
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def full_store(store: Store) -> Store:
    """A run that has left everything a report shows."""
    save_checkpoint(store, tiny_run(), 20)
    points = [
        {
            "step": step,
            "time": "2026-05-04T03:00:00+00:00",
            "loss": 1 / step,
            "learning_rate": 1e-4,
            "images_per_second": 123.4,
            "clips_per_second": 5.6,
            "phase_seconds": {"data": 0.1, "forward": 0.3},
        }
        for step in (10, 20)
    ]
    store.write_bytes(HISTORY_FILE, "\n".join(map(json.dumps, points)).encode())
    status = RunStatus(run="tiny-run", phase="failed", step=20, total_steps=40, message=HOSTILE)
    store.write_bytes(STATUS_FILE, status.model_dump_json(by_alias=True).encode())
    with EventLog(store) as events:
        events.record("start", ranks=2)
        events.record("skip", name=HOSTILE, reason="broken")
    probe = {"step": 20, "method": "knn", "accuracy": 0.7123, "spread": 0.01, "data": HOSTILE}
    probe |= {"baseline": 0.5, "neighbors": 20}
    store.write_bytes(PROBE_FILE, json.dumps(probe).encode())
    for step in (10, 20):
        drawn = png(Image.new("RGB", (60, 20), "red"), f"{HOSTILE}\nPSNR {step} dB")
        store.write_bytes(picture_key(step, "image"), drawn)
    return store


def test_a_page_shows_all_that_a_run_has_left(full_store: Store) -> None:
    text = page(read_record(full_store), NOW)
    shown = Page(text)
    assert [each for each in shown.ids if each in SECTIONS] == SECTIONS
    assert [link for link in shown.links if link.startswith("#")][: len(SECTIONS)] == [
        f"#{section}" for section in SECTIONS
    ]
    for words in (
        "20 of 40",
        "123.4",
        "Clips per second",
        "5.6",
        "knn, k=20",
        "71.2% ± 1.0%",
        "50.0%",
        "PSNR 10 dB",
        "PSNR 20 dB",
        "75%",
        "embedDim: 32",
        "An Arlow vision tower",
        "Mask ratio",
        "2026-05-04 03:02:01",
        "complete",
    ):
        assert words in shown.text, words
    assert shown.text.index("PSNR 20 dB") < shown.text.index("PSNR 10 dB")
    assert shown.tags.count("h1") == 1
    assert len(shown.ids) == len(set(shown.ids))


def test_a_page_needs_no_other_file(full_store: Store) -> None:
    text = page(read_record(full_store), NOW)
    links = Page(text).links
    assert sum(link.startswith("data:image/webp;base64,") for link in links) == 2
    assert all(link.startswith(("#", "data:")) for link in links)
    assert "@import" not in text
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))


def test_what_a_run_says_is_text_and_not_markup(full_store: Store) -> None:
    shown = Page(page(read_record(full_store), NOW))
    assert "script" not in shown.tags
    # Status message, event, picture's description, probe's data set in its table and plot.
    assert shown.text.count(HOSTILE) >= 5


def test_a_run_on_films_alone_is_not_told_as_standing_still(store: Store) -> None:
    point = {"step": 10, "time": "t", "images_per_second": 0.0, "clips_per_second": 5.6}
    store.write_bytes(HISTORY_FILE, json.dumps(point).encode())
    shown = Page(page(read_record(store), NOW)).text
    assert "Clips per second" in shown
    assert "Images per second" not in shown


def test_a_young_run_has_a_page_too(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "young"))
    status = RunStatus(run="young", phase="loading", message="opening the data")
    store.write_bytes(STATUS_FILE, status.model_dump_json(by_alias=True).encode())
    shown = Page(page(read_record(store), NOW))
    assert not set(shown.ids) & set(SECTIONS)
    assert "opening the data" in shown.text


def test_a_finished_export_without_history_has_a_page(store: Store) -> None:
    shown = Page(page(read_record(store), NOW))
    assert [each for each in shown.ids if each in SECTIONS] == ["card", "checkpoints", "config"]


def test_a_checkpoint_may_be_named(full_store: Store) -> None:
    record = read_record(full_store, 10)
    assert record.state is not None
    assert record.state.step == 10


def test_no_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no run"):
        read_record(Store(str(tmp_path)))


def test_a_damaged_picture_is_told(full_store: Store) -> None:
    key = picture_key(20, "image")
    full_store.write_bytes(key, full_store.read_bytes(key)[:60])
    with pytest.raises(StoreError, match=rf"{key} is damaged.*delete it"):
        read_record(full_store)


def test_pictures_keep_size_and_words(full_store: Store) -> None:
    picture = read_record(full_store).pictures[-1]
    assert (picture.step, picture.modality) == (20, "image")
    assert picture.description.endswith("PSNR 20 dB")
    with Image.open(io.BytesIO(picture.webp)) as image:
        assert image.size == (picture.width, picture.height) == (60, 20)
        assert DESCRIPTION not in image.info


def test_many_pictures_are_thinned_from_first_to_last(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for step in range(0, 5000, 100):
        store.write_bytes(picture_key(step, "image"), b"")
    store.write_bytes(picture_key(3, "video"), b"")
    chosen = chosen_pictures(list_pictures(store))
    steps = [each.step for each in chosen if each.modality == "image"]
    assert len(steps) == MAX_PICTURES
    assert (steps[0], steps[-1]) == (0, 4900)
    assert max(b - a for a, b in pairwise(steps)) == 700
    assert chosen[-1] == StoredPicture(3, "video", "pictures/step-3-video.png")
    assert chosen_pictures([]) == []


def test_many_events_are_cut_and_counted(store: Store) -> None:
    with EventLog(store) as events:
        for number in range(MAX_EVENTS + 5):
            events.record("warning", message=f"number {number}.")
    shown = Page(page(read_record(store), NOW)).text
    assert "number 4." not in shown
    assert "number 5." in shown
    assert f"number {MAX_EVENTS + 4}." in shown
    assert "5 earlier events" in shown


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        ("start", {"ranks": 1}, "started on 1 rank"),
        ("start", {"ranks": 16}, "started on 16 ranks"),
        ("resume", {"step": 1450, "uri": "/r/c-1450"}, "resumed from step 1,450: /r/c-1450"),
        ("phase", {"phase": "finished", "message": "450 steps done"}, "finished: 450 steps done"),
        ("phase", {"phase": "saving", "message": ""}, "saving"),
        ("checkpoint", {"step": 450, "uri": "/r/c-450"}, "checkpoint of step 450: /r/c-450"),
        ("probe", {"step": 5, "method": "knn", "accuracy": 0.7}, "probe of step 5: knn 70.0%"),
        ("skip", {"name": "a.png", "reason": "truncated"}, "passed over a.png: truncated"),
        ("warning", {"message": "slow"}, "warning: slow"),
        ("end", {"phase": "finished"}, "ended: finished"),
        ("later", {"a": 1, "b": None, "c": "d"}, "later: a 1, c d"),
        ("later", {}, "later"),
        ("start", {}, "start"),
        ("checkpoint", {"step": "many"}, "checkpoint: step many"),
    ],
)
def test_events_are_told_in_words(kind: str, fields: dict[str, object], words: str) -> None:
    assert describe_event(Event(NOW, kind, fields)) == words


def test_small_shares_of_a_step_are_not_told_as_nothing() -> None:
    assert seconds_and_share(0.4249, 0.561) == ("0.425", "56%")
    assert seconds_and_share(1.52e-05, 0.00002) == ("<0.001", "<1%")


@pytest.mark.parametrize("accuracy", [0.0, 0.112, 1.0])
def test_a_single_probe_has_a_scale_to_be_read_by(accuracy: float) -> None:
    axes = Figure().subplots()
    probe_plots([Probe("set", "knn", 450, accuracy)])[0].draw(axes, Palette())
    assert axes.get_xlim() == pytest.approx((0, 468))
    low, high = axes.get_ylim()
    assert -0.021 < low < accuracy < high < 1.021
    assert high - low > MIN_SPAN / 2


def test_rows_of_tiles_are_even() -> None:
    assert [columns(tiles) for tiles in (1, 3, 5, 6, 7, 8, 9, 10)] == [1, 3, 5, 3, 4, 4, 5, 5]


def test_phase_shares() -> None:
    def point(step: int, **phases: float) -> HistoryPoint:
        return HistoryPoint(step=step, time="t", phase_seconds=phases or None)

    assert phase_shares([]) == []
    assert phase_shares([point(1)]) == []
    found = phase_shares([point(1, data=1.0, forward=3.0), point(2, forward=4.0), point(3)])
    assert found == [("forward", 3.5, 3.5 / 4), ("data", 0.5, 0.5 / 4)]
    assert phase_shares([point(1, data=0.0)]) == []


def test_a_card_is_shown_without_its_header_and_markup() -> None:
    card = (
        "---\ntags:\n- a\n---\n\n# Title\n\nText <b>bold</b>\n\n"
        "## Use\n\n| a | b |\n|--|--|\n| 1 | 2 |\n"
    )
    html = str(card_html(card))
    assert "Title" not in html
    assert "tags" not in html
    assert "&lt;b&gt;" in html
    assert "<h3>Use</h3>" in html
    assert "<td>2</td>" in html
    assert str(card_html("")) == ""
