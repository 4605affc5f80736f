"""The self-test: proof, at the start, that the engine's KV is Hugging Face's, and that it uses the KV it is given."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

import torch

from kamera_agent.chunk import Chunk
from kamera_agent.errors import ConventionError
from kamera_agent.pages.blueprint import Blueprint, Picture
from kamera_agent.runtime.kernels.layers import LayerKV
from kamera_sglang.client import Client
from kamera_sglang.mailbox import Order, Pages
from kamera_sglang.rows import cut

# Of the tokens of the sample, so many are given in the second round.
NUM_GIVEN = 30


def self_test(blueprint: Blueprint, client: Client) -> None:
    """Compare what the engine keeps of a sample, and of a picture, with Hugging Face's KV.

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
        tokens = range(NUM_GIVEN * len(given), len(sample.token_ids) - 1)
        found = _computed(client, sample.token_ids, (), given, tokens)
        part = slice(tokens.start, tokens.stop)
        turned_back = [rotation.turned_back(layer, positions[:, part]) for layer in found]
        _compare("a text", turned_back, [cut(layer, part) for layer in sample.kv], sample.bound)
    if blueprint.picture:
        _test_picture(blueprint, blueprint.picture, client)


def _test_picture(blueprint: Blueprint, picture: Picture, client: Client) -> None:
    chunk, start = picture.chunk, picture.start
    token_ids = (*blueprint.family.chat.anchor_ids, *chunk.token_ids, blueprint.sample.token_ids[-1])
    found = _computed(client, token_ids, [chunk], (), range(start, start + len(chunk.token_ids)))
    positions = blueprint.family.positions(chunk, start)
    turned_back = [blueprint.rotation.turned_back(layer, positions) for layer in found]
    _compare("a picture", turned_back, picture.kv, picture.bound)


def _computed(
    client: Client, token_ids: Sequence[int], images: Sequence[Chunk], given: Sequence[Pages], tokens: range
) -> Sequence[LayerKV]:
    """What the engine keeps of tokens of a prompt, per layer, over the KV that is given of the tokens before them."""
    response = client.ask(token_ids, images, Order(len(token_ids), given, [tokens]), f"self-test-{uuid4().hex}")
    num_given = sum(pages.num_tokens for pages in given)
    num_cached = response.output["meta_info"]["cached_tokens"]
    if num_cached != num_given or not response.taken:
        raise ConventionError(
            f"SGLang was given the KV of {num_given} tokens and took that of {num_cached}; what it computed, it "
            f"{'handed over' if response.taken else 'did not hand over'}. Start it with page_size=1, "
            "linker_options() and a version that kamera_sglang was tested with."
        )
    return response.taken[0].layers


def _compare(name: str, found: Sequence[LayerKV], expected: Sequence[LayerKV], bound: float) -> None:
    for number, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        for part in ("keys", "values"):
            _compare_layer(f"The {part} of layer {number} of {name}", getattr(ours, part), getattr(theirs, part), bound)


def _compare_layer(name: str, found: torch.Tensor, expected: torch.Tensor, bound: float) -> None:
    if found.dtype != expected.dtype:
        raise ConventionError(
            f"SGLang keeps KV in {found.dtype}, and the checkpoint is in {expected.dtype}. Start it with the "
            "checkpoint's own dtype, so that it shares chunks with Hugging Face."
        )
    error = float((found.float() - expected.float()).norm() / expected.float().norm())
    # Written so that NaN fails, too.
    if not error <= bound:
        raise ConventionError(
            f"{name} are not Hugging Face's in SGLang: the relative error is {error:.2g}, and {bound:g} is allowed. "
            "This model cannot share chunks with this version of SGLang."
        )
