"""route(): who answers while it is open, and that BaseChatModel is as it was afterwards."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from kamera_agent.agent.route import ENTRANCES, route

TIMEOUT = 20


class Named(BaseChatModel):
    """Says its name."""

    name: str

    @property
    def _llm_type(self) -> str:
        return "named"

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **_: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage(self.name))])

    def _stream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **_: Any
    ) -> Iterator[ChatGenerationChunk]:
        yield ChatGenerationChunk(message=AIMessageChunk(self.name))


def ways(model: Named) -> list[str]:
    """What is said through every way to call a chat model."""

    async def both() -> list[str]:
        pieces = [piece.text async for piece in model.astream("hello")]
        return [(await model.ainvoke("hello")).text, "".join(pieces)]

    pieces = [piece.text for piece in model.stream("hello")]
    return [model.invoke("hello").text, model.batch(["hello"])[0].text, "".join(pieces), *asyncio.run(both())]


@pytest.fixture
def entrances() -> Iterator[dict[str, Any]]:
    """The methods of BaseChatModel, which must be the same afterwards."""
    before = {name: getattr(BaseChatModel, name) for name in ENTRANCES}
    yield before
    assert {name: getattr(BaseChatModel, name) for name in ENTRANCES} == before


def test_the_routed_model_answers_while_a_route_is_open(entrances: dict[str, Any]) -> None:
    one, two, provider = Named(name="one"), Named(name="two"), Named(name="provider")
    with route(one):
        assert ways(provider) == ["one"] * 5
        with route(two):
            assert ways(provider) == ["two"] * 5
        assert ways(provider) == ["one"] * 5
    assert ways(provider) == ["provider"] * 5


def test_the_methods_are_put_back_after_the_last_route(entrances: dict[str, Any]) -> None:
    """Two routes in two threads, one closing after the other, one of them by an error."""
    opened, leave = threading.Event(), threading.Event()
    said: list[str] = []

    def stay() -> None:
        with route(Named(name="one")):
            opened.set()
            assert leave.wait(TIMEOUT)
            said.extend(ways(Named(name="provider")))

    thread = threading.Thread(target=stay)
    thread.start()
    assert opened.wait(TIMEOUT)
    with pytest.raises(RuntimeError), route(Named(name="two")):
        raise RuntimeError
    # This thread has no route, and the other one still has its own.
    assert ways(Named(name="provider")) == ["provider"] * 5
    leave.set()
    thread.join()
    assert said == ["one"] * 5


def test_two_routes_at_once_in_one_loop(entrances: dict[str, Any]) -> None:
    async def ask(name: str) -> list[str]:
        with route(Named(name=name)):
            said = []
            for _ in range(3):
                await asyncio.sleep(0)
                said.append((await Named(name="provider").ainvoke("hello")).text)
            return said

    async def both() -> list[list[str]]:
        return await asyncio.gather(ask("one"), ask("two"))

    assert asyncio.run(both()) == [["one"] * 3, ["two"] * 3]


def test_a_patch_of_somebody_else_stays() -> None:
    """It was made while a route was open, so it calls ours."""
    original = BaseChatModel.generate
    calls: list[str] = []
    try:
        with route(Named(name="one")):
            ours = BaseChatModel.generate

            def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
                calls.append(self.name)
                return ours(self, *args, **kwargs)

            BaseChatModel.generate = counted  # type: ignore[method-assign]
        assert BaseChatModel.generate is counted
        assert Named(name="provider").invoke("hello").text == "provider"
        with route(Named(name="two")):
            assert Named(name="provider").invoke("hello").text == "two"
        assert BaseChatModel.generate is counted
        assert calls == ["provider", "two"]
        # Whoever made the patch takes it back, and with it puts back what they found.
        BaseChatModel.generate = ours  # type: ignore[method-assign]
        assert Named(name="provider").invoke("hello").text == "provider"
    finally:
        BaseChatModel.generate = original  # type: ignore[method-assign]
