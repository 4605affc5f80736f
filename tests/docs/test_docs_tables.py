"""Tables of the documents against the code: every option with its default, every metric, every error, every floor."""

import ast
import inspect
import re
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from prometheus_client import CollectorRegistry

import kamera_agent
from benchmarks.backbones.sizes import size_table
from benchmarks.backbones.table import support_table
from benchmarks.fleet.payoff import bandwidth_table, payoff_table
from kamera_agent import Guard, Kamera, KameraError, Settings
from kamera_agent.agent import Budget, ChatKamera, Interval, KeepLast, ScreenWindow
from kamera_agent.telemetry.metrics import Metrics
from kamera_agent.telemetry.trace import Trace

DOCS = Path(__file__).parents[2] / "docs"
PACKAGE = Path(kamera_agent.__file__).parent
REQUIRED = "required"
# Defaults that are no literals.
OBJECTS = {"`Guard()`": Guard()}


def tables(page: str, heading: str) -> list[list[list[str]]]:
    """Rows of cells of the tables below a heading, without the head rows."""
    text = (DOCS / page).read_text("utf-8")
    section = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text, re.DOTALL | re.MULTILINE)
    assert section, f"{page} has no heading {heading!r}"
    parts = re.findall(r"(?:^\|.*\n)+", section[1], re.MULTILINE)
    return [[[cell.strip() for cell in line[1:-1].split("|")] for line in part.splitlines()[2:]] for part in parts]


def code(cell: str) -> str:
    assert cell.startswith("`"), cell
    assert cell.endswith("`"), cell
    return cell[1:-1]


def documented(page: str, heading: str) -> dict[str, Any]:
    """Defaults by option, from the table below a heading."""
    return {
        code(option): REQUIRED if default == REQUIRED else OBJECTS.get(default) or ast.literal_eval(code(default))
        for option, default, _ in tables(page, heading)[0]
    }


def parameters(function: Any, *without: str) -> dict[str, Any]:
    signature = inspect.signature(function).parameters
    return {
        name: REQUIRED if parameter.default is parameter.empty else parameter.default
        for name, parameter in signature.items()
        if name not in ("self", *without) and parameter.kind is not parameter.VAR_KEYWORD
    }


def chat_fields() -> dict[str, Any]:
    own = {name: field for name, field in ChatKamera.model_fields.items() if name not in BaseChatModel.model_fields}
    return {name: REQUIRED if field.is_required() else field.default for name, field in own.items()}


def setting_fields() -> dict[str, Any]:
    return {field.name: field.default for field in fields(Settings)}


@pytest.mark.parametrize(
    ("heading", "expected"),
    [
        ("Kamera.from_pretrained", parameters(Kamera.from_pretrained)),
        ("Settings", setting_fields()),
        ("ChatKamera", chat_fields()),
        ("ScreenWindow", parameters(ScreenWindow.__init__)),
        ("Trace", parameters(Trace.__init__)),
        ("Guard", {field.name: field.default for field in fields(Guard)}),
        ("Metrics", parameters(Metrics.__init__)),
    ],
)
def test_options_and_their_defaults(heading: str, expected: dict[str, Any]) -> None:
    assert documented("configuration.md", heading) == expected


def test_policies_and_their_options() -> None:
    policies = {
        code(policy): re.findall(r"`(\w+)`", options)
        for policy, options, _ in tables("configuration.md", "ScreenWindow")[1]
    }
    assert policies == {kind.__name__: [field.name for field in fields(kind)] for kind in (KeepLast, Interval, Budget)}


def test_every_metric() -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    exposed = {
        family.name + ("_total" if family.type == "counter" else ""): (family.type, family.documentation)
        for family in registry.collect()
    }
    rows = [row for heading in ("Answers", "State") for row in tables("metrics.md", heading)[0]]
    assert {code(name): (kind, meaning) for name, kind, _, meaning, _ in rows} == exposed


def test_labels_of_metrics(reply_metrics: dict[str, set[str]]) -> None:
    rows = [row for heading in ("Answers", "State") for row in tables("metrics.md", heading)[0]]
    labels_by_name = {code(name): set(re.findall(r"`(\w+)`", labels)) for name, _, labels, _, _ in rows}
    assert {name: labels_by_name[name] for name in reply_metrics} == reply_metrics


@pytest.fixture
def reply_metrics() -> dict[str, set[str]]:
    """Labels, besides model_name, of every metric that an answer feeds."""
    metrics = Metrics(CollectorRegistry())
    collectors = [
        *metrics._times.values(),
        *metrics._counts.values(),
        metrics._per_token,
        metrics._prompt,
        metrics._answers,
        metrics._drift,
        metrics._compared,
        metrics._comparing,
        metrics._fallbacks,
    ]
    return {
        collector._name + ("_total" if collector._type == "counter" else ""): {*collector._labelnames} - {"model_name"}
        for collector in collectors
    }


def test_every_error() -> None:
    public = {name for name, value in public_members() if isinstance(value, type) and issubclass(value, KameraError)}
    names = [code(error) for error, _, _ in tables("troubleshooting.md", "Errors by name")[0]]
    assert set(names) == public - {"KameraError"}
    assert len(names) == len(set(names))


def public_members() -> Iterable[tuple[str, Any]]:
    return ((name, getattr(kamera_agent, name)) for name in kamera_agent.__all__)


def test_every_backbone() -> None:
    """The page has the table that `python -m benchmarks.backbones.table` prints."""
    assert support_table() in (DOCS / "backbones.md").read_text("utf-8")


def test_sizes_of_released_models() -> None:
    """The page has the table that `python -m benchmarks.backbones.sizes` prints."""
    assert size_table() in (DOCS / "backbones.md").read_text("utf-8")


def test_where_tiers_stop_paying() -> None:
    """The page has the tables that `python -m benchmarks.fleet.payoff` prints."""
    page = (DOCS / "scale.md").read_text("utf-8")
    assert bandwidth_table() in page
    assert payoff_table() in page


def test_design_has_the_floors_of_the_house_plan() -> None:
    plan = re.search(r"^ROOMS = (\{.*?^\})", (DOCS.parent / "tests/test_floors.py").read_text("utf-8"), re.M | re.S)
    assert plan
    rooms = ast.literal_eval(plan[1])
    rows = tables("design.md", "Floors")[0]
    documented = {
        room: int(floor) for floor, cell in rows for room in re.findall(r"`([\w./]+)`", cell) if room in rooms
    }
    assert documented == {room: floor for room, floor in rooms.items() if room != "__init__.py"}


def test_design_names_files_and_words_of_the_code() -> None:
    """A room or a file by its path from the package, or from the room before it in the table; a name as a word."""
    sources = {path.relative_to(PACKAGE).as_posix(): path.read_text("utf-8") for path in PACKAGE.rglob("*.py")}
    known = {f"/{path}" for path in sources}
    known |= {f"/{path.relative_to(DOCS.parent).as_posix()}" for path in (DOCS.parent / "tests").rglob("*.py")}
    known |= {f"/{folder.relative_to(PACKAGE)}/" for folder in PACKAGE.rglob("*") if folder.is_dir()} | {"/training/"}
    words = set(re.findall(r"\w+", " ".join(sources.values())))
    names = re.findall(r"`([\w./]+)`", (DOCS / "design.md").read_text("utf-8"))
    paths = [name for name in names if name.endswith((".py", "/"))]
    assert len(paths) > 50
    assert [path for path in paths if not any(place.endswith(f"/{path}") for place in known)] == []
    assert [name for name in names if name not in paths and not words >= set(name.split("."))] == []
