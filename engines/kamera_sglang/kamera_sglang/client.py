"""Requests to the engine, with what the linker is told about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from uuid import uuid4

import torch

from kamera_agent.chunk import Chunk
from kamera_agent.runtime.families.base import Family
from kamera_sglang.errors import EngineError
from kamera_sglang.mailbox import Mailbox, Order, Pages

# Of a request that only brings KV into the engine's cache. SGLang draws one token at least.
NO_REPLY = {"max_new_tokens": 1}


class Response(NamedTuple):
    """What came of a request.

    output: the engine's. taken: the wanted KV, as far as the engine computed it.
    """

    output: dict[str, Any]
    taken: Sequence[Pages]

    @property
    def num_computed(self) -> int:
        """Tokens of the prompt that the engine computed, by its own count."""
        facts = self.output["meta_info"]
        return int(facts["prompt_tokens"] - facts["cached_tokens"])


class Client:
    """Sends prompts to an engine, one at a time. The patches of an image are made once while it is in use."""

    def __init__(self, engine: Any, mailbox: Mailbox, family: Family) -> None:
        self._engine = engine
        self._mailbox = mailbox
        self._family = family
        self._patches: dict[bytes, Mapping[str, Any]] = {}

    def ask(
        self,
        token_ids: Sequence[int],
        images: Sequence[Chunk],
        order: Order,
        salt: str | None,
        sampling_params: Mapping[str, Any] = NO_REPLY,
        **options: Any,
    ) -> Response:
        """Have the engine compute a prompt.

        images: those of its placeholders, in order. salt: keeps the engine's caches apart from those of other requests.
        options: of sglang.Engine.generate. Raises EngineError.
        """
        rid = uuid4().hex
        prompt = {"input_ids": [*token_ids], "image_data": self._pixels(token_ids, images)}
        sampling = {"temperature": 0.0, **sampling_params}
        try:
            if order.given or order.wanted:
                self._mailbox.place(rid, order)
            try:
                output = self._engine.generate(**prompt, rid=rid, cache_salt=salt, sampling_params=sampling, **options)
            except Exception as error:
                raise EngineError(f"SGLang did not answer: {error!r}.") from error
            _check(output, len(token_ids))
            return Response(output, self._mailbox.taken(rid) or ())
        finally:
            self._mailbox.clear(rid)

    def _pixels(self, token_ids: Sequence[int], images: Sequence[Chunk]) -> list[dict[str, Any]] | None:
        """What the engine's encoder gets for images. In this form the engine takes tokens and pixels as they are."""
        made, process = self._patches, self._family.process
        self._patches = {image.digest: made.get(image.digest) or process(image.pixels) for image in images}
        if not images:
            return None
        parts = [self._patches[image.digest] for image in images]
        return [
            {
                "format": "processor_output",
                "input_ids": torch.tensor([token_ids]),
                "pixel_values": torch.cat([part["patches"] for part in parts]),
                "image_grid_thw": torch.tensor([part["grid"] for part in parts]),
            }
        ]


def _check(output: Mapping[str, Any], num_tokens: int) -> None:
    """Raise EngineError for a request that was given up, or whose prompt became another one."""
    facts = output["meta_info"]
    reason = facts["finish_reason"]
    if reason["type"] == "abort":
        raise EngineError(f"SGLang gave a request up: {reason.get('message')}.")
    if facts["prompt_tokens"] != num_tokens:
        raise EngineError(
            f"SGLang made {facts['prompt_tokens']} tokens of a prompt of {num_tokens}; its KV is that of other tokens. "
            "Use a version that kamera_sglang was tested with."
        )
