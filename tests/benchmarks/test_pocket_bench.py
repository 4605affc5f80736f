"""benchmarks.pocket on a few windows."""

from benchmarks.pocket import examine
from kamera_agent.pocket.weights import WEIGHTS
from kamera_agent.runtime.families import family_for, load


def test_a_task_without_questions_has_no_accuracy() -> None:
    figures = examine(family_for(*load(str(WEIGHTS), device="cpu")), "train", 4, None)
    asked = figures.pop("questions")
    assert set(figures) == set(asked)
    assert figures["read"] > 0.9
