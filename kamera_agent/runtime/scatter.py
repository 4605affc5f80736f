"""The scatter test: proof, at load, that tokens of a text model can be computed out of place."""

from __future__ import annotations

import torch

from kamera_agent.chunk import TextRun
from kamera_agent.errors import UnsupportedModelError
from kamera_agent.runtime.families.text_only import TextOnly
from kamera_agent.runtime.rope import Forward, bound_of

NUM_TOKENS, NUM_FIRST = 12, 5


@torch.no_grad()
def scatter_test(family: TextOnly, forward: Forward) -> None:
    """Raise UnsupportedModelError unless dummy tokens come out as in a plain forward pass.

    1. Run all of them through plain Hugging Face.
    2. Run the first ones in the last slots of a pool, and the others in the slots before, with masks.

    A layer that keeps a state, adds a bias by the place in the cache, or sees what follows fails here.
    """
    vocab = family.model.get_input_embeddings().num_embeddings
    run = TextRun(tuple(range(0, vocab, vocab // NUM_TOKENS))[:NUM_TOKENS])
    expected = family.plain_logits(run.token_ids).float()
    pool = family.decoder.new_pool()
    rest, first = pool.allocate(NUM_TOKENS - NUM_FIRST), pool.allocate(NUM_FIRST)
    embeds, positions = family.embed(run, None), family.positions(run, 0)
    pool.place(first, 0)
    hidden = [forward(pool, first, embeds[:NUM_FIRST], positions[:, :NUM_FIRST])]
    pool.place(rest, NUM_FIRST)
    hidden.append(forward(pool, rest, embeds[NUM_FIRST:], positions[:, NUM_FIRST:]))
    logits = family.logits(torch.cat(hidden))
    # The median: rounding may send single tokens of a mixture to other experts.
    error = float(((logits - expected).norm(dim=1) / expected.norm(dim=1)).median())
    bound = bound_of(family)
    if not error <= bound:
        raise UnsupportedModelError(
            f"Tokens of {type(family.model).__name__} that are computed out of place differ from those of a plain "
            f"forward pass: the relative error is {error:.2g}, and {bound:g} is allowed. A part of it is not served."
        )
