"""A window whose answers SGLang computes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kamera_agent.pages.window import PagedWindow, Part, Request
from kamera_agent.window.content import Content
from kamera_agent.window.plan import Plan
from kamera_sglang.client import Response

if TYPE_CHECKING:
    from kamera_sglang.kamera import SglangKamera

MAX_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer.

    plan: what the store gives and what it does not. Of both, the engine's own cache may have it already.
    tokens_computed: tokens of prompts that the engine computed, by its own count. num_requests: that it took.
    """

    text: str
    plan: Plan
    tokens_computed: int
    num_requests: int


class SglangWindow:
    """Holds contents and answers over them. SglangKamera.window() makes one.

    A method that raises leaves the contents as they were. Not safe to use from several threads at once.
    """

    def __init__(self, kamera: SglangKamera, paged: PagedWindow, salt: str | None) -> None:
        """salt: of the engine's caches, for KV that is exact."""
        self._kamera = kamera
        self._paged = paged
        self._salt = salt
        # The last prompt, all of which was in the engine's cache.
        self._last: tuple[str | None, Part] | None = None

    def sync(self, spans: Iterable[Content | str], system: str | None = None) -> tuple[str, ...]:
        """Make the window hold exactly this content, in this order; returns the span ids. As Window.sync().

        Raises as PagedWindow.sync() does.
        """
        return self._paged.sync(spans, system)

    def plan(self, question: str | None = None) -> Plan:
        """What the store would give now, and what it would not."""
        return self._paged.request(question).plan

    def generate(self, question: str | None = None, *, max_tokens: int = MAX_TOKENS) -> Reply:
        """Answer over the window, greedily. The question and the reply become spans of it.

        Raises InputError and WindowTooLongError before any work, and EngineError where the engine fails.
        """
        request, chat = self._paged.request(question), self._kamera.family.chat
        sampling = {"max_new_tokens": max_tokens, "stop_token_ids": sorted(chat.stop_ids)}
        responses = self._compute(request, sampling_params=sampling)
        token_ids = [token for token in responses[-1].output["output_ids"] if token not in chat.stop_ids]
        text = self._kamera.family.tokens.decode(token_ids)
        self._paged.enter(question, token_ids, text)
        return Reply(text, request.plan, sum(response.num_computed for response in responses), len(responses))

    def logprobs(self, question: str | None = None, *, top: int = 20) -> dict[int, float]:
        """Logprobs of the likeliest next tokens, by token id, over the window and a question. Spans are unchanged."""
        responses = self._compute(self._paged.request(question), return_logprob=True, top_logprobs_num=top)
        [likeliest] = responses[-1].output["meta_info"]["output_top_logprobs"]
        return {token: logprob for logprob, token, _ in likeliest}

    def _compute(self, request: Request, **options: Any) -> list[Response]:
        """Have the engine compute a window, part by part. options: of the last request."""
        *parts, whole = request.parts
        salt = request.salt or self._salt
        # What the engine's cache has already needs no request of its own.
        responses = [self._kamera.compute(part, salt) for part in parts if not self._has(part, salt)]
        responses.append(self._kamera.compute(whole, salt, **options))
        self._last = salt, whole
        return responses

    def _has(self, part: Part, salt: str | None) -> bool:
        """Whether the last prompt began as a part does."""
        if self._last is None or self._last[0] != salt:
            return False
        last = self._last[1]
        same_tokens = last.token_ids[: len(part.token_ids)] == part.token_ids
        images = [image.digest for image in part.images]
        return same_tokens and images == [image.digest for image in last.images[: len(images)]]
