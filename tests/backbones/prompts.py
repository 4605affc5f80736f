"""The reference: a conversation through the real processor and plain Hugging Face, nothing of the runtime."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch


@dataclass
class Talk:
    """Turns of (role, parts); a part is a str or an image [H, W, 3]. Adjacent texts of a turn are one."""

    model: Any
    processor: Any
    turns: list[tuple[str, list[Any]]] = field(default_factory=list)

    def say(self, role: str, *parts: Any) -> "Talk":
        self.turns.append((role, list(parts)))
        return self

    def inputs(self) -> dict[str, Any]:
        messages = [{"role": role, "content": [_part(part) for part in parts]} for role, parts in self.turns]
        text = self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        images = [part for _, parts in self.turns for part in parts if isinstance(part, np.ndarray)]
        batch = self.processor(text=[text], images=images or None, add_special_tokens=False, return_tensors="pt")
        return {name: self._moved(value) for name, value in batch.items()}

    def _moved(self, value: Any) -> Any:
        return value.to(self.model.dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    @torch.no_grad()
    def logits(self) -> torch.Tensor:
        """Next-token logits [vocab] by one full prefill."""
        return self.model(**self.inputs(), use_cache=False).logits[0, -1].float()

    @torch.no_grad()
    def generate(self, max_new_tokens: int, suppress: Sequence[int]) -> list[int]:
        """The greedy reply of Hugging Face's own generate()."""
        inputs = self.inputs()
        output = self.model.generate(
            **inputs, max_new_tokens=max_new_tokens, do_sample=False, suppress_tokens=list(suppress)
        )
        return output[0, inputs["input_ids"].shape[1] :].tolist()


def _part(part: Any) -> dict[str, Any]:
    return {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}
