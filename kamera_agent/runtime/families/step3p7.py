"""Step 3.7: crops and a view of the whole image, sliding and full layers with experts."""

from __future__ import annotations

from kamera_agent.runtime.families.image_text import NeedsTorchvision


class Step3p7(NeedsTorchvision):
    """Step 3.7 Flash. Its layers differ in their query heads."""

    model_types = ("step3p7",)
