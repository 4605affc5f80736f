"""Run the notebook anew, without a browser: python execute.py FOLDER leaves it there, and a page beside it."""

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbconvert import HTMLExporter

NOTEBOOK = Path(__file__).resolve().with_name("video_qa.ipynb")
# The page stands alone: what it could load from elsewhere serves formulas and widgets, and it has none.
NOTHING_FROM_ELSEWHERE = dict.fromkeys(
    ("jquery_url", "mathjax_url", "mermaid_js_url", "mermaid_layout_elk_js_url", "require_js_url"), ""
)


def execute(folder: Path) -> None:
    # The kernel takes both over. A bar on how the weights are loaded is of no use in a file; and where other programs
    # run, threads that spin while they wait hold up the ones they wait for.
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(
        notebook,
        timeout=None,
        resources={"metadata": {"path": NOTEBOOK.parent}},
        record_timing=False,
        coalesce_streams=True,
        # Without its warning that it talks in plain text, over the loopback device.
        extra_arguments=["--log-level=ERROR"],
    ).execute()
    page, _ = HTMLExporter(**NOTHING_FROM_ELSEWHERE).from_notebook_node(notebook, {"metadata": {"name": "Video"}})
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, folder / NOTEBOOK.name)
    (folder / NOTEBOOK.name).with_suffix(".html").write_text(page, "utf-8")
    print(folder / NOTEBOOK.name, (folder / NOTEBOOK.name).with_suffix(".html"), sep="\n")


if __name__ == "__main__":
    execute(Path(sys.argv[1]))
