"""The self-test: proof, at the start, that the engine's KV is Hugging Face's, and that it uses the KV it is given."""

from __future__ import annotations

from uuid import uuid4

import torch

from kamera_agent.errors import ConventionError
from kamera_agent.pages.blueprint import Blueprint
from kamera_agent.runtime.kernels.layers import LayerKV
from kamera_sglang.client import Client
from kamera_sglang.mailbox import Order, Pages
from kamera_sglang.rows import cut

# Of the tokens of the sample, so many are given in the second round.
NUM_GIVEN = 30


def self_test(blueprint: Blueprint, client: Client) -> None:
    """Compare what the engine keeps of a sample with Hugging Face's KV, in two rounds.

    sample          [0, 30)     [30, n - 1)    the last token
    first round     computed    computed       computed
    second round    given       computed       computed

    In the second round, the engine computes over Hugging Face's KV of the beginning.

    Raises ConventionError, naming the layer, where they differ by more than rounding explains, and where the engine
    does not take KV, or hand it over.
    """
    sample, rotation = blueprint.sample, blueprint.rotation
    positions = torch.arange(len(sample.token_ids)).expand(blueprint.family.num_axes, -1)
    beginning = [cut(layer, slice(NUM_GIVEN)) for layer in sample.kv]
    pages = Pages(0, list(rotation.turned(beginning, None, positions[:, :NUM_GIVEN])))
    for given in ([], [pages]):
        num_given, end = NUM_GIVEN * len(given), len(sample.token_ids) - 1
        order = Order(len(sample.token_ids), given, [range(num_given, end)])
        response = client.ask(sample.token_ids, (), order, f"self-test-{uuid4().hex}")
        num_cached = response.output["meta_info"]["cached_tokens"]
        if num_cached != num_given or not response.taken:
            raise ConventionError(
                f"SGLang was given the KV of {num_given} tokens and took that of {num_cached}; what it computed, it "
                f"{'handed over' if response.taken else 'did not hand over'}. Start it with page_size=1, "
                "linker_options() and a version that kamera_sglang was tested with."
            )
        part = slice(num_given, end)
        for number, (layer, expected) in enumerate(zip(response.taken[0].layers, sample.kv, strict=True)):
            _compare(number, rotation.turned_back(layer, positions[:, part]), cut(expected, part), sample.bound)


def _compare(number: int, found: LayerKV, expected: LayerKV, bound: float) -> None:
    for name in ("keys", "values"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        if ours.dtype != theirs.dtype:
            raise ConventionError(
                f"SGLang keeps KV in {ours.dtype}, and the checkpoint is in {theirs.dtype}. Start it with the "
                "checkpoint's own dtype, so that it shares chunks with Hugging Face."
            )
        error = float((ours.float() - theirs.float()).norm() / theirs.float().norm())
        # Written so that NaN fails, too.
        if not error <= bound:
            raise ConventionError(
                f"The {name} of layer {number} in SGLang are not Hugging Face's: the relative error is {error:.2g}, "
                f"and {bound:g} is allowed. This model cannot share chunks with this version of SGLang."
            )
