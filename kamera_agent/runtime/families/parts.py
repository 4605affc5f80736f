"""The parts of a processor whose whole needs torchvision, which images do without."""

from __future__ import annotations

from transformers import AutoTokenizer, ProcessorMixin

# Not from the top: before transformers 5.24 there it stands in for itself where torchvision is missing.
from transformers.models.auto.image_processing_auto import AutoImageProcessor
from transformers.utils.import_utils import is_torchvision_available

from kamera_agent.errors import ModelError
from kamera_agent.runtime.families.base import Processors


def load_parts(model_id: str, revision: str | None) -> Processors:
    """Tokenizer and image processor of a checkpoint, the tokenizer with the chat template of the whole."""
    tokenizer = AutoTokenizer.from_pretrained(model_id, revision=revision)
    facts, _ = ProcessorMixin.get_processor_dict(model_id, revision=revision)
    tokenizer.chat_template = facts.get("chat_template") or tokenizer.chat_template
    return Processors(tokenizer, AutoImageProcessor.from_pretrained(model_id, revision=revision), None)


def require_torchvision(family: type) -> None:
    """Raise ModelError where torchvision is missing, for a family whose image processor comes for nothing else."""
    if not is_torchvision_available():
        raise ModelError(f"The image processor of {family.__name__} needs torchvision: pip install torchvision.")
