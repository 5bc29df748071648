"""What goes to the terminal: results to stdout, progress and complaints to stderr."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fanin.errors import OutputError

PIPE_WIDTH = 120


def width() -> int:
    """Columns of the terminal; a fixed number where the output is a pipe or a file."""
    if "COLUMNS" in os.environ or sys.stdout.isatty():
        return max(60, shutil.get_terminal_size((PIPE_WIDTH, 40)).columns)
    return PIPE_WIDTH


def color() -> bool:
    """Colours: on a terminal, and not against NO_COLOR's or a dumb terminal's will."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def say(text: str) -> None:
    """A result."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")


def remark(text: str) -> None:
    """Something beside the result."""
    print(text, file=sys.stderr)


def complain(seen: str, *, cause: str | None = None, remedy: str | None = None) -> None:
    """A mistake: what was seen, the likely cause, the remedy."""
    remark(f"fanin: error: {seen}")
    if cause:
        remark(f"  cause:  {cause}")
    if remedy:
        remark(f"  remedy: {remedy}")


@contextmanager
def working(text: str) -> Iterator[None]:
    """A line with a spinner and the seconds so far, on stderr, while a terminal is there to see it."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        progress.add_task(text, total=None)
        yield


@contextmanager
def writing(text: str) -> Iterator[Callable[[Any], None] | None]:
    """A bar of bytes, rate and time left on stderr, while a terminal is there to see it; what it yields moves it."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(text, total=None)
        yield lambda state: progress.update(task, completed=state.done, total=state.total)


def will_write(path: str | Path | None, *, folder: bool = False) -> None:
    """Refuse a path that cannot be written before any work is done for it; ``folder`` lets it be a folder."""
    if path is None:
        return
    if folder and Path(path).is_dir():
        if not os.access(path, os.W_OK):
            raise OutputError(f"{path} cannot be written", cause=f"no permission to write in {path}")
        return
    _will_write_file(path)


def _will_write_file(path: str | Path) -> None:
    folder = Path(path).resolve().parent
    if not folder.is_dir():
        raise OutputError(f"{path} cannot be written", cause=f"there is no folder {folder}", remedy="make it first")
    if Path(path).is_dir():
        raise OutputError(f"{path} is a folder", remedy="give the name of a file")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"{path} cannot be written", cause=f"no permission to write in {folder}")
