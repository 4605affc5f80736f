"""The commands over the folder of a store. Each checks its arguments, then imports its own modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from kamera_agent.cli.arguments import (
    Order,
    check_store,
    existing_store,
    input_file,
    output_file,
    parse_age,
    parse_size,
)
from kamera_agent.cli.parameters import AsJson, Key, StoreFolder
from kamera_agent.config import DEFAULT_STORE, Policy
from kamera_agent.errors import SettingError


def stats(store: StoreFolder = Path(DEFAULT_STORE), key: Key = None, as_json: AsJson = False) -> None:
    """Show the number and size of the records in a store, by kind."""
    folder = existing_store(store)
    from kamera_agent.cli.stats import show_stats

    show_stats(folder, key, as_json)


def list_chunks(
    store: StoreFolder = Path(DEFAULT_STORE),
    namespace: Annotated[str | None, typer.Option(help="Only the chunks of a namespace.")] = None,
    sort: Annotated[
        Order, typer.Option(help="What comes first: by name, the largest, the most used, the oldest, the last used.")
    ] = "name",
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List the chunks in a store: their size, the contexts they were computed in, their uses and age."""
    folder = existing_store(store)
    from kamera_agent.cli.listing import show_chunks

    show_chunks(folder, key, namespace, sort, as_json)


