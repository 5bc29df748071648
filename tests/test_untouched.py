"""Look, do not touch: whatever a verb does with a model, also when it fails, every bit of the model stays as it was."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import fanin  # noqa: E402

VERBS: dict[str, Callable[[Any, Any], Any]] = {
    "predict": fanin.predict,
    "measure": fanin.measure,
    "check": fanin.check,
    "plan": fanin.plan,
    "measure_planned": lambda model, batch: fanin.measure(model, batch, plan=fanin.plan(model, batch), seeds=2),
}


# --- models -------------------------------------------------------------------------------------------------------


def normed() -> Any:
    """Dropout and batch normalization in training mode, one part in evaluation mode."""
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 5)
    )
    net.train()
    net[3].eval()
    return net


class Tied(nn.Module):
    """An embedding that is also the head; one gradient is there, one parameter is frozen."""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(11, 8), nn.Linear(8, 11)
        self.head.weight = self.table.weight
        self.head.bias.requires_grad_(False)

    def forward(self, ids):
        return self.head(self.table(ids))


class Remembering(nn.Module):
    """Forward counts its calls and keeps its result."""

    def __init__(self):
        super().__init__()
        self.layer, self.calls, self.cache, self.log = nn.Linear(6, 4), 0, None, []

    def forward(self, x):
        self.calls += 1
        self.log.append(self.calls)
        self.cache = self.layer(x)
        return self.cache.relu()


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.LSTM(6, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x):
        return self.head(self.cell(x)[0][:, -1])


def remembering_after_a_pass() -> Any:
    net: Any = Remembering()
    net(torch.ones(2, 6))
    return net


def hooked() -> Any:
    """Hooks of every kind; one changes the output, so it is part of what the model computes."""
    net: Any = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
    net[0].register_forward_hook(_doubled)
    net[1].register_forward_pre_hook(lambda module, given: None)
    net[2].register_full_backward_hook(lambda module, before, after: None)
    net[2].weight.register_hook(lambda gradient: gradient)
    return net


def wrapped(wrap: Callable, *, passes: int = 0) -> Callable[[], Any]:
    def build() -> Any:
        net = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3)).train()
        wrap(net[0])
        for _ in range(passes):
            net(torch.ones(2, 6))
        return net

    return build


def _doubled(module, given, out):
    return 2 * out


def plain(shape: tuple[int, ...]) -> Callable[[], Any]:
    return lambda: torch.randn(shape)


MODELS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "batch norm and dropout": (normed, plain((4, 3, 6, 6))),
    "tied": (Tied, lambda: torch.randint(0, 11, (3, 5))),
    "remembering": (Remembering, plain((4, 6))),
    "remembering, after a pass": (remembering_after_a_pass, plain((4, 6))),
    "hooks": (hooked, plain((4, 6))),
    "weight norm": (wrapped(nn.utils.parametrizations.weight_norm), plain((4, 6))),
    "spectral norm": (wrapped(nn.utils.parametrizations.spectral_norm), plain((4, 6))),
    "old spectral norm, after a pass": (wrapped(nn.utils.spectral_norm, passes=1), plain((4, 6))),
    "LSTM": (Recurrent, plain((2, 4, 6))),
}


# --- what is compared ---------------------------------------------------------------------------------------------


def bits(value: Any) -> Any:
    """Something comparable that changes with any bit, identity, flag or version of a tensor."""
    if isinstance(value, torch.Tensor):
        data = (
            value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""
        )
        return (
            id(value),
            data,
            value.dtype,
            tuple(value.stride()),
            value.requires_grad,
            bits(value.grad) if value.is_leaf else 0,
        )
    if isinstance(value, dict):
        return {key: bits(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [id(value), *map(bits, value)]
    return value if isinstance(value, int | float | str | bytes | bool | type(None)) else id(value)


def state(model: nn.Module, batch: Any) -> dict[str, Any]:
    """Everything a caller could notice."""
    modules = {name: bits(vars(module)) for name, module in model.named_modules(remove_duplicate=False)}
    hooks = {
        name: bits(tensor._backward_hooks and dict(tensor._backward_hooks)) for name, tensor in model.named_parameters()
    }
    legacy: Any = np.random.get_state(legacy=True)  # noqa: NPY002
    randomness = (torch.get_rng_state().numpy().tobytes(), legacy[1].tobytes(), legacy[2], random.getstate())
    modes = (torch.is_grad_enabled(), torch.get_default_dtype(), torch.is_inference_mode_enabled())
    return {"modules": modules, "hooks": hooks, "batch": bits(batch), "random": randomness, "modes": modes}


def with_gradients(model: nn.Module) -> Any:
    """Gives every second parameter a gradient, so that both kinds are there."""
    for i, parameter in enumerate(model.parameters()):
        if i % 2 and parameter.requires_grad:
            parameter.grad = torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", MODELS)
def test_reading_changes_nothing(name: str, verb: str) -> None:
    torch.manual_seed(1)
    build, make_batch = MODELS[name]
    model, batch = with_gradients(build()), make_batch()
    before = state(model, batch)
    VERBS[verb](model, batch)
    assert state(model, batch) == before


class Failing(nn.Module):
    """Draws numbers, writes to a buffer, counts, and then raises."""

    def __init__(self, error: BaseException):
        super().__init__()
        self.norm, self.layer, self.calls, self.error = nn.BatchNorm1d(6), nn.Linear(6, 2), 0, error

    def forward(self, x):
        self.calls += 1
        torch.rand(3), np.random.rand(), random.random()  # noqa: NPY002
        self.layer(self.norm(x))
        raise self.error


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("error", [RuntimeError("boom"), SystemExit(3)], ids=["error", "exit"])
def test_a_forward_that_fails_changes_nothing(verb: str, error: BaseException) -> None:
    model, batch = with_gradients(Failing(error)), torch.randn(4, 6)
    before = state(model, batch)
    with pytest.raises(fanin.FaninError):
        VERBS[verb](model, batch)
    assert state(model, batch) == before


@pytest.mark.parametrize("where", ["loss", "batch"])
def test_a_failure_after_tracing_changes_nothing(where: str) -> None:
    model, batch = with_gradients(normed()), torch.randn(4, 3, 6, 6)
    before = state(model, batch)

    def loss(output, *_):
        raise ValueError("no target")

    act = {
        "loss": lambda: fanin.check(model, batch, loss=loss),
        "batch": lambda: fanin.measure(model, torch.empty(4, 3, 6, 6, device="meta")),
    }[where]
    with pytest.raises(fanin.FaninError):
        act()
    assert state(model, batch) == before


def test_the_cache_switch_of_a_configuration_stays_on() -> None:
    transformers = pytest.importorskip("transformers")
    shape = {"n_layer": 1, "n_embd": 16, "n_head": 2, "vocab_size": 20, "n_positions": 8}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape, bos_token_id=0, eos_token_id=1))
    batch = {"input_ids": torch.randint(0, 20, (2, 6))}
    kept, before = model.config.to_dict(), state(model, batch)
    for verb in VERBS.values():
        verb(model, batch)
    assert model.config.use_cache is True and model.config.to_dict() == kept
    assert state(model, batch) == before


def test_a_hook_that_changes_the_output_counts() -> None:
    net = nn.Sequential(nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False))
    batch = torch.randn(8, 64)
    bare = fanin.measure(net, batch)["1"].rms
    net[0].register_forward_hook(_doubled)
    doubled = fanin.measure(net, batch)["1"].rms
    assert bare is not None and doubled == pytest.approx(2 * bare)


def test_spectral_norm_is_measured_as_it_runs() -> None:
    net = wrapped(nn.utils.parametrizations.spectral_norm)().eval()
    batch = torch.randn(64, 6)
    with torch.no_grad():
        wanted = float(net[0](batch).square().mean().sqrt())
    assert fanin.measure(net, batch)["0"].rms == pytest.approx(wanted, rel=1e-5)


def test_this_comparison_can_fail() -> None:
    """The negative control: each kind of change is seen."""
    model, batch = with_gradients(normed()), torch.randn(4, 3, 6, 6)
    changes: dict[str, Callable[[], Any]] = {
        "forward": lambda: model(batch),  # running statistics and random state
        "value": lambda: model[0].weight.data.add_(1e-7),
        "flag": lambda: model[0].weight.requires_grad_(False),
        "mode": lambda: model[3].train(),
        "hook": lambda: model[0].register_forward_hook(lambda *_: None),
        "gradient": lambda: setattr(model[0].bias, "grad", None),
        "batch": lambda: batch.mul_(1.0001),
        "numpy": lambda: np.random.rand(),  # noqa: NPY002
        "python": random.random,
    }
    unseen = []
    for name, change in changes.items():
        before = state(model, batch)
        change()
        unseen += [name] if state(model, batch) == before else []
    assert unseen == []
