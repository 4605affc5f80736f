"""Step 3.7: crops and a view of the whole image, sliding and full layers with experts."""

from __future__ import annotations

from typing import Any

from kamera_agent.runtime.families.image_text import ImageText
from kamera_agent.runtime.families.processors import require_torchvision


class Step3p7(ImageText):
    """Step 3.7 Flash. Its layers differ in their query heads."""

    model_types = ("step3p7",)

    @classmethod
    def load_processor(cls, model_id: str, revision: str | None) -> Any:
        require_torchvision(cls)
        return super().load_processor(model_id, revision)
