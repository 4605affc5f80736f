"""The paths of Messages."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, Request, Response

from kamera_agent.serve.answers import Answers
from kamera_agent.serve.errors import MESSAGES
from kamera_agent.serve.form import Json
from kamera_agent.serve.messages.body import MessagesRequest
from kamera_agent.serve.messages.form import MessageForm
from kamera_agent.serve.messages.reading import read_messages


def messages(answers: Answers) -> APIRouter:
    """POST /v1/messages and /v1/messages/count_tokens."""
    router = APIRouter()

    @router.post(MESSAGES)
    async def answer(body: MessagesRequest, request: Request) -> Response:
        return await answers.respond(request, body, partial(read_messages, body), MessageForm(answers.model_name))

    @router.post(f"{MESSAGES}/count_tokens")
    async def count(body: MessagesRequest, request: Request) -> Json:
        answers.check_model(body.model)
        return {"input_tokens": await answers.count_tokens(request, body, partial(read_messages, body))}

    return router
