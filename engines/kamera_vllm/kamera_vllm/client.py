"""One request to vLLM."""

from __future__ import annotations

from itertools import groupby
from time import perf_counter
from typing import Any, NamedTuple
from uuid import uuid4

from PIL import Image
from vllm import RequestOutput, SamplingParams
from vllm.v1.engine.async_llm import AsyncLLM

from kamera_agent.errors import ModelError
from kamera_agent.pages.window import Part
from kamera_vllm.orders import PARAMETER, Order


class Response(NamedTuple):
    """The end of a request. output: of vLLM. first: when its first token came (perf_counter())."""

    output: RequestOutput
    first: float

    @property
    def num_computed(self) -> int:
        """Tokens of the prompt that the engine computed, by its own count."""
        return len(self.output.prompt_token_ids or ()) - (self.output.num_cached_tokens or 0)


async def ask(
    engine: AsyncLLM,
    part: Part,
    order: Order,
    params: SamplingParams,
    salt: str | None,
    placeholder_ids: frozenset[int] = frozenset(),
) -> Response:
    """Have vLLM compute the beginning of a window.

    salt: keeps its pages apart from those of other requests. placeholder_ids: tokens that images are in the place of.
    Raises ModelError where vLLM makes other tokens of an image than the model's processor does.
    """
    prompt: dict[str, Any] = {"prompt_token_ids": _collapsed(part.token_ids, placeholder_ids)}
    if part.images:
        prompt["multi_modal_data"] = {"image": [Image.fromarray(chunk.pixels) for chunk in part.images]}
        # By these, vLLM tells images apart: by all that our keys depend on.
        prompt["multi_modal_uuids"] = {"image": [chunk.digest.hex() for chunk in part.images]}
    if salt is not None:
        prompt["cache_salt"] = salt
    asked = params.clone()
    asked.extra_args = {**(asked.extra_args or {}), "kv_transfer_params": {PARAMETER: order.to_json()}}
    last: Response | None = None
    async for output in engine.generate(prompt, asked, uuid4().hex):
        last = Response(output, last.first if last else perf_counter())
    assert last
    if tuple(made := last.output.prompt_token_ids or ()) != part.token_ids:
        raise ModelError(
            f"vLLM makes {len(made)} tokens of a window of which the model's processor makes {len(part.token_ids)}; "
            "the connector has left it alone. Give vLLM no mm_processor_kwargs."
        )
    return last


def _collapsed(token_ids: tuple[int, ...], placeholder_ids: frozenset[int]) -> list[int]:
    """The tokens of a prompt as vLLM takes them, with one placeholder for each image."""
    ids: list[int] = []
    for token, row in groupby(token_ids):
        ids += [token] if token in placeholder_ids else row
    return ids
