"""The model under test, run by ChatKamera."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from langchain_core.messages import HumanMessage

from examples.ui_agent.first_token import watch
from examples.ui_agent.plain import MAX_TOKENS
from examples.ui_agent.turn import Turn
from kamera_agent import Kamera
from kamera_agent.agent import ChatKamera


class Cached:
    """An arm: one conversation of a ChatKamera."""

    def __init__(self, kamera: Kamera, conversation: str = "agent") -> None:
        self._kamera, self._conversation = kamera, conversation
        self._model = ChatKamera(kamera=kamera, max_tokens=MAX_TOKENS)

    def answer(self, screens: Sequence[bytes], question: str) -> Turn:
        """Send one user message: the screenshots, then the question."""
        # Finish the background work of the last turn, so that the times are those of the answer alone.
        self._kamera.flush()
        images = [
            {"type": "image", "base64": base64.b64encode(data).decode(), "mime_type": "image/png"} for data in screens
        ]
        message = HumanMessage([*images, {"type": "text", "text": question}])
        with watch(self._kamera.family.model) as first:
            reply = self._model.invoke([message], conversation=self._conversation)
        origins = reply.response_metadata["kamera"]["origins"]
        return Turn(reply.text.strip(), origins, first.ms, first.logits)
