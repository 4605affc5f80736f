"""Agent-side caching for multimodal agents: screenshots and frames as position-free chunks of KV."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kamera_agent.config import Settings
from kamera_agent.errors import (
    ArchiveError,
    ConventionError,
    ImageError,
    InputError,
    KameraError,
    MissingExtraError,
    ModelError,
    SettingError,
    StoreClosedError,
    StoreDamagedError,
    StoreError,
    StoreKeyError,
    StoreUnavailableError,
    UnknownSpanError,
    UnsupportedModelError,
    VideoError,
    WindowError,
    WindowTooLongError,
)

if TYPE_CHECKING:
    from kamera_agent.kamera import Kamera, KameraStats
    from kamera_agent.telemetry.guard import Guard
    from kamera_agent.telemetry.metrics import Metrics
    from kamera_agent.telemetry.trace import Trace
    from kamera_agent.vision.frames import Frames
    from kamera_agent.vision.sampling import sample_fps, sample_groups, sample_scenes
    from kamera_agent.window.content import DocumentContent, FramesContent, ImageContent, TextContent
    from kamera_agent.window.evidence import Stale
    from kamera_agent.window.plan import Plan, PlanRow
    from kamera_agent.window.reply import Reply, ReplyStream, Timings, Usage
    from kamera_agent.window.span import Span
    from kamera_agent.window.window import Window

# Imported when they are first asked for: these modules bring torch, transformers or OpenCV, which take seconds.
_MODULES = {
    "kamera": ("Kamera", "KameraStats"),
    "telemetry.guard": ("Guard",),
    "telemetry.metrics": ("Metrics",),
    "telemetry.trace": ("Trace",),
    "vision.frames": ("Frames",),
    "vision.sampling": ("sample_fps", "sample_groups", "sample_scenes"),
    "window.content": ("DocumentContent", "FramesContent", "ImageContent", "TextContent"),
    "window.evidence": ("Stale",),
    "window.plan": ("Plan", "PlanRow"),
    "window.reply": ("Reply", "ReplyStream", "Timings", "Usage"),
    "window.span": ("Span",),
    "window.window": ("Window",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "ArchiveError",
    "ConventionError",
    "DocumentContent",
    "Frames",
    "FramesContent",
    "Guard",
    "ImageContent",
    "ImageError",
    "InputError",
    "Kamera",
    "KameraError",
    "KameraStats",
    "Metrics",
    "MissingExtraError",
    "ModelError",
    "Plan",
    "PlanRow",
    "Reply",
    "ReplyStream",
    "SettingError",
    "Settings",
    "Span",
    "Stale",
    "StoreClosedError",
    "StoreDamagedError",
    "StoreError",
    "StoreKeyError",
    "StoreUnavailableError",
    "TextContent",
    "Timings",
    "Trace",
    "UnknownSpanError",
    "UnsupportedModelError",
    "Usage",
    "VideoError",
    "Window",
    "WindowError",
    "WindowTooLongError",
    "sample_fps",
    "sample_groups",
    "sample_scenes",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
