"""ChatKamera(model=...): which model answers, that its weights lie in memory once, and that it can be written down."""

import asyncio
import gc
import json
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from caller.weights import CHECKPOINT
from langchain_core.caches import InMemoryCache
from langchain_core.load import dumpd, dumps, loads
from langchain_core.messages import HumanMessage
from pydantic import ValidationError

from kamera_agent import InputError, Kamera, ModelError, SettingError, StoreClosedError, Trace
from kamera_agent.agent import ChatKamera
from kamera_agent.pocket.model import build_model, build_processor
from kamera_agent.pocket.weights import WEIGHTS
from kamera_agent.turns.source import ENVIRONMENT

Block = Callable[[int], dict[str, str]]
IN_MEMORY = {"store": None}
# The second model; its file holds float16.
OTHER = {"model": str(CHECKPOINT), "model_kwargs": {**IN_MEMORY, "dtype": "float32"}}
QUESTION = "Where is anna?"
READ = {"allowed_objects": [ChatKamera], "valid_namespaces": ["kamera_agent"]}

pytestmark = pytest.mark.filterwarnings("ignore:The function `loads` is in beta")


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every model that is loaded from here on."""
    names: list[str] = []
    load = Kamera.from_pretrained.__func__  # type: ignore[attr-defined]

    def noted(cls: type[Kamera], model_id: Any, *rest: Any, **options: Any) -> Kamera:
        names.append(str(model_id))
        return load(cls, model_id, *rest, **options)

    monkeypatch.setattr(Kamera, "from_pretrained", classmethod(noted))
    return names


def pocket(**options: Any) -> ChatKamera:
    return ChatKamera(model="pocket", model_kwargs=IN_MEMORY, max_tokens=4, **options)


def test_it_answers_as_over_a_kamera_that_was_passed_in(exact: Kamera, image_block: Block) -> None:
    """Over an exact one: what other tests left in a store would be patched."""
    messages = [HumanMessage([image_block(1), {"type": "text", "text": QUESTION}])]
    with pocket() as named:
        said = named.invoke(messages)
    expected = ChatKamera(kamera=exact, max_tokens=4).invoke(messages, conversation="passed in")
    assert said.text == expected.text
    assert said.response_metadata["model_name"] == expected.response_metadata["model_name"] == "pocket"


def test_nothing_is_loaded_before_it_is_asked(loaded: list[str]) -> None:
    with pocket() as model:
        model.bind_tools([{"name": "look", "parameters": {}}])
        assert (model.model_name, loaded) == ("pocket", [])
        model.invoke(QUESTION)
        model.invoke(QUESTION)
        assert loaded == ["pocket"]


def test_one_model_is_loaded_once(loaded: list[str]) -> None:
    """Four threads at once, over two chat models."""
    with pocket() as one, pocket(temperature=0.5) as two:
        found: list[Kamera] = []
        threads = [threading.Thread(target=lambda chat=chat: found.append(chat.open())) for chat in (one, two) * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert loaded == ["pocket"]
        assert len(found) == 4
        assert len({id(kamera) for kamera in found}) == 1


def test_a_folder_is_one_however_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(WEIGHTS.parent)
    with pocket() as model:
        for name in (WEIGHTS, str(WEIGHTS), WEIGHTS.name, f"./{WEIGHTS.name}/"):
            with ChatKamera(model=name, model_kwargs=IN_MEMORY) as other:
                assert other.open() is model.open()


def test_the_last_one_closes_the_kamera() -> None:
    one, two = pocket(), pocket()
    kamera = one.open()
    assert two.open() is kamera
    said = two.invoke(QUESTION).text
    one.close()
    one.close()
    with pytest.raises(StoreClosedError, match="This chat model was closed"):
        one.invoke(QUESTION)
    assert two.invoke(QUESTION).text == said
    two.close()
    with pytest.raises(StoreClosedError):
        kamera.flush()
    with pocket() as three:
        assert three.open() is not kamera
        assert three.invoke(QUESTION).text == said


def test_a_kamera_that_was_passed_in_stays_open(kamera: Kamera) -> None:
    with ChatKamera(kamera=kamera, max_tokens=4) as model:
        model.invoke(QUESTION, conversation="passed in and left")
        assert model.open() is kamera
    kamera.flush()


def test_weights_that_nobody_uses_go() -> None:
    """Closed or not."""
    model = pocket()
    model.invoke(QUESTION)
    weights = weakref.ref(model.open().family.model)
    del model
    gc.collect()
    assert weights() is None


def test_a_child_process_loads_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it inherits has threads and locks that stayed with the parent."""
    with pocket() as one, pocket() as two:
        kamera, parent = one.open(), os.getpid()
        monkeypatch.setattr(os, "getpid", lambda: parent + 1)
        assert two.open() is not kamera


