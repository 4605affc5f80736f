"""LangChain's own tests of a chat model: the unit tests over the pocket model, the others over the caller."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from caller.weights import open_caller
from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from kamera_agent import Kamera
from kamera_agent.agent import ChatKamera


@pytest.fixture(autouse=True)
def pictures_of_the_internet(monkeypatch: pytest.MonkeyPatch, png: Any) -> None:
    """The tests fetch one picture; they get one of ours."""
    monkeypatch.setattr(
        httpx, "get", lambda url, **_: httpx.Response(200, content=png(1), request=httpx.Request("GET", url))
    )


@pytest.fixture(scope="module")
def caller() -> Iterator[Kamera]:
    """A test model that has learned to call tools; the pocket model reads screens and little else."""
    with open_caller() as kamera:
        yield kamera


class OfAKamera:
    _kamera: Kamera

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatKamera

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"kamera": self._kamera, "max_string": 20}

    supports_image_inputs = True
    supports_image_tool_message = True
    supports_anthropic_inputs = True
    supports_image_urls = False


class TestUnit(OfAKamera, ChatModelUnitTests):
    @pytest.fixture(autouse=True)
    def _over(self, kamera: Kamera) -> None:
        self._kamera = kamera


class TestIntegration(OfAKamera, ChatModelIntegrationTests):
    @pytest.fixture(autouse=True)
    def _over(self, caller: Kamera) -> None:
        self._kamera = caller

    @property
    def supported_usage_metadata_details(self) -> dict[str, list[str]]:
        return {"invoke": ["cache_read_input", "cache_creation_input"], "stream": []}

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> Any:
        model = ChatKamera(kamera=self._kamera, max_tokens=4)
        model.invoke("Where is anna?")
        return model.invoke("Where is anna?")

    def invoke_with_cache_creation_input(self, *, stream: bool = False) -> Any:
        return ChatKamera(kamera=self._kamera, max_tokens=4).invoke("Where is anna?")
