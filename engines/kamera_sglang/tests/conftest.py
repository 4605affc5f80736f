"""An engine of SGLang on the CPU, over a small Qwen2.5-VL."""

import os

# Before anything imports huggingface_hub or sglang, which read them once.
os.environ |= {"HF_HUB_OFFLINE": "1", "SGLANG_PLATFORM": "plain_cpu"}

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copy
from typing import Any

import numpy as np
import pytest
import sglang
import torch

from kamera_agent.pocket.model import Shape, build_model
from kamera_agent.pocket.weights import WEIGHTS
from kamera_sglang import linker_options

SEED = 20260623
VOCABULARY = 683
OPTIONS = {
    "device": "cpu",
    "attention_backend": "torch_native",
    "sampling_backend": "pytorch",
    "disable_cuda_graph": True,
    "disable_overlap_schedule": True,
    "skip_server_warmup": True,
    "enable_multimodal": True,
    "mem_fraction_static": 0.1,
    "max_total_tokens": 16384,
    "context_length": 4096,
    "random_seed": 0,
    "page_size": 1,
    "log_level": "error",
}

# SGLang 0.5.23 takes patches of 14 pixels only, and those of the trained model of kamera_agent have 28. The weights are
# so large that what is before an image changes its KV visibly.
SHAPE = Shape(
    hidden=64,
    intermediate=96,
    num_layers=4,
    num_heads=4,
    num_kv_heads=2,
    sections=(2, 3, 3),
    vision_depth=2,
    vision_hidden=32,
    vision_heads=2,
    initializer_range=0.15,
    max_positions=4096,
)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2.5-VL of seeded weights, as a folder."""
    folder = tmp_path_factory.mktemp("checkpoint")
    for path in WEIGHTS.glob("*token*"):
        copy(path, folder)
    copy(WEIGHTS / "chat_template.jinja", folder)
    build_model(SHAPE, seed=SEED).save_pretrained(folder)
    options = json.loads((WEIGHTS / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps({**options, "patch_size": SHAPE.patch_size}))
    return folder


@contextmanager
def running(checkpoint: Path, store: Path, **options: Any) -> Iterator[Any]:
    """An engine over a store."""
    engine = sglang.Engine(model_path=str(checkpoint), **{**OPTIONS, **linker_options(store), **options})
    try:
        yield engine
    finally:
        engine.shutdown()


@contextmanager
def no_room() -> Iterator[None]:
    """Files of this process cannot grow beyond some bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def made(kind: type, **facts: Any) -> Any:
    """An object of a class, without its memory."""
    whole = object.__new__(kind)
    for name, value in facts.items():
        setattr(whole, name, value)
    return whole


def screen(seed: int, height: int = 112, width: int = 168) -> np.ndarray:
    """[height, width, 3] uint8: blocks of random colours."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (-(-height // 14), -(-width // 14), 3), dtype=np.uint8)
    return np.ascontiguousarray(blocks.repeat(14, axis=0).repeat(14, axis=1)[:height, :width])


def distance(ours: dict[int, float], theirs: dict[int, float]) -> float:
    """The largest difference of the logprobs of a token."""
    assert ours.keys() == theirs.keys()
    return max(abs(ours[token] - theirs[token]) for token in ours)


def divergence(reference: dict[int, float], other: dict[int, float]) -> float:
    """KL(reference || other) of two next-token distributions, in nats."""
    tokens = sorted(reference)
    p, q = (torch.tensor([of[token] for token in tokens]).double() for of in (reference, other))
    return float((p.exp() * (p - q)).sum())


@pytest.fixture(scope="session", params=["float32", "bfloat16"])
def dtype(request: pytest.FixtureRequest) -> str:
    return str(request.param)
