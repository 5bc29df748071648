"""Finite width: how far the mean square of one network's tensor strays from its mean over networks."""

from fanin.theory.width.engine import Widths

__all__ = ["Widths"]
