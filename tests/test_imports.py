"""Imports point one way, and ``import fanin`` brings in little."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "fanin"

BLOCKS = {"errors", "axes", "distributions", "activations", "signals"}
LAYERS = {  # a part of the package -> what it may read beyond itself and the building blocks
    **{block: set() for block in BLOCKS},
    "schemes": set(),
    "graph": set(),
    "theory": {"graph"},
    "probe": {"graph"},
    "recipes": {"schemes", "graph", "theory", "fill"},
    "fill": set(),  # distributions and numbers; a front end hands it the entries of a plan
    "checks": {"schemes", "graph", "theory", "recipes"},
    "report": {"checks", "recipes", ""},  # the version that a report names
    "targets": set(),
    "study": {"graph", "theory", "recipes", "checks", "report", "fill", "frameworks", "targets", "verbs", ""},
    "frameworks": {"graph", "recipes", "fill"},
    "verbs": {"graph", "theory", "recipes", "checks", "report", "fill", "frameworks"},
    "cli": {"targets", "report", "demo", "study", "verbs", ""},
    "demo": {"cli", "report", ""},
    "__main__": {"cli"},
    "": {"verbs", "recipes", "report", "fill", "schemes"},
}
"""``""`` is the package itself, ``import fanin``: the public names, for those who use them as a user does."""

FRAMEWORKS = {"torch", "jax", "flax", "equinox", "keras", "tensorflow", "transformers", "timm", "torchvision"}
HEAVY = {
    "numba",
    "pandas",
    "plotly",
    "scipy",
    "sklearn",
    "safetensors",
    "rich",
    "jinja2",
    "ray",
    "matplotlib",
    "pyarrow",
}


def files() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def part_of(module: str) -> str:
    """fanin.theory.law -> theory."""
    pieces = module.split(".")
    return pieces[1] if len(pieces) > 1 else ""


def module_of(path: Path) -> str:
    pieces = ("fanin", *path.relative_to(SOURCE).with_suffix("").parts)
    return ".".join(pieces[:-1] if pieces[-1] == "__init__" else pieces)


def imported(tree: ast.AST, *, typing: bool = True) -> list[tuple[str, int]]:
    """Modules that a tree imports, with line numbers.

    Args:
        typing: with those under ``if TYPE_CHECKING``.
    """
    found: list[tuple[str, int]] = []
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if not typing and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            skipped |= {id(inner) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, "imports are absolute"
            found += [(_submodule(node.module, alias.name), node.lineno) for alias in node.names]
    return found


def _submodule(module: str, name: str) -> str:
    """``from fanin import schemes`` reads fanin.schemes."""
    whole = f"{module}.{name}"
    path = SOURCE.parent.joinpath(*whole.split("."))
    return whole if path.is_dir() or path.with_suffix(".py").exists() else module


def at_import(path: Path) -> list[tuple[str, int]]:
    """What a module imports when it is itself imported: not inside functions, not for types."""
    tree = ast.parse(path.read_text())
    tree.body = [s for s in tree.body if not isinstance(s, ast.FunctionDef | ast.AsyncFunctionDef)]
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            node.body = [s for s in node.body if not isinstance(s, ast.FunctionDef | ast.AsyncFunctionDef)] or [
                ast.Pass()
            ]
    return imported(tree, typing=False)


def wrong_ways(module: str, imports: list[tuple[str, int]]) -> list[str]:
    """Imports that point against the direction."""
    part = part_of(module)
    allowed = LAYERS[part] | BLOCKS | {part}
    return [
        f"{module}:{line} imports {name}"
        for name, line in imports
        if name.split(".")[0] == "fanin" and part_of(name) not in allowed
    ]


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_one_way(path):
    assert wrong_ways(module_of(path), imported(ast.parse(path.read_text()), typing=False)) == []


def test_a_wrong_way_is_noticed():
    tree = ast.parse("def f():\n    from fanin.frameworks.torch.ops import TABLE")
    assert wrong_ways("fanin.theory.engine", imported(tree)) == [
        "fanin.theory.engine:2 imports fanin.frameworks.torch.ops"
    ]
    assert wrong_ways("fanin.verbs", imported(tree)) == []


def test_every_part_has_its_place():
    parts = {part_of(module_of(path)) for path in files()}
    assert parts <= set(LAYERS) | {"__main__"}


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_frameworks_are_imported_by_their_front_end_alone(path):
    if "frameworks" in path.relative_to(SOURCE).parts:
        return
    found = [name for name, _ in at_import(path) if name.split(".")[0] in FRAMEWORKS]
    assert found == []


def test_types_do_not_go_round_in_circles():
    """The layers below the verbs form no circle at import time."""
    edges: dict[str, set[str]] = {}
    for path in files():
        module = module_of(path)
        parts = {part_of(name) for name, _ in at_import(path) if name.startswith("fanin")}
        edges.setdefault(part_of(module), set()).update(parts - {part_of(module), ""})
    done: set[str] = set()
    while ready := {part for part in edges if part not in done and edges[part] & set(edges) <= done}:
        done |= ready
    assert set(edges) - done == set()


# --- import fanin ---------------------------------------------------------------------------------------------------


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_brings_in_no_framework():
    loaded = set(run("import sys, fanin; print(*{m.split('.')[0] for m in sys.modules})").split())
    assert loaded & (FRAMEWORKS | HEAVY) == set()


def test_public_names_bring_in_no_framework_before_they_are_called():
    code = (
        "import sys, fanin; [getattr(fanin, n) for n in fanin.__all__]; print(*{m.split('.')[0] for m in sys.modules})"
    )
    assert {m.split(".")[0] for m in run(code).split()} & (FRAMEWORKS | {"numba", "pandas", "plotly"}) == set()


def test_import_is_quick():
    """Best of several, the interpreter's own start not counted."""
    code = "import time; t = time.perf_counter(); import fanin; print(time.perf_counter() - t)"
    assert min(float(run(code)) for _ in range(5)) < 0.2
