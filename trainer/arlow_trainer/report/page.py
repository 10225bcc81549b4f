"""Renders the report of a run, a self-contained HTML page. Pure: a record in, a page out."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markupsafe import Markup, escape

from arlow_trainer.config import training_part
from arlow_trainer.config.yaml_text import write_document
from arlow_trainer.report.curves import scalar_plots
from arlow_trainer.report.event_text import describe_event
from arlow_trainer.report.plotting import Plot, to_svg
from arlow_trainer.report.probe_plots import probe_plots
from arlow_trainer.report.record import Picture, Record
from arlow_trainer.telemetry import HistoryPoint
from arlow_trainer.telemetry.reports import RECENT_STEPS
from arlow_trainer.telemetry.times import duration

MAX_EVENTS = 200
RECENT_POINTS = 20
"""Logged steps that the shares of phases are averaged over."""
MAX_COLUMNS = 5
_KINDS = ("images", "clips")
MAX_CARD = 2**18
"""Characters of a model card that are shown."""
_TEMPLATE = "page.html.jinja"
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


def page(record: Record, now: datetime) -> str:
    """Returns the report of a run as HTML that refers to no other file."""
    environment = Environment(
        loader=PackageLoader("arlow_trainer.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    points = record.history
    facts = _facts(record)
    return environment.get_template(_TEMPLATE).render(
        name=_name(record),
        url=record.url,
        now=now,
        status=record.status,
        facts=facts,
        columns=columns(len(facts)),
        measured_over=measured_over(record),
        phases_measured_over=phases_measured_over(points),
        curves=[_figure(plot) for plot in scalar_plots(points)] if points else [],
        phases=[
            (name, *seconds_and_share(seconds, share), share)
            for name, seconds, share in phase_shares(points)
        ],
        galleries=_galleries(record.pictures),
        probes=record.probes,
        probe_curves=[_figure(plot) for plot in probe_plots(record.probes)],
        checkpoints=list(reversed(record.checkpoints)),
        events=[
            (event.time, describe_event(event)) for event in reversed(record.events[-MAX_EVENTS:])
        ],
        events_left_out=max(0, len(record.events) - MAX_EVENTS),
        config=write_document(training_part(record.run)) if record.run else "",
        card=card_html(record.card),
    )


def phase_shares(points: Sequence[HistoryPoint]) -> list[tuple[str, float, float]]:
    """Returns phase, seconds per step and share of step time, averaged over the last logged steps.

    Longest phase first.
    """
    recent = [point.phase_seconds for point in points if point.phase_seconds][-RECENT_POINTS:]
    names = {name for phases in recent for name in phases}
    means = {name: sum(p.get(name, 0.0) for p in recent) / len(recent) for name in names}
    total = sum(means.values())
    ordered = sorted(means.items(), key=lambda item: -item[1])
    return [(name, seconds, seconds / total) for name, seconds in ordered if seconds > 0]


def measured_over(record: Record) -> str:
    """Returns a sentence that says over which steps the figures of speed are."""
    status, rates = record.status, record.history[-1:]
    told = []
    if status is not None and status.median_step_seconds is not None:
        told.append(f"the median step up to step {status.step:,}")
    if any(point.scalars.get(f"{kind}_per_second") for point in rates for kind in _KINDS):
        told.append(f"images and clips per second up to step {rates[0].step:,}")
    over = f"over at most {RECENT_STEPS} steps of the last attempt"
    return f"Speeds are {over}: {', '.join(told)}." if told else ""


def phases_measured_over(points: Sequence[HistoryPoint]) -> str:
    """Returns a sentence that says over which steps `phase_shares` are."""
    steps = [point.step for point in points if point.phase_seconds][-RECENT_POINTS:]
    if not steps:
        return ""
    return (
        f"Mean of what was logged at steps {steps[0]:,} to {steps[-1]:,}, each time over at most "
        f"the {RECENT_STEPS} steps before."
    )


def seconds_and_share(seconds: float, share: float) -> tuple[str, str]:
    """Returns both as text, in milliseconds and whole percent; small values as "<", never as 0."""
    return (
        f"{seconds:.3f}" if seconds >= 0.001 else "<0.001",
        f"{share:.0%}" if share >= 0.01 else "<1%",
    )


def columns(tiles: int) -> int:
    """Returns the number of tiles in a row that makes rows as even as possible."""
    rows = -(-tiles // MAX_COLUMNS)
    return -(-tiles // rows)


def card_html(card: str) -> Markup:
    """Returns a model card as HTML, without title and front matter, with headings one level lower.

    HTML in the card is escaped, an image becomes its description, and only links to the web stay
    links: anybody may have written it.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.add_render_rule("image", _image_description)
    tokens = parser.parse(_FRONT_MATTER.sub("", card[:MAX_CARD]))
    if tokens and tokens[0].tag == "h1":
        del tokens[:3]
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) + 1)}"
        if token.children:
            token.children = _plain_links(token.children)
    return Markup(parser.renderer.render(tokens, parser.options, {}))


