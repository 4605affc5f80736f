"""The site builds strictly, and its pages load nothing from other servers."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="needs the extra docs")

ROOT = Path(__file__).parents[2]
# Everything that a browser loads without a click; only readers follow links.
LOADED = re.compile(
    r"<(?:script|img|iframe|source|video)\b[^>]*\bsrc=\"?(?:https?:)?//[^\s\">]+|<link\b[^>]*\brel=\"?(?:stylesheet|preconnect|preload|icon)\b[^>]*\bhref=\"?(?:https?:)?//"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_built(site: Path) -> None:
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} <= {path.stem for path in site.glob("*.html")}


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    loads = {path.name: LOADED.findall(path.read_text("utf-8")) for path in site.rglob("*.html")}
    assert {name: urls for name, urls in loads.items() if urls} == {}


def test_links_out_of_the_folder_lead_to_copied_files(site: Path) -> None:
    """The figures of the README, and from there the result file of those figures."""
    (readme,) = set(re.findall(r'href="([^"]*)#figures"', (site / "benchmarks.html").read_text("utf-8")))
    page = site / readme
    assert 'id="figures"' in page.read_text("utf-8")
    results = set(re.findall(r'href="([^"]*window\.json)"', page.read_text("utf-8")))
    assert results
    assert all((page.parent / result).is_file() for result in results)
