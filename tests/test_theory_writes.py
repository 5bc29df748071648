"""Writes into views and at known places: the tensor that is looked into sees them, forward and backward."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from test_theory_rules_contraction import Made  # noqa: E402
from test_theory_statistics import compared, drawn, normal  # noqa: E402
from torch import nn  # noqa: E402

import fanin  # noqa: E402
from fanin.distributions import Normal  # noqa: E402
from fanin.frameworks.torch.execute import execute  # noqa: E402
from fanin.frameworks.torch.verbs import read_model  # noqa: E402
from fanin.theory import interpret  # noqa: E402

N, T, B = 128, 6, 4
X = normal(B, T, N)
LAWS = {name: Normal(N**-0.5) for name in "uvw"}


def net(fn) -> nn.Module:
    """fn of a hidden layer y with a mean, and of one without (z), and what fresh weights make of it."""
    return Made(lambda m, x: fn(torch.relu(x @ m.w), x @ m.v) @ m.u, w=(N, N), v=(N, N), u=(N, N))


def written(shape, *writes):
    """A tensor of zeros after some writes, each a function of (tensor, y, z)."""

    def fn(y, z):
        out = torch.zeros(shape)
        for write in writes:
            write(out, y, z)
        return out

    return fn


def changed(*writes):
    """A copy of y after some writes."""

    def fn(y, z):
        out = y.clone()
        for write in writes:
            write(out, y, z)
        return out + 0.5

    return fn


def put(index, value):
    return lambda out, y, z: out.__setitem__(index, value(y, z))


def stale(y, z):
    """A view is taken, then the base is written to, then the view is read."""
    out = y.clone()
    view = out[:, :2]
    out.mul_(3.0)
    return view


def seen_through_another_view(y, z):
    out = y.clone()
    first, flat = out[:, 0], out.view(B, T * N)
    first.mul_(2.0)
    flat[:, N : 2 * N].zero_()
    return out + flat.view(B, T, N)


MASK = (torch.arange(B * T).reshape(B, T) % 3 == 0)[..., None]
LIST = torch.tensor([4, 1])

FOLLOWED = {
    "a position of zeros": written((B, T, N), put((slice(None), 0), lambda y, z: y[:, 0])),
    "two positions": written(
        (B, T, N), put((slice(None), 0), lambda y, z: y[:, 1]), put((slice(None), 3), lambda y, z: z[:, 0])
    ),
    "copy_ into a slice": changed(lambda out, y, z: out[:, :2].copy_(z[:, :2])),
    "copy_ broadcast": changed(lambda out, y, z: out[:, 1:4].copy_(z[:, :1])),
    "add_ to a slice": changed(lambda out, y, z: out[:, 2:].add_(z[:, 2:])),
    "mul_ of a view": changed(lambda out, y, z: out.view(B, -1).mul_(2.0)),
    "mul_ of a transposed view": changed(lambda out, y, z: out.transpose(1, 2).mul_(2.0)),
    "a feature": changed(lambda out, y, z: out[..., 5].add_(4.0)),
    "half of the features": changed(lambda out, y, z: out[..., : N // 2].mul_(3.0)),
    "every other position": changed(put((slice(None), slice(None, None, 2)), lambda y, z: z[:, ::2])),
    "a slice of a slice": changed(lambda out, y, z: out[:, 1:4][:, 1:].mul_(0.0)),
    "a number": changed(put((slice(None), slice(2, 4)), lambda y, z: 0.0)),
    "all of it": written((B, T, N), put(slice(None), lambda y, z: y)),
    "an old view": stale,
    "seen through another view": seen_through_another_view,
    "at a list": changed(put((slice(None), LIST), lambda y, z: z[:, LIST])),
    "at a list, first axis": changed(put(torch.tensor([3, 0]), lambda y, z: z[:2])),
    "at a mask, one row": changed(put(MASK[..., 0], lambda y, z: z[0, 0])),
    "at a mask, a number": changed(put(MASK[..., 0], lambda y, z: 0.0)),
    "masked_scatter": lambda y, z: y.masked_scatter(MASK, z) + 0.5,
    "masked_scatter of few": lambda y, z: y.masked_scatter(MASK, z[:2].reshape(-1, N)) + 0.5,
    "masked_fill_": changed(lambda out, y, z: out[:, 1:].masked_fill_(MASK[:, 1:], 0.0)),
    "index_copy": lambda y, z: y.index_copy(1, LIST, z[:, :2]) + 0.5,
    "index_add": lambda y, z: y.index_add(1, LIST, z[:, :2]) + 0.5,
    "index_fill": lambda y, z: y.index_fill(1, LIST, 0.0) + 0.5,
    "scatter": lambda y, z: y.scatter(1, LIST[None, :, None].expand(B, 2, N), z[:, :2]) + 0.5,
    "slice_scatter": lambda y, z: y.slice_scatter(z[:, 1:3], 1, 1, 3) + 0.5,
    "select_scatter": lambda y, z: y.select_scatter(z[:, 1], 1, 4) + 0.5,
}  # fmt: skip


@pytest.mark.parametrize("name", FOLLOWED)
def test_a_write_is_seen(name):
    assert compared(net(FOLLOWED[name]), X, LAWS, networks=32).misses(1 / N) == []


def gradients(module: nn.Module, networks: int) -> tuple[fanin.Signals, dict[str, np.ndarray]]:
    """Predicted rows, and the gradients' mean squares in many networks by name."""
    reading = read_model(module.train(), X)
    graph = reading.graph
    names = {node.id: node.name for node in graph.signals}
    found: dict[str, list[float]] = {}

    def watch(id_: str, gradient) -> None:
        if id_ in names:
            found.setdefault(names[id_], []).append(float(gradient.double().square().mean()))

    for k in range(networks):
        torch.manual_seed(k)
        rng = np.random.default_rng(k)
        tensors = {n: drawn(LAWS[n], tuple(p.shape), rng) for n, p in module.named_parameters()}
        cotangent = lambda outputs: (outputs[0] * torch.randn_like(outputs[0])).sum()  # noqa: E731
        execute(reading.program, tensors, watch=lambda *_: None, watch_grad=watch, cotangent=cotangent)
    return interpret(graph, LAWS), {n: np.array(v) for n, v in found.items() if len(v) == networks}


