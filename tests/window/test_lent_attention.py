"""Our attention in a model: in passes of ours only, and the model's own everywhere else."""

from threading import Event, Thread
from typing import Any

import pytest
import torch
from huggingface import Conversation
from models import MakeKamera, max_error, screenshot

from kamera_agent.pocket.model import PocketProcessor
from kamera_agent.runtime import interface
from kamera_agent.runtime.attention import attend
from kamera_agent.runtime.families import family_for
from kamera_agent.runtime.families.refusals import LENT


def name_of(model: Any) -> str:
    return str(model.model.language_model.config._attn_implementation)


def talk(model: Any, processor: PocketProcessor) -> Conversation:
    return Conversation(model, processor).say("user", screenshot(0), "what?")


@pytest.fixture
def attended(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of queries of every call of our attention."""
    calls: list[int] = []

    def counting(query: torch.Tensor, *args: Any) -> torch.Tensor:
        calls.append(query.shape[1])
        return attend(query, *args)

    monkeypatch.setattr(interface, "attend", counting)
    return calls


def test_every_layer_calls_it_and_the_model_is_left_as_it_was(
    make: MakeKamera, model: Any, processor: PocketProcessor, attended: list[int]
) -> None:
    window = make(model).window()
    window.add_image(screenshot(0))
    num_layers = model.config.text_config.num_hidden_layers
    attended.clear()
    logits = window.logits("what?")
    assert len(attended) == num_layers
    assert name_of(model) == "sdpa"
    assert max_error(talk(model, processor).logits(), logits) <= 1e-4
    assert len(attended) == num_layers


def test_a_model_with_eager_attention_keeps_it(
    make: MakeKamera, model: Any, processor: PocketProcessor, attended: list[int]
) -> None:
    """Loaded with eager attention, then switched to sdpa and back."""
    model.set_attn_implementation("eager")
    try:
        window = make(model).window()
        for number, (name, num_calls) in enumerate((("eager", 0), ("sdpa", 0), ("sdpa", 4), ("eager", 0))):
            model.set_attn_implementation(name)
            attended.clear()
            window.add_image(screenshot(number))
            assert max_error(window.reference_logits("what?"), window.logits("what?")) <= 1e-4
            assert (name_of(model), len(attended)) == (name, num_calls)
    finally:
        model.set_attn_implementation("sdpa")


def test_a_plain_pass_of_another_thread_has_the_models_own(
    make: MakeKamera, model: Any, processor: PocketProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1. Stop a pass of ours in its first layer. 2. Run a plain pass in another thread. 3. Let ours go on."""
    window = make(model).window()
    window.add_image(screenshot(0))
    conversation = talk(model, processor)
    expected = conversation.logits()
    stopped, go_on = Event(), Event()

    def stopping(*args: Any) -> torch.Tensor:
        stopped.set()
        assert go_on.wait(20)
        return attend(*args)

    monkeypatch.setattr(interface, "attend", stopping)
    found: list[torch.Tensor] = []
    thread = Thread(target=lambda: found.append(window.logits("what?")))
    thread.start()
    assert stopped.wait(20)
    assert torch.equal(conversation.logits(), expected)
    go_on.set()
    thread.join()
    assert max_error(expected, found[0]) <= 1e-4


def test_of_two_engines_the_last_one_gives_the_model_back(
    make: MakeKamera, model: Any, processor: PocketProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1. Stop a pass in its first layer. 2. Answer by another Kamera over the same model. 3. Let the first go on."""
    one, two = make(model).window(), make(model).window()
    expected = talk(model, processor).logits()
    for window in (one, two):
        window.add_image(screenshot(0))
    stopped, go_on = Event(), Event()

    def stopping(*args: Any) -> torch.Tensor:
        if not stopped.is_set():
            stopped.set()
            assert go_on.wait(20)
        return attend(*args)

    monkeypatch.setattr(interface, "attend", stopping)
    found: list[torch.Tensor] = []
    thread = Thread(target=lambda: found.append(one.logits("what?")))
    thread.start()
    assert stopped.wait(20)
    assert max_error(expected, two.logits("what?")) <= 1e-4
    assert name_of(model) == LENT
    go_on.set()
    thread.join()
    assert max_error(expected, found[0]) <= 1e-4
    assert name_of(model) == "sdpa"


def test_a_family_made_in_the_middle_of_a_pass_leaves_the_model_alone(
    make: MakeKamera, model: Any, processor: PocketProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by another thread. Warnings are errors here: none says that the model was switched."""
    names: list[str] = []

    def making(*args: Any) -> torch.Tensor:
        family_for(model, processor)
        names.append(name_of(model))
        return attend(*args)

    window = make(model).window()
    monkeypatch.setattr(interface, "attend", making)
    logits = window.logits("what?")
    assert names == [LENT] * model.config.text_config.num_hidden_layers
    assert max_error(window.reference_logits("what?"), logits) <= 1e-4


def test_a_layer_with_an_option_of_its_own_keeps_the_models(
    make: MakeKamera, model: Any, attended: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a position bias: the whole model is then served with masks."""
    own = interface.sdpa_attention_forward
    last = model.config.text_config.num_hidden_layers - 1
    module = model.model.language_model.layers[last].self_attn
    original = interface._attention

    def biased(layer: Any, *args: Any, **options: Any) -> Any:
        return original(layer, *args, **options, softcap=1.0 if layer is module else None)

    monkeypatch.setattr(interface, "sdpa_attention_forward", lambda *args, softcap, **options: own(*args, **options))
    monkeypatch.setattr(interface, "_attention", biased)
    try:
        window = make(model).window()
        window.add_text("hi")
        assert max_error(window.reference_logits("what?"), window.logits("what?")) <= 1e-4
        assert attended == []
    finally:
        monkeypatch.undo()
        make(model).window()
