"""The half of the connector that is with vLLM's scheduler: what may be claimed, and when pages are whole."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.request import Request

from kamera_agent.chunk import Key
from kamera_agent.pages.page import page_chains, page_key
from kamera_agent.store.base import Store
from kamera_agent.vision.fingerprint import fingerprint_tokens
from kamera_vllm.orders import Filling, Keeping, Order, Step


@dataclass(slots=True)
class _Tracked:
    """A request on its way through the engine.

    keys: of the full blocks of a prompt without an order. claimed: the tokens that vLLM may take for computed.
    has_failed: whether their pages could not be filled. is_kept: whether the worker was asked to keep what is computed.
    """

    num_tokens: int
    order: Order | None
    keys: Sequence[Key]
    claimed: range = range(0)
    block_ids: list[int] = field(default_factory=list)
    has_failed: bool = False
    is_kept: bool = False


class Scheduler:
    """Answers vLLM's scheduler.

    facts: of the model, which the keys of exact pages depend on. takes_orders: whether requests come from VllmKamera;
        else their orders mean nothing, because anybody could write them.
    """

    def __init__(
        self, store: Store, namespace: str, facts: Mapping[str, Any], block_size: int, *, takes_orders: bool
    ) -> None:
        self._store = store
        self._namespace = namespace
        self._facts = {**facts, "page_size": block_size}
        self._block_size = block_size
        self._takes_orders = takes_orders
        self._tracked: dict[str, _Tracked] = {}
        self._fillings: list[Filling] = []

    def claim(self, request: Request, num_computed: int) -> int:
        """Tokens after the computed ones whose pages the worker can fill. May be asked repeatedly."""
        tracked = self._track(request)
        if tracked is None or tracked.has_failed:
            return 0
        end = (
            self._pages_end(tracked, num_computed)
            if tracked.order is None
            else self._row_end(tracked.order, num_computed)
        )
        tracked.claimed = range(num_computed, end)
        return len(tracked.claimed)

    def allocate(self, request: Request, block_ids: Sequence[int], num_claimed: int) -> None:
        """vLLM has blocks for a request, and waits until those of the claimed tokens are filled."""
        tracked = self._tracked.get(request.request_id)
        if tracked and num_claimed:
            tracked.block_ids = [*block_ids]
            first, last = tracked.claimed.start // self._block_size, tracked.claimed.stop // self._block_size
            keys = tracked.keys[first:last]
            filling = Filling(request.request_id, tracked.block_ids, tracked.claimed, tracked.order, keys)
            self._fillings.append(filling)

    def step(self, output: SchedulerOutput) -> Step:
        """What the worker does around the forward pass that vLLM has planned."""
        step, self._fillings = Step(self._fillings), []
        for request_id, num_computed in self._scheduled(output):
            tracked = self._tracked[request_id]
            is_whole = num_computed + output.num_scheduled_tokens[request_id] >= tracked.num_tokens
            if is_whole and not tracked.is_kept:
                tracked.is_kept = True
                keeping = Keeping([*tracked.block_ids], tracked.num_tokens, tracked.order, tracked.keys)
                step.keepings.append(keeping)
        return step

    def fail(self, block_ids: Collection[int]) -> None:
        """The worker could not fill these pages. vLLM computes their tokens."""
        for tracked in self._tracked.values():
            tracked.has_failed |= not set(block_ids).isdisjoint(tracked.block_ids)

    def finish(self, request: Request) -> None:
        """A request has left the engine."""
        self._tracked.pop(request.request_id, None)

    def _track(self, request: Request) -> _Tracked | None:
        """None where KV depends on more than is in our keys, or the tokens are not those of the order."""
        if request.lora_request is not None or request.prompt_token_ids is None:
            return None
        if request.request_id not in self._tracked:
            order = Order.of(request.kv_transfer_params) if self._takes_orders else None
            if order and order.prompt != fingerprint_tokens(request.prompt_token_ids):
                return None
            keys = self._keys(request) if order is None else ()
            self._tracked[request.request_id] = _Tracked(len(request.prompt_token_ids), order, keys)
        return self._tracked[request.request_id]

    def _row_end(self, order: Order, num_computed: int) -> int:
        """Where the recalled spans of a request end, if they begin where vLLM's own pages end."""
        row = order.claim
        # vLLM's own pages end with a block. Of the tokens between that and the row, the worker has the KV.
        first = row.start - row.start % self._block_size
        return row.stop if first <= num_computed < row.stop else num_computed

    def _pages_end(self, tracked: _Tracked, num_computed: int) -> int:
        """Where the pages that the store has end. One token is left to compute."""
        wanted = tracked.keys[num_computed // self._block_size : (tracked.num_tokens - 1) // self._block_size]
        known = takewhile(lambda key: self._store.headers(key.digest), wanted)
        return num_computed + sum(1 for _ in known) * self._block_size

    def _keys(self, request: Request) -> list[Key]:
        """Keys of the full blocks of a prompt."""
        chains = page_chains(self._pages(request))
        return [page_key(chain, self._namespace, **self._facts) for chain in chains]

    def _pages(self, request: Request) -> Iterator[dict[str, Any]]:
        """What the KV of each full block of a prompt depends on: its tokens, and the media in the place of some."""
        token_ids, size = request.prompt_token_ids or [], self._block_size
        for start in range(0, len(token_ids) - size + 1, size):
            media = [
                (feature.identifier, feature.mm_position.offset - start)
                for feature in request.mm_features
                if feature.mm_position.offset < start + size
                and feature.mm_position.offset + feature.mm_position.length > start
            ]
            yield {"tokens": token_ids[start : start + size], "media": media, "salt": request.cache_salt}

    def _scheduled(self, output: SchedulerOutput) -> Iterator[tuple[str, int]]:
        """The requests of a pass, each with its computed tokens. Notes their blocks."""
        for new in output.scheduled_new_reqs:
            if tracked := self._tracked.get(new.req_id):
                tracked.block_ids = [*new.block_ids[0]]
                yield new.req_id, new.num_computed_tokens
        others = output.scheduled_cached_reqs
        for index, request_id in enumerate(others.req_ids):
            if tracked := self._tracked.get(request_id):
                added = others.new_block_ids[index]
                if request_id in others.resumed_req_ids:
                    tracked.block_ids = []
                tracked.block_ids += added[0] if added else []
                yield request_id, others.num_computed_tokens[index]