def show(
    chunk: Annotated[str, typer.Argument(metavar="CHUNK", help="Key of a chunk or record, or its first digits.")],
    store: StoreFolder = Path(DEFAULT_STORE),
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Show one chunk with its records."""
    folder = existing_store(store)
    from kamera_agent.cli.listing import show_chunk

    show_chunk(folder, key, chunk, as_json)


def export(
    archive: Annotated[Path, typer.Argument(metavar="FILE", help="File for the archive.")],
    store: StoreFolder = Path(DEFAULT_STORE),
    namespace: Annotated[str | None, typer.Option(help="Only the chunks of a namespace.")] = None,
    unencrypted: Annotated[bool, typer.Option("--unencrypted", help="Also from an encrypted store.")] = False,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Write the chunks of a store to one file, for another machine.

    The file is not encrypted, and says as much about the screenshots as the store.
    """
    folder, file = existing_store(store), output_file(archive)
    from kamera_agent.cli.transfer import export_chunks

    export_chunks(folder, key, file, namespace, unencrypted, as_json)


def import_archive(
    archive: Annotated[Path, typer.Argument(metavar="FILE", help="File that kamera export wrote.")],
    store: StoreFolder = Path(DEFAULT_STORE),
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Put the chunks of an archive into a store, once all of it is checked. Others make room, by its policy.

    An archive from somebody whom you do not trust may hold wrong KV, which answers would then use.
    """
    folder, file = check_store(store), input_file(archive)
    from kamera_agent.cli.transfer import import_chunks

    import_chunks(file, folder, key, as_json)


def resize(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="Folder of the store.")],
    size: Annotated[str, typer.Argument(help="What it may hold, such as 20GB.")],
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Set how much a store may hold. What is above that goes, by its policy; the file keeps its size."""
    folder, cap_bytes = existing_store(store), parse_size(size)
    from kamera_agent.cli.capacity import resize_store

    resize_store(folder, key, cap_bytes, as_json)


def quota(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="Folder of the store.")],
    size: Annotated[str, typer.Argument(help="What each namespace may hold, such as 2GB, or none.")],
    namespace: Annotated[
        str | None, typer.Option(help="Only this one; with none, it has the quota of all again.")
    ] = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Set how much each namespace of a store may hold, or one. One above it gives way before the others."""
    folder, quota_bytes = existing_store(store), None if size == "none" else parse_size(size)
    from kamera_agent.cli.capacity import set_quota

    set_quota(folder, key, quota_bytes, namespace, as_json)


def ttl(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="Folder of the store.")],
    age: Annotated[str, typer.Argument(help="How long a record is kept, such as 30d, or none.")],
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Set how long a store keeps what was stored, however often it is used."""
    folder, ttl_s = existing_store(store), None if age == "none" else round(parse_age(age))
    from kamera_agent.cli.capacity import set_ttl

    set_ttl(folder, key, ttl_s, as_json)


def prune(
    store: StoreFolder = Path(DEFAULT_STORE),
    to: Annotated[str | None, typer.Option(help="Keep at most so much, such as 5GB, by its policy.")] = None,
    older_than: Annotated[str | None, typer.Option(help="Remove what was not used for so long, such as 30d.")] = None,
    stored_before: Annotated[
        str | None, typer.Option(help="Remove what was stored so long ago, such as 30d, even if it was used since.")
    ] = None,
    namespace: Annotated[str | None, typer.Option(help="Remove the chunks of a namespace.")] = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Remove chunks from a store, by size, age or namespace. The file keeps its size.

    Pinned chunks go last to --to, and stay under --older-than.
    """
    max_bytes = None if to is None else parse_size(to)
    unused_s = None if older_than is None else parse_age(older_than)
    stored_s = None if stored_before is None else parse_age(stored_before)
    if (to, older_than, stored_before, namespace) == (None, None, None, None):
        raise SettingError("Nothing says what to remove; pass --to, --older-than, --stored-before or --namespace.")
    folder = existing_store(store)
    from kamera_agent.cli.capacity import prune_store

    prune_store(folder, key, max_bytes, unused_s, stored_s, namespace, as_json)


def policy(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="Folder of the store.")],
    name: Annotated[Policy, typer.Argument(help="What goes first when the store is full.")],
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Choose what a store evicts first.

    lru, the default: what was used longest ago. lfu: what was used least for its age. cost: the same, by what it costs
    to compute again over the bytes that it takes.
    """
    folder = existing_store(store)
    from kamera_agent.cli.capacity import choose_policy

    choose_policy(folder, key, name, as_json)


def pin(
    chunk: Annotated[str, typer.Argument(metavar="CHUNK", help="Key of a chunk, or its first digits.")],
    store: StoreFolder = Path(DEFAULT_STORE),
    off: Annotated[bool, typer.Option("--off", help="Take the pin away.")] = False,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Have a chunk evicted after all others."""
    folder = existing_store(store)
    from kamera_agent.cli.capacity import pin_chunk

    pin_chunk(folder, key, chunk, not off, as_json)


def verify(
    store: StoreFolder = Path(DEFAULT_STORE),
    repair: Annotated[
        bool, typer.Option("--repair", help="Remove damaged records; move a damaged file aside and begin a new store.")
    ] = False,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Read and check every record in a store. Nothing is removed without --repair."""
    folder = existing_store(store)
    from kamera_agent.cli.verify import verify_store

    verify_store(folder, key, repair, as_json)


def bench(
    store: Annotated[Path, typer.Option(help="Folder on the disk to measure; what it holds stays as it is.")] = Path(
        DEFAULT_STORE
    ),
    rounds: Annotated[int, typer.Option(min=1, help="How often each step is taken.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Measure a store on a disk: a chunk in full, in int8 and encrypted, beside plain files and copies of memory."""
    folder = check_store(store)
    from kamera_agent.cli.bench import bench_disk

    bench_disk(folder, rounds, as_json)


def rekey(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="Folder of the store.")],
    new_key: Annotated[str, typer.Option(metavar="KEY", help="The new key: a file, or env:NAME for a variable.")],
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Encrypt a store, or change its key. Its records are written anew, to a file that replaces the old one."""
    folder = existing_store(store)
    from kamera_agent.cli.encryption import rekey_store

    rekey_store(folder, key, new_key, as_json)


COMMANDS: Mapping[str, Callable[..., None]] = {
    "stats": stats,
    "ls": list_chunks,
    "show": show,
    "export": export,
    "import": import_archive,
    "resize": resize,
    "quota": quota,
    "ttl": ttl,
    "prune": prune,
    "policy": policy,
    "pin": pin,
    "verify": verify,
    "rekey": rekey,
    "bench": bench,
}
