"""Agent-side caching for multimodal agents: screenshots and frames as position-free chunks of KV."""

from kamera_agent.config import Settings
from kamera_agent.content import FramesContent, ImageContent, TextContent
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
from kamera_agent.kamera import Kamera, KameraStats
from kamera_agent.plan import Plan
from kamera_agent.reply import Reply
from kamera_agent.span import Span
from kamera_agent.window import Window

__all__ = [
    "ConventionError",
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
