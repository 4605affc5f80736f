"""Random edits against a brute-force model of the window.

The model knows nothing of slots: it holds names and contents, and decides origins from their definitions. After every
answer the window must have the model's spans, positions (which Hugging Face computes for the whole prompt),
origins and exactness, every slot must have one owner, and the logits must be those of a plain DynamicCache filled
with the same K and V.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from huggingface import Conversation, Frames, logits_over, positions_of, turn_keys
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from models import TINY, max_error, screenshot

from kamera_agent import Kamera
from kamera_agent.pocket.model import build_model, build_processor
from kamera_agent.runtime.kernels.slots import Slots

MODEL, PROCESSOR = build_model(TINY), build_processor()
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
class Lies:
    """What the model remembers of a piece that has KV: when it was computed, behind what, and how well."""

    name: str
    identity: Any
    prefix: tuple[Any, ...]
    exact_then: bool


@dataclass
class BruteForce:
    fidelity: str
    held: list[Thing] = field(default_factory=list)
    dropped: dict[str, Thing] = field(default_factory=dict)
    pool: list[Lies] = field(default_factory=list)
    seen: dict[int, list[tuple[int, ...]]] = field(default_factory=dict)

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
        identities = [identity for _, identity in pieces]
        same = 0
        while same < min(len(self.pool), len(pieces)) and self.pool[same].identity == identities[same]:
            same += 1
        left, partner = self.pool[same:], dict(enumerate(self.pool[:same]))
        for by_name in (True, False):
            for i, (name, identity) in enumerate(pieces):
                if i in partner or not (by_name or isinstance(identity, int)):
                    continue
                for lies in left:
                    if lies.identity == identity and (lies.name == name or not by_name):
                        partner[i] = lies
                        left.remove(lies)
                        break
        origins: dict[str, tuple[str, bool]] = {}
        pool, computed = [], []
        for i, (name, identity) in enumerate(pieces):
            prefix = tuple(identities[: i + 1])
            chunks = tuple(x for x in prefix[:-1] if isinstance(x, int))
            all_exact = all(exact for _, exact in origins.values())
            lies = partner.get(i) if i < len(pieces) - 1 else None
            exact = lies is not None and lies.exact_then and lies.prefix == prefix
            if lies is not None and (exact or self.fidelity != "exact"):
                origins[name] = ("kept" if i < same else "moved", exact)
                pool.append(Lies(name, identity, lies.prefix, lies.exact_then))
                continue
            if isinstance(identity, int) and self.fidelity != "exact" and self.fits(identity, chunks):
                origins[name] = ("recalled", False)
            elif identity in self.seen and self.fidelity == "blind":
                origins[name] = ("blind", False)
            else:
                origins[name] = ("computed", all_exact)
                if isinstance(identity, int):
                    computed.append((identity, chunks))
            pool.append(Lies(name, identity, prefix, origins[name] == ("computed", True)))
        for seed, chunks in computed:
            self.seen.setdefault(seed, []).append(chunks)
        self.pool = pool if keep_extra else pool[: len(self.pieces([], reply=False))]
        return origins

    def fits(self, seed: int, present: tuple[int, ...]) -> bool:
        return any(
            sorted(fitted) == sorted(present) or is_subsequence(present, fitted) for fitted in self.seen.get(seed, [])
        )


def is_subsequence(short: tuple[int, ...], long: tuple[int, ...]) -> bool:
    for start, item in enumerate(long):
        if short and item == short[0]:
            return is_subsequence(short[1:], long[start + 1 :])
    return not short


def pixels_of(seed: int) -> Any:
    return CLIPS[seed] if seed in CLIPS else screenshot(seed, *GRIDS[seed])


class WindowMachine(RuleBasedStateMachine):
    @initialize(fidelity=st.sampled_from(["patched", "patched", "exact", "blind"]))
    def start(self, fidelity: str) -> None:
        self.kamera = Kamera(MODEL, PROCESSOR, fidelity=fidelity, rank="auto")
        self.window = self.kamera.window()
        self.brute = BruteForce(fidelity)
        self.answered = False

    def teardown(self) -> None:
        if hasattr(self, "kamera"):
            self.kamera.flush()
            assert self.kamera.stats().failed == 0
            self.kamera.close()

    @rule(seed=st.integers(0, 4))
    def add_image(self, seed: int) -> None:
        self.brute.held.append(Thing(self.window.add_image(screenshot(seed, *GRIDS[seed])), "user", seed))

    @rule(seed=st.sampled_from(sorted(CLIPS)))
    def add_frames(self, seed: int) -> None:
        frames = CLIPS[seed]
        timestamps = [i * frames.seconds_per_frame for i in range(len(frames.pixels))]
        self.brute.held.append(Thing(self.window.add_frames(frames.pixels, timestamps), "user", seed))

    @rule(text=st.sampled_from(["a", "some text", "é"]), role=st.sampled_from(["user", "assistant"]))
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
        # The opening of the question's turn may be one that lay there, and know what has left since.
        beside = expected.keys() - {name for name, _ in self.brute.pieces([], reply=False)}
        if all(origin == "computed" or exact for origin, exact in map(expected.__getitem__, beside)):
            assert max_error(self.from_scratch(question), logits) <= 1e-4

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
            self.brute.pool.append(Lies(reply.span_id, identity, (*last.prefix, identity), exact))
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
        pool, spans = self.window._assembly.pool, self.window.spans
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
