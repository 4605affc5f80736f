"""Blocks as libraries write them, against the bytes that they hold."""

import base64
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from PIL import Image

from kamera_agent import InputError
from kamera_agent.agent import ScreenWindow
from kamera_agent.agent.messages import read_message
from kamera_agent.turns.blocks import read_content
from kamera_agent.vision.image import decode_image

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
FILE = BytesIO()
Image.fromarray(PIXELS).save(FILE, "PNG")
PNG = FILE.getvalue()
DATA = base64.b64encode(PNG).decode()
WEB_SAFE = base64.urlsafe_b64encode(PNG).decode().rstrip("=")
URL = f"data:image/png;base64,{DATA}"
ANTHROPIC = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": DATA}}

FORMS: dict[str, dict[str, Any]] = {
    "LangChain": {"type": "image", "base64": DATA, "mime_type": "image/png"},
    "LangChain with an id": {"type": "image", "id": "lc_1", "base64": DATA, "mime_type": "image/png"},
    "LangChain URL": {"type": "image", "url": URL},
    "LangChain 0": {"type": "image", "source_type": "base64", "data": DATA, "mime_type": "image/png"},
    "LangChain 0 URL": {"type": "image", "source_type": "url", "url": URL},
    "LangChain file": {"type": "file", "base64": DATA, "mime_type": "image/png"},
    "non-standard": {"type": "non_standard", "value": {"type": "input_image", "image_url": URL}},
    "MIME line breaks": {"type": "image", "base64": base64.encodebytes(PNG).decode(), "mime_type": "image/png"},
    "line break at the end": {"type": "image", "base64": DATA + "\n"},
    "without padding, of a URL": {"type": "image", "base64": WEB_SAFE},
    "bytes": {"type": "image", "base64": PNG},
    "data URL": {"type": "image_url", "image_url": {"url": URL, "detail": "high"}},
    "data URL as a string": {"type": "image_url", "image_url": URL},
    "capital data URL": {"type": "image_url", "image_url": {"url": f"DATA:image/PNG;BASE64,{DATA}"}},
    "parameters": {
        "type": "image_url",
        "image_url": {"url": f"data:image/png;charset=utf-8;name=a%3Bb.png;base64,{DATA}"},
    },
    "percent signs": {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{quote(DATA, safe='')}"}},
    "percent signs without base64": {"type": "image_url", "image_url": {"url": f"data:image/png,{quote(PNG)}"}},
    "without a MIME type": {"type": "image_url", "image_url": {"url": f"data:;base64,{DATA}"}},
    "base64 as URL": {"type": "image_url", "image_url": {"url": DATA}},
    "OpenAI responses": {"type": "input_image", "image_url": URL, "detail": "auto"},
    "OpenAI computer use": {"type": "computer_screenshot", "image_url": URL},
    "Anthropic": ANTHROPIC,
    "Anthropic tool result": {"type": "tool_result", "tool_use_id": "1", "content": [ANTHROPIC]},
    "MCP": {"type": "image", "data": DATA, "mimeType": "image/png"},
    "MCP resource": {"type": "resource", "resource": {"uri": "screen://1", "mimeType": "image/png", "blob": DATA}},
    "Google media": {"type": "media", "mime_type": "image/png", "data": DATA},
    "Google media in bytes": {"type": "media", "mime_type": "image/png", "data": PNG},
    "Google inline data": {"inline_data": {"mime_type": "image/png", "data": DATA}},
    "Google inlineData": {"inlineData": {"mimeType": "image/png", "data": DATA}},
    "Google inline_data with a type": {"type": "inline_data", "inline_data": {"mime_type": "image/png", "data": PNG}},
    "Bedrock": {"image": {"format": "png", "source": {"bytes": PNG}}},
    "transformers": {"type": "image", "image": Image.fromarray(PIXELS)},
    "transformers URL": {"type": "image", "url": URL},
    "array": {"type": "image", "image": PIXELS},
}


@pytest.mark.parametrize("form", FORMS)
def test_an_image(form: str, tmp_path: Path) -> None:
    """Read by a ChatKamera, and stowed and shown by a ScreenWindow."""
    message = HumanMessage(["See:", FORMS[form]])
    shown = ScreenWindow(folder=tmp_path).edit([message])[0]
    for each in (message, shown):
        text, image = read_message(each).parts
        assert text == "See:"
        assert isinstance(image, bytes)
        np.testing.assert_array_equal(decode_image(image), PIXELS)
    assert "kamera" not in repr(shown)
    assert len([*tmp_path.iterdir()]) == 1


def test_a_path_object_is_read_and_a_text_is_not(tmp_path: Path) -> None:
    """A text may come from a stranger, who must not choose a file of this machine."""
    place = tmp_path / "screen.png"
    place.write_bytes(PNG)
    assert read_message(HumanMessage([{"type": "image", "path": place}])).parts == (PNG,)
    for block in ({"path": str(place)}, {"image": str(place)}, {"url": place.as_uri()}):
        with pytest.raises(InputError, match=r"nothing is (read|fetched) from"):
            read_message(HumanMessage([{"type": "image", **block}]))


FAR = "https://example.org/" + "a" * 100_000
HUGE = "A" * 1_000_000
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "URL": ({"type": "image_url", "image_url": {"url": FAR}}, "nothing is fetched from 'https://example.org/aaa"),
    "image URL as text": ({"type": "image_url", "image_url": FAR}, "nothing is fetched"),
    "Google file": ({"type": "image", "file_uri": "gs://bucket/a.png"}, "nothing is fetched from 'gs://"),
    "file id": ({"type": "input_image", "file_id": "file-1"}, "nothing is fetched from 'file-1'"),
    "stowed": ({"type": "image", "file_id": "kamera:" + "0" * 64}, "is an id of a ScreenWindow"),
    "no data": ({"type": "image_url", "image_url": None}, "block of type 'image_url' has none"),
    "audio": ({"type": "audio", "base64": HUGE, "mime_type": "audio/wav"}, "'audio'"),
    "OpenAI audio": ({"type": "input_audio", "input_audio": {"data": HUGE, "format": "wav"}}, "'audio'"),
    "Google audio": ({"type": "media", "mime_type": "audio/wav", "data": HUGE}, r"a file \(audio/wav\)"),
    "video": ({"type": "video", "base64": HUGE, "mime_type": "video/mp4"}, "'video'"),
    "Anthropic document": (
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": HUGE}},
        r"a file \(application/pdf\).*sent as images",
    ),
    "unknown": ({"type": HUGE}, "block of type 'AAA"),
    "unknown without a type": ({"thing": HUGE}, "'thing'"),
    "nothing": ({}, "'nothing'"),
}


