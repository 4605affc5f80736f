"""The chat template of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from jinja2 import TemplateError

from kamera_agent.errors import InputError, ModelError

# Words that no template contains, to find what is before, between and after them.
FIRST, SECOND = "kamerafirst", "kamerasecond"


class Template:
    """Renders messages through the template of a processor or, where it has none, of its tokenizer.

    Raises ModelError where neither has one.
    """

    def __init__(self, processor: Any, tokenizer: Any) -> None:
        holders = [holder for holder in (processor, tokenizer) if getattr(holder, "chat_template", None)]
        if not holders:
            raise ModelError(
                "The checkpoint has no chat template, so the format of its turns is unknown. Set chat_template on the "
                "processor or its tokenizer."
            )
        self._holder = holders[0]
        # Templates of processors take contents as lists of parts, those of tokenizers as strings.
        self._in_parts = FIRST not in self._render([("user", FIRST)], in_parts=False)

    def render(self, messages: Sequence[tuple[str, str]]) -> str:
        """Roles and texts, as the template writes them. Raises jinja2.TemplateError where it refuses them."""
        return self._render(messages, in_parts=self._in_parts)

    def apply(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> str:
        """Messages and tools as apply_chat_template takes them, with strings as contents.

        Raises InputError where the template refuses them.
        """
        if self._in_parts:
            messages = [dict(message) | _message(message["role"], message["content"], True) for message in messages]
        try:
            return self._apply(messages, tools)
        except TemplateError as error:
            raise InputError(f"The chat template of this model refuses these messages: {error}") from error

    def image_text(self, token: str) -> str:
        """What the template adds to a user turn for an image; the token alone where it has no place for one."""
        parts = [{"type": "text", "text": FIRST}, {"type": "image"}, {"type": "text", "text": SECOND}]
        try:
            without, with_image = (self._apply([{"role": "user", "content": one}], ()) for one in (parts[::2], parts))
        except (TemplateError, TypeError):  # It takes contents as strings only.
            return token
        start = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(without, with_image, strict=False)))
        added = with_image[start : start + len(with_image) - len(without)]
        return added if token in added else token

    def _render(self, messages: Sequence[tuple[str, str]], *, in_parts: bool) -> str:
        return self._apply([_message(role, text, in_parts) for role, text in messages], ())

    def _apply(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> str:
        return str(self._holder.apply_chat_template(list(messages), tools=list(tools) or None, tokenize=False))


def _message(role: str, text: str, in_parts: bool) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}] if in_parts else text}
