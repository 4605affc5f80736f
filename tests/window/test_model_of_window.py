"""Random edits against a brute-force model of the window.

The model knows nothing of slots: it holds names and contents, and decides origins from their definitions. After every
answer the window must have the model's spans, positions (which Hugging Face computes for the whole prompt),
origins and exactness, every slot must have one owner, and the logits must be those of a plain DynamicCache filled
with the same K and V.
"""

from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

import pytest
import torch
from huggingface import Conversation, Frames, logits_over, positions_of, turn_keys
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from models import TINY, max_error, screenshot

from kamera_agent import Kamera
from kamera_agent.pocket.model import build_model, build_processor
from kamera_agent.runtime import refresh
from kamera_agent.runtime.families import family_for
from kamera_agent.runtime.kernels.slots import Slots
from kamera_agent.vision.frames import stack_frames

MODEL, PROCESSOR = build_model(TINY), build_processor()
FAMILY = family_for(MODEL, PROCESSOR)
GRIDS = [(112, 168), (56, 56), (84, 196), (56, 140), (112, 112)]
# Even and odd numbers of frames; seconds that are whole, as temporal positions are.
CLIPS = {
    5: Frames([screenshot(50 + i, 56, 84) for i in range(4)], 1.0),
    6: Frames([screenshot(60 + i, 84, 56) for i in range(3)], 0.5),
}
SYSTEM = "You are a helpful assistant."


@dataclass(frozen=True)
class Thing:
    """A text (str), an image or a clip (seed), or a reply (token ids)."""

    name: str
    role: str
    content: Any

    @property
    def is_chunk(self) -> bool:
        return isinstance(self.content, int)


@dataclass
class Known:
    """KV that was computed after a prefix: whether it was exact, whether it still is, and where it is kept."""

    identity: Any
    prefix: tuple[Any, ...]
    exact: bool
    whole: bool = True
    name: str = ""
    place: tuple[int, int] | None = None
    refreshed: tuple[int, ...] | None = None

    @property
    def chunks(self) -> tuple[int, ...]:
        return chunks_of(self.prefix)

    def grade(self, present: tuple[Any, ...]) -> int:
        """0: the same prefix. 1: its chunks in order. 2: in another order. 3: some have gone. 4: others."""
        now = chunks_of(present)
        fits = (
            self.prefix == present,
            self.chunks == now,
            sorted(self.chunks) == sorted(now),
            is_subsequence(now, self.chunks),
            True,
        )
        return fits.index(True)

    def is_exact_after(self, present: tuple[Any, ...]) -> bool:
        return self.exact and self.whole and self.prefix == present

    def preference(self, present: tuple[Any, ...]) -> tuple[Any, ...]:
        common = sum(min(self.chunks.count(x), chunks_of(present).count(x)) for x in set(self.chunks))
        misses = len(chunks_of(present)) - common, len(self.chunks) - common
        inexact, stored = not self.is_exact_after(present), self.place is None
        return (self.grade(present), *misses, inexact, stored, not self.exact, -self.text_match(present))

    def needs_refresh(self, present: tuple[Any, ...]) -> bool:
        """Whether other chunks are before it than those that it has seen, or was refreshed among."""
        return self.grade(present) > 1 if self.refreshed is None else self.refreshed != chunks_of(present)

    def is_strange(self, present: tuple[Any, ...]) -> bool:
        """Whether it is not in the window, and saw chunks of which none is before it."""
        return self.place is None and bool(self.chunks) and not set(self.chunks) & set(chunks_of(present))

    def text_match(self, present: tuple[Any, ...]) -> float:
        ours, theirs = texts_of(self.prefix), texts_of(present)
        return 1.0 if ours == theirs else len(set(ours) & set(theirs)) / len(set(ours) | set(theirs))


def chunks_of(prefix: tuple[Any, ...]) -> tuple[int, ...]:
    return tuple(x for x in prefix if isinstance(x, int))


