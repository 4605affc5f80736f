"""The pocket model as a checkpoint that every server can read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from kamera_agent.pocket.weights import WEIGHTS

# The template of the pocket model takes texts. This macro writes a list of parts.
SHOW = (
    "{%- macro show(content) %}{% if content is string %}{{ content }}{% else %}{% for part in content or [] %}"
    '{{ part.text if part.type == "text" else "<|vision_start|><|image_pad|><|vision_end|>" }}'
    "{% endfor %}{% endif %}{% endmacro %}"
)


def write_checkpoint(folder: Path) -> None:
    """Write the pocket model into a new folder, with the files by which transformers finds the processor of Qwen2.5-VL.

    Its chat template gives the same tokens, and takes lists of parts as well.
    """
    shutil.copytree(WEIGHTS, folder)
    template = folder / "chat_template.jinja"
    words = template.read_text("utf-8")
    for content in ("messages[0].content", "message.content"):
        words = words.replace(content, f"show({content})")
    template.write_text(SHOW + words, "utf-8")
    options = json.loads((folder / "preprocessor_config.json").read_text("utf-8"))
    options["processor_class"] = "Qwen2_5_VLProcessor"
    (folder / "preprocessor_config.json").write_text(json.dumps(options), "utf-8")
    clips = {**options, "video_processor_type": "Qwen2VLVideoProcessor"}
    del clips["image_processor_type"]
    (folder / "video_preprocessor_config.json").write_text(json.dumps(clips), "utf-8")
