"""Long texts of a conversation: kept as documents are, and in tokens what the chat template writes."""

from typing import Any

import pytest

from kamera_agent import DocumentContent, Kamera, TextContent
from kamera_agent.chunk import TextRun
from kamera_agent.turns.chat import Chat, Limits, Request
from kamera_agent.turns.documents import LONG, keep_long_texts
from kamera_agent.turns.message import Message, ToolCall
from kamera_agent.turns.transcript import transcribe
from kamera_agent.window.items import Items
from kamera_agent.window.layout import Layout
from kamera_agent.window.reply import Reply

SYSTEM = Message("system", ("You read pages.",))
CALL = ToolCall("read", {"page": 1})


def page(number: int) -> str:
    return f"Page {number}. " + f"Anna is in the attic {number}. " * (LONG // 24)


def history(*results: str) -> list[Message]:
    """A question, a call and its result for each; then one more question."""
    messages = [SYSTEM]
    for number, result in enumerate(results):
        messages += [
            Message("user", (f"Read {number}.",)),
            Message("assistant", calls=(CALL,)),
            Message("tool", (result,), call_id=str(number)),
            Message("assistant", (f"I have read {number}.",)),
        ]
    return [*messages, Message("user", ("Where is anna?",))]


class Reader:
    """Answers histories in one conversation, over what the store holds by then."""

    def __init__(self, kamera: Kamera, conversation: str) -> None:
        self.kamera, self.conversation = kamera, conversation
        self.chat = Chat(kamera, None, {}, Limits(8, 1 << 30, None))

    def read(self, *results: str) -> Reply:
        request = Request(history(*results), self.conversation, max_tokens=2)
        with self.chat.answer(request) as stream:
            reply = stream.finish()
        self.kamera.flush()
        return reply


@pytest.fixture
def size(kamera: Kamera) -> Any:
    return lambda text: len(kamera.family.tokens.encode(text))


def test_a_long_result_that_comes_back_is_not_computed(kamera: Kamera, size: Any) -> None:
    """It is cut, as middlewares do, and restored; what followed it was moved meanwhile."""
    reader, pages, cut = Reader(kamera, "restored"), [page(number) for number in range(3)], "[cleared]"
    assert reader.read(*pages).usage.tokens_computed > 3 * size(pages[0])
    trimmed = reader.read(cut, *pages[1:])
    assert trimmed.usage.tokens_computed < 60
    restored = reader.read(*pages)
    assert restored.usage.tokens_computed < 60
    assert restored.usage.tokens_recalled >= size(pages[0])
    rows = [row for row in restored.plan.rows if row.kind == "document"]
    # In this chain the store has all three exactly.
    assert [(row.origin, row.exact) for row in rows] == 3 * [("recalled", True)]


def test_a_long_result_after_a_change_is_moved(kamera: Kamera, size: Any) -> None:
    reader, pages = Reader(kamera, "changed"), [page(number) for number in range(2)]
    reader.read("Short.", *pages)
    changed = reader.read("Another short one.", *pages)
    assert changed.usage.tokens_computed < 60
    assert changed.usage.tokens_moved > 2 * size(pages[0])


def test_a_long_result_comes_back_in_another_conversation(kamera: Kamera, size: Any) -> None:
    Reader(kamera, "first").read(page(7))
    again = Reader(kamera, "second").read(page(7))
    assert again.usage.tokens_recalled >= size(page(7))


def test_a_long_reply_is_the_reply_while_it_is_in_the_window(kamera: Kamera) -> None:
    """Its KV is in the pool only, so once it has left, it comes back as a document."""
    items, said = Items(kamera.family, kamera.settings, ""), page(1)
    items.enter(items.make_reply("reply1", TextRun(kamera.family.tokens.encode(said)), said))
    content = DocumentContent(said, "assistant", new_turn=True)
    assert [item.id for item in items.resolve([content])[1:]] == ["reply1"]
    items.drop("reply1")
    [back] = items.resolve([content])[1:]
    assert back.kind == "document"
    items.replace([items.live[0], back])
    assert items.resolve([content])[1:] == [back]


TEMPLATES = {
    "the pocket model's": None,
    "spaces before words": (
        "{% for m in messages %}{% if m.role == 'system' %}{{ m.content + ' ' }}"
        "{% elif m.role == 'user' %}{{ 'USER: ' + m.content + ' ' }}"
        "{% else %}{{ 'ASSISTANT: ' + m.content + '</s>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
    ),
}


@pytest.mark.parametrize(
    ("name", "role"),
    [("the pocket model's", role) for role in ("user", "assistant", "tool")]
    + [("spaces before words", role) for role in ("user", "assistant")],
)
def test_the_tokens_are_those_of_the_chat_template(
    kamera: Kamera, name: str, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = kamera.family.processors.tokenizer
    if TEMPLATES[name]:
        monkeypatch.setattr(tokenizer, "chat_template", TEMPLATES[name])
    family = type(kamera.family)(kamera.family.model, kamera.family.processors)
    said = [("system", "You read pages."), ("user", "Read."), ("assistant", "So."), ("user", "Go on.")]
    said[{"user": 1, "assistant": 2, "tool": 3}[role]] = (role, page(1))
    transcript = transcribe(family, [Message(one, (text,)) for one, text in said])
    contents = keep_long_texts(transcript.contents, transcript.system, family, kamera.settings)
    num_documents = 0 if TEMPLATES[name] else 1
    assert sum(isinstance(content, DocumentContent) for content in contents) == num_documents
    items = Items(family, kamera.settings, transcript.system).resolve(contents)
    token_ids = [token for place in Layout(family).places(items, "reply") for token in place.item.run.token_ids]
    messages = [{"role": one, "content": text} for one, text in said]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert token_ids == list(family.tokens.markup(rendered))


def test_what_stays_a_text(kamera: Kamera) -> None:
    """A short text, and one that has fewer tokens than the rank of patches."""
    short, long = TextContent("a" * (LONG - 1)), TextContent(page(1))
    assert keep_long_texts([short], "", kamera.family, kamera.settings) == [short]
    with Kamera.pocket(rank=10**4) as strict:
        assert keep_long_texts([long], "", strict.family, strict.settings) == [long]
