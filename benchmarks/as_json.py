"""`--json` of the benchmarks: alone it prints JSON, and nothing else, to standard output; with FILE.json it writes."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def add_json(parser: argparse.ArgumentParser) -> None:
    """The option."""
    words = "print JSON to standard output, and all else to standard error; with FILE.json, write it there"
    parser.add_argument("--json", nargs="?", const="-", type=_file, metavar="FILE.json", help=words)


def _file(text: str) -> str:
    if text != "-" and not text.endswith(".json"):  # most likely a case of the benchmark that the option would swallow
        raise argparse.ArgumentTypeError(f"{text!r} does not end in .json; name the cases before --json")
    return text


@contextlib.contextmanager
def lines(where: str | None) -> Iterator[None]:
    """What is printed inside goes to standard error where standard output belongs to JSON."""
    with contextlib.redirect_stdout(sys.stderr) if where == "-" else contextlib.nullcontext():
        yield


def keep(where: str | None, value: Any) -> None:
    """What is known so far, into the file, so that a run that is cut short leaves it."""
    if where and where != "-":
        Path(where).write_text(json.dumps(value, indent=1) + "\n")


def finish(where: str | None, value: Any) -> None:
    """All of it."""
    keep(where, value)
    if where == "-":
        print(json.dumps(value, indent=1))
