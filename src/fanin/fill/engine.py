"""Where a stream meets memory: chooses the compiled kernels or the NumPy reference, which give the same bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fanin.fill import reference
from fanin.fill.formats import FORMATS, Format, encode
from fanin.fill.keys import Key
from fanin.fill.laws import Law

_PLAIN = {
    "float32": FORMATS["float32"],
    "float64": FORMATS["float64"],
    "uint32": Format("uint32", np.dtype(np.uint32), np.dtype(np.uint32)),
}


def fill(out: NDArray, law: Law, key: Key, start: int = 0, format: Format | None = None) -> None:
    """Values ``start`` .. ``start + out.size`` of a stream into ``out``, flat storage of the format.

    Args:
        format: float32 and float64 (and uint32, for raw words) go without saying.
    """
    format = format or _PLAIN[out.dtype.name]
    if format.storage == format.working:
        return reference.fill(out, law, key, start)
    step = 1 << 20
    for at in range(0, out.size, step):
        values = np.empty(min(step, out.size - at), format.working)
        reference.fill(values, law, key, start + at)
        out[at : at + step] = encode(values, format)
