"""The table of rules: a row each, in the order in which they are tried. A new rule is a row and a short function.

``unless`` names findings that tell the same story from its root; their rows come first.
"""

from __future__ import annotations

from fanin.checks import coverage, gradient, loss, signal, units, weights
from fanin.checks.rule import Rule

BROKEN = ("FAN401", "FAN402")  # values that are no weights at all explain everything behind them
LOST = (*BROKEN, "FAN403", "FAN405", "FAN103", "FAN106")  # no signal to judge
SCALE = (*LOST, "FAN301", "FAN302", "FAN304")  # why a signal changes with depth

# fmt: off
RULES: tuple[Rule, ...] = (
    Rule("FAN401", "error", "Weights that are not finite",
         "a parameter holds NaN or infinity", weights.nonfinite),
    Rule("FAN402", "error", "Weights that were never written",
         "values beyond 1e5, or all below 1e-20: what lay in memory", weights.garbage),
    Rule("FAN403", "error", "Zero weights stop the signal",
         "a weight of zeros that all signal must pass", weights.stops),
    Rule("FAN404", "info", "Zero weights that end a branch",
         "zeros at the end of a residual branch or in the head", weights.zero_branch),
    Rule("FAN405", "error", "Symmetric units",
         "all units of a layer have the same weights", weights.symmetric),
    Rule("FAN106", "error", "The batch is not finite",
         "NaN or infinity in the input itself", signal.nonfinite_batch),
    Rule("FAN103", "error", "A signal that is not finite",
         "the first tensor with NaN or infinity", signal.overflows, (*BROKEN, "FAN106")),
    Rule("FAN104", "warning", "A constant batch",
         "all samples of the batch are the same", signal.constant_batch),
    Rule("FAN105", "warning", "An input that is not normalized",
         "input rms outside 0.1 to 10, or a mean beyond 5 std", signal.unnormalized_batch, ("FAN106",)),
    Rule("FAN304", "error", "A variance given as a standard deviation",
         "a std that equals the variance it should have", units.variance_as_std, LOST),
    Rule("FAN302", "warning", "Saturated units",
         "a bounded activation driven to where it is flat", units.saturated, (*LOST, "FAN105")),
    Rule("FAN301", "warning", "Dead units",
         "over 75 % of features are zero for every sample", units.dead, LOST),
    Rule("FAN101", "error", "The signal vanishes with depth",
         "rms falls 30-fold (warning) or 1000-fold (error) between norms", signal.vanishes, SCALE),
    Rule("FAN102", "error", "The signal explodes with depth",
         "rms grows 30-fold (warning) or 1000-fold (error) between norms", signal.explodes, SCALE),
    Rule("FAN201", "error", "The gradient vanishes",
         "first layer's gradient under 1/30 (warning) or 1/1000 (error) of the last's", gradient.vanishes, SCALE),
    Rule("FAN202", "error", "The gradient explodes",
         "first layer's gradient over 30 (warning) or 1000 (error) times the last's", gradient.explodes, SCALE),
    Rule("FAN203", "error", "A gradient that is not finite",
         "NaN or infinity in a parameter's gradient", gradient.nonfinite, (*BROKEN, "FAN103", "FAN106")),
    Rule("FAN204", "info", "Parameters that no output depends on",
         "a trainable parameter that forward does not use", gradient.unused),
    Rule("FAN305", "info", "The fan of the wrong axis",
         "a std that fits fan_out where fan_in is another number", units.wrong_fan, LOST),
    Rule("FAN303", "warning", "A gain that does not fit the activation",
         "std * sqrt(fan_in) beside the gain that the activation needs", units.gain,
         (*SCALE, "FAN101", "FAN102", "FAN305")),
    Rule("FAN306", "info", "Very many inputs",
         "a layer with fan_in of 100,000 and more", units.large_fan),
    Rule("FAN406", "warning", "Biases that outweigh the signal",
         "bias rms over three times what the weights add", weights.bias, (*LOST, "FAN101", "FAN301")),
    Rule("FAN107", "warning", "Samples come out alike",
         "outputs differ between samples by under 1 % of their rms", signal.alike,
         (*SCALE, "FAN101", "FAN104", "FAN406")),
    Rule("FAN502", "warning", "Logits that are too large",
         "class scores of rms above 3", loss.logits, (*LOST, "FAN102")),
    Rule("FAN501", "warning", "Initial loss off ln C",
         "cross-entropy that does not start at ln C", loss.off, (*LOST, "FAN102", "FAN502")),
    Rule("FAN901", "info", "Operations without a rule",
         "tensors that the theory says nothing about", coverage.unmodelled),
    Rule("FAN902", "info", "Prediction and measurement disagree",
         "measured rms outside what a single network of the predicted law has", coverage.disagree, LOST),
)
# fmt: on