UNREADABLE: dict[str, tuple[dict[str, Any], str]] = {
    "no base64": ({"type": "image", "base64": "*" + HUGE}, "cannot be decoded"),
    "beyond ASCII": ({"type": "image", "base64": "ä" * 400}, "cannot be decoded"),
    "data URL without data": ({"type": "image", "url": "data:image/png;base64" + HUGE}, "has no comma"),
    "missing file": ({"type": "image", "image": Path("gone.png")}, "No such file"),
}


@pytest.mark.parametrize("form", UNREADABLE)
def test_what_cannot_be_read_is_a_text(form: str) -> None:
    block, says = UNREADABLE[form]
    for content in ([block], [{"type": "tool_result", "tool_use_id": "1", "content": [block]}]):
        [part] = read_message(ToolMessage(content, tool_call_id="1")).parts
        assert isinstance(part, str)
        assert part.startswith("[An image could not be read: ")
        assert says in part
        assert len(part) < 250


@pytest.mark.parametrize("form", REFUSED)
def test_what_cannot_be_shown_is_named_and_never_quoted_whole(form: str) -> None:
    block, says = REFUSED[form]
    for content in ([block], [{"type": "tool_result", "tool_use_id": "1", "content": [block]}]):
        with pytest.raises(InputError, match=says) as caught:
            read_message(ToolMessage(content, tool_call_id="1"))
        assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("", ()),
        ([], ()),
        (["", "a", {"type": "text", "text": ""}, {"type": "text", "text": None}, {"type": "text"}], ("a",)),
        ([{"text": "a"}, {"type": "input_text", "text": "b"}, {"type": "output_text", "text": "c"}], ("a", "b", "c")),
        ([{"type": "refusal", "refusal": "No."}, {"type": "text-plain", "text": "d"}], ("No.", "d")),
        ([{"type": "json", "json": {"a": "é"}}], ('{"a": "é"}',)),
        ([{"type": "resource", "resource": {"uri": "a://b", "text": "c"}}], ("c",)),
        ([{"type": "tool_result", "content": "a"}, {"type": "tool_result"}], ("a",)),
        ([{"type": "thinking", "thinking": "hm"}, {"type": "tool_use", "id": "1", "name": "a", "input": {}}], ()),
        ([{"type": "reasoning", "reasoning": "hm"}, {"cachePoint": {"type": "default"}}, "a"], ("a",)),
    ],
)
def test_texts(content: Any, parts: tuple[str, ...]) -> None:
    for message in (HumanMessage(content), AIMessage(content), ToolMessage(content, tool_call_id="1")):
        assert read_message(message).parts == parts


@pytest.mark.parametrize(
    "content", [5, {"text": "a"}, [5], [None], [{"type": "tool_result", "content": {"text": "a"}}]]
)
def test_content_of_another_form(content: Any) -> None:
    with pytest.raises(InputError, match="The content of a message"):
        list(read_content(content))


def deep(key: str) -> dict[str, Any]:
    """A block nested a thousand times."""
    block: dict[str, Any] = {"data": DATA}
    for _ in range(1000):
        block = {key: block}
    return {"type": "image", **block}


@pytest.mark.parametrize("key", ["image", "source", "resource"])
def test_blocks_nested_deeply_are_read(key: str) -> None:
    assert list(read_content([deep(key)])) == [PNG]


def test_a_lone_surrogate_in_a_data_url_has_no_bytes() -> None:
    assert list(read_content([{"type": "image", "url": "data:image/png,a\ud800b%20"}])) == [b"a?b "]


def test_a_png_is_made_of_what_a_person_sees(tmp_path: Path) -> None:
    """A PIL image that is turned by its EXIF data and half transparent."""
    image = Image.fromarray(np.dstack([PIXELS, np.full((40, 50), 128, np.uint8)]))
    image.getexif()[0x0112] = 6
    [data] = read_message(HumanMessage([{"type": "image", "image": image}])).parts
    assert isinstance(data, bytes)
    np.testing.assert_array_equal(decode_image(data), decode_image(image))
