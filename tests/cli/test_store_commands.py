"""kamera stats, ls, show, verify, resize and prune, on a store made by hand."""

import json
import os
import re
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import lmdb
import numpy as np
import pytest
from cli_records import RunKamera, page
from typer.testing import CliRunner

from kamera_agent.cli import app
from kamera_agent.cli.arguments import parse_size
from kamera_agent.store.environment import DATABASE
from kamera_agent.store.lmdb_store import LmdbStore

COMMANDS = ["stats", "ls", "verify"]


def test_stats_counts_by_kind(folder: Path, run_kamera: RunKamera) -> None:
    done = run_kamera("stats", folder, "--json")
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert found["kinds"]["base"] == {"num_records": 2, "num_bytes": 2 * 1536}
    assert found["kinds"]["patch"]["num_records"] == 2
    assert found["num_records"] == 4
    assert found["cap_bytes"] > 0


def test_stats_prints_a_table(folder: Path, run_kamera: RunKamera) -> None:
    done = run_kamera("stats", folder)
    assert done.exit_code == 0
    for word in (str(folder), "base", "3.1 kB", "patch", "cap"):
        assert word in done.stdout


def test_ls_tells_chunks_and_patches(folder: Path, run_kamera: RunKamera) -> None:
    done = run_kamera("ls", folder, "--json")
    assert done.exit_code == 0
    first, second = json.loads(done.stdout)
    assert [chunk["facts"]["namespace"] for chunk in (first, second)] == ["default", "team"]
    assert first["facts"]["model"] == {"config": {"model_type": "qwen2_vl"}}
    base, *patches = first["records"]
    assert (base["kind"], base["num_bytes"], base["antecedents"], base["exact"]) == ("base", 1536, [], True)
    assert sorted(found["ranks"] for found in patches) == [[4, 2], [8, 8]]
    assert patches[0]["antecedents"] == ["ab" * 32]
    assert first["num_bytes"] == sum(found["num_bytes"] for found in first["records"])
    assert (first["contexts"], second["contexts"], len(second["records"])) == (3, 1, 1)


def test_ls_prints_one_line_per_chunk(folder: Path, run_kamera: RunKamera) -> None:
    done = run_kamera("ls", folder)
    assert done.exit_code == 0
    _, first, second = done.stdout.splitlines()
    pattern = r"image 1280x720 default qwen2_vl 5\.4 kB 3 0 \d+ s \d+ s no 2 to 8 0\.125 to 0\.250"
    assert re.fullmatch(pattern, " ".join(first.split()[1:]))
    assert re.fullmatch(r"image 1280x720 team qwen2_vl 1\.5 kB 1 0 \d+ s \d+ s no - -", " ".join(second.split()[1:]))


def test_ls_in_every_order_and_of_one_namespace(folder: Path, run_kamera: RunKamera) -> None:
    """The second page is used twice; the first has patches, which are written later than both."""
    with LmdbStore(folder) as store:
        store.get_many([page("second", "team").header.key])
        store.use([page("second", "team").header.key])

    def names(*options: str) -> list[str]:
        return [chunk["facts"]["pixels"] for chunk in json.loads(run_kamera("ls", folder, "--json", *options).stdout)]

    orders = {order: names("--sort", order) for order in ("name", "size", "hits", "age", "used")}
    first = ["first", "second"]
    assert orders == {"name": first, "size": first, "age": first, "hits": first[::-1], "used": first[::-1]}
    assert names("--namespace", "team") == ["second"]
    assert names("--namespace", "nobody") == []
    assert [chunk["hits"] for chunk in json.loads(run_kamera("ls", folder, "--json").stdout)] == [0, 2]
    assert run_kamera("ls", folder, "--sort", "colour").exit_code == 2


def test_show_takes_the_beginning_of_any_key_of_a_chunk(folder: Path, run_kamera: RunKamera) -> None:
    chunk = page("first").header.key.digest.hex()
    done = run_kamera("show", chunk[:6].upper(), folder, "--json")
    found = json.loads(done.stdout)
    assert (found["digest"], len(found["records"])) == (chunk, 3)
    over = found["records"][2]["digest"]
    assert json.loads(run_kamera("show", over, folder, "--json").stdout) == found
    table = run_kamera("show", chunk, folder).stdout
    for word in (chunk, "1280x720", over[:12], "0.125", "no other chunk", "ab" * 6, "5.4 kB"):
        assert word in table


