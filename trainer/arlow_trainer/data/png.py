"""PNG files without what their pixels do not need."""

from __future__ import annotations

import struct
import zlib

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# https://www.w3.org/TR/png-3/#11Chunks: the critical chunks, transparency and orientation.
_KEPT = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"eXIf"}


def without_side_data(content: bytes) -> bytes | None:
    """Returns a PNG file with nothing but its pixels, transparency and orientation.

    None for what is no PNG file. A chunk of the kept ones is taken as it is, damaged or not; a
    damaged orientation is left out.
    """
    if not content.startswith(_SIGNATURE):
        return None
    kept, position = [_SIGNATURE], len(_SIGNATURE)
    while position + 12 <= len(content):
        (size,) = struct.unpack_from(">I", content, position)
        kind, end = content[position + 4 : position + 8], position + 12 + size
        chunk = content[position:end]
        whole = len(chunk) == 12 + size and zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:])
        if kind in _KEPT and (whole or kind != b"eXIf"):
            kept.append(chunk)
        position = end
    return b"".join(kept)
