"""The Kubernetes API as raw JSON: one client, a timeout on every call, no proxy."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import ClientError
from kubernetes.aio import client, config

from arlow_operator.resource import MANAGER
from arlow_trainer.config.object_names import GROUP, PLURAL, VERSION

TIMEOUT_S = 10.0
KUEUE_VERSIONS = ("v1beta2", "v1beta1")
VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
Json = dict[str, Any]


class ApiError(Exception):
    """The API refused a request, or did not answer it.

    Attributes:
        code: the HTTP status; 0 where there was no answer.
        reason: the API's word for it, such as AlreadyExists.
        where: method and path of the request.
    """

    def __init__(self, code: int, reason: str, message: str, where: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.where = where


class Api:
    """The requests that the operator makes. Each raises ApiError."""

    def __init__(
        self, api_client: client.ApiClient, count: Callable[[str, int], None] | None = None
    ) -> None:
        """`count` is told the verb of every request, and the HTTP code of its answer."""
        self._client = api_client
        self._count = count or (lambda verb, code: None)

    @classmethod
    async def connected(cls, count: Callable[[str, int], None] | None = None) -> Api:
        """Returns a client of the cluster that KUBECONFIG names, or of the pod's own."""
        configuration = client.Configuration()
        # Addresses of the API and of pods are not for a company's proxy.
        configuration.client_session_kwargs = {"trust_env": False}
        try:
            config.load_incluster_config(client_configuration=configuration)
        except config.ConfigException:
            await config.load_kube_config(client_configuration=configuration)
        configuration.proxy = None
        return cls(client.ApiClient(configuration), count)

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()

    async def read_run(self, namespace: str, name: str) -> Json | None:
        """Returns an ArlowPretrain; None where there is none."""
        return await self._found("GET", f"{_runs(namespace)}/{name}")

    async def list_runs(self, namespace: str | None) -> list[Json]:
        """Returns the runs of a namespace, or of all."""
        return await self._items(_runs(namespace))

    async def list_jobs(self, namespace: str, selector: str) -> list[Json]:
        """Returns the Jobs that a label selector finds."""
        return await self._items(_path("apis/batch/v1", namespace, "jobs"), labelSelector=selector)

    async def list_pods(self, namespace: str, selector: str) -> list[Json]:
        """Returns the pods that a label selector finds."""
        return await self._items(_path("api/v1", namespace, "pods"), labelSelector=selector)

    async def list_events(self, namespace: str, uid: str) -> list[Json]:
        """Returns the events about an object."""
        selector = f"involvedObject.uid={uid}"
        return await self._items(_path("api/v1", namespace, "events"), fieldSelector=selector)

    async def list_workloads(self, namespace: str, job_uid: str) -> list[Json]:
        """Returns Kueue's Workloads of a Job; none where there is no Kueue, or it may not be
        asked."""
        for version in KUEUE_VERSIONS:
            path = _path(f"apis/kueue.x-k8s.io/{version}", namespace, "workloads")
            try:
                return await self._items(path, labelSelector=f"kueue.x-k8s.io/job-uid={job_uid}")
            except ApiError as error:
                if error.code not in (403, 404):
                    raise
        return []

    async def write_status(self, run: Mapping[str, Any], status: Json) -> Json:
        """Applies the whole status of a run as it was read, and returns the run.

        Raises ApiError with code 409 where the run has changed since, or is another of its name.
        """
        metadata = run["metadata"]
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": run["kind"],
            "metadata": {
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
                "resourceVersion": metadata["resourceVersion"],
            },
            "status": status,
        }
        return await self._request(
            "PATCH",
            f"{_runs(metadata['namespace'])}/{metadata['name']}/status",
            body,
            content_type="application/apply-patch+yaml",
            fieldManager=MANAGER,
            force="true",
        )

    async def create(self, body: Mapping[str, Any]) -> Json:
        """Creates an object; never by apply, which would change one that is there."""
        plural = f"{body['kind'].lower()}s"
        version = body["apiVersion"]
        group = f"api/{version}" if version == "v1" else f"apis/{version}"
        path = _path(group, body["metadata"]["namespace"], plural)
        return await self._request("POST", path, dict(body), fieldValidation="Strict")

    async def read_published_schemas(self) -> Json:
        """Returns the OpenAPI document of our group, which whoever has an account may read."""
        return await self._request("GET", f"/openapi/v3/apis/{GROUP}/{VERSION}")

    async def read_lease(self, namespace: str, name: str) -> Json | None:
        """Returns a Lease; None where there is none."""
        return await self._found("GET", f"{_leases(namespace)}/{name}")

    async def update_lease(self, lease: Mapping[str, Any]) -> Json:
        """Replaces a Lease as it was read. Raises ApiError with code 409 where it has changed."""
        metadata = lease["metadata"]
        path = f"{_leases(metadata['namespace'])}/{metadata['name']}"
        return await self._request("PUT", path, dict(lease))

    async def read_labels(self, kind: str, namespace: str, name: str) -> dict[str, str] | None:
        """Returns the labels of an object by its kind; None where there is none."""
        group = "apis/batch/v1" if kind == "Job" else "api/v1"
        path = _path(group, namespace, f"{kind.lower()}s")
        found = await self._found("GET", f"{path}/{name}")
        return None if found is None else dict(found["metadata"].get("labels") or {})

    async def delete_job(self, namespace: str, name: str, uid: str) -> None:
        """Deletes a Job of this uid with its pods; one that is gone already is well."""
        path = f"{_path('apis/batch/v1', namespace, 'jobs')}/{name}"
        # The client's default would leave the pods running.
        await self._delete(path, uid, propagationPolicy="Background")

    async def delete_pod(self, namespace: str, name: str, uid: str, grace_seconds: int) -> None:
        """Deletes a pod of this uid; one that is gone already is well."""
        path = f"{_path('api/v1', namespace, 'pods')}/{name}"
        await self._delete(path, uid, gracePeriodSeconds=grace_seconds)

    async def _delete(self, path: str, uid: str, **options: Any) -> None:
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": uid}}
        try:
            await self._found("DELETE", path, body | options)
        except ApiError as error:
            if error.code != 409:  # another object of this name
                raise

    async def _items(self, path: str, **query: str) -> list[Json]:
        answer = await self._request("GET", path, None, verb="list", **query)
        return list(answer["items"])

    async def _found(self, method: str, path: str, body: Json | None = None) -> Json | None:
        try:
            return await self._request(method, path, body)
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    async def _request(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        content_type: str = "application/json",
        verb: str = "",
        **query: str,
    ) -> Json:
        where = f"{method} {path}"
        verb = verb or VERBS[method]
        method, url, headers, sent, post = await self._client.param_serialize(
            method,
            path,
            query_params=list(query.items()),
            header_params={"Accept": "application/json", "Content-Type": content_type},
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            response = await self._client.call_api(
                method, url, headers, sent, post, _request_timeout=TIMEOUT_S
            )
            text = await response.read()
        except (ClientError, TimeoutError, OSError) as error:
            self._count(verb, 0)
            raise ApiError(0, "NoAnswer", str(error) or "no answer", where) from error
        self._count(verb, response.status)
        try:
            answer: Json = json.loads(text)
        except ValueError:
            shown = text[:200].decode(errors="replace")
            answer = {"reason": response.reason, "message": shown}
        if not 200 <= response.status < 300:
            message = answer.get("message") or response.reason
            raise ApiError(response.status, answer.get("reason") or "", str(message), where)
        return answer


def _runs(namespace: str | None) -> str:
    return _path(f"apis/{GROUP}/{VERSION}", namespace, PLURAL)


def _leases(namespace: str) -> str:
    return _path("apis/coordination.k8s.io/v1", namespace, "leases")


def _path(group: str, namespace: str | None, plural: str) -> str:
    scope = f"namespaces/{namespace}/" if namespace else ""
    return f"/{group}/{scope}{plural}"
