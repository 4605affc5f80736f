"""A server of the pages that the agent sees, on loopback: the shop, its fonts, and the MiniWoB++ tasks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

from kamera_agent.pocket.style import FONTS

SHOP = Path(__file__).parent / "shop"


@contextmanager
def serve() -> Iterator[str]:
    """Serve /shop/, /fonts/ and /miniwob/ on a free port while the context is open. Yields the address."""
    roots = {"shop": SHOP, "fonts": FONTS, "miniwob": find_miniwob()}
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Pages, roots))
    thread = threading.Thread(target=server.serve_forever, name="pages", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def find_miniwob() -> Path:
    """The folder of pages in the installed miniwob package. The package is not imported, as it needs Selenium."""
    spec = find_spec("miniwob")
    if spec is None or spec.origin is None:
        raise SystemExit('The package miniwob is not installed; run pip install -e ".[examples]".')
    return Path(spec.origin).parent / "html"


class Pages(SimpleHTTPRequestHandler):
    """Serves the files of several folders, each under its name."""

    def __init__(self, roots: dict[str, Path], *arguments: object) -> None:
        self._roots = roots
        super().__init__(*arguments)  # type: ignore[arg-type]  # request, address and server, as the server gives them

    def translate_path(self, path: str) -> str:
        """The file of an address. The base class keeps the path inside the folder."""
        name, _, rest = path.lstrip("/").partition("/")
        self.directory = str(self._roots.get(name, SHOP))
        return super().translate_path(rest)

    def log_message(self, format: str, *arguments: object) -> None:
        """Print nothing: the terminal is for the report."""
