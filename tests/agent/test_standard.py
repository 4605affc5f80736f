"""LangChain's own tests of a chat model, over the pocket model."""

from typing import Any

import httpx
import pytest
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


# Forced calls and their schemas are tested by the other cases, and in test_chat_model.py.
NEEDS_UNDERSTANDING = {
    "test_tool_calling": "the number in the question must be the argument of the call",
    "test_tool_calling_async": "the number in the question must be the argument of the call",
    "test_agent_loop": "the model must call a tool of its own accord",
    "test_unicode_tool_call_integration": "the Chinese name in the question must be the argument of the call",
}


@pytest.fixture(autouse=True)
def understanding(request: pytest.FixtureRequest) -> None:
    name = request.node.originalname
    if name in NEEDS_UNDERSTANDING:
        pytest.skip(f"The pocket model reads screens and little else: {NEEDS_UNDERSTANDING[name]}.")


class OfThePocket:
    @pytest.fixture(autouse=True)
    def _over(self, kamera: Kamera) -> None:
        self._kamera = kamera

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


class TestUnit(OfThePocket, ChatModelUnitTests):
    pass


class TestIntegration(OfThePocket, ChatModelIntegrationTests):
    @property
    def supported_usage_metadata_details(self) -> dict[str, list[str]]:
        return {"invoke": ["cache_read_input", "cache_creation_input"], "stream": []}

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> Any:
        model = ChatKamera(kamera=self._kamera, max_tokens=4)
        model.invoke("Where is anna?")
        return model.invoke("Where is anna?")

    def invoke_with_cache_creation_input(self, *, stream: bool = False) -> Any:
        return ChatKamera(kamera=self._kamera, max_tokens=4).invoke("Where is anna?")
