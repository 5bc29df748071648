"""The figures of a study, and their files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fanin.errors import ArgumentError, OutputError
from fanin.study.analysis import Analysis, analyse
from fanin.study.report.canvas import Drawing, saved, type_set
from fanin.study.report.collapse import collapse
from fanin.study.report.curves import curves
from fanin.study.report.forest import forest
from fanin.study.report.observed import observed
from fanin.study.report.phase import phase
from fanin.study.report.rates import rates
from fanin.study.report.statuses import statuses
from fanin.study.results import Results

DRAW: dict[str, Callable[[Analysis], Drawing | None]] = {
    "differences": forest,
    "phase": phase,
    "collapse": collapse,
    "curves": curves,
    "observed": observed,
    "statuses": statuses,
    "rates": rates,
}
"""In the order of the page."""
KINDS = ("svg", "png")


def drawings(analysis: Analysis) -> list[Drawing]:
    """Every figure that the study has something for."""
    found = []
    for name, draw in DRAW.items():
        with type_set(name):
            drawing = draw(analysis)
        found += [drawing] if drawing is not None else []
    return found


def figures(
    found: Results | str | Path, folder: str | Path, *, kinds: tuple[str, ...] = ("svg",), dpi: int = 160
) -> list[Path]:
    """Write the figures of a study as files, on white, for documents.

    Args:
        found: results, or the path of a store.
        folder: made where it is not there.
        kinds: "svg", "png".

    Returns:
        the files: ``differences.svg``, ``curves.svg``, ...; only those that the study has something for.

    Errors: OutputError where the folder cannot be written; MissingDependency without matplotlib.
    """
    if wrong := [kind for kind in kinds if kind not in KINDS]:
        raise ArgumentError(f"kind {wrong[0]!r}", remedy=f"one of {', '.join(KINDS)}")
    if not isinstance(found, Results):
        from fanin.study.running import load

        found = load(found)
    files = []
    for drawing in drawings(analyse(found)):
        for kind in kinds:
            path = Path(folder) / f"{drawing.name}.{kind}"
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(saved(drawing, kind, dpi=dpi))
            except OSError as error:
                raise OutputError(
                    f"{path} cannot be written: {error.strerror}", remedy="give another folder"
                ) from error
            files.append(path)
    return files
