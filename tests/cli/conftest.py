"""A store with two chunks in it, and the command line."""

from contextlib import closing
from pathlib import Path

import pytest
from cli_records import RunKamera, page, patch
from typer.testing import CliRunner

from kamera_agent.cli import app
from kamera_agent.store.lmdb_store import LmdbStore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store: a page with two patches, and a page of another namespace with none."""
    first, second = page("first"), page("second", namespace="team")
    chunk = first.header.chunk
    with closing(LmdbStore(tmp_path / "store")) as store:
        store.put_many([first, second, patch(chunk, (4, 2), 0.25), patch(chunk, (8, 8), 0.125)])
    return tmp_path / "store"


@pytest.fixture
def run_kamera() -> RunKamera:
    """Run `kamera` with these arguments."""
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])
