"""The report in a real browser, on a wide and on a narrow screen."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import pytest
from PIL import Image

from arlow_trainer.pictures.drawing import draw, png
from arlow_trainer.pictures.reconstruction import Panels, Score
from arlow_trainer.pictures.stored import picture_key
from arlow_trainer.probe.stored import PROBE_FILE
from arlow_trainer.report.page import page
from arlow_trainer.report.record import read_record
from arlow_trainer.storage.events import EventLog
from arlow_trainer.storage.store import Store
from arlow_trainer.telemetry import HISTORY_FILE
from support.stored_run import save_checkpoint, tiny_run

FRAME = 224
MIN_FRAME = 90
"""Minimum width of a clip's frame in the page, in pixels."""

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no browser; `apt-get install chromium` and run again"
)

# Chromium's own window is never narrower than 500 pixels; a frame in a page is.
MEASURE = """<!doctype html><body style="margin:0">
<iframe id="frame" src="report.html" style="width:WIDTHpx;height:900px;border:0"></iframe>
<script>
const frame = document.getElementById("frame");
frame.onload = async () => {
  const page = frame.contentDocument, root = page.documentElement;
  const images = [...page.images];
  for (const image of images) { image.loading = "eager"; await image.decode(); }
  const plots = [...page.querySelectorAll(".plots svg")].map((svg) => svg.getBoundingClientRect());
  // A clip scrolls inside its box, and its caption stays visible.
  const clips = page.querySelector(".gallery.video"), box = clips.getBoundingClientRect();
  const caption = clips.querySelector("figcaption").getBoundingClientRect();
  clips.scrollLeft = 100;
  fetch("found", {method: "POST", body: JSON.stringify({
    overflow: root.scrollWidth - root.clientWidth,
    images: images.map((image) => [image.naturalWidth, image.getBoundingClientRect().width]),
    caption: [caption.left - box.left, caption.width - box.width],
    scrolled: clips.scrollLeft,
    captionScrolled: clips.querySelector("figcaption").getBoundingClientRect().left - box.left,
    probes: page.querySelector("#probes table").rows.length,
    plots: plots.map((box) => [box.left, box.width, box.height]),
    sections: [...page.querySelectorAll("section[id]")].map((each) => each.id),
    line: frame.contentWindow.getComputedStyle(page.querySelector("svg text")).fill,
    loaded: frame.contentWindow.performance.getEntriesByType("resource")
      .map((entry) => entry.name).filter((name) => !name.startsWith("data:")),
  })});
};
</script>"""


@dataclass(frozen=True)
class Site:
    """A folder with a run's report, its URL, what pages of it have measured, and which paths
    were requested."""

    folder: Path
    url: str
    found: Queue[dict[str, Any]]
    requested: list[str]


