"""vLLM over the small trained model of kamera_agent, started once for each dtype."""

import os

# Before vLLM is imported, in this process and in those that it starts.
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "VLLM_LOGGING_LEVEL": "WARNING",
}

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from runs import ENGINE, MODEL, Runner

from kamera_vllm import VllmKamera


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """The loop of the engine. It runs while a test waits for it."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the store that the engine and Hugging Face share."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="session", params=["float32", "bfloat16"])
def runner(request: pytest.FixtureRequest, loop: asyncio.AbstractEventLoop, folder: Path) -> Iterator[Runner]:
    kamera = loop.run_until_complete(VllmKamera.start(MODEL, folder, engine={**ENGINE, "dtype": request.param}))
    yield Runner(loop, kamera)
    kamera.shutdown()
