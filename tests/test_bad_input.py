"""A user's mistake ends in a FaninError that names the thing and the remedy; on the command line in status 2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import fanin  # noqa: E402
from fanin.cli import main  # noqa: E402
from fanin.errors import ArgumentError, FaninError, ModelError, OutputError, PlanError  # noqa: E402

X = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
READERS: dict[str, Callable] = {"predict": fanin.predict, "measure": fanin.measure, "check": fanin.check}
ALL = {**READERS, "plan": fanin.plan}


def dense() -> Any:
    return nn.Linear(16, 4)


class Net(nn.Module):
    """A layer and any forward."""

    def __init__(self, forward: Callable):
        super().__init__()
        self.layer, self.act = nn.Linear(16, 4), forward

    def forward(self, x):
        return self.act(self.layer, x)


def boom(layer, x):
    raise RuntimeError("boom")


def leave(layer, x):
    raise SystemExit(3)


def with_values(value: float) -> Any:
    net = nn.Sequential(layer := dense())
    layer.weight.data[1, 2] = value
    return net


def integers() -> Any:
    net = nn.Sequential(layer := dense())
    layer.weight = nn.Parameter(torch.ones(4, 16, dtype=torch.int8), requires_grad=False)
    return net


def words() -> Any:
    return nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 2))


ANYWHERE: dict[str, tuple[Callable[[], Any], Any, type[FaninError], list[str]]] = {
    # model, batch, kind of error, what its message must hold
    "wrong shape": (dense, torch.randn(8, 15), ModelError, ["Linear", "(8, 15)", "run model(batch)"]),
    "too few dimensions": (lambda: nn.Conv2d(3, 4, 3), torch.randn(4), ModelError, ["Conv2d", "(4,)"]),
    "no dimension": (dense, torch.tensor(3.0), ModelError, ["Linear", "()"]),
    "another dtype": (dense, X.double(), ModelError, ["float64", "weight is float32", "torch.float32"]),
    "integers for a layer": (dense, torch.ones(8, 16, dtype=torch.long), ModelError, ["int64", "float32"]),
    "numbers for ids": (words, X, ModelError, ["float32", "batch"]),
    "ids beyond": (words, torch.tensor([[1, 99]]), ModelError, ["99", "10 rows", "from 0 to 9"]),
    "ids below": (words, torch.tensor([[-1, 3]]), ModelError, ["-1", "10 rows"]),
    "empty batch": (dense, torch.randn(0, 16), ArgumentError, ["(0, 16)", "at least one sample"]),
    "empty tuple": (dense, (), ArgumentError, ["empty tuple"]),
    "empty loader": (dense, [], ArgumentError, ["empty"]),
    "list of numbers": (dense, [1, 2], ArgumentError, ["torch.tensor(batch)"]),
    "text": (dense, "abc", ArgumentError, ["str", "give a tensor"]),
    "wrong keyword": (dense, {"pixels": X}, ModelError, ["Linear", "pixels"]),
    "forward raises": (lambda: Net(boom), X, ModelError, ["Net", "RuntimeError: boom", "run model(batch)"]),
    "forward exits": (lambda: Net(leave), X, ModelError, ["Net", "SystemExit"]),
    "branch on weights, without weights": (
        lambda: Net(lambda layer, x: layer(x) if layer(x).sum() > 0 else layer(-x)).to("meta"),
        X,
        ModelError,
        ["Net", "branches on the values", "torch.where"],
    ),
    "no tensor": (lambda: Net(lambda layer, x: "done"), X, ModelError, ["Net", "no floating-point tensor"]),
    "integers only": (lambda: Net(lambda layer, x: layer(x).argmax(-1)), X, ModelError, ["no floating-point tensor"]),
    "integer weights": (integers, X, ModelError, ["0.weight", "int8", "buffer"]),
    "empty model": (nn.Sequential, X, ModelError, ["Sequential", "no parameters"]),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(4)), X, ModelError, ["0.weight", "no shape yet", "model(batch)"]),
    "class": (lambda: nn.Linear, X, ArgumentError, ["class torch.nn.modules.linear.Linear", "Linear(...)"]),
    "function": (lambda: len, X, ArgumentError, ["not a model", "torch.nn.Module"]),
}


@pytest.mark.parametrize("verb", ALL)
@pytest.mark.parametrize("name", ANYWHERE)
def test_the_message_names_the_thing_and_the_remedy(name: str, verb: str, capfd) -> None:
    build, batch, kind, words_ = ANYWHERE[name]
    model = build()
    with pytest.raises(kind) as caught:
        ALL[verb](model, batch)
    assert [word for word in words_ if word not in str(caught.value)] == []
    assert caught.value.remedy
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("verb", READERS)
def test_no_batch(verb: str) -> None:
    with pytest.raises(ArgumentError, match="there is no batch; give a tensor"):
        READERS[verb](dense(), None)


@pytest.mark.parametrize("verb", ["measure", "check"])
def test_a_batch_without_values_cannot_be_run(verb: str) -> None:
    with pytest.raises(ModelError, match=r"meta device.*real values"):
        READERS[verb](dense(), torch.empty(8, 16, device="meta"))


def test_a_model_without_values_cannot_be_run() -> None:
    with torch.device("meta"):
        model = dense()
    with pytest.raises(ModelError, match=r"no weights to measure.*predict"):
        fanin.measure(model, X)
    assert fanin.predict(model, X).rows[-1].rms is not None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("verb", ["predict", "measure"])
def test_weights_that_are_not_finite(verb: str, value: float) -> None:
    with pytest.raises(ModelError, match=r"1 of 64 values of parameter 0\.weight.*fanin\.init_"):
        READERS[verb](with_values(value), X)


def test_weights_that_are_not_finite_are_a_finding_and_can_be_drawn_anew() -> None:
    model = with_values(float("nan"))
    report = fanin.check(model, X)
    assert not report.ok and [f.code for f in report.findings] == ["FAN401"] and report.findings[0].name == "0.weight"
    plan = fanin.plan(model, X)
    assert fanin.predict(model, X, plan=plan).rows[-1].rms and fanin.measure(model, X, plan=plan).rows[-1].rms
    fanin.init_(model, X, seed=1)
    assert "FAN401" not in {f.code for f in fanin.check(model, X).findings}


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: fanin.gain("rellu"), "rellu"),
        (lambda: fanin.gain("relu", std=0.0), "std is 0.0"),
        (lambda: fanin.gain("relu", std=-1.0), "std is -1.0"),
        (lambda: fanin.distributions.Normal(-1.0), "-1"),
        (lambda: fanin.plan(dense(), X, recipe="hee"), "hee"),
        (lambda: fanin.plan(dense(), X, recipe="he", colour="red"), "colour"),
        (lambda: fanin.check(dense(), X, select="FAN7"), "FAN7"),
        (lambda: fanin.check(dense(), X, ignore=["FAN1", "XYZ"]), "XYZ"),
        (lambda: fanin.check(dense(), X, select=3), "3"),
        (lambda: fanin.predict(dense(), X, cotangent="sum"), "sum"),
        (lambda: fanin.measure(dense(), X, seeds=0), "seeds is 0"),
        (lambda: fanin.fans((3, -1)), "-1"),
        (lambda: fanin.predict(dense(), X)["layr"], "layr"),
    ],
)
def test_arguments(call: Callable, word: str) -> None:
    with pytest.raises(FaninError) as caught:
        call()
    assert word in str(caught.value)


def test_a_plan_of_another_model() -> None:
    plan, other = fanin.plan(dense(), X, recipe="he"), nn.Linear(7, 4)
    before = other.weight.detach().clone()
    with pytest.raises(PlanError, match="weight"):
        fanin.apply(plan, other, seed=0)
    assert torch.equal(other.weight, before)


def test_the_loss_raises_or_is_no_number() -> None:
    with pytest.raises(ModelError, match="the loss raised"):
        fanin.check(dense(), X, loss=nn.functional.cross_entropy, target=torch.tensor([99] * 8))
    with pytest.raises(ModelError, match="not a single number"):
        fanin.check(dense(), X, loss=lambda out: out.tolist())
    with pytest.raises(ModelError, match="does not depend"):
        fanin.check(dense(), X, loss=lambda out: out.detach().sum())
    with pytest.raises(ArgumentError, match="there is none"):
        fanin.predict(dense(), X, cotangent="loss")
    with pytest.raises(ArgumentError, match="loss is a str"):
        fanin.predict(dense(), X, loss="mse")


@pytest.mark.parametrize("place", ["missing/report.html", "."])
def test_output_that_cannot_be_written(place: str, tmp_path: Path) -> None:
    report = fanin.check(dense(), X)
    with pytest.raises(OutputError):
        report.to_html(tmp_path / place)
    assert list(tmp_path.rglob("*")) == []


# --- the command line ---------------------------------------------------------------------------------------------

FACTORIES = """
import torch
from torch import nn

