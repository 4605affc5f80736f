"""The chat format learned from a template, against what the template itself renders."""

import re
from itertools import pairwise, product
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from kamera_agent import InputError, ModelError, UnsupportedModelError
from kamera_agent.pocket.tokenizer import build_tokenizer
from kamera_agent.runtime.families.chat import Chat
from kamera_agent.runtime.families.chat_format import ChatFormat, turns_of
from kamera_agent.runtime.families.template import Template
from kamera_agent.runtime.families.tokens import Tokens

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
# What tools return, as public checkpoints write it.
TOOLS = {
    "inside a user turn": LOOP
    + "{% set asked = m.role == 'tool' %}{{ '<|im_start|>' + ('user' if asked else m.role) + '\n' }}"
    + "{{ '<tool_response>\n' + m.content + '\n</tool_response>' if asked else m.content }}"
    + "{{ '<|im_end|>\n' }}{% endfor %}",
    "as a user turn": LOOP
    + "{{ '<|im_start|>' + ('user' if m.role == 'tool' else m.role) + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}",
    "as another role": LOOP
    + "{{ '<head>' + ('ipython' if m.role == 'tool' else m.role) + '</head>' + m.content + '<eot>' }}{% endfor %}",
    "after a reply only": "<s>"
    + LOOP
    + "{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]"
    + "{% elif m.role == 'tool' %}{% if loop.previtem.role != 'assistant' %}{{ raise_exception('no call') }}{% endif %}"
    + "[RESULT]{{ m.content }}[/RESULT]{% elif m.role == 'assistant' %}{{ m.content }}</s>"
    + "{% else %}{{ raise_exception('only user, assistant and tool') }}{% endif %}{% endfor %}",
    "as JSON": LOOP
    + "{{ '<head>' + m.role + '</head>' }}{{ m.content | tojson if m.role == 'tool' else m.content }}<eot>{% endfor %}",
    "after calls only": LOOP
    + "{% if m.role == 'tool' and not loop.previtem.tool_calls %}{{ raise_exception('no call') }}{% endif %}"
    + "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}",
    "not at all": LOOP
    + "{% if m.role != 'tool' %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endif %}"
    + "{% endfor %}",
}
TALK = [("user", "red"), ("assistant", "blue"), ("user", "green")]


def template_of(source: str) -> Template:
    return Template(None, tokenizer_with(source))


def tokenizer_with(source: str | None) -> PreTrainedTokenizerFast:
    tokenizer = build_tokenizer()
    tokenizer.chat_template = source
    return tokenizer


def joined(chat: ChatFormat, talk: list[tuple[str, str]]) -> str:
    """A conversation by the format: a head, texts and what is between."""
    roles = [role for role, _ in talk]
    marks = [chat.head(roles[0]) or "", *(chat.turn(*pair) for pair in pairwise(roles))]
    return "".join(mark + text for mark, (_, text) in zip(marks, talk, strict=True))


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


ORDERS = [*product(("user", "assistant"), repeat=3), *product(("system",), ("user",), ("user", "assistant"))]


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("roles", ORDERS, ids="-".join)
def test_any_order_of_roles(name: str, roles: tuple[str, ...]) -> None:
    """As the template writes it; where the template refuses it, every text once and in order."""
    template = template_of(TEMPLATES[name])
    chat = ChatFormat.of(template)
    talk = list(zip(roles, ["red", "blue", "green"], strict=True))
    if name == "no system" and roles[0] == "system":
        assert re.findall("red|blue|green", joined(chat, talk)) == ["red", "blue", "green"]
        return
    assert template.render(talk).startswith(joined(chat, talk))


def test_a_reply_first() -> None:
    """Where the template lets none begin, an empty user turn does."""
    tokens = Tokens(tokenizer_with(None))
    for name, expected in {
        "chatml": "<|im_start|>assistant\n",
        "system inside the first turn": "<bos><turn>user\n<end>\n<turn>model\n",
        "no system": "<s>[INST][/INST]",
    }.items():
        chat = Chat(template_of(TEMPLATES[name]), tokens, None)
        assert (*chat.anchor_ids, *chat.turn(None, "assistant")) == tokens.markup(expected), name


