"""The path of Responses."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, Request, Response

from kamera_agent.serve.answers import Answers
from kamera_agent.serve.responses.body import ResponsesRequest
from kamera_agent.serve.responses.form import ResponseForm
from kamera_agent.serve.responses.kept import Kept
from kamera_agent.serve.responses.reading import read_response


def responses(answers: Answers) -> APIRouter:
    """POST /v1/responses."""
    router, kept = APIRouter(), Kept()

    @router.post("/v1/responses")
    async def answer(body: ResponsesRequest, request: Request) -> Response:
        form = ResponseForm(answers.model_name, body)
        read = partial(read_response, body, request.state.namespace, form.id, kept)
        return await answers.respond(request, body, read, form)

    return router
