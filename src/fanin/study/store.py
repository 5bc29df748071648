"""The embedded store: one SQLite file, one writer, a row a trial, keyed by what decides its outcome.

A row is written when its trial ends and is durable then, so a kill loses the trials in flight and nothing else. What is
left to run is a set difference of keys.
"""

from __future__ import annotations

import fcntl
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from fanin.errors import StudyError
from fanin.study.grid import Cell
from fanin.study.outcome import Outcome
from fanin.study.versions import behind, named, versions

FORMAT = "1"
_TABLES = """
CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS trials (
    key TEXT PRIMARY KEY, cell TEXT NOT NULL, outcome TEXT NOT NULL, status TEXT NOT NULL,
    attempts INTEGER NOT NULL, ended REAL NOT NULL);
"""


class Store:
    """Outcomes of trials in a file.

    Args:
        path: of the SQLite file; made where it is not there.
        writing: False only looks, also while another process writes, and finds what was computed by other versions.
        update: run again what other code or versions computed, instead of an error. The old outcomes stay in the file.

    Errors: StudyError where another process writes, where the file is no store or of another format, and where the disk
    is full or the place cannot be written.
    """

    def __init__(self, path: str | Path, *, writing: bool = True, update: bool = False):
        self.path, self._writing, self._update = Path(path), writing, update
        self._lock: IO[str] | None = None
        self._known: dict[str, dict[str, str]] = {}
        self._told: dict[str, dict[str, str]] = {}
        if not writing and not self.path.exists():
            raise StudyError(
                f"no store at {self.path}",
                cause=_near(self.path),
                remedy="give the path that `fanin study run` printed",
            )
        try:
            if writing:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._lock = _locked(self.path)
            self._base = sqlite3.connect(self.path, timeout=30)
            if writing:
                self._base.execute("PRAGMA journal_mode=WAL")
                self._base.execute("PRAGMA synchronous=FULL")  # durable at commit: also through a power cut
                self._base.executescript(_TABLES)
                self._base.execute("INSERT OR IGNORE INTO about VALUES ('format', ?)", (FORMAT,))
                self._base.commit()
            self._checked_format()
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise _told(self.path, error) from None
        except StudyError:
            self.close()
            raise

    def _checked_format(self) -> None:
        found = self.about("format")
        if found != FORMAT:
            raise StudyError(
                f"{self.path} is a store of format {found}",
                cause=f"another version of fanin wrote it; this one reads {FORMAT}",
                remedy="use that version, or another --store",
            )

    def about(self, key: str) -> Any:
        """A fact of the store (the study, versions, machine), or None."""
        row = self._base.execute("SELECT value FROM about WHERE key = ?", (key,)).fetchone()
        return None if row is None else row[0] if key == "format" else json.loads(row[0])

    def tell(self, key: str, value: Any) -> None:
        """Keep a fact."""
        self._write("INSERT OR REPLACE INTO about VALUES (?, ?)", [(key, json.dumps(value))])

    def key(self, cell: Cell) -> str:
        """Of a cell: a hash of what decides its outcome, and of the versions and sources of what computes it.

        Errors: StudyError where the store's outcomes come from other versions, unless they are to be updated.
        """
        place = behind(cell)
        if place not in self._known:
            kept = {named(name): found for name, found in (self.about("versions") or {}).items()}
            self._known[place] = kept.get(place) or versions(cell)
            if self._writing and self._known[place] != versions(cell):
                self._renew(place, self._known[place], versions(cell))
        return cell.key(self._known[place])

    def _renew(self, place: str, old: dict[str, str], new: dict[str, str]) -> None:
        changed = ", ".join(f"{name} {old.get(name)} is {new[name]} now" for name in new if old.get(name) != new[name])
        if not self._update:
            raise StudyError(
                f"{self.path} was computed by another version: {changed}",
                cause="outcomes of two versions do not belong into one comparison",
                remedy="report it as it is, give another --store, or --update to run again what the change touches",
            )
        self._known[place] = new

    def forget_failed(self) -> None:
        """So that they are run again."""
        self._write("DELETE FROM trials WHERE status = ?", [("failed",)])

    def put(self, cells: Iterable[tuple[Cell, Outcome, int]]) -> None:
        """Write trials: (cell, outcome, attempts). All or none, durable when it returns."""
        now = time.time()
        rows = [(self.key(cell), cell.text(), out.text(), out.status, tries, now) for cell, out, tries in cells]
        self._write("INSERT OR REPLACE INTO trials VALUES (?, ?, ?, ?, ?, ?)", rows)
        if self._known != self._told:
            self._told = dict(self._known)
            self.tell("versions", (self.about("versions") or {}) | self._known)

    def get(self, cell: Cell) -> Outcome | None:
        """The outcome of a cell, if it has one."""
        row = self._base.execute("SELECT outcome FROM trials WHERE key = ?", (self.key(cell),)).fetchone()
        return None if row is None else Outcome.read(row[0])

    def rows(self) -> Iterator[tuple[dict[str, Any], Outcome]]:
        """Every trial: (cell as a dict, outcome)."""
        for cell, outcome in self._base.execute("SELECT cell, outcome FROM trials ORDER BY key"):
            yield json.loads(cell), Outcome.read(outcome)

    def _write(self, statement: str, rows: list[tuple]) -> None:
        try:
            with self._base:
                self._base.executemany(statement, rows)
        except sqlite3.Error as error:
            raise _told(self.path, error) from None

    def close(self) -> None:
        if getattr(self, "_base", None) is not None:
            self._base.close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _locked(path: Path) -> IO[str]:
    """The right to write. The operating system takes it back when the process ends, however it ends."""
    lock = open(path.with_name(path.name + ".lock"), "w")  # noqa: SIM115
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise StudyError(
            f"{path} has a writer already",
            cause="another run uses this store",
            remedy="wait for it, or give another --store",
        ) from None
    return lock


def _near(path: Path) -> str | None:
    """Stores of that study in the same folder: a name is taken for a path."""
    found = sorted(near.name for near in path.parent.glob(f"{path.name}*.sqlite")) if path.parent.is_dir() else []
    return f"did you mean {' or '.join(found)}?" if found else None


def _told(path: Path, error: Exception) -> StudyError:
    text = str(error)
    if "full" in text or "No space" in text:
        return StudyError(
            f"the disk of {path} is full", remedy="make room and run the same command again: trials that ended are kept"
        )
    if "not a database" in text or "malformed" in text:
        return StudyError(f"{path} is no store of fanin: {text}", remedy="give another --store, or move the file away")
    return StudyError(
        f"{path} cannot be used: {text}", remedy="check the path and its permissions, or give another --store"
    )
