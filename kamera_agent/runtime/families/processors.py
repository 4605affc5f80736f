"""The parts of a Hugging Face processor, and loading them where the whole needs torchvision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from transformers import AutoTokenizer, PreTrainedTokenizerBase, ProcessorMixin

# Not from the top level: before transformers 5.24 the name there is a dummy where torchvision is missing.
from transformers.models.auto.image_processing_auto import AutoImageProcessor
from transformers.utils.import_utils import is_torchvision_available

from kamera_agent.errors import ImageError, ModelError, VideoError
from kamera_agent.vision.image import Pixels

# Options of every call with images. Without the first, a processor takes three rows of pixels for three colours.
LAYOUT: Final[Mapping[str, Any]] = {"input_data_format": "channels_last", "return_tensors": "pt"}


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


@contextmanager
def sizing(processor: Any, pixels: Pixels) -> Iterator[None]:
    """Raise ImageError, or VideoError for frames, where a processor cannot use pixels [H, W, 3] or [N, H, W, 3]."""
    try:
        yield
    # Processors check few sizes themselves: an edge that is scaled to nothing fails in whatever library meets it first.
    except (ArithmeticError, RuntimeError, ValueError) as error:
        height, width = pixels.shape[-3:-1]
        name, kind = type(processor).__name__, "an image" if pixels.ndim == 3 else "frames"
        hint = "crop, pad or resize it" if pixels.ndim == 3 else "crop, pad or resize them"
        wrong = ImageError if pixels.ndim == 3 else VideoError
        raise wrong(f"{name} cannot use {kind} of {width}x{height}: {error}; {hint}") from error
