"""JSON schemas made ready for a decoder: bounds for a model that does not stop, and what the grammar reads otherwise.

Every rewriting narrows a schema, so whatever follows the result follows the original.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import Enum
from itertools import chain
from typing import Any, NamedTuple

from kamera_agent.errors import InputError
from kamera_agent.turns.effort import Effort
from kamera_agent.turns.keywords import IN_PLACE, ITEMS, LIMITS, LISTED, MOVED, NUMBERS, OBJECTS, Schema, types_of
from kamera_agent.turns.references import References

# Formats that the grammar enforces. Any other one is an annotation, and is left out.
FORMATS = {"date-time", "date", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uuid"}

# Numbers that every JSON reader keeps (RFC 7493), with few decimals: a small model may write digits without end.
LARGEST = 2**53 - 1
STEP = 1e-6
# llguidance takes 0 for a number above 0 and below 0.5: an exclusive bound is moved by this share and made inclusive.
NUDGE = 1e-12


class Form(Enum):
    """How a schema is rewritten.

    GIVEN: for a check of the original. SOUND: nothing but what the grammar reads otherwise. BOUNDED: with bounds.
    """

    GIVEN = "given"
    SOUND = "sound"
    BOUNDED = "bounded"


class Names(NamedTuple):
    """What schemas say about the names of an object's properties.

    known: names that are listed, in order. patterns: regular expressions of names. are_open: whether other names are
    expected.
    """

    known: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    are_open: bool = False


NO_NAMES = Names()
Key = tuple[str, Form, Names | None]


class Rewriter:
    """Rewrites one schema. max_string: characters of a string where the schema sets no bound; None sets none."""

    def __init__(self, schema: Schema, max_string: int | None, effort: Effort) -> None:
        """Raises InputError for a reference to another document, to nothing, or that holds itself without an end.

        effort: what the reading of this schema may still take. Every method raises InputError where it takes more.
        """
        self._root, self._max_string, self._effort = schema, max_string, effort
        self._references = References(schema, effort)
        self._references.check()
        self._definitions: dict[Key, Any] = {}

    def rewrite(self, form: Form) -> dict[str, Any]:
        """The schema in a form. Raises InputError where it cannot be enforced."""
        self._definitions = {}
        root = self._reference("#", form, None)
        names = {key: f"d{number}" for number, key in enumerate(self._definitions)}
        definitions = {names[key]: _named(definition, names) for key, definition in self._definitions.items()}
        dialect = {"$schema": self._root["$schema"]} if "$schema" in self._root else {}
        return {**dialect, **_named(root, names), "$defs": definitions}

    def _reference(self, pointer: str, form: Form, beside: Names | None) -> dict[str, Any]:
        """A reference to a definition of the rewritten schema, which is made if there is none."""
        key = (pointer, form, beside)
        if key not in self._definitions:
            self._definitions[key] = None
            self._definitions[key] = self._copy(self._references.target(pointer), form, beside)
        return {"$ref": key}

    def _copy(self, schema: Any, form: Form, beside: Names | None) -> Any:
        """A rewritten schema.

        beside: what schemas that apply to the same value say about names; None where none applies.
        """
        self._effort.look(schema)
        if not isinstance(schema, Mapping):
            return self._anything() if schema is True and form is Form.BOUNDED and beside is None else schema
        if form is Form.BOUNDED and beside is None and not schema.keys() & {*LIMITS, *IN_PLACE, "$ref"}:
            return self._anything()
        if "$id" in schema and schema is not self._root:
            raise InputError(f"A part of a schema has an $id, {schema['$id']!r}; only the whole may have one.")
        groups = _groups(schema)
        limits = schema.keys() & LIMITS - ({"type"} if groups else set())
        shared = beside is not None or len(groups) + bool(limits) > 1
        own, others = _own_names(schema), [beside or NO_NAMES, *(self._names(group) for group in groups)]
        copied = {keyword: value for keyword, value in schema.items() if keyword not in MOVED}
        if schema.get("format") not in FORMATS:
            copied.pop("format", None)
        copied |= self._members(schema, form, [own, *others] if shared else None)
        copied |= self._children(schema, form, self._union(others) if shared else NO_NAMES, shared)
        if form is Form.GIVEN:
            return copied
        _close_ends(copied)
        if shared or own.patterns:
            if limits and (narrowed := self._narrowed(schema, form, self._union([own, *others]))):
                copied["allOf"] = [*copied.get("allOf", ()), narrowed]
        elif limits:
            copied |= self._closed(copied, form)
        if form is Form.BOUNDED and limits and not shared and not schema.keys() & LISTED:
            copied |= self._bounds(copied)
        return copied

    def _members(self, schema: Schema, form: Form, names: Sequence[Names] | None) -> dict[str, Any]:
        """The rewritten schemas that apply to the same value.

        names: of the schema itself, of what is beside it, and of each of its groups; None where only one group applies.
        """
        groups = iter(range(2, 2 + len(_groups(schema))))

        def beside() -> Names | None:
            number = next(groups)
            return None if names is None else self._union([*names[:number], *names[number + 1 :]])

        members: dict[str, Any] = {}
        if "allOf" in schema:
            members["allOf"] = [self._copy(member, form, beside()) for member in schema["allOf"]]
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                around = beside()
                members[keyword] = [self._copy(member, form, around) for member in schema[keyword]]
        return members | (self._reference(schema["$ref"], form, beside()) if "$ref" in schema else {})

    def _children(self, schema: Schema, form: Form, elsewhere: Names, shared: bool) -> dict[str, Any]:
        """The rewritten schemas of parts of a value. A part that several schemas may apply to gets no bounds."""
        loose = Form.SOUND if form is Form.BOUNDED else form
        others = loose if shared else form
        children: dict[str, Any] = {}
        patterns = schema.get("patternProperties", {})
        if patterns:
            # A pattern may apply to a listed name, too.
            overlap = loose if schema.get("properties") else others
            children["patternProperties"] = {name: self._copy(part, overlap, None) for name, part in patterns.items()}
        if "properties" in schema:
            free = not (patterns or elsewhere.patterns or elsewhere.are_open)
            children["properties"] = {
                name: self._copy(part, form if free and name not in elsewhere.known else loose, None)
                for name, part in schema["properties"].items()
            }
        for keyword in (*ITEMS, "additionalProperties"):
            match schema.get(keyword):
                case Mapping() | bool() as part:
                    children[keyword] = self._copy(part, others, None)
                case [*parts]:
                    children[keyword] = [self._copy(part, others, None) for part in parts]
        return children

    def _closed(self, schema: Schema, form: Form) -> dict[str, Any]:
        r"""Keywords that limit the names of an object; none where it needs none.

        Where nobody expects other names, a model should not invent any. Where they are expected, their spelling is
        limited: llguidance would let an escape such as "\u0061" pass for a name other than "a".
        """
        if not _admits_objects(schema) or schema.get("additionalProperties") is False:
            return {}
        _check_count(schema)
        names, listed = _own_names(schema), schema.get("properties", {})
        other = schema.get("additionalProperties", self._anything() if form is Form.BOUNDED else True)
        closed = {
            "properties": {**listed, **{name: other for name in names.known if name not in listed}},
            "additionalProperties": False,
        }
        if names.are_open or form is Form.SOUND or "properties" not in schema:
            closed["patternProperties"] = {self._spelling(form, names.known): other}
        return closed

    def _narrowed(self, schema: Schema, form: Form, names: Names) -> dict[str, Any] | None:
        """As _closed, where other schemas apply to the same object: a schema to stand beside them."""
        if not _admits_objects(schema) or (not names.patterns and schema.get("additionalProperties") is False):
            return None
        _check_count(schema)
        narrowed: dict[str, Any] = {"properties": {name: {} for name in names.known}}
        if names.patterns:
            narrowed["patternProperties"] = {pattern: {} for pattern in names.patterns}
        elif names.are_open or form is Form.SOUND or "properties" not in schema:
            narrowed["patternProperties"] = {self._spelling(form): {}}
        return {**narrowed, "additionalProperties": False}

    def _spelling(self, form: Form, known: Iterable[str] = ()) -> str:
        """A pattern of names other than those known. Raises InputError for a name that is too long to be told apart."""
        size = self._max_string if form is Form.BOUNDED else None
        names = {*known, ""} if size else {*known}
        try:
            return f"^{_other_than(names, size or None)}$"
        except RecursionError as error:
            longest = max(map(len, names))
            raise InputError(
                f"A schema admits other names beside one of {longest:,} characters; use a shorter name."
            ) from error

    def _anything(self) -> dict[str, Any]:
        """A schema of any value. Its parts are spelled out so that each has a bound."""
        key = ("", Form.BOUNDED, None)
        if key not in self._definitions:
            value = {"$ref": key}
            scalars = [
                {"type": kind} | self._bounds({"type": kind}) for kind in ("string", "number", "boolean", "null")
            ]
            names = {"patternProperties": {self._spelling(Form.BOUNDED): value}, "additionalProperties": False}
            array, objects = {"type": "array", "items": value}, {"type": "object", **names}
            self._definitions[key] = {"anyOf": [*scalars, array, objects]}
        return {"$ref": key}

    def _bounds(self, schema: Schema) -> dict[str, Any]:
        """Bounds on the strings, numbers and items of a schema that sets none, where they leave some."""
        types, bounds = types_of(schema), dict[str, Any]()
        if "string" in types and self._max_string and not schema.keys() & {"maxLength", "pattern", "format"}:
            bounds["maxLength"] = max(self._max_string, schema.get("minLength", 0))
        if "array" in types and not schema.keys() & {*ITEMS}:
            bounds["items"] = self._anything()
        if types & {"integer", "number"}:
            bounds |= _number_bounds(schema, whole="number" not in types)
        return bounds

    def _names(self, schemas: Iterable[Any]) -> Names:
        """What schemas, and those that apply with them to the same value, say about names."""
        names, followed, pending = [NO_NAMES], set[str](), [*schemas][::-1]
        while pending:
            schema = pending.pop()
            self._effort.look(schema)
            if not isinstance(schema, Mapping):
                continue
            names.append(_own_names(schema))
            parts = [*chain(*(schema.get(keyword, ()) for keyword in IN_PLACE))]
            if "$ref" in schema and schema["$ref"] not in followed:
                followed.add(schema["$ref"])
                parts.append(self._references.target(schema["$ref"]))
            pending += reversed(parts)
        return self._union(names)

    def _union(self, names: Sequence[Names]) -> Names:
        """What all of these say together."""
        self._effort.spend(sum(1 + len(each.known) + len(each.patterns) for each in names))
        known, patterns, are_open = zip(*names, strict=True)
        return Names((*dict.fromkeys(chain(*known)),), (*dict.fromkeys(chain(*patterns)),), any(are_open))


def _named(schema: Any, names: Mapping[Key, str]) -> Any:
    """A schema whose references hold the names of definitions in the place of their keys."""
    if isinstance(schema, list):
        return [_named(part, names) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    return {
        keyword: f"#/$defs/{names[part]}" if keyword == "$ref" and isinstance(part, tuple) else _named(part, names)
        for keyword, part in schema.items()
    }


def _groups(schema: Schema) -> list[list[Any]]:
    """Schemas that apply to the same value as this one, in groups: of each group, one or more apply."""
    groups = [[member] for member in schema.get("allOf", ())]
    groups += [list(schema[keyword]) for keyword in ("anyOf", "oneOf") if keyword in schema]
    return groups + ([[{"$ref": schema["$ref"]}]] if "$ref" in schema else [])


def _own_names(schema: Schema) -> Names:
    extra = schema.get("additionalProperties", False)
    return Names(
        (*schema.get("properties", ()), *schema.get("required", ())),
        (*schema.get("patternProperties", ()),),
        extra is not False or bool(schema.keys() & {"minProperties", "maxProperties", *LISTED}),
    )


def _admits_objects(schema: Schema) -> bool:
    if schema.keys() & LISTED:
        return False
    types = types_of(schema)
    return "object" in types if types else bool(schema.keys() & OBJECTS)


def _check_count(schema: Schema) -> None:
    if schema.get("minProperties", 0) > max(1, len(schema.get("required", ()))):
        raise InputError(
            f"minProperties is {schema['minProperties']}, but a model may write one name twice; list names under "
            "'required' instead."
        )


def _other_than(names: AbstractSet[str], size: int | None) -> str | None:
    """A regular expression of texts other than these, of at most `size` characters; None where there are none."""
    any_one, rest = (r"[\s\S]", r"[\s\S]*") if size is None else (".", f".{{0,{size}}}")
    if not names:
        return rest
    options = [] if "" in names else [""]
    if size != 0:
        shorter = None if size is None else size - 1
        heads = sorted({name[0] for name in names if name})
        options.append(f"[^{''.join(map(re.escape, heads))}]" if heads else any_one)
        options[-1] += _other_than(frozenset(), shorter) or ""
        for head in heads:
            tail = _other_than({name[1:] for name in names if name[:1] == head}, shorter)
            options += [] if tail is None else [re.escape(head) + tail]
    return f"({'|'.join(options)})" if options else None


def _close_ends(schema: dict[str, Any]) -> None:
    """Make exclusive bounds of numbers with decimals inclusive."""
    types = types_of(schema)
    if types and "number" not in types:
        return
    for exclusive, inclusive, sign, sharper in (
        ("exclusiveMinimum", "minimum", 1, max),
        ("exclusiveMaximum", "maximum", -1, min),
    ):
        bound = schema.get(exclusive)
        if bound is not None and not isinstance(bound, bool):
            del schema[exclusive]
            nudged = bound + sign * NUDGE * max(1, abs(bound))
            schema[inclusive] = sharper(nudged, schema.get(inclusive, nudged))


def _number_bounds(schema: Schema, *, whole: bool) -> dict[str, Any]:
    """The bounds that a schema of numbers lacks; none where no number may be left between them."""
    if any(isinstance(schema.get(keyword), bool) for keyword in NUMBERS):  # Of draft 4.
        return {}
    low = max(schema.get("minimum", -LARGEST), schema.get("exclusiveMinimum", -LARGEST))
    high = min(schema.get("maximum", LARGEST), schema.get("exclusiveMaximum", LARGEST))
    step = schema.get("multipleOf", 1 if whole else STEP)
    if not low + step < high:
        return {}
    bounds: dict[str, Any] = {}
    if not schema.keys() & {"minimum", "exclusiveMinimum"}:
        bounds["minimum"] = -LARGEST
    if not schema.keys() & {"maximum", "exclusiveMaximum"}:
        bounds["maximum"] = LARGEST
    if not whole and "multipleOf" not in schema:
        bounds["multipleOf"] = STEP
    return bounds