def test_show_says_what_is_wrong_with_a_key(folder: Path, run_kamera: RunKamera) -> None:
    for key, message in (("fff0ff", "No chunk"), ("xyz", "No chunk"), ("", "No chunk")):
        done = run_kamera("show", key, folder)
        assert (done.exit_code, done.stdout) == (1, "")
        assert message in done.stderr
    with LmdbStore(folder) as store:
        store.put_many(page(f"page {number}") for number in range(16))
    chunks = json.loads(run_kamera("ls", folder, "--json").stdout)
    digits = Counter(digit for chunk in chunks for digit in {each["digest"][0] for each in [chunk, *chunk["records"]]})
    ((digit, count),) = digits.most_common(1)
    assert f"{count} chunks have keys that begin with {digit!r}" in run_kamera("show", digit, folder).stderr


def test_verify_passes_a_whole_store(folder: Path, run_kamera: RunKamera) -> None:
    done = run_kamera("verify", folder)
    assert done.exit_code == 0
    assert done.stdout.startswith("4 records, ")


def test_verify_names_what_is_damaged_and_repairs_when_asked(folder: Path, run_kamera: RunKamera) -> None:
    """1. Reading commands report, as often as they run, and remove nothing. 2. --repair removes it, and says so."""
    # The page without patches: a damaged base takes its patches with it.
    damage(folder / DATABASE, np.full(192, 3.25, dtype=np.float32).tobytes())
    for _ in range(2):
        done = run_kamera("verify", folder)
        assert done.exit_code == 3
        assert "checksum" in done.stdout
        assert done.stdout.endswith("1 problem was found; --repair removes what is damaged.\n")
        assert json.loads(run_kamera("stats", folder, "--json").stdout)["num_records"] == 4
        assert len(json.loads(run_kamera("ls", folder, "--json").stdout)) == 2
    done = run_kamera("verify", folder, "--repair", "--json")
    assert done.exit_code == 3
    report = json.loads(done.stdout)
    assert (report["num_records"], len(report["problems"]), report["repaired"]) == (3, 1, True)
    assert run_kamera("verify", folder).exit_code == 0


