"""Which calls go on from a window, and what an outline compares."""

from io import BytesIO
from unittest.mock import patch

import numpy as np
import pytest
from PIL import Image

from kamera_agent import ImageContent, TextContent
from kamera_agent.turns import outline as module
from kamera_agent.turns.outline import Outline, Outliner, Part
from kamera_agent.turns.transcript import Transcript

# system, question, screen, reply: one letter each, of one size but for the screens.
SIZES = {"S": 1000, "T": 1000, "V": 1000}


def outline(letters: str, reply: str | None = None) -> Outline:
    """Lower case: a text of the user; upper case up to M: of the assistant; from S on: a screen."""

    def part(letter: str) -> Part:
        return Part("assistant" if letter in "ABCDM" else "user", letter, SIZES.get(letter, 20))

    return Outline(tuple(map(part, letters)), reply and part(reply))


@pytest.mark.parametrize(
    ("window", "reply", "call", "goes_on"),
    [
        ("sq", "A", "sqAr", True),  # the next turn
        ("sq", "A", "sq", True),  # once more
        ("sq", None, "sq", True),  # once more, after a failure
        ("sqAr", "B", "sqMr", True),  # a reply in the history rewritten, the question asked again
        ("sqSAT", "B", "sqiATBV", True),  # a stub in place of the screen
        ("sqSA", "B", "sqtABV", True),  # the last screen gone
        ("sqArBt", "C", "smBtCu", True),  # summarised up to the last turns
        ("sqArBt", "C", "m", False),  # a summariser
        ("sqArBtCu", "D", "sqAv", False),  # a branch
        ("sqArBtCu", "D", "jD", True),  # the last reply, under another system prompt
        ("sSTVq", None, "sTVUr", True),  # a loop that shows the last screens and no replies
        ("xSTAr", "B", "yV", False),  # a judge
        ("", None, "sq", True),  # a window of no calls
    ],
)
def test_a_call_goes_on_from_its_window(window: str, reply: str | None, call: str, goes_on: bool) -> None:
    assert outline(window, reply).goes_on_in(outline(call)) is goes_on


def test_shares_of_a_history() -> None:
    assert outline("sq", "A").num_shared(outline("sqAr")) == 3
    assert outline("sq", "A").known(outline("sqAr")) == 1
    assert outline("sq", "A").known(outline("r")) == 1
    assert outline("sq", "A").known(outline("tuBr")) == 0


def png(pixels: np.ndarray, **options: int) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", **options)
    return buffer.getvalue()


def any_size(pixels: np.ndarray) -> None:
    """A check that admits all pixels."""


def test_images_are_compared_by_pixels_and_decoded_once() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (30, 30, 3), np.uint8)
    outliner, calls = Outliner(any_size), []
    with patch.object(module, "decode_image", lambda image: calls.append(1) or pixels.copy()):
        outlines = []
        for level in (0, 9, 0):
            contents = [TextContent("Look.", "user"), ImageContent(png(pixels, compress_level=level), "user")]
            outlines.append(outliner.outline(Transcript("Be brief.", contents))[0])
    assert outlines[0] == outlines[1] == outlines[2]
    assert len(calls) == 2
    other, _ = outliner.outline(Transcript("Be brief.", [TextContent("Look."), ImageContent(png(255 - pixels))]))
    assert outlines[0].num_shared(other) == 2


def test_what_is_no_image_becomes_a_text(caplog: pytest.LogCaptureFixture) -> None:
    """In its place, and the same text in the next call. The log says so once."""
    outliner = Outliner(any_size)
    for data in (b"<html>Not found</html>", png(np.zeros((30, 30, 3), np.uint8))[:60]):
        outlines = [outliner.outline(Transcript("", [ImageContent(data, "tool", new_turn=True)])) for _ in range(2)]
        assert outlines[0][0] == outlines[1][0]
        [content] = outlines[0][1]
        assert isinstance(content, TextContent)
        assert (content.role, content.new_turn) == ("tool", True)
        assert content.text.startswith("[An image could not be read: ")
        assert len(content.text) < 250
    assert len(caplog.records) == 2


def test_nothing_more_is_decoded_once_a_request_is_cancelled() -> None:
    images = [ImageContent(png(np.full((8, 8, 3), grey, np.uint8))) for grey in range(4)]
    decoded: list[np.ndarray] = []
    with pytest.raises(GeneratorExit):
        Outliner(decoded.append).outline(Transcript("", images), lambda: len(decoded) == 2)
    assert len(decoded) == 2
