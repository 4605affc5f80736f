"""Live windows under several threads."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from models import screenshot

from kamera_agent import ImageContent, Kamera
from kamera_agent.turns.conversations import Conversations
from kamera_agent.window.layout import Item

TIMEOUT = 20
SIZE = (28, 28)


def test_a_conversation_ends_while_another_one_changes_its_window(
    kamera: Kamera, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever ends adds up the bytes of all windows; the change comes where it does that item by item."""
    conversations = Conversations(kamera, max_windows=8, max_bytes=1 << 30)
    counting, changed = threading.Event(), threading.Event()
    num_bytes = Item.num_bytes.fget  # type: ignore[attr-defined]

    def counted(item: Item) -> int:
        if threading.current_thread() is not threading.main_thread():
            counting.set()
            assert changed.wait(TIMEOUT)
        return num_bytes(item)

    def end() -> None:
        with conversations.hold("ends"):
            pass
        counting.set()

    monkeypatch.setattr(Item, "num_bytes", property(counted))
    with ThreadPoolExecutor() as pool, conversations.hold("changes") as window:
        ids = window.sync([ImageContent(screenshot(seed, *SIZE)) for seed in range(3)])
        window.sync(ids[2:])
        ended = pool.submit(end)
        assert counting.wait(TIMEOUT)
        window.sync([])
        changed.set()
        ended.result(TIMEOUT)


def test_dropped_bytes_are_those_of_what_can_be_recalled(kamera: Kamera) -> None:
    window = kamera.window()
    one, two, three = window.sync([ImageContent(screenshot(seed, *SIZE)) for seed in range(3)])
    assert window.dropped_bytes == 0
    window.drop(one)
    each = window.dropped_bytes
    assert each >= screenshot(0, *SIZE).nbytes
    window.drop(two)
    assert window.dropped_bytes == 2 * each
    window.recall(one)
    assert window.dropped_bytes == each
    window.sync([two, one])
    assert window.dropped_bytes == each
    window.sync([three, two, one])
    assert window.dropped_bytes == 0
    window.slide(1)
    assert window.dropped_bytes == 2 * each
