"""The cluster that kubectl talks to: by its configuration, in raw JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from arlow_trainer.config.errors import ConfigError

TIMEOUT_S = 10.0
# A watch that is alive brings a bookmark each minute or so.
WATCH_SILENCE_S = 100.0
REFUSALS = (401, 403, 404, 422)


def configuration_problem(error: Exception) -> str:
    """Returns what to say where kubectl's configuration cannot be read."""
    reason = str(error).rstrip(". ")
    return f"kubectl's configuration: {reason}; set KUBECONFIG"


class Unreachable(ConfigError):
    """The cluster does not answer; the message says why."""


class RefusedRequest(ConfigError):
    """The cluster refuses a request; the message is its own.

    Attributes:
        code: the HTTP status.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Access:
    """The cluster of kubectl's current context, with its user's rights.

    Attributes:
        client: of the Kubernetes API.
        namespace: of the context.
    """

    client: Any
    namespace: str

    @classmethod
    def of_kubectl(cls) -> Access:
        """Returns the access that kubectl has.

        Raises ConfigError where its configuration is missing or wrong.
        """
        try:
            from kubernetes import client, config
            from kubernetes.config.kube_config import list_kube_config_contexts
        except ImportError:
            raise ConfigError(
                "runs in a cluster need the extra `cluster`: pip install 'arlow-pretrain[cluster]'"
            ) from None
        configuration = client.Configuration()
        try:
            config.load_kube_config(client_configuration=configuration)
            current = list_kube_config_contexts()[1].get("context", {})
        except (config.ConfigException, OSError, ValueError) as error:
            raise ConfigError(configuration_problem(error)) from None
        # A second try within the timeout's time would double it.
        configuration.retries = False
        return cls(client.ApiClient(configuration), current.get("namespace") or "default")

    def request(self, method: str, path: str, body: object = None, **query: str) -> dict[str, Any]:
        """Returns an answer. Raises RefusedRequest and Unreachable."""
        answer = self._call(method, path, body, query, TIMEOUT_S)
        try:
            content = answer.read()
        except _failures() as error:
            raise _no_answer(error) from None
        return _judged(answer.status, content)

    def watch(self, path: str, **query: str) -> Iterator[dict[str, Any]]:
        """Yields the events of a list until the server or the connection ends them.

        Raises RefusedRequest and Unreachable.
        """
        answer = self._call("GET", path, None, query, (TIMEOUT_S, WATCH_SILENCE_S))
        try:
            if answer.status != 200:
                _judged(answer.status, answer.read())
            for line in answer.response:
                yield _judged(200, line)
        except _failures() as error:
            raise _no_answer(error) from None
        finally:
            answer.response.close()

    def _call(
        self, method: str, path: str, body: object, query: dict[str, str], timeout: object
    ) -> Any:
        headers = {
            "Accept": "application/json",
            "Content-Type": "application/merge-patch+json",
        }
        try:
            return self.client.call_api(
                *self.client.param_serialize(
                    method,
                    path,
                    query_params=list(query.items()),
                    header_params=headers,
                    body=body,
                    auth_settings=["BearerToken"],
                ),
                _request_timeout=timeout,
            )
        except _failures() as error:
            raise _no_answer(error) from None


def _failures() -> tuple[type[Exception], ...]:
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    return ApiException, HTTPError, OSError


def _no_answer(error: Exception) -> Unreachable:
    return Unreachable(f"the cluster does not answer: {error}")


def _judged(code: int, content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = content[:200].decode(errors="replace")
    if isinstance(found, dict) and 200 <= code < 300:
        return found
    message = found.get("message") if isinstance(found, dict) else found
    if code in REFUSALS:
        raise RefusedRequest(code, str(message))
    raise Unreachable(f"the cluster answers {code}: {message}")
