"""LangChain's own tests of a chat model, over ChatOpenAI and a server: those that ChatKamera passes in this process."""

import base64
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import torch
from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests
from serving import CALLER, serving, shown

from kamera_agent import Kamera
from kamera_agent.serve.app import BOUNDS

# Tests that cannot pass, and why. They may not be overridden: LangChain tests that, too.
OUT_OF_REACH = {
    "test_json_mode": "asks for the keys of an object in words, which the caller cannot read; ChatKamera has a schema",
}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A caller that ends the strings of its JSON."""
    conversations = replace(BOUNDS.conversations, max_string=20)
    with (
        Kamera.from_pretrained(CALLER, store=None, dtype=torch.float32) as kamera,
        serving(kamera, bounds=BOUNDS._replace(conversations=conversations)) as url,
    ):
        yield url


@pytest.fixture(autouse=True)
def pictures_of_the_internet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests fetch one picture; they get one of ours."""
    content = base64.b64decode(shown(1)["image_url"]["url"].partition(",")[2])
    monkeypatch.setattr(
        httpx, "get", lambda url, **_: httpx.Response(200, content=content, request=httpx.Request("GET", url))
    )


# For a schema of pydantic 1, ChatOpenAI takes another way than it was asked for.
@pytest.mark.filterwarnings("ignore:Received a Pydantic BaseModel V1 schema")
# OpenAI's client gives the parsed object a place that its own type has not; LangChain writes the reply down with it.
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
class TestIntegration(ChatModelIntegrationTests):
    _url: str

    @pytest.fixture(autouse=True)
    def _over(self, url: str) -> None:
        self._url = url

    @pytest.fixture(autouse=True)
    def _within_reach(self, request: pytest.FixtureRequest) -> None:
        if reason := OUT_OF_REACH.get(request.function.__name__):
            pytest.skip(f"{request.function.__name__} {reason}")

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {
            "model": str(CALLER),
            "base_url": self._url,
            "api_key": "none",
            # A connection that is kept belongs to the loop of one test.
            "http_async_client": httpx.AsyncClient(limits=httpx.Limits(max_keepalive_connections=0)),
            "stream_usage": True,
            "max_tokens": 256,
            "temperature": 0,
        }

    supports_image_inputs = True
    supports_image_tool_message = True
    supports_anthropic_inputs = True
    supports_json_mode = True
    model_override_value = str(CALLER)
    enable_vcr_tests = True

    @pytest.fixture
    def vcr(self) -> SimpleNamespace:
        """In the place of a cassette: the server is on this machine, so the stream is timed as if it were recorded."""
        return SimpleNamespace(responses=["on this machine"])

    @property
    def supported_usage_metadata_details(self) -> dict[str, list[str]]:
        return {"invoke": ["cache_read_input"], "stream": ["cache_read_input"]}

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> Any:
        model = ChatOpenAI(**self.chat_model_params | {"max_tokens": 4})
        model.invoke("Where is anna?")
        if not stream:
            return model.invoke("Where is anna?")
        first, *others = model.stream("Where is anna?")
        return sum(others, start=first)
