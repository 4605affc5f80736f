"""The benchmark of forecasts: a step that is foreseen computes its new message alone."""

import json
import sys

import pytest

from benchmarks import foresight


def test_foresight(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["foresight", "--json", "--steps", "7", "--clients", "stub"])
    foresight.main()
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    foreseen, healed = (result["stub"][way] for way in ("foreseen", "healed"))
    # The first drop is a surprise to both.
    assert foreseen["computed"][:4] == healed["computed"][:4]
    assert max(foreseen["computed"][4:]) < 320 < 600 < min(healed["computed"][4:])
    assert foreseen["mean"] == sum(foreseen["computed"][5:]) / 2
