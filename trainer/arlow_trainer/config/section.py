"""What all sections of a manifest share: their base, and the kinds of numbers in them.

Every number has a bound beyond which no run could be, so that a typing error is a message. None is
near 2^63: a larger maximum than MAX_INTEGER overflows where Kubernetes reads it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema
from pydantic.alias_generators import to_camel

from arlow_trainer.config.mismatch import Mismatch
from arlow_trainer.config.shown_text import has_credentials, redact_urls

# The largest float64 below 2^63.
MAX_INTEGER = 2**63 - 1024
# Steps, samples and files of a run.
MAX_COUNT = 10**9
MAX_BATCH = 2**20
MAX_SECONDS = 10**9
# Of rates and factors; products of two of them are still numbers of float32.
MAX_FLOAT = 10**9

Count = Annotated[int, Field(ge=1, le=MAX_COUNT)]
CountOrNone = Annotated[int, Field(ge=0, le=MAX_COUNT)]
BatchSize = Annotated[int, Field(ge=1, le=MAX_BATCH)]
# Blocks, widths and heads of a network, and pixels and frames of a sample.
Depth = Annotated[int, Field(ge=1, le=1000)]
Width = Annotated[int, Field(ge=1, le=2**16)]
Heads = Annotated[int, Field(ge=1, le=2**12)]
Pixels = Annotated[int, Field(ge=1, le=2**14)]
Frames = Annotated[int, Field(ge=1, le=2**12)]
Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveFloat = Annotated[float, Field(gt=0, le=MAX_FLOAT)]
NonNegativeFloat = Annotated[float, Field(ge=0, le=MAX_FLOAT)]
Text = Annotated[str, Field(min_length=1, max_length=1024)]


_SHARE = r"^(\d{1,2}(\.\d{1,6})?|100)%$"


def _count_or_share(value: object) -> int | str:
    is_count = type(value) is int and 0 <= value <= MAX_COUNT
    if not is_count and not (isinstance(value, str) and re.fullmatch(_SHARE, value, re.ASCII)):
        raise ValueError("neither a count nor a share")
    return value  # type: ignore[return-value]


# One validator for both: a union's mistakes would be told for each of its types.
CountOrShare = Annotated[
    int | str,
    PlainValidator(_count_or_share),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": MAX_COUNT},
                {"type": "string", "pattern": _SHARE, "maxLength": 16},
            ]
        }
    ),
]


class Section(BaseModel):
    """Base of every section: frozen, strict about fields and types, described by its docstrings."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


def credentials_mismatch(field: str, url: str) -> Iterator[Mismatch]:
    """Yields the mistake of a URL that holds credentials: cards, checkpoints and logs repeat it."""
    if has_credentials(url):
        allowed = (
            "a URL without credentials; give them in the environment (docs/configuration.md, "
            "Credentials), in a cluster by a Secret"
        )
        yield Mismatch(field, redact_urls(url), allowed)
