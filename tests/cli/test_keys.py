"""The commands on an encrypted store."""

import json
from pathlib import Path

import pytest
from cli_records import RunKamera

from kamera_agent.errors import StoreKeyError
from kamera_agent.store.lmdb_store import LmdbStore

pytest.importorskip("cryptography", reason="needs the extra encryption")


@pytest.fixture
def key(folder: Path, run_kamera: RunKamera) -> Path:
    """The key of the store, which was encrypted."""
    (folder.parent / "key").write_text("ab" * 32)
    done = run_kamera("rekey", folder, "--new-key", folder.parent / "key")
    assert (done.exit_code, done.stdout) == (0, "4 records are encrypted with the new key.\n")
    return folder.parent / "key"


def test_every_command_needs_the_key_and_takes_it(folder: Path, key: Path, run_kamera: RunKamera) -> None:
    archive = folder.parent / "archive"
    chunk = json.loads(run_kamera("ls", folder, "--key", key, "--json").stdout)[0]["digest"]
    commands = [
        ["stats", folder],
        ["ls", folder],
        ["show", chunk, folder],
        ["verify", folder],
        ["resize", folder, "1GB"],
        ["prune", folder, "--to", "1GB"],
        ["export", archive, folder, "--unencrypted"],
        ["import", archive, folder],
    ]
    for command in commands:
        done = run_kamera(*command, "--key", key)
        assert (done.exit_code, done.stderr) == (0, ""), command
        done = run_kamera(*command)
        assert (done.exit_code, done.stdout) == (1, ""), command
        assert "is encrypted; pass its key" in done.stderr


def test_rekeying_names_files_that_stay_in_the_clear(folder: Path, run_kamera: RunKamera) -> None:
    (folder.parent / "key").write_text("ab" * 32)
    for name in ("records-2.mdb", "records-4.damaged", "notes.txt"):
        (folder / name).write_text("in the clear")
    done = run_kamera("rekey", folder, "--new-key", folder.parent / "key")
    assert done.exit_code == 0
    assert [line.split()[0] for line in done.stderr.splitlines()] == [
        str(folder / name) for name in ("records-2.mdb", "records-4.damaged")
    ]


def test_an_archive_of_an_encrypted_store_must_be_asked_for(folder: Path, key: Path, run_kamera: RunKamera) -> None:
    done = run_kamera("export", folder.parent / "archive", folder, "--key", key)
    assert done.exit_code == 1
    assert "--unencrypted" in done.stderr
    assert not (folder.parent / "archive").exists()


def test_the_environment_gives_the_key(
    folder: Path, key: Path, run_kamera: RunKamera, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAMERA_KEY", "env:NEW")
    monkeypatch.setenv("NEW", "cd" * 32)
    done = run_kamera("rekey", folder, "--key", key, "--new-key", "env:NEW", "--json")
    assert json.loads(done.stdout) == {"num_records": 4, "num_damaged": 0}
    assert json.loads(run_kamera("stats", folder, "--json").stdout)["num_records"] == 4
    with pytest.raises(StoreKeyError):
        LmdbStore(folder, key=key)
    assert "cd" * 32 not in run_kamera("stats", folder, "--key", "env:OLD").stderr
