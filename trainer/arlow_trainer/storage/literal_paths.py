"""Makes an fsspec file system take every path as it is written.

fsspec's stores read more into a path than a name: s3fs and adlfs cut it at `?versionId=`, adlfs
parses it as a URL (`#`, `?`) and lists it without spaces and slashes at its ends, s3fs lists
`bucket//folder` as `bucket/folder`, memory's treats `::` apart. A file that was listed would then
be read, or deleted, under the name of another.

The operations that take many paths (`rm`, `get`, `put`, `cat`, `expand_path`) also expand globs
(`*`, `?`, `[`). Never call those: list, then use the operations on one file.
"""

from __future__ import annotations

from typing import Any

_AZURE_HOST = ".core.windows.net"


def take_paths_literally(fs: Any, scheme: str) -> Any:
    """Returns `fs`, one of STORE_SCHEMES, whose operations on one path take it literally."""
    if vars(fs).keys() & {"split_path", "_strip_protocol"}:
        return fs  # fsspec returns the same instance for the same options
    if scheme == "s3":
        fs.split_path = lambda path: _split_s3(fs, path)
        fs._lsdir = _listing_of_s3(fs)
    elif scheme in ("gs", "gcs"):
        fs.split_path = lambda path: _split_bucket(fs._strip_protocol(path))
    elif scheme in ("az", "abfs"):
        fs._strip_protocol = strip_azure
        fs.split_path = lambda path, *_, **__: _split_azure(path)
        fs._ls, fs._find = _listings_of_azure(fs)
    elif scheme == "memory":
        fs._strip_protocol = _strip_memory
    return fs


def strip_azure(path: str) -> str:
    """Returns the path in an account, CONTAINER/NAME.

    Of CONTAINER/NAME, az://CONTAINER/NAME, abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/NAME, or
    az://ACCOUNT.blob.core.windows.net/CONTAINER/NAME.
    """
    scheme, separator, rest = path.partition("://")
    if not separator or "/" in scheme:
        rest = path
    host, slash, name = rest.lstrip("/").partition("/")
    if host.endswith(_AZURE_HOST):
        container, at, _ = host.partition("@")
        if not at:
            return name.lstrip("/")
        host = container
    return host + slash + name


def _split_bucket(path: str) -> tuple[str, str, None]:
    bucket, _, key = path.lstrip("/").partition("/")
    return bucket, key, None


def _split_azure(path: str) -> tuple[str, str, None]:
    container, name, _ = _split_bucket(strip_azure(path))
    if {".", ".."} & set(name.split("/")):
        # The HTTP clients resolve them: a request would reach another object.
        raise ValueError(f"Azure's names have no parts of dots alone: {name}")
    return container, name, None


def _listings_of_azure(fs: Any) -> tuple[Any, Any]:
    async def entries(path: str, delimiter: str) -> list[dict[str, Any]]:
        container, name, _ = _split_bucket(strip_azure(path))
        async with fs.service_client.get_container_client(container=container) as client:
            options = {"name_starts_with": name and f"{name}/", "include": ["metadata"]}
            if delimiter:
                found = client.walk_blobs(delimiter=delimiter, **options)
            else:
                found = client.list_blobs(**options)
            return [_azure_entry(container, blob) async for blob in found]

    async def ls(path: str, detail: bool = True, **_: Any) -> list[Any]:
        found = await entries(path, "/")
        return found if detail else [each["name"] for each in found]

    async def find(path: str, detail: bool = False, **_: Any) -> Any:
        found = {each["name"]: each for each in await entries(path, "")}
        files = {name: each for name, each in found.items() if each["type"] == "file"}
        if not found and await fs._isfile(path):
            files = {strip_azure(path): await fs._info(path)}
        return files if detail else list(files)

    return ls, find


def _azure_entry(container: str, blob: Any) -> dict[str, Any]:
    """An entry of a listing: a blob, a prefix of blobs, or one of two ways to mark a folder."""
    name, metadata = f"{container}/{blob.name}", blob.get("metadata") or {}
    marks = {key.lower() for key, value in metadata.items() if value == "true"}
    if name.endswith("/") or marks & {"hdi_isfolder", "is_directory"}:
        return {"name": name.removesuffix("/"), "size": 0, "type": "directory"}
    return {"name": name, "size": blob.size, "type": "file", "last_modified": blob.last_modified}


def _split_s3(fs: Any, path: str) -> tuple[str, str, None]:
    # The bucket may be an access point's ARN, which has slashes.
    bucket, key = fs._find_bucket_key(path.removeprefix("s3://").lstrip("/"))
    return bucket, key, None


def _listing_of_s3(fs: Any) -> Any:
    list_folder = fs._lsdir

    async def listing(path: str, *args: Any, prefix: str = "", **options: Any) -> Any:
        bucket, key, _ = fs.split_path(path)
        if key.startswith("/"):
            # As a prefix of the bucket: below a folder, its leading slashes would be dropped.
            return await list_folder(bucket, *args, prefix=f"{key}/{prefix}", **options)
        return await list_folder(path, *args, prefix=prefix, **options)

    return listing


def _strip_memory(path: Any) -> str:
    name = str(path).removeprefix("memory://").strip("/")
    return f"/{name}" if name else ""
