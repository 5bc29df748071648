"""Models that branch on data are recorded as they run: branches on the batch always, on weights where there are any."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")
from test_theory_statistics import compared, normal  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import fanin  # noqa: E402
from fanin.frameworks.torch import tracing as programs  # noqa: E402
from fanin.frameworks.torch.verbs import read_model  # noqa: E402

N = 64
X = normal(4, 6, N)


class OnBatch(nn.Module):
    """Another layer where the batch is large."""

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Linear(N, N), nn.Linear(N, N)

    def forward(self, x):
        return self.one(x) if x.square().mean() > 0.5 else self.other(x)


class OnWeights(nn.Module):
    """A branch on what a layer gave."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(N, N)

    def forward(self, x):
        y = self.fc(x)
        return torch.relu(y) if y.square().sum() >= 0 else y


class OnMask(nn.Module):
    """Rows picked by a mask: how many is known of the batch alone."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(N, N)

    def forward(self, x):
        y = self.fc(x)
        return torch.relu(y[x[..., 0] > 0])


def test_a_branch_on_the_batch_is_followed():
    net = OnBatch()
    assert read_model(net, X).graph.facts["trace"] == "recorded"
    large, small = fanin.predict(net, X), fanin.predict(net, 0.1 * X)
    assert "one" in large and "other" not in large
    assert "other" in small and "one" not in small


def test_a_branch_on_the_batch_is_followed_without_weights():
    with torch.device("meta"):
        net = OnBatch()
    assert fanin.predict(net, X)["one"].rms == pytest.approx(3**-0.5, rel=0.1)


def test_a_branch_on_weights_takes_the_model_s_own():
    net = OnWeights()
    predicted, measured = fanin.predict(net, X), fanin.measure(net, X)
    assert [r.name for r in predicted.rows] == [r.name for r in measured.rows] == ["fc", "/relu"]


def test_a_branch_on_weights_that_are_not_there_is_refused():
    with torch.device("meta"):
        net = OnWeights()
    with pytest.raises(fanin.FaninError, match="branches on the values"):
        fanin.predict(net, X)


def test_a_stale_value_decides_nothing():
    """Zeros into which a signal was written are not zeros any more."""

    class Written(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(N, N)

        def forward(self, x):
            y = torch.zeros_like(x)
            y[:, 0] = self.fc(x[:, 0])
            return y if y.abs().sum() == 0 else y + 1

    with torch.device("meta"):
        net = Written()
    with pytest.raises(fanin.FaninError):
        fanin.predict(net, X)
    assert fanin.predict(Written(), X)["/add"].rms is not None


def test_rows_picked_by_a_mask():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert compared(OnMask(), X, networks=32).misses(1 / N) == []


def layers() -> nn.Module:
    """Most of what PyTorch splits into several operations when it is dispatched."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, N, 3, padding=1), nn.BatchNorm2d(N)
            self.group, self.drop = nn.GroupNorm(4, N), nn.Dropout(0.2)
            self.q, self.k, self.v = nn.Linear(N, N), nn.Linear(N, N), nn.Linear(N, N)
            self.layer, self.head = nn.LayerNorm(N), nn.Linear(N, 8)

        def forward(self, x):
            x = F.max_pool2d(self.group(F.gelu(self.norm(self.conv(x)))), 2)
            x = x.flatten(2).transpose(1, 2)
            q, k, v = (f(x).view(*x.shape[:2], 4, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
            x = x + F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            x = self.drop(self.layer(x)) @ self.head.weight.t()
            return torch.einsum("btc,bsc->bts", x, x).softmax(-1)

    return Net()


def test_recorded_and_exported_programs_are_predicted_alike():
    net, batch = layers(), normal(4, 3, 8, 8)
    exported = read_model(net, batch)
    recorded = programs._recorded(net, (batch,), {})
    assert exported.program.how == "export" and recorded is not None and recorded.how == "recorded"
    names = lambda p: [str(s.target) for s in p.steps if "getitem" not in str(s.target)]  # noqa: E731
    assert set(names(recorded)) & {"aten.linear.default", "aten.dropout.default", "aten.layer_norm.default"}
    one = fanin.predict(net, batch)
    other = _predicted(net, batch, recorded)
    modules = [n for n in one if "/" not in n]
    assert len(modules) == 8
    for name in [*modules, "/softmax"]:
        mine = other[name] if name in other else other["/_softmax"]
        assert mine.rms == pytest.approx(one[name].rms, rel=1e-6), name
        assert (mine.grad_rms or 0) == pytest.approx(one[name].grad_rms or 0, rel=0.02), name


def _predicted(net, batch, program) -> fanin.Signals:
    from fanin.frameworks.torch.convert import to_graph
    from fanin.frameworks.torch.functional import functional
    from fanin.frameworks.torch.parameters import parameter_records
    from fanin.frameworks.torch.reading import stand_ins
    from fanin.theory import interpret

    records = parameter_records(net)
    program = functional(program)
    return interpret(to_graph(program, records, stand_ins(program, records, 0)))


class ClipsItsWeights(nn.Module):
    """Writes to its weight's memory while it trains, as AltUp does."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(64, 64)

    def forward(self, x):
        self.inner.weight.data.clamp_(-120.0, 120.0)
        return torch.relu(self.inner(x))


def test_data_of_a_weight_is_the_weight():
    torch.manual_seed(0)
    model, x = ClipsItsWeights(), torch.randn(256, 64)
    said, seen = fanin.predict(model, x), fanin.measure(model, x)
    for a, b in zip(said.rows, seen.rows, strict=True):
        assert a.rms == pytest.approx(b.rms, rel=4 / math.sqrt(2 * 64))
    said_of, seen_of = (found.parameters["inner.weight"]["grad_rms"] for found in (said, seen))
    assert said_of == pytest.approx(seen_of, rel=4 / math.sqrt(2 * 64))
