"""VllmKamera: one engine of vLLM, one store, any number of windows."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any, Self, Unpack
from uuid import uuid4

import torch
from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.v1.engine.async_llm import AsyncLLM

from kamera_agent.config import SettingOptions, Settings
from kamera_agent.errors import ConventionError
from kamera_agent.pages.blueprint import Blueprint, Picture, Sample
from kamera_agent.pages.page import page_layers
from kamera_agent.pages.window import Part, engine_settings
from kamera_agent.runtime.families.base import Family
from kamera_agent.store.base import Store
from kamera_agent.store.opening import StorePlace, open_store
from kamera_agent.vision.fingerprint import fingerprint_tokens
from kamera_vllm.client import ask
from kamera_vllm.orders import Order, Probe
from kamera_vllm.transfer import transfer_config
from kamera_vllm.window import PATIENCE_S, POLL_S, VllmWindow


class VllmKamera:
    """The cache in front of vLLM: windows whose images keep their KV when they move. VllmKamera.start() makes one.

    engine: vLLM's own front end, for everything else. store: the one that its processes use, too.
    """

    def __init__(self, engine: AsyncLLM, blueprint: Blueprint, store: Store, settings: Settings) -> None:
        self.engine = engine
        self.blueprint = blueprint
        self.store = store
        self.settings = settings
        self._loop: asyncio.AbstractEventLoop | None = None

    @classmethod
    async def start(
        cls,
        model: str,
        store: StorePlace | Sequence[StorePlace],
        *,
        engine: Mapping[str, Any] | None = None,
        **options: Unpack[SettingOptions],
    ) -> Self:
        """Load a checkpoint into vLLM. It is read once more, on the CPU; those weights are not kept.

        store: folders or URLs, as those of a Kamera. engine: arguments of vLLM's AsyncEngineArgs. options: fields of
        Settings; see engine_settings().
        Raises SettingError, StoreUnavailableError, ModelError; UnsupportedModelError, with the reason, for a model
        whose KV cannot be brought into vLLM; ConventionError where vLLM's pages are not those of Hugging Face.
        """
        settings, arguments = engine_settings(options, "VllmKamera"), dict(engine or {})
        dtype, revision = str(arguments.get("dtype", "auto")), arguments.get("revision")
        blueprint = await asyncio.to_thread(Blueprint.of, model, settings, dtype=dtype, revision=revision)
        transfer = transfer_config(blueprint, store, options)
        arguments |= {"model": model, "kv_transfer_config": transfer, "enable_prefix_caching": True}
        opened = open_store(store, settings)
        try:
            kamera = cls(AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments)), blueprint, opened, settings)
        except BaseException:
            opened.close()
            raise
        kamera._loop = asyncio.get_running_loop()
        try:
            await kamera._self_test()
        except BaseException:
            kamera.shutdown()
            raise
        return kamera

    @property
    def family(self) -> Family:
        """The model without its weights: its processors and its chat format."""
        return self.blueprint.family

    def window(self, system: str | None = None) -> VllmWindow:
        """A new, empty window. system: the system prompt; None takes the default of the model's chat template."""
        return VllmWindow(self, system)

    def shutdown(self) -> None:
        """End the engine, and close the store. Idempotent."""
        self.engine.shutdown()
        self.store.close()
        # vLLM leaves it to its loop to close its sockets, and a process with open ones does not end.
        if self._loop and not (self._loop.is_running() or self._loop.is_closed()):
            self._loop.run_until_complete(asyncio.sleep(0))

    async def _self_test(self) -> None:
        """Raise ConventionError unless vLLM's pages hold the KV that Hugging Face has of a text and of a picture."""
        sample, picture, family = self.blueprint.sample, self.blueprint.picture, self.family
        text = torch.arange(len(sample.token_ids)).expand(family.num_axes, -1)
        await self._compare("a text", Part(sample.token_ids, (), (), ()), Probe(uuid4().hex, 0, text), sample)
        if picture:
            # One token more: a request computes one at least.
            token_ids = *family.chat.anchor_ids, *picture.chunk.token_ids, sample.token_ids[-1]
            probe = Probe(uuid4().hex, picture.start, family.positions(picture.chunk, picture.start))
            await self._compare("a picture", Part(token_ids, (picture.chunk,), (), ()), probe, picture)

    async def _compare(self, name: str, part: Part, probe: Probe, expected: Sample | Picture) -> None:
        start, order = perf_counter(), Order(probe.id, fingerprint_tokens(part.token_ids), probe=probe)
        params, salt = SamplingParams(max_tokens=1), probe.id
        await ask(self.engine, part, order, params, salt, self.family.placeholder_ids)
        while not (found := self.store.get_many([probe.key])):
            if perf_counter() - start > PATIENCE_S:
                raise ConventionError(f"vLLM wrote no page to the store within {PATIENCE_S:g} s; see its log.")
            await asyncio.sleep(POLL_S)
        self.store.delete([probe.key])
        for number, (ours, theirs) in enumerate(zip(page_layers(found[probe.key.digest]), expected.kv, strict=True)):
            for part_name, one, other in (("keys", ours.keys, theirs.keys), ("values", ours.values, theirs.values)):
                error = float((one.float() - other.float()).norm() / other.float().norm())
                # Written so that NaN fails, too.
                if not error <= expected.bound:
                    raise ConventionError(
                        f"Of {name}, the {part_name} of layer {number} in vLLM's pages differ from Hugging Face's by "
                        f"{error:.2g}, and {expected.bound:g} is allowed. Use Kamera."
                    )
