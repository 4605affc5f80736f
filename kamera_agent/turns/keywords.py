"""The keywords of JSON schemas, by what they do."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

Schema = Mapping[str, Any]

# Keywords whose values hold schemas; the values of all others, such as enum and default, are data.
BY_NAME = ("properties", "patternProperties")
IN_PLACE = ("allOf", "anyOf", "oneOf")
ITEMS = ("items", "prefixItems", "additionalItems")

# Keywords that limit a value. A schema without any of them admits every value.
OBJECTS = {"properties", "patternProperties", "additionalProperties", "required", "minProperties", "maxProperties"}
NUMBERS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
STRINGS = {"minLength", "maxLength", "pattern", "format"}
LISTED = {"enum", "const"}
LIMITS = {"type", "minItems", "maxItems", *ITEMS, *OBJECTS, *NUMBERS, *STRINGS, *LISTED}
# Keywords that a rewritten schema has in another form.
MOVED = {*IN_PLACE, "$ref", "$defs", "definitions", "$id", "$anchor", "$schema"}


def types_of(schema: Schema) -> AbstractSet[str]:
    """The types that a schema names."""
    types = schema.get("type", ())
    return {types} if isinstance(types, str) else {*types}
