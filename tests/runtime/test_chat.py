"""The chat format learned from a template, against what the template itself renders."""

from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from kamera_agent import InputError, ModelError, UnsupportedModelError
from kamera_agent.pocket.tokenizer import build_tokenizer
from kamera_agent.runtime.families.chat_format import ChatFormat, Template, turns_of

LOOP = "{% for m in messages %}"
PARTS = "{% for part in m.content %}{{ part.text }}{% endfor %}"
# Written after the formats that public checkpoints use.
TEMPLATES = {
    "chatml": LOOP
    + "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "chatml with a default": "{% if messages[0].role != 'system' %}"
    + "{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}"
    + LOOP
    + "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "vicuna in parts": LOOP
    + "{% if m.role == 'system' %}"
    + PARTS
    + " {% elif m.role == 'user' %}USER: "
    + PARTS
    + " {% else %}ASSISTANT: "
    + PARTS
    + "</s>{% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT: {% endif %}",
    "system inside the first turn": "<bos>{% set told = messages[0].role == 'system' %}"
    + "{% for m in (messages[1:] if told else messages) %}"
    + "{{ '<turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' }}"
    + "{{ messages[0].content + '\n\n' if told and loop.first else '' }}{{ m.content + '<end>\n' }}{% endfor %}"
    + "{% if add_generation_prompt %}{{ '<turn>model\n' }}{% endif %}",
    "no system": "<s>"
    + LOOP
    + "{% if m.role == 'system' %}{{ raise_exception('no system prompts here') }}{% endif %}"
    + "{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]{% else %}{{ m.content }}</s>{% endif %}{% endfor %}",
}
TALK = [("user", "red"), ("assistant", "blue"), ("user", "green")]


def template_of(source: str) -> Template:
    return Template(None, tokenizer_with(source))


def tokenizer_with(source: str | None) -> PreTrainedTokenizerFast:
    tokenizer = build_tokenizer()
    tokenizer.chat_template = source
    return tokenizer


def joined(chat: ChatFormat, talk: list[tuple[str, str]]) -> str:
    """A conversation by the format: openings, texts and what stands between."""
    text, before = "", None
    for role, said in talk:
        opening = chat.opening if role == "system" else chat.plain
        text += (opening if before is None else chat.turn(before, role)) + said
        before = role
    return text


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_format_writes_what_the_template_renders(name: str) -> None:
    template = template_of(TEMPLATES[name])
    chat = ChatFormat.of(template)
    talks = [TALK] if name == "no system" else [TALK, [("system", "Be short."), *TALK]]
    for talk in talks:
        assert any(template.render(talk) == joined(chat, talk) + end for end in chat.ends)


@pytest.mark.parametrize("name", TEMPLATES)
def test_turns_are_the_messages_again(name: str) -> None:
    template = template_of(TEMPLATES[name])
    chat = ChatFormat.of(template)
    talks = [TALK, TALK[:2]] if name == "no system" else [TALK[:1], [("system", "Be short."), *TALK[:2]]]
    for talk in talks:
        messages = [{"role": role, "content": text} for role, text in talk]
        assert turns_of(template, chat, [], messages, ()) == talk


def test_the_same_role_twice() -> None:
    template = template_of(TEMPLATES["chatml"])
    said = ["one", "two", "red", "green", "blue", "white", "three"]
    roles = ["system", "system", "user", "user", "assistant", "assistant", "system"]
    talk = list(zip(roles, said, strict=True))
    messages = [{"role": role, "content": text} for role, text in talk]
    assert turns_of(template, ChatFormat.of(template), [], messages, ()) == talk


def test_the_default_system_prompt_is_known() -> None:
    assert ChatFormat.of(template_of(TEMPLATES["chatml with a default"])).default_system == "Be kind."
    assert ChatFormat.of(template_of(TEMPLATES["chatml"])).default_system == ""


def test_tools_without_a_place() -> None:
    template = template_of(TEMPLATES["chatml"])
    tools: list[dict[str, Any]] = [{"type": "function", "function": {"name": "look"}}]
    with pytest.raises(InputError, match="no place for tools"):
        turns_of(template, ChatFormat.of(template), [], [{"role": "user", "content": "red"}], tools)


def test_a_marker_inside_a_turn_is_refused() -> None:
    """A role the format does not know is written into the turn before it: its markers must not become text."""
    template = template_of(TEMPLATES["chatml"])
    messages = [{"role": "user", "content": "red"}, {"role": "tool", "content": "blue"}]
    with pytest.raises(UnsupportedModelError, match=r"'<\|im_start\|>' inside a turn of the user"):
        turns_of(template, ChatFormat.of(template), ["<|im_start|>"], messages, ())


def test_a_template_that_drops_turns_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="drops, repeats or moves a turn"):
        ChatFormat.of(template_of("{{ messages[-1].content }}"))


def test_no_template() -> None:
    with pytest.raises(ModelError, match="has no chat template"):
        template_of(None)  # type: ignore[arg-type]


IMAGES = {
    "in its place": (
        LOOP
        + "{{ m.role + '\n' }}{% if m.content is string %}{{ m.content }}{% else %}{% for part in m.content %}"
        + "{% if part.type == 'image' %}{{ '<image>\n' }}{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}"
        + "{{ '</s>' }}{% endfor %}",
        "<image>\n",
    ),
    "images first": (
        LOOP
        + "{{ m.role.upper() + ': ' }}"
        + "{% for part in m.content | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
        + "{% for part in m.content | selectattr('type', 'equalto', 'text') %}{{ part.text + ' ' }}{% endfor %}"
        + "{% endfor %}",
        "<image>\n",
    ),
    "strings only": (LOOP + "{{ m.role + ': ' + m.content + '</s>' }}{% endfor %}", "<image>"),
    "whatever it gets": (LOOP + "{{ m.role }}: {{ m.content }}</s>{% endfor %}", "<image>"),
    "no images": (LOOP + "{{ m.role }}: " + PARTS + "</s>{% endfor %}", "<image>"),
}


@pytest.mark.parametrize(("source", "expected"), IMAGES.values(), ids=IMAGES)
def test_image_text(source: str, expected: str) -> None:
    assert template_of(source).image_text("<image>") == expected
