"""A small body that asks for gigabytes of pixels."""

import base64
from io import BytesIO
from typing import Any
from unittest.mock import patch

import pytest
from anthropic import Anthropic
from anthropic import BadRequestError as AnthropicError
from openai import BadRequestError, OpenAI
from PIL import Image
from serving import QUESTION, cached, screen, shown, text, user

from kamera_agent.turns import outline, pixels
from kamera_agent.vision.image import MAX_PIXELS

SIDE = 5632
NUM_IMAGES = 9


def blank() -> str:
    """An image that is not too large by itself, as a PNG in base64."""
    assert SIDE**2 <= MAX_PIXELS < pixels.MAX_PIXELS < NUM_IMAGES * SIDE**2
    buffer = BytesIO()
    Image.new("1", (SIDE, SIDE)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def test_images_that_are_too_large_together_are_refused_before_any_is_decoded(
    client: OpenAI, anthropic: Anthropic
) -> None:
    data = blank()
    assert NUM_IMAGES * len(data) < 1 << 17
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    source = {"type": "base64", "media_type": "image/png", "data": data}
    messages: list[Any] = [user(*[image] * NUM_IMAGES)]
    theirs: list[Any] = [user(*[{"type": "image", "source": source}] * NUM_IMAGES)]
    with patch.object(outline, "decode_image", side_effect=AssertionError("decoded")):
        with pytest.raises(BadRequestError, match="The 9 new images of a request have 285,474,816 pixels together"):
            client.chat.completions.create(model="pocket", messages=messages)
        with pytest.raises(AnthropicError, match="in several requests"):
            anthropic.messages.count_tokens(model="pocket", messages=theirs)


def test_images_of_the_window_do_not_count(client: OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that shows one screen more at each step goes on. All of them in a new conversation are too many."""
    height, width, _ = screen(0).shape
    monkeypatch.setattr(pixels, "MAX_PIXELS", 2 * height * width)
    asked: dict[str, Any] = {"model": "pocket", "max_tokens": 2, "temperature": 0}
    history: list[Any] = []
    for seed in range(4):
        history.append(user(shown(seed), text(QUESTION)))
        reply = client.chat.completions.create(messages=history, user="grows", **asked)
        history.append({"role": "assistant", "content": reply.choices[0].message.content})
    assert cached(reply) > 0
    with pytest.raises(BadRequestError, match="The 4 new images"):
        client.chat.completions.create(messages=history[:-1], user="all at once", **asked)
    assert client.chat.completions.create(messages=history[:2], user="all at once", **asked).choices
