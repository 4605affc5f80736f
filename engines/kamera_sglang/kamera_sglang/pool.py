"""The engine's pool of KV: rows of K after RoPE and V, read and written by slot."""

from __future__ import annotations

from typing import Any

import torch
from sglang.srt.mem_cache.memory_pool import MHATokenToKVPool

from kamera_agent.errors import UnsupportedModelError
from kamera_agent.runtime.kernels.layers import LayerKV


class EnginePool:
    """SGLang's pool for one K and one V per key/value head: per layer k_buffer and v_buffer [slots, H, D].

    Raises UnsupportedModelError for any other pool.
    """

    def __init__(self, kvcache: Any) -> None:
        if type(kvcache) is not MHATokenToKVPool:
            raise UnsupportedModelError(
                f"SGLang keeps the KV of this model in a {type(kvcache).__name__}. kamera_sglang serves models whose "
                "layers all keep one K and one V per head (MHATokenToKVPool): no latent (MLA), no sliding window and "
                "no recurrent layers. Start the engine without the linker."
            )
        if kvcache.store_dtype != kvcache.dtype:
            raise UnsupportedModelError(
                f"SGLang keeps KV in {kvcache.dtype}, which is rounded once more than the KV of other engines. Start "
                "it with kv_cache_dtype='auto'."
            )
        self._kvcache = kvcache
        self.dtype: torch.dtype = kvcache.dtype

    @property
    def num_layers(self) -> int:
        """Layers that keep KV."""
        return len(self._kvcache.k_buffer)

    @property
    def heads(self) -> tuple[int, int, int]:
        """Heads of a layer, and components of a head of K and of V."""
        keys, values = self._kvcache.k_buffer[0], self._kvcache.v_buffer[0]
        return keys.shape[1], keys.shape[2], values.shape[2]

    def read(self, slots: torch.Tensor) -> list[LayerKV]:
        """A copy of the rows in slots [T], per layer [H, T, D] on the CPU."""
        self.synchronize()
        buffers = zip(self._kvcache.k_buffer, self._kvcache.v_buffer, strict=True)
        return [LayerKV(_by_head(keys[slots]), _by_head(values[slots])) for keys, values in buffers]

    def write(self, layer: int, slots: torch.Tensor, kv: LayerKV) -> None:
        """Write the KV of tokens, [H, T, D], into their slots [T] of one layer."""
        for buffer, rows in ((self._kvcache.k_buffer, kv.keys), (self._kvcache.v_buffer, kv.values)):
            buffer[layer][slots] = rows.transpose(0, 1).to(buffer[layer].device)

    def synchronize(self) -> None:
        """Wait for a GPU: forward passes run on another stream than the scheduler's."""
        if (device := self._kvcache.k_buffer[0].device).type == "cuda":
            torch.cuda.synchronize(device)


def _by_head(rows: torch.Tensor) -> torch.Tensor:
    return rows.transpose(0, 1).contiguous().cpu()
