"""The demo, with a check that needs no theory, so that its own part is what is tested."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

import fanin
from fanin import demo
from fanin.report import Report
from fanin.signals import Signal, Signals

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")


@pytest.fixture(autouse=True)
def one_thread():
    """Threads that wait for a busy core cost more than they bring."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def stubbed(monkeypatch):
    """Public verbs that answer at once: He's weights, and the rms of every layer as it runs."""

    def check(model, batch, **_):
        rows, x = [], batch
        with torch.no_grad():
            for name, layer in model.named_children():
                x = layer(x)
                rows.append(
                    Signal(
                        name,
                        type(layer).__name__,
                        tuple(x.shape),
                        rms=float(x.square().mean().sqrt()),
                        source="measured",
                    )
                )
        return Report((), None, Signals(rows))

    def init_(model, batch=None, *, recipe, seed):
        scale = {"glorot": 0.5**0.5, "auto": 1.0}[recipe]
        for layer in model:
            if hasattr(layer, "weight"):
                torch.nn.init.kaiming_normal_(
                    layer.weight, nonlinearity="relu", generator=torch.Generator().manual_seed(seed)
                )
                layer.weight.data.mul_(scale)
                torch.nn.init.zeros_(layer.bias)
        names = [name for name, _ in model.named_parameters()]
        entry = SimpleNamespace(distribution="Normal", reason="ReLU halves")
        return SimpleNamespace(entries={n: SimpleNamespace(name=n, **vars(entry)) for n in names})

    monkeypatch.setattr(fanin, "check", check, raising=False)
    monkeypatch.setattr(fanin, "init_", init_, raising=False)


def test_the_story(stubbed, tmp_path):
    lines: list[str] = []
    runs = demo.tell(tmp_path / "report.html", epochs=1, say=lines.append, remark=lines.append)
    default, xavier, mended = (run.accuracy[-1] for run in runs)
    assert max(default, xavier) < 0.2 < 0.4 < mended
    assert "wrote" in lines[-1] and "fanin (auto)" in "\n".join(lines)
    assert "Training on scikit-learn" in (tmp_path / "report.html").read_text()


def test_same_seed_same_numbers():
    one, other = demo.network(3), demo.network(3)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters()))
    assert torch.equal(demo.digits(1).train, demo.digits(1).train)
    assert len(demo.digits().train) == 1437 and len(demo.digits().held) == 360
