"""A store of two chunks, and the command line."""

from contextlib import closing
from pathlib import Path

import pytest
from cli_records import RunKamera, page, patch
from typer.testing import CliRunner

from kamera_agent.cli import app
from kamera_agent.store.lmdb_store import LmdbStore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store of two pages: one with two patches, and one of another namespace without any."""
    first, second = page("first"), page("second", namespace="team", value=3.25)
    chunk = first.header.chunk
    with closing(LmdbStore(tmp_path / "store", 20_000_000)) as store:
        store.put_many([first, second, patch(chunk, (4, 2), 0.25), patch(chunk, (8, 8), 0.125)])
    return tmp_path / "store"


@pytest.fixture
def run_kamera() -> RunKamera:
    """Runs `kamera` with the given arguments."""
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])
