"""The `kamera` command. A subcommand checks its arguments, then imports its own modules, which may take seconds."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from kamera_agent.cli.arguments import (
    Order,
    check_extra,
    check_model,
    check_places,
    check_store,
    existing_store,
    input_file,
    output_file,
    output_folder,
    parse_age,
    parse_size,
)
from kamera_agent.cli.exits import DAMAGED, FAILED
from kamera_agent.cli.text import printable
from kamera_agent.config import DEFAULT_STORE, Policy
from kamera_agent.errors import KameraError, SettingError, StoreDamagedError


class _Commands(TyperGroup):
    """Prints an error of any command as one line on stderr, and exits with its code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KameraError as error:
            typer.echo(f"kamera: {printable(' '.join(str(error).split()))}", err=True)
            raise typer.Exit(DAMAGED if isinstance(error, StoreDamagedError) else FAILED) from error


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

StoreFolder = Annotated[Path, typer.Argument(metavar="[STORE]", help="Folder of the store.")]
Tiers = Annotated[
    list[str],
    typer.Option(
        "--store",
        metavar="STORE",
        help="Folder of the store, or URL of a shared one; several, the fastest first, are tiers of one store.",
    ),
]
DEFAULT_TIERS = [DEFAULT_STORE]
Key = Annotated[
    str | None,
    typer.Option(
        metavar="KEY",
        envvar="KAMERA_KEY",
        help="Key of an encrypted store: a file, or env:NAME for a variable, with 64 hexadecimal digits.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kamera {version('kamera-agent')}")
        raise typer.Exit


@app.callback()
def main(
    show_version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Screenshots and video frames as position-free chunks of KV.

    Exit codes: 0 done; 1 failed, with one line on stderr that says why; 2 the command line is wrong; 3 the store is
    damaged.
    """


@app.command()
def demo(
    store: Annotated[Path, typer.Option(help="Folder of the store. Chunks of earlier demos in it are deleted.")] = Path(
        DEFAULT_STORE, "demo"
    ),
    out: Annotated[Path, typer.Option(help="Folder for demo.png and demo.json.")] = Path(),
    large: Annotated[
        bool, typer.Option("--large", help="Six turns on 1,196-token screenshots over random weights, for their times.")
    ] = False,
) -> None:
    """Play an agent's day of 40 turns and compare it with a full prefill and a prefix cache."""
    check_extra("matplotlib", "examples")
    folder, files = check_store(store), output_folder(out)
    from kamera_agent.cli.demo.run import run_demo
    from kamera_agent.cli.demo.scale import SCALES

    run_demo(SCALES["large" if large else "day"], folder, files)


@app.command()
def ask(
    media: Annotated[
        list[str],
        typer.Argument(metavar="MEDIA... QUESTION", help="Images, clips and folders of frames, then the question."),
    ],
    model: Annotated[str, typer.Option(help="Hub id or folder of a model; the pocket model by default.")] = "pocket",
    keep_last: Annotated[
        int | None, typer.Option(min=0, help="Keep only so many images and groups of frames, the last ones.")
    ] = None,
    fps: Annotated[
        float,
        typer.Option(help="Frames per second: those kept of a clip, and the rate of the images of a folder."),
    ] = 2.0,
    store: Tiers = DEFAULT_TIERS,
    key: Key = None,
) -> None:
    """Ask about images and clips. Chunks that the store holds are recalled, not computed again.

    The images of a folder are frames of one clip, in the order of their names, the first at 0 seconds.
    """
    check_model(model)
    places = check_places(store)
    from kamera_agent.cli.ask import ask as answer

    paths = [Path(path).expanduser() for path in media[:-1]]
    answer(paths, media[-1], model=model, keep_last=keep_last, fps=fps, store=places, key=key)


@app.command()
def ingest(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Images, clips, and folders of both.")],
    model: Annotated[str, typer.Option(help="Hub id or folder of a model; the pocket model by default.")] = "pocket",
    fps: Annotated[float, typer.Option(help="Frames kept per second of a clip.")] = 2.0,
    workers: Annotated[int, typer.Option(min=1, help="Processes, or actors on Ray, each with a model.")] = 1,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Work on a Ray cluster: its address, auto, or local.")
    ] = None,
    namespace: Annotated[str, typer.Option(help="Namespace of the chunks.")] = "default",
    store: Tiers = DEFAULT_TIERS,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Compute the chunks of a library ahead, so that windows over any part of it recall them.

    A chunk that the store has is not computed again, so a run that was interrupted goes on where it was. The exit code
    is 1 if a file failed.
    """
    check_model(model)
    places = check_places(store)
    from kamera_agent.cli.ingest import ingest as fill
    from kamera_agent.ingest.ingester import Job

    fill(paths, Job(model, places, key, fps, namespace), workers, ray, as_json)


@app.command()
def serve(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Hub id or folder of a model, or pocket.")],
    host: Annotated[str, typer.Option(help="Address to listen on. One that others can reach needs API keys.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8642,
    api_key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File with an API key per line; a name after it is that of its namespace."),
    ] = None,
    keep_last: Annotated[
        int | None, typer.Option(metavar="N", help="Show the model the last N screenshots of a client that sends all.")
    ] = None,
    drop: Annotated[
        int | None, typer.Option(metavar="M", help="With --keep-last: older ones leave M at a time.")
    ] = None,
    image_tokens: Annotated[
        int | None, typer.Option(metavar="N", help="Show the last screenshots that take N tokens together.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="Stop an answer after so long.")] = 600,
    namespace: Annotated[str, typer.Option(help="Namespace of the chunks, where clients have no keys.")] = "default",
    store: Tiers = DEFAULT_TIERS,
    key: Key = None,
) -> None:
    """Serve a model to agents that speak OpenAI's or Anthropic's protocols."""
    for package in ("fastapi", "llguidance", "uvicorn"):
        check_extra(package, "serve")
    check_model(model)
    places = check_places(store)
    from kamera_agent.cli.serve import Door, Shown, serve_model

    shown = Shown(keep_last, drop, image_tokens)
    serve_model(model, Door(host, port, api_key_file), shown, timeout, places, key, namespace)


@app.command()
def report(
    trace: Annotated[Path, typer.Argument(help="File that a Trace wrote.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File for the page.")] = Path("report.html"),
) -> None:
    """Turn a trace into one self-contained HTML page."""
    from kamera_agent.report.account import account
    from kamera_agent.report.page import make_page
    from kamera_agent.telemetry.trace import read_trace

    page = output_file(out)
    page.write_text(make_page(account(read_trace(trace)), trace.name), "utf-8")
    typer.echo(page)


@app.command()
def doctor(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Hub id or folder of a model, or pocket.")],
    as_json: AsJson = False,
) -> None:
    """Load a model and show its family, the size of its KV, and its error against plain Hugging Face."""
    check_model(model)
    from kamera_agent.cli.doctor import show_diagnosis

    show_diagnosis(model, as_json)


@app.command()
def stats(store: StoreFolder = Path(DEFAULT_STORE), key: Key = None, as_json: AsJson = False) -> None:
    """Show the number and size of the records in a store, by kind."""
    folder = existing_store(store)
    from kamera_agent.cli.stats import show_stats

    show_stats(folder, key, as_json)


@app.command("ls")
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


@app.command()
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


@app.command()
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


@app.command("import")
def import_archive(
    archive: Annotated[Path, typer.Argument(metavar="FILE", help="File that kamera export wrote.")],
    store: StoreFolder = Path(DEFAULT_STORE),
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Put the chunks of an archive into a store, once all of it is checked. What was used longest ago makes room.

    An archive from somebody whom you do not trust may hold wrong KV, which answers would then use.
    """
    folder, file = check_store(store), input_file(archive)
    from kamera_agent.cli.transfer import import_chunks

    import_chunks(file, folder, key, as_json)


@app.command()
def resize(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="Folder of the store.")],
    size: Annotated[str, typer.Argument(help="What it may hold, such as 20GB.")],
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Set how much a store may hold. What was used longest ago is removed above that; the file keeps its size."""
    folder, cap_bytes = existing_store(store), parse_size(size)
    from kamera_agent.cli.capacity import resize_store

    resize_store(folder, key, cap_bytes, as_json)


@app.command()
def prune(
    store: StoreFolder = Path(DEFAULT_STORE),
    to: Annotated[str | None, typer.Option(help="Keep so much, such as 5GB, of what was used last.")] = None,
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


@app.command()
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


@app.command()
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


@app.command()
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


@app.command()
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
