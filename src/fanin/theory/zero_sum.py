"""Weights whose inputs' weights sum to zero: weight standardization (Qiao et al. 2019; BiT, NFNets).

A norm over all n inputs of an output takes the mean of its weights away, so that ``E[w_i w_k] = -v/(n - 1)``. What
inputs have in common, their mean behind a ReLU, is not heard:

    E[y^2] = v (sum_i x_i^2 - 1/(n - 1) sum_(i != k) x_i x_k) = n v (q - p),

``p`` the mean product of two inputs. Most of it is the square of the mean of a feature; taps of a kernel that read one
feature at several places have more in common, ``1 - (T - 1)/(n - 1) c`` of what is left. At a border only the share t
of the weights reads inputs, and they do not sum to zero: two outputs, which have the share u in common, get
``n v p (u - t t')``. The gradient of such a weight has the same mean in common over inputs, and the norm takes it away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fanin.theory.law import FEATURE, Groups, Law
from fanin.theory.places import POSITION


def centred(weight: Law, n: float) -> bool:
    """Whether the weights of an output's n inputs sum to zero: a norm took their mean."""
    return weight.latent.sphere == round(n) and weight.latent.level == 1.0 and not weight.groups


@dataclass(frozen=True, eq=False)
class Heard:
    """What such weights hear of their inputs.

    Attributes:
        x: the inputs without the mean of a feature.
        mean: square of that mean.
        share: of pairs of inputs, those of one feature at two taps.
        variance: of the weights times n.
        whole: sum of the weighted squares of the inputs, by place of the output.
        taken: share of the weights that read inputs, by place of the output.
    """

    x: Law
    mean: float
    share: float
    variance: float
    whole: np.ndarray
    taken: np.ndarray

    @staticmethod
    def of(x: Law, weight: Law, n: float, channels: float, whole: np.ndarray, taken: np.ndarray) -> Heard:
        """Of inputs x."""
        means = np.full(len(x.values), x.mean) if FEATURE in x.level_groups else x.means
        inner = x.with_values(x.values - means[:, None])
        share = (n / channels - 1) / max(n - 1, 1)
        mean = float(x.level_weight @ means**2)
        return Heard(inner, mean, share, n * weight.second, whole / max(x.second, 1e-300), taken)

    @property
    def diagonal(self) -> np.ndarray:
        """Mean square of the outputs, by place."""
        own = max(self.x.second - self._beside(frozenset()), 0.0)
        return self.whole * own + self.variance * self.mean * self.taken * (1 - self.taken)

    def pair(self, differ: Groups, met: Callable[[Groups], float]) -> float:
        """Mean product of two outputs, which share ``met`` of the inputs of one."""
        t, square = float(self.taken.mean()), float((self.taken**2).mean())
        own = (self.x.pair(differ) - self._beside(differ)) * float(self.whole.mean()) * met(differ)
        return own + self.variance * self.mean * (t * met(differ) - (t**2 if POSITION in differ else square))

    def _beside(self, differ: Groups) -> float:
        """What the other taps of the same feature take away."""
        along = self.x.groups & {POSITION}
        return self.share * self.x.pair(differ | along) if self.share and along else 0.0
