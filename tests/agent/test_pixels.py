"""The folder of pixels: what it keeps, what it leaves alone, and how it heals."""

import os
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from blake3 import blake3
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from kamera_agent import ImageError
from kamera_agent.agent.pixels import PREFIX, PixelFolder


def encoded(colour: int, image_format: str = "PNG", note: str = "") -> bytes:
    """A grey image. Lossless in every format that is used here."""
    info = PngInfo()
    info.add_text("Creation Time", note)
    file = BytesIO()
    Image.new("RGB", (20, 30), (colour,) * 3).save(file, image_format, **({"pnginfo": info} if note else {}))
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> PixelFolder:
    return PixelFolder(tmp_path, 1 << 20)


def only_file(folder: PixelFolder) -> Path:
    [place] = folder.path.iterdir()
    return place


def test_an_id_is_of_the_pixels(folder: PixelFolder) -> None:
    """The time in a PNG, or another format, makes no other screen; what was encoded first is kept."""
    image_id = folder.put(encoded(1, note="12:00:01"))
    for same in (encoded(1, note="12:00:02"), encoded(1), encoded(1, "BMP")):
        assert folder.put(same) == image_id
    assert folder.put(encoded(2)) != image_id
    assert len([*folder.path.iterdir()]) == 2
    assert folder.get(image_id) == encoded(1, note="12:00:01")
    assert folder.get(PREFIX + "0" * 64) is None
    for wrong in ("../secret", "", "A" * 64):
        with pytest.raises(ImageError, match="is not an image id"):
            folder.get(PREFIX + wrong)


@pytest.mark.parametrize("data", [b"", b"<html>502 Bad Gateway</html>", encoded(1)[:60]], ids=["empty", "page", "cut"])
def test_bytes_that_are_no_image_are_not_kept(folder: PixelFolder, data: bytes) -> None:
    with pytest.raises(ImageError):
        folder.put(data)
    assert not [*folder.path.iterdir()]


@pytest.mark.parametrize("damage", [lambda old: b"", lambda old: old[:-3], lambda old: old[:-1] + b"?"])
def test_a_damaged_file_heals(folder: PixelFolder, damage: Callable[[bytes], bytes]) -> None:
    image_id = folder.put(encoded(1))
    place = only_file(folder)
    place.write_bytes(damage(place.read_bytes()))
    with pytest.raises(ImageError, match="damaged"):
        folder.get(image_id)
    assert folder.put(encoded(1)) == image_id
    assert folder.get(image_id) == encoded(1)


def test_with_a_key_nothing_of_an_image_is_in_the_folder(tmp_path: Path) -> None:
    """Not its bytes, and not its digest, which whoever has the same screen could compare."""
    pytest.importorskip("cryptography", reason="needs the extra encryption")
    folder = PixelFolder(tmp_path, 1 << 20, lambda: bytes(32))
    image_id = folder.put(encoded(1))
    place = only_file(folder)
    assert image_id == PixelFolder(tmp_path / "plain", 1 << 20).put(encoded(1))
    assert place.name != f"{image_id.removeprefix(PREFIX)}.pixels"
    content = place.read_bytes()
    data = encoded(1)
    assert all(data[start : start + 16] not in content for start in range(len(data) - 16))
    assert PixelFolder(tmp_path, 1 << 20, lambda: bytes(32)).get(image_id) == data
    # Another key, or none, finds nothing, and leaves it alone.
    for key in (None, lambda: bytes([1]) * 32):
        other = PixelFolder(tmp_path, 1 << 20, key)
        assert not other.touch(image_id)
        assert other.get(image_id) is None
        other.put(encoded(1))
    assert len([*tmp_path.glob("*.pixels")]) == 3
    assert folder.get(image_id) == data


