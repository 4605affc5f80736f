"""SGLang on the CPU, with its prefix cache and its cache of encoder outputs, with and without our plug-in."""

from __future__ import annotations

import os
from pathlib import Path
from time import perf_counter
from typing import Any

os.environ.setdefault("SGLANG_PLATFORM", "plain_cpu")

import sglang

from benchmarks.peers.trace import Step
from kamera_agent import ImageContent
from kamera_sglang import SglangKamera, linker_options

SYSTEM = "You are a helpful assistant."
IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
OPTIONS = {
    "device": "cpu",
    "attention_backend": "torch_native",
    "sampling_backend": "pytorch",
    "disable_cuda_graph": True,
    "disable_overlap_schedule": True,
    "skip_server_warmup": True,
    "enable_multimodal": True,
    "mem_fraction_static": 0.2,
    "max_total_tokens": 65536,
    "context_length": 8192,
    "chunked_prefill_size": 8192,
    "random_seed": 0,
    "page_size": 1,
    "dtype": "float32",
    "log_level": "error",
}


class Plain:
    """SGLang as it is: each window is a prompt."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def answer(self, step: Step) -> dict[str, float]:
        text = (
            f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{IMAGE * len(step.screens)}{step.question}"
            "<|im_end|>\n<|im_start|>assistant\n"
        )
        start = perf_counter()
        output = self._engine.generate(
            prompt=text,
            image_data=list(step.screens),
            sampling_params={"max_new_tokens": 1, "temperature": 0.0},
        )
        ms, facts = 1e3 * (perf_counter() - start), output["meta_info"]
        return {"tokens": facts["prompt_tokens"] - facts["cached_tokens"], "ms": ms}

    def rest(self) -> None:
        """Nothing goes on beside answers."""


class WithKamera:
    """SGLang with chunks."""

    def __init__(self, engine: Any) -> None:
        self._kamera = SglangKamera(engine)
        self._window = self._kamera.window()

    def answer(self, step: Step) -> dict[str, float]:
        start = perf_counter()
        self._window.sync(map(ImageContent, step.screens))
        reply = self._window.generate(step.question, max_tokens=1)
        return {
            "tokens": reply.tokens_computed,
            "ms": 1e3 * (perf_counter() - start),
            "requests": reply.num_requests,
        }

    def rest(self) -> None:
        self._kamera.flush()


def start(checkpoint: Path, with_kamera: bool) -> Plain | WithKamera:
    """The arm."""
    options = linker_options(checkpoint.parent / "store") if with_kamera else {}
    engine = sglang.Engine(model_path=str(checkpoint), **OPTIONS, **options)
    return WithKamera(engine) if with_kamera else Plain(engine)
