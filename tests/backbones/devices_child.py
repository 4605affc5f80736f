"""Run by test_devices.py: what windows over a model on two devices hold, as one JSON object."""

from __future__ import annotations

import json
import sys
from typing import Any, NamedTuple

import torch
from devices import FIRST, SECOND, Devices, claim
from models import max_error, screenshot
from prompts import Talk

from benchmarks.backbones.zoo import MATRIX
from kamera_agent import Kamera, Window
from kamera_agent.runtime import interface
from kamera_agent.window.library import Library

A, B, C = (screenshot(seed, *size) for seed, size in enumerate([(70, 98), (126, 84), (84, 154)]))
QUESTION = "what is it?"


class Outcome(NamedTuple):
    """Logits by kind of turn, a reply, the origins of spans in the last two turns before it, and their window."""

    logits: dict[str, torch.Tensor]
    reply: str
    origins: list[str]
    window: Window


def turns(model: Any, processor: Any) -> Outcome:
    """The logits of windows that were computed, edited and recalled, on whatever devices the model is."""
    logits: dict[str, torch.Tensor] = {}
    options: dict[str, Any] = {"base": "canonical", "rank": 4, "heal": "never"}
    first = Kamera(model, processor, **options)
    window = first.window()
    window.add_text("first")
    ids = [window.add_image(image) for image in (A, B, C)]
    logits["computed"] = window.logits(QUESTION)
    window.drop(ids[0])
    logits["refreshed"] = window.logits(QUESTION)
    first.flush()
    window = Kamera(model, processor, store=first.store, stale="keep", **options).window()
    text = window.add_text("look at these")
    for image in (C, B):
        window.add_image(image)
    logits["recalled"] = window.logits(QUESTION)
    origins = [span.origin for span in window.spans if span.kind == "image"]
    window.drop(text)
    logits["moved"] = window.logits(QUESTION)
    origins += [span.origin for span in window.spans if span.kind == "image"]
    reply = window.generate(QUESTION, max_new_tokens=6).text
    return Outcome({name: torch.as_tensor(value.tolist()) for name, value in logits.items()}, reply, origins, window)


def main(name: str) -> dict[str, Any]:
    model, processor = next(one for one in MATRIX if one.name == name).build(torch.float32)
    plain = Talk(model, processor).say("user", "first", A, B, C, QUESTION).logits()
    expected = turns(model, processor)
    text = model.model.language_model
    split = len(text.layers) // 2
    # As device_map="auto" splits a model: everything before the middle of the layers, and the rest.
    device_map = {f"model.{part}": FIRST for part, _ in model.model.named_children() if part != "language_model"}
    device_map |= {f"model.language_model.{part}": FIRST for part, _ in text.named_children() if part != "layers"}
    device_map |= {
        f"model.language_model.layers.{number}": FIRST if number < split else SECOND
        for number in range(len(text.layers))
    }
    device_map |= {"model.language_model.norm": SECOND, "lm_head": SECOND}
    interface.DEVICES += (FIRST.type,)
    write_down = Library._write_down

    def with_devices(*args: Any) -> int:
        with Devices():
            return write_down(*args)

    # The thread that remembers chunks has modes of its own.
    Library._write_down = with_devices  # type: ignore[method-assign]
    with Devices() as devices:
        claim(model, device_map)
        ours = turns(model, processor)
        pool = ours.window._assembly.residence.pool
        tensors = {layer: (row.masters, row.keys, row.values) for layer, row in pool.rows.items()}
        devices.crossings.clear()
        ours.window.logits("and now?")
    return {
        "errors": {name: max_error(logits, ours.logits[name]) for name, logits in expected.logits.items()},
        "plain": max_error(plain, ours.logits["computed"]),
        "same_reply": expected.reply == ours.reply,
        "origins": ours.origins,
        "split": split,
        "devices": {layer: [str(tensor.device) for tensor in kept] for layer, kept in tensors.items()},
        "crossings": {f"{a} {b}": count for (a, b), count in devices.crossings.items()},
    }


def run() -> None:
    """Take the name of a backbone from the standard input, and print what its windows hold."""
    sys.stdout.write(json.dumps(main(sys.stdin.read())))
