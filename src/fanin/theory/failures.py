"""What rules raise that meet a case they were not written for: users get a note in the row, tests the traceback."""

from __future__ import annotations

from contextvars import ContextVar

FAILURES = (RuntimeError, ValueError, IndexError, TypeError, AttributeError, KeyError, ArithmeticError)
"""Besides ``NotImplementedError``, with which a rule says itself that it does not cover a case."""

loud: ContextVar[bool] = ContextVar("loud", default=False)
"""Whether ``FAILURES`` are raised: a slip in a rule must not look like a case without one. Tests set it."""


def reason(op: str, error: Exception) -> str:
    """Why a rule's answer is missing; raises the error itself where failures are loud."""
    if isinstance(error, NotImplementedError):
        return f"{op}: {error}"
    if loud.get():
        raise error
    return f"{op}: its rule failed with {type(error).__name__}: {error}"
