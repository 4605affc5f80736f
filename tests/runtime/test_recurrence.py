"""What recurrent layers keep of spans, against the rule of their state followed token by token in float64."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.functional import normalize, silu, softplus
from transformers import Qwen3_5TextConfig
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5GatedDeltaNet

from kamera_agent.runtime.fold import SPACING, Fold, Passage
from kamera_agent.runtime.gated_delta import GatedDelta
from kamera_agent.runtime.kernels.slots import Slots
from kamera_agent.runtime.recurrence import Inputs, Map, State, Trace, at

NUM_LAYERS, KEYS, VALUES, SIZE = 2, (2, 16), (4, 24), 4
WIDTH = 2 * KEYS[0] * KEYS[1] + VALUES[0] * VALUES[1]


@pytest.fixture(scope="module")
def layers() -> GatedDelta:
    config = Qwen3_5TextConfig(
        hidden_size=8,
        linear_num_key_heads=KEYS[0],
        linear_key_head_dim=KEYS[1],
        linear_num_value_heads=VALUES[0],
        linear_value_head_dim=VALUES[1],
        linear_conv_kernel_dim=SIZE,
    )
    torch.manual_seed(0)
    mixers = {number: Qwen3_5GatedDeltaNet(config, number) for number in range(NUM_LAYERS)}
    for mixer in mixers.values():
        # From heads that forget within a few tokens to heads that hardly forget.
        mixer.A_log.data.copy_(torch.tensor([1.0, -1.0, -3.0, -6.0]))
    return GatedDelta({number: SimpleNamespace(linear_attn=mixer) for number, mixer in mixers.items()})  # type: ignore[dict-item, misc]


def inputs(num_tokens: int, seed: int = 0) -> Inputs:
    draw = torch.Generator().manual_seed(seed)
    sizes = (WIDTH, num_tokens), (WIDTH, SIZE - 1), (num_tokens, VALUES[0]), (num_tokens, VALUES[0])
    return Inputs(*(torch.randn(NUM_LAYERS, *size, generator=draw) for size in sizes))


@torch.no_grad()
def updates(layers: GatedDelta, given: Inputs, layer: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The map of each token in a layer, M [H, Dk, Dk] and B [H, Dk, Dv], in float64."""
    mixer: Any = layers.mixers[layer]
    columns = torch.cat([given.left[layer], given.tail[layer]], dim=-1).double()
    maps = []
    for token in range(given.tail.shape[-1]):
        column = silu((columns[:, token : token + SIZE] * mixer.conv1d.weight[:, 0].double()).sum(-1))
        _, key, value = column.split([KEYS[0] * KEYS[1], KEYS[0] * KEYS[1], VALUES[0] * VALUES[1]])
        key = normalize(key.view(KEYS), dim=-1).repeat_interleave(VALUES[0] // KEYS[0], dim=0)
        rate = given.rate[layer, token].double().sigmoid()[:, None, None]
        steps = softplus(given.decay[layer, token].double() + mixer.dt_bias.double())
        decay = torch.exp(-mixer.A_log.double().exp() * steps)[:, None, None]
        outer = key[:, :, None] * key[:, None]
        kept = decay * (torch.eye(KEYS[1]) - rate * outer)
        maps.append((kept, rate * key[:, :, None] * value.view(VALUES)[:, None]))
    return maps


def followed(state: torch.Tensor, maps: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    for kept, added in maps:
        state = kept @ state + added
    return state


def error(expected: torch.Tensor, found: torch.Tensor) -> float:
    return float((expected - found).norm() / expected.norm())


@pytest.mark.parametrize("num_tokens", [1, 2, 3, 63, 64, 65, 217])
def test_inputs_and_their_map_are_the_rule_token_by_token(layers: GatedDelta, num_tokens: int) -> None:
    given = inputs(num_tokens)
    draw = torch.Generator().manual_seed(1)
    before = State(
        torch.randn(NUM_LAYERS, WIDTH, SIZE - 1, generator=draw),
        torch.randn(NUM_LAYERS, VALUES[0], KEYS[1], VALUES[1], generator=draw),
    )
    for trace in (given, layers.map_of(given)):
        after = layers.fold(before, trace)
        for layer in range(NUM_LAYERS):
            expected = followed(before.memory[layer].double(), updates(layers, given, layer))
            assert error(expected, after.memory[layer]) <= 1e-5
        assert torch.equal(after.tail, torch.cat([before.tail, given.tail], dim=-1)[..., -SIZE + 1 :])


def test_the_smaller_of_the_two_is_kept(layers: GatedDelta) -> None:
    most = layers.longest_inputs
    short, long = (layers.join([inputs(num_tokens)]) for num_tokens in (most, most + 1))
    assert (type(short), type(long)) == (Inputs, Map)
    for trace, num_tokens in ((short, most), (long, most + 1)):
        assert layers.num_bytes(num_tokens) == sum(tensor.nbytes for tensor in trace)


def map64(layers: GatedDelta, given: Inputs) -> Map:
    """The map of a span in float64, multiplied together from those of its tokens."""
    kept, added = [], []
    for layer in range(NUM_LAYERS):
        maps = updates(layers, given, layer)
        identity = torch.eye(KEYS[1], dtype=torch.float64).expand(VALUES[0], -1, -1)
        kept.append(followed(identity, [(one, torch.zeros_like(one)) for one, _ in maps]))
        added.append(followed(torch.zeros(VALUES[0], KEYS[1], VALUES[1], dtype=torch.float64), maps))
    return Map(given.tail.double(), torch.stack(kept), torch.stack(added))


@pytest.mark.parametrize("order", [[0, 1, 2], [0, 2], [2, 0, 1], [1]], ids=["all", "dropped", "reordered", "alone"])
def test_a_fold_is_the_rule_token_by_token(layers: GatedDelta, order: list[int]) -> None:
    """Exactly in float64; with maps in bfloat16 as well as those numbers are rounded."""
    spans = [inputs(num_tokens, seed) for seed, num_tokens in enumerate((40, 17, 63))]
    start = State(*(part.double() for part in layers.start))
    for dtype, bound in ((torch.float64, 1e-12), (torch.bfloat16, len(order) * 2**-8)):
        state = start
        for number in order:
            trace = map64(layers, spans[number])
            state = layers.fold(state, trace._replace(kept=trace.kept.to(dtype), added=trace.added.to(dtype)))
        for layer in range(NUM_LAYERS):
            maps = [one for number in order for one in updates(layers, spans[number], layer)]
            assert error(followed(start.memory[layer], maps), state.memory[layer]) <= bound


class Counting(GatedDelta):
    """Counts the spans that are folded."""

    num_folded = 0

    def fold(self, state: State, trace: Trace, layers: slice = slice(None)) -> State:
        self.num_folded += 1
        return super().fold(state, trace, layers)


class Windows:
    """A fold, with the spans of its window in order and the place of every slot."""

    def __init__(self, layers: GatedDelta) -> None:
        self.layers = Counting({number: SimpleNamespace(linear_attn=mixer) for number, mixer in layers.mixers.items()})  # type: ignore[dict-item, misc]
        self.fold = Fold(self.layers)
        self.order = torch.full((4096,), torch.iinfo(torch.int64).max)
        self.spans: list[Slots] = []

    def place(self) -> None:
        self.order[:] = torch.iinfo(torch.int64).max
        place = 0
        for span in self.spans:
            self.order[span.index(torch.device("cpu"))] = torch.arange(place, place + span.num_tokens)
            place += span.num_tokens

    @property
    def passages(self) -> list[Passage]:
        return self.fold.between(self.order, 0, sum(span.num_tokens for span in self.spans))

    def compute(self, seed: int, *slots: Slots) -> None:
        """Put new spans behind the others, as a forward pass does."""
        before = self.passages
        new = {span.ranges[0].start: Passage(span.num_tokens, inputs(span.num_tokens, seed)) for span in slots}
        self.spans += slots
        self.place()
        passages = [*before, *new.values()]
        self.fold.enter(new, passages, self.brute_force(passages))

    def brute_force(self, passages: Sequence[Passage]) -> State:
        state = self.layers.start
        for passage in passages:
            state = GatedDelta.fold(self.layers, state, passage.trace)
        return state

    def check(self, num_folded: int) -> None:
        """The state behind the window is right, and this number of spans was folded for it."""
        before = self.layers.num_folded
        state = self.fold.state_after(self.passages)
        assert self.layers.num_folded - before == num_folded
        for found, expected in zip(state, self.brute_force(self.passages), strict=True):
            torch.testing.assert_close(found, expected)


def span(start: int, num_tokens: int) -> Slots:
    return Slots((range(start, start + num_tokens),))


def test_an_edit_folds_only_what_is_behind_it(layers: GatedDelta) -> None:
    window = Windows(layers)
    for number in range(3):
        window.compute(number, span(5 * number, 5))
    window.check(num_folded=0)
    # The states after the second and the third were too near to be kept both.
    window.spans.insert(0, window.spans.pop())
    window.place()
    window.check(num_folded=3)
    window.spans.append(window.spans.pop(0))
    window.place()
    window.check(num_folded=0)
    window.fold.free(window.spans.pop(1))
    window.place()
    window.check(num_folded=1)


def test_states_are_kept_apart(layers: GatedDelta) -> None:
    window = Windows(layers)
    for number in range(6):
        window.compute(number, span(number * SPACING // 4, SPACING // 4))
    places = [folded.num_tokens for folded in window.fold._known.states]
    assert places == [SPACING // 4, 5 * SPACING // 4, 6 * SPACING // 4]


def test_tokens_of_a_reply_become_one_span(layers: GatedDelta) -> None:
    window = Windows(layers)
    window.compute(0, span(0, 5))
    slots = [7, 8, 30, 31, 32]
    for number, slot in enumerate(slots):
        window.compute(number, span(slot, 1))
    reply = Slots.of(window.spans[1:])
    whole = window.fold.recurrence.join([passage.trace for passage in window.passages[1:]])
    window.fold.join(reply)
    window.spans[1:] = [reply]
    for found, expected in zip(window.fold.read(reply), whole, strict=True):
        assert torch.equal(found, expected)
    # The state after the reply is still known.
    assert window.layers.num_folded == 0
    window.fold.state_after(window.passages)
    assert window.layers.num_folded == 0


def test_a_copy_shares_passages_and_states(layers: GatedDelta) -> None:
    window, copy = Windows(layers), Windows(layers)
    window.compute(0, span(0, 5))
    window.compute(1, span(9, 3), span(12, 4))
    copy.spans = [span(100, 5), span(50, 3), span(60, 4)]
    copy.fold.take(window.fold, zip(window.spans, copy.spans, strict=True))
    copy.place()
    copy.check(num_folded=0)
    copy.fold.rename(zip(copy.spans, window.spans, strict=True))
    assert copy.fold.passages == window.fold.passages
    window.fold.free(window.spans[0])
    assert len(copy.fold.passages) == 3


def test_single_layers_are_folded_alike(layers: GatedDelta) -> None:
    """As between two runs that one forward pass computes."""
    fold, passages = Fold(layers), [Passage(20, inputs(20)), Passage(9, layers.map_of(inputs(9, 1)))]
    whole = fold.state_after(passages)
    for layer in range(NUM_LAYERS):
        rows = slice(layer, layer + 1)
        alone = fold.advance(at(layers.start, rows), passages, rows)
        for found, expected in zip(alone, at(whole, rows), strict=True):
            torch.testing.assert_close(found, expected)
