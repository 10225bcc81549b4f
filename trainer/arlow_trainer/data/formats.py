"""Which files are images, videos and tables, by their names."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import PurePosixPath
from typing import Literal

from PIL import Image

from arlow_trainer.config import Modality

TABLES: dict[str, Literal["parquet", "arrow"]] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
}
_VIDEOS = frozenset(
    f".{name}"
    for name in (
        *("mp4", "m4v", "mov", "qt", "avi", "divx", "mkv", "webm", "mpg", "mpeg", "mpe", "m2v"),
        *("ts", "mts", "m2ts", "m2t", "flv", "f4v", "wmv", "asf", "3gp", "3g2", "ogv", "ogm"),
        *("vob", "mxf", "dv", "rm", "rmvb", "y4m", "gif"),
    )
)
# What Pillow opens by another program, cannot load, or has for other purposes than pictures.
_NO_PICTURES = {
    *("BUFR", "GRIB", "HDF5", "MPEG", "WMF", "EPS", "PDF", "FITS", "FLI", "IPTC", "GBR", "CUR"),
    *("DCX", "FPX", "MIC", "XVTHUMB", "MSP", "PIXAR", "SPIDER", "SUN", "WAL", "FTEX", "BLP"),
}
# Of volumes and of the systems they were written on; all that begins with a dot is left out too.
_NO_DATA = {"lost+found", "@eadir", "$recycle.bin", "system volume information", "__macosx"}


@cache
def extensions(modality: Modality) -> frozenset[str]:
    """Returns the extensions, such as `.jpg`, of the images or videos that can be decoded here.

    HEIC among them where a package for it is installed (pillow-heif, pi-heif).
    """
    if modality == "video":
        return _VIDEOS
    register_decoders()
    readable = Image.registered_extensions().items()
    return frozenset(e for e, f in readable if f in Image.OPEN and f not in _NO_PICTURES)


@cache
def register_decoders() -> None:
    """Gives Pillow the decoders of packages that are installed beside it."""
    for package in ("pillow_heif", "pi_heif"):
        if find_spec(package) is not None:
            __import__(package).register_heif_opener()
            return


def extension(file: str) -> str:
    """Returns a file's extension in lower case; "" where it has none."""
    return PurePosixPath(file).suffix.lower()


def is_data(name: str) -> bool:
    """Whether a file or folder of this name may hold data: it is neither hidden nor a system's."""
    return not name.startswith(".") and name.lower() not in _NO_DATA
