"""Reads an `ArlowPretrain` object of a cluster, and tells a failed one to begin again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from arlow_trainer.cluster.access import Access, RefusedRequest
from arlow_trainer.cluster.object_status import object_message, run_status
from arlow_trainer.config.errors import ConfigError
from arlow_trainer.config.object_names import (
    ATTEMPT_LABEL,
    GROUP,
    PLURAL,
    RETRY_ANNOTATION,
    RUN_UID_LABEL,
    STATUS_PORT,
    VERSION,
)
from arlow_trainer.config.status import RunStatus
from arlow_trainer.telemetry.status_source import NoAnswer, parse_status

PREFIXES = ("apt/", "arlowpretrain/", "arlowpretrains/")


def run_name(target: str) -> str | None:
    """Returns the name in a target such as `apt/NAME`; None where it is none."""
    for prefix in PREFIXES:
        if target.startswith(prefix):
            return target.removeprefix(prefix)
    return None


@dataclass(frozen=True)
class ClusterRun:
    """A run of the cluster that kubectl talks to."""

    access: Access
    namespace: str
    name: str

    @classmethod
    def of(cls, name: str, namespace: str | None) -> ClusterRun:
        """Returns the run of a name, in kubectl's own namespace where none is given.

        Raises ConfigError where kubectl's configuration is missing or wrong.
        """
        access = Access.of_kubectl()
        return cls(access, namespace or access.namespace, name)

    @property
    def target(self) -> str:
        """The run as users name it."""
        return f"apt/{self.name} in the namespace {self.namespace}"

    def read(self) -> dict[str, Any]:
        """Returns the object. Raises ConfigError where there is none, and Unreachable."""
        return self._request("GET", self._path)

    def status(self) -> RunStatus:
        """Returns the run's status: its trainer's own where it trains and may be asked, else the
        object's, which is older. Raises NoAnswer."""
        try:
            body = self.read()
            told = run_status(body)
            own = self._trainer_status(body) if told.phase == "training" else None
        except ConfigError as error:
            raise NoAnswer(str(error)) from None
        if own is None:
            return told
        words = "; ".join(filter(None, (object_message(body), own.message)))
        return own.model_copy(update={"message": words})

    def retry(self) -> None:
        """Tells a failed run to begin again. Raises ConfigError where it has not failed."""
        body = self.read()
        status = body.get("status") or {}
        if status.get("phase") != "Failed":
            phase = status.get("phase", "Pending")
            raise ConfigError(f"{self.target} is {phase}: only a Failed run begins again")
        # Later than the end even where this machine's clock is behind the operator's.
        ended = datetime.fromisoformat(status.get("completionTime") or "1970-01-01T00:00:00Z")
        asked = max(datetime.now(UTC), ended + timedelta(seconds=1))
        annotation = {RETRY_ANNOTATION: asked.isoformat(timespec="seconds")}
        self._request("PATCH", self._path, {"metadata": {"annotations": annotation}})

    @property
    def _path(self) -> str:
        return f"{self._namespaced(f'apis/{GROUP}/{VERSION}')}/{PLURAL}/{self.name}"

    def _namespaced(self, group: str) -> str:
        return f"/{group}/namespaces/{self.namespace}"

    def _trainer_status(self, body: Mapping[str, Any]) -> RunStatus | None:
        """Returns what the trainer answers through the API server; None where that may not be."""
        attempt = (body.get("status") or {}).get("attempt") or {}
        uid, number = body["metadata"]["uid"], attempt.get("number")
        try:
            pods = self._request(
                "GET",
                f"{self._namespaced('api/v1')}/pods",
                labelSelector=f"{RUN_UID_LABEL}={uid},{ATTEMPT_LABEL}={number}",
            )["items"]
            for pod in pods:
                if pod["metadata"].get("deletionTimestamp") is None:
                    name = f"{pod['metadata']['name']}:{STATUS_PORT}"
                    path = f"{self._namespaced('api/v1')}/pods/{name}/proxy/status"
                    return parse_status(json.dumps(self._request("GET", path)).encode(), path)
        except (ConfigError, NoAnswer):
            return None
        return None

    def _request(self, method: str, path: str, body: object = None, **query: str) -> dict[str, Any]:
        try:
            return self.access.request(method, path, body, **query)
        except RefusedRequest as error:
            if error.code == 404:
                missing = f"there is no {self.target}; `kubectl get apt -A` lists all"
                raise ConfigError(missing) from None
            raise ConfigError(f"{self.target}: {error}") from None
