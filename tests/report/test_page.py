"""The report page: what it shows, and that it is self-contained."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

from arlow_trainer.config import RunStatus
from arlow_trainer.report.page import (
    MAX_EVENTS,
    card_html,
    columns,
    page,
    phase_shares,
    phases_measured_over,
    seconds_and_share,
)
from arlow_trainer.report.record import read_record
from arlow_trainer.storage.events import EventLog
from arlow_trainer.storage.store import Store
from arlow_trainer.telemetry import HISTORY_FILE, STATUS_FILE, HistoryPoint
from support.reported_run import HOSTILE

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
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


def test_a_page_shows_everything_in_the_store(full_store: Store) -> None:
    text = page(read_record(full_store), NOW)
    shown = Page(text)
    assert [each for each in shown.ids if each in SECTIONS] == SECTIONS
    assert [link for link in shown.links if link.startswith("#")][: len(SECTIONS)] == [
        f"#{section}" for section in SECTIONS
    ]
    for expected in (
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
        assert expected in shown.text, expected
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


def test_text_of_a_run_is_escaped(full_store: Store) -> None:
    shown = Page(page(read_record(full_store), NOW))
    assert "script" not in shown.tags
    # Status message, event, picture's description, probe's data set in its table and plot.
    assert shown.text.count(HOSTILE) >= 5


def test_a_run_on_videos_only_shows_no_images_per_second(store: Store) -> None:
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


def test_many_events_are_cut_and_counted(store: Store) -> None:
    with EventLog(store) as events:
        for number in range(MAX_EVENTS + 5):
            events.record("warning", message=f"number {number}.")
    shown = Page(page(read_record(store), NOW)).text
    assert "number 4." not in shown
    assert "number 5." in shown
    assert f"number {MAX_EVENTS + 4}." in shown
    assert "5 earlier events" in shown


def test_figures_of_speed_say_over_which_steps(full_store: Store) -> None:
    record = read_record(full_store)
    assert record.status is not None
    timed = record.status.model_copy(update={"median_step_seconds": 1.6})
    shown = Page(page(replace(record, status=timed), NOW)).text
    assert "the median step up to step 20, images and clips per second up to step 20." in shown
    assert "Mean of what was logged at steps 10 to 20, each time over at most the 50" in shown
    assert phases_measured_over([]) == ""


def test_small_shares_of_a_step_are_not_shown_as_zero() -> None:
    assert seconds_and_share(0.4249, 0.561) == ("0.425", "56%")
    assert seconds_and_share(1.52e-05, 0.00002) == ("<0.001", "<1%")


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


def test_a_card_of_anybody_loads_and_runs_nothing() -> None:
    html = str(
        card_html(
            "![a <b> photo](https://evil.example/pixel.png) [run](javascript:alert(1)) "
            "[read](file:///etc/passwd) [data](data:text/html,x) [web](https://example.org/?a=1) "
            "[![inner](http://evil.example/y.png)](vbscript:x) <http://example.org>\n\n"
            "<script>alert(1)</script>\n\n[ref]\n\n[ref]: ftp://host/x\n"
        )
    )
    shown = Page(html)
    assert set(shown.tags) <= {"p", "a"}
    assert shown.links == ["https://example.org/?a=1", "http://example.org"]
    assert html.count('rel="noopener noreferrer"') == 2
    assert "a <b> photo" in shown.text
    assert "inner" in shown.text


def test_a_page_allows_neither_scripts_nor_other_files(store: Store) -> None:
    text = page(read_record(store), NOW)
    [policy] = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy.split("; ") == [
        "default-src 'none'",
        "style-src 'unsafe-inline'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    # Before anything that it is to forbid.
    assert text.index("Content-Security-Policy") < text.index("<style")


def test_credentials_that_an_earlier_version_stored_are_not_shown(full_store: Store) -> None:
    url = "http://user:SECRET@host/x?sig=SECRET"
    event = {"time": "2026-05-04T03:00:00", "kind": "skip", "name": url}
    full_store.write_bytes("events.jsonl", json.dumps(event).encode())
    status = RunStatus(run="tiny-run", phase="failed", message=f"no {url}")
    full_store.write_bytes(STATUS_FILE, status.model_dump_json(by_alias=True).encode())
    text = page(read_record(full_store), NOW)
    assert "SECRET" not in text
    assert text.count("http://***@host/x?sig=***") == 2
