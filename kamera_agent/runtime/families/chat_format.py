"""The chat format of a model, learned from its own template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Self

from jinja2 import TemplateError

from kamera_agent.errors import InputError, ModelError, UnsupportedModelError

# Words that no template has, to find what stands before and behind them.
SYSTEM, FIRST, ANSWER, SECOND = "kamerasystem", "kamerafirst", "kameraanswer", "kamerasecond"
ASKED = [("user", FIRST), ("assistant", ANSWER), ("user", SECOND)]
ROLES = ("system", "user", "assistant")


class Template:
    """Renders messages through the template of a processor or, where it has none, of its tokenizer.

    Raises ModelError where neither has one.
    """

    def __init__(self, processor: Any, tokenizer: Any) -> None:
        holders = [holder for holder in (processor, tokenizer) if getattr(holder, "chat_template", None)]
        if not holders:
            raise ModelError(
                "The checkpoint has no chat template, so nothing says how its turns are written. Set chat_template on "
                "the processor or its tokenizer."
            )
        self._holder = holders[0]
        # Templates of processors take contents as lists of parts, those of tokenizers as strings.
        self._in_parts = FIRST not in self._render([("user", FIRST)], in_parts=False)

    def _render(self, messages: Sequence[tuple[str, str]], *, in_parts: bool) -> str:
        return self._apply([_message(role, text, in_parts) for role, text in messages], ())

    def _apply(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> str:
        return str(self._holder.apply_chat_template(list(messages), tools=list(tools) or None, tokenize=False))

    def render(self, messages: Sequence[tuple[str, str]]) -> str:
        """Roles and texts, as the template writes them."""
        return self._render(messages, in_parts=self._in_parts)

    def image_text(self, token: str) -> str:
        """What the template adds to a user turn for an image; the token alone where it has no place for one."""
        parts = [{"type": "text", "text": FIRST}, {"type": "image"}, {"type": "text", "text": SECOND}]
        try:
            without, with_image = (self._apply([{"role": "user", "content": said}], ()) for said in (parts[::2], parts))
        except (TemplateError, TypeError):  # It takes contents as strings only.
            return token
        start = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(without, with_image, strict=False)))
        added = with_image[start : start + len(with_image) - len(without)]
        return added if token in added else token

    def apply(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> str:
        """Messages and tools as apply_chat_template takes them, contents as strings."""
        if self._in_parts:
            messages = [dict(message) | _message(message["role"], message["content"], True) for message in messages]
        return self._apply(messages, tools)


def _message(role: str, text: str, in_parts: bool) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}] if in_parts else text}


@dataclass(frozen=True)
class ChatFormat:
    """What stands between the texts of a conversation.

    opening: before the text of a system turn. plain: before the first user text where nothing is said to the system.
    default_system: what the template says to the system by itself; empty where it says nothing.
    between: before a text, by the role of the turn before it and its own. ends: behind the last text.
    """

    opening: str
    plain: str
    default_system: str
    between: Mapping[tuple[str, str], str]
    ends: tuple[str, ...]

    @classmethod
    def of(cls, template: Template) -> Self:
        """Learn the format. Raises UnsupportedModelError where the template drops or repeats what was said."""
        plain, to_answer, to_second, end = _cut(template.render(ASKED), (FIRST, ANSWER, SECOND))
        ends = (end, _cut(template.render(ASKED[:2]), (FIRST, ANSWER))[-1])
        between = _later_systems(template) | {("user", "assistant"): to_answer, ("assistant", "user"): to_second}
        try:
            opening, to_first, *_ = _cut(template.render([("system", SYSTEM), *ASKED]), (SYSTEM, FIRST, ANSWER, SECOND))
        except (TemplateError, UnsupportedModelError):
            # No place for a system prompt: it is said at the head of the first user text.
            return cls(plain, plain, "", between | {("system", "user"): "\n\n"}, ends)
        default = ""
        if opening != plain and plain.startswith(opening) and plain.endswith(to_first):
            default = plain.removeprefix(opening).removesuffix(to_first)
        return cls(opening, plain, default, between | {("system", "user"): to_first}, ends)

    def turn(self, before: str | None, role: str) -> str:
        """What closes a turn of one role and opens one of another. before: None at the beginning."""
        if before is None:
            return self.opening if role == "system" else self.plain
        if (before, role) in self.between:
            return self.between[before, role]
        return self.between[("user", "assistant") if role == "assistant" else ("assistant", "user")]

    def parse(self, rendered: str, first: str) -> list[tuple[str, str]]:
        """Roles and texts of a rendered conversation, a default system prompt left out.

        first: role of the first message. Raises UnsupportedModelError where it is written otherwise.
        """
        # What tools say goes to the system even where no message did.
        heads = [(self.opening, "system")] if first == "system" else [(self.plain, "user"), (self.opening, "system")]
        head, role = next(((head, role) for head, role in heads if rendered.startswith(head)), (None, ""))
        end = next((end for end in self.ends if rendered.endswith(end)), None)
        if head is None or end is None:
            raise UnsupportedModelError(
                f"The chat template writes this conversation otherwise than {self.opening!r}, text, "
                f"{self.turn('user', 'assistant')!r}, text ...: {rendered[:200]!r}. Use windows instead of messages."
            )
        rest = rendered.removeprefix(head).removesuffix(end)
        turns: list[tuple[str, str]] = []
        while True:
            known = [other for other in ROLES if other != "system" or (role, other) in self.between]
            marks = [(self.turn(role, other), other) for other in known]
            found = min(((rest.find(mark), mark, other) for mark, other in marks if mark in rest), default=None)
            if found is None:
                return [*turns, (role, rest)]
            at, mark, other = found
            turns.append((role, rest[:at]))
            rest, role = rest[at + len(mark) :], other


def _later_systems(template: Template) -> dict[tuple[str, str], str]:
    """What opens a system turn behind another turn, where the template has a mark for that."""
    between = {}
    for role in ROLES:
        with suppress(TemplateError, UnsupportedModelError):
            mark = _cut(template.render([(role, FIRST), ("system", SECOND)]), (FIRST, SECOND))[1]
            if mark.strip():
                between[role, "system"] = mark
    return between


def turns_of(
    template: Template,
    chat: ChatFormat,
    markers: Sequence[str],
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]],
) -> list[tuple[str, str]]:
    """Role and text of every turn that a chat template makes of messages.

    markers: the model's special tokens; a text that comes out with one in it is no text.
    Raises InputError where the template has no place for tools, UnsupportedModelError where it writes turns that the
    format does not know.
    """
    rendered = template.apply(messages, tools)
    if tools and tools[0]["function"]["name"] not in rendered:
        raise InputError("The chat template of this model has no place for tools; leave them out.")
    turns = chat.parse(rendered, messages[0]["role"])
    for role, text in turns:
        if marker := next((marker for marker in markers if marker in text), None):
            raise UnsupportedModelError(
                f"The chat template writes {marker!r} inside a turn of the {role}: {text[:200]!r}. "
                "Use windows instead of messages."
            )
    return turns


def _cut(rendered: str, words: Sequence[str]) -> list[str]:
    """What stands before, between and behind the words, which come once each and in this order."""
    parts, rest = [], rendered
    for word in words:
        before, found, rest = rest.partition(word)
        if not found or word in rest:
            raise UnsupportedModelError(
                f"The chat template drops, repeats or moves a turn: {rendered[:200]!r}. Set another chat_template."
            )
        parts.append(before)
    return [*parts, rest]
