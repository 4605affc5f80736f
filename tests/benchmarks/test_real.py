"""The benchmark on real weights, with a small random model of the same class."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.backbones.zoo.text_only import text_only
from benchmarks.fidelity.events import EVENTS
from benchmarks.real import budgets
from benchmarks.real.documents import Value, draw_shelf
from benchmarks.real.live import LiveDocuments
from benchmarks.real.report import as_markdown
from benchmarks.real.run import PLAYED, Subject, run_case
from benchmarks.real.score import summarise
from benchmarks.real.transcript import write
from benchmarks.real.weights import Weights
from kamera_agent import Kamera
from kamera_agent.chunk import TextRun

SEED = 3
# That of SmolLM2, with a shorter system prompt.
TEMPLATE = """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
You help.<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}"""


@pytest.fixture(scope="module")
def subject() -> Subject:
    model, processor = text_only("llama", torch.float32)
    processor.tokenizer.chat_template = TEMPLATE
    return Subject.of(Weights(model, processor.tokenizer))


@pytest.fixture(scope="module")
def rows(subject: Subject) -> list[dict[str, Any]]:
    return run_case(subject, SEED)


def test_what_is_asked_is_said() -> None:
    """1. Every value is in a document that the question needs. 2. A question of two documents needs both."""
    shelf = draw_shelf(SEED)
    assert len(shelf.texts) == 4
    for question in shelf.questions:
        values = [part.text for part in question.reply if isinstance(part, Value)]
        said = [[value in re.findall(r"\w+", shelf.texts[index]) for index in question.needs] for value in values]
        assert said == ([[True]] if len(question.needs) == 1 else [[True, True], [False, True]])
        assert all(part.text in part.pool for part in question.reply if isinstance(part, Value))
    assert draw_shelf(SEED) == shelf != draw_shelf(SEED + 1)


def test_replies_are_judged_among_the_values_of_a_field(subject: Subject) -> None:
    """The tokens of a transcript, decoded; and the digits by which years from 1810 to 1989 go on."""
    family = subject.bench.engine.family
    question = next(q for q in draw_shelf(SEED).questions if q.reply[1].text.startswith("18"))
    transcript = write(family, [question])
    words, value = question.reply
    assert family.tokens.decode(transcript.run.token_ids).endswith(f"{words} {value.text}.")
    [judged] = transcript.judged
    ids = family.tokens.encode(f" {value.text}")
    assert [token for _, token, _ in judged] == [*ids]
    assert [transcript.run.token_ids[transcript.places[place] + 1] for place, _, _ in judged] == [*ids]
    choices = [{family.tokens.decode((other,)).strip() for other in going_on} for _, _, going_on in judged]
    assert {"18", "19"} in choices


def test_the_full_prefill_is_hugging_faces(subject: Subject) -> None:
    """1. Logits after each token of a question, on the bench. 2. After the last one, of a window, by Hugging Face."""
    bench, shelf = subject.bench, draw_shelf(SEED)
    chunks = tuple(bench.engine.family.document_chunk(text, "bench") for text in shelf.texts[:2])
    question = bench.ask(shelf.questions[0].text)
    places = range(len(question.token_ids))
    [ours] = bench.prefilled(chunks).variants().logits(question, places)
    window = Kamera(*subject.weights).window()
    for text in shelf.texts[:2]:
        window.add_document(text)
    torch.testing.assert_close(ours[-1], window.reference_logits(shelf.questions[0].text), atol=1e-3, rtol=0)
    for place in places:
        shorter = TextRun(question.token_ids[: place + 1])
        torch.testing.assert_close(ours[place], bench.prefilled(chunks).logits(shorter), atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", PLAYED)
def test_an_exact_window_leaves_the_kv_of_a_full_prefill(subject: Subject, name: str, tmp_path: Path) -> None:
    bench, event = subject.bench, EVENTS[name]
    texts = [*draw_shelf(SEED).texts[: event.num_pictures], *draw_shelf(SEED + 1).texts[: event.num_strangers]]
    script = event.script(SEED, 0)
    full = bench.prefilled(tuple(bench.engine.family.document_chunk(texts[index], "bench") for index in script.after))
    for left in LiveDocuments(subject.weights, tmp_path, {"fidelity": "exact"}).leave(script, texts):
        for place, kv in enumerate(left.kv):
            for (keys, values, *_), (others, more, *_) in zip(kv, full.read(place), strict=True):
                torch.testing.assert_close(keys, others, atol=1e-4, rtol=0)
                torch.testing.assert_close(values, more, atol=1e-4, rtol=0)


def test_a_case_plays(rows: list[dict[str, Any]]) -> None:
    """Ways that hold nothing less than the full prefill diverge by rounding alone; a patch is better than none."""
    assert [row["event"] for row in rows] == [*PLAYED]
    for row in rows:
        assert row["two_documents"] == [False] * 4 + [True] * 4
        divergences = {way: sum(reply["kl"]) for way, reply in row["replies"].items()}
        assert divergences["full"] == 0
        assert divergences["settled"] < 1e-6
        assert {"default", "moved", "blind", "rank_32", "auto_canonical"} <= {*divergences}
        assert ("auto_base" in divergences) == (row["event"] == "second_context")
    recalled, slid, second = rows[0], rows[2], rows[-1]
    for exact in (recalled, slid):
        assert sum(exact["replies"]["default"]["kl"]) < 1e-6
        assert exact["recomputed"]["default"] == 0
    kl = {way: sum(reply["kl"]) for way, reply in recalled["replies"].items()}
    assert kl["moved"] < 1e-6 < kl["auto_canonical"] < kl["blind"]
    kl = {way: sum(reply["kl"]) for way, reply in second["replies"].items()}
    assert kl["auto_base"] < kl["moved"]
    for patch in second["patches"].values():
        assert patch["ranks"][0] <= max(patch["ranks"])
        assert all(0 <= error < 1.1 for error in patch["errors"])


def test_figures_by_hand() -> None:
    """Of four replies the full prefill gets three right. The defaults lose one of them and get the fourth right."""
    replies = {
        "full": {"right": [True, True, True, False], "kl": [0.0, 0.0]},
        "default": {"right": [True, False, True, True], "kl": [0.5, 0.1]},
    }
    replies["settled"] = replies["full"]
    row = {"event": "slide_one", "two_documents": [False, False, True, True], "replies": replies, "patches": {}}
    worse = {**row, "event": "reorder_3", "replies": {**replies, "default": {"right": [False] * 4, "kl": [1.0, 1.0]}}}
    summary = summarise([{**each, "recomputed": {"default": 0.25}} for each in (row, worse)])
    assert summary["settled"] == {"worst_kept": 1.0, "worst_event": "slide_one"}
    assert summary["default"] == {"worst_kept": 0.0, "worst_event": "reorder_3"}
    assert summary["events"]["slide_one"]["default"] == {
        "windows": 1,
        "asked": 4,
        "accuracy": {"one_document": 0.5, "two_documents": 1.0},
        "kept": 1.0,
        "lost": 1,
        "won": 1,
        "kl_median": pytest.approx(0.3),
        "kl_mean": pytest.approx(0.3),
        "kl_worst": 0.5,
        "recomputed": 0.25,
    }


def test_the_tables_have_a_row_per_event_and_way(rows: list[dict[str, Any]]) -> None:
    report = summarise(rows)
    events, layers = as_markdown(report).split("\n\n")
    assert len(events.splitlines()) == 2 + sum(len(ways) for ways in report["events"].values())
    assert len(layers.splitlines()) == 2 + 4


def test_more_bytes_buy_less_divergence(subject: Subject) -> None:
    """Error budgets bind once there are bytes enough; the table has a row per base and budgets, and one without."""
    summary = budgets.summarise([*budgets.run_case(subject, SEED, long=False)])
    for ways in summary.values():
        tight, ample = ways["0.06 0.05"], ways["0.5 0.05"]
        assert tight["bytes_share"] <= 0.06 < ample["bytes_share"] <= 0.5
        assert ways["unpatched"]["kl_mean"] > tight["kl_mean"] > ample["kl_mean"] > 0
        assert ample["errors"] < tight["errors"]
        assert ways["0.5 0.2"]["bytes_share"] < ample["bytes_share"]
    assert len(budgets.as_markdown(summary).splitlines()) == 2 + 2 * (1 + 15)
