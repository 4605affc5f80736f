"""What a chat template writes between two texts, learned from renderings of short probes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress

from jinja2 import TemplateError

from kamera_agent.errors import UnsupportedModelError
from kamera_agent.runtime.families.template import FIRST, SECOND, Template

ROLES = ("system", "user", "assistant")
TOOL = "tool"
ANSWER = "kameraanswer"
ASKED = [("user", FIRST), ("assistant", ANSWER), ("user", SECOND)]
# What precedes a probe: templates refuse some roles at the beginning, and some after others.
LEADS = ASKED[:0], ASKED[:1], ASKED[:2]
# A template that writes a text as JSON changes these. Some do so with what tools return.
BEFORE, AFTER = 'kamera"\nbefore', 'kamera"\nafter'

Turn = tuple[str, str]


class Marks:
    """The marks of one template: the text before, between and after the texts of roles.

    What a tool returned may be JSON there. Its quotes are part of its text.
    """

    def __init__(self, template: Template) -> None:
        self._template = template
        self._between: dict[Turn, str | None] = {}
        self._refusals: dict[str, str | None] = {}
        self._aliases: dict[str, str] = {}

    def between(self, before: str, role: str) -> str | None:
        """The mark between texts of two roles; None where the template refuses this order or writes only spaces."""
        if (before, role) not in self._between:
            marks = (self._cut([*lead, (before, BEFORE), (role, AFTER)]) for lead in LEADS)
            self._between[before, role] = next((mark[-2] for mark in marks if mark and mark[-2].strip()), None)
        return self._between[before, role]

    def head(self, role: str) -> str | None:
        """The mark before a text of a role that begins a conversation; None where none may."""
        marks = self._cut([(role, BEFORE)]) or self._cut([(role, BEFORE), ("user", AFTER)])
        return marks[0] if marks else None

    def end(self, role: str) -> str | None:
        """The mark after a text of a role that ends a conversation."""
        return next((marks[-1] for lead in LEADS if (marks := self._cut([*lead, (role, AFTER)]))), None)

    def refusal(self, role: str) -> str | None:
        """Why a role other than ROLES cannot be written; None where it can."""
        if role not in self._refusals:
            self._refusals[role] = self._examine(role)
        return self._refusals[role]

    def alias(self, role: str) -> str | None:
        """The role of ROLES that another role is written as; None where it has its own form."""
        self.refusal(role)
        return self._aliases.get(role)

    def _examine(self, role: str) -> str | None:
        reason = None
        for lead in reversed(LEADS):
            talk = [*lead, (role, AFTER)]
            try:
                rendered = self._template.render(talk)
            except TemplateError as error:
                reason = reason or f"refuses it: {error}"
                continue
            if self._cut(talk):
                return self._compare(lead, role, rendered)
            reason = reason or "drops or rewrites its text"
        return reason

    def _compare(self, lead: Sequence[Turn], role: str, rendered: str) -> str | None:
        alias = next((other for other in ROLES if self._render([*lead, (other, AFTER)]) == rendered), None)
        # Many templates write results of tools as user turns on purpose.
        if alias and (role, alias) != ("tool", "user"):
            self._aliases[role] = alias
            return f"writes it as {alias!r}"
        if not self.between("assistant", role) and not self.between("user", role):
            return "writes it at the beginning only"
        return None if self.between(role, "assistant") else "writes nothing between it and a reply"

    def _cut(self, talk: Sequence[Turn]) -> list[str] | None:
        rendered = self._render(talk) or ""
        for written in (talk, [_as_json(*turn) for turn in talk]):
            with suppress(UnsupportedModelError):
                return cut(rendered, written)
        return None

    def _render(self, talk: Sequence[Turn]) -> str | None:
        try:
            return self._template.render(talk)
        except TemplateError:
            return None


def _as_json(role: str, text: str) -> Turn:
    return role, json.dumps(text) if role == TOOL else text


def cut(rendered: str, talk: Sequence[Turn]) -> list[str]:
    """What is before, between and after the texts of a conversation.

    Raises UnsupportedModelError unless each text comes once, and in this order.
    """
    parts, rest = [], rendered
    for _, text in talk:
        before, found, rest = rest.partition(text)
        if not found or text in rest:
            raise UnsupportedModelError(
                f"The chat template drops, repeats or moves a turn: {rendered[:200]!r}. Set another chat_template."
            )
        parts.append(before)
    return [*parts, rest]
