"""LangChain's own tests of a chat model: the unit tests over the pocket model, the others over the caller."""

import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import langchain_core.load.load  # noqa: F401 - the package names a function like its module
import pytest
from caller.weights import open_caller
from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from kamera_agent import Kamera
from kamera_agent.agent import ChatKamera

# Tests that need the internet, and for what. They may not be overridden: LangChain tests that, too.
NEEDS_THE_INTERNET = {
    "test_pdf_inputs": "fetches a PDF from www.w3.org; ChatKamera takes no PDF, and says so",
    "test_pdf_tool_message": "fetches a PDF from www.w3.org; ChatKamera takes no PDF, and says so",
    "test_audio_inputs": "fetches a recording from upload.wikimedia.org; ChatKamera takes no audio, and says so",
}


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
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatKamera

    supports_image_inputs = True
    supports_image_tool_message = True
    supports_anthropic_inputs = True
    supports_image_urls = False
    supports_json_mode = True


class TestUnit(OfAKamera, ChatModelUnitTests):
    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "pocket", "model_kwargs": {"store": None}, "max_string": 20}

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        return {"KAMERA_MODEL": "pocket"}, {"max_string": 20}, {"model": "pocket", "model_name": "pocket"}

    @pytest.fixture(autouse=True)
    def _known_to_langchain(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """test_serdes loads what LangChain has on its list; others name their classes: load(allowed_objects=[...])."""
        module, path = sys.modules["langchain_core.load.load"], tuple(ChatKamera.lc_id())
        monkeypatch.setitem(module.ALL_SERIALIZABLE_MAPPINGS, path, path)
        monkeypatch.setattr(module, "_default_class_paths_cache", {})


class TestIntegration(OfAKamera, ChatModelIntegrationTests):
    _kamera: Kamera

    @pytest.fixture(autouse=True)
    def _over(self, caller: Kamera) -> None:
        self._kamera = caller

    @pytest.fixture(autouse=True)
    def _offline(self, request: pytest.FixtureRequest) -> None:
        if reason := NEEDS_THE_INTERNET.get(request.function.__name__):
            pytest.skip(f"{request.function.__name__} {reason}")

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"kamera": self._kamera, "max_string": 20, "max_tokens": 256}

    model_override_value = "pocket"
    enable_vcr_tests = True

    @pytest.fixture
    def vcr(self) -> SimpleNamespace:
        """In the place of a cassette: nothing goes over a network, so the stream is timed as if it were recorded."""
        return SimpleNamespace(responses=["in this process"])

    @property
    def supported_usage_metadata_details(self) -> dict[str, list[str]]:
        return {"invoke": ["cache_read_input", "cache_creation_input"], "stream": []}

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> Any:
        model = ChatKamera(kamera=self._kamera, max_tokens=4)
        model.invoke("Where is anna?")
        return model.invoke("Where is anna?")

    def invoke_with_cache_creation_input(self, *, stream: bool = False) -> Any:
        return ChatKamera(kamera=self._kamera, max_tokens=4).invoke("Where is anna?")
