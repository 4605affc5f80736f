"""Windows whose KV is put together chunk by chunk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple, Self

import torch

from benchmarks.fidelity.cases import POCKET_GROUND, Ground
from benchmarks.fidelity.state import KV, kept_of, layers_of
from benchmarks.fidelity.variants import Variants
from kamera_agent.chunk import Chunk, TextRun
from kamera_agent.config import Settings
from kamera_agent.pocket.renderer import draw
from kamera_agent.pocket.screen import Picture
from kamera_agent.runtime.engine import Engine, Placed, StaleSpan
from kamera_agent.runtime.families.base import Family
from kamera_agent.runtime.kernels.slots import Slots
from kamera_agent.runtime.kv_pool import KVPool
from kamera_agent.vision.image import Pixels
from training.gallery import chunk_of

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
        self.canonical = lru_cache(KNOWN)(lambda chunk: layers_of(engine.canonical(chunk)))
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
        return cls(runs, tuple(layers_of(pool.keep(part.slots)) for part in placed))


class Window:
    """Chunks at their places after the opening. The KV of a chunk is the one computed or put last."""

    def __init__(self, engine: Engine, opening: Opening, chunks: Sequence[Chunk]) -> None:
        self._engine = engine
        self._opening = opening
        self._pool: KVPool = engine.new_pool()
        self._position = self._order = 0
        self._texts = [self._place(run) for run in opening.runs]
        self.chunks = list(chunks)
        self._placed = [self._place(chunk) for chunk in chunks]
        for placed, kv in zip(self._texts, opening.kv, strict=True):
            self._load(placed, kv)

    def compute(self, indices: Sequence[int]) -> None:
        """Compute these chunks in one forward pass over the present KV of the others."""
        self._engine.prefill(self._pool, [self._placed[index] for index in indices])

    def read(self, index: int) -> KV:
        """The present KV of a chunk, with keys before RoPE."""
        return layers_of(self._pool.keep(self._placed[index].slots))

    def put(self, index: int, kv: KV) -> None:
        """Replace the KV of a chunk."""
        self._load(self._placed[index], kv)

    def refresh(self, indices: Sequence[int], lacking: Sequence[int]) -> float:
        """Refresh these chunks as the runtime does; returns the share of their KV that is computed again.

        lacking: those of them with chunks before them that they have not seen, or saw in other places.
        """
        if self._engine.family.decoder.recurrence:
            self.compute(indices)
            return 1.0
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

    def variants(self, variants: Sequence[Mapping[int, KV]] = ({},)) -> Variants:
        """Variants of this window. variants: KV of chunks, by index, to use instead of the present one."""
        present = [self.read(index) for index in range(len(self.chunks))]
        kv = [
            [*self._opening.kv, *(variant.get(index, own) for index, own in enumerate(present))] for variant in variants
        ]
        return Variants(self._engine.family, [*self._texts, *self._placed], kv)

    def logits(self, question: TextRun) -> torch.Tensor:
        """Next-token logits [vocab] after a question."""
        return self.variants().logits(question)[0, 0]

    def _load(self, placed: Placed, kv: KV) -> None:
        kept = kept_of(kv)
        self._engine.load(self._pool, placed, kept.kv, None, kept.trace)

    def _place(self, run: TextRun | Chunk) -> Placed:
        placed = Placed(run, self._pool.allocate(len(run.token_ids)), self._position, self._order)
        self._position += run.extent
        self._order += len(run.token_ids)
        return placed
