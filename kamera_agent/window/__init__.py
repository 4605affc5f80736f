"""The window: what an answer is computed over, and how it comes to be."""

from kamera_agent.window.window import Window

__all__ = ["Window"]