def test_other_options_would_be_a_second_copy() -> None:
    with pocket() as one:
        one.open()
        two = ChatKamera(model="pocket", model_kwargs={**IN_MEMORY, "rank": 8})
        with pytest.raises(SettingError, match=r"'rank': 8.*kamera="):
            two.open()
    with two:
        assert two.open().settings.rank == 8


@pytest.mark.parametrize("given", [{"model_kwargs": {"dtype": torch.float32}}, {"model_kwargs": {"dtype": "float32"}}])
def test_options_of_loading(given: dict[str, Any], tmp_path: Path) -> None:
    """In both spellings they are one, and what they say is done."""
    chosen = {**given["model_kwargs"], "store": tmp_path / "store", "namespace": "mine"}
    with ChatKamera(model=CHECKPOINT, model_kwargs=chosen) as model:
        assert model.model_kwargs == {"dtype": "float32", "store": str(tmp_path / "store"), "namespace": "mine"}
        assert model.open().family.model.dtype == torch.float32
        assert model.open().settings.namespace == "mine"
        assert (tmp_path / "store").is_dir()


def test_tiers_are_plain_data(tmp_path: Path) -> None:
    chosen = {"store": (tmp_path / "fast", str(tmp_path / "large"))}
    with ChatKamera(model=CHECKPOINT, model_kwargs=chosen) as model:
        assert model.model_kwargs == {"store": [str(tmp_path / "fast"), str(tmp_path / "large")]}
        assert model.open().settings.namespace == "default"
        assert (tmp_path / "fast").is_dir()
        assert (tmp_path / "large").is_dir()


