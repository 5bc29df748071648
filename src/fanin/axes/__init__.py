"""What each axis of a weight means, and the fans that follow.

A shape alone does not say which axis is which: torch stores a dense weight as (out, in), Keras and JAX as (in, out).
So the roles are an argument, ``layout``, one letter an axis:

    O  output channels or features          H W D  kernel height, width, depth
    I  input channels or features           E      experts, heads, ...: independent copies, not counted
    M  channel multiplier of a depthwise kernel (Keras: "HWIM")

Without a layout a shape is read as torch would store it: "OI", "OIW", "OIHW", "OIDHW", and "IO..." with
``transposed=True``. Where that reading would need an odd kernel and the shape looks like another layout, as
(3, 3, 64, 128) does, an error asks for the layout instead of guessing.

A tied weight has one role for each use: an embedding that is also the output head has ``layout="embedding"`` fans
where it is looked up and "OI" fans where it multiplies. Its scale must be chosen for one of them; ask for the fans
of the role that matters.
"""

from __future__ import annotations

from fanin.axes.counts import Fans, fans
from fanin.axes.layout import axis_roles
from fanin.axes.slide import Slide

__all__ = ["Fans", "Slide", "axis_roles", "fans"]
