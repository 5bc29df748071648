"""Graph -> Signals without running anything: the moments of every tensor over random weights (NumPy only)."""

from fanin.theory.engine import Interpreter as Interpreter
from fanin.theory.engine import interpret as interpret