def test_the_environment_names_a_model(kamera: Kamera, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, "some/model")
    assert ChatKamera().model_name == "some/model"
    assert ChatKamera(model="other/model").model_name == "other/model"
    assert ChatKamera(kamera=kamera).model_name == "pocket"


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({}, InputError, "Give model=.* or kamera=, or set KAMERA_MODEL"),
        ({"model": ""}, InputError, "No model was given"),
        (
            {"model": "some/model", "kamera": ...},
            InputError,
            "Both kamera= and model='some/model' were given",
        ),
        ({"model_kwargs": {"rank": 8}, "kamera": ...}, InputError, "model_kwargs=.*leave one of them out"),
        ({"model": "pocket", "model_kwargs": {"warmth": 1}}, SettingError, "no option 'warmth'; use .* store"),
        ({"model": "pocket", "model_kwargs": {"fidelity": "some"}}, SettingError, "fidelity is 'some'; use one of"),
    ],
)
def test_bad_input(kamera: Kamera, given: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        ChatKamera(**{name: kamera if value is ... else value for name, value in given.items()})


def test_what_is_handed_on_when_a_model_is_made_cannot_be_set_later(tmp_path: Path) -> None:
    with pocket() as model:
        for name, value in (("trace", Trace(tmp_path / "trace")), ("max_conversations", 2), ("model", "other")):
            with pytest.raises(ValidationError, match="frozen"):
                setattr(model, name, value)


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    for model in ("no/such-model", str(tmp_path)):
        with pytest.raises(ModelError, match=f"Cannot load '{model}'"):
            ChatKamera(model=model, model_kwargs=IN_MEMORY).invoke(QUESTION)
        with pocket() as chat:
            said = chat.invoke(QUESTION).text
            with pytest.raises(ModelError, match=f"Cannot load '{model}'"):
                chat.invoke(QUESTION, model=model)
            assert chat.invoke(QUESTION).text == said


def test_a_call_may_name_another_model() -> None:
    """In all ways of calling it answers as a chat model over that model does, and the windows are apart."""
    both = {"model_kwargs": OTHER["model_kwargs"], "max_tokens": 8}
    with ChatKamera(model="pocket", **both) as model, ChatKamera(model=OTHER["model"], **both) as other:
        own, expected = model.invoke(QUESTION), other.invoke(QUESTION)
        assert own.text != expected.text
        named = {"model": OTHER["model"]}
        answers = [
            model.invoke(QUESTION, **named),
            model.bind(**named).invoke(QUESTION),
            asyncio.run(model.ainvoke(QUESTION, **named)),
            sum(list(model.stream(QUESTION, **named))[1:], next(iter(model.stream(QUESTION, **named)))),
        ]
        assert [answer.text for answer in answers] == [expected.text] * 4
        assert {answer.response_metadata["model_name"] for answer in answers} == {OTHER["model"]}
        assert [kept(answer) > 0 for answer in answers] == [False, True, True, True]
        again = model.invoke(QUESTION, model="pocket")
        assert (again.text, again.response_metadata["model_name"]) == (own.text, "pocket")
        assert kept(again) > 0
        lent = other.open()
    with pytest.raises(StoreClosedError):
        lent.flush()


def kept(message: Any) -> int:
    return int(message.response_metadata["kamera"]["origins"]["kept"])


def test_another_model_is_kept_as_the_first_is(kamera: Kamera, tmp_path: Path) -> None:
    """With its settings, and in its store, also where a Kamera was passed in."""
    with Kamera.pocket(fidelity="exact", store=tmp_path) as passed, ChatKamera(kamera=passed, max_tokens=4) as model:
        model.invoke(QUESTION, model=OTHER["model"])
        other = model._chat.over(OTHER["model"]).open().kamera
        assert other.settings == passed.settings
        assert other.store is passed.store
        assert other.family.model is not passed.family.model


def test_a_cache_tells_models_apart() -> None:
    with pocket(cache=InMemoryCache()) as model:
        said = model.invoke(QUESTION)
        other = model.invoke(QUESTION, model=OTHER["model"])
        assert other.response_metadata["model_name"] != said.response_metadata["model_name"]
        assert model.invoke(QUESTION).id == said.id


def test_what_is_written_down_answers_the_same(image_block: Block) -> None:
    """A named model and a Kamera that was passed in; the copy shares what the first has loaded."""
    messages = [HumanMessage([image_block(2), {"type": "text", "text": QUESTION}])]
    given = {"max_tokens": 6, "temperature": 0.7, "seed": 3, "max_string": 9, "stop": ["never"]}
    settings = {"rank": 8, "fidelity": "exact", "store": None}
    with (
        Kamera.pocket(**settings) as passed,
        ChatKamera(model="pocket", model_kwargs=settings, **given) as named,
    ):
        for model in (named, ChatKamera(kamera=passed, **given)):
            with loads(dumps(model), **READ) as copy:
                assert copy.model_kwargs == settings
                assert copy.asdict() == model.asdict()
                assert copy.invoke(messages).text == model.invoke(messages).text
                assert {name: getattr(copy, name) for name in given} == given
                assert copy.open().settings == passed.settings
                assert (copy.open() is model.open()) == (model is named)


def test_what_cannot_be_written_down(kamera: Kamera) -> None:
    """A store that is open stays here. A model without a name cannot be loaded again, which hinders nobody else."""
    with ChatKamera(model="pocket", model_kwargs={"store": kamera.store, "rank": 8}) as model:
        assert json.loads(dumps(model))["kwargs"]["model_kwargs"] == {"rank": 8}
    with Kamera(build_model(), build_processor()) as nameless:
        model = ChatKamera(kamera=nameless, max_tokens=2)
        assert dumpd(model)["type"] == "not_implemented"
        assert model.invoke(QUESTION).usage_metadata["output_tokens"] > 0
        with pytest.raises(NotImplementedError):
            loads(dumps(model), **READ)
