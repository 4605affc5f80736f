"""The connector that vLLM loads: our store, which is asked for what its paged cache lacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorBase_V1, KVConnectorMetadata, KVConnectorRole

from kamera_agent.config import Settings
from kamera_agent.errors import SettingError, UnsupportedModelError
from kamera_agent.pages.window import engine_settings
from kamera_agent.runtime.rotation import Rotation
from kamera_agent.store.opening import open_store
from kamera_vllm.orders import Step
from kamera_vllm.pages import Pages, learn_places
from kamera_vllm.scheduler import Scheduler
from kamera_vllm.worker import Worker

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.forward_context import ForwardContext
    from vllm.v1.core.kv_cache_manager import KVCacheBlocks
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.kv_cache_interface import KVCacheConfig
    from vllm.v1.outputs import KVConnectorOutput
    from vllm.v1.request import Request


class KameraConnector(KVConnectorBase_V1):
    """vLLM makes two of it: one with the scheduler, and one with the worker. transfer_config() tells vLLM of it.

    Raises SettingError and UnsupportedModelError where vLLM is set to what it cannot serve.
    """

    def __init__(self, vllm_config: VllmConfig, role: KVConnectorRole, kv_cache_config: KVCacheConfig) -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        _check(vllm_config, kv_cache_config)
        facts = vllm_config.kv_transfer_config.kv_connector_extra_config
        self._settings: Settings = engine_settings(facts["settings"], "kamera_vllm")
        self._rotation = Rotation.from_json(facts["rotation"])
        self._block_size: int = vllm_config.cache_config.block_size
        self._store = open_store(facts["store"], self._settings)
        self._worker: Worker | None = None
        self._scheduler = Scheduler(
            self._store,
            self._settings.namespace,
            {"model": facts["model"]},
            self._block_size,
            takes_orders=facts["takes_orders"],
        )

    @property
    def requires_kv_delivery(self) -> bool:
        """A cache may forget."""
        return False

    # With the scheduler.

    def get_num_new_matched_tokens(self, request: Request, num_computed_tokens: int) -> tuple[int, bool]:
        num_claimed = self._scheduler.claim(request, num_computed_tokens)
        # The request waits until its pages are filled. If it did not, vLLM would drop the pixels of claimed images, and
        # the engine would die where a page could not be filled after all.
        return num_claimed, num_claimed > 0

    def update_state_after_alloc(self, request: Request, blocks: KVCacheBlocks, num_external_tokens: int) -> None:
        [block_ids] = blocks.get_block_ids()
        self._scheduler.allocate(request, block_ids, num_external_tokens)

    def build_connector_meta(self, scheduler_output: SchedulerOutput) -> KVConnectorMetadata:
        return self._scheduler.step(scheduler_output)

    def update_connector_output(self, connector_output: KVConnectorOutput) -> None:
        self._scheduler.fail(connector_output.invalid_block_ids)

    def request_finished(self, request: Request, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        self._scheduler.finish(request)
        return False, None

    # With the worker.

    def register_kv_caches(self, kv_caches: dict[str, torch.Tensor]) -> None:
        rotation, layers = self._rotation, self._vllm_config.compilation_config.static_forward_context
        # In the order of the layers, which is that of the numbers in their names.
        names = sorted(kv_caches, key=_number_of)
        caches = [kv_caches[name] for name in names]
        _check_caches(rotation, self._block_size, caches)
        places = learn_places(layers[names[0]], caches[0], rotation.heads)
        pages = [Pages(layers[name], kv_caches[name], places, rotation.heads) for name in names]
        self._worker = Worker(self._store, self._settings, rotation, self._block_size, pages)

    def start_load_kv(self, forward_context: ForwardContext, **kwargs: Any) -> None:
        if self._worker:
            self._worker.fill(self._step.fillings)

    def wait_for_layer_load(self, layer_name: str) -> None:
        """A request is scheduled when its pages are filled."""

    def save_kv_layer(self, layer_name: str, kv_layer: torch.Tensor, attn_metadata: Any, **kwargs: Any) -> None:
        """Pages are read when the pass is over."""

    def wait_for_save(self) -> None:
        if self._worker:
            self._worker.keep(self._step.keepings)

    def get_finished(self, finished_req_ids: set[str]) -> tuple[set[str] | None, set[str] | None]:
        return None, self._worker.filled() if self._worker else None

    def get_block_ids_with_load_errors(self) -> set[int]:
        return self._worker.failed() if self._worker else set()

    def shutdown(self) -> None:
        if self._worker:
            self._worker.close()
        self._store.close()

    @property
    def _step(self) -> Step:
        step = self._get_connector_metadata()
        assert isinstance(step, Step)
        return step


def _number_of(name: str) -> int:
    """The number of a layer in its name, such as language_model.model.layers.3.self_attn.attn."""
    [number] = [int(part) for part in name.split(".") if part.isdecimal()]
    return number


def _check(vllm_config: VllmConfig, kv_cache_config: KVCacheConfig) -> None:
    """Raise where vLLM is set to something that a chunk cannot be put into."""
    parallel = vllm_config.parallel_config
    if parallel.world_size > 1:
        raise UnsupportedModelError(
            f"vLLM splits the model over {parallel.world_size} devices, and with it the KV of each token; kamera_vllm "
            "serves tensor_parallel_size=1 and pipeline_parallel_size=1."
        )
    if len(kv_cache_config.kv_cache_groups) != 1:
        raise UnsupportedModelError(
            f"vLLM caches layers of {len(kv_cache_config.kv_cache_groups)} kinds. A chunk of a hybrid or sliding model "
            "is more than its pages; use Kamera."
        )
    if vllm_config.kv_transfer_config.kv_load_failure_policy != "recompute":
        raise SettingError("kv_load_failure_policy must be 'recompute': a store may forget. Use transfer_config().")


def _check_caches(rotation: Rotation, block_size: int, caches: Sequence[torch.Tensor]) -> None:
    """Raise UnsupportedModelError where vLLM's cache is not of the model's KV."""
    expected = rotation.heads.num, block_size, 2 * rotation.heads.dim
    for number, cache in enumerate(caches):
        if tuple(cache.shape[1:]) != expected or cache.dtype != rotation.kv_dtype:
            raise UnsupportedModelError(
                f"Layer {number} of vLLM's cache is {cache.dtype} {list(cache.shape[1:])}, and the KV of the model is "
                f"{rotation.kv_dtype} {list(expected)} (heads, tokens of a block, K and V). Leave kv_cache_dtype at "
                "'auto', and load the model in the dtype of its store."
            )
    if len(caches) != rotation.num_layers:
        raise UnsupportedModelError(f"vLLM caches {len(caches)} layers, and the model has {rotation.num_layers}.")
