"""A recorded history of 30 turns under every policy and every kind of edit, against a brute-force model of reuse."""

import base64
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from models import TINY, max_error, screenshot
from PIL import Image

from kamera_agent import Kamera
from kamera_agent.agent import Interval, KeepLast, ScreenWindow
from kamera_agent.agent.messages import read_message
from kamera_agent.agent.screens import LOOK_BACK
from kamera_agent.pocket.model import build_model, build_processor
from kamera_agent.turns.policy import Policy
from kamera_agent.turns.transcript import transcribe

NUM_TURNS = 30
STUB = "step {step}"
POLICIES: dict[str, Policy] = {
    "last_1": KeepLast(1),
    "last_3": KeepLast(3),
    "last_5": KeepLast(5),
    "interval": Interval(keep=3, drop=2),
}

Edit = Callable[[list[BaseMessage], int], list[BaseMessage]]


def encoded(page: int) -> str:
    buffer = BytesIO()
    Image.fromarray(screenshot(page)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


TAPE = [
    message
    for turn in range(1, NUM_TURNS + 1)
    for message in (
        HumanMessage([{"type": "image", "base64": encoded(turn), "mime_type": "image/png"}]),
        AIMessage(f"went to {turn}"),
    )
]


def slide(messages: list[BaseMessage], turn: int) -> list[BaseMessage]:
    """Nothing but what the policy does."""
    return messages


def drop(messages: list[BaseMessage], turn: int) -> list[BaseMessage]:
    """Every fourth page was a mistake: from then on it is not in the history at all."""
    return [message for number, message in enumerate(messages) if number % 8 != 6]


def reorder(messages: list[BaseMessage], turn: int) -> list[BaseMessage]:
    """Every third turn shows the newest two pages in the other order."""
    if turn % 3 or len(messages) < 4:
        return messages
    return [*messages[:-4], messages[-2], messages[-3], messages[-4], messages[-1]]


def recall(messages: list[BaseMessage], turn: int) -> list[BaseMessage]:
    """Every third turn looks back at the page of seven turns before."""
    if turn % 3 or turn < 9:
        return messages
    return [*messages, ToolMessage("shown", name=LOOK_BACK, tool_call_id="1", artifact=[turn - 7])]


@pytest.fixture(scope="module")
def tiny() -> tuple[Any, Any]:
    return build_model(TINY, backbone="qwen2_5_vl"), build_processor()


def shown(edit: Edit, policy: Policy, folder: Path) -> Iterator[list[BaseMessage]]:
    """What the model is shown, turn by turn."""
    screens = ScreenWindow(policy=policy, stub=STUB, folder=folder)
    for turn in range(1, NUM_TURNS + 1):
        yield screens.edit(edit(list(TAPE[: 2 * turn]), turn))


class Brute:
    """What reuse owes, from what is shown alone. Every message is a turn with one content."""

    def __init__(self, processor: Any, exact: bool) -> None:
        self._tokenizer, self._exact = processor.tokenizer, exact
        self._before: list[tuple[str, str]] = []
        self._places: set[tuple[str, int, int]] = set()
        self._fitted: dict[str, list[list[str]]] = {}
        self._first: dict[str, list[tuple[str, str]]] = {}

    def turn(self, messages: Sequence[BaseMessage]) -> tuple[list[str], int]:
        """Origins of the contents, and the tokens that have to be computed, markup before contents included."""
        shown = [(message.type, payload(message)) for message in messages]
        images = {payload(message) for message in messages if not message.text}
        same = next((i for i, (a, b) in enumerate(zip(self._before, shown, strict=False)) if a != b), len(self._before))
        lent = same < min(len(self._before), len(shown)) and self._before[same][0] == shown[same][0]
        origins, num_tokens = [], 0
        places, before = set(), (0, 0)
        for place, (role, content) in enumerate(shown):
            antecedents = [earlier for _, earlier in shown[:place] if earlier in images]
            places.add((content, *before))
            in_place = place < same or ((content, *before) in self._places and not self._exact)
            origin = self._origin(content, antecedents, shown[:place], kept=in_place)
            before = before[0] + self._size(content, images), before[1] + (content in images)
            if origin == "computed" and content in images:
                self._first.setdefault(content, shown[:place])
                self._fitted.setdefault(content, []).append(antecedents)
                num_tokens += 26
            elif origin == "computed":
                num_tokens += self._count(content)
            # The markup of a content comes and goes with it; but the first that changed takes that of who stood there.
            markup = place == same if lent and (place == same or self._before[same] == (role, content)) else None
            if not (origin in ("kept", "moved") if markup is None else markup):
                num_tokens += self._count("<|im_end|>\n<|im_start|>user\n")
            origins.append(origin)
        self._before, self._places = shown, places
        return origins, num_tokens

    def _size(self, payload: str, images: set[str]) -> int:
        return 26 if payload in images else self._count(payload)

    def _origin(self, payload: str, antecedents: list[str], before: list[tuple[str, str]], *, kept: bool) -> str:
        if kept:
            return "kept"
        if self._exact:
            # Only after the very same turns is what was stored first exact.
            return "recalled" if self._first.get(payload) == before else "computed"
        if payload in [earlier for _, earlier in self._before]:
            return "moved"
        fits = any(
            sorted(antecedents) == sorted(known) or is_left_of(antecedents, known)
            for known in self._fitted.get(payload, ())
        )
        return "recalled" if fits else "computed"

    def _count(self, text: str) -> int:
        return len(self._tokenizer(text).input_ids)


def payload(message: BaseMessage) -> str:
    """The text of a message as the template writes it, or the image it holds."""
    if message.type == "tool":
        return f"<tool_response>\n{message.text}\n</tool_response>"
    return message.text or message.content[0]["base64"]


def is_left_of(left: list[str], known: list[str]) -> bool:
    """Whether some leave and the others stay in order."""
    return left == [image for image in known if image in left]


@pytest.mark.parametrize("fidelity", ["patched", "exact"])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("edit", [slide, drop, reorder, recall], ids=lambda edit: edit.__name__)
def test_thirty_turns(edit: Edit, policy: str, fidelity: Any, tiny: tuple[Any, Any], tmp_path: Path) -> None:
    brute = Brute(tiny[1], fidelity == "exact")
    seen: set[str] = set()
    with Kamera(*tiny, fidelity=fidelity, rank=26, stale="keep", heal="never") as kamera:
        window = kamera.window()
        for messages in shown(edit, POLICIES[policy], tmp_path):
            transcript = transcribe(kamera.family, [read_message(message) for message in messages])
            window.sync(transcript.contents, transcript.system)
            logits = window.logits()
            kamera.flush()
            origins, num_computed = brute.turn(messages)
            spans = window.spans[2:]  # after the anchor and the system prompt
            assert [span.origin for span in spans if span.kind != "turn"] == origins
            assert sum(span.num_tokens for span in spans if span.origin == "computed") == num_computed
            seen |= {*origins}
            if fidelity == "exact":
                assert max_error(window.reference_logits(), logits) <= 1e-4
    wanted = {"kept", "computed"} if fidelity == "exact" else {"kept", "moved", "computed"}
    assert wanted <= seen
    assert "recalled" in seen or edit is not recall or fidelity == "exact"
