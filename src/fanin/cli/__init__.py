"""The command line: each subcommand is one public verb.

Exit status: 0 fine, 1 findings at or above ``--fail-on`` (or weights that do not verify), 2 the target or the usage is
wrong. Results go to stdout, everything else to stderr.
"""

from fanin.cli.run import main

__all__ = ["main"]
