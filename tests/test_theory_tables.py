"""Known tables of positions, rows of padding, and operations of two tensors: predicted against drawn networks."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from networks import Networks  # noqa: E402
from test_theory_rules_contraction import Made  # noqa: E402
from test_theory_statistics import compared, normal  # noqa: E402

import fanin  # noqa: E402
from fanin.distributions import Normal  # noqa: E402

N, T = 64, 24
F = torch.nn.functional


def sinusoids():
    angle = torch.arange(T)[:, None] / 1000 ** (torch.arange(N // 2) / (N // 2))
    return torch.cat([angle.sin(), angle.cos()], -1)


def attended(m, x):
    q, k, v = (F.linear(F.layer_norm(x + sinusoids(), (N,)), w)[:, None] for w in (m.q, m.k, m.v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def test_neighbours_in_a_table_of_sinusoids_are_alike():
    """Behind a causal mask the nearest keys count, whose products are larger than the mean over the sequence."""
    net = Made(attended, q=(N, N), k=(N, N), v=(N, N))
    small = {n: Normal(0.3 * N**-0.5) for n in "qk"}
    assert compared(net, 0.3 * normal(4, T, N), small, networks=96).misses(0.02) == []


def test_behind_an_embedding():
    """The table is added to what is drawn, not to the batch."""
    ids = torch.randint(0, 50, (4, T), generator=torch.Generator().manual_seed(0))
    net = Made(lambda m, i: attended(m, F.embedding(i, m.table)), q=(N, N), k=(N, N), v=(N, N), table=(50, N))
    small = {n: Normal(0.3 * N**-0.5) for n in "qk"} | {"table": Normal(0.3)}
    assert compared(net, ids, small, networks=96).misses(0.02) == []


def test_rows_that_are_not_alike_are_told_apart():
    """A control: the same rows in another order have no near neighbours."""
    from dataclasses import replace

    order = torch.randperm(T, generator=torch.Generator().manual_seed(3))

    def mixed(m, x, table):
        v = F.linear(F.layer_norm(x + table, (N,)), m.v)[:, None]
        return F.scaled_dot_product_attention(0 * v, 0 * v, v, is_causal=True)

    one, other = (Made(lambda m, x, t=t: mixed(m, x, t), v=(N, N)) for t in (sinusoids(), sinusoids()[order]))
    batch = 0.3 * normal(1, T, N)
    in_order, shuffled = compared(one, batch, networks=192), compared(other, batch, networks=192)
    assert shuffled.misses(0.02) == []
    assert replace(in_order, predicted=shuffled.predicted).misses(0.02)


def test_rows_of_padding_are_zero():
    ids = torch.tensor([[0, 3, 4, 0], [0, 0, 5, 6]])
    table = torch.nn.Embedding(10, N, padding_idx=0)
    net = torch.nn.Sequential(table, torch.nn.Linear(N, N, bias=False))
    rows = {r.name: r.rms**2 for r in compared(net, ids, {"0.weight": Normal(0.5)}, networks=2).predicted.rows}
    assert rows["0"] == pytest.approx(0.25 / 2)
    assert rows["1"] == pytest.approx(0.25 / 2)


@pytest.mark.parametrize("of", [torch.max, torch.min])
def test_extremes_of_two_tensors(of):
    net = Made(lambda m, x: of(x @ m.w, torch.zeros(())), w=(N, N))
    assert compared(net, normal(8, N)).misses() == []


def test_a_shape_taken_from_another_tensor():
    net = Made(lambda m, x: torch.relu(x @ m.w).reshape_as(x.view(4, 2, N)), w=(N, N))
    assert compared(net, normal(8, N)).misses() == []


@pytest.mark.parametrize("as_another", [lambda t, x: t.type_as(x), lambda t, x: t.to(x), lambda t, x: t.expand_as(x)])
def test_a_table_that_is_made_like_a_signal_stays_known(as_another):
    """As a signal its rows would lose their means, a fifth of the mean square."""

    def net(m, x):
        x = F.linear(x, m.w)
        return F.linear(x + as_another(sinusoids(), x), m.o)

    assert compared(Made(net, w=(N, N), o=(N, N)), normal(4, T, N)).misses() == []


class Padded(torch.nn.Module):
    """Tokens of which three quarters are padding; one that branches on its batch is recorded, not exported."""

    def __init__(self, branches: bool):
        super().__init__()
        self.table, self.out, self.branches = torch.nn.Embedding(30, N, padding_idx=1), torch.nn.Linear(N, N), branches

    def forward(self, ids):
        ids = F.pad(ids, (0, 3 * T), value=1)
        if self.branches and bool((ids == 1).any()):
            ids = ids.clone()
        x = self.table(ids)
        return self.out(x + x.mean(1, keepdim=True))


@pytest.mark.parametrize("branches", [False, True])
def test_padding_is_zero_and_its_row_gets_no_gradient(branches):
    ids = torch.randint(2, 30, (4, T), generator=torch.Generator().manual_seed(0))
    forward, backward, predicted = [], [], None
    networks = Networks(ids)
    for seed in range(16):
        torch.manual_seed(seed)
        net = Padded(branches)
        predicted = predicted or fanin.predict(net, ids)
        measured = networks.measure(net, seed=seed)
        forward.append(measured["table"].rms ** 2)
        backward.append(measured.parameters["table.weight"]["grad_rms"] ** 2)
    for said, squares in (
        (predicted["table"].rms, forward),
        (predicted.parameters["table.weight"]["grad_rms"], backward),
    ):
        found = torch.tensor(squares, dtype=torch.float64)
        error = float(found.std() / len(found) ** 0.5)
        assert abs(said**2 - float(found.mean())) < 4 * error + 0.02 * float(found.mean())
        assert abs(4 * said**2 - float(found.mean())) > 8 * error  # as if nothing were padding


class Positioned(torch.nn.Module):
    """A trainable table that starts as sinusoids, or as draws of the same size; its mean over positions goes out."""

    def __init__(self, fixed: bool):
        super().__init__()
        self.table, self.out = torch.nn.Embedding(T, N), torch.nn.Linear(N, N)
        if fixed:
            with torch.no_grad():
                self.table.weight.copy_(sinusoids())

    def forward(self, x):
        return self.out(self.table(x).mean(1))


@pytest.mark.parametrize("fixed", [True, False])
def test_a_trainable_table_that_is_smooth_is_known(fixed):
    """Drawn rows average out, sinusoids do not; a plan that draws the table anew is predicted as drawn."""
    torch.manual_seed(0)
    model, ids = Positioned(fixed), torch.arange(T)[None].repeat(3, 1)
    said, seen = fanin.predict(model, ids), fanin.measure(model, ids)
    assert said["/mean"].rms == pytest.approx(seen["/mean"].rms, rel=0.02 if fixed else 0.3)
    drawn = fanin.predict(model, ids, plan=fanin.plan(model, ids, recipe="fixed", std=0.5))
    assert drawn["/mean"].rms == pytest.approx(0.5 / T**0.5, rel=0.05)
    if fixed:  # a control: as drawn of the same size it would be a third
        assert (sinusoids().square().mean() / T).sqrt() < 0.5 * seen["/mean"].rms
