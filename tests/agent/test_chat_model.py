"""ChatKamera: what it computes and what it says, against plain windows and the origins a message list implies."""

import asyncio
import base64
import json
import threading
from collections.abc import Callable, Sequence
from itertools import takewhile
from operator import eq
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from PIL import Image

from kamera_agent import ImageContent, InputError, Kamera, TextContent
from kamera_agent.agent import ChatKamera
from kamera_agent.agent.messages import read_message
from kamera_agent.turns.transcript import Transcript, transcribe

Block = Callable[[int], dict[str, str]]
TOOL = {
    "type": "function",
    "function": {
        "name": "click",
        "description": "Click somewhere.",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string", "enum": ["lamp", "desk"]},
                "times": {"type": "integer", "minimum": 1, "maximum": 9},
            },
            "required": ["place", "times"],
            "additionalProperties": False,
        },
    },
}


PDF = {"type": "file", "base64": "AAAA", "mime_type": "application/pdf"}


def say(*blocks: Any) -> HumanMessage:
    return HumanMessage([{"type": "text", "text": b} if isinstance(b, str) else b for b in blocks])


def cost(message: AIMessage) -> tuple[int, int]:
    """Tokens read from the cache, and computed."""
    assert message.usage_metadata is not None
    details = message.usage_metadata["input_token_details"]
    return details["cache_read"], details["cache_creation"]


def transcript_of(kamera: Kamera, messages: Sequence[BaseMessage], tools: Sequence[Any] = ()) -> Transcript:
    return transcribe(kamera.family, [read_message(message) for message in messages], tools)


def test_it_answers_as_a_window_does(kamera: Kamera, png: Callable[[int], bytes], image_block: Block) -> None:
    model = ChatKamera(kamera=kamera, max_tokens=4)
    message = model.invoke([say(image_block(1), "Where is anna?")], conversation="plain")
    window = kamera.window()
    window.add_image(png(1))
    assert message.content == window.generate("Where is anna?", max_new_tokens=4).text


def test_images_in_all_forms(kamera: Kamera, image_block: Block) -> None:
    data = image_block(1)["base64"]
    forms: list[dict[str, Any]] = [
        image_block(1),
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}},
        {"type": "image", "source_type": "base64", "data": data, "mime_type": "image/png"},
    ]
    for form in forms:
        for message in (say(form, "Look."), ToolMessage([form], tool_call_id="1")):
            before = [HumanMessage("Go."), AIMessage("", tool_calls=[{"name": "a", "args": {}, "id": "1"}])]
            contents = transcript_of(kamera, [*before, message]).contents
            assert sum(isinstance(content, ImageContent) for content in contents) == 1


def test_a_turn_computes_what_is_new(kamera: Kamera, image_block: Block) -> None:
    model = ChatKamera(kamera=kamera, max_tokens=4)
    history: list[AnyMessage] = [say(image_block(1), "Where is anna?")]
    for seed in (2, 3):
        reply = model.invoke(history, conversation="grows")
        known = sum(cost(reply))
        history += [reply, say(image_block(seed), "Where is ben?")]
    read, computed = cost(model.invoke(history, conversation="grows"))
    # All of the window before, and its reply.
    assert read >= known
    assert computed < known


def test_a_dropped_screenshot_moves_the_rest(kamera: Kamera, image_block: Block) -> None:
    model = ChatKamera(kamera=kamera, max_tokens=4)
    stay = [say(image_block(seed), f"Step {seed}.") for seed in (5, 6)]
    model.invoke([say(image_block(4), "Step 4."), *stay], conversation="drops")
    reply = model.invoke([say("Step 4."), *stay], conversation="drops")
    origins = reply.response_metadata["kamera"]["origins"]
    assert origins["moved"] > 100
    assert origins["computed"] < 10


# Thinking stays in the turns since the last question only, as in templates of thinking models.
DROPS_THINKING = """
{%- set now = namespace(asked=0) %}
{%- for message in messages %}{% if message.role == "user" %}{% set now.asked = loop.index0 %}{% endif %}{% endfor %}
{{- "<|im_start|>system\nBe brief." + (" You have tools." if tools else "") + (tools | tojson if tools else "") }}
{{- "<|im_end|>\n" }}
{%- for message in messages %}
{%- set past = message.role == "assistant" and loop.index0 < now.asked %}
{{- "<|im_start|>" + ("user" if message.role == "tool" else message.role) + "\n" }}
{{- (message.content.split("</think>")[-1] if past else message.content) + "<|im_end|>\n" }}
{%- endfor %}"""


