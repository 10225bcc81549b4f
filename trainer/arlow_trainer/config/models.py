"""The schema of an `ArlowPretrain` manifest, the configuration of a run.

Fields are camelCase in YAML and snake_case in Python; unknown fields are refused. The defaults are
those of the `arlow-vision-3072` run, which an empty training section therefore describes in full.
The docstrings below fields are their descriptions in docs/configuration.md and the JSON schema.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from arlow_trainer.config.cluster import (
    CacheVolume,
    DataVolume,
    EnvironmentVariable,
    FailurePolicy,
    Name,
    NodesSection,
    Reference,
    Seconds,
)
from arlow_trainer.config.json_limits import JsonObject
from arlow_trainer.config.mismatch import Mismatch, refuse
from arlow_trainer.config.section import (
    MAX_BATCH,
    MAX_INTEGER,
    MAX_SECONDS,
    Count,
    CountOrNone,
    Section,
    Text,
    credentials_mismatch,
)
from arlow_trainer.config.store_options import StoreOptions
from arlow_trainer.config.training import TrainingSection

API_VERSION = "arlow.dev/v1alpha1"
KIND = "ArlowPretrain"

STORE_SCHEMES = ("file", "s3", "gs", "gcs", "az", "abfs", "memory")
"""Schemes of a checkpoint URL; all except file and memory are followed by a bucket."""


class CheckpointSection(Section):
    """Where and how often checkpoints are saved."""

    url: Text = "runs"
    """Local folder, or URL of a folder (s3://BUCKET/FOLDER, gs://, gcs://, az://, abfs://,
    file://, memory://); the run is stored at <url>/<metadata.name>/."""
    every_steps: CountOrNone = 1000
    """Steps between checkpoints; 0 for none by steps."""
    every_minutes: Annotated[float, Field(ge=0, le=1_000_000)] = 0.0
    """Minutes between checkpoints; 0 for none by time. Where both are set, the earlier one counts,
    and minutes count from the last checkpoint."""
    keep_last: Count = 3
    """Number of newest checkpoints to keep."""
    keep_every: Count | None = None
    """Also keep every checkpoint whose step is a multiple of this."""
    secret_ref: Reference | None = None
    """Secret whose keys become environment variables of the pods (AWS_ACCESS_KEY_ID, ...)."""
    options: StoreOptions | None = None
    """How the store is reached."""

    @model_validator(mode="after")
    def _names_a_folder(self) -> CheckpointSection:
        refuse(self._mismatches())
        return self

    def _mismatches(self) -> Iterator[Mismatch]:
        yield from credentials_mismatch("url", self.url)
        scheme, separator, path = self.url.partition("://")
        bucket = path.partition("/")[0]
        shown = self.options and self.options.model_dump(by_alias=True, exclude_defaults=True)
        if not separator:
            scheme = self.url.partition(":")[0]
            if scheme != self.url and scheme in STORE_SCHEMES:
                yield Mismatch("url", self.url, f"two slashes after {scheme}:, as in {scheme}://")
            elif self.options:
                yield Mismatch("options", shown, "no options, since url is a folder", ("url",))
        elif scheme not in STORE_SCHEMES:
            known = ", ".join(f"{scheme}://" for scheme in STORE_SCHEMES)
            yield Mismatch("url", self.url, f"a local folder, or a URL that begins with {known}")
        elif scheme == "file" and not path:
            yield Mismatch("url", self.url, "a URL that names a folder, file:///FOLDER")
        elif scheme not in ("file", "memory") and not bucket:
            allowed = f"a URL that names a bucket, {scheme}://BUCKET/FOLDER"
            yield Mismatch("url", self.url, allowed)
        elif self.options and scheme in ("file", "memory"):
            yield Mismatch("options", shown, f"no options, since {scheme}:// has none", ("url",))
        elif self.options and scheme != "s3":
            only = ("profile", "path_style", "requester_pays")
            for name in only[:2] if scheme in ("gs", "gcs") else only:
                if value := getattr(self.options, name):
                    field = f"options.{to_camel(name)}"
                    yield Mismatch(field, value, f"nothing, since {scheme}:// has none", ("url",))


class RunSpec(Section):
    """The desired state of the run."""

    training: TrainingSection = TrainingSection()
    checkpoint: CheckpointSection = CheckpointSection()
    nodes: NodesSection = NodesSection()
    image: Text | None = None
    """Image of the trainer; unset: the operator's default, kept for all attempts of the run."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    """When the image is pulled."""
    image_pull_secrets: Annotated[list[Reference], Field(max_length=16)] | None = None
    """Secrets with the registry's credentials."""
    service_account_name: Name | None = None
    """Service account of the pods."""
    env: Annotated[list[EnvironmentVariable], Field(max_length=256)] | None = None
    """Environment variables of the trainer."""
    data_volumes: Annotated[list[DataVolume], Field(max_length=32)] | None = None
    """Volumes with data, and those that checkpoint.url is a path on."""
    cache_volume: CacheVolume | None = None
    """Volume for prepared data sets; unset: a folder of the node, gone with the pod."""
    suspend: bool = False
    """Stop the run after a checkpoint, and keep it from starting; false resumes it."""
    managed_by: Annotated[str, Field(min_length=1, max_length=63)] = "arlow.dev/operator"
    """The controller of the run; an operator leaves runs alone that name another."""
    failure_policy: FailurePolicy = FailurePolicy()
    start_deadline_seconds: Seconds | None = None
    """Maximum seconds from the first pod to the first step, queueing not counted; unset: none."""
    active_deadline_seconds: Seconds | None = None
    """Maximum seconds of the run over all attempts; unset: none."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=MAX_SECONDS)] | None = None
    """Seconds after which the Jobs and pods of a finished run are deleted; the run itself stays.
    Unset: never."""
    termination_grace_period_seconds: Annotated[int, Field(ge=1, le=86_400)] = 180
    """Seconds that a pod has for its last checkpoint when it is asked to stop."""
    priority_class_name: Name | None = None
    """Priority class of the pods."""
    pod_template_patch: JsonObject = Field({})
    """A strategic merge patch of the pods' template (core/v1), the last resort; the container is
    `trainer`."""

    @model_validator(mode="after")
    def _batch_is_possible(self) -> RunSpec:
        if self.global_batch_size > MAX_BATCH:
            batch = self.training.batch
            allowed = (
                f"at most {MAX_BATCH:,} samples of perDevice x accumulation x devices, which are "
                f"{self.global_batch_size:,}"
            )
            reads = ("training.batch.accumulation", "training.batch.globalSize", "nodes")
            refuse([Mismatch("training.batch.perDevice", batch.per_device, allowed, reads)])
        return self

    @property
    def global_batch_size(self) -> int:
        """Samples of one optimisation step over all devices."""
        batch = self.training.batch
        declared = batch.per_device * batch.accumulation * self.nodes.devices
        return batch.global_size or declared


Namespace = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
"""A name that Kubernetes takes for a namespace."""


class Metadata(Section):
    """The object's metadata, with the fields that Kubernetes knows."""

    name: Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=52)]
    """Name of the run, and of its folder below spec.checkpoint.url."""
    namespace: Namespace | None = None
    """Namespace of the run in a cluster."""
    labels: dict[str, str] | None = None
    """Labels; Kueue reads its queue from `kueue.x-k8s.io/queue-name`."""
    annotations: dict[str, str] | None = None
    """Annotations."""
    finalizers: list[str] | None = None
    """What must happen before the object is gone."""
    owner_references: list[JsonObject] | None = None
    """Objects whose deletion deletes this one."""
    generate_name: str | None = None
    """Unused, since a run's folder needs a name that is known."""
    uid: str | None = None
    """Set by the cluster."""
    resource_version: str | None = None
    """Set by the cluster."""
    generation: Annotated[int, Field(ge=0, le=MAX_INTEGER)] | None = None
    """Set by the cluster."""
    creation_timestamp: str | None = None
    """Set by the cluster."""
    deletion_timestamp: str | None = None
    """Set by the cluster."""
    deletion_grace_period_seconds: Annotated[int, Field(ge=0, le=MAX_INTEGER)] | None = None
    """Set by the cluster."""
    managed_fields: list[JsonObject] | None = None
    """Set by the cluster."""
    self_link: str | None = None
    """Set by old clusters."""


class ArlowPretrain(BaseModel):
    """An `ArlowPretrain` object: a run, in a Kubernetes cluster or not."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="forbid",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
    )

    api_version: Literal["arlow.dev/v1alpha1"]
    kind: Literal["ArlowPretrain"]
    metadata: Metadata
    spec: RunSpec = RunSpec()
    status: JsonObject | None = None

    @property
    def run_url(self) -> str:
        """URL of the folder that the run writes to."""
        # Strip slashes of the path only: file:/// is the root, but file: a folder of that name.
        scheme, separator, path = self.spec.checkpoint.url.rpartition("://")
        return f"{scheme}{separator}{path.rstrip('/')}/{self.metadata.name}"
