"""The loop of a training stage: step after step, written down from time to time, taken up again where it stopped."""

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
Tell = Callable[[int, float], None]


def study(
    path: Path,
    modules: Mapping[str, nn.Module],
    loss_of: LossOf,
    *,
    peak_rate: float,
    num_steps: int,
    seed: int,
    tell: Tell = lambda step, loss: None,
) -> None:
    """Train modules for num_steps steps.

    path: file for the state, read first if it is there; a finished one costs no step.
    loss_of: gives the loss of a step from the share of the stage behind it and a generator of that step's own, so
        that a stage that was taken up again goes on as it would have. tell: called with each step and its loss.
    """
    schedule = Schedule(modules.values(), peak_rate)
    first = _load(path, modules, schedule.optimizer) if path.exists() else 0
    for step in range(first, num_steps):
        loss = loss_of(step / num_steps, np.random.default_rng((seed, step)))
        schedule.step(loss, step / num_steps)
        tell(step + 1, loss.item())
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == num_steps:
            _save(path, modules, schedule.optimizer, step + 1)


def _save(path: Path, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, step: int) -> None:
    tensors = _tensors(modules, optimizer)
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
        for name, tensor in _tensors(modules, optimizer).items():
            tensor.copy_(file.get_tensor(name))
        step: int = json.loads(file.metadata()["step"])
        return step


def _tensors(modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Weights and moments by name; the tensors are those in use."""
    named = {f"{part}.{name}": p.data for part, module in modules.items() for name, p in module.named_parameters()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments = {
        f"optimizer.{index}.{moment}": optimizer.state[parameter][moment]
        for index, parameter in enumerate(parameters)
        for moment in MOMENTS
    }
    return named | moments
