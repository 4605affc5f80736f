"""The replay of clients: what they send, what a prefix cache keeps, and answers of real server processes."""

from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.serve.checkpoint import write_checkpoint
from benchmarks.serve.clients import CLIENTS, COLLAPSED, KEPT, Turn
from benchmarks.serve.figures import summary
from benchmarks.serve.plain import Answer, Plain, PrefixCache
from benchmarks.serve.process import run_kamera
from benchmarks.serve.replay import cross_talk, replay
from benchmarks.serve.walk import walk
from kamera_agent import Kamera
from kamera_agent.pocket.weights import WEIGHTS

TURNS = [Turn(f"data:,{number}", f"Where is {number}?", f"There, {number}.") for number in range(7)]


def sent(name: str, num_turns: int) -> list[Any]:
    *said, newest = TURNS[:num_turns]
    return CLIENTS[name]([*said, Turn(newest.url, newest.question)])


def shown(messages: list[Any]) -> list[str]:
    """The parts of all messages, in order: i3 for the fourth image, a text otherwise."""
    parts = [part for message in messages if isinstance(message["content"], list) for part in message["content"]]
    return [f"i{part['image_url']['url'][-1]}" if part["type"] == "image_url" else part["text"] for part in parts]


def images(name: str, num_turns: int) -> str:
    return "".join(part[1] for part in shown(sent(name, num_turns)) if part[0] == "i" and len(part) == 2)


def test_each_client_drops_screenshots_in_its_own_way() -> None:
    kept = {name: [images(name, number) for number in range(1, 8)] for name in CLIENTS}
    newest = ["0", "01", "012", "123", "234", "345", "456"]
    assert kept["drop"] == kept["stub"] == kept["shift"] == newest
    assert kept["rewrite"] == list("0123456")
    # Three at once.
    assert kept["chunk"] == ["0", "01", "012", "0123", "01234", "345", "3456"]
    assert KEPT == 3


def test_what_is_left_of_a_turn() -> None:
    fifth = {name: shown(sent(name, 5)) for name in CLIENTS}
    assert fifth["drop"][2:5] == ["There, 0.", "There, 1.", "i2"]
    assert fifth["stub"][1:4] == [COLLAPSED, "Where is 0?", "There, 0."]
    assert fifth["shift"][1:3] == [
        "i2",
        "Find who is where.\nPrevious actions:\nStep 1: Where is 0? There, 0.\nStep 2: Where is 1? There, 1.",
    ]
    assert "Where is 3? There, 3.\n</agent_history>" in fifth["rewrite"][0]
    assert fifth["chunk"][:3] == ["Where is 0?", "i0", "There, 0."]
    assert shown(sent("chunk", 6))[:3] == ["Where is 0?", "There, 0.", "Where is 1?"]
    for name in CLIENTS:
        assert sent(name, 5)[-1]["role"] == "user"


def test_a_prefix_cache_counted_by_hand() -> None:
    cache = PrefixCache()

    def ask(prompt: list[Any], said: list[Any]) -> int:
        return cache.num_computed(Answer("", prompt, said))

    image = [("a", 0), ("a", 1)]
    assert ask([1, *image, 2], [3]) == 4
    # The answer is kept as well.
    assert ask([1, *image, 2, 3, 4, 5], [6]) == 2
    assert ask([1, ("b", 0), 2], [3]) == 2
    # The last token is computed at any rate.
    assert ask([1, *image, 2], [3]) == 1


def test_pages_are_new() -> None:
    pages = [*islice(walk(0), 12)]
    assert len({page.url for page in pages}) == 12
    assert pages == [*islice(walk(0), 12)]


def test_the_checkpoint_has_the_tokens_of_the_pocket_model(tmp_path: Path) -> None:
    """Texts as a text or in parts, through its own template and the model's."""
    write_checkpoint(tmp_path / "model")
    plain, (turn,) = Plain(tmp_path / "model"), islice(walk(0), 1)
    messages = CLIENTS["stub"]([turn])
    answer = plain.answer(messages, 2)
    with Kamera.from_pretrained(WEIGHTS, store=None) as kamera:
        tokenizer = kamera.family.processors.tokenizer
        told = [
            {"role": "system", "content": "Find who is where."},
            {"role": "user", "content": "IMAGE" + turn.question},
        ]
        head, tail = tokenizer.apply_chat_template(told, tokenize=False, add_generation_prompt=True).split("IMAGE")
        words = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (head, tail)]
    tokens = [key for key in answer.prompt if isinstance(key, int)]
    assert tokens[: len(words[0])] == words[0]
    assert tokens[-len(words[1]) :] == words[1]
    assert len(answer.prompt) == len(words[0]) + 23 * 13 + 2 + len(words[1])


def test_a_replay_over_two_servers(tmp_path: Path) -> None:
    """The exact server gives what plain Hugging Face gives, and ours computes less than the best of prefix caches."""
    write_checkpoint(tmp_path / "model")
    plain = Plain(tmp_path / "model")
    figures = {}
    model, store, other = (tmp_path / name for name in ("model", "store", "other"))
    with run_kamera(model, store) as ours, run_kamera(model, other, "exact") as exact:
        for name, num_steps in (("drop", 5), ("rewrite", 2)):
            steps = [*replay(CLIENTS[name], plain, {"ours": ours, "exact": exact}, num_steps, 0)]
            for step in steps:
                assert step.given["exact"].prompt == step.given["ours"].prompt == len(step.full.prompt)
            figures[name] = summary(steps)
        wrong = cross_talk(CLIENTS["drop"], plain, exact, 2, (1, 2))
    assert [one["agree_exact"] for one in figures.values()] == [1, 1]
    assert wrong == [False] * 4
    assert figures["drop"]["num_answers"] > 1
    assert figures["drop"]["computed_ratio_prefix"] > 1
