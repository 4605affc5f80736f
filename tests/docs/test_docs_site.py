"""The site builds strictly, and its pages load nothing from other servers."""

import re
import shutil
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


def test_search_works_from_a_folder(site: Path) -> None:
    """Browsers refuse workers and requests to pages that are opened without a server."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra examples")
    if not (chromium := shutil.which("chromium") or shutil.which("google-chrome")):
        pytest.skip("needs a Chromium, and there is none on the PATH")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto((site / "index.html").as_uri())
        page.keyboard.press("/")
        page.keyboard.type("antecedents")
        page.wait_for_selector(".md-search-result__link", timeout=30_000)
        hits = page.locator(".md-search-result__link").evaluate_all("links => links.map(link => link.pathname)")
        browser.close()
    assert str(site / "design.html") in hits
