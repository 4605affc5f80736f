"""SglangKamera: one engine of SGLang, one store, any number of windows."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, Unpack

from blake3 import blake3

from kamera_agent.closing import Closing
from kamera_agent.config import SettingOptions, Settings
from kamera_agent.errors import SettingError, UnsupportedModelError
from kamera_agent.pages.blueprint import Blueprint
from kamera_agent.pages.span import Load, Save
from kamera_agent.pages.window import PagedWindow, Part, engine_settings
from kamera_agent.runtime.families.base import Family
from kamera_agent.runtime.families.qwen2_vl import Qwen2VL
from kamera_agent.runtime.families.text_only import TextOnly
from kamera_agent.runtime.kept import Kept
from kamera_agent.store.opening import open_store
from kamera_agent.window.records import Computed, Loaded, Records
from kamera_agent.window.worker import Job, Worker
from kamera_sglang.client import Client, Response
from kamera_sglang.heads import Heads, Spot
from kamera_sglang.mailbox import Mailbox, Order, Pages
from kamera_sglang.options import read_options
from kamera_sglang.self_test import self_test
from kamera_sglang.window import SglangWindow

# For these, the form is known in which SGLang takes pixels that are prepared already.
FAMILIES = (Qwen2VL, TextOnly)
PATCH_SIZE = 14
DEFAULT_NAMESPACE = Settings().namespace


class SglangKamera(Closing):
    """The cache in front of an engine of SGLang in this process: windows whose images keep their KV when they move.

    Start the engine with linker_options(). The checkpoint is read once more, on the CPU, for what its chunks are called
    and how it turns its keys; its weights are not kept.

    engine: a sglang.Engine. options: fields of Settings; see engine_settings(). The store and its encryption key are
        those of linker_options().
    Raises SettingError, StoreUnavailableError, ModelError; UnsupportedModelError, with the reason, for a model whose KV
    cannot be brought into the engine; ConventionError where the engine does not pass the self-test.
    """

    def __init__(self, engine: Any, **options: Unpack[SettingOptions]) -> None:
        settings = engine_settings(options, "SglangKamera")
        if settings.encryption_key is not None:
            raise SettingError("The engine reads the store, too; give encryption_key to linker_options().")
        served = read_options(engine)
        self.settings = replace(settings, encryption_key=served.encryption_key)
        self._blueprint = Blueprint.of(served.model, self.settings, dtype=served.dtype, revision=served.revision)
        _check_family(self.family)
        self._rotation = self._blueprint.rotation
        self._client = Client(engine, Mailbox(served.mailbox), self.family)
        self_test(self._blueprint, self._client)
        self._store = open_store(served.store, self.settings)
        self._records = Records(self._store, self.settings, self._rotation.num_layers, self.family.decoder.device)
        self._heads = Heads(self.family.placeholder_ids)
        self._worker = Worker("kamera-sglang-remember")

    @property
    def family(self) -> Family:
        """The model without its weights: its processors and its chat format."""
        return self._blueprint.family

    def window(self, system: str | None = None, *, namespace: str | None = None) -> SglangWindow:
        """A new, empty window. system, namespace: as of Kamera.window(). Raises SettingError."""
        settings = self.settings if namespace is None else replace(self.settings, namespace=namespace)
        paged = PagedWindow(self._blueprint, self._store, settings, system)
        return SglangWindow(self, paged, _salt_of(settings.namespace))

    def compute(self, part: Part, salt: str | None, **options: Any) -> Response:
        """Have the engine compute the beginning of a window, and remember the chunks that it computes.

        options: of the request. Raises EngineError.
        """
        found = self._records.load([load.evidence for load in part.loads])
        given = [self._pages(load, loaded) for load, loaded in zip(part.loads, found, strict=True) if loaded]
        order = Order(len(part.token_ids), given, [range(save.first, save.end) for save in part.saves])
        response = self._client.ask(part.token_ids, part.images, order, salt, **options)
        taken = {pages.stop: pages for pages in response.taken}
        for save in part.saves:
            pages, token_ids = taken.get(save.end), part.token_ids[save.first : save.end]
            if pages and (whole := self._heads.completed(Spot(salt, save.seen.chain), token_ids, pages)):
                self._remember(save, whole)
        return response

    def flush(self) -> None:
        """Return once everything computed so far is remembered and durable."""
        self._worker.drain()
        self._store.flush()

    def close(self) -> None:
        """Flush, and close the store. The engine goes on. Idempotent."""
        self._worker.drain()
        self._store.close()

    def _pages(self, load: Load, loaded: Loaded) -> Pages:
        """The KV of a span, as the engine keeps it in its place."""
        return Pages(load.first, list(self._rotation.turned(loaded.base.kv, loaded.factors, load.positions)))

    def _remember(self, save: Save, pages: Pages) -> None:
        """Have a chunk stored in the background, unless too much waits."""
        if self._worker.has_room(pages.num_bytes, self.settings.memory_bytes):
            self._worker.submit(Job(partial(self._write_down, save, pages), pages.num_bytes))

    def _write_down(self, save: Save, pages: Pages) -> int:
        kept = Kept(tuple(self._rotation.turned_back(layer, save.positions) for layer in pages.layers))
        return self._records.write_down(save.key, Computed(kept, save.seen), _at_once, _no_canonical)


def _check_family(family: Family) -> None:
    """Raise UnsupportedModelError for what SGLang would not take, or would end at."""
    if not isinstance(family, FAMILIES):
        raise UnsupportedModelError(
            f"{type(family.model).__name__} is not served in SGLang yet, only Qwen2-VL, Qwen2.5-VL and text models: "
            "each processor there takes prepared pixels in a form of its own. Use Kamera."
        )
    if isinstance(family, Qwen2VL) and (size := family.processors.image_processor.patch_size) != PATCH_SIZE:
        raise UnsupportedModelError(
            f"Patches of {size} pixels are taken for embeddings by SGLang's Qwen models, which know {PATCH_SIZE} only. "
            "Use Kamera."
        )


def _salt_of(namespace: str) -> str | None:
    """What keeps the engine's caches of a namespace apart; None for the default, which other requests share."""
    return None if namespace == DEFAULT_NAMESPACE else blake3(namespace.encode()).hexdigest()


def _at_once() -> None:
    """The engine computes in a process of its own; nothing has to give way to it."""


def _no_canonical() -> Computed:
    raise AssertionError("engine_settings() refuses base='canonical'")
