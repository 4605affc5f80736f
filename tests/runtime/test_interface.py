"""Our attention in a model: in its own passes only, and as the model's own everywhere else."""

from typing import Any

from huggingface import Conversation
from models import screenshot

from kamera_agent.pocket.model import PocketProcessor


def talk(model: Any, processor: PocketProcessor) -> Conversation:
    return Conversation(model, processor).say("user", screenshot(0), "what?")


def configured(model: Any) -> str:
    return str(model.model.language_model.config._attn_implementation)