def test_a_template_that_rewrites_the_history_costs_what_it_rewrites(
    kamera: Kamera, image_block: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thinking is dropped with the next question, and tools change the system turn: screens stay what they were."""
    monkeypatch.setattr(kamera.family.processors.tokenizer, "chat_template", DROPS_THINKING)
    model = ChatKamera(kamera=kamera, max_tokens=4)
    thought = AIMessage("<think>the box or the lamp</think>Open the lamp.")
    history: list[AnyMessage] = [say(image_block(1), "Go."), thought, ToolMessage([image_block(2)], tool_call_id="1")]
    texts = [
        [content.text for content in transcript_of(kamera, messages).contents if isinstance(content, TextContent)]
        for messages in (history, [*history, say("And now?")])
    ]
    assert texts == [["Go.", thought.text], ["Go.", "Open the lamp.", "And now?"]]
    count = kamera.family.tokens.encode
    model.invoke(history, conversation="thinks")
    first = model.invoke([*history, say("And now?")], conversation="thinks").response_metadata["kamera"]["origins"]
    # The answer to keep, the new question, and the markup of the question's and the reply's turns.
    markup = kamera.family.processors.tokenizer("<|im_end|>\n<|im_start|>user\n").input_ids
    assert first["computed"] == len(count("Open the lamp.")) + len(count("And now?")) + 2 * len(markup)
    assert first["moved"] >= model.count_image_tokens(base64.b64decode(image_block(2)["base64"]))
    bound = model.bind_tools([TOOL])
    second = bound.invoke([*history, say("And now?")], conversation="thinks").response_metadata["kamera"]["origins"]
    before, now = (count(transcript_of(kamera, history, tools).system) for tools in ([], [TOOL]))
    num_same = len([*takewhile(bool, map(eq, before, now))])
    assert second["kept"] == len(kamera.family.chat.anchor_ids) + num_same
    assert second["computed"] == len(now) - num_same + len(markup)
    assert second["moved"] > first["kept"]


def test_conversations_do_not_hear_each_other(kamera: Kamera, image_block: Block) -> None:
    """Two threads at once, through the run's config, answer as they do alone."""
    model = ChatKamera(kamera=kamera, max_tokens=6)
    windows = {name: [say(image_block(seed), "Where is anna?")] for name, seed in (("one", 11), ("two", 12))}
    alone = {name: model.invoke(messages, conversation=f"{name} alone").content for name, messages in windows.items()}
    together: dict[str, list[str]] = {name: [] for name in windows}

    def ask(name: str) -> None:
        for _ in range(3):
            config = {"configurable": {"thread_id": name}}
            together[name].append(str(model.invoke(windows[name], config=config).content))

    threads = [threading.Thread(target=ask, args=(name,)) for name in windows]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == {name: [alone[name]] * 3 for name in windows}


def test_a_stream_that_is_left_keeps_the_window_usable(kamera: Kamera, image_block: Block) -> None:
    model = ChatKamera(kamera=kamera, max_tokens=8)
    messages = [say(image_block(1), "Where is anna?")]
    whole = model.invoke(messages, conversation="whole").content
    stream = model.stream(messages, conversation="left")
    next(stream)
    stream.close()
    assert model.invoke(messages, conversation="left").content == whole


def test_a_cancelled_call_keeps_the_window_usable(kamera: Kamera, image_block: Block) -> None:
    model = ChatKamera(kamera=kamera, max_tokens=8)
    messages = [say(image_block(1), "Where is anna?")]
    whole = model.invoke(messages, conversation="whole").content

    async def cancel() -> str:
        call = asyncio.ensure_future(model.ainvoke(messages, conversation="cancelled"))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        return str((await model.ainvoke(messages, conversation="cancelled")).content)

    assert asyncio.run(cancel()) == whole


def test_streamed_pieces_are_the_message(kamera: Kamera, image_block: Block) -> None:
    model = ChatKamera(kamera=kamera, max_tokens=8)
    messages = [say(image_block(1), "Where is anna?")]
    pieces = list(model.stream(messages, conversation="streams"))
    whole = model.invoke(messages, conversation="whole")
    assert "".join(str(piece.content) for piece in pieces) == whole.content
    assert pieces[-1].usage_metadata is not None


def test_a_forced_call_follows_the_schema(kamera: Kamera) -> None:
    model = ChatKamera(kamera=kamera, max_tokens=200).bind_tools([TOOL], tool_choice="any")
    message = model.invoke("Look.", conversation="calls", temperature=1.0, seed=5)
    (call,) = message.tool_calls
    assert call["name"] == "click"
    assert call["args"]["place"] in ("lamp", "desk")
    assert isinstance(call["args"]["times"], int)
    chunks = list(model.stream("Look.", conversation="calls", temperature=1.0, seed=5))
    total = chunks[0]
    for chunk in chunks[1:]:
        total += chunk
    assert total.tool_calls[0]["args"] == call["args"]
    assert total.content == ""


def test_its_own_call_is_kept_not_computed(kamera: Kamera) -> None:
    """What the model said is matched by its tokens, however the template would have written the call."""
    model = ChatKamera(kamera=kamera, max_tokens=200).bind_tools([TOOL], tool_choice="any")
    first = model.invoke("Look.", conversation="kept", temperature=1.0, seed=5)
    history = [HumanMessage("Look."), first, ToolMessage("done", tool_call_id=first.tool_calls[0]["id"])]
    assert first.usage_metadata is not None
    second = model.invoke(history, conversation="kept", max_tokens=4)
    spent = second.response_metadata["kamera"]["origins"]
    assert spent["kept"] >= first.usage_metadata["input_tokens"] + first.usage_metadata["output_tokens"] - 1


SCHEMA = {
    "title": "Found",
    "description": "What was found.",
    "type": "object",
    "properties": {"room": {"type": "string", "enum": ["attic", "hall"]}, "sure": {"type": "boolean"}},
    "required": ["room", "sure"],
    "additionalProperties": False,
}


def test_json_of_a_schema(kamera: Kamera) -> None:
    model = ChatKamera(kamera=kamera, max_tokens=200)
    found = model.with_structured_output(SCHEMA).invoke("Where is anna?")
    assert found["room"] in ("attic", "hall")
    assert isinstance(found["sure"], bool)


def test_a_number_has_an_end(kamera: Kamera) -> None:
    """Left alone, the small model writes digits until its tokens are spent."""
    schema = {"type": "object", "properties": {"share": {"type": "number"}}, "required": ["share"]}
    for question in ("How much?", "Where is anna?"):
        reply = ChatKamera(kamera=kamera, max_tokens=60).invoke(question, response_format=schema, conversation=question)
        assert abs(json.loads(reply.text)["share"]) < 2**53


def test_stop_words_end_the_reply(kamera: Kamera) -> None:
    model = ChatKamera(kamera=kamera, max_tokens=64)
    whole = str(model.invoke("Where is anna?", conversation="goes on", response_format=SCHEMA).content)
    for stop in (['"sure"', "never"], [whole[3:9]]):
        pieces = [
            str(chunk.content)
            for chunk in model.stream("Where is anna?", conversation="stops", stop=stop, response_format=SCHEMA)
        ]
        assert "".join(pieces) == whole[: whole.index(stop[0])]
    message = model.invoke("Where is anna?", conversation="stops", stop=['"sure"'], response_format=SCHEMA)
    assert message.content == whole[: whole.index('"sure"')]
    assert message.response_metadata["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("messages", "error", "says"),
    [
        ([], InputError, "no messages"),
        ([say({"type": "image", "url": "https://example.org/a.png"})], InputError, "nothing is fetched"),
        ([say({"type": "audio", "base64": "AAAA", "mime_type": "audio/wav"})], InputError, "'audio'"),
        ([say({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}})], InputError, "'audio'"),
        ([say(PDF)], InputError, r"a file \(application/pdf\).*pages of a document can be sent as images"),
        (
            [say({"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"}})],
            InputError,
            r"application/pdf",
        ),
        ([ToolMessage([PDF], tool_call_id="1")], InputError, r"application/pdf"),
        ([SystemMessage([{"type": "image", "base64": "AAAA", "mime_type": "image/png"}])], InputError, "system"),
    ],
)
def test_bad_input(kamera: Kamera, messages: list[AnyMessage], error: type[Exception], says: str) -> None:
    model = ChatKamera(kamera=kamera, max_tokens=4)
    with pytest.raises(error, match=says):
        model.invoke(messages, conversation="bad")


