"""What is claimed of a request, and when its pages are filled and read, without an engine."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kamera_agent.antecedents import Antecedents
from kamera_agent.chunk import Key
from kamera_agent.pages.page import page_record
from kamera_agent.pages.span import Load
from kamera_agent.runtime.kernels.layers import LayerKV
from kamera_agent.store.memory import MemoryStore
from kamera_agent.vision.fingerprint import fingerprint_tokens
from kamera_agent.window.evidence import Evidence
from kamera_vllm.orders import PARAMETER, Order, Step
from kamera_vllm.scheduler import Scheduler

BLOCK, TOKENS = 16, list(range(100))
# The row of recalled spans is [37, 61).
LOADS = tuple(
    Load(first, torch.arange(first, first + 12).expand(3, -1), Evidence(Antecedents(), Key.of(n=first)))
    for first in (37, 49)
)
ORDER = Order("w", fingerprint_tokens(TOKENS), LOADS)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(1 << 20)


@pytest.fixture
def scheduler(store: MemoryStore) -> Scheduler:
    return Scheduler(store, "default", {"model": "m"}, BLOCK, takes_orders=True)


def request(order: Order | None = ORDER, name: str = "r", **facts: Any) -> Any:
    params = None if order is None else {PARAMETER: order.to_json()}
    plain = {"prompt_token_ids": TOKENS, "mm_features": [], "cache_salt": None, "lora_request": None}
    return SimpleNamespace(**{"request_id": name, "kv_transfer_params": params, **plain, **facts})


def image(identifier: str, offset: int, length: int) -> Any:
    return SimpleNamespace(identifier=identifier, mm_position=SimpleNamespace(offset=offset, length=length))


def scheduled(name: str = "r", computed: int = 0, num: int = 100, blocks: tuple[int, ...] = tuple(range(7))) -> Any:
    new = SimpleNamespace(req_id=name, block_ids=([*blocks],), num_computed_tokens=computed)
    others = SimpleNamespace(req_ids=[], resumed_req_ids=set(), new_block_ids=[], num_computed_tokens=[])
    return SimpleNamespace(
        scheduled_new_reqs=[new], scheduled_cached_reqs=others, num_scheduled_tokens={name: num - computed}
    )


def idle() -> Any:
    others = SimpleNamespace(req_ids=[], resumed_req_ids=set(), new_block_ids=[], num_computed_tokens=[])
    return SimpleNamespace(scheduled_new_reqs=[], scheduled_cached_reqs=others, num_scheduled_tokens={})


def fill(store: MemoryStore, step: Step, number: int) -> None:
    """Put the first pages of what is to be kept into the store."""
    [keeping] = step.keepings
    layers = [LayerKV(torch.zeros(1, BLOCK, 2), torch.zeros(1, BLOCK, 2))]
    store.put_many([page_record(key, layers) for key in keeping.keys[:number]])


@pytest.mark.parametrize("order", [ORDER.to_json(), {}, "anything"], ids=["whole", "empty", "a text"])
def test_a_server_takes_no_orders_from_its_clients(store: MemoryStore, order: Any) -> None:
    """The request is one as any other: its exact pages are kept, and found again."""
    server = Scheduler(store, "default", {"model": "m"}, BLOCK, takes_orders=False)
    ordered = request(None, kv_transfer_params={PARAMETER: order})
    assert server.claim(ordered, 32) == 0
    fill(store, server.step(scheduled()), 6)
    again = request(None, "again", kv_transfer_params={PARAMETER: order})
    assert server.claim(again, 0) == 6 * BLOCK


@pytest.mark.parametrize(
    ("computed", "claimed"),
    [(0, 0), (16, 0), (32, 29), (48, 13), (64, 0)],
    ids=["nothing is there", "a block is missing", "up to the row", "in the row", "past the row"],
)
def test_a_row_is_claimed_where_the_pages_of_vllm_end(scheduler: Scheduler, computed: int, claimed: int) -> None:
    assert scheduler.claim(request(), computed) == claimed
    assert scheduler.claim(request(), computed) == claimed, "asking changes nothing"


def test_claimed_pages_are_filled_before_the_request_is_scheduled(scheduler: Scheduler) -> None:
    num_claimed = scheduler.claim(request(), 32)
    scheduler.allocate(request(), [9, 8, 7, 6, 5, 4, 3], num_claimed)
    [filling] = scheduler.step(idle()).fillings
    assert (filling.tokens, filling.block_ids) == (range(32, 61), [9, 8, 7, 6, 5, 4, 3])
    assert filling.order is not None
    assert [load.first for load in filling.order.loads] == [37, 49]
    # vLLM says again that it has blocks, now without a claim.
    scheduler.allocate(request(), [9, 8, 7, 6, 5, 4, 3], 0)
    step = scheduler.step(scheduled(computed=61, blocks=(9, 8, 7, 6, 5, 4, 3)))
    assert not step.fillings
    assert [keeping.block_ids for keeping in step.keepings] == [[9, 8, 7, 6, 5, 4, 3]]
    assert not scheduler.step(scheduled(computed=61)).keepings, "what is computed is kept once"


def test_a_prompt_that_is_computed_in_several_passes_is_kept_after_the_last(scheduler: Scheduler) -> None:
    scheduler.claim(request(), 0)
    assert not scheduler.step(scheduled(num=50, blocks=(1, 2, 3, 4))).keepings
    rest = idle()
    others = rest.scheduled_cached_reqs
    others.req_ids, others.new_block_ids, others.num_computed_tokens = ["r"], [([5, 6, 7],)], [50]
    rest.num_scheduled_tokens = {"r": 50}
    [keeping] = scheduler.step(rest).keepings
    assert keeping.block_ids == [1, 2, 3, 4, 5, 6, 7]


def test_what_could_not_be_filled_is_not_claimed_again(scheduler: Scheduler) -> None:
    scheduler.allocate(request(), range(7), scheduler.claim(request(), 32))
    scheduler.fail({3})
    assert scheduler.claim(request(), 32) == 0
    scheduler.finish(request())
    assert scheduler.claim(request(), 32) == 29, "another request may try"


def test_an_order_for_other_tokens_is_left_alone(scheduler: Scheduler) -> None:
    """As where vLLM makes another number of tokens of an image."""
    other = request(prompt_token_ids=TOKENS[:-1])
    assert scheduler.claim(other, 32) == 0
    assert not scheduler.step(scheduled(num=99)).keepings


def test_pages_are_claimed_up_to_the_first_that_is_missing(scheduler: Scheduler, store: MemoryStore) -> None:
    plain = request(None)
    assert scheduler.claim(plain, 0) == 0
    fill(store, scheduler.step(scheduled()), 3)
    again = request(None, "s")
    assert scheduler.claim(again, 0) == 3 * BLOCK
    assert scheduler.claim(again, BLOCK) == 2 * BLOCK
    scheduler.allocate(again, range(7), 2 * BLOCK)
    [filling] = scheduler.step(idle()).fillings
    assert (filling.tokens, len(filling.keys)) == (range(BLOCK, 3 * BLOCK), 2)
    assert scheduler.claim(request(None, "t", prompt_token_ids=TOKENS[: 3 * BLOCK]), 0) == 2 * BLOCK, "one is computed"


@pytest.mark.parametrize(
    "facts",
    [
        {"cache_salt": "other"},
        {"mm_features": [image("a cat", 5, 8)]},
        {"mm_features": [image("a dog", 4, 8)]},
        {"lora_request": object()},
    ],
    ids=["salt", "image", "place", "adapter"],
)
def test_pages_of_other_requests_are_not_taken(scheduler: Scheduler, store: MemoryStore, facts: Any) -> None:
    """The tokens are equal: all pictures have the same placeholders."""
    known = request(None, mm_features=[image("a cat", 4, 8)])
    scheduler.claim(known, 0)
    fill(store, scheduler.step(scheduled()), 6)
    assert scheduler.claim(request(None, "same", mm_features=[image("a cat", 4, 8)]), 0) == 6 * BLOCK
    assert scheduler.claim(request(None, "other", **facts), 0) == 0
