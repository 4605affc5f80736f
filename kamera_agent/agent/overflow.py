"""A conversation that is too long for the model, as LangChain's own error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kamera_agent.errors import WindowTooLongError

try:
    from langchain_core.exceptions import ContextOverflowError
except ImportError:  # LangChain 1.0

    class ContextOverflowError(Exception):  # type: ignore[no-redef]
        """As in later versions of LangChain."""


ADVICE = (
    "In an agent, ScreenWindow(keep_last=...) shows fewer screenshots; SummarizationMiddleware and trim_messages "
    "shorten the messages."
)


class ChatTooLongError(WindowTooLongError, ContextOverflowError):
    """The window of a conversation would have more tokens or positions than the model accepts.

    SummarizationMiddleware answers a ContextOverflowError with a summary and another try.
    """


@contextmanager
def reporting_overflow() -> Iterator[None]:
    """Raise ChatTooLongError in place of WindowTooLongError."""
    try:
        yield
    except WindowTooLongError as error:
        raise ChatTooLongError(f"{error} {ADVICE}") from error