def test_a_broken_image_is_a_text_in_its_place(kamera: Kamera, image_block: Block) -> None:
    """The thread goes on, at the cost of what is new, and its tokens are counted."""
    model = ChatKamera(kamera=kamera, max_tokens=4)
    broken = [{"type": "image", "base64": data, "mime_type": "image/png"} for data in ("A*AA", "AAAA")]
    broken += [{"type": "image", "image": image} for image in (Path("gone.png"), Image.new("RGB", (1, 500)))]
    messages: list[AnyMessage] = [say(image_block(1), *broken, {"type": "text", "text": "Where is anna?"})]
    reply = model.invoke(messages, conversation="broken")
    assert reply.usage_metadata
    assert model.get_num_tokens_from_messages(messages) == reply.usage_metadata["input_tokens"]
    again = model.invoke([*messages, reply, HumanMessage("And ben?")], conversation="broken")
    assert again.response_metadata["kamera"]["origins"]["computed"] < 20


def test_bad_options(kamera: Kamera) -> None:
    model = ChatKamera(kamera=kamera, max_tokens=4)
    with pytest.raises(InputError, match="'heat'"):
        model.invoke("Look.", heat=1)
    with pytest.raises(InputError, match="'jump'"):
        model.bind_tools([TOOL], tool_choice="jump").invoke("Look.")


def test_live_windows_are_bounded(kamera: Kamera) -> None:
    model = ChatKamera(kamera=kamera, max_tokens=2, max_conversations=2)
    for name in ("a", "b", "c", "a"):
        model.invoke("Look.", conversation=name)
        assert len(model._chat.open().conversations) <= 2
