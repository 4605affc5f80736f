"""A computer-use agent in Anthropic's form, with their SDK, over a recorded trajectory.

The screenshots are those of the recording, whatever the model asks for. Old ones are left out several at a time, as
Anthropic's sample does, so that most turns leave the beginning of the prompt as it is.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import cv2
import numpy as np
from anthropic import Anthropic

from kamera_agent.pocket.renderer import draw_screen
from kamera_agent.pocket.world import World

SYSTEM = "You use a computer. Find who is where."
NUM_STEPS, MAX_TOKENS = 12, 400
# Screenshots that stay, and that leave at once.
KEPT = 3
COMPUTER = {"type": "computer_20250124", "name": "computer", "display_width_px": 1288, "display_height_px": 728}


def recording() -> list[dict[str, Any]]:
    """The screenshots of the trajectory, as blocks."""
    pages = [World(np.random.default_rng(seed)).tell("links", 1)[0] for seed in range(NUM_STEPS)]
    files = [cv2.imencode(".png", draw_screen(page)[:, :, ::-1])[1].tobytes() for page in pages]
    sources = [{"type": "base64", "media_type": "image/png", "data": b64encode(file).decode()} for file in files]
    return [{"type": "image", "source": source} for source in sources]


def leave_out(messages: list[dict[str, Any]]) -> None:
    """Take the oldest screenshots out, a multiple of KEPT of them, so that at least KEPT stay."""
    results = [block for message in messages for block in message["content"] if block["type"] == "tool_result"]
    shown = [result for result in results if result["content"]]
    surplus = max(len(shown) - KEPT, 0)
    for result in shown[: surplus - surplus % KEPT]:
        result["content"] = []


def run(url: str, model: str) -> None:
    """Let the agent use the computer. Its model is too weak to choose, so it is told to call the tool."""
    client = Anthropic(base_url=url.removesuffix("/v1"), api_key="none", max_retries=0)
    messages: list[dict[str, Any]] = [{"role": "user", "content": [{"type": "text", "text": "Begin."}]}]
    for screenshot in recording():
        reply = client.beta.messages.create(
            model=model,
            max_tokens=MAX_TOKENS,
            system=[{"type": "text", "text": SYSTEM, "cache_control": {"type": "ephemeral"}}],
            messages=messages,
            tools=[COMPUTER],
            tool_choice={"type": "tool", "name": "computer"},
            betas=["computer-use-2025-01-24"],
        )
        content = [block.model_dump(exclude_none=True) for block in reply.content]
        calls = [block["id"] for block in content if block["type"] == "tool_use"]
        results = [{"type": "tool_result", "tool_use_id": call, "content": [screenshot]} for call in calls]
        messages += [{"role": "assistant", "content": content}, {"role": "user", "content": results}]
        leave_out(messages)
