"""Which screenshots stay: against a plain loop over every case."""

import pytest

from kamera_agent import SettingError
from kamera_agent.turns.policy import Budget, Interval, KeepLast


@pytest.mark.parametrize("count", range(5))
@pytest.mark.parametrize("length", range(8))
def test_keep_last(count: int, length: int) -> None:
    kept = [*range(length)][KeepLast(count).first([1] * length) :]
    assert kept == [index for index in range(length) if length - index <= count]


@pytest.mark.parametrize("keep", [1, 3])
@pytest.mark.parametrize("drop", [1, 2, 4])
def test_interval_drops_so_many_at_once(keep: int, drop: int) -> None:
    first = 0
    for length in range(20):
        if length - first >= keep + drop:
            first += drop
        assert Interval(keep, drop).first([1] * length) == first


def test_a_budget_by_hand() -> None:
    sizes = [50, 30, 20, 10]
    assert [Budget(tokens).first(sizes) for tokens in (1, 10, 29, 30, 60, 109, 110)] == [3, 3, 3, 2, 1, 1, 0]
    assert Budget(5).first([]) == 0


def test_bad_policies() -> None:
    for make in (lambda: KeepLast(-1), lambda: Interval(3, 0), lambda: Budget(0)):
        with pytest.raises(SettingError, match="or more"):
            make()
