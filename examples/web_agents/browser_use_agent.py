"""browser-use, as it is, on the pages of the shop. Runs in a virtual environment of its own, without kamera_agent.

python browser_use_agent.py URL MODEL PAGES

URL: base URL of the server of the model. PAGES: address of the pages. Prints what went wrong, as a JSON list.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from tempfile import TemporaryDirectory
from typing import Any

import httpx
from browser_use import Agent, BrowserProfile, ChatOpenAI

TASK = "Find the lamp, and what it costs."
VISITED = ("index", "prices", "lamp", "owners", "rooms", "keys", "boat", "cart", "checkout", "sale")
# Characters of the texts that the agent asks for with every action: a memory, the next goal and so on.
MAX_STRING = 16
# Patience for a busy machine, for an answer.
TIMEOUT_S = 300


def actions(pages: str) -> Iterator[dict[str, Any]]:
    """One action per step. The model is too weak to choose: it has 560,960 parameters, and no eyes."""
    for number, name in enumerate(VISITED):
        yield {"navigate": {"url": f"{pages}/shop/{name}.html", "new_tab": False}}
        if number == 3:
            yield {"go_back": {}}
    yield {"done": {"text": "The lamp is in the shop.", "success": True, "files_to_display": []}}


class Steering(httpx.AsyncHTTPTransport):
    """Narrows the schema that a request gives for its answer to the next action, and short texts beside it."""

    def __init__(self, steps: Sequence[dict[str, Any]]) -> None:
        super().__init__()
        self._steps = iter(steps)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        schema = body["response_format"]["json_schema"]["schema"]
        texts = [name for name, part in schema["properties"].items() if _is_text(part)]
        action = {"type": "array", "minItems": 1, "maxItems": 1, "items": {"const": next(self._steps)}}
        properties = {name: {"type": "string", "maxLength": MAX_STRING} for name in texts} | {"action": action}
        narrow = {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}
        body["response_format"]["json_schema"]["schema"] = narrow
        data = json.dumps(body).encode()
        headers = {**request.headers, "content-length": str(len(data))}
        return await super().handle_async_request(httpx.Request("POST", request.url, headers=headers, content=data))


def _is_text(schema: dict[str, Any]) -> bool:
    return any(kind.get("type") == "string" for kind in (schema, *schema.get("anyOf", ())))


async def run(url: str, model: str, pages: str) -> list[str]:
    """Let the agent take its steps. Returns what went wrong."""
    steps = [*actions(pages)]
    with TemporaryDirectory() as folder:
        profile = BrowserProfile(
            executable_path=shutil.which("chromium") or shutil.which("google-chrome"),
            headless=True,
            chromium_sandbox=False,
            enable_default_extensions=False,
            user_data_dir=folder,
            viewport={"width": 1280, "height": 720},
        )
        async with httpx.AsyncClient(transport=Steering(steps), timeout=TIMEOUT_S) as client:
            agent = Agent(
                task=TASK,
                llm=ChatOpenAI(model=model, base_url=url, api_key="none", http_client=client, temperature=0),
                browser_profile=profile,
                use_judge=False,
                enable_planning=False,
                directly_open_url=False,
                llm_timeout=TIMEOUT_S,
                step_timeout=2 * TIMEOUT_S,
            )
            history = await agent.run(max_steps=len(steps))
    return [error for error in history.errors() if error]


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(*sys.argv[1:]))))