@pytest.mark.parametrize("name", FOLLOWED)
def test_gradients_follow_a_write(name):
    predicted, measured = gradients(net(FOLLOWED[name]), 24)
    missed = []
    for row in predicted.rows:
        if row.name not in measured:
            continue
        found = measured[row.name]
        error = found.std(ddof=1) / np.sqrt(len(found))
        said = 0.0 if row.grad_rms is None else row.grad_rms**2  # no gradient arrives at what is overwritten
        if abs(said - found.mean()) > 4 * error + 0.02 * found.mean() + 1e-12:
            missed.append(f"{row.name}: {said} predicted, {found.mean():.5g} +- {error:.2g} measured")
    assert missed == []


def test_a_write_that_cannot_be_followed_is_unmodelled():
    """A diagonal is a view without an inverse in the table: what is written to it is measured, and not predicted."""
    module = net(changed(lambda out, y, z: out.diagonal(0, 1, 2).mul_(0.0)))
    predicted, measured = fanin.predict(module, X), fanin.measure(module, X)
    assert predicted["/overwrite"].rms is None and "unmodelled" in predicted["/overwrite"].note
    torch.testing.assert_close(measured["/overwrite"].rms, _by_hand(module))


def _by_hand(module: nn.Module) -> float:
    y = torch.relu(X @ module.w).detach()
    y.diagonal(0, 1, 2).mul_(0.0)
    return float(y.double().square().mean().sqrt())


def test_a_model_returns_what_was_written():
    """The module's own row is the written tensor, not the zeros that it started from."""

    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(N, N)

        def forward(self, x):
            out = torch.zeros_like(x)
            out[:, 0] = self.fc(x[:, 0])
            return out

    model = nn.Sequential(Writes())
    predicted, measured = fanin.predict(model, X), fanin.measure(model, X)
    one, other = predicted["0"].rms, measured["0"].rms
    assert one is not None and other is not None and one == pytest.approx(other, rel=0.05)


def test_programs_without_such_writes_are_left_alone():
    from fanin.frameworks.torch.functional import functional
    from fanin.frameworks.torch.tracing import trace

    program = trace(nn.Sequential(nn.Linear(N, N), nn.ReLU(inplace=True)), (X,), {})
    assert functional(program) is program


def test_a_write_overlooked_is_missed():
    """A control: the prediction for a net without the write misses the net with it."""
    from dataclasses import replace

    with_it = compared(net(changed(lambda out, y, z: out[:, 2:].mul_(0.0))), X, LAWS, networks=8)
    without = compared(net(lambda y, z: y.clone() + 0.5), X, LAWS, networks=2)
    rows = {row.name: row for row in without.predicted.rows}
    shared = [row for row in with_it.predicted.rows if row.name in rows]
    from fanin.signals import Signals

    said = Signals([replace(rows[row.name]) for row in shared])
    assert replace(with_it, predicted=said).misses()


def test_a_scatter_to_places_that_depend_on_weights():
    """A router's scores: the k largest at their places, minus infinity elsewhere, then a sigmoid."""

    def routed(m, x):
        logits = x @ m.w[:, :8]
        top, index = logits.topk(2, -1)
        scores = torch.sigmoid(torch.full_like(logits, float("-inf")).scatter_(-1, index, top))
        return x * scores[..., :1]

    module = Made(routed, w=(N, N))
    result = compared(module, X, {"w": Normal(N**-0.5)}, networks=64)
    rows = {row.name: row for row in result.predicted.rows}
    said, found = rows["/sigmoid"].rms, result.squares["/sigmoid"]
    assert said is not None and abs(said**2 - found.mean()) < 4 * found.std(ddof=1) / 8 + 0.02 * found.mean()
    assert rows["/mul"].rms is not None and rows["/mul"].note
