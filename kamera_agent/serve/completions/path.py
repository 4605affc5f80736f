"""The path of Chat Completions."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, Request, Response

from kamera_agent.serve.answers import Answers
from kamera_agent.serve.completions.body import ChatRequest
from kamera_agent.serve.completions.form import CompletionForm
from kamera_agent.serve.completions.reading import read_chat


def completions(answers: Answers) -> APIRouter:
    """POST /v1/chat/completions."""
    router = APIRouter()

    @router.post("/v1/chat/completions")
    async def complete(body: ChatRequest, request: Request) -> Response:
        form = CompletionForm(answers.model_name, has_usage=body.includes_usage)
        return await answers.respond(request, body, partial(read_chat, body), form)

    return router
