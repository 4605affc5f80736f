"""What the library writes into the attributes of a record, as models that validate those of strangers."""

from __future__ import annotations

import json
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from kamera_agent.chunk import Header
from kamera_agent.errors import CorruptRecordError

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
ShortDigest = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]


class _Seen(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    chunks: tuple[Digest, ...]
    texts: tuple[ShortDigest, ...]
    chain: ShortDigest
    exact: bool


class _Base(_Seen):
    content: Digest


class _Patch(_Seen):
    rank: Annotated[str, Field(max_length=100)]
    ranks: tuple[NonNegativeInt, ...]
    over: Digest
    energy: tuple[float, ...]
    error: float
    norm: tuple[float, ...]


def require_readable(header: Header) -> None:
    """Raise CorruptRecordError for attributes that the library did not write."""
    model = _Base if header.kind == "base" else _Patch
    try:
        # As JSON, where a list is a tuple.
        model.model_validate_json(json.dumps(dict(header.attributes)))
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        raise CorruptRecordError(
            f"the attributes are not those of a {header.kind}: {place} {problem['msg']}"
        ) from error
