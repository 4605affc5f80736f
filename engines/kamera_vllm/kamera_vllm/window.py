"""A window whose answers vLLM computes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from vllm import SamplingParams

from kamera_agent.pages.window import PagedWindow, Request
from kamera_agent.vision.fingerprint import fingerprint_tokens
from kamera_agent.window.plan import Plan
from kamera_vllm.client import Response, ask
from kamera_vllm.orders import Order

if TYPE_CHECKING:
    from kamera_vllm.kamera import VllmKamera

# How often, and for how long, the store is asked for what the engine writes.
POLL_S, PATIENCE_S = 0.02, 30.0


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer.

    logprobs: per token, by token id, as many as were asked for; None for none.
    plan: where the KV of each span was to come from.
    tokens, tokens_claimed, tokens_computed: of the window; of those that the store was to give; and of those that the
        engine computed, by its own count, over all requests. num_requests: that the window took.
    first_token_ms: until the first token came.
    """

    token_ids: tuple[int, ...]
    text: str
    logprobs: tuple[Mapping[int, float], ...] | None
    plan: Plan
    tokens: int
    tokens_claimed: int
    tokens_computed: int
    num_requests: int
    first_token_ms: float


class VllmWindow(PagedWindow):
    """A conversation. sync() says what it holds; nothing is computed before generate()."""

    def __init__(self, kamera: VllmKamera, system: str | None) -> None:
        super().__init__(kamera.blueprint, kamera.store, kamera.settings, system)
        self._kamera = kamera
        self._last: Request | None = None

    async def generate(self, question: str | None = None, **sampling: Any) -> Reply:
        """Answer over the window. The question and the reply become spans of it.

        sampling: arguments of vLLM's SamplingParams; greedy by default.
        Raises InputError and WindowTooLongError before any work, and ModelError where vLLM makes other tokens of an
        image than the model's processor does.
        """
        start, request = perf_counter(), self.request(question)
        stops = sorted(self._kamera.family.chat.stop_ids)
        params = SamplingParams(**{"temperature": 0.0, "stop_token_ids": stops, **sampling})
        responses = await self._compute(request, params)
        self._last, last = request, responses[-1]
        said, reply = [*last.output.outputs[0].token_ids], last.output.outputs[0]
        # The markup of the next turn ends this one.
        self.enter(question, said[:-1] if said and said[-1] in stops else said, reply.text)
        steps = reply.logprobs and tuple({token: one.logprob for token, one in step.items()} for step in reply.logprobs)
        return Reply(
            token_ids=tuple(said),
            text=reply.text,
            logprobs=steps,
            plan=request.plan,
            tokens=len(request.token_ids),
            tokens_claimed=sum(len(part.claim) for part in request.parts),
            tokens_computed=sum(response.num_computed for response in responses),
            num_requests=len(responses),
            first_token_ms=1e3 * (last.first - start),
        )

    async def saved(self) -> bool:
        """Whether the store has what the last answer computed. Waits for the engine, which writes in the background.

        False after 30 seconds, and where more waits to be written than memory_bytes.
        """
        end = perf_counter() + PATIENCE_S
        while (num_left := self._last and self.num_unsaved(self._last)) and perf_counter() < end:
            await asyncio.sleep(POLL_S)
        return not num_left

    async def _compute(self, request: Request, params: SamplingParams) -> list[Response]:
        """Have the engine compute a window, part by part. params: of the last one."""
        window, responses = uuid4().hex, list[Response]()
        for part in request.parts:
            is_last = part is request.parts[-1]
            prompt = fingerprint_tokens(part.token_ids)
            order = Order(window, prompt, part.loads, part.saves, continues=not is_last)
            given = params if is_last else SamplingParams(max_tokens=1)
            placeholder_ids = self._kamera.family.placeholder_ids
            responses.append(await ask(self._kamera.engine, part, order, given, request.salt, placeholder_ids))
        return responses
