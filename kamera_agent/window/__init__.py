"""The window: what an answer is computed over, and how it comes to be."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kamera_agent.window.window import Window

__all__ = ["Window"]


def __getattr__(name: str) -> Any:
    # Imported when it is first asked for, because it needs torch. Plans and replies are plain data and do not.
    if name != "Window":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from kamera_agent.window.window import Window

    return Window
