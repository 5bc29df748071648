"""Where the gradient of a loss starts: the loss is evaluated on samples drawn from the predicted law of the output."""

from fanin.theory.loss.cut import Cut as Cut
from fanin.theory.loss.start import Evaluated as Evaluated
from fanin.theory.loss.start import Head as Head
from fanin.theory.loss.start import Start as Start
from fanin.theory.loss.start import start as start
