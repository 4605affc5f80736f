"""Orders and what they wanted, as files."""

from pathlib import Path

import pytest
import torch
from conftest import no_room

from kamera_agent.runtime.kernels.layers import LayerKV
from kamera_sglang.mailbox import Mailbox, Order, Pages

NUM_LAYERS = 2


@pytest.fixture
def mailbox(tmp_path: Path) -> Mailbox:
    return Mailbox(tmp_path)


def pages(start: int, num_tokens: int) -> Pages:
    return Pages(start, [LayerKV(*torch.randn(2, 3, num_tokens, 4).bfloat16()) for _ in range(NUM_LAYERS)])


def same(one: Pages, other: Pages) -> bool:
    layers = [*zip(one.layers, other.layers, strict=True)]
    equal = [torch.equal(a.keys, b.keys) and torch.equal(a.values, b.values) for a, b in layers]
    return one.start == other.start and all(equal)


def test_an_order_arrives_as_it_was_placed(mailbox: Mailbox) -> None:
    given = [pages(4, 5), pages(20, 1)]
    mailbox.place("a request", Order(40, given, [range(9, 20), range(30, 33)]))
    order = mailbox.order("a request")
    assert order
    assert (order.num_tokens, order.wanted) == (40, [range(9, 20), range(30, 33)])
    assert [part.stop for part in order.given] == [9, 21]
    assert all(map(same, order.given, given))


def test_what_was_wanted_arrives(mailbox: Mailbox) -> None:
    taken = pages(9, 11)
    mailbox.deliver("a request", [taken])
    found = mailbox.taken("a request")
    assert found
    assert same(found[0], taken)


def test_nothing_is_found_before_it_comes_and_after_it_is_cleared(mailbox: Mailbox, tmp_path: Path) -> None:
    assert mailbox.order("a") is None
    assert mailbox.taken("a") is None
    mailbox.place("a", Order(3, [pages(0, 2)]))
    mailbox.deliver("a", [])
    mailbox.clear("a")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("rid", ["../../etc/passwd", "a/b", "", "x" * 5000])
def test_no_id_of_a_request_leads_out_of_the_folder(mailbox: Mailbox, tmp_path: Path, rid: str) -> None:
    mailbox.place(rid, Order(7))
    order = mailbox.order(rid)
    assert order
    assert order.num_tokens == 7
    assert len([*tmp_path.iterdir()]) == 1


def test_a_damaged_order_is_none(mailbox: Mailbox, tmp_path: Path) -> None:
    mailbox.place("a", Order(9, [pages(0, 8)]))
    [path] = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    for place in (len(data) // 2, len(data) - 3):
        damaged = bytearray(data)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        assert mailbox.order("a") is None
    path.write_bytes(data[:-1])
    assert mailbox.order("a") is None
    path.unlink()
    path.mkdir()
    assert mailbox.order("a") is None


def test_what_has_no_room_is_missing(mailbox: Mailbox, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    order = Order(9, [pages(0, 8)], [range(8, 9)])
    with no_room():
        mailbox.place("a", order)
        mailbox.deliver("a", order.given)
    assert not [*tmp_path.iterdir()], "what was written of it takes no room, either"
    assert (mailbox.order("a"), mailbox.taken("a")) == (None, None)
    assert [str(tmp_path) in record.message for record in caplog.records] == [True]
    mailbox.place("a", order)
    assert mailbox.order("a")
