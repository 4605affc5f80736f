"""Bodies that a server has to withstand, drawn from its own OpenAPI schema: half right, or wrong in any place."""

import base64
import json
from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import Any

import httpx
from hypothesis import strategies as st
from PIL import Image

TIMEOUT = 60
# Names that mean something to some protocol, and kinds of blocks, tools and choices.
WORDS = (
    *("text", "input_text", "output_text", "image_url", "input_image", "image", "input_audio", "file", "tool_result"),
    *("tool_use", "function", "function_call", "function_call_output", "message", "thinking", "computer_20250124"),
    *("auto", "none", "required", "any", "tool", "json_schema", "json_object", "ephemeral", "base64", "url", "user"),
    *(
        "assistant",
        "system",
        "object",
        "string",
        "integer",
        "array",
        "pocket",
        "",
        "\x00",
        "\ud83d",
        "<|im_end|>",
        "日本",
    ),
)
KEYS = (
    *("type", "text", "content", "image_url", "url", "source", "data", "media_type", "function", "name", "parameters"),
    *("input_schema", "json_schema", "schema", "strict", "input", "arguments", "call_id", "tool_use_id", "properties"),
    *("required", "items", "enum", "$ref", "minimum", "minItems", "pattern", "anyOf", "id", "detail", "cache_control"),
)
# Fields that bound a reply, and the most that a fuzzed request may ask for: its answer is not what is tested.
LENGTHS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
MOST = 3


def _png(mode: str) -> str:
    buffer = BytesIO()
    Image.new(mode, (30, 30)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


URLS = [f"data:image/png;base64,{_png(mode)}" for mode in ("RGB", "RGBA", "1", "I;16")]
ODD_URLS = ["data:,", "data:image/png;base64,AAAA", URLS[0][:-40], "https://example.org/a.png", "file:///etc/passwd"]

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-2, 3)
    | st.sampled_from([2**31, 2**63, -(2**70), 1e308, 0.5, -0.0])
    | st.sampled_from([*WORDS, *URLS, *ODD_URLS])
    | st.text(max_size=8)
)
NAMES = st.sampled_from(KEYS) | st.text(max_size=4)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=10,
)


def bodies(schema: Mapping[str, Any], named: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Bodies of a request. schema: of the right ones. named: the schemas that it refers to."""
    right = _values(schema, named)
    return st.one_of(right, right, right, st.tuples(right, st.sampled_from(KEYS), ANYTHING).map(_spoilt), ANYTHING).map(
        _short
    )


def _values(schema: Mapping[str, Any], named: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    match schema:
        case {"$ref": str(name)}:
            return st.deferred(lambda: _values(named[name.rpartition("/")[2]], named))
        case {"anyOf": list(kinds)} | {"oneOf": list(kinds)}:
            return st.one_of([_values(kind, named) for kind in kinds])
        case {"const": value}:
            return st.just(value)
        case {"enum": list(values)}:
            return st.sampled_from(values)
        case {"type": "array"}:
            return st.lists(_values(schema.get("items", {}), named), max_size=3)
        case {"type": "object", "properties": Mapping() as fields}:
            needed = {*schema.get("required", ())}
            parts = {name: _values(field, named) for name, field in fields.items()}
            return st.fixed_dictionaries(
                {name: part for name, part in parts.items() if name in needed},
                optional={name: part for name, part in parts.items() if name not in needed},
            )
        case {"type": "object"}:
            return st.dictionaries(st.sampled_from(KEYS), ANYTHING, max_size=5)
        case {"type": "string"}:
            return st.sampled_from(WORDS) | st.text(max_size=12)
        case {"type": "boolean"}:
            return st.booleans()
        case {"type": "null"}:
            return st.none()
        case {"type": "integer" | "number"}:
            return st.integers(-1, 5) | st.floats(0, 2)
        case _:
            return ANYTHING


def _spoilt(drawn: tuple[Any, str, Any]) -> Any:
    body, key, value = drawn
    return {**body, key: value} if isinstance(body, dict) else body


def _short(body: Any) -> Any:
    if not isinstance(body, dict):
        return body
    given = {name: body[name] for name in LENGTHS if isinstance(body.get(name), int | float)}
    return {**body, **({name: min(value, MOST) for name, value in given.items()} or {"max_tokens": MOST})}


def endpoints(url: str) -> dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """The schema of the bodies of each path that takes some, and the schemas that all of them refer to."""
    told = httpx.get(f"{url.removesuffix('/v1')}/openapi.json").json()
    return {
        path: (methods["post"]["requestBody"]["content"]["application/json"]["schema"], told["components"]["schemas"])
        for path, methods in told["paths"].items()
        if "post" in methods
    }


def check(client: httpx.Client, path: str, body: Any) -> int:
    """The status of the answer to a body. Fails where the server fails or hangs, before a stream or in it."""
    data = json.dumps(body)
    response = client.post(path, content=data, headers={"content-type": "application/json"}, timeout=TIMEOUT)
    assert response.status_code < 500, (path, data, response.text)
    if response.headers["content-type"].startswith("text/event-stream"):
        for event in _events(response.text):
            assert "server_error" not in event, (path, data, event)
            assert "api_error" not in event, (path, data, event)
    else:
        assert isinstance(response.json(), dict)
    return response.status_code


def _events(text: str) -> Iterator[str]:
    return (line for line in text.splitlines() if line.startswith("data: "))
