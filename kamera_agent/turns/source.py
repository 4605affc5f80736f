"""The source of a chat: a Kamera, or the name of a model and the options it is loaded with."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import fields
from reprlib import repr as short
from typing import Any

import torch

from kamera_agent.config import SETTINGS, Settings, make_settings
from kamera_agent.errors import InputError, SettingError
from kamera_agent.kamera import Kamera
from kamera_agent.options import check_names
from kamera_agent.pocket.weights import POCKET, WEIGHTS
from kamera_agent.store.base import Store
from kamera_agent.store.memory import MemoryStore

ENVIRONMENT = "KAMERA_MODEL"
LOADING = ("store", "device", "dtype", "revision")

Options = dict[str, Any]


def check_place(given: Iterable[str]) -> None:
    """Raise SettingError for options of loading that are given to a chat model itself."""
    if misplaced := [name for name in given if name in (*LOADING, *SETTINGS)]:
        raise SettingError(f"{misplaced[0]} is an option of loading; give model_kwargs={{{misplaced[0]!r}: ...}}.")


def choose_source(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a chat model with one source among them: kamera, or model and model_kwargs.

    Without either, the environment names the model. Raises InputError for both and for neither, and SettingError for
    unknown or wrong options.
    """
    if given.get("kamera") is not None:
        if both := [name for name in ("model", "model_kwargs") if given.get(name)]:
            raise InputError(f"Both kamera= and {both[0]}={given[both[0]]!r} were given; leave one of them out.")
        return {**given}
    model = given.get("model") or os.environ.get(ENVIRONMENT)
    if not model:
        raise InputError(
            f"No model was given. Give model= (a hub id, a folder or {POCKET!r}) or kamera=, or set {ENVIRONMENT}."
        )
    name = os.fspath(model) if isinstance(model, os.PathLike) else model
    return {**given, "model": name, "model_kwargs": _checked(given.get("model_kwargs") or {})}


def name_of(kamera: Kamera) -> str:
    """The hub id or folder of a Kamera's model, or "pocket". Empty for a model that was made in memory."""
    name = str(kamera.family.model.config._name_or_path)
    return POCKET if name == os.fspath(WEIGHTS) else name


def options_of(kamera: Kamera) -> Options:
    """The options that give another model the same settings and store: the store, and settings unlike the default."""
    chosen = {field.name: (getattr(kamera.settings, field.name), field.default) for field in fields(Settings)}
    changed = {name: value for name, (value, default) in chosen.items() if value != default}
    return {**changed, "store": None if isinstance(kamera.store, MemoryStore) else kamera.store}


def written_down(options: Options) -> Options:
    """The options that can be serialized: all but an open store and a function."""
    return {name: value for name, value in options.items() if not (isinstance(value, Store) or callable(value))}


def _checked(options: Any) -> Options:
    """Return the options as plain data. Raises SettingError, before anything is loaded."""
    if not isinstance(options, Mapping):
        raise SettingError(f"model_kwargs is {short(options)}; use a dict of options.")
    check_names(options, (*LOADING, *SETTINGS), "model_kwargs")
    settings = make_settings({name: value for name, value in options.items() if name in SETTINGS}, "model_kwargs")
    return {name: getattr(settings, name) if name in SETTINGS else _plain(value) for name, value in options.items()}


def _plain(value: Any) -> Any:
    # One spelling each, for options are compared between chats of one model, and serialized.
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if isinstance(value, (list, tuple)):
        return [*map(_plain, value)]
    return os.fspath(value) if isinstance(value, os.PathLike) else value
