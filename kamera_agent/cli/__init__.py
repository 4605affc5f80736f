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
    check_places,
    check_store,
    output_file,
    output_folder,
)
from kamera_agent.cli.exits import DAMAGED, FAILED
from kamera_agent.cli.parameters import DEFAULT_TIERS, AsJson, Key, Tiers
from kamera_agent.cli.storage import COMMANDS
from kamera_agent.cli.text import printable
from kamera_agent.config import DEFAULT_STORE
from kamera_agent.errors import KameraError, StoreDamagedError


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


for name, command in COMMANDS.items():
    app.command(name)(command)
