"""How long anybody waits for a medium, by a clock of the test's own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

import pytest

from kamera_agent.store.remote import wire
from kamera_agent.store.remote.wire import Allowance, Wire
from kamera_agent.trouble import Trouble

_log = logging.getLogger("test")
PATIENCE_S = 60.0


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(wire, "monotonic", clock := Clock())
    return clock


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Lets the calls end that nobody waits for any longer."""
    yield (gate := threading.Event())
    gate.set()


def make_wire(rests: int = 1, max_calls: int = 16) -> Wire:
    return Wire(Trouble(_log, "it fails", "it works again"), (ConnectionError,), rests, max_calls)


def failing(error: BaseException) -> Callable[[], None]:
    def call() -> None:
        raise error

    return call


def test_a_result_comes_back() -> None:
    assert make_wire().ask(lambda: [1, 2], PATIENCE_S) == [1, 2]


@pytest.mark.parametrize("rests", [1, 6])
def test_a_medium_that_failed_is_left_alone_for_a_while(
    clock: Clock, caplog: pytest.LogCaptureFixture, rests: int
) -> None:
    caplog.set_level(logging.INFO)
    line, calls = make_wire(rests), list[int]()
    assert line.ask(failing(ConnectionError("refused")), PATIENCE_S) is None
    for later in (0.0, rests * wire.REST_S - 0.1):
        clock.now = 100 + later
        assert line.ask(lambda: calls.append(1), PATIENCE_S) is None
    assert calls == []
    clock.now = 100 + rests * wire.REST_S
    assert line.ask(lambda: "there", PATIENCE_S) == "there"
    assert [record.message for record in caplog.records] == [
        "it fails: StoreUnavailableError: ConnectionError: refused",
        "it works again",
    ]
    assert caplog.records[0].exc_info is None


def test_a_fault_of_our_own_is_logged_with_its_place(caplog: pytest.LogCaptureFixture) -> None:
    assert make_wire().ask(failing(TypeError("no such thing")), PATIENCE_S) is None
    assert caplog.records[0].exc_info is not None


def test_a_panic_of_a_client_is_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    class Panic(BaseException):
        """As a client in Rust raises it: no Exception."""

    assert make_wire().ask(failing(Panic("forked")), PATIENCE_S) is None
    assert "Panic: forked" in caplog.text


def test_nobody_waits_longer_than_asked(gate: threading.Event, caplog: pytest.LogCaptureFixture) -> None:
    """The call ends only after the test: without a time-out, it would not."""
    assert make_wire().ask(gate.wait, 0.01) is None
    assert "it did not answer within 10 ms" in caplog.text


def test_calls_that_do_not_come_back_are_bounded(
    clock: Clock, gate: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    line, calls = make_wire(max_calls=3), list[int]()
    for _ in range(3):
        assert line.ask(gate.wait, 0.01) is None
        clock.now += wire.REST_S
    assert line.ask(lambda: calls.append(1), PATIENCE_S) is None
    assert calls == []


def test_no_time_left_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    line = make_wire()
    assert line.ask(lambda: "there", 0.0) is None
    assert line.ask(lambda: "there", PATIENCE_S) == "there"
    assert caplog.records == []


class TestStream:
    def test_what_a_call_yields_comes_while_it_goes_on(self, gate: threading.Event) -> None:
        """The second result comes only after the first one was taken."""

        def call() -> Iterator[int]:
            yield 1
            gate.wait()
            yield 2

        stream = make_wire().stream(call, PATIENCE_S)
        assert next(stream) == 1
        gate.set()
        assert [*stream] == [2]

    def test_what_came_before_a_failure_is_given(self, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        def call() -> Iterator[int]:
            yield 1
            raise ConnectionError("reset")

        line = make_wire()
        assert [*line.stream(call, PATIENCE_S)] == [1]
        assert "ConnectionError: reset" in caplog.text
        assert [*line.stream(call, PATIENCE_S)] == []
        clock.now += wire.REST_S
        assert [*line.stream(lambda: iter([3]), PATIENCE_S)] == [3]

    def test_what_comes_too_late_ends_it(self, gate: threading.Event, caplog: pytest.LogCaptureFixture) -> None:
        def call() -> Iterator[int]:
            yield 1
            gate.wait()
            yield 2

        assert [*make_wire().stream(call, 0.5)] == [1]
        assert "it did not answer within 500 ms" in caplog.text

    def test_what_has_come_is_given_however_long_the_caller_works(self, clock: Clock) -> None:
        come = threading.Event()

        def call() -> Iterator[int]:
            yield from (1, 2)
            come.set()

        stream = make_wire().stream(call, PATIENCE_S)
        assert next(stream) == 1
        assert come.wait(PATIENCE_S)
        clock.now += 2 * PATIENCE_S
        assert next(stream) == 2


class TestAllowance:
    def read(self, clock: Clock, allowance: Allowance, seconds: float) -> float:
        """What a read that takes so long may take."""

        def spend(given: float) -> float:
            clock.now += seconds
            return given

        return allowance.spend(spend)

    def test_the_reads_of_a_turn_share_it(self, clock: Clock) -> None:
        allowance = Allowance(0.2)
        for _ in range(2):
            allowance.begin()
            given = [self.read(clock, allowance, seconds) for seconds in (0.05, 0.1, 0.3, 0.1)]
            assert given == pytest.approx([0.2, 0.15, 0.05, 0.0])

    def test_reads_outside_of_turns_have_all_of_it(self, clock: Clock) -> None:
        allowance = Allowance(0.2)
        assert [self.read(clock, allowance, 0.15) for _ in range(3)] == [0.2, 0.2, 0.2]
        allowance.begin()
        self.read(clock, allowance, 0.15)
        clock.now += allowance.TURN_S
        assert [self.read(clock, allowance, 0.15) for _ in range(3)] == [0.2, 0.2, 0.2]

    def test_threads_have_turns_of_their_own(self, clock: Clock) -> None:
        allowance, given = Allowance(0.2), list[float]()
        allowance.begin()
        self.read(clock, allowance, 0.15)
        thread = threading.Thread(target=lambda: given.append(self.read(clock, allowance, 0.0)))
        thread.start()
        thread.join()
        assert given == [0.2]
