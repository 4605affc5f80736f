"""Agent-side caching for multimodal agents: screenshots and frames as position-free chunks of KV."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kamera_agent.config import Settings
from kamera_agent.content import DocumentContent, FramesContent, ImageContent, TextContent
from kamera_agent.errors import (
    ConventionError,
    ImageError,
    InputError,
    KameraError,
    ModelError,
    SettingError,
    StoreClosedError,
    StoreError,
    StoreUnavailableError,
    UnknownSpanError,
    UnsupportedModelError,
    VideoError,
    WindowError,
    WindowTooLongError,
)

if TYPE_CHECKING:
    from kamera_agent.kamera import Kamera, KameraStats
    from kamera_agent.plan import Plan
    from kamera_agent.reply import Reply
    from kamera_agent.span import Span
    from kamera_agent.window import Window

# These bring torch and transformers with them, which take seconds: imported when they are first asked for.
_LAZY = {
    "Kamera": "kamera",
    "KameraStats": "kamera",
    "Plan": "plan",
    "Reply": "reply",
    "Span": "span",
    "Window": "window",
}

__all__ = [
    "ConventionError",
    "DocumentContent",
    "FramesContent",
    "ImageContent",
    "ImageError",
    "InputError",
    "Kamera",
    "KameraError",
    "KameraStats",
    "ModelError",
    "Plan",
    "Reply",
    "SettingError",
    "Settings",
    "Span",
    "StoreClosedError",
    "StoreError",
    "StoreUnavailableError",
    "TextContent",
    "UnknownSpanError",
    "UnsupportedModelError",
    "VideoError",
    "Window",
    "WindowError",
    "WindowTooLongError",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
