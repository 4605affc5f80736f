"""vLLM on the CPU, with its prefix cache and its cache of encoder outputs, with and without our plug-in."""

from __future__ import annotations

import asyncio
import atexit
import os
import signal
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any
from uuid import uuid4

# Before vLLM is imported, in this process and in those that it starts.
os.environ |= {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
}

from PIL import Image
from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.v1.engine.async_llm import AsyncLLM

from benchmarks.peers.trace import Step
from kamera_agent import ImageContent
from kamera_vllm import VllmKamera, VllmWindow

SYSTEM = "You are a helpful assistant."
IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
OPTIONS: dict[str, Any] = {
    "dtype": "float32",
    "enforce_eager": True,
    "max_model_len": 8192,
    "max_num_batched_tokens": 8192,
    "max_num_seqs": 4,
    "block_size": 32,
}


class Plain:
    """vLLM as it is: each window is a prompt."""

    def __init__(self, loop: asyncio.AbstractEventLoop, engine: AsyncLLM) -> None:
        self._loop = loop
        self._engine = engine

    def answer(self, step: Step) -> dict[str, float]:
        return self._loop.run_until_complete(self._answer(step))

    async def _answer(self, step: Step) -> dict[str, float]:
        text = (
            f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{IMAGE * len(step.screens)}{step.question}"
            "<|im_end|>\n<|im_start|>assistant\n"
        )
        start = perf_counter()
        prompt: Any = {"prompt": text, "multi_modal_data": {"image": list(map(Image.open, step.screens))}}
        outputs = self._engine.generate(prompt, SamplingParams(temperature=0.0, max_tokens=1), uuid4().hex)
        [output] = [output async for output in outputs]
        ms = 1e3 * (perf_counter() - start)
        return {"tokens": len(output.prompt_token_ids or ()) - (output.num_cached_tokens or 0), "ms": ms}

    def rest(self) -> None:
        """Nothing goes on beside answers."""


class WithKamera:
    """vLLM with chunks."""

    def __init__(self, loop: asyncio.AbstractEventLoop, window: VllmWindow) -> None:
        self._loop = loop
        self._window = window

    def answer(self, step: Step) -> dict[str, float]:
        start = perf_counter()
        self._window.sync(map(ImageContent, step.screens))
        reply = self._loop.run_until_complete(self._window.generate(step.question, max_tokens=1))
        return {
            "tokens": reply.tokens_computed,
            "ms": 1e3 * (perf_counter() - start),
            "requests": reply.num_requests,
        }

    def rest(self) -> None:
        assert self._loop.run_until_complete(self._window.saved())


def start(checkpoint: Path, with_kamera: bool) -> Plain | WithKamera:
    """The arm."""
    loop, model = asyncio.new_event_loop(), str(checkpoint)
    # An arm is ended by a signal, which would leave the processes of vLLM behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    if not with_kamera:
        engine = loop.run_until_complete(_engine(model))
        atexit.register(engine.shutdown)
        return Plain(loop, engine)
    kamera = loop.run_until_complete(VllmKamera.start(model, tempfile.mkdtemp(prefix="kamera-peers-"), engine=OPTIONS))
    atexit.register(kamera.shutdown)
    return WithKamera(loop, kamera.window())


async def _engine(model: str) -> AsyncLLM:
    return AsyncLLM.from_engine_args(AsyncEngineArgs(model=model, **OPTIONS, enable_prefix_caching=True))
