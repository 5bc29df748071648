"""Graph -> Signals without running anything: the moments of every tensor over random weights (NumPy only).

The interpreter is loaded when it is first asked for: recipes that read one table of a latent need none of it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fanin.theory.engine import Interpreter as Interpreter
    from fanin.theory.engine import interpret as interpret

__all__ = ["Interpreter", "interpret"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'fanin.theory' has no attribute {name!r}")
    return getattr(import_module("fanin.theory.engine"), name)
