"""The `kamera` command. What a command needs is imported when it runs, so that the others start fast."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from kamera_agent.config import DEFAULT_STORE
from kamera_agent.errors import KameraError


class _Commands(TyperGroup):
    """Commands whose errors end as one line on stderr and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KameraError as error:
            typer.echo(f"kamera: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=_Commands,
    help="Screenshots and video frames as position-free chunks of KV.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

StoreFolder = Annotated[Path, typer.Argument(metavar="[STORE]", help="Folder of the store.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command()
def demo(
    store: Annotated[
        Path, typer.Option(help="Folder for the store and the model. Chunks of earlier runs are deleted.")
    ] = Path(DEFAULT_STORE, "demo"),
    out: Annotated[Path, typer.Option(help="Folder for demo.png and demo.json.")] = Path(),
) -> None:
    """Play an agent over 16 turns and measure it against a full prefill and a prefix cache."""
    from kamera_agent.cli.demo.run import run_demo

    run_demo(store.expanduser(), out.expanduser())


@app.command()
def ask(
    media: Annotated[list[str], typer.Argument(metavar="MEDIA... QUESTION", help="Images, clips, then the question.")],
    model: Annotated[str, typer.Option(help="Hub id or folder of a model; the pocket model by default.")] = "pocket",
    keep_last: Annotated[int | None, typer.Option(help="Look at the last so many images and groups of frames.")] = None,
    store: Annotated[Path, typer.Option(help="Folder of the store.")] = Path(DEFAULT_STORE),
) -> None:
    """Ask about images and clips. What was seen before is recalled, not encoded again."""
    from kamera_agent.cli.ask import ask as answer

    answer([Path(path) for path in media[:-1]], media[-1], model, keep_last, store)


@app.command()
def report(
    trace: Annotated[Path, typer.Argument(help="Trace that a ChatKamera wrote.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File for the page.")] = Path("report.html"),
) -> None:
    """Make one self-contained page of a trace."""
    from kamera_agent.report.account import account
    from kamera_agent.report.page import make_page
    from kamera_agent.telemetry.trace import read_trace

    out.write_text(make_page(account(read_trace(trace)), trace.name), "utf-8")
    typer.echo(out)


@app.command()
def doctor(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Hub id or folder of a model, or pocket.")],
    as_json: AsJson = False,
) -> None:
    """Load a model and show what serves it, what its KV takes, and how far off it is."""
    from kamera_agent.cli.doctor import show_diagnosis

    show_diagnosis(model, as_json)


@app.command()
def stats(store: StoreFolder = Path(DEFAULT_STORE), as_json: AsJson = False) -> None:
    """Show how many records a store holds, of which kind, and how large."""
    from kamera_agent.cli.stats import show_stats

    show_stats(store, as_json)


@app.command("ls")
def list_chunks(store: StoreFolder = Path(DEFAULT_STORE), as_json: AsJson = False) -> None:
    """List the chunks of a store with their patches."""
    from kamera_agent.cli.listing import show_chunks

    show_chunks(store, as_json)


@app.command()
def verify(store: StoreFolder = Path(DEFAULT_STORE)) -> None:
    """Read every record of a store and check it; damaged ones are removed. Exit code 1 if there were any."""
    from kamera_agent.cli.verify import verify_store

    verify_store(store)
