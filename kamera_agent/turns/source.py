"""What a chat model is over: a Kamera, or the name of a model and what it is loaded with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch

from kamera_agent.config import Settings
from kamera_agent.errors import InputError, SettingError
from kamera_agent.kamera import Kamera
from kamera_agent.pocket.weights import POCKET, WEIGHTS
from kamera_agent.store.base import Store
from kamera_agent.store.memory import MemoryStore

ENVIRONMENT = "KAMERA_MODEL"
LOADING = ("store", "device", "dtype", "revision")

Options = dict[str, Any]


def choose_source(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a chat model with one source in them: kamera, or model and model_kwargs.

    Without either, the environment names the model. Raises InputError for both and for neither, SettingError for
    options that no model is loaded with.
    """
    if given.get("kamera") is not None:
        if both := [name for name in ("model", "model_kwargs") if given.get(name)]:
            raise InputError(f"kamera= was given, and {both[0]}={given[both[0]]!r}, too; leave one of them out.")
        return {**given}
    model = given.get("model") or os.environ.get(ENVIRONMENT)
    if not model:
        raise InputError(
            f"There is no model. Give model= (a hub id, a folder or {POCKET!r}) or kamera=, or set {ENVIRONMENT}."
        )
    name = os.fspath(model) if isinstance(model, os.PathLike) else model
    return {**given, "model": name, "model_kwargs": _checked(given.get("model_kwargs") or {})}


def name_of(kamera: Kamera) -> str:
    """What the model of a Kamera is loaded by: hub id, folder or "pocket". Empty for one that was made in memory."""
    name = str(kamera.family.model.config._name_or_path)
    return POCKET if name == os.fspath(WEIGHTS) else name


def options_of(kamera: Kamera) -> Options:
    """What another model is loaded with to be kept as this one is: settings that are not the default, and the store."""
    chosen = {field.name: (getattr(kamera.settings, field.name), field.default) for field in fields(Settings)}
    changed = {name: value for name, (value, default) in chosen.items() if value != default}
    return {**changed, "store": None if isinstance(kamera.store, MemoryStore) else kamera.store}


def written_down(options: Options) -> Options:
    """Options as they can be serialized: a store that is open stays here."""
    return {name: value for name, value in options.items() if not isinstance(value, Store)}


def _checked(options: Mapping[str, Any]) -> Options:
    """The options as plain data. Raises SettingError before anything is loaded."""
    settings = [field.name for field in fields(Settings)]
    if unknown := sorted(set(options) - {*settings, *LOADING}):
        raise SettingError(f"model_kwargs has unknown options {unknown}; use {[*LOADING, *settings]}.")
    Settings(**{name: value for name, value in options.items() if name in settings})
    return {name: _plain(value) for name, value in options.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    return os.fspath(value) if isinstance(value, os.PathLike) else value
