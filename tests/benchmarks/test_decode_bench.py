"""The decode benchmark on a tiny model: both ways draw the same text."""

import pytest
from models import TINY

from benchmarks.decode import TASKS, WAYS, Drawn, measure, summary
from kamera_agent.pocket.model import build_model, build_processor


@pytest.fixture(scope="module")
def drawn() -> dict[str, dict[str, list[dict[str, Drawn]]]]:
    return measure(build_model(TINY), build_processor(TINY), (112, 168), 20, 2)


def test_every_task_is_measured_by_both_ways(drawn: dict[str, dict[str, list[dict[str, Drawn]]]]) -> None:
    assert [(task, int(num)) for task, sizes in drawn.items() for num in sizes] == list(TASKS)
    for task, sizes in drawn.items():
        for rounds in sizes.values():
            assert len(rounds) == 2
            assert all(reply.seconds > 0 < reply.num_computed for replies in rounds for reply in replies.values())
            assert set(summary(task, rounds)) == {"ratio", "ours_per_s", "hugging_face_per_s", "tokens_per_pass"}


def test_the_greedy_text_is_that_of_hugging_face(drawn: dict[str, dict[str, list[dict[str, Drawn]]]]) -> None:
    for replies in drawn["repeats"]["4"]:
        assert replies["ours"].text == replies["hugging_face"].text
        assert replies["hugging_face"].num_passes == replies["hugging_face"].num_computed


def test_a_call_takes_few_passes(drawn: dict[str, dict[str, list[dict[str, Drawn]]]]) -> None:
    for replies in drawn["forced"]["4"]:
        assert all(reply.text.startswith('<tool_call>\n{"name":"click"') for reply in replies.values())
        assert all(reply.text.endswith("</tool_call>") for reply in replies.values())
        assert replies["ours"].num_passes < replies["hugging_face"].num_passes / 3


def test_a_ratio_is_of_speeds() -> None:
    replies = {"ours": Drawn(1.0, 30, 10, "abc"), "hugging_face": Drawn(2.0, 40, 40, "abcdef")}
    assert summary("free", [replies]) == {
        "ratio": 1.5,
        "ours_per_s": 30.0,
        "hugging_face_per_s": 20.0,
        "tokens_per_pass": 3.0,
    }
    assert summary("forced", [replies])["ratio"] == 1.0
    assert WAYS == ("ours", "hugging_face")
