"""Watching the runs of a cluster: what is known of them, and the loop that shows it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live

from arlow_trainer.cluster.access import Access, RefusedRequest
from arlow_trainer.cluster.fields import section, text
from arlow_trainer.cluster.fleet import fleet_rows
from arlow_trainer.cluster.fleet_view import fleet_view, full_width
from arlow_trainer.config.errors import ConfigError
from arlow_trainer.config.object_names import GROUP, PLURAL, VERSION
from arlow_trainer.config.shown_text import printable
from arlow_trainer.telemetry.times import duration, utc_now

# A watch ends by itself; what it has missed is in the next list.
WATCH_S = 300
LIST_AGAIN_S = 3.0

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Fleet:
    """What a watcher knows of the runs.

    Attributes:
        runs: the objects by namespace and name.
        version: of the list, from which a watch goes on.
        problem: why the cluster tells nothing now; empty where it does.
        since: since when.
    """

    runs: Mapping[tuple[str, str], Json] = field(default_factory=dict)
    version: str = ""
    problem: str = ""
    since: datetime | None = None


def after_list(answer: Json) -> Fleet:
    """Returns what a list of all runs tells."""
    items = answer.get("items")
    found = [each for each in items if isinstance(each, dict)] if isinstance(items, list) else []
    version = section(answer, "metadata").get("resourceVersion")
    return Fleet({_key(each): each for each in found}, version if isinstance(version, str) else "")


def after_event(fleet: Fleet, event: Json) -> Fleet:
    """Returns what is known after an event of a watch."""
    body = section(event, "object")
    match event.get("type"):
        case "ADDED" | "MODIFIED":
            return replace(fleet, runs={**fleet.runs, _key(body): body})
        case "DELETED":
            left = {key: each for key, each in fleet.runs.items() if key != _key(body)}
            return replace(fleet, runs=left)
    return fleet


def after_problem(fleet: Fleet, problem: str, now: datetime) -> Fleet:
    """Returns what is known while the cluster tells nothing."""
    return replace(fleet, problem=problem, since=fleet.since or now)


@dataclass(frozen=True)
class Scope:
    """Whose runs are shown.

    Attributes:
        access: to the cluster.
        namespace: of the runs; None for all.
    """

    access: Access
    namespace: str | None

    def listed(self) -> Fleet:
        """Returns the runs as they are. Raises ConfigError, and Unreachable among them."""
        try:
            return after_list(self.access.request("GET", self._path))
        except RefusedRequest as error:
            raise ConfigError(_refusal(error)) from None

    def changes(self, version: str) -> Iterator[Json]:
        """Yields what happens to the runs after a list. Raises ConfigError."""
        query = {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(WATCH_S)}
        return self.access.watch(self._path, resourceVersion=version, **query)

    @property
    def _path(self) -> str:
        within = f"namespaces/{self.namespace}/" if self.namespace else ""
        return f"/apis/{GROUP}/{VERSION}/{within}{PLURAL}"


def show_fleet(scope: Scope, console: Console) -> None:
    """Prints the runs as they are, each on one line where it is not to a terminal.

    Raises ConfigError.
    """
    rows = fleet_rows(scope.listed().runs.values(), utc_now())
    if not console.file.isatty():
        console = Console(file=console.file, width=full_width(rows))
    console.print(fleet_view(rows, scope.namespace, width=console.width))


def watch_fleet(scope: Scope, console: Console) -> None:
    """Shows the runs at a terminal until Ctrl-C.

    Raises ConfigError where they cannot be listed at first; later the cluster may be away for a
    while.
    """
    fleet = scope.listed()

    def draw() -> RenderableType:
        now = utc_now()
        return fleet_view(
            fleet_rows(fleet.runs.values(), now),
            scope.namespace,
            width=console.width,
            height=console.height,
            remark=_remark(fleet, now),
        )

    with Live(console=console, get_renderable=draw, refresh_per_second=1):
        while True:
            # Whatever ends a watch shows in the list that follows.
            with suppress(ConfigError):
                for event in scope.changes(fleet.version):
                    fleet = after_event(fleet, event)
            listed = None
            while listed is None:
                time.sleep(LIST_AGAIN_S)
                try:
                    listed = scope.listed()
                except ConfigError as error:
                    fleet = after_problem(fleet, str(error), utc_now())
            fleet = listed


def _remark(fleet: Fleet, now: datetime) -> str:
    if fleet.since is None:
        return ""
    ago = duration((now - fleet.since).total_seconds())
    return printable(f"as it was {ago} ago: {fleet.problem}")


def _refusal(error: RefusedRequest) -> str:
    if error.code == 404:
        return (
            f"the cluster has no ArlowPretrain objects ({GROUP}/{VERSION}): install the operator "
            "(docs/installing.md)"
        )
    if error.code == 403:
        return f"{error}; name a namespace of yours with -n, or ask for the role arlow-view or view"
    return f"the cluster refuses the credentials of kubectl's context: {error}"


def _key(body: Json) -> tuple[str, str]:
    metadata = section(body, "metadata")
    return text(metadata, "namespace"), text(metadata, "name")
