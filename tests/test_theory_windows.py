"""Attention in windows that are shifted: predicted against measured, forward and backward."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from test_theory_adjoint import errors, hold  # noqa: E402
from test_theory_rules_contraction import Made  # noqa: E402
from test_theory_statistics import compared, normal  # noqa: E402

from fanin.distributions import Normal  # noqa: E402
from fanin.frameworks.torch.verbs import read_model  # noqa: E402
from fanin.theory.engine import Interpreter  # noqa: E402
from fanin.theory.law import Atom  # noqa: E402
from fanin.theory.windows import across, laid  # noqa: E402

N, SIDE, WINDOW = 64, 12, 4
X = normal(2, SIDE, SIDE, N)
F = torch.nn.functional
LAWS = {"table": Normal(1.0)} | {n: Normal(N**-0.5) for n in "uvw"}


def inside(m, x, shift, v):
    """A mean over the windows of a shifted map by attention of equal logits, shifted back and normalized."""
    y = torch.roll(x, (-shift, -shift), (1, 2)) if shift else x
    y = y.view(2, SIDE // WINDOW, WINDOW, SIDE // WINDOW, WINDOW, N).transpose(2, 3).reshape(-1, WINDOW**2, N)
    y = F.scaled_dot_product_attention(*(t[:, None] for t in (0.01 * y, y, y @ v)))[:, 0]
    y = y.view(2, SIDE // WINDOW, SIDE // WINDOW, WINDOW, WINDOW, N).transpose(2, 3).reshape(2, SIDE, SIDE, N)
    y = torch.roll(y, (shift, shift), (1, 2)) if shift else y
    return F.layer_norm(y, (N,))


def net(*shifts):
    def forward(m, x):
        x = x @ m.u
        for shift, v in zip(shifts, (m.v, m.w), strict=True):
            x = x + inside(m, F.pad(x, (0, 0, 0, 0, 0, 0)), shift, v)
        return x

    return Made(forward, u=(N, N), v=(N, N), w=(N, N))


@pytest.mark.parametrize("shifts", [(0, 0), (0, 2), (0, 1), (2, 0)])
def test_windows_across_windows(shifts) -> None:
    laws = {n: Normal(N**-0.5) for n in "uvw"}
    assert compared(net(*shifts), X, laws, networks=64).misses(0.03) == []


def test_one_shift_is_told_from_another() -> None:
    """A control: what is said of windows that stay, of networks whose windows are shifted."""
    laws = {n: Normal(N**-0.5) for n in "uvw"}
    said, found = (compared(net(*s), X, laws, networks=4) for s in ((0, 0), (0, 2)))
    rows = [[r.rms for r in c.predicted.rows if "dot_product" in r.op][-1] for c in (said, found)]
    assert rows[0] > 1.3 * rows[1]


def test_gradients_of_windows_across_windows() -> None:
    def make():
        made = net(0, 2)
        for p in made.parameters():
            torch.nn.init.normal_(p, std=N**-0.5)
        return made

    hold(errors(make, X, 16), 0.06)


def test_pairs_of_shifted_windows() -> None:
    axes = ((), (Atom(3, "p~"), Atom(4, "p")), (Atom(3, "p~"), Atom(4, "p")))
    (how,) = laid(axes, {1: 2, 2: 2}) or []
    place = [(a, b) for a in range(12) for b in range(12)]
    old = {p: (p[0] // 4, p[1] // 4) for p in place}
    new = {p: ((p[0] - 2) % 12 // 4, (p[1] - 2) % 12 // 4) for p in place}
    pairs = [(p, q) for p in place for q in place if p != q and new[p] == new[q]]
    assert how.inside == pytest.approx(sum(old[p] == old[q] for p, q in pairs) / len(pairs))
    moved = across({frozenset(("p",)): 1.0, frozenset(("p~",)): 0.0, frozenset(("p", "p~")): 0.0}, [how])
    assert moved[frozenset(("p",))] == how.inside
    assert moved[frozenset(("p~",))] == 0.0
    assert laid(axes, {1: 4, 2: 8})[0].inside == 1.0  # whole windows
    assert laid(((Atom(12, "p"),),), {0: 2}) == []


def merging(side, window):
    """Patches of two by two of a map that attention in windows mixed, normalized and mapped: (2, side, side, N)."""

    def forward(m, x):
        x = x @ m.u
        y = x.view(2, side // window, window, side // window, window, N).transpose(2, 3).reshape(-1, window**2, N)
        y = F.scaled_dot_product_attention(*(t[:, None] for t in (0.01 * y, y, y @ m.v)))[:, 0]
        y = y.view(2, side // window, side // window, window, window, N).transpose(2, 3).reshape(2, side, side, N)
        x = x + 3 * y
        x = x.reshape(2, side // 2, 2, side // 2, 2, N).transpose(2, 3).flatten(3)
        return torch.tanh(F.layer_norm(x, (4 * N,)) @ m.w).mean((1, 2))

    def make():
        made = Made(forward, u=(N, N), v=(N, N), w=(4 * N, N))
        for p in made.parameters():
            torch.nn.init.normal_(p, std=p.shape[0] ** -0.5)
        return made

    return make


@pytest.mark.parametrize(("side", "window"), [(12, 3), (12, 4)])
def test_patches_of_two_windows(side, window) -> None:
    """Pairs that windows of three cut; a control: those of four cut none."""
    hold(errors(merging(side, window), normal(2, side, side, N), 16), 0.06)


def test_features_stay_features_where_patches_cut_windows() -> None:
    made = merging(12, 3)()
    values = Interpreter(read_model(made, normal(2, 12, 12, N)).graph)
    values.forward()
    (law,) = [values.values[n.id] for n in values.graph.nodes if n.op == "flatten"]
    assert law.axes[-1][-1] == Atom(N, "feature")
