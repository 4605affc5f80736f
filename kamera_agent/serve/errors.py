"""What a client is told of an error: the JSON of its protocol, with the status that fits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from reprlib import repr as short
from typing import Any

from fastapi import HTTPException, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as StarletteError

from kamera_agent.errors import InputError, StoreClosedError, WindowTooLongError

# Types of OpenAI's errors, and of Anthropic's, by status.
TYPES = {429: "rate_limit_error"}
MESSAGES_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
MESSAGES = "/v1/messages"


class Refused(HTTPException):
    """A request that is not served. code, param: as in OpenAI's errors; None where there is none."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, dict(headers or {}))
        self.code, self.param = code, param


def refusal_of(error: Exception) -> Refused:
    """The refusal that tells a client of an error. What is no fault of the client is not told in detail."""
    match error:
        case Refused():
            return error
        case StarletteError():
            return Refused(error.status_code, error.detail, headers=error.headers)
        case RequestValidationError():
            return _of_field(error.errors()[0])
        case WindowTooLongError():
            return Refused(400, str(error), "context_length_exceeded", "messages")
        case InputError():
            return Refused(400, str(error))
        case RecursionError():
            return Refused(400, "The request is nested too deeply; send a flatter one.")
        case StoreClosedError():
            return Refused(503, "The server is shutting down.")
    return Refused(500, "The server has failed; its log says why.")


def error_of(refused: Refused) -> dict[str, Any]:
    """The JSON of a refusal, as OpenAI writes it."""
    status = refused.status_code
    kind = TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": refused.detail, "type": kind, "param": refused.param, "code": refused.code}}


def messages_error_of(refused: Refused) -> dict[str, Any]:
    """The JSON of a refusal, as Anthropic writes it."""
    status = refused.status_code
    kind = MESSAGES_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": refused.detail}}


def respond(refused: Refused, path: str) -> Response:
    """The response that refuses a request for a path."""
    error = messages_error_of(refused) if path.startswith(MESSAGES) else error_of(refused)
    return as_json(error, refused.status_code, refused.headers)


def as_json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A response in ASCII: half an emoji of a client, or of the model, has no other encoding."""
    return Response(json.dumps(content), status, headers, media_type="application/json")


def _of_field(problem: Mapping[str, Any]) -> Refused:
    """The refusal of a body with a wrong field."""
    # The first place is "body". That of a field with several types ends with the type that was tried.
    place = ".".join(str(part) for part in problem["loc"][1:])
    if problem["type"] == "json_invalid":
        return Refused(400, f"The body is no JSON: {problem['ctx']['error']} at character {place}.")
    if not place:
        return Refused(400, "The body is no JSON object; send one.")
    if problem["type"] == "missing":
        return Refused(400, f"{place} is missing.", "missing_required_parameter", place)
    return Refused(400, f"{place} is {short(problem['input'])}: {problem['msg']}.", param=place)
