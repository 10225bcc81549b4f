"""What a valid manifest may say and a cluster cannot do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from arlow_operator.pod_patch import refused
from arlow_trainer.config import ArlowPretrain


def refusals(run: ArlowPretrain) -> Iterator[str]:
    """Yields one line for everything that keeps a run from a cluster."""
    spec = run.spec
    if spec.nodes.count > 1:
        yield f"spec.nodes.count: {spec.nodes.count} is not possible yet; allowed: 1"
    yield from _store(run)
    yield from refused(spec.pod_template_patch)


def _store(run: ArlowPretrain) -> Iterator[str]:
    url = run.spec.checkpoint.url
    scheme, separator, path = url.partition("://")
    if scheme == "memory":
        yield f"spec.checkpoint.url: {url} is the memory of a pod and gone with it; name a store"
    if separator and scheme != "file":
        return
    folder = PurePosixPath("/" + path.lstrip("/") if separator else url)
    volumes = run.spec.data_volumes or ()
    writable = [PurePosixPath(each.mount_path) for each in volumes if not each.read_only]
    if not any(folder.is_relative_to(mount) for mount in writable):
        yield (
            f"spec.checkpoint.url: {url} would be gone with the pod; name a URL such as "
            "s3://BUCKET/FOLDER, or a path on one of spec.dataVolumes with readOnly: false"
        )
