"""One server over the pocket model, one that is exact, and one over a model that has learned to call tools."""

from collections.abc import Iterator

import pytest
import torch
from anthropic import Anthropic
from openai import OpenAI
from serving import CALLER, anthropic_of, client_of, serving

from kamera_agent import Kamera


@pytest.fixture(scope="package")
def kamera() -> Iterator[Kamera]:
    with Kamera.pocket() as kamera:
        yield kamera


@pytest.fixture(scope="package")
def url(kamera: Kamera) -> Iterator[str]:
    with serving(kamera) as url:
        yield url


@pytest.fixture(scope="package")
def client(url: str) -> Iterator[OpenAI]:
    with client_of(url) as client:
        yield client


@pytest.fixture(scope="package")
def exact() -> Iterator[Kamera]:
    with Kamera.pocket(fidelity="exact") as kamera:
        yield kamera


@pytest.fixture(scope="package")
def anthropic(url: str) -> Iterator[Anthropic]:
    with anthropic_of(url) as client:
        yield client


@pytest.fixture(scope="package")
def caller_url() -> Iterator[str]:
    """Of a model that calls tools. Its checkpoint is in float16 and runs in float32."""
    with Kamera.from_pretrained(CALLER, store=None, dtype=torch.float32) as kamera, serving(kamera) as url:
        yield url


@pytest.fixture(scope="package")
def caller(caller_url: str) -> Iterator[OpenAI]:
    with client_of(caller_url) as client:
        yield client


@pytest.fixture(scope="package")
def anthropic_caller(caller_url: str) -> Iterator[Anthropic]:
    with anthropic_of(caller_url) as client:
        yield client