# Role -> template -> texts before, between and after it in a conversation, or what a refusal says.
OTHERS: dict[str, dict[str, list[str] | str]] = {
    "tool": {
        "inside a user turn": [
            "<|im_end|>\n<|im_start|>user\n<tool_response>\n",
            "\n</tool_response><|im_end|>\n<|im_start|>assistant\n",
        ],
        "as a user turn": ["<|im_end|>\n<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"],
        "as another role": ["<eot><head>ipython</head>", "<eot><head>assistant</head>"],
        "after a reply only": ["</s>[RESULT]", "[/RESULT]"],
        "as JSON": ["<eot><head>tool</head>", "<eot><head>assistant</head>"],
        "after calls only": "refuses it: no call",
        "not at all": "drops or rewrites its text",
        "chatml": ["<|im_end|>\n<|im_start|>tool\n", "<|im_end|>\n<|im_start|>assistant\n"],
        "vicuna in parts": "writes it as 'assistant'",
        "no system": "writes it as 'assistant'",
    },
    "developer": {
        "as another role": ["<eot><head>developer</head>", "<eot><head>assistant</head>"],
        "after a reply only": "refuses it: only user, assistant and tool",
        "chatml": ["<|im_end|>\n<|im_start|>developer\n", "<|im_end|>\n<|im_start|>assistant\n"],
        "vicuna in parts": "writes it as 'assistant'",
    },
    "model": {"system inside the first turn": "writes it as 'assistant'"},
    "ipython": {"as another role": ["<eot><head>ipython</head>", "<eot><head>assistant</head>"]},
}
ASKED = [(role, name) for role, templates in OTHERS.items() for name in templates]


@pytest.mark.parametrize(("role", "name"), ASKED)
def test_other_roles(role: str, name: str) -> None:
    """They are written as the template writes them, or refused with the reason, and never as another role."""
    expected = OTHERS[role][name]
    template = template_of((TEMPLATES | TOOLS)[name])
    chat = ChatFormat.of(template)
    if isinstance(expected, str):
        with pytest.raises(InputError, match=rf"{role!r} cannot be used: the chat template {expected}.*'assistant'"):
            chat.turn("user", role)
        return
    assert [chat.turn("assistant", role), chat.turn(role, "assistant")] == expected
    written = '"white"' if name == "as JSON" else "white"
    talk = [*TALK[:2], (role, "white"), ("assistant", "black")]
    joint = joined(chat, [*talk[:2], (role, written), talk[3]])
    assert any(template.render(talk) == joint + end for end in chat.ends)
    known = [("user", "red"), ("assistant", "blue")]
    inside = {"inside a user turn": "<tool_response>\nwhite\n</tool_response>", "as a user turn": "white"}
    turn = ("user", inside[name]) if name in inside else (role, written)
    for last in ([], [("assistant", "black")]):
        messages = [{"role": role, "content": text} for role, text in [*known, (role, "white"), *last]]
        assert turns_of(template, chat, [], messages, ()) == [*known, turn, *last]


@pytest.mark.parametrize(("role", "name"), [asked for asked in ASKED if isinstance(OTHERS[asked[0]][asked[1]], str)])
def test_messages_of_other_roles(role: str, name: str) -> None:
    template = template_of((TEMPLATES | TOOLS)[name])
    messages = [{"role": one, "content": text} for one, text in [*TALK[:2], (role, "white")]]
    with pytest.raises((InputError, UnsupportedModelError)):
        turns_of(template, ChatFormat.of(template), ["<eot>"], messages, ())


def test_the_default_system_prompt_is_known() -> None:
    assert ChatFormat.of(template_of(TEMPLATES["chatml with a default"])).default_system == "Be kind."
    assert ChatFormat.of(template_of(TEMPLATES["chatml"])).default_system == ""


def test_tools_without_a_place() -> None:
    template = template_of(TEMPLATES["chatml"])
    tools: list[dict[str, Any]] = [{"type": "function", "function": {"name": "look"}}]
    with pytest.raises(InputError, match="no place for tools"):
        turns_of(template, ChatFormat.of(template), [], [{"role": "user", "content": "red"}], tools)


def test_a_marker_inside_a_turn_is_refused() -> None:
    """A turn the format does not know is written into the turn before it: its markers must not become text."""
    template = template_of(TOOLS["after calls only"])
    call = {"function": {"name": "look", "arguments": {}}}
    messages = [
        {"role": "user", "content": "red"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "blue"},
    ]
    with pytest.raises(UnsupportedModelError, match=r"'<\|im_start\|>' inside a turn of the assistant"):
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
