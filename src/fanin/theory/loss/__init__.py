"""Where the gradient of a loss starts: the loss is evaluated on samples drawn from the predicted law of the output."""

from fanin.graph.head import Head as Head
from fanin.theory.loss.start import Start as Start
from fanin.theory.loss.start import start as start
