"""A model without its weights: what planning and fingerprinting need once an engine has the weights."""

from __future__ import annotations

from typing import NamedTuple, Self

import torch

from kamera_agent.chunk import TextRun
from kamera_agent.config import Settings
from kamera_agent.runtime.engine import Engine, Placed
from kamera_agent.runtime.families import family_for, load
from kamera_agent.runtime.families.base import Family
from kamera_agent.runtime.kernels.layers import LayerKV
from kamera_agent.runtime.rope import bound_of
from kamera_agent.runtime.rotation import Rotation
from kamera_agent.secret import read_secret

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


class Blueprint(NamedTuple):
    """What is known of a model. Its keys of chunks are those of a Kamera over the same checkpoint.

    family: without weights. It tokenises, fingerprints and places; it encodes and computes nothing.
    """

    model_id: str
    family: Family
    rotation: Rotation
    sample: Sample

    @classmethod
    def of(cls, model_id: str, settings: Settings, *, dtype: str = "auto", revision: str | None = None) -> Self:
        """Read a checkpoint on the CPU, and let go of its weights.

        Raises as family_for() and load() do, and UnsupportedModelError where an engine's pages cannot be made.
        """
        family = family_for(*load(model_id, device="cpu", dtype=dtype, revision=revision))
        if settings.namespace_secret is not None:
            family.secret = read_secret("namespace_secret", settings.namespace_secret)
        rotation = Rotation.of(family)
        sample = _sample(family)
        # It digests the weights; from here on, it is remembered.
        _ = family.identity
        family.model.to("meta")
        return cls(model_id, family, rotation, sample)


@torch.no_grad()
def _sample(family: Family) -> Sample:
    token_ids: tuple[int, ...] = family.chat.anchor_ids
    while len(token_ids) < SAMPLE_TOKENS:
        token_ids += family.tokens.encode(SAMPLE_TEXT)
    token_ids = token_ids[:SAMPLE_TOKENS]
    engine = Engine(family, 0)
    pool = engine.new_pool()
    slots = pool.allocate(len(token_ids))
    engine.prefill(pool, [Placed(TextRun(token_ids), slots, 0, 0)])
    return Sample(token_ids, pool.read(slots), bound_of(family))
