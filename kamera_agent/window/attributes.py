"""What this package writes into keys and attributes of records, as models that validate those of strangers."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, NonNegativeInt, ValidationError

from kamera_agent.chunk import FORMAT_VERSION, Header
from kamera_agent.errors import CorruptRecordError

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Version = Annotated[int, Field(ge=FORMAT_VERSION, le=FORMAT_VERSION)]
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


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")

    config: dict[str, JsonValue]


class _ChunkKey(BaseModel):
    """The facts that commands show; the others only make the digest."""

    model_config = ConfigDict(strict=True, extra="allow")

    format: Version
    kind: Literal["image", "frames", "document"]
    namespace: str
    shape: Annotated[tuple[NonNegativeInt, ...], Field(max_length=4)]
    model: _Model


class _PatchKey(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    format: Version
    kind: Literal["patch"]
    base: Digest
    antecedents: tuple[Digest, ...]
    rank: str


def require_readable(header: Header) -> None:
    """Raise CorruptRecordError for a key or attributes that this package did not write."""
    is_base = header.kind == "base"
    # As JSON, where a list is a tuple.
    _require("key", _ChunkKey if is_base else _PatchKey, header.key.material)
    _require("attributes", _Base if is_base else _Patch, json.dumps(dict(header.attributes)))


def _require(name: str, model: type[BaseModel], text: str) -> None:
    try:
        model.model_validate_json(text)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        raise CorruptRecordError(f"its {name} has wrong parts: {place} {problem['msg']}") from error
