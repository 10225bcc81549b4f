"""What of a run only a cluster uses: its nodes, volumes, limits and what is done after a failure.

`arlow train` accepts these fields and ignores them; `ignored_here` says so where it matters. Fields
that are named as in Kubernetes' core types have the shape that they have there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from arlow_trainer.config.mismatch import Mismatch, refuse
from arlow_trainer.config.section import MAX_SECONDS, Section
from arlow_trainer.config.shown_text import REDACTED

if TYPE_CHECKING:
    from arlow_trainer.config.models import ArlowPretrain

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

Name = Annotated[str, Field(min_length=1, max_length=253)]
Size = Annotated[str, Field(pattern=r"^[1-9][0-9]*(Ki|Mi|Gi|Ti)$", max_length=16)]
AbsolutePath = Annotated[str, Field(pattern=r"^/", max_length=1024)]
Labels = Annotated[dict[str, str], Field(max_length=64)]
Restarts = Annotated[int, Field(ge=0, le=1_000_000)]
Seconds = Annotated[int, Field(ge=1, le=MAX_SECONDS)]

MAX_RANKS = 256
"""Ranks of a machine: each is a process that loads torch."""

VariableName = Annotated[str, Field(pattern=r"^[-._a-zA-Z][-._a-zA-Z0-9]*$", max_length=253)]
# What the operator sets in every pod.
RESERVED_VARIABLES = re.compile(r"ARLOW_.*|JOB_COMPLETION_INDEX", re.DOTALL)
NOT_RESERVED = "a name that the operator does not set (ARLOW_..., JOB_COMPLETION_INDEX)"


class Toleration(Section):
    """A toleration of a pod."""

    key: Name | None = None
    """Key of the taint; unset: every key."""
    operator: Literal["Equal", "Exists"] | None = None
    """How key and value are compared; unset: `Equal`."""
    value: Name | None = None
    """Value of the taint."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint; unset: every effect."""
    toleration_seconds: Annotated[int, Field(ge=0, le=MAX_SECONDS)] | None = None
    """How long a taint that evicts is tolerated; unset: for ever."""


class NodesSection(Section):
    """The machines of the run."""

    count: Annotated[int, Field(ge=1, le=1000)] = 1
    """Nodes, one pod each."""
    gpus: Annotated[int, Field(ge=0, le=64)] = 8
    """GPUs of a node, one rank each; 0 for CPUs."""
    gpu_product: Gpu | None = None
    """GPU model of the nodes, by its name in the hardware table: the pods' node selector, and the
    memory that `arlow config validate` plans with; unset: what nodeSelector finds."""
    ranks: Annotated[int, Field(ge=1, le=MAX_RANKS)] = 1
    """Ranks of a node without GPUs."""
    cpu: Annotated[float, Field(gt=0, le=1024)] | None = None
    """CPU cores that a pod requests; there is no limit, which would slow the data down."""
    memory: Size | None = None
    """Memory of a pod, such as 200Gi, request and limit; unset: 4Gi without GPUs."""
    shared_memory: Size | None = None
    """Size of /dev/shm, which is part of the memory; unset: half of it."""
    ephemeral_storage: Size | None = None
    """Disk of a pod for logs and temporary files."""
    node_selector: Labels | None = None
    """Labels that nodes must have."""
    tolerations: Annotated[list[Toleration], Field(max_length=32)] | None = None
    """Taints that pods tolerate."""

    @property
    def devices(self) -> int:
        """Devices over all nodes: GPUs, or ranks where there are none."""
        return self.count * (self.gpus or self.ranks)

    @model_validator(mode="after")
    def _fits(self) -> NodesSection:
        refuse(self._mismatches())
        return self

    def _mismatches(self) -> Iterator[Mismatch]:
        if self.gpus and self.ranks > 1:
            yield Mismatch("ranks", self.ranks, "1, since every GPU has one rank", ("gpus",))
        if (
            self.memory
            and self.shared_memory
            and size_bytes(self.shared_memory) >= size_bytes(self.memory)
        ):
            allowed = f"less than memory, {self.memory}, of which it is part"
            yield Mismatch("sharedMemory", self.shared_memory, allowed, ("memory",))


def size_bytes(size: str) -> int:
    """Returns the bytes of a size such as 200Gi."""
    return int(size[:-2]) << 10 * (1 + "KMGT".index(size[-2]))


def _written(section: Section) -> dict[str, Any]:
    return section.model_dump(by_alias=True, exclude_unset=True)


class Reference(Section):
    """An object of the run's namespace."""

    name: Name
    """Name of the object."""


class KeyReference(Section):
    """A key of a Secret or ConfigMap."""

    name: Name
    """Name of the object."""
    key: Name
    """Key in it."""
    optional: bool | None = None
    """Whether object and key may be missing."""


class FieldReference(Section):
    """A field of the pod."""

    api_version: Name | None = None
    """Version of the pod's schema."""
    field_path: Name
    """Path of the field, such as `status.hostIP`."""


