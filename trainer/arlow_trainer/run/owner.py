"""Whose a run's folder is: its `run.json` names the run, and the namespace of a cluster.

The lease settles which process writes now, this which run ever may: two runs of one name in two
namespaces, with the same bucket, would otherwise resume each other's training in turn.
"""

from __future__ import annotations

import os
import uuid

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from arlow_trainer.config import ArlowPretrain
from arlow_trainer.config.errors import ConfigError, StoreError
from arlow_trainer.config.models import Namespace
from arlow_trainer.storage.errors import MissingObject
from arlow_trainer.storage.store import Store

RUN_FILE = "run.json"
NAMESPACE_VARIABLE = "ARLOW_NAMESPACE"


class Owner(BaseModel):
    """What `run.json` holds: a run's name, and its namespace where it is one of a cluster."""

    model_config = ConfigDict(frozen=True)

    name: str
    namespace: str | None = None

    def __str__(self) -> str:
        where = f"of the namespace {self.namespace!r}" if self.namespace else "without a namespace"
        return f"the run {self.name!r} {where}"


class _RunFile(Owner):
    """The owner, and an id that a run keeps for all its attempts: trackers know it by that."""

    id: str | None = None


def owner_of(run: ArlowPretrain) -> Owner:
    """Returns the owner that a run is: by ARLOW_NAMESPACE, else by metadata.namespace.

    Raises ConfigError where the variable's value cannot be a namespace.
    """
    given = os.environ.get(NAMESPACE_VARIABLE)
    if given:
        try:
            TypeAdapter(Namespace).validate_python(given)
        except ValidationError:
            raise ConfigError(
                f"{NAMESPACE_VARIABLE}: {given!r} is not allowed; allowed: the name of a "
                "namespace, at most 63 of a-z, 0-9 and -"
            ) from None
    return Owner(name=run.metadata.name, namespace=given or run.metadata.namespace)


def claim(store: Store, owner: Owner, adopt: bool) -> None:
    """Writes `run.json` where there is none; checks it, or with `adopt` replaces it, where it is.

    Called by rank 0, which holds the run's lease. Raises ConfigError where the folder is another
    run's, and StoreError where the file is damaged or the store fails.
    """
    try:
        found = _read(store)
    except MissingObject:
        # A new run, or one that an earlier version began.
        found = None
    except ValidationError:
        if not adopt:
            raise StoreError(
                f"{store.url_of(RUN_FILE)} is damaged, so that it cannot be said whose run this "
                f"is. If it is {owner}, start with --adopt, which writes the file anew."
            ) from None
        found = None
    if found is not None and (found.name, found.namespace) == (owner.name, owner.namespace):
        return
    if found is not None and not adopt:
        raise ConfigError(
            f"{store.url} belongs to {found}, and this is {owner}. Give this run another "
            "metadata.name or spec.checkpoint.url, or start it with --adopt to take the folder "
            "over with all its checkpoints."
        )
    kept = found.id if found is not None else uuid.uuid4().hex
    content = _RunFile(name=owner.name, namespace=owner.namespace, id=kept)
    store.write_bytes(RUN_FILE, (content.model_dump_json(indent=1) + "\n").encode())


def run_id(store: Store) -> str:
    """Returns the id of the run that `store` is claimed for: letters and digits.

    Of a folder that an earlier version claimed it follows from names and URL. Raises StoreError.
    """
    found = _read(store)
    text = f"{store.url} {found.namespace or ''} {found.name}"
    return found.id or uuid.uuid5(uuid.NAMESPACE_URL, text).hex


def _read(store: Store) -> _RunFile:
    return _RunFile.model_validate_json(store.read_bytes(RUN_FILE))