def texts_of(prefix: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(x for x in prefix[1:] if not isinstance(x, int))


def size_of(identity: Any) -> tuple[int, int]:
    """Positions and tokens of a piece."""
    if isinstance(identity, int):
        pixels = pixels_of(identity)
        if identity in CLIPS:
            chunk = FAMILY.frames_chunk(stack_frames(pixels.pixels, timestamps_of(pixels)), "")
        else:
            chunk = FAMILY.image_chunk(pixels, "")
        return chunk.extent, len(chunk.token_ids)
    return (len(tokens_of(identity)),) * 2


def tokens_of(identity: str | tuple[int, ...]) -> tuple[int, ...]:
    return identity if isinstance(identity, tuple) else tuple(FAMILY.tokens.encode(identity))


def is_text(name: str) -> bool:
    """Whether it is the name of a text of the caller, a question included."""
    return name.startswith("text") and not name.endswith(":turn")


@dataclass
class BruteForce:
    fidelity: str
    stale: str
    refreshes_whole: bool
    held: list[Thing] = field(default_factory=list)
    dropped: dict[str, Thing] = field(default_factory=dict)
    pool: list[Known] = field(default_factory=list)
    bases: dict[int, Known] = field(default_factory=dict)
    patches: dict[int, dict[tuple[int, ...], Known]] = field(default_factory=dict)
    sizes: dict[Any, tuple[int, int]] = field(default_factory=dict)

    def pieces(self, extra: list[Thing], reply: bool) -> list[tuple[str, Any]]:
        out: list[tuple[str, Any]] = [("anchor", "<|im_start|>system\n"), ("system", SYSTEM)]
        role = "system"
        for thing in [*self.held, *extra]:
            if thing.role != role or isinstance(thing.content, tuple):
                out.append((f"{thing.name}:turn", f"<|im_end|>\n<|im_start|>{thing.role}\n"))
                role = thing.role
            out.append((thing.name, thing.content))
        return [*out, ("answer", "<|im_end|>\n<|im_start|>assistant\n")] if reply else out

    def answer(self, extra: list[Thing], *, keep_extra: bool) -> dict[str, tuple[str, bool]]:
        """Origin and exactness of every piece; updates pool and what is remembered."""
        pieces = self.pieces(extra, reply=True)
        identities = tuple(identity for _, identity in pieces)
        partner = self.partners(pieces)
        origins: dict[str, tuple[str, bool]] = {}
        pool, computed = [], []
        place = (0, 0)
        for i, (name, identity) in enumerate(pieces):
            present = identities[:i]
            all_exact = all(exact for _, exact in origins.values())
            known = self.source(identity, present, partner.get(i)) if i < len(pieces) - 1 else None
            if known is None and all_exact and is_text(name) and self.begins_as_before(i, pieces, partner):
                known = Known(identity, present, True, place=place)
            refreshed = bool(known) and self.refreshes(known, identity, present)
            if known is None or (refreshed and self.refreshes_whole):
                origins[name] = ("computed", all_exact)
                new = Known(identity, present, all_exact, name=name, place=place)
                computed += [new] if isinstance(identity, int) else []
            else:
                exact = known.is_exact_after(present)
                if known.place is not None:
                    origin = "kept" if known.place == place else "moved"
                else:
                    origin = "blind" if self.fidelity == "blind" and known.grade(present) == 4 else "recalled"
                origins[name] = (origin, exact)
                new = replace(known, name=name, place=place)
                if refreshed:
                    new = replace(new, whole=False, refreshed=chunks_of(present))
            pool.append(new)
            place = tuple(a + b for a, b in zip(place, self.size(identity), strict=True))
        for new in computed:
            self.remember(new)
        self.pool = pool if keep_extra else pool[: len(self.pieces([], reply=False))]
        return origins

    def heal(self) -> None:
        """Compute what is not exact in the unchanged beginning of the window again, after what is before it now."""
        identities = tuple(identity for _, identity in self.pieces([], reply=False))
        for i, (known, identity) in enumerate(zip(self.pool, identities, strict=False)):
            if known.identity != identity:
                break
            if not known.is_exact_after(identities[:i]):
                self.pool[i] = Known(identity, identities[:i], True, name=known.name, place=known.place)
                if isinstance(identity, int):
                    self.remember(self.pool[i])

    def size(self, identity: Any) -> tuple[int, int]:
        if identity not in self.sizes:
            self.sizes[identity] = size_of(identity)
        return self.sizes[identity]

    def unchanged(self, pieces: list[tuple[str, Any]]) -> int:
        """How many pieces at the beginning are those of the last answer."""
        same = [known.identity == identity for known, (_, identity) in zip(self.pool, pieces, strict=False)]
        return [*same, False].index(False)

    def begins_as_before(self, i: int, pieces: list[tuple[str, Any]], partner: dict[int, Known]) -> bool:
        """Whether a text is the first change, and has its first token from an exact one that nothing else needs."""
        if i != self.unchanged(pieces) or i >= len(self.pool):
            return False
        old, present = self.pool[i], tuple(identity for _, identity in pieces[:i])
        if any(old is known for known in partner.values()) or isinstance(old.identity, int):
            return False
        return old.is_exact_after(present) and tokens_of(old.identity)[0] == tokens_of(pieces[i][1])[0]

    def partners(self, pieces: list[tuple[str, Any]]) -> dict[int, Known]:
        """Pieces and KV of the same content: exact there, in the unchanged beginning, of the same name, any chunk."""
        identities = tuple(identity for _, identity in pieces)
        start = self.unchanged(pieces)
        places = {id(known): i for i, known in enumerate(self.pool)}
        rules = (
            lambda i, known: known.is_exact_after(identities[:i]),
            lambda i, known: i < start and places[id(known)] == i,
            lambda i, known: known.name == pieces[i][0],
            lambda i, known: isinstance(identities[i], int),
        )
        left, partner = list(self.pool), {}
        for fits in rules:
            for i, identity in enumerate(identities):
                fitting = [
                    known for known in left if i not in partner and known.identity == identity and fits(i, known)
                ]
                for known in fitting[:1]:
                    partner[i] = known
                    left.remove(known)
        return partner

    def source(self, identity: Any, present: tuple[Any, ...], pooled: Known | None) -> Known | None:
        found = [known for known in (pooled, *self.stored(identity)) if known]
        if self.fidelity == "exact":
            found = [known for known in found if known.is_exact_after(present)]
        best = min(found, key=lambda known: known.preference(present), default=None)
        if best is None or best.is_exact_after(present) or not isinstance(identity, int) or self.fidelity == "blind":
            return best
        if self.stale == "compute" and best.grade(present) > 1:
            return None
        if self.refreshes(best, identity, present) and best.is_strange(present):
            return None
        return None if self.stale == "keep" and best.place is None and best.grade(present) == 4 else best

    def refreshes(self, known: Known, identity: Any, present: tuple[Any, ...]) -> bool:
        may = self.stale == "refresh" and self.fidelity == "patched" and isinstance(identity, int)
        return may and not known.is_exact_after(present) and known.needs_refresh(present)

    def stored(self, identity: Any) -> list[Known]:
        if not isinstance(identity, int) or identity not in self.bases:
            return []
        patches = [] if self.fidelity == "exact" else self.patches[identity].values()
        return [self.bases[identity], *patches]

    def remember(self, new: Known) -> None:
        """The first KV of a chunk, or the first that is exact, is its base; other KV that nothing fits is a patch."""
        seed, present = new.identity, new.prefix
        stored = Known(seed, present, new.exact)
        best = min(self.stored(seed), key=lambda known: known.preference(present), default=None)
        if best is None or (not self.good(best, new) and new.exact and not self.bases[seed].exact):
            self.bases[seed], self.patches[seed] = stored, {}
        elif not self.good(best, new) and self.fidelity != "exact":
            stored.whole = False
            self.patches[seed][new.chunks] = stored

    @staticmethod
    def good(known: Known, new: Known) -> bool:
        fits = known.grade(new.prefix) <= 1 and known.text_match(new.prefix) == 1
        return fits and (known.exact or not new.exact)


def is_subsequence(short: tuple[int, ...], long: tuple[int, ...]) -> bool:
    for start, item in enumerate(long):
        if short and item == short[0]:
            return is_subsequence(short[1:], long[start + 1 :])
    return not short


def timestamps_of(frames: Frames) -> list[float]:
    return [i * frames.seconds_per_frame for i in range(len(frames.pixels))]


def pixels_of(seed: int) -> Any:
    return CLIPS[seed] if seed in CLIPS else screenshot(seed, *GRIDS[seed])


class WindowMachine(RuleBasedStateMachine):
    heals = "idle"

    @initialize(
        fidelity=st.sampled_from(["patched", "patched", "exact", "blind"]),
        stale=st.sampled_from(["refresh", "refresh", "keep", "compute"]),
        refreshes_whole=st.booleans(),
        images=st.sampled_from([(), (0, 1, 2), (3, 5, 0, 4)]),
    )
    def start(self, fidelity: str, stale: str, refreshes_whole: bool, images: tuple[int, ...]) -> None:
        self.patch = pytest.MonkeyPatch()
        for limit in ("LEFT", "LEFT_LACKING"):
            self.patch.setattr(refresh, limit, -1 if refreshes_whole else inf)
        self.kamera = Kamera(MODEL, PROCESSOR, fidelity=fidelity, stale=stale, heal=self.heals)
        self.window = self.kamera.window()
        self.brute = BruteForce(fidelity, stale, refreshes_whole)
        # Few examples would come to an answer over several images, and a change after it, by themselves.
        for seed in images:
            self.add_frames(seed) if seed in CLIPS else self.add_image(seed)
        if images:
            self.ask("what?")

    def teardown(self) -> None:
        if hasattr(self, "kamera"):
            self.kamera.flush()
            assert self.kamera.stats().failed == 0
            self.kamera.close()
            self.patch.undo()

    @rule(seed=st.integers(0, 4))
    def add_image(self, seed: int) -> None:
        self.brute.held.append(Thing(self.window.add_image(screenshot(seed, *GRIDS[seed])), "user", seed))

    @rule(seed=st.sampled_from(sorted(CLIPS)))
    def add_frames(self, seed: int) -> None:
        frames = CLIPS[seed]
        span_id = self.window.add_frames(frames.pixels, timestamps_of(frames))
        self.brute.held.append(Thing(span_id, "user", seed))

    @rule(text=st.sampled_from(["a", "some text", "some of it", "é"]), role=st.sampled_from(["user", "assistant"]))
    def add_text(self, text: str, role: str) -> None:
        self.brute.held.append(Thing(self.window.add_text(text, role), role, text))

    @precondition(lambda self: self.brute.held)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        thing = data.draw(st.sampled_from(self.brute.held))
        self.window.drop(thing.name)
        self.brute.held.remove(thing)
        self.brute.dropped[thing.name] = thing

    @precondition(lambda self: self.brute.dropped)
    @rule(data=st.data())
    def recall(self, data: st.DataObject) -> None:
        thing = data.draw(st.sampled_from(list(self.brute.dropped.values())))
        at = data.draw(st.sampled_from([None, *[other.name for other in self.brute.held]]))
        self.window.recall(thing.name, at)
        names = [other.name for other in self.brute.held]
        self.brute.held.insert(len(names) if at is None else names.index(at), self.brute.dropped.pop(thing.name))

    @precondition(lambda self: sum(thing.is_chunk for thing in self.brute.held) > 1)
    @rule(data=st.data())
    def reorder(self, data: st.DataObject) -> None:
        chunks = [thing for thing in self.brute.held if thing.is_chunk]
        order = data.draw(st.permutations(chunks))
        self.window.reorder([thing.name for thing in order])
        places = iter(order)
        self.brute.held = [next(places) if thing.is_chunk else thing for thing in self.brute.held]

    @rule(keep=st.integers(0, 3))
    def slide(self, keep: int) -> None:
        self.window.slide(keep)
        chunks = [thing for thing in self.brute.held if thing.is_chunk]
        for thing in chunks[: max(len(chunks) - keep, 0)]:
            self.brute.held.remove(thing)
            self.brute.dropped[thing.name] = thing

    @rule(question=st.sampled_from(["what?", "and?"]))
    def ask(self, question: str) -> None:
        extra = [Thing("question", "user", question)]
        expected = self.brute.answer(extra, keep_extra=False)
        logits = self.window.logits(question)
        self.kamera.flush()
        self.check_spans(expected)
        self.check_exact_spans()
        # The opening of the question's turn may be one that lay there, and know what has left since.
        beside = expected.keys() - {name for name, _ in self.brute.pieces([], reply=False)}
        if all(origin == "computed" or exact for origin, exact in map(expected.__getitem__, beside)):
            assert max_error(self.from_scratch(question), logits) <= 1e-4
        if all(exact for _, exact in expected.values()):
            assert max_error(self.conversation(question).logits(), logits) <= 1e-4

    @rule()
    def heal(self) -> None:
        self.brute.heal()
        assert self.kamera.settle()
        self.kamera.flush()

    @rule(num_tokens=st.integers(1, 3))
    def generate(self, num_tokens: int) -> None:
        reply = self.window.generate("go on", max_new_tokens=num_tokens)
        self.kamera.flush()
        asked = next(span.id for span in reversed(self.window.spans) if span.kind == "text")
        extra = [Thing(asked, "user", "go on")]
        expected = self.brute.answer(extra, keep_extra=True)
        self.brute.held += extra
        if reply.span_id is None:
            self.brute.pool.pop()
        else:
            item = next(item for item in self.window._items.live if item.id == reply.span_id)
            self.brute.held.append(Thing(reply.span_id, "assistant", item.run.token_ids))
            last = self.brute.pool[-1]
            last.name = f"{reply.span_id}:turn"
            exact = expected["answer"][1]
            identity = item.run.token_ids
            place = tuple(a + b for a, b in zip(last.place, self.brute.size(last.identity), strict=True))
            self.brute.pool.append(Known(identity, (*last.prefix, last.identity), exact, True, reply.span_id, place))
            expected[last.name], expected[reply.span_id] = expected.pop("answer"), ("computed", exact)
        self.check_spans(expected)

    @invariant()
    def slots_have_one_owner(self) -> None:
        if hasattr(self, "window"):
            self.window.check_integrity()

    def check_spans(self, expected: dict[str, tuple[str, bool]]) -> None:
        pieces = self.brute.pieces([], reply=False)
        spans = self.window.spans
        # The system prompt's name is the window's own.
        names = [span.id if span.id != "text1" else "system" for span in spans]
        assert names == [name for name, _ in pieces]
        got = {name: (span.origin, span.exact) for name, span in zip(names, spans, strict=True)}
        assert got == {name: expected[name] for name in got}
        positions = positions_of(MODEL, self.conversation().inputs())
        starts = torch.tensor([sum(span.num_tokens for span in spans[:i]) for i in range(len(spans))])
        assert [span.position for span in spans] == positions[0, starts].tolist()

    def check_exact_spans(self) -> None:
        """What says exact has the keys, turned, and the values of one full prefill."""
        pool, start = self.window._assembly.residence.pool, 0
        cache = self.conversation().prefill()
        for span in self.window.spans:
            if span.exact:
                index = Slots(span.slots).index(pool.device)
                for number, layer in enumerate(cache.layers):
                    row = pool.rows[number]
                    for ours, theirs in ((row.keys, layer.keys), (row.values, layer.values)):
                        expected = theirs[0, :, start : start + span.num_tokens]
                        assert max_error(expected, ours[:, index]) <= 1e-4
            start += span.num_tokens

    def conversation(self, *more: Any) -> Conversation:
        talk = Conversation(MODEL, PROCESSOR)
        role = None
        for thing in self.brute.held:
            if thing.role != role or isinstance(thing.content, tuple):
                talk.say(role := thing.role)
            talk.turns[-1][1].append(pixels_of(thing.content) if thing.is_chunk else thing.content)
        for content in more:
            if role != "user":
                talk.say(role := "user")
            talk.turns[-1][1].append(content)
        return talk

    def from_scratch(self, question: str) -> torch.Tensor:
        """1. Take K before RoPE and V of every span from the pool. 2. Turn K by the model's own function, at the
        positions Hugging Face gives the whole prompt. 3. Plain forward of the question over a DynamicCache."""
        pool, spans = self.window._assembly.residence.pool, self.window.spans
        chunks = [pool.read(Slots(span.slots)) for span in spans]
        keys = torch.cat([torch.stack([kv.keys for kv in layers]) for layers in chunks], dim=2)
        values = torch.cat([torch.stack([kv.values for kv in layers]) for layers in chunks], dim=2)
        inputs = self.conversation(question).inputs()
        positions, held = positions_of(MODEL, inputs), keys.shape[2]
        turned = turn_keys(MODEL, keys, positions[:, :held])
        return logits_over(MODEL, turned, values, inputs["input_ids"][0, held:], positions[:, held:])


WindowMachine.TestCase.settings = settings(
    max_examples=50,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestWindowAgainstBruteForce = WindowMachine.TestCase
