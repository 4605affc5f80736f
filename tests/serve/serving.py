"""A real server in a thread, its clients, and the messages that they send."""

import base64
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from anthropic import Anthropic
from openai import OpenAI
from PIL import Image

from kamera_agent import Kamera
from kamera_agent.pocket.renderer import draw_screen
from kamera_agent.pocket.world import World
from kamera_agent.serve.app import make_app
from kamera_agent.serve.server import listen, make_server

QUESTION = "Where is anna?"
TIMEOUT = 20
# A model that has learned to call tools. Its checkpoint is in float16 and runs in float32.
CALLER = Path(__file__).parents[1] / "agent" / "caller" / "checkpoint"

# What the model that calls tools has learned.
WEATHER = "What is the weather in San Francisco, CA?"
ABOUT = "Get the weather at a location."
PARAMETERS = {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]}
ARGUMENTS = {"location": "San Francisco, CA"}


@contextmanager
def serving(kamera: Kamera, buffer: int | None = None, **options: Any) -> Iterator[str]:
    """The base URL of a server on a free port. options: of make_app.

    buffer: bytes that the system keeps of what a client has not read.
    """
    with listen("127.0.0.1", 0) as listening:
        if buffer:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        server = make_server(make_app(kamera, **options))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        finally:
            server.should_exit = True
            thread.join(TIMEOUT)


@contextmanager
def posted(url: str, asked: dict[str, Any], buffer: int | None = None) -> Iterator[socket.socket]:
    """The connection of a client that has asked for a completion. buffer: as of serving()."""
    address, body = urlsplit(url), json.dumps(asked)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {address.netloc}\r\ncontent-type: application/json\r\n"
    with socket.socket() as client:
        client.settimeout(TIMEOUT)
        if buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        client.connect((address.hostname, address.port))
        client.sendall(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
        yield client


def client_of(url: str, key: str = "none") -> OpenAI:
    return OpenAI(base_url=url, api_key=key, max_retries=0, timeout=TIMEOUT)


def anthropic_of(url: str, key: str = "none") -> Anthropic:
    return Anthropic(base_url=url.removesuffix("/v1"), api_key=key, max_retries=0, timeout=TIMEOUT)


def screen(seed: int) -> np.ndarray:
    """A screen of the pocket's world, [H, W, 3] uint8."""
    return draw_screen(World(np.random.default_rng(seed)).tell("links", 1)[0])


def encoded(seed: int) -> str:
    """A screen as a PNG in base64."""
    buffer = BytesIO()
    Image.fromarray(screen(seed)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def shown(seed: int) -> dict[str, Any]:
    """The part of a chat message that shows a screen."""
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded(seed)}", "detail": "high"}}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": [*parts]}


def cached(completion: Any) -> int:
    """Tokens of the prompt that were not computed."""
    return int(completion.usage.prompt_tokens_details.cached_tokens)
