"""Pointwise chains, sums and products on shared and on separate latents, dropout."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from test_theory_rules_contraction import Made  # noqa: E402
from test_theory_statistics import compared, normal  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from fanin.distributions import Normal  # noqa: E402

N = 256
X = normal(8, N)
OPEN: dict[str, str] = {}


def cases(table: dict) -> list:
    """Parameters of a table of cases; those in OPEN are known to fail."""
    return [
        pytest.param(*value, id=name, marks=pytest.mark.xfail(strict=True, reason=OPEN[name]) if name in OPEN else ())
        for name, value in table.items()
    ]


def after(fn) -> nn.Module:
    """fn of a pre-activation, and what fresh weights make of it."""
    return Made(lambda m, x: fn(x @ m.w) @ m.v, w=(N, N), v=(N, N))


LAWS = {"w": Normal(N**-0.5), "v": Normal(N**-0.5)}


# --- one latent: exact ----------------------------------------------------------------------------------------------

CHAINS = {
    "relu": (torch.relu,),
    "tanh": (torch.tanh,),
    "relu squared": (lambda x: torch.relu(x).square(),),
    "silu spelled out": (lambda x: x * torch.sigmoid(x),),
    "step": (lambda x: (x > 0).to(x.dtype) * x,),
    "where": (lambda x: torch.where(x > 0.5, x, 0.1 * x),),
    "masked_fill": (lambda x: x.masked_fill(x < 0, -0.3),),
    "clamp": (lambda x: x.clamp(-0.5, 1.0),),
    "leaky relu": (lambda x: F.leaky_relu(x, 0.2),),
    "x + x": (lambda x: x + x,),
    "x - tanh x": (lambda x: x - torch.tanh(x),),
    "x + 2 relu x": (lambda x: torch.add(x, torch.relu(x), alpha=2.0),),
    "x times x": (lambda x: x * x,),
    "sin and cos": (lambda x: torch.sin(3 * x) * torch.cos(x),),
    "exp": (lambda x: torch.exp(0.5 * x),),
    "division": (lambda x: x / (1 + x.abs()),),
    "one minus sigmoid": (lambda x: 1 - torch.sigmoid(x),),
    "maximum": (lambda x: torch.maximum(x, 0.2 * x),),
    "heaviside": (lambda x: torch.heaviside(x, torch.zeros(())) + 0 * x,),
}


@pytest.mark.parametrize("fn", cases(CHAINS))
def test_chain(fn):
    assert compared(after(fn), X, LAWS, networks=24).misses() == []


@pytest.mark.parametrize("slopes", [1, N])
def test_prelu(slopes):
    net = nn.Sequential(nn.Linear(N, N), nn.PReLU(slopes), nn.Linear(N, N))
    assert compared(net, X, networks=24).misses() == []


# --- two latents ----------------------------------------------------------------------------------------------------


def joined(fn, then=lambda y: y) -> nn.Module:
    """fn of two projections of one input."""
    return Made(lambda m, x: then(fn(x @ m.w, x @ m.v)) @ m.u, w=(N, N), v=(N, N), u=(N, N))


TWO = LAWS | {"u": Normal(N**-0.5)}
PAIRS = {
    "gate": (joined(lambda a, b: F.silu(a) * b), 0.0),
    "sigmoid gate": (joined(lambda a, b: torch.sigmoid(a) * b), 0.0),
    "both positive": (joined(lambda a, b: torch.relu(a) * torch.relu(b)), 0.0),
    "sum": (joined(lambda a, b: a + b), 0.0),
    "difference": (joined(lambda a, b: a - b), 0.0),
    "sum of unlike laws": (joined(lambda a, b: torch.relu(a) + torch.tanh(b)), 0.0),
    "tanh of a sum": (joined(lambda a, b: a + torch.relu(b), torch.tanh), 0.0),
    "maximum": (joined(torch.maximum), 0.0),
    "quotient": (joined(lambda a, b: a / (1 + b * b)), 0.0),
    "glu": (joined(lambda a, b: F.glu(torch.cat([a, b], -1))), 0.0),
    "weighted": (joined(lambda a, b: torch.lerp(a, b, 0.3)), 0.0),
    "where of two": (joined(lambda a, b: torch.where(X > 0, a, 0.5 * b)), 0.0),
}


@pytest.mark.parametrize(("net", "slack"), cases(PAIRS))
def test_pair(net, slack):
    assert compared(net, X, TWO, networks=24).misses(slack) == []


# --- residual sums --------------------------------------------------------------------------------------------------


def stream(scale: float = 1.0, depth: int = 4) -> nn.Module:
    def forward(m, x):
        for i in range(depth):
            x = x + scale * (torch.relu(x @ getattr(m, f"w{i}")) @ getattr(m, f"v{i}"))
        return x

    shapes = {f"{k}{i}": (N, N) for i in range(depth) for k in "wv"}
    return Made(forward, **shapes)


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_residual_stream(scale):
    net = stream(scale)
    laws = {name: Normal(N**-0.5) for name, _ in net.named_parameters()}
    assert compared(net, X, laws, networks=24).misses() == []


def test_a_branch_on_its_own_latent_is_not_independent():
    """x + relu(x): taken for independent, the mean square would be 1.5 instead of 2.5."""
    result = compared(after(lambda x: x + torch.relu(x)), X, LAWS, networks=24)
    assert result.misses() == []
    alone, both = result.predicted["/matmul"].rms, result.predicted["/add"].rms
    assert alone is not None and both == pytest.approx(alone * 2.5**0.5, rel=1e-3)


def test_a_sum_that_cancels():
    net = Made(lambda m, x: (x @ m.w) - 0.5 * (x @ m.w) @ m.v, w=(N, N), v=(N, N))
    assert compared(net, X, LAWS, networks=24).misses() == []


def test_independence_assumed_is_missed():
    """A control: networks add a tensor to itself, the prediction adds two of one law."""
    from dataclasses import replace

    same = compared(Made(lambda m, x: (x @ m.w) + (x @ m.w) * 1.0, w=(N, N), v=(N, N)), X, LAWS, networks=12)
    apart = compared(Made(lambda m, x: (x @ m.w) + (x @ m.v) * 1.0, w=(N, N), v=(N, N)), X, LAWS, networks=2)
    assert replace(same, predicted=apart.predicted).misses()


# --- dropout --------------------------------------------------------------------------------------------------------

DROPS = {
    "dropout": (nn.Dropout(0.3), True),
    "dropout, evaluation": (nn.Dropout(0.3), False),
    "strong dropout": (nn.Dropout(0.8), True),
    "alpha dropout": (nn.AlphaDropout(0.3), True),
    "alpha dropout, evaluation": (nn.AlphaDropout(0.3), False),
}


@pytest.mark.parametrize(("layer", "training"), cases(DROPS))
def test_dropout(layer, training):
    net = nn.Sequential(nn.Linear(N, N), nn.ReLU(), layer, nn.Tanh(), nn.Linear(N, N))
    assert compared(net, X, training=training, networks=24).misses() == []


def test_whole_channels_dropped():
    net = nn.Sequential(nn.Conv2d(16, 64, 3), nn.ReLU(), nn.Dropout2d(0.4), nn.Conv2d(64, 32, 3))
    assert compared(net, normal(8, 16, 8, 8)).misses() == []
