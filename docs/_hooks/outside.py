"""Copies the files outside docs/ that pages link to, so a link works both in the repository and on the site."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
# The folder of the site for files from the rest of the repository.
PLACE = "repository/"
# A link or picture with a relative path. Links with a scheme and bare anchors stay as they are.
LINK = re.compile(r"\]\(([^)\s#:]+)")


def on_files(files: Files, config: Any) -> Files:
    """Add every file of the repository that a page links to, and the files that those link to in turn."""
    pending = list(files.documentation_pages())
    while pending:
        page = pending.pop()
        for target in _targets(page.src_uri, page.content_string):
            if files.get_file_from_path(_uri(target)) is None and (ROOT / target).is_file():
                files.append(File.generated(config, _uri(target), abs_src_path=str(ROOT / target)))
                if target.endswith(".md"):
                    pending.append(files.src_uris[_uri(target)])
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links to the files on the site. A link to a missing file fails the build."""
    source = page.file.src_uri

    def point(link: re.Match[str]) -> str:
        target = _resolve(source, link[1])
        return f"]({os.path.relpath(_uri(target), os.path.dirname(source))}"

    return LINK.sub(point, markdown)


def _targets(source: str, markdown: str) -> Iterator[str]:
    for link in LINK.findall(markdown):
        yield _resolve(source, link)


def _resolve(source: str, link: str) -> str:
    """Path in the repository of a link's target. source: path of the page on the site."""
    here = source.removeprefix(PLACE) if source.startswith(PLACE) else f"docs/{source}"
    return os.path.normpath(os.path.join(os.path.dirname(here), link))


def _uri(target: str) -> str:
    """Path on the site of a file of the repository."""
    return target.removeprefix("docs/") if target.startswith("docs/") else PLACE + target
