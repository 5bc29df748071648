"""Moments, gains and correlation maps of any pointwise activation, by name, by module or by callable."""

from fanin.activations.functions import Activation as Activation
from fanin.activations.functions import activation as activation
from fanin.activations.maps import CriticalPoint as CriticalPoint
from fanin.activations.maps import chi as chi
from fanin.activations.maps import correlation_map as correlation_map
from fanin.activations.maps import critical_line as critical_line
from fanin.activations.maps import fixed_point as fixed_point
from fanin.activations.maps import pair_moment as pair_moment
from fanin.activations.maps import reach as reach
from fanin.activations.moments import Moments as Moments
from fanin.activations.moments import gain as gain
from fanin.activations.moments import moments as moments
from fanin.activations.named import ROWS as ROWS
from fanin.activations.phase import Phase as Phase
from fanin.activations.phase import phase as phase
from fanin.activations.quadrature import Samples as Samples
