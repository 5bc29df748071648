"""Random draws that a model makes itself (stochastic depth, noise, masks): a law, not the values of one draw."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fanin.graph import Kind

if TYPE_CHECKING:
    from fanin.frameworks.torch.arguments import Arguments

Row = Callable[["Arguments"], tuple[Kind, dict[str, Any]]]


def _uniform(a: Arguments) -> tuple[Kind, dict[str, Any]]:
    low, high = float(a.get("from", 0.0)), float(a.get("to", 1.0))
    return Kind.CONSTANT, {"noise": "uniform", "low": low, "high": high}


def _normal(a: Arguments) -> tuple[Kind, dict[str, Any]]:
    return Kind.CONSTANT, {"noise": "normal", "mean": float(a.get("mean", 0.0)), "std": float(a.get("std", 1.0))}


def _bernoulli(a: Arguments) -> tuple[Kind, dict[str, Any]]:
    """Ones with a chance that is a number, or that a tensor says."""
    p = a.get("p")
    if isinstance(p, int | float):
        return Kind.CONSTANT, {"noise": "bernoulli", "p": float(p)}
    return Kind.CONSTANT, {"noise": "bernoulli", "p": None, "chance": a.given("self" if p is None else "p")}


RANDOM: dict[str, Row] = {
    **dict.fromkeys(("rand", "rand_like", "uniform"), _uniform),
    **dict.fromkeys(("randn", "randn_like", "normal"), _normal),
    "bernoulli": _bernoulli,
}
