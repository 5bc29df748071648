"""Front ends: the only place where a framework is imported, and only when a model of it is given."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from fanin.errors import ArgumentError


def front_end(model: Any) -> ModuleType:
    """The front end that reads this model.

    Raises:
        ArgumentError: no front end knows it; the message says what it is.
    """
    if "torch" in sys.modules:
        from fanin.frameworks.torch import verbs

        if verbs.is_model(model):
            return verbs
    raise ArgumentError(
        f"{_described(model)} is not a model that fanin reads",
        remedy=f"give an instance: {model.__name__}(...)" if isinstance(model, type) else "give a torch.nn.Module",
    )


def _described(thing: Any) -> str:
    if isinstance(thing, type):
        return f"the class {thing.__module__}.{thing.__qualname__}"
    return f"a {type(thing).__module__}.{type(thing).__qualname__}"


__all__ = ["front_end"]
