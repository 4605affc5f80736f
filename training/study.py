"""The loop of a training stage. Its state is saved from time to time, and an interrupted stage resumes from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from training.schedule import Schedule

SAVE_EVERY = 100
MOMENTS = ("exp_avg", "exp_avg_sq", "step")

LossOf = Callable[[float, np.random.Generator], torch.Tensor]
Report = Callable[[int, float], None]


def study(
    path: Path,
    modules: Mapping[str, nn.Module],
    loss_of: LossOf,
    *,
    peak_rate: float,
    num_steps: int,
    seed: int,
    report: Report = lambda step, loss: None,
) -> None:
    """Train modules for num_steps steps, or the rest of them.

    path: file of the state. loss_of: returns the loss of a step from the share of the stage that is done and from a
        generator that depends on seed and step alone, so a resumed stage equals an uninterrupted one.
    report: called with the number of steps done and the loss of the last one.
    Raises ValueError if path is the state of other modules.
    """
    schedule = Schedule(modules.values(), peak_rate)
    first = _load(path, modules, schedule.optimizer) if path.exists() else 0
    for step in range(first, num_steps):
        loss = loss_of(step / num_steps, np.random.default_rng((seed, step)))
        schedule.step(loss, step / num_steps)
        report(step + 1, loss.item())
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == num_steps:
            _save(path, modules, schedule.optimizer, step + 1)


def _save(path: Path, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, step: int) -> None:
    tensors = _tensors(modules, optimizer)
    # A run that is killed while writing leaves the last state intact.
    draft = path.with_suffix(".draft")
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, draft, {"step": json.dumps(step)})
    draft.replace(path)


@torch.no_grad()
def _load(path: Path, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> int:
    with safe_open(path, framework="pt") as file:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                shapes = {"exp_avg": parameter, "exp_avg_sq": parameter, "step": torch.tensor(0.0)}
                optimizer.state[parameter] = {name: torch.empty_like(like) for name, like in shapes.items()}
        tensors = _tensors(modules, optimizer)
        saved = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # the file is not a mapping
        if {name: tensor.shape for name, tensor in saved.items()} != {name: t.shape for name, t in tensors.items()}:
            raise ValueError(f"{path} is the state of another model. Delete it, or train into another folder.")
        for name, tensor in tensors.items():
            tensor.copy_(saved[name])
        step: int = json.loads(file.metadata()["step"])
        return step


def _tensors(modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Weights and moments by name. These are the tensors in use, not copies."""
    named = {f"{part}.{name}": p.data for part, module in modules.items() for name, p in module.named_parameters()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments = {
        f"optimizer.{index}.{moment}": optimizer.state[parameter][moment]
        for index, parameter in enumerate(parameters)
        for moment in MOMENTS
    }
    return named | moments
