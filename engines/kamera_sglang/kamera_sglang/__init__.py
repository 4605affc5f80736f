"""The chunks of kamera_agent in SGLang."""

from kamera_sglang.errors import EngineError
from kamera_sglang.kamera import SglangKamera
from kamera_sglang.options import linker_options
from kamera_sglang.window import Reply, SglangWindow

__all__ = ["EngineError", "Reply", "SglangKamera", "SglangWindow", "linker_options"]
