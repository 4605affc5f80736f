"""A trouble is said when it begins and when it is over."""

import logging

import pytest

from kamera_agent import trouble
from kamera_agent.errors import StoreUnavailableError
from kamera_agent.trouble import Trouble

logger = logging.getLogger("kamera_agent.test")


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "kamera_agent.test")
    return caplog


def fail(disk: Trouble, error: Exception, times: int = 3) -> None:
    for _ in range(times):
        with disk.contained():
            raise error


def work(disk: Trouble) -> None:
    for _ in range(3):
        with disk.contained():
            pass


def test_it_is_said_once(said: pytest.LogCaptureFixture) -> None:
    disk = Trouble(logger, "the disk fails", "the disk works")
    work(disk)
    fail(disk, OSError("full"))
    work(disk)
    assert [line.message for line in said.records] == ["the disk fails: OSError: full", "the disk works"]


def test_one_that_comes_and_goes_is_said_once_in_a_while(
    said: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Trouble(logger, "the disk fails", "the disk works")
    for _ in range(50):
        fail(disk, OSError("full"))
        work(disk)
    assert len(said.records) == 2
    monkeypatch.setattr(trouble, "QUIET_S", 0.0)
    fail(disk, OSError("full"))
    assert len(said.records) == 3


@pytest.mark.parametrize(
    ("error", "has_traceback"), [(OSError(), False), (StoreUnavailableError(), False), (ZeroDivisionError(), True)]
)
def test_what_does_not_explain_itself_has_a_traceback(
    said: pytest.LogCaptureFixture, error: Exception, has_traceback: bool
) -> None:
    fail(Trouble(logger, "it fails", "it works"), error)
    [line] = said.records
    assert bool(line.exc_info) == has_traceback


def test_what_ends_a_program_is_not_contained() -> None:
    with pytest.raises(KeyboardInterrupt), Trouble(logger, "it fails", "it works").contained():
        raise KeyboardInterrupt
