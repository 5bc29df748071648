"""How the tests of the rules compare: one prediction against many freshly drawn networks, with standard errors.

A case is a module, a batch and a law for every weight. The module is traced once; each network draws all weights anew
from their laws and runs the traced steps. Over networks the mean square of a tensor has a standard error; a prediction
may be off by four of them. What a rule leaves out at finite width, or approximates, is given as ``slack`` beside the
case.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from fanin.distributions import Constant, Distribution, Normal, Uniform  # noqa: E402
from fanin.frameworks.torch.execute import execute  # noqa: E402
from fanin.frameworks.torch.verbs import read_model  # noqa: E402
from fanin.signals import Signals  # noqa: E402
from fanin.theory import interpret  # noqa: E402

NETWORKS = 48
SIGMAS = 4.0
FLOOR = 2e-3  # of the quadrature, in the logarithm of the mean square
Laws = Mapping[str, Distribution]


@dataclass(frozen=True)
class Comparison:
    """Predicted rows and what networks measured.

    Attributes:
        predicted: the rows.
        squares, means: mean square and mean of every tensor in every network, by name.
    """

    predicted: Signals
    squares: Mapping[str, np.ndarray]
    means: Mapping[str, np.ndarray]

    def misses(self, slack: float = 0.0) -> list[str]:
        """Tensors off by more than four standard errors and the slack (in the logarithm of the mean square)."""
        missed = []
        for row in self.predicted.rows:
            said = None if row.rms is None else row.rms**2
            found, means = self.squares[row.name], self.means[row.name]
            error = found.std(ddof=1) / np.sqrt(len(found))
            off = np.inf if said is None else abs(said - found.mean())
            if off > SIGMAS * error + (FLOOR + slack) * found.mean() + 1e-12:
                missed.append(f"{row.name}: mean square {said} predicted, {found.mean():.5g} +- {error:.2g} measured")
            spread = means.std(ddof=1) / np.sqrt(len(means))
            wide = (FLOOR + slack) * np.sqrt(found.mean()) + 1e-6
            if row.mean is not None and abs(row.mean - means.mean()) > SIGMAS * spread + wide:
                missed.append(f"{row.name}: mean {row.mean:.5g} predicted, {means.mean():.5g} +- {spread:.2g} measured")
        return missed


def lecun(module: nn.Module) -> dict[str, Distribution]:
    """Normal weights of variance 1/fan_in; vectors that are constant in the module stay so, others are N(0, 0.3^2)."""
    laws: dict[str, Distribution] = {}
    for name, tensor in module.named_parameters():
        if tensor.dim() > 1:
            laws[name] = Normal(float(tensor[0].numel()) ** -0.5)
        elif float(tensor.detach().min()) == float(tensor.detach().max()):
            laws[name] = Constant(float(tensor.detach().flatten()[0]))
        else:
            laws[name] = Normal(0.3)
    return laws


def drawn(distribution: Distribution, shape: tuple[int, ...], rng: np.random.Generator) -> Any:
    """One tensor from a law with independent elements."""
    mean, std = distribution.moments(shape)
    if isinstance(distribution, Normal | Constant):
        values = mean + std * rng.standard_normal(shape)
    else:
        values = np.asarray(distribution.quantile(rng.random(shape)))
    return torch.tensor(values, dtype=torch.float32)


def compared(
    module: nn.Module,
    batch,
    laws: Laws | None = None,
    *,
    networks: int = NETWORKS,
    drawn_from: Laws | None = None,
    training: bool = True,
    seed: int = 0,
) -> Comparison:
    """Predict once, run many networks.

    Args:
        laws: replace the default ones (`lecun`) by parameter name.
        drawn_from: what the networks really draw, where it should differ: for negative controls.
    """
    module.train(training)
    said = lecun(module) | dict(laws or {})
    true = said | dict(drawn_from or {})
    reading = read_model(module, batch)
    rng, squares, means = np.random.default_rng(seed), {}, {}
    names = {node.id: node.name for node in reading.graph.signals}

    def watch(id_: str, tensor: Any) -> None:
        if id_ in names:
            squares.setdefault(names[id_], []).append(float(tensor.double().square().mean()))
            means.setdefault(names[id_], []).append(float(tensor.double().mean()))

    buffers = dict(module.named_buffers())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(networks):
            weights = {n: drawn(true[n], tuple(p.shape), rng) for n, p in module.named_parameters()}
            execute(
                reading.program,
                weights | buffers,
                watch=watch,
                watch_grad=lambda *_: None,
                cotangent=lambda o: o[0].sum(),
                backward=False,
            )
    arrays: Callable = lambda table: {k: np.array(v) for k, v in table.items()}  # noqa: E731
    return Comparison(interpret(reading.graph, said), arrays(squares), arrays(means))


def normal(*shape: int, seed: int = 1) -> Any:
    """An i.i.d. N(0, 1) batch."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- the comparison itself ------------------------------------------------------------------------------------------


def two_layers() -> nn.Module:
    return nn.Sequential(nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, 96))


def test_what_is_right_passes():
    assert compared(two_layers(), normal(8, 96)).misses() == []


@pytest.mark.parametrize("factor", [0.95, 1.05])
def test_a_std_off_by_five_percent_is_missed(factor):
    wrong = {"2.weight": Normal(factor * 96**-0.5)}
    missed = compared(two_layers(), normal(8, 96), drawn_from=wrong).misses()
    assert [m.split(":")[0] for m in missed] == ["2"]


def test_a_mean_of_the_weights_is_missed():
    wrong = {"2.weight": Normal(96**-0.5, mean=0.02)}
    assert compared(two_layers(), normal(8, 96), drawn_from=wrong).misses()


def test_another_law_of_the_same_variance_makes_no_difference():
    same = {"0.weight": Uniform(96**-0.5), "2.weight": Uniform(96**-0.5)}
    assert compared(two_layers(), normal(8, 96), drawn_from=same).misses() == []


def test_a_missing_activation_is_missed():
    linear = compared(nn.Sequential(nn.Linear(96, 96), nn.Identity()), normal(8, 96))
    relu = compared(nn.Sequential(nn.Linear(96, 96), nn.ReLU()), normal(8, 96))
    assert Comparison(relu.predicted, {**relu.squares, "1": linear.squares["0"]}, relu.means).misses()
