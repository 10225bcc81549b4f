"""The schema of an `ArlowPretrain` manifest, the configuration of a run.

Fields are camelCase in YAML and snake_case in Python; unknown fields are refused. The defaults are
those of the `arlow-vision-3072` run, which an empty training section therefore describes in full.
The docstrings below fields are their descriptions in docs/configuration.md and the JSON schema.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from arlow_trainer.config.mismatch import Mismatch, refuse
from arlow_trainer.config.section import MAX_BATCH, Count, Section, Text
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
    every_steps: Count = 1000
    """Steps between checkpoints."""
    keep_last: Count = 3
    """Number of newest checkpoints to keep."""
    keep_every: Count | None = None
    """Also keep every checkpoint whose step is a multiple of this."""

    @model_validator(mode="after")
    def _names_a_folder(self) -> CheckpointSection:
        refuse(self._mismatches())
        return self

    def _mismatches(self) -> Iterator[Mismatch]:
        scheme, separator, path = self.url.partition("://")
        bucket = path.partition("/")[0]
        if not separator:
            scheme = self.url.partition(":")[0]
            if scheme != self.url and scheme in STORE_SCHEMES:
                yield Mismatch("url", self.url, f"two slashes after {scheme}:, as in {scheme}://")
        elif scheme not in STORE_SCHEMES:
            known = ", ".join(f"{scheme}://" for scheme in STORE_SCHEMES)
            yield Mismatch("url", self.url, f"a local folder, or a URL that begins with {known}")
        elif scheme == "file" and not path:
            yield Mismatch("url", self.url, "a URL that names a folder, file:///FOLDER")
        elif scheme not in ("file", "memory") and not bucket:
            allowed = f"a URL that names a bucket, {scheme}://BUCKET/FOLDER"
            yield Mismatch("url", self.url, allowed)


Gpu = Literal[
    "rtx-8000",
    "v100-16gb",
    "v100-32gb",
    "a100-40gb",
    "a100-80gb",
    "a100-40gb-pcie",
    "a100-80gb-pcie",
    "h100",
    "h200",
]


class ResourcesSection(Section):
    """The machines that the run is declared for."""

    nodes: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Nodes, one pod each."""
    gpus_per_node: Annotated[int, Field(ge=1, le=64)] = 8
    """GPUs of a node, one rank each."""
    gpu: Gpu = "rtx-8000"
    """GPU model of the nodes, by its name in the hardware table."""

    @property
    def devices(self) -> int:
        """Devices over all nodes."""
        return self.nodes * self.gpus_per_node


class RunSpec(Section):
    """The desired state of the run."""

    training: TrainingSection = TrainingSection()
    checkpoint: CheckpointSection = CheckpointSection()
    resources: ResourcesSection = ResourcesSection()

    @model_validator(mode="after")
    def _batch_is_possible(self) -> RunSpec:
        if self.global_batch_size > MAX_BATCH:
            batch = self.training.batch
            allowed = (
                f"at most {MAX_BATCH:,} samples of perDevice x accumulation x devices, which are "
                f"{self.global_batch_size:,}"
            )
            reads = ("training.batch.accumulation", "training.batch.globalSize", "resources")
            refuse([Mismatch("training.batch.perDevice", batch.per_device, allowed, reads)])
        return self

    @property
    def global_batch_size(self) -> int:
        """Samples of one optimisation step over all devices."""
        batch = self.training.batch
        declared = batch.per_device * batch.accumulation * self.resources.devices
        return batch.global_size or declared


class Metadata(Section):
    """The object's metadata, with the fields that Kubernetes knows."""

    name: Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=52)]
    """Name of the run, and of its folder below spec.checkpoint.url."""
    namespace: Annotated[str, Field(max_length=63)] | None = None
    """Namespace of the run in a cluster."""
    labels: dict[str, str] | None = None
    """Labels; Kueue reads its queue from `kueue.x-k8s.io/queue-name`."""
    annotations: dict[str, str] | None = None
    """Annotations."""
    finalizers: list[str] | None = None
    """What must happen before the object is gone."""
    owner_references: list[dict[str, Any]] | None = None
    """Objects whose deletion deletes this one."""
    generate_name: str | None = None
    """Unused, since a run's folder needs a name that is known."""
    uid: str | None = None
    """Set by the cluster."""
    resource_version: str | None = None
    """Set by the cluster."""
    generation: int | None = None
    """Set by the cluster."""
    creation_timestamp: str | None = None
    """Set by the cluster."""
    deletion_timestamp: str | None = None
    """Set by the cluster."""
    deletion_grace_period_seconds: int | None = None
    """Set by the cluster."""
    managed_fields: list[dict[str, Any]] | None = None
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
    status: dict[str, Any] | None = None

    @property
    def run_url(self) -> str:
        """URL of the folder that the run writes to."""
        # Strip slashes of the path only: file:/// is the root, but file: a folder of that name.
        scheme, separator, path = self.spec.checkpoint.url.rpartition("://")
        return f"{scheme}{separator}{path.rstrip('/')}/{self.metadata.name}"
