"""The gradient: the same graph read in reverse, with weights on the way back taken as independent of those forward."""

from fanin.theory.adjoint.engine import backward as backward
