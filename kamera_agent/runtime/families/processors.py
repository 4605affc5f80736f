"""The parts of a Hugging Face processor, and loading them where the whole needs torchvision."""

from __future__ import annotations

from typing import Any, NamedTuple

from transformers import AutoTokenizer, PreTrainedTokenizerBase, ProcessorMixin

# Not from the top level: before transformers 5.24 the name there is a dummy where torchvision is missing.
from transformers.models.auto.image_processing_auto import AutoImageProcessor
from transformers.utils.import_utils import is_torchvision_available

from kamera_agent.errors import ModelError


class Processors(NamedTuple):
    """The parts of a Hugging Face processor that a family uses, under their names there.

    image_processor is None for a model without eyes, video_processor where torchvision, which it needs, is not
    installed. whole: the processor itself; None where only its parts could be loaded.
    """

    tokenizer: Any
    image_processor: Any
    video_processor: Any
    whole: Any = None


def take_parts(processor: Any, *needed: str) -> Processors:
    """The parts of a processor, of any object that has them as attributes, or of a tokenizer alone.

    Raises ModelError, naming the parts, where a needed one is missing.
    """
    if isinstance(processor, PreTrainedTokenizerBase):
        parts = Processors(processor, None, None)
    else:
        names = ("tokenizer", "image_processor", "video_processor")
        tokenizer, image, video = (getattr(processor, name, None) for name in names)
        parts = Processors(tokenizer, image, video, processor)
    if missing := [name for name in needed if getattr(parts, name) is None]:
        raise ModelError(
            f"{type(processor).__name__} has no {' and no '.join(missing)}. Pass what AutoProcessor.from_pretrained() "
            "gives for the checkpoint."
        )
    return parts


def load_parts(model_id: str, revision: str | None) -> Processors:
    """Tokenizer and image processor of a checkpoint; the tokenizer gets the chat template of the whole processor."""
    tokenizer = AutoTokenizer.from_pretrained(model_id, revision=revision)
    facts, _ = ProcessorMixin.get_processor_dict(model_id, revision=revision)
    tokenizer.chat_template = facts.get("chat_template") or tokenizer.chat_template
    return Processors(tokenizer, AutoImageProcessor.from_pretrained(model_id, revision=revision), None)


def require_torchvision(family: type) -> None:
    """Raise ModelError where torchvision is missing, for a family whose image processor cannot do without it."""
    if not is_torchvision_available():
        raise ModelError(f"The image processor of {family.__name__} needs torchvision: pip install torchvision.")