class ResourceFieldReference(Section):
    """A resource of the container."""

    container_name: Name | None = None
    """Name of the container."""
    resource: Name
    """The resource, such as `limits.memory`."""
    divisor: Name | None = None
    """Unit of the value."""


class ValueSource(Section):
    """Where an environment variable's value comes from."""

    secret_key_ref: KeyReference | None = None
    """A key of a Secret."""
    config_map_key_ref: KeyReference | None = None
    """A key of a ConfigMap."""
    field_ref: FieldReference | None = None
    """A field of the pod."""
    resource_field_ref: ResourceFieldReference | None = None
    """A resource of the container."""

    @model_validator(mode="after")
    def _is_one(self) -> ValueSource:
        if len(self.model_fields_set) != 1:
            names = ", ".join(str(field.alias) for field in type(self).model_fields.values())
            refuse([Mismatch("", _written(self), f"exactly one of {names}")])
        return self


class EnvironmentVariable(Section):
    """An environment variable of the trainer's container."""

    name: VariableName
    """Name of the variable."""
    value: Annotated[str, Field(max_length=32_768)] | None = None
    """Its value."""
    value_from: ValueSource | None = None
    """Where its value comes from instead."""

    @model_validator(mode="after")
    def _is_free(self) -> EnvironmentVariable:
        if RESERVED_VARIABLES.fullmatch(self.name):
            refuse([Mismatch("name", self.name, NOT_RESERVED)])
        if self.value is not None and self.value_from is not None:
            refuse([Mismatch("value", REDACTED, "no value beside valueFrom", ("valueFrom",))])
        return self


class DataVolume(Section):
    """A volume with data, which exists already."""

    claim_name: Name
    """Name of the PersistentVolumeClaim."""
    mount_path: AbsolutePath
    """Folder of the container that it is mounted at."""
    sub_path: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """Folder of the volume that is mounted; unset: all of it."""
    read_only: bool = True
    """Whether it is mounted read-only; false for the volume of checkpoints."""


class CacheVolume(Section):
    """A volume for prepared data sets and compiled blocks, kept between attempts: an existing
    claim, or a new one."""

    claim_name: Name | None = None
    """Name of an existing PersistentVolumeClaim."""
    size: Size | None = None
    """Size of a new claim, such as 500Gi."""
    storage_class_name: Name | None = None
    """Storage class of a new claim; unset: the cluster's default."""

    @model_validator(mode="after")
    def _is_one(self) -> CacheVolume:
        refuse(self._mismatches())
        return self

    def _mismatches(self) -> Iterator[Mismatch]:
        if (self.claim_name is None) == (self.size is None):
            yield Mismatch("", _written(self), "either claimName or size")
        elif self.storage_class_name and self.size is None:
            allowed = "a storage class beside size only"
            yield Mismatch("storageClassName", self.storage_class_name, allowed, ("size",))


class MaxRestarts(Section):
    """How often a run is restarted for each cause before it fails; 0 for never.

    Progress, a checkpoint above that of the last restart, resets all but total and cacheFull.
    """

    total: Restarts = 100
    """Restarts in all."""
    out_of_memory: Restarts = 2
    """A rank was killed for lack of memory."""
    non_finite_loss: Restarts = 3
    """The loss or the gradients stayed NaN or Inf."""
    store: Restarts = 10
    """The store of checkpoints or data failed."""
    stalled: Restarts = 3
    """No step ended for too long."""
    crash: Restarts = 5
    """An internal error."""
    cache_full: Restarts = 1
    """The pod's own disk was full."""
    unknown: Restarts = 5
    """The cause could not be found."""
    without_progress: Restarts = 3
    """Restarts in a row without progress, whatever their cause."""


class StallSection(Section):
    """When a run that makes no step is stalled, and what is done then."""

    factor: Annotated[float, Field(ge=2, le=10_000)] = 20
    """Multiple of the median step's time after which a step is late."""
    min_seconds: Seconds = 600
    """Minimum seconds before a step is late."""
    action: Literal["Restart", "Report", "None"] = "Restart"
    """What is done: restart the run, only report it, or nothing."""


class FailurePolicy(Section):
    """What is done when a run fails or stalls."""

    max_restarts: MaxRestarts = MaxRestarts()
    stall: StallSection = StallSection()


def ignored_here(run: ArlowPretrain) -> Iterator[str]:
    """Yields what of a run only a cluster would heed, and this machine lacks."""
    spec = run.spec
    if spec.suspend:
        yield "spec.suspend: true is for the operator in a cluster; this command trains anyway"
    for number, volume in enumerate(spec.data_volumes or ()):
        if not os.path.isdir(volume.mount_path):
            yield (
                f"spec.dataVolumes[{number}].mountPath: {volume.mount_path} is no folder here; "
                "only a cluster mounts volumes"
            )
    unset = [each.name for each in spec.env or () if each.name not in os.environ]
    if unset:
        verb = "is" if len(unset) == 1 else "are"
        yield f"spec.env: {', '.join(unset)} {verb} not set here; only a cluster sets variables"
