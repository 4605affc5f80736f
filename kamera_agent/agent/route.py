"""Has one chat model answer in the place of whichever a piece of code calls.

A node may hold its model in a closure, a global or an attribute, or make it on the spot, so none is looked for. All of
them answer through four methods of BaseChatModel. These are replaced once, at the first route, and do what they did
before wherever no route is open.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from langchain_core.language_models import BaseChatModel

ENTRANCES = ("generate", "agenerate", "stream", "astream")
MARK = "kamera_route"

_answering: ContextVar[BaseChatModel | None] = ContextVar("kamera_answering", default=None)
_lock = threading.Lock()


@contextmanager
def route(model: BaseChatModel) -> Iterator[None]:
    """While open, all chat models that are called in this context have their answers from this one."""
    _open_entrances()
    token = _answering.set(model)
    try:
        yield
    finally:
        _answering.reset(token)


def _open_entrances() -> None:
    with _lock:
        for name in ENTRANCES:
            method = getattr(BaseChatModel, name)
            if not hasattr(method, MARK):
                setattr(BaseChatModel, name, _through(method))


def _through(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def through(self: BaseChatModel, *args: Any, **kwargs: Any) -> Any:
        return method(_answering.get() or self, *args, **kwargs)

    setattr(through, MARK, True)
    return through
