"""The screen agent: what it is shown, that its oracle knows the way, and that both ways of running its model agree."""

import asyncio
import re
from collections.abc import Sequence
from functools import cache

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from examples.ui_agent.actor import Record
from examples.ui_agent.browser import find_chromium
from examples.ui_agent.cached import Cached
from examples.ui_agent.comparison import compare
from examples.ui_agent.episode import play
from examples.ui_agent.pair import Pair, _noise, warm_up
from examples.ui_agent.plain import load_plain
from examples.ui_agent.server import SHOP
from examples.ui_agent.turn import Turn
from kamera_agent import Kamera
from kamera_agent.pocket.weights import WEIGHTS

NUM_STEPS = 9
# The ninth move looks back at the third screenshot.
LOOK_BACK, SEEN_IN = 8, 2
# 1280x720 are 23 x 13 cells for the image processor; every image stands between two markers.
SCREEN_TOKENS = 23 * 13 + 2
HEAD = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"

needs_chromium = pytest.mark.skipif(find_chromium() is None, reason="needs a Chromium, and there is none on the PATH")


class Silent:
    """An arm without a model."""

    def answer(self, screens: Sequence[bytes], question: str) -> Turn:
        return Turn("", {"computed": 0}, 0.0, torch.empty(0))


def cards(name: str) -> dict[str, str]:
    """What a page of the shop says, read from its HTML."""
    return dict(re.findall(r"<b>(\w+)</b><i>(\w+)</i>", (SHOP / f"{name}.html").read_text("utf-8")))


def true_answers(question: str) -> set[str]:
    """What the shop's pages answer to a question."""
    prices, sale, owners, rooms, keys = map(cards, ("prices", "sale", "owners", "rooms", "keys"))
    subject = re.findall(r"\w+", question)[-2 if question.endswith(("cost?", "need?")) else -1]
    match question.split(subject)[0]:
        case "What does the ":
            return {prices[subject], sale.get(subject, prices[subject])}
        case "Which price ":
            return {label for label in sale if sale[label] != prices[label]}
        case "Who owns the ":
            return {owners[subject]}
        case "Where is ":
            return {rooms[subject]}
        case "Where is the owner of the ":
            return {rooms[owners[subject]]}
        case "Which key opens the ":
            return {keys[subject]}
        case "Which key does ":
            return {keys[rooms[subject]]}
        case "Which key does the owner of the ":
            return {keys[rooms[owners[subject]]]}
        case _:
            raise AssertionError(question)


@needs_chromium
@pytest.mark.timeout(300)
def test_the_oracle_knows_the_way_and_the_answers() -> None:
    """A MiniWoB++ task that is not solved raises."""
    records = asyncio.run(play(Silent()))
    started = [record.move.arguments["name"] for record in records if record.move.tool == "start_task"]
    assert started == ["click-button", "enter-text", "click-tab", "click-checkboxes", "login-user"]
    known = [record.move for record in records if record.move.answer]
    assert len(known) == 26
    for move in known:
        assert move.answer in true_answers(move.question), move


class Runs:
    """The first steps, three times: plain Hugging Face, a prefix cache's fidelity, the default one."""

    def __init__(self) -> None:
        self.plain: list[Record] = asyncio.run(play(load_plain(), NUM_STEPS))
        with Kamera.pocket(fidelity="exact") as exact, Kamera.pocket() as patched:
            self.exact: list[Record] = asyncio.run(play(Cached(exact), NUM_STEPS))
            self.patched: list[Record] = asyncio.run(play(Cached(patched), NUM_STEPS))


@pytest.fixture(scope="module")
def runs() -> Runs:
    return Runs()


class Noting:
    """An arm that notes its name when it answers."""

    def __init__(self, name: str, order: list[str]) -> None:
        self.name, self.order = name, order

    def answer(self, screens: Sequence[bytes], question: str) -> Turn:
        self.order.append(self.name)
        return Turn(f"{self.name} {question}", {"computed": len(screens)}, 0.0, torch.empty(0))


def test_a_pair_answers_by_turns() -> None:
    order: list[str] = []
    pair = Pair(Noting("one", order), Noting("two", order))
    answers = [pair.answer([b""], question).answer for question in "abc"]
    assert order == ["one", "two", "two", "one", "one", "two"]
    assert answers == ["one a", "one b", "one c"]
    assert [turn.answer for turn in pair.seconds] == ["two a", "two b", "two c"]


def test_warming_up_leaves_the_run_as_it_is() -> None:
    """The first window is computed whole, the warm-up's conversation notwithstanding."""
    screen = _noise(9)
    with Kamera.pocket() as kamera:
        warm_up(Cached(kamera, "warm-up"))
        turn = Cached(kamera).answer([screen], "Ready?")
    with Kamera.pocket() as kamera:
        assert turn.tokens == Cached(kamera).answer([screen], "Ready?").tokens


@needs_chromium
@pytest.mark.timeout(300)
def test_all_runs_see_the_same_screens(runs: Runs) -> None:
    windows = [record.screens for record in runs.plain]
    assert [record.screens for record in runs.exact] == windows
    assert [record.screens for record in runs.patched] == windows
    assert [len(screens) for screens in windows] == [1, 2, 3, 3, 3, 3, 3, 3, 4]
    assert windows[LOOK_BACK] == (windows[SEEN_IN][-1], *windows[LOOK_BACK - 1])
    # Every other move shows another page; the seventh shows the first one again.
    assert len({screens[-1] for screens in windows[:LOOK_BACK]}) == LOOK_BACK - 1
    assert windows[6][-1] == windows[0][-1]


@needs_chromium
@pytest.mark.timeout(300)
def test_exact_answers_are_those_of_plain_hugging_face(runs: Runs) -> None:
    steps = compare(runs.plain, runs.exact)
    assert [step.cached.answer for step in steps] == [step.plain.answer for step in steps]
    assert [step.cached.in_all for step in steps] == [step.plain.computed for step in steps]
    assert {step.cached.tokens[origin] for step in steps for origin in ("moved", "recalled", "blind")} == {0}


@needs_chromium
@pytest.mark.timeout(300)
def test_only_what_is_new_is_computed(runs: Runs) -> None:
    head = count(HEAD)
    for number, record in enumerate(runs.patched):
        turn, tail = record.turn, count(f"{record.move.question}<|im_end|>\n<|im_start|>assistant\n")
        assert turn.in_all == head + len(record.screens) * SCREEN_TOKENS + tail
        new = (head if number == 0 else 0) + SCREEN_TOKENS
        if number != LOOK_BACK:
            assert turn.computed == new + tail, (number, record.move)
    # The screens after the one that comes back have not seen it: a refresh may compute some of them whole.
    turn = runs.patched[LOOK_BACK].turn
    assert (turn.computed - tail) % SCREEN_TOKENS == 0
    assert turn.computed < tail + (len(runs.patched[LOOK_BACK].screens) - 1) * SCREEN_TOKENS
    assert runs.patched[LOOK_BACK].turn.tokens["recalled"] == SCREEN_TOKENS


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(WEIGHTS)


def count(text: str) -> int:
    return len(tokenizer()(text, add_special_tokens=False)["input_ids"])
