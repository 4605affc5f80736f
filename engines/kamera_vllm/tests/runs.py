"""The engine and our own runtime over the same windows, and what is measured on their distributions."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from secrets import token_hex
from time import monotonic, sleep
from typing import Any

import numpy as np
import torch
from vllm import RequestOutput, SamplingParams

from kamera_agent import ImageContent, Kamera, TextContent
from kamera_agent.pages.window import Request
from kamera_agent.pocket.renderer import draw_screen
from kamera_agent.pocket.weights import WEIGHTS
from kamera_agent.pocket.world import World
from kamera_agent.runtime.engine import Placed
from kamera_agent.store.memory import MemoryStore
from kamera_agent.window.records import Records
from kamera_vllm import Reply, VllmKamera, VllmWindow

MODEL = str(WEIGHTS)
BLOCK = 32
ENGINE: dict[str, Any] = {
    "enforce_eager": True,
    "max_model_len": 2048,
    "max_num_seqs": 4,
    "block_size": BLOCK,
    "max_logprobs": -1,
}
WAIT_S = 30.0
Contents = Sequence[ImageContent | TextContent]


def screens(seed: int, number: int = 4) -> list[ImageContent]:
    """Screens whose later ones change what the earlier ones say."""
    world = World(np.random.default_rng(seed))
    return [ImageContent(draw_screen(picture)) for picture in world.window("changes", number)]


def wait_for(happened: Callable[[], bool]) -> None:
    """Until something happens in the process of the engine."""
    end = monotonic() + WAIT_S
    while not happened():
        assert monotonic() < end, "it did not happen"
        sleep(0.02)


class Runner:
    """The engine, from tests that are not asynchronous."""

    def __init__(self, loop: asyncio.AbstractEventLoop, kamera: VllmKamera) -> None:
        self._loop = loop
        self.kamera = kamera

    def window(self) -> VllmWindow:
        return self.kamera.window()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.run_until_complete(work)

    def plain(self, token_ids: Sequence[int]) -> RequestOutput:
        """A request without an order."""

        async def last() -> RequestOutput:
            params = SamplingParams(temperature=0.0, max_tokens=1, logprobs=-1)
            outputs = self.kamera.engine.generate({"prompt_token_ids": [*token_ids]}, params, token_hex(8))
            return [output async for output in outputs][-1]

        return self.run(last())

    def logprobs(self, output: RequestOutput) -> torch.Tensor:
        [step] = output.outputs[0].logprobs or ()
        return torch.tensor([step[token].logprob for token in sorted(step)])

    def num_pages(self) -> int:
        """Pages of exact KV in the store."""
        return sum('"kind":"page"' in header.key.material for header in self.kamera.store.headers())

    def forget(self) -> None:
        """Empty the prefix cache of vLLM, so that KV can come from the store only."""
        assert self.run(self.kamera.engine.reset_prefix_cache())

    def ask(self, window: VllmWindow, contents: Contents, question: str) -> tuple[Request, Reply]:
        """An answer over these contents, of one token with the whole distribution. Only the store may help."""
        self.forget()
        window.sync(contents)
        request = window.request(question)
        answer = self.run(window.generate(question, max_tokens=1, logprobs=-1))
        wait_for(lambda: window.num_unsaved(request) == 0)
        return request, answer

    def blind(self) -> VllmWindow:
        """A window that uses whatever the store has."""
        kamera = self.kamera
        settings = replace(kamera.settings, fidelity="blind")
        return Unseen(VllmKamera(kamera.engine, kamera.blueprint, kamera.store, settings), None)

    def compute(self, contents: Contents, question: str) -> Reply:
        """A full prefill by the engine, of which nobody learns."""
        kamera = self.kamera
        window = Unseen(VllmKamera(kamera.engine, kamera.blueprint, MemoryStore(0), kamera.settings), None)
        window.sync(contents)
        answer = self.run(window.generate(question, max_tokens=1, logprobs=-1))
        assert answer.tokens_computed == answer.tokens
        return answer


class Unseen(VllmWindow):
    """A window whose pages nobody else uses, and of which the store keeps nothing."""

    def request(self, question: str | None = None) -> Request:
        request = super().request(question)
        return replace(request, parts=tuple(replace(part, saves=()) for part in request.parts), salt=token_hex(16))


class Ours:
    """Our own runtime over the same checkpoint and the same store."""

    def __init__(self, kamera: Kamera) -> None:
        self.kamera = kamera
        self._engine = kamera._engine
        decoder = kamera.family.decoder
        self._records = Records(kamera.store, kamera.settings, len(decoder.key_modules), decoder.device)

    def over(self, request: Request) -> torch.Tensor:
        """Log-probabilities [vocab] over exactly the evidence of a request.

        1. Rebuild the spans that the plan recalls, each from its records, at its position.
        2. Compute all others in one pass over them.
        """
        pool, batch = self._engine.new_pool(), list[Placed]()
        for step in request.steps:
            place, run = step.place, step.place.item.run
            placed = Placed(run, pool.allocate(len(run.token_ids)), place.position, place.order)
            if step.evidence:
                [loaded] = self._records.load([step.evidence])
                assert loaded
                self._engine.load(pool, placed, loaded.base.kv, loaded.factors)
            else:
                batch.append(placed)
        return self._engine.prefill(pool, batch).logits.log_softmax(-1)

    def full(self, contents: Contents, question: str) -> torch.Tensor:
        """Log-probabilities [vocab] of one plain Hugging Face forward pass."""
        window = self.kamera.window()
        window.sync(contents)
        return window.reference_logits(question).log_softmax(-1)

    def compute(self, contents: Contents, question: str) -> None:
        """Have the store keep what Hugging Face computes."""
        window = self.kamera.window()
        window.sync(contents)
        window.logits(question)
        self.kamera.flush()


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference of two distributions, in nats, where either gives more than one in ten thousand."""
    seen = torch.maximum(one, other) > np.log(1e-4)
    return float((one - other)[seen].abs().max())


def kl(reference: torch.Tensor, other: torch.Tensor) -> float:
    """KL(reference || other) of log-probabilities [vocab], in nats."""
    return float((reference.double().exp() * (reference.double() - other.double())).sum())


def distribution(answer: Reply) -> torch.Tensor:
    """Log-probabilities [vocab] of the first token."""
    assert answer.logprobs
    [step] = answer.logprobs
    found = torch.full((max(step) + 1,), float("-inf"))
    found[list(step)] = torch.tensor(list(step.values()))
    return found
