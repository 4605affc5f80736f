"""Constraints on a reply: JSON of a schema, or a call of one of several tools. Enforced by llguidance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from reprlib import repr as short
from typing import Any

import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer
from llguidance.hf import from_tokenizer

from kamera_agent.errors import InputError
from kamera_agent.turns.effort import Effort
from kamera_agent.turns.keywords import Schema
from kamera_agent.turns.schemas import Form, Rewriter
from kamera_agent.turns.tool_calls import OPENING

# Without it a small model may write blanks without end.
COMPACT: Schema = {"x-guidance": {"whitespace_flexible": False}}

# Of llguidance's error for a format that it does not know.
UNKNOWN_FORMAT = "Unknown format"

# The schema of any object.
OBJECT: Schema = {"type": "object"}

# Any text without the opening of a call.
NO_CALL = f"start: TEXT\nTEXT: /(?s:.*)/ & ~/(?s:.*){OPENING}(?s:.*)/"


def read_format(response_format: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The schema of a response_format, which is in OpenAI's envelope or a bare schema. None where any text will do.

    Raises InputError for what is neither.
    """
    match response_format:
        case {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return OBJECT
        case {"json_schema": {"schema": Mapping() as schema}} | (Mapping() as schema):
            return schema
        case _:
            raise InputError(f"response_format is {short(response_format)}; use OpenAI's form, or a JSON schema.")


class Grammars:
    """Makes constraints over one tokenizer."""

    def __init__(self, tokenizer: Any, max_string: int | None = None) -> None:
        """max_string: characters of a string where the schema sets no bound; None sets none."""
        self._hugging_face = tokenizer
        self._max_string = max_string

    @cached_property
    def _tokenizer(self) -> LLTokenizer:
        return from_tokenizer(self._hugging_face, eos_token=self._hugging_face.eos_token_id)

    def json(self, schema: Schema) -> Matcher:
        """A constraint to JSON of a schema. Raises InputError for a schema that cannot be enforced."""
        return self._matcher(LLMatcher.grammar_from_json_schema(self._prepared(schema, Effort())))

    def chosen(self, tools: Sequence[Schema], tool_choice: str | None) -> Matcher | None:
        """The constraint of a tool_choice: a call of the named tool or of any, or no call; None where it leaves both.

        Raises InputError for the name of an unknown tool.
        """
        if tool_choice in (None, "auto") or (tool_choice == "none" and not tools):
            return None
        if tool_choice == "none":
            return self._matcher(LLMatcher.grammar_from_lark(NO_CALL))
        named = [tool for tool in tools if tool_choice in ("any", tool["function"]["name"])]
        if not named:
            names = [tool["function"]["name"] for tool in tools]
            raise InputError(f"tool_choice is {tool_choice!r}; use one of {names}, 'any', 'auto' or 'none'.")
        return self.calls(named)

    def calls(self, tools: Sequence[Schema]) -> Matcher:
        """A constraint to a call of one of these tools, in the Hermes form. tools: in OpenAI's form.

        Raises InputError for a schema that cannot be enforced.
        """
        # Each schema is a grammar of its own, because its references resolve to its own definitions.
        choice = " | ".join(f"call{number}" for number in range(len(tools)))
        rules = [f'start: "<tool_call>\\n" ({choice}) "\\n</tool_call>"']
        effort = Effort()
        for number, tool in enumerate(tools):
            name = json.dumps(tool["function"]["name"], ensure_ascii=False)
            opening = json.dumps(f'{{"name":{name},"arguments":', ensure_ascii=False)
            arguments = self._prepared(_parameters(tool), effort)
            rules.append(f'call{number}: {opening} arguments{number} "}}"\narguments{number}: %json {arguments}')
        return self._matcher(LLMatcher.grammar_from_lark("\n".join(rules)))

    def _prepared(self, schema: Schema, effort: Effort) -> str:
        """The schema with bounds, as JSON. Raises InputError where it cannot be enforced."""
        if (error := self._error(_grammar(schema))) and UNKNOWN_FORMAT not in error:
            raise InputError(f"This schema cannot be enforced: {error}")
        rewriter = Rewriter(schema, self._max_string, effort)
        # llguidance proves that the schemas of a oneOf exclude each other. It has to prove it of the originals, because
        # bounded schemas may exclude each other where the originals overlap.
        given = rewriter.rewrite(Form.GIVEN)
        if error := self._error(_grammar(given)):
            raise InputError(f"This schema cannot be enforced: {error}")
        bounded = rewriter.rewrite(Form.BOUNDED)
        # Bounds must not cost a schema its place.
        chosen = rewriter.rewrite(Form.SOUND) if self._error(_grammar(bounded)) else bounded
        return json.dumps({**chosen, **COMPACT})

    def _error(self, grammar: str) -> str:
        return str(LLMatcher.validate_grammar(grammar, self._tokenizer)).strip()

    def _matcher(self, grammar: str) -> Matcher:
        if error := self._error(grammar):
            raise InputError(f"This schema cannot be enforced: {error}")
        return Matcher(LLMatcher(self._tokenizer, grammar))


class Matcher:
    """The state of a reply in a grammar. It is a Constraint of the sampler."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def mask(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits [vocab] with minus infinity for every token that the grammar does not allow next.

        Raises InputError where the grammar is too complex, which shows only here.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        if self._matcher.is_error():
            raise InputError(f"This schema cannot be enforced: {self._matcher.get_error().splitlines()[0]}")
        allowed = torch.from_numpy(np.unpackbits(bits, bitorder="little").astype(bool)).to(logits.device)
        # A model may have more logits than its tokenizer has tokens, and the bit mask is padded.
        masked = torch.full_like(logits, float("-inf"))
        size = min(len(logits), len(allowed))
        masked[:size] = logits[:size].where(allowed[:size], float("-inf"))
        return masked

    def accept(self, token: int) -> None:
        """Advance by a token."""
        self._matcher.consume_token(token)

    def forced(self) -> Sequence[int]:
        """The tokens of the only text that the grammar allows next, as the tokenizer would write it."""
        token_ids: list[int] = self._matcher.compute_ff_tokens()
        return token_ids


def _parameters(tool: Schema) -> Schema:
    return tool["function"].get("parameters") or {"type": "object", "properties": {}}


def _grammar(schema: Schema) -> str:
    try:
        return str(LLMatcher.grammar_from_json_schema(json.dumps(schema)))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"This schema is no JSON: {error}.") from error
