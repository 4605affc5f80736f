"""LangChain and LangGraph over a Kamera: a chat model, a middleware for screenshots, and wrap() for graphs."""

from kamera_agent.errors import MissingExtraError

try:
    from kamera_agent.agent.chat_model import ChatKamera
    from kamera_agent.agent.middleware import ScreenWindow
    from kamera_agent.agent.wrap import wrap
    from kamera_agent.turns.policy import Budget, Interval, KeepLast
except ModuleNotFoundError as error:
    package = str(error.name).partition(".")[0]
    if package not in ("langchain", "llguidance"):
        raise
    raise MissingExtraError(__name__, package, "agent") from error

__all__ = ["Budget", "ChatKamera", "Interval", "KeepLast", "ScreenWindow", "wrap"]
