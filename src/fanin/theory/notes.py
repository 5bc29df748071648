"""What is said of a tensor: remarks of what it was made of, each once.

Tensors that are concatenated over and over (DenseNet) would else say everything twice as often as the one before.
"""

from __future__ import annotations

BETWEEN = "; "


def together(*notes: str) -> str:
    """The remarks of several notes, in order and each once.

    Example:
        >>> together("a; b", "", "b; c")
        'a; b; c'
    """
    return BETWEEN.join(dict.fromkeys(one for note in notes for one in note.split(BETWEEN) if one))


__all__ = ["together"]
