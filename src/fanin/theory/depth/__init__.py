"""What repeating blocks do to signal and gradient with depth: growth, phase, fixed points, singular values."""

from fanin.theory.depth.blocks import Stack as Stack
from fanin.theory.depth.blocks import stacks as stacks
from fanin.theory.depth.jacobian import Layer as Layer
from fanin.theory.depth.jacobian import Spectrum as Spectrum
from fanin.theory.depth.jacobian import chain as chain
from fanin.theory.depth.jacobian import spectrum as spectrum
from fanin.theory.depth.record import Depth as Depth
from fanin.theory.depth.record import depths as depths
from fanin.theory.depth.settle import Settled as Settled
from fanin.theory.depth.settle import settle as settle
from fanin.theory.depth.text import told as told
from fanin.theory.depth.trend import Trend as Trend
from fanin.theory.depth.trend import trend as trend
