"""Examples of the documents: all compile, what they import is there, and what says that it runs does."""

import ast
import contextlib
import importlib
import io
import re
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md"])
BLOCK = re.compile(r"^```python(?: title=\"(?P<title>[^\"]*)\")?\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)
RUNS = "Runs as written, offline"
PRINTS = re.compile(r"print\(.*\)  # (?P<told>.+)")


class Block(NamedTuple):
    page: Path
    line: int
    title: str
    code: str


def blocks(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    return [
        Block(page, text[: found.start()].count("\n") + 2, found["title"] or "", found["code"])
        for found in BLOCK.finditer(text)
    ]


ALL = [block for page in PAGES for block in blocks(page)]


def name(block: Block) -> str:
    return f"{block.page.name}:{block.line}"


def test_every_block_is_found() -> None:
    assert len(ALL) == sum(page.read_text("utf-8").count("```python") for page in PAGES) > 20


@pytest.mark.parametrize("block", ALL, ids=name)
def test_it_compiles_and_imports_what_is_there(block: Block) -> None:
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    compile(block.code, name(block), "exec", flags=flags)
    for node in ast.walk(ast.parse(block.code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kamera_agent"):
            module = importlib.import_module(str(node.module))
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


@pytest.mark.parametrize(
    "page", [page for page in PAGES if RUNS in page.read_text("utf-8")], ids=lambda page: page.name
)
def test_it_runs_and_prints_what_it_says(page: Path) -> None:
    """Blocks of a page share their names; what a print is said to print comes out, in order."""
    running = [block for block in blocks(page) if block.title == RUNS]
    names: dict[str, object] = {}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for block in running:
            exec(compile(block.code, name(block), "exec"), names)
    names["kamera"].close()  # type: ignore[attr-defined]
    told = [found["told"] for block in running for found in PRINTS.finditer(block.code)]
    lines = iter(printed.getvalue().splitlines())
    assert told
    assert [expected for expected in told if expected not in lines] == []
