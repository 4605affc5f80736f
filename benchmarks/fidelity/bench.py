"""Windows whose KV is put together chunk by chunk, and questions over many variants of it in one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Self

import torch
from transformers import DynamicCache

from benchmarks.fidelity.cases import POCKET_GROUND, Ground
from kamera_agent.chunk import Chunk, TextRun
from kamera_agent.config import Settings
from kamera_agent.pocket.renderer import draw
from kamera_agent.pocket.screen import Picture
from kamera_agent.runtime.engine import Engine, Placed, StaleSpan
from kamera_agent.runtime.families.base import Family
from kamera_agent.runtime.kernels.layers import LayerKV
from kamera_agent.runtime.kernels.reference import rotate
from kamera_agent.runtime.kernels.slots import Slots
from kamera_agent.runtime.kv_pool import KVPool
from kamera_agent.runtime.slot_cache import cache_argument
from kamera_agent.vision.image import Pixels
from training.gallery import chunk_of

KV = tuple[LayerKV, ...]


# Events follow each other with the pictures of the same case.
KNOWN = 32


class Bench:
    """Builds windows for one engine. ground: the pictures and questions that the model has learned.

    chunk: the chunk of a picture. canonical: KV of a chunk, computed after the anchor alone. prefilled: the window of
    a tuple of chunks, fully computed, which is not to be changed. Each knows its last results.
    """

    def __init__(self, engine: Engine, ground: Ground = POCKET_GROUND) -> None:
        self.engine, self.ground = engine, ground
        family = engine.family
        opening = (*family.tokens.encode(family.chat.default_system), *family.chat.turn("system", "user"))
        self.chunk = lru_cache(KNOWN)(lambda picture: chunk_of(family, drawn(picture), Settings().namespace))
        self.canonical = lru_cache(KNOWN)(lambda chunk: engine.canonical(chunk).kv)
        self.prefilled = lru_cache(KNOWN)(self._prefill)
        self._opening = Opening.compute(engine, (TextRun(family.chat.anchor_ids), TextRun(opening)))

    def ask(self, text: str) -> TextRun:
        """A question as a run, up to the first token of its answer."""
        return question_run(self.engine.family, text)

    def window(self, chunks: Sequence[Chunk]) -> Window:
        """A window with its opening in place and room for the chunks."""
        return Window(self.engine, self._opening, chunks)

    def _prefill(self, chunks: tuple[Chunk, ...]) -> Window:
        window = self.window(chunks)
        window.compute(range(len(chunks)))
        return window


@lru_cache(KNOWN)
def drawn(picture: Picture) -> Pixels:
    """Frames [F, H, W, 3] uint8 RGB of a picture."""
    return draw(picture)


def question_run(family: Family, text: str) -> TextRun:
    """A question, the end of its turn, and the opening of the next turn."""
    return TextRun((*family.tokens.encode(text), *family.chat.turn("user", "assistant")))


class Opening(NamedTuple):
    """The runs that every window begins with, and their KV."""

    runs: tuple[TextRun, ...]
    kv: tuple[KV, ...]

    @classmethod
    def compute(cls, engine: Engine, runs: tuple[TextRun, ...]) -> Self:
        """Prefill the runs, in order."""
        pool, placed, start = engine.new_pool(), [], 0
        for run in runs:
            placed.append(Placed(run, pool.allocate(run.extent), start, start))
            start += run.extent
        engine.prefill(pool, placed)
        return cls(runs, tuple(pool.read(part.slots) for part in placed))


class Window:
    """Chunks at their places after the opening. The KV of a chunk is the one computed or put last."""

    def __init__(self, engine: Engine, opening: Opening, chunks: Sequence[Chunk]) -> None:
        self._engine = engine
        self._pool: KVPool = engine.new_pool()
        self._position = self._order = 0
        self._texts = [self._place(run) for run in opening.runs]
        self.chunks = list(chunks)
        self._placed = [self._place(chunk) for chunk in chunks]
        for placed, kv in zip(self._texts, opening.kv, strict=True):
            engine.load(self._pool, placed, kv, None)

    def compute(self, indices: Sequence[int]) -> None:
        """Compute these chunks in one forward pass over the present KV of the others."""
        self._engine.prefill(self._pool, [self._placed[index] for index in indices])

    def read(self, index: int) -> KV:
        """The present KV of a chunk, with keys before RoPE."""
        return self._pool.read(self._placed[index].slots)

    def put(self, index: int, kv: KV) -> None:
        """Replace the KV of a chunk."""
        self._engine.load(self._pool, self._placed[index], kv, None)

    def refresh(self, indices: Sequence[int], lacking: Sequence[int]) -> float:
        """Refresh these chunks as the runtime does; returns the share of their KV that is computed again.

        lacking: those of them with chunks before them that they have not seen, or saw in other places.
        """
        stale = [StaleSpan(self._placed[index], lacks=index in lacking) for index in indices]
        refreshed = self._engine.prefill(self._pool, [], stale=stale).refreshed
        sizes = [len(self.chunks[index].token_ids) for index in indices]
        num_layers = len(self._engine.family.decoder.kinds)
        computed = sum(size * one.computed(num_layers) for size, one in zip(sizes, refreshed, strict=True))
        return computed / sum(sizes)

    @torch.no_grad()
    def recompute(self, tokens: dict[int, Sequence[int]]) -> None:
        """Compute some tokens of some chunks over the present KV of the others. tokens: by index of the chunk."""
        rows: list[range] = []
        embeds, positions = [], []
        for index, chosen in tokens.items():
            placed = self._placed[index]
            of_chunk = [slot for part in placed.slots.ranges for slot in part]
            rows += [range(of_chunk[token], of_chunk[token] + 1) for token in chosen]
            embeds.append(self._engine.embed(placed.run)[list(chosen)])
            positions.append(self._engine.family.positions(placed.run, placed.position)[:, list(chosen)])
        if rows:
            self._engine.forward_at(self._pool, Slots(tuple(rows)), torch.cat(embeds), torch.cat(positions, dim=1))

    def logits(self, question: TextRun, variants: Sequence[Mapping[int, KV]] = ({},)) -> torch.Tensor:
        """Next-token logits [variants, vocab] after a question, from one plain Hugging Face forward pass.

        variants: KV of chunks, by index, to use instead of the present one. Does not change the window.
        """
        return self.logits_along(question, variants, range(len(question.token_ids))[-1:])[:, 0]

    @torch.no_grad()
    def logits_along(
        self, question: TextRun, variants: Sequence[Mapping[int, KV]], places: Sequence[int]
    ) -> torch.Tensor:
        """Like logits, but after each of the tokens of the question at these places: [variants, places, vocab]."""
        family = self._engine.family
        length = self._order
        [bank] = self._pool.banks
        present = (states[:, :, :length] for states in (bank.masters, bank.values))
        keys, values = (states.expand(len(variants), -1, -1, -1, -1).clone() for states in present)
        for number, variant in enumerate(variants):
            for index, kv in variant.items():
                first = self._placed[index].order
                tokens = slice(first, first + len(self.chunks[index].token_ids))
                keys[number, :, :, tokens] = torch.stack([layer.keys for layer in kv])
                values[number, :, :, tokens] = torch.stack([layer.values for layer in kv])
        runs = [(placed.run, placed.position) for placed in (*self._texts, *self._placed)]
        turned = torch.empty_like(keys)
        [tables] = family.decoder.rope_tables(torch.cat([family.positions(*run) for run in runs], dim=1))
        rotate(keys, *tables, out=turned, pairs=family.decoder.pairs)
        cache = DynamicCache()
        for layer in range(turned.shape[1]):
            states = turned[:, layer], values[:, layer]
            cache.update(*(reversed(states) if bank.shape.values_first else states), layer)
        text: Any = family.decoder.module
        first, extras = family.unpack(self._engine.embed(question).expand(len(variants), -1, -1))
        question_positions = family.positions(question, self._position)[:, None].expand(-1, len(variants), -1)
        hidden = text(
            inputs_embeds=first,
            position_ids=question_positions if len(question_positions) > 1 else question_positions[0],
            **{cache_argument(text): cache},
            **extras,
        ).last_hidden_state[:, list(places)]
        logits: torch.Tensor = family.model.get_output_embeddings()(hidden)
        return logits.float()

    def _place(self, run: TextRun | Chunk) -> Placed:
        placed = Placed(run, self._pool.allocate(len(run.token_ids)), self._position, self._order)
        self._position += run.extent
        self._order += len(run.token_ids)
        return placed