@pytest.mark.parametrize("damage", [lambda old: b"", lambda old: old[:40], lambda old: old[:-1] + b"?"])
def test_a_damaged_encrypted_file_heals(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    pytest.importorskip("cryptography", reason="needs the extra encryption")
    folder = PixelFolder(tmp_path, 1 << 20, lambda: bytes(32))
    image_id, other_id = folder.put(encoded(1)), folder.put(encoded(2))
    place, other = (folder._place(each) for each in (image_id, other_id))
    for content in (damage(place.read_bytes()), other.read_bytes()):
        place.write_bytes(content)
        with pytest.raises(ImageError, match="damaged"):
            folder.get(image_id)
        assert folder.put(encoded(1)) == image_id
        assert folder.get(image_id) == encoded(1)


def test_encrypted_files_count_and_are_trimmed(tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="needs the extra encryption")
    ids = [PixelFolder(tmp_path, 1 << 20, lambda: bytes(32)).put(encoded(number)) for number in range(3)]
    PixelFolder(tmp_path, 1).put(encoded(9))
    assert len([*tmp_path.iterdir()]) == 1
    assert [PixelFolder(tmp_path, 1 << 20, lambda: bytes(32)).get(image_id) for image_id in ids] == [None] * 3


def test_files_of_earlier_versions_are_read(folder: PixelFolder) -> None:
    digest = blake3(encoded(1)).hexdigest()
    (folder.path / digest).write_bytes(encoded(1))
    assert folder.get(PREFIX + digest) == encoded(1)
    (folder.path / digest).write_bytes(encoded(2))
    with pytest.raises(ImageError, match="damaged"):
        folder.get(PREFIX + digest)


def test_the_folder_stays_within_its_bytes_and_deletes_its_own_files_only(tmp_path: Path) -> None:
    """Room for three of equal size: what was not put or read for longest goes. Others' files neither go nor count."""
    strangers = ["notes.txt", "a" * 64, "b" * 64 + ".pixels"]
    for name in strangers:
        (tmp_path / name).write_bytes(bytes(10_000))
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / "folder").mkdir()
    digest = blake3(encoded(9)).hexdigest()
    (tmp_path / digest).write_bytes(encoded(9))
    os.utime(tmp_path / digest, (1, 1))
    (tmp_path / ".kamera-draft-dead").write_bytes(b"cut")
    os.utime(tmp_path / ".kamera-draft-dead", (1, 1))
    (tmp_path / ".kamera-draft-live").write_bytes(b"cut")

    folder = PixelFolder(tmp_path, 3 * (len(encoded(1)) + 48))
    ids = []
    for number in range(3):
        ids.append(folder.put(encoded(number)))
        os.utime(tmp_path / f"{ids[-1].removeprefix(PREFIX)}.pixels", (number + 2, number + 2))
    assert folder.get(ids[0]) == encoded(0)
    assert folder.put(encoded(1)) == ids[1]
    ids.append(folder.put(encoded(3)))
    assert folder.get(ids[2]) is None
    assert [folder.get(ids[index]) for index in (0, 1, 3)] == [encoded(0), encoded(1), encoded(3)]
    left = {place.name for place in tmp_path.iterdir()} - {f"{i.removeprefix(PREFIX)}.pixels" for i in ids}
    assert left == {*strangers, "folder", ".kamera-draft-live"}


def test_another_process_trims_the_same_folder(
    folder: PixelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files vanish, and are used again, between the listing and the deletion."""
    ids = [folder.put(encoded(number)) for number in range(4)]
    places = [tmp_path / f"{image_id.removeprefix(PREFIX)}.pixels" for image_id in ids]
    for number, place in enumerate(places):
        os.utime(place, (number, number))
    small = PixelFolder(tmp_path, 1)
    images = small._images

    def then_others() -> list[tuple[float, int, Path]]:
        listed = [*images()]
        places[0].unlink()
        os.utime(places[1], (time.time(), time.time()))
        return listed

    monkeypatch.setattr(small, "_images", then_others)
    new = small.put(encoded(9))
    assert [folder.get(image_id) is None for image_id in (*ids, new)] == [True, False, True, True, False]


def test_a_folder_that_was_removed_is_made_again(folder: PixelFolder) -> None:
    image_id = folder.put(encoded(1))
    only_file(folder).unlink()
    folder.path.rmdir()
    assert not folder.touch(image_id)
    assert folder.get(image_id) is None
    assert folder.put(encoded(1)) == image_id


def test_no_draft_is_left_where_the_disk_is_full(folder: PixelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        folder.put(encoded(1))
    assert not [*folder.path.iterdir()]
