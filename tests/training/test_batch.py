"""Training batches, compared with plain Hugging Face over the tokens that each question sees."""

import numpy as np
import torch
from huggingface import Conversation, image_patches

from kamera_agent.pocket.renderer import draw
from kamera_agent.pocket.weights import WEIGHTS
from kamera_agent.pocket.world import World
from kamera_agent.runtime.families import family_for, load
from training.bank import Album
from training.decoding import Decoder, Lessons
from training.gallery import chunk_of


@torch.no_grad()
def test_every_question_is_answered_as_if_it_stood_alone_or_in_its_row() -> None:
    """Positions, masks and features at once, for all questions about two windows of two screens."""
    family = family_for(*load(str(WEIGHTS), device="cpu"))
    world = World(np.random.default_rng(5))
    windows = [world.window("links", 2), world.window("changes", 2)]
    frames = [[draw(picture) for picture in window] for window in windows]
    table = torch.cat([family.encode(chunk_of(family, shown)) for window in frames for shown in window])
    # A generator that draws a row of questions for one window and questions side by side for the other.
    batch = Lessons(family, Album(windows, table)).batch(windows, np.random.default_rng(11))
    decoder = Decoder(family)
    output = decoder.text(
        inputs_embeds=decoder.text.embed_tokens(batch.token_ids).masked_scatter(
            (batch.features >= 0)[..., None], table[batch.features[batch.features >= 0]]
        ),
        position_ids=batch.positions,
        attention_mask={
            "full_attention": torch.zeros(batch.mask.shape).masked_fill(~batch.mask, torch.finfo(torch.float32).min)
        },
        use_cache=False,
    )
    reference = Conversation(family.model, family.processors)
    blocks = set()
    for task, row, place in zip(batch.tasks, *batch.targets[:2], strict=True):
        if task is None:
            continue
        seen = batch.mask[row, 0, place].nonzero().flatten()
        blocks.add((int(row), len(seen) == int(place) + 1))
        images = [image_patches(family.processors.image_processor, shown[0]) for shown in frames[row]]
        inputs = reference._join(tuple(batch.token_ids[row, seen].tolist()), images, [], [])
        family.model.model.rope_deltas = None
        expected = family.model(**inputs, use_cache=False).logits[0, -1]
        logits = family.model.lm_head(output.last_hidden_state[row, place])
        torch.testing.assert_close(logits, expected, atol=2e-3, rtol=1e-3)
    # The batch has questions of both kinds: those that see earlier questions, and those that do not.
    assert len({alone for _, alone in blocks}) == 2


@torch.no_grad()
def test_windows_are_asked_the_tasks_of_their_course() -> None:
    family = family_for(*load(str(WEIGHTS), device="cpu"))
    window = World(np.random.default_rng(5)).window("links", 2)
    num_cells = sum(picture.columns * picture.rows for picture in window)
    lessons = Lessons(family, Album([window], torch.zeros(num_cells, 128)))
    assert set(lessons.batch([window], np.random.default_rng(0)).tasks) == {"read", "find", "join2", None}
    assert set(lessons.batch([window], np.random.default_rng(0), ("find", "diff")).tasks) == {"find", None}
