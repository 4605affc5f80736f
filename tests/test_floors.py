"""The house plan: imports run downward, and each third-party package has its place.

A room is an entry of ROOMS: a folder with all below it ("store/") or one file ("kamera.py").
Within a room a file may import any other, unless that closes a circle. Names under TYPE_CHECKING do not count.
"""

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import kamera_agent.errors

PACKAGE = "kamera_agent"

# room -> floor. A new module is added here, with thought about what it may lean on.
ROOMS = {
    "cli/": 8,
    "agent/": 7,
    "serve/": 7,
    "turns/": 6,
    "ingest/": 6,
    "report/": 6,
    "__init__.py": 5,
    "kamera.py": 5,
    "pages/": 5,
    "telemetry/": 5,
    "window/": 4,
    "pocket/": 3,
    "runtime/kernels/": 2,
    "runtime/": 3,
    "store/": 1,
    "vision/": 1,
    "antecedents.py": 0,
    "chunk.py": 0,
    "closing.py": 0,
    "config.py": 0,
    "errors.py": 0,
    "forking.py": 0,
    "options.py": 0,
    "progress.py": 0,
    "secret.py": 0,
    "trouble.py": 0,
}

# Downward, and forbidden all the same: (prefix of the importer, prefix of the imported) -> why.
FORBIDDEN = {
    ("runtime/", "store/"): "Kamera hands chunks across, so that either half is tested alone",
}

# Third-party package -> the files and folders that may import it. An empty tuple: nobody.
CONFINED = {
    "transformers": (
        "runtime/families/",
        "runtime/slot_cache.py",
        "runtime/interface.py",
        "window/sampler.py",
        "pocket/",
    ),
    "cryptography": ("store/cipher.py",),
    "redis": ("store/remote/redis.py",),
    "obstore": ("store/remote/objects.py",),
    "lmdb": ("store/environment.py", "store/inspection.py"),
    "triton": ("runtime/kernels/",),
    "llguidance": ("turns/grammar.py",),
    "langchain": ("agent/",),
    "langchain_core": ("agent/",),
    "langgraph": ("agent/",),
    "fastapi": ("serve/",),
    "starlette": ("serve/",),
    "uvicorn": ("serve/server.py",),
    "ray": ("ingest/crews.py",),
    "prometheus_client": ("telemetry/metrics.py",),
    "opentelemetry": ("telemetry/spans.py",),
    # Whoever can write to the store's folder must not be able to run code through it.
    "pickle": (),
    "cloudpickle": (),
    "dill": (),
    "joblib": (),
    "marshal": (),
    "shelve": (),
    "torch.load": (),
    "torch.save": (),
}


class Import(NamedTuple):
    """One imported name: where it stands and what it names, in full."""

    line: int
    name: str


def test_the_house_plan_holds() -> None:
    problems = check(read_package())
    assert not problems, "\n".join(problems)


def read_package() -> dict[str, str]:
    """Source of every module by path relative to the package."""
    root = Path(kamera_agent.errors.__file__).parent
    return {path.relative_to(root).as_posix(): path.read_text("utf-8") for path in sorted(root.rglob("*.py"))}


def check(sources: Mapping[str, str]) -> list[str]:
    """What breaks the plan, one line each."""
    problems = [f"{path}: not in ROOMS; add it there with its floor" for path in sources if room_of(path) is None]
    neighbours: dict[str, set[str]] = {}
    for path, source in sources.items():
        for line, name in imports(path, source):
            target = find_module(name, sources)
            complaint = check_third_party(path, name) if target is None else check_floor(path, target)
            if complaint:
                problems.append(f"{path}:{line}: {complaint}")
            elif target is not None and target != path:
                neighbours.setdefault(path, set()).add(target)
    return problems + check_cycles(neighbours)


def check_floor(path: str, target: str) -> str | None:
    """Why the module at path may not import the one at target; None when it may."""
    here, there = room_of(path), room_of(target)
    if here is None or there is None or here == there:
        return None
    for (importer, imported), reason in FORBIDDEN.items():
        if path.startswith(importer) and target.startswith(imported):
            return f"{importer} never imports {imported}: {reason}"
    if ROOMS[there] > ROOMS[here]:
        return f"floor {ROOMS[here]} imports {target} of floor {ROOMS[there]}; imports run downward"
    if ROOMS[there] == ROOMS[here] and here.endswith("/") and there.endswith("/"):
        return f"{here} imports {there}; folders of one floor do not import each other"
    return None


def check_third_party(path: str, name: str) -> str | None:
    """Why the module at path may not import a name from outside the package; None when it may."""
    if is_within(name, PACKAGE):
        return f"imports {name}, which is not in the tree"
    for package, places in CONFINED.items():
        if is_within(name, package) and not path.startswith(places):
            return f"imports {package}, which belongs in {' or '.join(places) or 'no module'}"
    return None


def check_cycles(neighbours: Mapping[str, set[str]]) -> list[str]:
    """Downward imports cannot close a circle; files of one room or floor could."""
    try:
        TopologicalSorter(neighbours).prepare()
    except CycleError as error:
        return [f"imports run in a circle: {' <- '.join(error.args[1])}"]
    return []


def room_of(path: str) -> str | None:
    """The room that a module lies in."""
    return next((room for room in ROOMS if path == room or (room.endswith("/") and path.startswith(room))), None)


