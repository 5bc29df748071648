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
        f"a {type(model).__module__}.{type(model).__qualname__} is not a model that fanin reads",
        remedy="give a torch.nn.Module" + (" instance, not the class" if isinstance(model, type) else ""),
    )


__all__ = ["front_end"]
