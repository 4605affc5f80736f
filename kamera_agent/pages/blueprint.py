"""A model without its weights: what planning and fingerprinting need once an engine has the weights."""

from __future__ import annotations

import math
from typing import NamedTuple, Self

import numpy as np
from blake3 import blake3

from kamera_agent.chunk import Chunk, TextRun
from kamera_agent.config import Settings
from kamera_agent.runtime.engine import Engine, Placed
from kamera_agent.runtime.families import family_for, load
from kamera_agent.runtime.families.base import Family
from kamera_agent.runtime.kernels.layers import LayerKV
from kamera_agent.runtime.rope import bound_of
from kamera_agent.runtime.rotation import Rotation
from kamera_agent.secret import read_secret

# Of a size that most processors change, so that it shows how.
PICTURE_SHAPE = (90, 130, 3)
SAMPLE_TEXT = "Every layer of this page is compared with that of the same model in Hugging Face. "
# More than two pages of the usual sizes.
SAMPLE_TOKENS = 80


class Sample(NamedTuple):
    """Some tokens, and what the layers keep of them in Hugging Face: K before RoPE and V.

    bound: the largest relative error that rounding explains.
    """

    token_ids: tuple[int, ...]
    kv: tuple[LayerKV, ...]
    bound: float


class Picture(NamedTuple):
    """The chunk of a fixed picture after the opening tokens, and what the layers keep of it in Hugging Face.

    start: the number and the position of its first token. kv, bound: as of Sample.
    """

    chunk: Chunk
    start: int
    kv: tuple[LayerKV, ...]
    bound: float


class Blueprint(NamedTuple):
    """What is known of a model. Its keys of chunks are those of a Kamera over the same checkpoint.

    family: without weights. It tokenises, fingerprints and places; it encodes and computes nothing.
    picture: None for a model without eyes.
    """

    model_id: str
    family: Family
    rotation: Rotation
    sample: Sample
    picture: Picture | None

    @classmethod
    def of(cls, model_id: str, settings: Settings, *, dtype: str = "auto", revision: str | None = None) -> Self:
        """Read a checkpoint on the CPU, and let go of its weights.

        Raises as family_for() and load() do, and UnsupportedModelError where an engine's pages cannot be made.
        """
        family = family_for(*load(model_id, device="cpu", dtype=dtype, revision=revision))
        if settings.namespace_secret is not None:
            family.secret = read_secret("namespace_secret", settings.namespace_secret)
        rotation = Rotation.of(family)
        engine = Engine(family, 0)
        sample, picture = _sample(engine), _picture(engine) if family.has_eyes else None
        # It digests the weights; from here on, it is remembered.
        _ = family.identity
        family.model.to("meta")
        return cls(model_id, family, rotation, sample, picture)


def _sample(engine: Engine) -> Sample:
    family = engine.family
    token_ids: tuple[int, ...] = family.chat.anchor_ids
    while len(token_ids) < SAMPLE_TOKENS:
        token_ids += family.tokens.encode(SAMPLE_TEXT)
    run = TextRun(token_ids[:SAMPLE_TOKENS])
    pool = engine.new_pool()
    slots = pool.allocate(SAMPLE_TOKENS)
    engine.prefill(pool, [Placed(run, slots, 0, 0)])
    return Sample(run.token_ids, pool.read(slots), bound_of(family))


def _picture(engine: Engine) -> Picture:
    # From a hash, so that it is the same everywhere.
    noise = bytearray(blake3(b"picture").digest(math.prod(PICTURE_SHAPE)))
    chunk = engine.family.image_chunk(np.frombuffer(noise, np.uint8).reshape(PICTURE_SHAPE), "picture")
    start = len(engine.family.chat.anchor_ids)
    return Picture(chunk, start, engine.canonical(chunk).kv, bound_of(engine.family))
