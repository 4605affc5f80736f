"""The exceptions of kamera_sglang, which belong to the tree of kamera_agent.errors."""

from kamera_agent.errors import KameraError


class EngineError(KameraError):
    """SGLang did not answer, or answered something else than what was asked."""
