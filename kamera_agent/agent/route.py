"""Lets one chat model answer in place of every chat model that a piece of code calls.

A node may hold its model in a closure, a global or an attribute, or may make it on the spot, so the model cannot be
found and exchanged. LangChain offers no public way to answer for it either: callbacks only watch a call,
configurable_alternatives must be declared by the model itself, and a global cache does not see every call and is
process-wide as well. Every chat model does answer through four methods of BaseChatModel. These are replaced while a
route is open and put back when the last one closes; in contexts without a route they do what they did before.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from langchain_core.language_models import BaseChatModel

ENTRANCES = ("generate", "agenerate", "stream", "astream")

_answering: ContextVar[BaseChatModel | None] = ContextVar("kamera_answering", default=None)


class _Patch(NamedTuple):
    name: str
    original: Callable[..., Any]
    patched: Callable[..., Any]


class _Entrances:
    """Holds the patches of BaseChatModel and counts the open routes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_open = 0
        self._patches: list[_Patch] = []

    def open(self) -> None:
        with self._lock:
            self._num_open += 1
            if self._num_open > 1:
                return
            for name in ENTRANCES:
                original = getattr(BaseChatModel, name)
                self._patches.append(_Patch(name, original, _through(original)))
                setattr(BaseChatModel, name, self._patches[-1].patched)

    def close(self) -> None:
        with self._lock:
            self._num_open -= 1
            if self._num_open > 0:
                return
            for patch in self._patches:
                # Others may have patched the method since; theirs calls ours, which does nothing without a route.
                if getattr(BaseChatModel, patch.name) is patch.patched:
                    setattr(BaseChatModel, patch.name, patch.original)
            self._patches.clear()


_entrances = _Entrances()


@contextmanager
def route(model: BaseChatModel) -> Iterator[None]:
    """While open, this model answers for all chat models that are called in this context."""
    _entrances.open()
    token = _answering.set(model)
    try:
        yield
    finally:
        _answering.reset(token)
        _entrances.close()


def _through(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def through(self: BaseChatModel, *args: Any, **kwargs: Any) -> Any:
        return method(_answering.get() or self, *args, **kwargs)

    return through
