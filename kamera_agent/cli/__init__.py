"""The `kamera` command. A subcommand checks its arguments, then imports its own modules, which may take seconds."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from kamera_agent.cli.arguments import (
    check_extra,
    check_model,
    check_store,
    existing_store,
    output_file,
    output_folder,
    parse_age,
    parse_size,
)
from kamera_agent.config import DEFAULT_STORE
from kamera_agent.errors import KameraError, SettingError


class _Commands(TyperGroup):
    """Prints an error of any command as one line on stderr and exits with code 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KameraError as error:
            typer.echo(f"kamera: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

StoreFolder = Annotated[Path, typer.Argument(metavar="[STORE]", help="Folder of the store.")]
NewStore = Annotated[Path, typer.Option("--store", help="Folder of the store.")]
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
    """Screenshots and video frames as position-free chunks of KV."""


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
    store: NewStore = Path(DEFAULT_STORE),
) -> None:
    """Ask about images and clips. Chunks that the store holds are recalled, not computed again.

    The images of a folder are frames of one clip, in the order of their names, the first at 0 seconds.
    """
    check_model(model)
    folder = check_store(store)
    from kamera_agent.cli.ask import ask as answer

    paths = [Path(path).expanduser() for path in media[:-1]]
    answer(paths, media[-1], model=model, keep_last=keep_last, fps=fps, store=folder)


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
def stats(store: StoreFolder = Path(DEFAULT_STORE), as_json: AsJson = False) -> None:
    """Show the number and size of the records in a store, by kind."""
    folder = existing_store(store)
    from kamera_agent.cli.stats import show_stats

    show_stats(folder, as_json)


@app.command("ls")
def list_chunks(store: StoreFolder = Path(DEFAULT_STORE), as_json: AsJson = False) -> None:
    """List the chunks in a store with their patches."""
    folder = existing_store(store)
    from kamera_agent.cli.listing import show_chunks

    show_chunks(folder, as_json)


@app.command()
def resize(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="Folder of the store.")],
    size: Annotated[str, typer.Argument(help="What it may hold, such as 20GB.")],
) -> None:
    """Set how much a store may hold. What was used longest ago is removed above that; the file keeps its size."""
    folder, cap_bytes = existing_store(store), parse_size(size)
    from kamera_agent.cli.capacity import resize_store

    resize_store(folder, cap_bytes)


@app.command()
def prune(
    store: StoreFolder = Path(DEFAULT_STORE),
    to: Annotated[str | None, typer.Option(help="Keep so much, such as 5GB, of what was used last.")] = None,
    older_than: Annotated[str | None, typer.Option(help="Remove what was not used for so long, such as 30d.")] = None,
    namespace: Annotated[str | None, typer.Option(help="Remove the chunks of a namespace.")] = None,
) -> None:
    """Remove chunks from a store, by size, age or namespace. The file keeps its size."""
    max_bytes = None if to is None else parse_size(to)
    unused_s = None if older_than is None else parse_age(older_than)
    if (to, older_than, namespace) == (None, None, None):
        raise SettingError("Nothing says what to remove; pass --to, --older-than or --namespace.")
    folder = existing_store(store)
    from kamera_agent.cli.capacity import prune_store

    prune_store(folder, max_bytes, unused_s, namespace)


@app.command()
def verify(store: StoreFolder = Path(DEFAULT_STORE)) -> None:
    """Read and check every record in a store. Damaged records are removed, and the exit code is then 1."""
    folder = existing_store(store)
    from kamera_agent.cli.verify import verify_store

    verify_store(folder)
