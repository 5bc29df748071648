"""`fanin demo`: a 30-layer network on real data that stalls, why it does, and how it is mended.

Thirty 3x3 convolutions of 32 channels with ReLU and no normalization, on scikit-learn's 8x8 digits: the experiment of
He et al. 2015, "Delving Deep into Rectifiers" (arXiv:1502.01852), figure 3, at a size that two cores train in seconds.
Everything is done with the public verbs, as a user would.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import fanin
from fanin.cli.screen import working
from fanin.errors import MissingDependency
from fanin.report import Report
from fanin.report.html import page, write
from fanin.report.numbers import short

DEPTH, CHANNELS, BATCH, RATE = 30, 32, 32, 5e-4
LAST, FIRST = str(2 * DEPTH - 2), "0"  # names of the last and the first convolution
STARTS = ("torch's default", "Xavier (glorot)", "fanin (auto)")


@dataclass(frozen=True, slots=True)
class Digits:
    """1,437 images to train on, 360 held out; standardized, with labels."""

    train: Any
    train_labels: Any
    held: Any
    held_labels: Any


@dataclass(slots=True)
class Run:
    """One start: its check and its training, epoch 0 being the start itself."""

    label: str
    report: Report
    epoch: list[int] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)


def digits(seed: int = 0) -> Digits:
    """The data, split at random."""
    try:
        import torch
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingDependency(f"the demo needs {error.name}", remedy="pip install 'fanin[demo]'") from error
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8)
    x, y = (x - x.mean()) / x.std(), torch.tensor(labels)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    train, held = order[:1437], order[1437:]
    return Digits(x[train], y[train], x[held], y[held])


def network(seed: int = 0) -> Any:
    """The model as torch draws it."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sizes = [1, *[CHANNELS] * DEPTH]
        layers = [layer for a, b in itertools.pairwise(sizes) for layer in (nn.Conv2d(a, b, 3, padding=1), nn.ReLU())]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(CHANNELS * 8 * 8, 10))


def train(model: Any, data: Digits, run: Run, *, epochs: int, seed: int) -> Run:
    """Adam at 5e-4; the run's curves grow by a point an epoch."""
    import torch
    from torch.nn.functional import cross_entropy

    optimizer = torch.optim.Adam(model.parameters(), RATE)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        _note(run, model, data, float(cross_entropy(model(data.train), data.train_labels)))
    for _ in range(epochs):
        total = 0.0
        for chosen in torch.randperm(len(data.train), generator=generator).split(BATCH):
            loss = cross_entropy(model(data.train[chosen]), data.train_labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(chosen)
        _note(run, model, data, total / len(data.train))
    return run


def _note(run: Run, model: Any, data: Digits, loss: float) -> None:
    import torch

    with torch.no_grad():
        right = (model(data.held).argmax(1) == data.held_labels).double().mean()
    run.epoch.append(len(run.epoch))
    run.accuracy.append(float(right))
    run.loss.append(loss)


def tell(
    html: Path,
    *,
    epochs: int = 6,
    seed: int = 0,
    say: Callable[[str], None] = print,
    remark: Callable[[str], None] = print,
    width: int = 110,
    color: bool = False,
) -> list[Run]:
    """The whole story: print it, write the page, give the runs."""
    data = digits(seed)
    say(
        f"{DEPTH} ReLU convolutions (3x3, {CHANNELS} channels), no normalization, on 8x8 digits; "
        f"Adam {RATE:g}, {epochs} epoch{'s' if epochs > 1 else ''}.\n"
    )
    runs = []
    for number, label in enumerate(STARTS, 1):
        model = network(seed)
        say(f"── {number}. {label} " + "─" * max(0, min(width, 100) - len(label) - 7))
        _start(model, data, label, seed, say)
        report = _check(model, data, label, seed)
        say(report.to_text(width=width, color=color))
        with working(f"training, {epochs} epochs"):
            runs.append(train(model, data, Run(label, report), epochs=epochs, seed=seed))
        say("held-out accuracy by epoch: " + "  ".join(f"{100 * a:.0f} %" for a in runs[-1].accuracy[1:]) + "\n")
    say(summary(runs))
    write(
        html, page([run.report for run in runs], title="A 30-layer network, started three ways", training=_curves(runs))
    )
    remark(f"wrote {html}")
    return runs


def _start(model: Any, data: Digits, label: str, seed: int, say: Callable[[str], None]) -> None:
    """Draw the weights anew, but for torch's default, which the model has already."""
    if label == STARTS[0]:
        return
    recipe = "glorot" if label == STARTS[1] else "auto"
    with working(f"fanin.init_, recipe {recipe}"):
        plan = fanin.init_(model, data.train[:256], recipe=recipe, seed=seed)
    say(f'plan = fanin.init_(model, batch, recipe="{recipe}", seed={seed})')
    entry = plan.entries[f"{LAST}.weight"]
    say(f"  {entry.name}: {entry.distribution}; {entry.reason}\n")


def _check(model: Any, data: Digits, label: str, seed: int) -> Report:
    from torch.nn.functional import cross_entropy

    batch, labels = data.train[:256], data.train_labels[:256]
    with working("fanin.check"):
        report = fanin.check(model, batch, loss=cross_entropy, target=labels, seed=seed)
    return replace(report, target=label)


def summary(runs: list[Run]) -> str:
    """The three starts side by side."""
    heads = ("rms, layer 30", "", "between samples", "gradient, layer 1", "held-out")
    below = ("predicted", "measured", "measured", "measured", "accuracy")
    lines = [_columns("", heads), _columns("", below)]
    for run in runs:
        predicted, measured = run.report.predicted, run.report.measured
        last = measured[LAST] if measured is not None else None
        cells = (
            short(predicted[LAST].rms if predicted is not None else None),
            short(last.rms if last else None),
            short(last.extra.get("spread") if last else None),
            short(measured[FIRST].grad_rms if measured is not None else None),
            f"{100 * run.accuracy[-1]:.1f} %",
        )
        lines.append(_columns(run.label, cells))
    return "\n".join(lines) + "\n"


def _columns(label: str, cells: tuple[str, ...]) -> str:
    return f"{label:16}" + "".join(f"{cell:>18}" for cell in cells)


def _curves(runs: list[Run]) -> dict[str, Any]:
    return {
        "title": "Training on scikit-learn's digits",
        "text": f"The same network, data, order of batches and optimizer (Adam, {RATE:g}); only the first weights "
        "differ. Below, what fanin.check said before training.",
        "curves": [{"label": r.label, "epoch": r.epoch, "accuracy": r.accuracy, "loss": r.loss} for r in runs],
    }
