"""The chat format of a model, learned from its own template."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from jinja2 import TemplateError

from kamera_agent.errors import InputError, UnsupportedModelError
from kamera_agent.runtime.families.marks import ASKED, ROLES, Marks, Turn, cut
from kamera_agent.runtime.families.template import Template

SYSTEM = "kamerasystem"
# Roles of some templates, named where an unknown one is refused.
OTHER_ROLES = ("tool", "developer")


@dataclass(frozen=True)
class ChatFormat:
    """What a template writes between the texts of a conversation.

    opening: before the text of a system turn. plain: before the first user text where there is no system prompt.
    default_system: the system prompt that the template writes by itself; empty where it writes none.
    between: between a system text, a question and its answer. ends: after the last text of a user and of an assistant.
    marks: between all other texts, learned when they are needed.

    The roles system, user and assistant may follow each other in any order. Where the template refuses an order, a turn
    is opened as after the role that usually precedes it. A system text that it has no place for is written as a user
    text. Any other role is written as the template writes it, or refused.
    """

    opening: str
    plain: str
    default_system: str
    between: Mapping[Turn, str]
    ends: tuple[str, ...]
    marks: Marks

    @classmethod
    def of(cls, template: Template) -> Self:
        """Learn the format. Raises UnsupportedModelError where the template drops or repeats a text."""
        plain, to_answer, to_second, end = cut(template.render(ASKED), ASKED)
        ends = (end, cut(template.render(ASKED[:2]), ASKED[:2])[-1])
        between = {("user", "assistant"): to_answer, ("assistant", "user"): to_second}
        marks, with_system = Marks(template), [("system", SYSTEM), *ASKED]
        try:
            opening, to_first, *_ = cut(template.render(with_system), with_system)
        except (TemplateError, UnsupportedModelError):
            # The template has no place for a system prompt: it goes to the head of the first user text.
            return cls(plain, plain, "", between | {("system", "user"): "\n\n"}, ends, marks)
        default = ""
        if opening != plain and plain.startswith(opening) and plain.endswith(to_first):
            default = plain.removeprefix(opening).removesuffix(to_first)
        return cls(opening, plain, default, between | {("system", "user"): to_first}, ends, marks)

    def head(self, role: str) -> str | None:
        """What precedes the text of a role that begins a conversation; None where the template refuses that."""
        if role in ("system", "user"):
            return self.opening if role == "system" else self.plain
        return self.marks.head(role)

    def turn(self, before: str, role: str) -> str:
        """What closes a turn of one role and opens one of another.

        Raises InputError for a role that the template does not write.
        """
        self.check_role(role)
        if mark := self._mark(before, role):
            return mark
        if role not in ROLES:
            return self._mark("assistant", role) or self._mark("user", role) or ""
        if role == "assistant":
            return self.between["user", "assistant"]
        # After another role, such as a tool, the template may demand a reply; an empty one is written.
        reply = "" if before in ROLES else self.turn(before, "assistant")
        return reply + self.between["assistant", "user"]

    def check_role(self, role: str) -> None:
        """Raise InputError, with the reason, for a role that the template does not write as one of its own."""
        if not isinstance(role, str):
            raise InputError(f"A role is a str; got a {type(role).__name__}.")
        if not role.isprintable():
            raise InputError(f"The role {role!r} has characters that cannot be printed; use a name.")
        if role in ROLES:
            return
        if reason := self.marks.refusal(role):
            known = [*ROLES, *(other for other in OTHER_ROLES if not self.marks.refusal(other))]
            raise InputError(f"The role {role!r} cannot be used: the chat template {reason}. Use one of {known}.")

    def parse(self, rendered: str, roles: Sequence[str]) -> list[Turn]:
        """Roles and texts of a rendered conversation, a default system prompt left out.

        roles: of its messages, in order. Raises UnsupportedModelError where the template writes turns in another way.
        """
        others = [role for role in dict.fromkeys(roles) if self._has_turn(role)]
        head, role = self._find_head(rendered, roles[0])
        ends = (self.marks.end(roles[-1]), *self.ends) if roles[-1] in others else self.ends
        end = next((end for end in ends if end is not None and rendered.endswith(end)), None)
        if head is None or end is None:
            raise UnsupportedModelError(
                f"The chat template does not write this conversation as {self.opening!r}, text, "
                f"{self.turn('user', 'assistant')!r}, text ...: {rendered[:200]!r}. Use windows instead of messages."
            )
        body, start = rendered.removeprefix(head).removesuffix(end), 0
        turns: list[Turn] = []
        marks: dict[str, tuple[re.Pattern[str], dict[str, str]]] = {}
        while True:
            if role not in marks:
                marks[role] = self._marks_after(role, others)
            pattern, roles_of = marks[role]
            if (found := pattern.search(body, start)) is None:
                return [*turns, (role, body[start:])]
            turns.append((role, body[start : found.start()]))
            start, role = found.end(), roles_of[found[0]]

    def _marks_after(self, role: str, others: Sequence[str]) -> tuple[re.Pattern[str], dict[str, str]]:
        """A pattern of the marks that may follow a turn of a role, and the role that each of them opens."""
        known = [other for other in ROLES if other != "system" or self._mark(role, other)]
        roles = {self.turn(role, other): other for other in sorted((*known, *others), reverse=True)}
        # Of marks that begin alike the longest: "</s>" may open a second reply, "</s>[INST]" a question.
        return re.compile("|".join(map(re.escape, sorted(roles, key=len, reverse=True)))), roles

    def _find_head(self, rendered: str, first: str) -> tuple[str | None, str]:
        # A template may write a system turn that describes the tools, even if no message has that role.
        roles = ("system",) if first == "system" else (first, "user", "system")
        heads = ((self.head(role), role) for role in roles)
        return next(
            ((head, role) for head, role in heads if head is not None and rendered.startswith(head)), (None, "")
        )

    def _has_turn(self, role: str) -> bool:
        """Whether a role other than ROLES has turns of its own; results of tools are often part of a user turn."""
        if role in ROLES or self.marks.refusal(role):
            return False
        marks = ((self._mark(before, role), self.turn(before, "user")) for before in ("assistant", "user"))
        return not any(mark and mark.startswith(user) for mark, user in marks)

    def _mark(self, before: str, role: str) -> str | None:
        return self.between.get((before, role)) or self.marks.between(before, role)


def turns_of(
    template: Template,
    chat: ChatFormat,
    markers: Sequence[str],
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]],
) -> list[Turn]:
    """Role and text of every turn that a chat template makes of messages.

    markers: the model's special tokens. A text with one in it shows that the format missed a turn.
    Raises InputError for a role that the template drops, refuses or writes as another one, and where it has no place
    for tools; UnsupportedModelError where it writes turns that the format does not know.
    """
    for role in dict.fromkeys(message["role"] for message in messages):
        # Some templates accept a tool result after a call only. The messages have the calls; the probes have not.
        if role != "tool" or chat.marks.alias(role):
            chat.check_role(role)
    rendered = template.apply(messages, tools)
    if tools and tools[0]["function"]["name"] not in rendered:
        raise InputError("The chat template of this model has no place for tools; leave them out.")
    start = 0
    for result in [message["content"] for message in messages if message["role"] == "tool"]:
        # Usually in the order of the messages, each soon after the one before.
        start = max(rendered.find(result, start), start)
        if not rendered.startswith(result, start) and result not in rendered and json.dumps(result) not in rendered:
            raise InputError(
                "The chat template of this model drops or rewrites what tools return; send it as a user message."
            )
    turns = chat.parse(rendered, [message["role"] for message in messages])
    # Looked for in all texts at once first: a marker has no line break.
    texts = "\n".join(text for _, text in turns)
    present = [marker for marker in markers if marker in texts]
    for role, text in turns:
        if marker := next((marker for marker in present if marker in text), None):
            raise UnsupportedModelError(
                f"The chat template writes {marker!r} inside a turn of the {role}: {text[:200]!r}. "
                "Use windows instead of messages."
            )
    return turns
