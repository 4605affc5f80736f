"""Drift in the trace, against a KL computed here from plain Hugging Face and a plain window."""

import base64
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface import Conversation
from langchain_core.messages import HumanMessage
from PIL import Image

from kamera_agent import ImageContent, Kamera, SettingError, TextContent
from kamera_agent.agent import ChatKamera
from kamera_agent.pocket.renderer import draw_screen
from kamera_agent.pocket.world import World
from kamera_agent.telemetry.drift import Drift, Witness
from kamera_agent.telemetry.trace import Trace, read_trace

QUESTION = "Which price changed?"


def ask(*screens: np.ndarray) -> HumanMessage:
    blocks: list[str | dict[str, str]] = []
    for screen in screens:
        buffer = BytesIO()
        Image.fromarray(screen).save(buffer, "PNG")
        data = base64.b64encode(buffer.getvalue()).decode()
        blocks.append({"type": "image", "base64": data, "mime_type": "image/png"})
    return HumanMessage([*blocks, {"type": "text", "text": QUESTION}])


def test_drift_is_the_kl_to_a_full_prefill(tmp_path: Path) -> None:
    """A screenshot leaves that others were compared with. Moved spans still know of it; a full prefill does not.

    1. ChatKamera answers before and after. The drift of the second answer is in the trace.
    2. A plain window of another Kamera does the same and gives its logits. Hugging Face computes the window anew.
    3. Over the tokens that may be drawn, both give the same KL and agree or disagree on the likeliest token.
    """
    screens = [draw_screen(screen) for screen in World(np.random.default_rng(5)).tell("changes", 3)]
    trace = Trace(tmp_path / "trace.jsonl", drift_every=2)
    with Kamera.pocket() as kamera:
        model = ChatKamera(kamera=kamera, max_tokens=4, trace=trace)
        model.invoke([ask(*screens)])
        model.invoke([ask(*screens[1:])])
    unmeasured, measured = read_trace(trace.path)
    assert unmeasured.drift is None
    assert measured.usage.tokens_moved > 100

    with Kamera.pocket() as kamera:
        window = kamera.window()
        window.sync([*map(ImageContent, screens), TextContent(QUESTION)])
        window.generate(max_new_tokens=4)
        window.sync([*map(ImageContent, screens[1:]), TextContent(QUESTION)])
        ours = window.logits().double()
        family = kamera.family
        conversation = Conversation(family.model, family.processors, system=family.chat.default_system)
        theirs = conversation.say("user", *screens[1:], QUESTION).logits().double()
    drawable = [token for token in range(len(ours)) if token not in family.placeholder_ids]
    p, q = theirs[drawable].softmax(-1), ours[drawable].softmax(-1)
    surprise = (p / q).log()
    kl = (p * surprise).sum().item()
    # Logits are equal within 1e-4, as in the tests of the window, so each p and q is within a factor of exp(2e-4).
    assert measured.drift is not None
    assert measured.drift.kl == pytest.approx(kl, abs=4e-4 + 2e-4 * (p * surprise.abs()).sum().item())
    assert kl > 0.1
    assert measured.drift.agrees == bool(p.argmax() == q.argmax())


class OnlyOne:
    """Allows only token 1, and records the accepted tokens."""

    def __init__(self) -> None:
        self.accepted: list[int] = []

    def mask(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.full_like(logits, float("-inf")).index_copy(0, torch.tensor([1]), logits[1:2])

    def accept(self, token: int) -> None:
        self.accepted.append(token)


def test_a_witness_changes_nothing() -> None:
    """Only the first logits count, before the constraint. The constraint works as it does alone."""
    first, later = torch.tensor([0.0, 1.0, 2.0, float("-inf")]), torch.tensor([9.0, 0.0, 0.0, 0.0])
    inner = OnlyOne()
    witness = Witness(inner)
    for logits in (first, later):
        assert torch.equal(witness.mask(logits), inner.mask(logits))
        witness.accept(1)
    assert inner.accepted == [1, 1]
    drift = witness.measure(torch.tensor([0.0, 1.0, 2.0, 50.0]))
    assert drift == Drift(pytest.approx(0.0, abs=1e-15), agrees=True)
    assert torch.equal(Witness(None).mask(first), first)


def test_an_answer_of_other_words_does_not_agree() -> None:
    witness = Witness(None)
    witness.mask(torch.tensor([0.4, 0.6]).log())
    drift = witness.measure(torch.tensor([0.8, 0.2]).log())
    assert drift.kl == pytest.approx(0.8 * np.log(0.8 / 0.4) + 0.2 * np.log(0.2 / 0.6), rel=1e-6)
    assert not drift.agrees


@pytest.mark.parametrize(("every", "due"), [(None, []), (1, [1, 2, 3, 4, 5, 6, 7]), (3, [3, 6])])
def test_every_so_many(tmp_path: Path, every: int | None, due: list[int]) -> None:
    trace = Trace(tmp_path / "trace.jsonl", drift_every=every)
    assert [number for number in range(1, 8) if trace.drift_is_due()] == due


def test_a_bad_rhythm(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="drift_every is 0"):
        Trace(tmp_path / "trace.jsonl", drift_every=0)


def test_telemetry_is_imported_without_torch() -> None:
    modules = ", ".join(f"kamera_agent.telemetry.{name}" for name in ("drift", "metrics", "record", "spans", "trace"))
    code = f"import sys, {modules}\nsys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
