"""What lies at a path of an fsspec file system, as it is now, and how it is removed."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from arlow_trainer.storage.failures import Failure, classify
from arlow_trainer.storage.local_files import is_temporary


def find_objects(fs: Any, path: str) -> dict[str, int]:
    """Returns full path and size of every object below a path, folder markers and all."""
    fs.invalidate_cache()
    walking = {"on_error": raise_unless_gone} if "file" in fs.protocol else {}
    try:
        found = fs.find(path, detail=True, **walking)
    except FileNotFoundError as error:
        raise_unless_gone(error)
        return {}
    # adlfs returns a list where the path is that of an object.
    files = {} if isinstance(found, list) else found
    return {
        name: int(info["size"])
        for name, info in sorted(files.items())
        if info.get("type") == "file" and name != path
    }


def names_below(fs: Any, path: str, kind: str) -> list[str]:
    """Returns the names directly below a path, of kind "file" or "directory"."""
    fs.invalidate_cache()
    try:
        found = fs.ls(path, detail=True)
    except FileNotFoundError as error:
        raise_unless_gone(error)
        return []
    inside = (
        info["name"].rstrip("/")
        for info in found
        if info["type"] == kind and info["name"].strip("/") != path.strip("/")
    )
    return sorted({PurePosixPath(name).name for name in inside if not is_temporary(name)})


def object_info(fs: Any, path: str) -> dict[str, Any] | None:
    """Returns what the file system knows of an object; None where there is none."""
    fs.invalidate_cache()
    try:
        found = fs.info(path)
    except FileNotFoundError as error:
        raise_unless_gone(error)
        return None
    return dict(found) if found["type"] == "file" else None


def delete_file(fs: Any, path: str) -> None:
    """Deletes an object, if there is one."""
    try:
        fs.rm_file(path)
    except FileNotFoundError as error:
        raise_unless_gone(error)


def delete_folder(fs: Any, path: str) -> None:
    """Deletes a local folder with all that is in it, if there is one."""
    try:
        fs.rm(path, recursive=True)
    except FileNotFoundError as error:
        raise_unless_gone(error)


def raise_unless_gone(error: OSError) -> None:
    """Raises the error unless an object is missing: a missing bucket is a FileNotFoundError too."""
    if classify(error, local=True) is not Failure.MISSING:
        raise error