def test_repair_removes_nothing_else(folder: Path, run_kamera: RunKamera, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the default cap is: here, less than the store holds."""
    monkeypatch.setattr("kamera_agent.store.capacity.MAX_DEFAULT_CAP_BYTES", 1)
    damage(folder / DATABASE, np.full(192, 7.25, dtype=np.float32).tobytes())
    before = json.loads(run_kamera("stats", folder, "--json").stdout)
    done = run_kamera("verify", folder, "--repair")
    assert done.stdout.endswith("1 problem was found, and what is damaged was removed.\n")
    after = json.loads(run_kamera("stats", folder, "--json").stdout)
    assert after["cap_bytes"] == before["cap_bytes"]
    # The base and its two patches.
    assert after["num_records"] == before["num_records"] - 3


def test_a_store_that_was_cut_short_is_moved_aside_only_by_a_repair(folder: Path, run_kamera: RunKamera) -> None:
    database = folder / DATABASE
    os.truncate(database, database.stat().st_size // 2)
    before = database.read_bytes()
    archive = folder.parent / "archive"
    commands = [[each, folder] for each in ("stats", "ls", "verify", "prune", "resize")]
    commands[3] += ["--to", "1MB"]
    commands[4] += ["1MB"]
    for command in [*commands, ["show", "ab", folder], ["export", archive, folder]]:
        done = run_kamera(*command)
        assert (done.exit_code, done.stdout) == (3, ""), command
        assert "beyond EOF" in done.stderr
        assert "kamera verify --repair" in done.stderr
        assert database.read_bytes() == before
    assert not archive.exists()
    done = run_kamera("verify", folder, "--repair")
    assert done.exit_code == 3
    assert "beyond EOF" in done.stdout
    assert "0 records, 0 B, are whole; " in done.stdout
    assert (folder / "records-4.damaged").read_bytes() == before
    assert run_kamera("verify", folder).stdout == "0 records, 0 B, are whole.\n"


def test_resize_sets_the_cap_and_removes_what_is_above(folder: Path, run_kamera: RunKamera) -> None:
    done = run_kamera("resize", folder, "8.2 kB")
    assert done.exit_code == 0
    assert done.stdout == "2 records removed; 2 records, 8.2 kB of at most 8.2 kB are left.\n"
    assert json.loads(run_kamera("stats", folder, "--json").stdout)["cap_bytes"] == 8200


def test_prune_by_namespace_size_and_age(folder: Path, run_kamera: RunKamera) -> None:
    done = run_kamera("prune", folder, "--namespace", "team")
    assert (done.exit_code, done.stdout) == (0, "1 records removed; 3 records, 12.3 kB of at most 20.0 MB are left.\n")
    assert run_kamera("prune", folder, "--older-than", "1h").stdout.startswith("0 records removed; 3 records")
    assert run_kamera("prune", folder, "--to", "8.2kB").stdout.startswith("1 records removed; 2 records, 8.2 kB")
    assert run_kamera("prune", folder, "--older-than", "0s").stdout.startswith("2 records removed; 0 records")
    assert run_kamera("verify", folder).exit_code == 0


def test_a_pinned_chunk_outlives_the_others(folder: Path, run_kamera: RunKamera) -> None:
    chunk = page("first").header.key.digest.hex()
    assert run_kamera("pin", chunk[:12], folder).stdout == f"{chunk} is pinned.\n"
    assert [found["pinned"] for found in json.loads(run_kamera("ls", folder, "--json").stdout)] == [True, False]
    assert "1 records removed; 3 records" in run_kamera("prune", folder, "--older-than", "0s").stdout
    assert run_kamera("pin", chunk[:12], folder, "--off").stdout == f"{chunk} is not pinned.\n"
    assert "3 records removed; 0 records" in run_kamera("prune", folder, "--older-than", "0s").stdout
    assert run_kamera("pin", chunk[:12], folder).exit_code == 1


def test_a_quota_and_a_time_are_set_shown_and_taken_back(folder: Path, run_kamera: RunKamera) -> None:
    """Each record counts as 4 KiB, so one base of each namespace is left of two with two patches."""
    assert json.loads(run_kamera("quota", folder, "4KiB", "--json").stdout)["removed"] == 2
    assert run_kamera("ttl", folder, "30d").stdout.startswith("0 records removed; 2 records")
    shown = json.loads(run_kamera("stats", folder, "--json").stdout)
    assert (shown["num_records"], shown["quota_bytes"], shown["ttl_s"]) == (2, 4096, 30 * 86400)
    assert "2592000 s" in run_kamera("stats", folder).stdout
    assert run_kamera("quota", folder, "none").exit_code == run_kamera("ttl", folder, "none").exit_code == 0
    shown = json.loads(run_kamera("stats", folder, "--json").stdout)
    assert (shown["quota_bytes"], shown["ttl_s"]) == (None, None)
    assert run_kamera("quota", folder, "1MB", "--namespace", "[b]tenant").exit_code == 0
    assert json.loads(run_kamera("stats", folder, "--json").stdout)["quotas"] == {"[b]tenant": 10**6}
    assert "cap of '[b]tenant'" in run_kamera("stats", folder).stdout
    assert run_kamera("quota", folder, "none", "--namespace", "[b]tenant").exit_code == 0
    assert json.loads(run_kamera("stats", folder, "--json").stdout)["quotas"] == {}
    assert "ttl_s is 0" in run_kamera("ttl", folder, "0.1s").stderr


def test_a_policy_is_chosen_and_shown(folder: Path, run_kamera: RunKamera) -> None:
    assert json.loads(run_kamera("stats", folder, "--json").stdout)["policy"] == "lru"
    assert run_kamera("policy", folder, "lfu").stdout == "The store evicts by lfu.\n"
    assert json.loads(run_kamera("policy", folder, "cost", "--json").stdout) == {"policy": "cost"}
    assert json.loads(run_kamera("stats", folder, "--json").stdout)["policy"] == "cost"
    assert run_kamera("policy", folder, "fifo").exit_code == 2


def test_changes_are_told_to_programs(folder: Path, run_kamera: RunKamera) -> None:
    def told(*arguments: object) -> object:
        return json.loads(run_kamera(*arguments, "--json").stdout)

    chunk = page("first").header.key.digest.hex()
    sizes = {"num_records": 4, "num_bytes": 4 * 4096, "cap_bytes": 50_000}
    assert told("resize", folder, "50kB") == {"removed": 0, **sizes}
    assert told("pin", chunk, folder) == {"digest": chunk, "pinned": True}
    sizes |= {"num_records": 3, "num_bytes": 3 * 4096}
    assert told("prune", folder, "--namespace", "team") == {"removed": 1, **sizes}


def test_prune_by_the_time_of_storing(folder: Path, run_kamera: RunKamera) -> None:
    assert "0 records removed" in run_kamera("prune", folder, "--stored-before", "1h").stdout
    assert "4 records removed; 0 records" in run_kamera("prune", folder, "--stored-before", "0s").stdout


def test_prune_says_what_it_lacks(folder: Path, run_kamera: RunKamera) -> None:
    for arguments, message in (([], "pass --to"), (["--older-than", "1y"], "is not an age"), (["--to", "x"], "a size")):
        done = run_kamera("prune", folder, *arguments)
        assert done.exit_code == 1
        assert message in done.stderr


@pytest.mark.parametrize(("text", "num_bytes"), [("20GB", 20 * 10**9), ("1.5 GiB", 3 << 29), ("4096", 4096)])
def test_sizes(text: str, num_bytes: int) -> None:
    assert parse_size(text) == num_bytes


@pytest.mark.parametrize("text", ["", "GB", "-1", "1e9", "5 apples", "\u0661GB", "9" * 40])
def test_a_text_that_is_no_size_is_an_error(text: str, folder: Path, run_kamera: RunKamera) -> None:
    done = run_kamera("resize", folder, "--", text)
    assert done.exit_code == 1
    assert "is not a size" in done.stderr


def damage(path: Path, values: bytes) -> None:
    """Flip a bit in the first occurrence of these bytes in a database; pages that are free may have them as well."""
    whole = path.with_suffix(".compact")
    with lmdb.open(str(path), subdir=False, readonly=True, lock=False) as database:
        database.copy(str(whole), compact=True)
    whole.replace(path)
    content = bytearray(path.read_bytes())
    content[content.index(values)] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_missing_store_is_an_error_and_is_not_created(command: str, tmp_path: Path, run_kamera: RunKamera) -> None:
    done = run_kamera(command, tmp_path / "nowhere")
    assert done.exit_code == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "holds no store" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_without_a_store_stays_as_it_is(command: str, tmp_path: Path, run_kamera: RunKamera) -> None:
    assert run_kamera(command, tmp_path).exit_code == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_in_the_way_is_an_error(command: str, tmp_path: Path, run_kamera: RunKamera) -> None:
    (tmp_path / "file").write_text("mine")
    done = run_kamera(command, tmp_path / "file")
    assert done.exit_code == 1
    assert "is a file" in done.stderr
    assert (tmp_path / "file").read_text() == "mine"


def test_the_home_folder_is_understood(folder: Path, run_kamera: RunKamera, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert run_kamera("stats", "~/store").exit_code == 0


def test_shells_complete_commands(run_kamera: RunKamera) -> None:
    """As the scripts that --install-completion installs ask for it."""
    asked = {"_KAMERA_COMPLETE": "complete_bash", "COMP_WORDS": "kamera ex", "COMP_CWORD": "1"}
    done = CliRunner().invoke(app, [], prog_name="kamera", env=asked)
    assert done.stdout.split() == ["export"]


def test_help_names_every_command(run_kamera: RunKamera) -> None:
    done = run_kamera("--help")
    assert done.exit_code == 0
    assert all(command in done.stdout for command in ["demo", "show", "export", "import", "Exit codes", *COMMANDS])


def test_the_version_is_that_of_the_package(run_kamera: RunKamera) -> None:
    done = run_kamera("--version")
    assert (done.exit_code, done.stdout) == (0, f"kamera {version('kamera-agent')}\n")
