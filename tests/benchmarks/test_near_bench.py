from benchmarks.near import draw_case, play, summarise
from kamera_agent import Kamera


def test_few_tokens_of_a_page_are_computed_and_what_changed_is_found() -> None:
    with Kamera.pocket(near="tiles", heal="never") as kamera:
        figures = summarise([play(kamera, draw_case(seed)) for seed in range(2)])
    # One or two prices, the title and the marks, of 50 tokens and more.
    assert all(0 < share < 0.2 for share in figures["computed"].values())
    assert {task: row["questions"] for task, row in figures["tasks"].items()} == {
        "diff": 1,
        "count": 2,
        "find": 2,
        "read": 2,
    }
    assert figures["tasks"]["diff"]["tiled"] == figures["tasks"]["diff"]["full"] == 1