x = torch.zeros(8, 16) + torch.arange(16) / 16

def good(): return nn.Linear(16, 4), torch.randn(8, 16)
def raises(): raise ValueError("no such file: weights.bin")
def shape(): return nn.Linear(16, 4), torch.randn(8, 15)
def empty(): return nn.Sequential(), torch.randn(8, 16)
def nothing(): return None
def a_class(): return nn.Linear, torch.randn(8, 16)
def ids(): return nn.Sequential(nn.Embedding(10, 4)), torch.tensor([[1, 99]])
def lazy(): return nn.LazyLinear(4), torch.randn(8, 16)

class Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(16, 4)
    def forward(self, x):
        return self.layer(x) if self.layer(x).sum() > 0 else self.layer(-x)

def branch(): return Branch().to("meta"), torch.randn(8, 16)

def nan():
    net = nn.Linear(16, 4)
    net.weight.data[0, 0] = float("nan")
    return net, torch.randn(8, 16)
"""

COMMANDS: dict[str, tuple[list[str], list[str]]] = {
    "no such file": (["check", "{dir}/missing.py:net"], ["missing.py"]),
    "no such module": (["check", "no_such_package_:net"], ["no_such_package_"]),
    "no such factory": (["check", "{file}:goood"], ["goood", "good"]),
    "no such model type": (["check", "hf:gpt22"], ["gpt22"]),
    "no such scheme of targets": (["check", "{file}"], ["names no factory"]),
    "factory raises": (["check", "{file}:raises"], ["ValueError", "no such file: weights.bin"]),
    "factory gives nothing": (["check", "{file}:nothing"], ["None"]),
    "factory gives a class": (["check", "{file}:a_class"], ["not a model"]),
    "wrong shape": (["check", "{file}:shape"], ["(8, 15)"]),
    "empty model": (["check", "{file}:empty"], ["no parameters"]),
    "ids beyond": (["check", "{file}:ids"], ["99"]),
    "lazy": (["check", "{file}:lazy"], ["no shape yet"]),
    "branch on weights": (["check", "{file}:branch"], ["branches on the values"]),
    "unknown code": (["check", "{file}:good", "--select", "FAN7"], ["FAN7"]),
    "unknown recipe": (["plan", "{file}:good", "--recipe", "hee"], ["hee"]),
    "unknown activation": (["gain", "rellu"], ["rellu", "relu"]),
    "std of zero": (["gain", "relu", "--std", "0"], ["std is 0"]),
    "no folder for the page": (["check", "{file}:good", "--html", "{dir}/none/r.html"], ["none"]),
    "no folder for the weights": (["init", "{file}:good", "-o", "{dir}/none/w.safetensors"], ["none"]),
    "folder for the page": (["check", "{file}:good", "--html", "{dir}"], ["{dir}"]),
    "unknown command": (["chekc", "{file}:good"], ["chekc", "check"]),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_status_2_and_no_traceback(name: str, tmp_path: Path, capfd) -> None:
    file = tmp_path / "models.py"
    file.write_text(FACTORIES)
    command, words_ = COMMANDS[name]
    fill = lambda text: text.format(file=file, dir=tmp_path)  # noqa: E731
    assert status([fill(part) for part in command]) == 2
    out, err = capfd.readouterr()
    assert [word for word in map(fill, words_) if word not in err] == [] and out == ""
    assert "Traceback" not in err
    left = {path.name for path in tmp_path.iterdir() if path.name != "__pycache__"}
    assert left == {"models.py"}


def test_nan_weights_are_a_finding_of_status_1(tmp_path: Path, capfd) -> None:
    file = tmp_path / "models.py"
    file.write_text(FACTORIES)
    assert status(["check", f"{file}:nan"]) == 1
    out, err = capfd.readouterr()
    assert "FAN401 weight" in out and "Traceback" not in out + err


def status(arguments: list[str]) -> int:
    try:
        found = main(arguments)
    except SystemExit as error:
        return int(error.code or 0)
    return int(found or 0)
