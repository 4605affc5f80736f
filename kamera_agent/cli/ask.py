"""`kamera ask`: a question about images and clips. Torch is imported after they have been read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from kamera_agent.errors import SettingError
from kamera_agent.window.media import read_media

if TYPE_CHECKING:
    from kamera_agent.window.window import Window


def ask(
    paths: Sequence[Path],
    question: str,
    *,
    model: str,
    keep_last: int | None,
    fps: float,
    store: list[str],
    key: str | None,
) -> None:
    """Print the answer as it comes, then its cost. Raises KameraError.

    fps: frames of a clip that are kept per second, and the rate of frames that come as a folder.
    """
    if not paths:
        raise SettingError("No image or clip was given; name one before the question.")
    if not (math.isfinite(fps) and fps > 0):
        raise SettingError(f"--fps is {fps}; use a number above 0.")
    contents = [content for path in paths for content in read_media(path, fps)]
    # Imported, and loaded, last: a wrong path should not cost seconds or minutes.
    from kamera_agent.kamera import Kamera

    with Kamera.from_pretrained(model, store=store, encryption_key=key) as kamera:
        window = kamera.window()
        window.sync(contents)
        if keep_last is not None:
            window.slide(keep_last)
        _print_answer(window, question)


def _print_answer(window: Window, question: str) -> None:
    stream = window.stream(question)
    for piece in stream:
        typer.echo(piece, nl=False)
    typer.echo()
    reply = stream.reply
    typer.echo(
        f"{reply.plan.num_computed} tokens computed, {reply.usage.tokens_recalled} recalled, first token after "
        f"{reply.timings.first_token_ms:.0f} ms",
        err=True,
    )