def find_module(name: str, sources: Mapping[str, str]) -> str | None:
    """Path of the module that a full name names, or whose member it is; None when it is not ours."""
    package, *parts = name.split(".")
    if package != PACKAGE:
        return None
    for inner in (parts, parts[:-1]):
        for path in ("/".join(inner) + ".py", "/".join([*inner, "__init__.py"])):
            if path in sources:
                return path
    return None


def is_within(name: str, package: str) -> bool:
    """Whether a full name is the package or lies in it."""
    return name == package or name.startswith(package + ".")


def imports(path: str, source: str) -> Iterator[Import]:
    """Every import of a module, those inside functions and by string among them."""
    pending: list[ast.AST] = [ast.parse(source, path)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            pending.extend(node.orelse)
            continue
        pending.extend(ast.iter_child_nodes(node))
        yield from (Import(node.lineno, name) for name in imported_names(path, node))


def imported_names(path: str, node: ast.AST) -> list[str]:
    """Full names that one statement or expression brings in."""
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module=module, names=names, level=level):
            base = ".".join(filter(None, [package_of(path, level), module]))
            return [base if alias.name == "*" else f"{base}.{alias.name}" for alias in names]
        case ast.Call(func=ast.Name(id="__import__"), args=[ast.Constant(value=str(name)), *_]):
            return [name]
        case ast.Call(args=[ast.Constant(value=str(name)), *_]) if "import_module" in ast.unparse(node.func):
            return [name]
        case ast.Attribute(value=ast.Name(id="torch"), attr="load" | "save" as attr):
            return [f"torch.{attr}"]
    return []


def package_of(path: str, level: int) -> str:
    """The package that a relative import of that level starts from; "" for an absolute one."""
    if level == 0:
        return ""
    folders = [PACKAGE, *Path(path).parent.parts]
    return ".".join(folders[: len(folders) - level + 1])


GOOD = {
    "lower floor": ("kamera.py", "from kamera_agent.store.base import Store"),
    "same room": ("store/tiered.py", "from kamera_agent.store.memory import MemoryStore"),
    "a folder below": ("runtime/families/qwen.py", "from kamera_agent.runtime.kv_pool import KVPool"),
    "types only": ("store/base.py", "if TYPE_CHECKING:\n    from kamera_agent.window import Window"),
    "in its place": ("store/environment.py", "import lmdb"),
    "free third party": ("chunk.py", "import torch"),
    "a like name": ("chunk.py", "import picklebook"),
}

BAD = {
    "upward": ("store/base.py", "from kamera_agent.window import Window", "imports run downward"),
    "upward inside a function": (
        "errors.py",
        "def f():\n    import kamera_agent.kamera",
        "imports run downward",
    ),
    "upward after TYPE_CHECKING": (
        "store/base.py",
        "if TYPE_CHECKING:\n    pass\nelse:\n    import kamera_agent.window",
        "imports run downward",
    ),
    "upward through the face": (
        "vision/frames.py",
        "from kamera_agent import Kamera",
        "imports run downward",
    ),
    "upward, relative": ("store/base.py", "from ..runtime import kv_pool", "imports run downward"),
    "next folder": ("vision/frames.py", "from kamera_agent.store import base", "do not import each other"),
    "runtime to store": (
        "runtime/engine.py",
        "from kamera_agent.store.base import Store",
        "never imports store/",
    ),
    "out of place": ("kamera.py", "from lmdb import Environment", "belongs in store/environment.py"),
    "out of place, by string": (
        "kamera.py",
        'import_module("triton.language")',
        "belongs in runtime/kernels/",
    ),
    "out of place, part": ("chunk.py", "import langchain_core.messages", "belongs in agent/"),
    "pickle": ("store/base.py", "import pickle", "belongs in no module"),
    "torch.load": ("pocket/weights.py", "import torch\ntorch.load('w.pt')", "belongs in no module"),
    "from torch import load": ("pocket/weights.py", "from torch import load", "belongs in no module"),
    "unknown room": ("helpers.py", "", "not in ROOMS; add it"),
    "no such module": ("kamera.py", "import kamera_agent.nowhere.at_all", "not in the tree"),
    "circle in a room": ("store/base.py", "from kamera_agent.store.memory import MemoryStore", "in a circle"),
}

# A small house for the fabricated modules to stand in.
HOUSE = {
    "__init__.py": "from kamera_agent.kamera import Kamera",
    "kamera.py": "from kamera_agent.window import Window",
    "window/__init__.py": "",
    "errors.py": "",
    "runtime/__init__.py": "",
    "runtime/kv_pool.py": "",
    "store/__init__.py": "",
    "store/base.py": "",
    "store/memory.py": "from kamera_agent.store.base import Store",
}


@pytest.mark.parametrize(("path", "source"), GOOD.values(), ids=GOOD)
def test_the_checker_passes(path: str, source: str) -> None:
    assert check(HOUSE | {path: source}) == []


@pytest.mark.parametrize(("path", "source", "message"), BAD.values(), ids=BAD)
def test_the_checker_objects(path: str, source: str, message: str) -> None:
    problems = check(HOUSE | {path: source})
    assert len(problems) == 1
    assert message in problems[0]
    assert path in problems[0]
