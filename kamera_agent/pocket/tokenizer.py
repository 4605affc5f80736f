"""A tokenizer of whole words and single bytes, with the markers of the Qwen-VL chat format."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from kamera_agent.pocket.words import WORDS

MARKERS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# ChatML with tool calls in the Hermes format. The first turn is always a system turn.
TEMPLATE = r"""
{%- set told = messages[0].role == "system" %}
{{- "<|im_start|>system\n" + (messages[0].content if told else "You are a helpful assistant.") }}
{%- if tools %}
{{- "\n\nTools:" }}
{%- for tool in tools %}{{ "\n" + tool | tojson }}{% endfor %}
{{- '\n\nA tool is called so: <tool_call>\n{"name": ..., "arguments": {...}}\n</tool_call>' }}
{%- endif %}
{{- "<|im_end|>\n" }}
{%- for message in (messages[1:] if told else messages) %}
{%- if message.role == "tool" %}
{{- "<|im_start|>user\n<tool_response>\n" + message.content + "\n</tool_response>" }}
{%- else %}
{{- "<|im_start|>" + message.role + "\n" + message.content }}
{%- endif %}
{%- for call in message.tool_calls or [] %}
{{- ("\n" if message.content or not loop.first else "") + "<tool_call>\n" + call.function | tojson + "\n</tool_call>" }}
{%- endfor %}
{{- "<|im_end|>\n" }}
{%- endfor %}
{%- if add_generation_prompt %}{{ "<|im_start|>assistant\n" }}{% endif %}
"""
# A space in the byte alphabet. The token of a word includes the space before it, except at the start of a text.
SPACE = "Ġ"


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, one per known word with and without a space before it, then MARKERS.

    Every text has tokens: an unknown word becomes the fewest words and bytes that spell it.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [form for word in WORDS for form in (word, SPACE + word) if form not in alphabet]
    # With equal scores, the segmentation with the fewest pieces has the best sum.
    tokenizer = Tokenizer(models.Unigram([(piece, -1.0) for piece in alphabet + words], unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(MARKERS),
        chat_template=TEMPLATE,
    )
