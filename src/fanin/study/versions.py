"""What computes an outcome, as hashes: a trial is run again when the code behind it has changed, and not otherwise."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import platform
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from fanin.errors import StudyError
from fanin.study.grid import Cell

PACKAGE = Path(__file__).parent.parent
TRAINING = ("frameworks/torch/training", "study/data", "study/trial.py", "fill", "distributions")
"""Sources that decide every trial."""
DRAWING = ("recipes", "schemes.py", "axes", "activations")
"""Sources that decide trials whose weights a recipe draws."""
LOOKING = ("identify.py", "candidates.py", "fitting.py", "blocks.py", "marks.py", "explain.py", "difference.py")
"""Parts of the recipes that read weights or plans, and draw none."""
FOLLOWING = ("theory", "graph", "frameworks/torch")
"""Sources that decide trials whose recipe follows the signal through the model, such as auto."""


_KINDS = {
    len(TRAINING): "training",
    len(TRAINING) + len(DRAWING): "drawing",
    len(TRAINING) + len(DRAWING) + len(FOLLOWING): "following",
}
_LAST = {"distributions": "training", "activations": "drawing", "frameworks/torch": "following"}
"""Last source of a list -> what the list decides."""


def versions(cell: Cell) -> dict[str, str]:
    """Versions and hashes that belong to the key of a cell."""
    return dict(_versions(_sources(cell), tuple(sorted(_files(cell)))))


@lru_cache(maxsize=64)
def _versions(sources: tuple[str, ...], files: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    known = {name: _version(name) for name in ("torch", "numpy")}
    return tuple((known | {"code": _hash(sources), "files": _content(files)}).items())


def behind(cell: Cell) -> str:
    """What computes a cell, by name: cells with the same have the same versions, wherever the sources stand."""
    return "|".join((_KINDS[len(_sources(cell))], *sorted(_files(cell))))


def named(place: str) -> str:
    """`behind` of a store that lists the sources themselves.

    Example:
        >>> named("study/trial.py|distributions|recipes|axes.py|activations|mine.tasks"), named("training")
        ('drawing|mine.tasks', 'training')
    """
    parts = place.split("|")
    if parts[0] in _KINDS.values():
        return place
    last = max(i for i, part in enumerate(parts) if part in _LAST)
    return "|".join((_LAST[parts[last]], *parts[last + 1 :]))


def environment() -> dict[str, str]:
    """For the manifest: what the outcomes were computed with and on."""
    names = ("fanin", "torch", "numpy", "scipy", "numba", "scikit-learn", "ray")
    found = {name: version for name in names if (version := _version(name))}
    return found | {"python": platform.python_version(), "machine": platform.machine(), "system": platform.system()}


def _sources(cell: Cell) -> tuple[str, ...]:
    recipe = cell.start.get("recipe")
    if recipe is None:
        return TRAINING
    return (*TRAINING, *DRAWING, *FOLLOWING) if _follows(recipe) else (*TRAINING, *DRAWING)


def _follows(recipe: str | Mapping[str, str]) -> bool:
    from fanin.recipes import RECIPES

    named = [recipe] if isinstance(recipe, str) else recipe.values()
    return any(name in RECIPES and RECIPES[name].needs_batch for name in named)


def _files(cell: Cell) -> Iterable[str]:
    """Files of the cell's own, or names of modules: a factory that changed gives other outcomes."""
    factory, init, plan = cell.task.get("factory"), cell.start.get("init"), cell.start.get("plan")
    if factory:
        yield factory.rpartition(":")[0]
    if init and init.partition(":")[0].endswith(".py"):
        yield init.rpartition(":")[0]
    if plan:
        yield plan


@lru_cache(maxsize=8)
def _hash(sources: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for source in sources:
        path = PACKAGE / source
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            if source == "recipes" and file.name in LOOKING:
                continue
            digest.update(str(file.relative_to(PACKAGE)).encode() + _meaning(file.read_text()).encode())
    return digest.hexdigest()[:16]


def _meaning(source: str) -> str:
    """The syntax tree without docstrings and comments: to reword one is no reason to train again."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [part for part in body if not _is_text(part)]  # type: ignore[attr-defined]
    return ast.dump(tree)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _content(files: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for file in files:
        try:
            path = _located(file)
            digest.update(_meaning(path.read_text()).encode() if path.suffix == ".py" else path.read_bytes())
        except SyntaxError:
            digest.update(path.read_bytes())  # the trial will tell
        except OSError as error:
            raise StudyError(
                f"{file} cannot be read: {error.strerror}", remedy="give the path of a file that is there"
            ) from None
    return digest.hexdigest()[:16] if files else ""


def _located(file: str) -> Path:
    """The path of a file, or of the module of this name; a module that is not there is told where it is called."""
    path = Path(file)
    if path.suffix in (".py", ".json") or path.exists():
        return path
    here = Path.cwd().joinpath(*file.split(".")).with_suffix(".py")
    found = None if here.exists() else importlib.util.find_spec(file)
    return here if here.exists() else Path(found.origin or file) if found else Path(os.devnull)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
