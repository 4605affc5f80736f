"""LangChain and LangGraph over a Kamera: a chat model, a middleware for screenshots, and wrap() for graphs."""

from kamera_agent.agent.chat_model import ChatKamera
from kamera_agent.agent.middleware import ScreenWindow
from kamera_agent.agent.policy import Budget, Interval, KeepLast
from kamera_agent.agent.wrap import wrap

__all__ = ["Budget", "ChatKamera", "Interval", "KeepLast", "ScreenWindow", "wrap"]
