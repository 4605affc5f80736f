"""The public face: what it exports, and that importing it does nothing else."""

import json
import subprocess
import sys

import kamera_agent
import kamera_agent.errors

SURFACE = [
    "ArchiveError",
    "ConventionError",
    "DocumentContent",
    "Frames",
    "FramesContent",
    "Guard",
    "ImageContent",
    "ImageError",
    "InputError",
    "Kamera",
    "KameraError",
    "KameraStats",
    "Metrics",
    "MissingExtraError",
    "ModelError",
    "Plan",
    "PlanRow",
    "Reply",
    "ReplyStream",
    "SettingError",
    "Settings",
    "Span",
    "Stale",
    "StoreClosedError",
    "StoreDamagedError",
    "StoreError",
    "StoreKeyError",
    "StoreUnavailableError",
    "TextContent",
    "Timings",
    "Trace",
    "UnknownSpanError",
    "UnsupportedModelError",
    "Usage",
    "VideoError",
    "Window",
    "WindowError",
    "WindowTooLongError",
    "sample_fps",
    "sample_groups",
    "sample_scenes",
]

# Caught inside the store: no caller meets it.
INTERNAL_ERRORS = {"CorruptRecordError"}

# Heavy, or the business of one corner of the package: loaded when that corner is used.
NOT_AT_IMPORT = ["cv2", "langchain", "langchain_core", "langgraph", "matplotlib", "obstore", "redis", "typer"]

PROBE = """
import json, os, sys
import torch
from transformers import AutoModelForImageTextToText  # what it does to the process is not ours
before = dict(os.environ), torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype()
loaded = set(sys.modules)
import kamera_agent
after = dict(os.environ), torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype()
print(json.dumps({
    "changed": before != after,
    "cuda": torch.cuda.is_initialized(),
    "modules": sorted(set(sys.modules) - loaded),
}))
"""


def test_the_surface_is_pinned() -> None:
    assert list(kamera_agent.__all__) == sorted(SURFACE)


def test_every_exported_name_exists() -> None:
    assert [name for name in SURFACE if not hasattr(kamera_agent, name)] == []


def test_errors_that_a_caller_can_meet_are_exported() -> None:
    errors = {name for name, value in vars(kamera_agent.errors).items() if isinstance(value, type)}
    assert errors - INTERNAL_ERRORS <= set(SURFACE)


def test_import_does_nothing_else() -> None:
    """A fresh interpreter imports the package: nothing is printed, changed, queried or loaded needlessly."""
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert not found["changed"]
    assert not found["cuda"]
    assert sorted(set(NOT_AT_IMPORT) & set(found["modules"])) == []