def _image_description(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any
) -> str:
    return str(escape(renderer.renderInlineAsText(tokens[index].children, options, env)))


def _plain_links(tokens: Sequence[Token]) -> list[Token]:
    """Returns the tokens of a line without the links that do not lead to the web."""
    kept, opened = [], []
    for token in tokens:
        if token.type == "link_open":
            opened.append(str(token.attrGet("href")).startswith(("https://", "http://")))
            token.attrSet("rel", "noopener noreferrer")
        if token.type not in ("link_open", "link_close") or opened[-1]:
            kept.append(token)
        if token.type == "link_close":
            opened.pop()
    return kept


def _name(record: Record) -> str:
    if record.run is not None:
        return record.run.metadata.name
    return record.status.run if record.status is not None else record.url.rpartition("/")[2]


def _facts(record: Record) -> list[tuple[str, str]]:
    """Returns the run's figures as names and values, without those that are not known."""
    status, state, points = record.status, record.state, record.history
    last = points[-1] if points else None
    scalars = last.scalars if last is not None else {}
    step = max(part.step for part in (status, state, last) if part is not None)
    total = next((p.total_steps for p in (status, state) if p is not None and p.total_steps), None)
    facts = [("Step", f"{step:,} of {total:,}" if total else f"{step:,}")]
    if "loss" in scalars:
        facts.append(("Loss", f"{scalars['loss']:.4f}"))
    # A run on one modality alone makes none of the other.
    if rate := scalars.get("images_per_second"):
        facts.append(("Images per second", f"{rate:,.1f}"))
    if rate := scalars.get("clips_per_second"):
        facts.append(("Clips per second", f"{rate:,.1f}"))
    mfu = status.scalar("model_flops_utilization") if status is not None else None
    if mfu is not None:
        facts.append(("Model FLOPs utilisation", f"{mfu:.1%}"))
    if status is not None and status.median_step_seconds is not None:
        facts.append(("Median step", f"{status.median_step_seconds:.3g} s"))
    if status is not None and status.eta_seconds and status.phase != "finished":
        facts.append(("Time left", duration(status.eta_seconds)))
    if state is not None:
        facts.append(("Samples seen", f"{state.next_sample:,}"))
        facts.append(("Broken samples", f"{len(state.skipped_files):,}"))
    return facts


def _figure(plot: Plot) -> tuple[str, Markup]:
    # Safe to embed: matplotlib escapes text.
    return plot.title, Markup(to_svg(plot))


def _galleries(pictures: Sequence[Picture]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Returns modality and pictures, newest first, of each modality."""
    return [
        (modality, [_picture(each) for each in reversed(list(found))])
        for modality, found in groupby(pictures, key=lambda each: each.modality)
    ]


def _picture(each: Picture) -> dict[str, Any]:
    return {
        "step": each.step,
        "source": "data:image/webp;base64," + base64.b64encode(each.webp).decode(),
        "width": each.width,
        "height": each.height,
        "lines": each.description.splitlines(),
    }
