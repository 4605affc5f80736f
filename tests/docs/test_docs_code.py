"""Code blocks of the documents: all compile and import names that exist; those marked to run do run."""

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
PRINTS = re.compile(r"print\(.*\)  # (?P<output>.+)")


class Block(NamedTuple):
    page: Path
    line: int
    title: str
    code: str


def blocks(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    return [
        Block(page, text[: match.start()].count("\n") + 2, match["title"] or "", match["code"])
        for match in BLOCK.finditer(text)
    ]


ALL = [block for page in PAGES for block in blocks(page)]


def name(block: Block) -> str:
    return f"{block.page.name}:{block.line}"


def test_every_block_is_found() -> None:
    assert len(ALL) == sum(page.read_text("utf-8").count("```python") for page in PAGES) > 20


@pytest.mark.parametrize("block", ALL, ids=name)
def test_a_block_compiles_and_its_imports_exist(block: Block) -> None:
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    compile(block.code, name(block), "exec", flags=flags)
    for node in ast.walk(ast.parse(block.code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kamera_agent"):
            module = importlib.import_module(str(node.module))
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


@pytest.mark.parametrize(
    "page", [page for page in PAGES if RUNS in page.read_text("utf-8")], ids=lambda page: page.name
)
def test_the_blocks_of_a_page_run_and_print_their_comments(page: Path) -> None:
    """The blocks of a page share their names. The comment after a print is its output; outputs come in order."""
    running = [block for block in blocks(page) if block.title == RUNS]
    names: dict[str, object] = {}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for block in running:
            exec(compile(block.code, name(block), "exec"), names)
    names["kamera"].close()  # type: ignore[attr-defined]
    outputs = [match["output"] for block in running for match in PRINTS.finditer(block.code)]
    lines = iter(printed.getvalue().splitlines())
    assert outputs
    assert [output for output in outputs if output not in lines] == []
