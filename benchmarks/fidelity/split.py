"""Methods for models with recurrent layers: what these layers and the others have of the right context, each apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from benchmarks.fidelity.residue import edged, with_factors
from benchmarks.fidelity.state import KV, Layer, Recurrent, attending_in, kept_of, layers_of, recurrent_in
from kamera_agent.config import Settings
from kamera_agent.runtime.gated_delta import GatedDelta
from kamera_agent.runtime.kept import Kept
from kamera_agent.runtime.patch import fit
from kamera_agent.runtime.recurrence import Inputs

Some = TypeVar("Some", bound=Layer)


@dataclass(frozen=True, slots=True)
class Split:
    """A base, with patches of two ranks.

    attention, recurrent: ranks of the layers with K and V, and of the recurrent ones; 0 leaves the base, None all of
    the residue. seen: as of Auto. maps: whether recurrent layers are patched as maps, instead of as inputs.
    edges: whether recurrent layers get the few columns of the other context, which patches have as a whole: those
        before the span, or for a map its last ones.
    """

    attention: int | None
    recurrent: int | None
    base: Literal["canonical", "held"] = "canonical"
    seen: Literal["fitted", "ideal"] = "ideal"
    maps: bool = False
    edges: bool = True

    def apply(self, conditioned: KV, base: KV, recurrence: GatedDelta) -> KV:
        """The KV that the patches give."""
        ours, theirs = recurrent_in(conditioned), recurrent_in(base)
        if self.maps:
            ours, theirs = (_mapped(layers, recurrence) for layers in (ours, theirs))
        if self.edges:
            theirs = tuple(edged(*pair) for pair in zip(theirs, ours, strict=True))
        else:
            ours = tuple(edged(*pair) for pair in zip(ours, theirs, strict=True))
        attention = _patched(attending_in(conditioned), attending_in(base), self.attention)
        return (*attention, *_patched(ours, theirs, self.recurrent))


@dataclass(frozen=True, slots=True)
class Unfolded:
    """The KV as it was computed before the event, after which the recurrent layers go on from their last state."""


@dataclass(frozen=True, slots=True)
class Stateless:
    """The KV of a full prefill, and recurrent layers that have seen no chunk."""


def unfolded(held: dict[int, KV], before: Sequence[KV], recurrence: GatedDelta) -> dict[int, KV]:
    """Held KV by place, all that the window before the event left to recurrent layers with the first of them.

    before: KV of the chunks of that window, in order.
    """
    joined = recurrence.join([kept_of(kv).trace for kv in before])
    kv: dict[int, KV] = {place: attending_in(own) for place, own in held.items()}
    return kv | {0: layers_of(Kept(attending_in(held[0]), joined))}


def _patched(conditioned: Sequence[Some], base: Sequence[Some], rank: int | None) -> Sequence[Layer]:
    if rank is None:
        return conditioned
    if rank == 0:
        return base
    factors = fit(conditioned, base, Settings(rank=rank)).factors
    return [with_factors(*pair) for pair in zip(base, factors, strict=True)]


def _mapped(layers: Sequence[Recurrent], recurrence: GatedDelta) -> tuple[Recurrent, ...]:
    """Layers of inputs as maps."""
    inputs = kept_of(tuple(layers)).trace
    assert isinstance(inputs, Inputs)
    return recurrent_in(layers_of(Kept((), recurrence.map_of(inputs))))


RANKS = (1, 2, 4, 8)
SPLIT_METHODS: dict[str, Split | Unfolded | Stateless] = {
    "stateless": Stateless(),
    "unfolded": Unfolded(),
    "attention_exact": Split(None, 0),
    "recurrent_exact": Split(0, None),
    "moved_attention_exact": Split(None, 0, "held"),
    "moved_recurrent_exact": Split(0, None, "held"),
    "wrong_columns": Split(None, None, edges=False),
    "moved_wrong_columns": Split(None, None, "held", edges=False),
    "right_columns": Split(0, 0),
    "moved_right_columns": Split(0, 0, "held"),
    **{f"attention_{rank}": Split(rank, 0, seen="fitted") for rank in RANKS},
    **{f"maps_{rank}": Split(rank, rank, seen="fitted", maps=True) for rank in RANKS},
    **{f"base_attention_{rank}": Split(rank, 0, "held", "fitted") for rank in RANKS},
    **{f"base_inputs_{rank}": Split(rank, rank, "held", "fitted") for rank in RANKS},
}
