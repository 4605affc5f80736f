"""Run the notebook without a browser, and save it with an HTML page: python execute.py FOLDER"""

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbconvert import HTMLExporter

NOTEBOOK = Path(__file__).resolve().with_name("video_qa.ipynb")
# The page has no formulas and no widgets, so it needs none of the scripts that it would load from elsewhere.
NOTHING_FROM_ELSEWHERE = dict.fromkeys(
    ("jquery_url", "mathjax_url", "mermaid_js_url", "mermaid_layout_elk_js_url", "require_js_url"), ""
)


def execute(folder: Path) -> None:
    # The kernel inherits both. A file needs no progress bar of the weights. Beside other programs, threads that spin
    # while they wait slow down the threads they wait for.
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(
        notebook,
        timeout=None,
        resources={"metadata": {"path": NOTEBOOK.parent}},
        record_timing=False,
        coalesce_streams=True,
        # Hides the warning that the kernel talks in plain text, which it does over loopback.
        extra_arguments=["--log-level=ERROR"],
    ).execute()
    page, _ = HTMLExporter(**NOTHING_FROM_ELSEWHERE).from_notebook_node(notebook, {"metadata": {"name": "Video"}})
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, folder / NOTEBOOK.name)
    (folder / NOTEBOOK.name).with_suffix(".html").write_text(page, "utf-8")
    print(folder / NOTEBOOK.name, (folder / NOTEBOOK.name).with_suffix(".html"), sep="\n")


if __name__ == "__main__":
    execute(Path(sys.argv[1]))
