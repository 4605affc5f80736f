"""The references within a JSON schema."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from kamera_agent.errors import InputError
from kamera_agent.turns.effort import Effort
from kamera_agent.turns.keywords import BY_NAME, IN_PLACE, ITEMS, Schema, types_of


class References:
    """What the references of one schema point to. root: the whole schema."""

    def __init__(self, root: Schema, effort: Effort) -> None:
        self._root, self._effort = root, effort

    def target(self, reference: Any) -> Any:
        """The schema that a reference points to. Raises InputError for another document, and for nothing."""
        local = str(reference).removeprefix(str(self._root.get("$id", ""))) or "#"
        if local != "#" and not local.startswith("#/"):
            raise InputError(f"A schema refers to {reference!r}; use references within it, as in '#/$defs/name'.")
        target: Any = self._root
        for step in local.split("/")[1:]:
            name = unquote(step).replace("~1", "/").replace("~0", "~")
            try:
                target = target[int(name)] if isinstance(target, Sequence) else target[name]
            except (KeyError, IndexError, ValueError, TypeError):
                raise InputError(f"A schema refers to {reference!r}, which is not in it.") from None
        return target

    def check(self) -> None:
        """Raise InputError for a definition of which no value is finite, because it requires itself.

        And for a schema that takes more than the effort allows.
        """
        pending, targets = ["#"], dict[str, Any]()
        while pending:
            pointer = pending.pop()
            if pointer not in targets:
                targets[pointer] = self.target(pointer)
                pending += self._within(targets[pointer])
        ending, num_ending = set[str](), -1
        while num_ending < len(ending):
            num_ending = len(ending)
            # The last ones first: what a definition requires was found after it.
            for pointer in reversed(targets):
                if pointer not in ending and self._ends(targets[pointer], ending):
                    ending.add(pointer)
        if endless := targets.keys() - ending:
            raise InputError(f"No value can follow this schema, because {sorted(endless)[0]!r} requires itself.")

    def _within(self, schema: Any) -> Iterator[str]:
        """The references in a schema."""
        self._effort.look(schema)
        if isinstance(schema, Mapping) and "$ref" in schema:
            yield schema["$ref"]
        for part in _parts(schema):
            yield from self._within(part)

    def _ends(self, schema: Any, ending: Collection[str]) -> bool:
        """Whether a schema has a finite value, if those references have one."""
        self._effort.look(schema)
        if not isinstance(schema, Mapping):
            return True
        required: list[Any] = [*schema.get("allOf", ())]
        if types_of(schema) == {"object"}:
            properties = schema.get("properties", {})
            required += [properties[name] for name in schema.get("required", ()) if name in properties]
        if types_of(schema) == {"array"} and schema.get("minItems"):
            prefix = schema.get("prefixItems", [])
            required += prefix[: schema["minItems"]]
            required += [schema.get("items", True)] if schema["minItems"] > len(prefix) else []
        return (
            ("$ref" not in schema or schema["$ref"] in ending)
            and all(self._ends(part, ending) for part in required)
            and all(
                any(self._ends(part, ending) for part in schema[key]) for key in ("anyOf", "oneOf") if key in schema
            )
        )


def _parts(schema: Any) -> Iterator[Any]:
    """The schemas directly in a schema."""
    if isinstance(schema, Mapping):
        for keyword in BY_NAME:
            yield from schema.get(keyword, {}).values()
        for keyword in IN_PLACE:
            yield from schema.get(keyword, ())
        for keyword in (*ITEMS, "additionalProperties"):
            part = schema.get(keyword, ())
            yield from part if isinstance(part, Sequence) else [part]
