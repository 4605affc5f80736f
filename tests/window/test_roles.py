"""Roles beyond system, user and assistant: written as the model's own template writes them, or refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from langchain_core.messages import AIMessage, ChatMessage, HumanMessage
from models import TINY, max_error

from kamera_agent import DocumentContent, InputError, Kamera, TextContent, Window
from kamera_agent.agent import ChatKamera
from kamera_agent.pocket.model import build_model, build_processor

# Whoever is not the user is the assistant.
VICUNA = (
    "{% for m in messages %}{{ ('' if m.role == 'system' else 'USER: ' if m.role == 'user' else 'ASSISTANT: ') }}"
    "{{ m.content + '\n' }}{% endfor %}{% if add_generation_prompt %}ASSISTANT: {% endif %}"
)


def kamera_with(template: str | None) -> Kamera:
    processor = build_processor()
    if template is not None:
        processor.tokenizer.chat_template = template
    return Kamera(build_model(TINY, backbone="qwen2_5_vl"), processor)


@torch.no_grad()
def rendered_logits(kamera: Kamera, talk: list[tuple[str, str]]) -> torch.Tensor:
    """Logits after the whole prompt as the tokenizer's own template writes it."""
    tokenizer, model = kamera.family.processors.tokenizer, kamera.family.model
    messages = [{"role": role, "content": text} for role, text in talk]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return model(**tokenizer(text, return_tensors="pt", add_special_tokens=False)).logits[0, -1].float()


@pytest.mark.parametrize("role", ["tool", "critic"])
def test_as_the_template_writes_it(role: str) -> None:
    """The pocket model's template writes what a tool returns inside a user turn, and all others by their names."""
    talk = [("user", "Go."), ("assistant", "Gone."), (role, "It is\nred."), ("assistant", "Good."), (role, "No.")]
    with kamera_with(None) as kamera:
        window = kamera.window()
        for one, text in talk:
            window.add_text(text, one)
        assert max_error(rendered_logits(kamera, talk), window.logits()) <= 1e-5


def test_an_assistant_text_first() -> None:
    talk = [("assistant", "Where to?"), ("user", "Home.")]
    with kamera_with(None) as kamera:
        window = kamera.window()
        for role, text in talk:
            window.add_text(text, role)
        assert max_error(rendered_logits(kamera, talk), window.logits()) <= 1e-5


CALLS: dict[str, Callable[[Window, str], object]] = {
    "add_text": lambda window, role: window.add_text("red", role),
    "add_document": lambda window, role: window.add_document("red", role),
    # Refused before it is looked at: neither can be decoded.
    "add_image": lambda window, role: window.add_image(b"no image", role),
    "add_frames": lambda window, role: window.add_frames([b"no image"], role=role),
    "sync": lambda window, role: window.sync([TextContent("blue"), DocumentContent("red", role)]),
    "plan": lambda window, role: window.plan([TextContent("red", role)]),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("role", ["developer", "critic", ""])
def test_a_role_that_the_template_writes_as_another(call: str, role: str) -> None:
    with kamera_with(VICUNA) as kamera:
        window = kamera.window()
        window.add_text("blue")
        before = window.spans
        with pytest.raises(
            InputError, match=rf"The role {role!r} cannot be used.*'assistant'.*\['system', 'user', 'ass"
        ):
            CALLS[call](window, role)
        assert window.spans == before


def test_a_role_of_another_type() -> None:
    with kamera_with(None) as kamera, pytest.raises(InputError, match="A role is a str; got a int"):
        kamera.window().add_text("red", 7)  # type: ignore[arg-type]


def test_messages() -> None:
    messages: list[Any] = [HumanMessage("Go."), AIMessage("Gone."), ChatMessage("Not good.", role="critic")]
    with kamera_with(None) as kamera:
        talk = [("user", "Go."), ("assistant", "Gone."), ("critic", "Not good.")]
        reply = ChatKamera(kamera=kamera, max_tokens=1).invoke(messages, conversation="critic")
        first = int(rendered_logits(kamera, talk).argmax())
        assert reply.text == kamera.family.tokens.decode([first])
    with kamera_with(VICUNA) as kamera, pytest.raises(InputError, match="The role 'critic' cannot be used"):
        ChatKamera(kamera=kamera, max_tokens=1).invoke(messages)
