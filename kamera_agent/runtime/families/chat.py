"""The model's chat format in tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import takewhile
from typing import Any

from kamera_agent.runtime.families.chat_format import ChatFormat, turns_of
from kamera_agent.runtime.families.template import Template
from kamera_agent.runtime.families.tokens import Marked, Tokens


class Chat:
    """What opens, separates and ends the turns of one model.

    template: the model's chat template.
    """

    def __init__(self, template: Template, tokens: Tokens, generation_config: Any) -> None:
        self.template = template
        self._tokens = tokens
        self._generation_config = generation_config
        self._turns: dict[tuple[str | None, str, bool], tuple[int, ...]] = {}

    @cached_property
    def format(self) -> ChatFormat:
        """How the template writes turns. Raises UnsupportedModelError."""
        return ChatFormat.of(self.template)

    @property
    def default_system(self) -> str:
        """System prompt that the template itself writes; empty where it writes none."""
        return self.format.default_system

    @cached_property
    def anchor_ids(self) -> tuple[int, ...]:
        """The opening tokens that every window begins with: the attention sink."""
        openings = (self.format.opening, self.format.plain)
        system, plain = (self._tokens.opening(text.rstrip(" ")) for text in openings)
        if self.default_system:
            return system
        # A window may begin with a system prompt or without one: the anchor is what both ways have in common.
        return tuple(one for one, other in takewhile(lambda pair: pair[0] == pair[1], zip(system, plain, strict=False)))

    def turn(self, before: str | None, role: str, *, text_follows: bool = False) -> tuple[int, ...]:
        """Tokens that close a turn of the role `before` and open one of `role`; None for `before` follows the anchor.

        text_follows: leaves a trailing space to the text, because tokenizers join it to the next word.
        Raises InputError for a role that the template does not write.
        """
        key = before, role, text_follows
        if key not in self._turns:
            self._turns[key] = self._turn(*key)
        return self._turns[key]

    def _turn(self, before: str | None, role: str, text_follows: bool) -> tuple[int, ...]:
        markup = self._markup(before, role)
        if text_follows:
            markup = markup.removesuffix(" ")
        return self._tokens.markup(markup) if before else self._tokens.opening(markup)[len(self.anchor_ids) :]

    def leaves_space(self, before: str | None, role: str) -> bool:
        """Whether the markup that `turn` gives with text_follows leaves a space to the first word of the text."""
        return self._markup(before, role).endswith(" ") and self._tokens.spaces_are_text

    def spaced(self, text: str) -> tuple[int, ...]:
        """Tokens of a text after a space that the markup leaves to it."""
        return self._tokens.encode(Marked.of([(" ", False), (text, False)]))

    def _markup(self, before: str | None, role: str) -> str:
        if before is not None:
            return self.format.turn(before, role)
        head = self.format.head(role)
        if head is not None and self._tokens.opening(head.rstrip(" "))[: len(self.anchor_ids)] == self.anchor_ids:
            return head
        # The template lets no conversation begin with this role: an empty user turn comes first.
        return self.format.plain + self.format.turn("user", role)

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end a reply."""
        configured = self._generation_config.eos_token_id
        listed = configured if isinstance(configured, list) else [configured]
        # Some checkpoints do not list the marker that ends their turns.
        closing = {*self.turn("assistant", "user")[:1]} & self._tokens.special_ids
        return frozenset({token for token in (*listed, self._tokens.eos_id) if token is not None} | closing)

    def turns(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()
    ) -> list[tuple[str, str]]:
        """Role and text of every turn that the template makes of messages; raises as turns_of does."""
        return turns_of(self.template, self.format, self._tokens.special_texts, messages, tools)
