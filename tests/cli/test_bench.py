"""kamera bench, in few rounds."""

import json
from importlib.util import find_spec
from pathlib import Path

from cli_records import RunKamera

from kamera_agent.store.speed import HEAD_DIM, NUM_KV_HEADS, NUM_LAYERS, NUM_TOKENS

NUM_VALUES = NUM_LAYERS * 2 * NUM_KV_HEADS * NUM_TOKENS * HEAD_DIM
FORMS = {"full", "int8", "plain", *(["encrypted"] if find_spec("cryptography") else [])}


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_form_is_measured_and_the_store_there_stays_as_it_is(folder: Path, run_kamera: RunKamera) -> None:
    before = content(folder)
    done = run_kamera("bench", "--store", folder, "--rounds", "2", "--json")
    assert done.exit_code == 0
    figures = json.loads(done.stdout)["figures"]
    assert {each["form"] for each in figures} == FORMS
    assert {each["step"] for each in figures if each["form"] == "int8"} == {"put", "get"}
    assert all(0 < each["p50_ms"] <= each["p99_ms"] and each["of_memcpy"] > 0 for each in figures)
    sizes = {each["form"]: each["num_bytes"] for each in figures}
    assert sizes["full"] == sizes["plain"] == 2 * NUM_VALUES
    assert NUM_VALUES < sizes["int8"] < 1.1 * NUM_VALUES
    assert content(folder) == before


def test_a_table_is_printed_of_a_folder_that_is_new(tmp_path: Path, run_kamera: RunKamera) -> None:
    done = run_kamera("bench", "--store", tmp_path / "new", "--rounds", "1")
    assert done.exit_code == 0
    assert all(word in done.stdout for word in ("int8", "file_write", "memcpy", "7.3 MB", "GB/s"))
    assert list((tmp_path / "new").iterdir()) == []


def test_a_disk_that_takes_nothing_is_an_error(tmp_path: Path, run_kamera: RunKamera) -> None:
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "below", "redis://host"):
        done = run_kamera("bench", "--store", place)
        assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