def clip_panels() -> Panels:
    """A clip of 16 frames, of the full run's size."""
    frames = np.full((16, FRAME, FRAME, 3), (30, 160, 60), dtype=np.uint8)
    hidden = np.zeros((16, FRAME, FRAME), dtype=bool)
    hidden[:, :, FRAME // 4 :] = True
    return Panels(frames, frames, hidden, Score(20.0, 10.0, None))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    store = Store(str(tmp_path_factory.mktemp("runs") / ("x" * 200) / "tiny-run"))
    save_checkpoint(store, tiny_run(), 20)
    points = [{"step": s, "time": "t", "loss": 1 / s, "phase_seconds": {"data": 1}} for s in (1, 2)]
    store.write_bytes(HISTORY_FILE, "\n".join(map(json.dumps, points)).encode())
    with EventLog(store) as events:
        events.record("checkpoint", url="s3://bucket/" + "long-name-" * 20)
    text = "/a/path/" + "x" * 200
    for step in (1, 2):
        drawn = png(Image.new("RGB", (1300, 500), "red"), text)
        store.write_bytes(picture_key(step, "image"), drawn)
        strip = draw(clip_panels(), f"tiny-run, step {step}", [text, "A sentence. " * 9])
        store.write_bytes(picture_key(step, "video"), png(strip, f"{text}\n{'A sentence. ' * 9}"))
    probes = [
        {"step": s, "method": m, "neighbors": k, "accuracy": 0.5, "spread": 0.1, "data": text}
        for s in (10, 20)
        for m, k in (("knn", 5), ("knn", 20), ("linear", None))
    ]
    store.write_bytes(PROBE_FILE, "\n".join(map(json.dumps, probes)).encode())
    (folder / "report.html").write_text(page(read_record(store), datetime.now(UTC)))
    found: Queue[dict[str, Any]] = Queue()
    requested: list[str] = []

    class Handler(_Quiet):
        def do_GET(self) -> None:
            requested.append(self.path)
            super().do_GET()

        def do_POST(self) -> None:
            found.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Site(folder, f"http://127.0.0.1:{server.server_port}", found, requested)
        server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def chromium(tmp_path: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *arguments]
    # Ends the process group: its children would outlive it.
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as browser:
        try:
            yield browser
        finally:
            with suppress(ProcessLookupError):
                os.killpg(browser.pid, signal.SIGKILL)


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_the_screen(site: Site, tmp_path: Path, width: int) -> None:
    (site.folder / f"measure-{width}.html").write_text(MEASURE.replace("WIDTH", str(width)))
    # With a debugging port the browser runs until it is ended; nothing connects to the port.
    with chromium(tmp_path, "--remote-debugging-port=0", f"{site.url}/measure-{width}.html"):
        found = site.found.get(timeout=120)
    assert found["overflow"] == 0
    assert [natural for natural, _ in found["images"][:2]] == [1300, 1300]
    for natural, shown in found["images"][2:]:
        assert FRAME * shown / natural >= MIN_FRAME
    assert len(found["images"]) == 4
    assert found["caption"][0] == 0
    assert found["caption"][1] <= 0
    if width < 1000:  # a wide box snaps back to the step it shows
        assert (found["scrolled"], found["captionScrolled"]) == (100, 0)
    assert found["probes"] == 2 + 6
    assert found["loaded"] == []
    assert found["sections"] == [
        "pictures",
        "curves",
        "probes",
        "step",
        "card",
        "checkpoints",
        "events",
        "config",
    ]
    # Plots are side by side if there is room, and large enough to read.
    columns = {round(left) for left, _, _ in found["plots"]}
    assert len(columns) == (2 if width > 1000 else 1)
    assert min(plot_width for _, plot_width, _ in found["plots"]) > 300
    assert all(height > 150 for _, _, height in found["plots"])
    assert found["line"].startswith("rgb(")


def test_the_page_is_painted(site: Site, tmp_path: Path) -> None:
    shot = tmp_path / "shot.png"
    arguments = "--window-size=1280,1600", f"--screenshot={shot}", f"{site.url}/report.html"
    with chromium(tmp_path, *arguments) as browser:
        assert browser.wait(120) == 0
    with Image.open(shot) as image:
        assert image.size == (1280, 1600)
        colours = image.convert("RGB").getcolors(maxcolors=2**24)
    assert colours is not None
    assert max(count for count, (r, g, b) in colours if r > 240 and g < 20 and b < 20) > 10_000


SMUGGLED = """<img src="NAME.png"><link rel="stylesheet" href="NAME.css">
<script src="NAME.js"></script><script>new Image().src = "NAME-inline"</script>
<iframe src="NAME.html"></iframe><p style="background: url(NAME-style)">x</p>
<img src="data:," onerror="new Image().src = 'NAME-handler'"></body>"""


@pytest.mark.parametrize("allowed", [False, True])
def test_what_is_smuggled_into_the_page_loads_and_runs_nothing(
    site: Site, tmp_path: Path, allowed: bool
) -> None:
    name = f"smuggled-{allowed}"
    text = (site.folder / "report.html").read_text()
    text = text.replace("</body>", SMUGGLED.replace("NAME", name))
    if allowed:  # without the policy, to show that the browser would
        text = text.replace("Content-Security-Policy", "X-None")
    (site.folder / f"{name}-page.html").write_text(text)
    shot = f"--screenshot={tmp_path / 'shot.png'}"
    with chromium(tmp_path, shot, f"{site.url}/{name}-page.html") as browser:
        assert browser.wait(120) == 0
    loaded = {path for path in site.requested if path.startswith(f"/{name}")}
    parts = (".png", ".css", ".js", "-inline", ".html", "-style", "-handler")
    smuggled = {f"/{name}{part}" for part in parts}
    assert loaded == {f"/{name}-page.html"} | (smuggled if allowed else set())
