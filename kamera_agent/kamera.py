"""Kamera: one model, one store, any number of windows."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self, Unpack, cast

import torch

from kamera_agent.closing import Closing
from kamera_agent.config import DEFAULT_STORE, SettingOptions, Settings, make_settings
from kamera_agent.forking import Forkable
from kamera_agent.options import path_of
from kamera_agent.pocket.weights import POCKET, WEIGHTS
from kamera_agent.runtime.engine import Engine
from kamera_agent.runtime.families import family_for, load
from kamera_agent.runtime.families.base import Family
from kamera_agent.secret import read_secret
from kamera_agent.store.base import StoreStats
from kamera_agent.store.opening import AGREED, StoreChoice, open_store
from kamera_agent.window.healer import Healer
from kamera_agent.window.library import Library
from kamera_agent.window.window import Window


@dataclass(frozen=True, slots=True)
class KameraStats:
    """Counters of one Kamera.

    encoder_calls, encoder_avoided: vision-encoder runs made, and runs that the cache of its outputs avoided.
    encoder_bytes: size of that cache. pool_bytes: KV pools of all windows in use.
    failed: computed chunks that were not remembered because of an unexpected error, the first of which was logged.
    skipped: computed chunks that were not remembered because the KV of too many waited.
    healed_tokens, healing_s: tokens computed while no answer was wanted, and the seconds that took.
    unhealed: times that this failed because of an unexpected error, the first of which was logged.
    """

    store: StoreStats
    num_windows: int
    pool_bytes: int
    encoder_calls: int
    encoder_avoided: int
    encoder_bytes: int
    failed: int
    skipped: int
    healed_tokens: int
    healing_s: float
    unhealed: int


class Kamera(Closing, Forkable):
    """The cache under an agent: one Hugging Face model whose windows never encode the same pixels twice.

    Use it as a context manager, or call close(): the store writes in the background.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        store: StoreChoice = None,
        **options: Unpack[SettingOptions],
    ) -> None:
        """Use a model and a processor that are loaded already; for a text model a tokenizer is enough.

        store: a folder for the disk tier, the URL of a shared store, or a list of them, the fastest first; None keeps
            chunks in memory only; a Store is used as it is and stays open.
        options: fields of Settings (rank, fidelity, namespace, ...).
        Raises SettingError, StoreUnavailableError, ModelError, UnsupportedModelError, ConventionError, or
        MissingExtraError where a store needs a package that is missing.
        """
        super().__init__()
        self.settings = make_settings(options, "Kamera")
        family = family_for(model, processor)
        family.secret = _secret(self.settings)
        self._engine = Engine(family, self.settings.encoder_cache_bytes)
        # Opened last: nothing after it can fail and leave it open.
        self.store = open_store(store, self.settings)
        self._owns_store = self.store is not store
        self._library = Library(self._engine, self.store, self.settings)
        self._healer = Healer(self._engine)
        self._windows: weakref.WeakSet[Window] = weakref.WeakSet()
        self._before_close: list[Callable[[Kamera], None]] = []

    def renew(self) -> None:
        self._windows_lock = threading.Lock()

    @classmethod
    def from_pretrained(
        cls,
        model_id: str | os.PathLike[str],
        store: StoreChoice = DEFAULT_STORE,
        device: str = "auto",
        dtype: str | torch.dtype = "auto",
        revision: str | None = None,
        **options: Unpack[SettingOptions],
    ) -> Self:
        """Load a checkpoint by hub id or folder; "pocket" is the small model that comes with this package.

        device: "auto" takes the first GPU, else the CPU. dtype: "auto" takes the checkpoint's own.
        store, options and errors as for Kamera(); SettingError also for another device or dtype, ModelError where the
        checkpoint cannot be read.
        """
        source = WEIGHTS if model_id == POCKET else path_of("model_id", model_id)
        # Before the weights are read: a folder that cannot be opened, or a secret, should not cost minutes.
        settings = make_settings(options, "Kamera")
        _secret(settings)
        opened = open_store(store, settings)
        try:
            checkpoint = load(os.fspath(source), device=device, dtype=dtype, revision=revision)
            # What a folder keeps, it has by now.
            left = {name: value for name, value in options.items() if opened is store or name not in AGREED}
            kamera = cls(*checkpoint, opened, **cast(SettingOptions, left))
        except BaseException:
            if opened is not store:
                opened.close()
            raise
        kamera.settings, kamera._owns_store = settings, opened is not store
        return kamera

    @classmethod
    def pocket(cls, store: StoreChoice = None, **options: Unpack[SettingOptions]) -> Self:
        """The small trained model that comes with this package: offline, in seconds, on any machine.

        It reads the screens and scenes that kamera_agent.pocket draws, and little else.
        store, options and errors as for Kamera().
        """
        return cls.from_pretrained(POCKET, store, **options)

    @property
    def family(self) -> Family:
        """The model, its processors and its chat format, as the family of its backbone serves them."""
        return self._engine.family

    @property
    def rope_errors(self) -> tuple[float, ...]:
        """Relative error of keys rotated here against the model's own, per layer that keeps keys, measured at load."""
        return tuple(self._engine.rope_errors.values())

    def window(self, system: str | None = None, *, namespace: str | None = None) -> Window:
        """A new, empty window. Raises StoreClosedError after close(), and SettingError for a namespace without a name.

        system: the system prompt; None takes the default of the model's chat template.
        namespace: of its chunks; None takes that of the settings.
        """
        self._library.require_open()
        settings = self.settings if namespace is None else replace(self.settings, namespace=namespace)
        prompt = self._engine.family.chat.default_system if system is None else system
        window = Window(self._engine, self._library, self._healer, settings, prompt)
        with self._windows_lock:
            self._windows.add(window)
        return window

    def flush(self) -> None:
        """Return once everything computed so far is remembered and durable."""
        self._library.flush()
        self.store.flush()

    def settle(self) -> bool:
        """Heal all windows now, each for the window that it expects, as far as settings.heal says.

        Returns whether all are healed; a window that is busy is left out. Raises StoreClosedError after close().
        """
        self._library.require_open()
        with self._windows_lock:
            windows = list(self._windows)
        return self._healer.settle(window.idle for window in windows)

    def stats(self) -> KameraStats:
        """Counters and sizes. May be called from any thread. Raises StoreClosedError after close()."""
        encoder = self._engine.encoder
        with self._windows_lock:
            windows = list(self._windows)
        return KameraStats(
            store=self.store.stats(),
            num_windows=len(windows),
            pool_bytes=sum(window.pool_bytes for window in windows),
            encoder_calls=encoder.num_calls,
            encoder_avoided=encoder.num_avoided,
            encoder_bytes=encoder.num_bytes,
            failed=self._library.num_failed,
            skipped=self._library.num_skipped,
            healed_tokens=self._healer.num_tokens,
            healing_s=self._healer.seconds,
            unhealed=self._healer.num_failed,
        )

    def before_close(self, action: Callable[[Kamera], None]) -> None:
        """Have close() call an action once, while the store is still open and nothing more is computed for it."""
        self._before_close.append(action)

    def close(self) -> None:
        """Flush, and close the store unless it was passed in open. Idempotent."""
        self._healer.close()
        self._library.close()
        while self._before_close:
            self._before_close.pop()(self)
        if self._owns_store:
            self.store.close()


def _secret(settings: Settings) -> bytes | None:
    source = settings.namespace_secret
    return None if source is None else read_secret("namespace_secret", source)
