"""What is known of every parameter and buffer: figures of its values, or the law its model would draw it from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import torch

from fanin.distributions import Constant, Distribution, Normal, Stacked, Uniform
from fanin.errors import ModelError
from fanin.frameworks.torch.convert import array_of
from fanin.graph import Parameter

TABLE = 1 << 24  # elements of a fixed table that are looked at as they are
SAMPLE = 1 << 20  # elements looked at for kurtosis; mean, variance and extremes use all


def parameter_records(model: torch.nn.Module) -> dict[str, Parameter]:
    """A record of every parameter and buffer by every name it goes by; tied ones share a record.

    Raises:
        ModelError: a parameter has an integer dtype, or no shape yet.
    """
    _no_lazy_parameters(model)
    owners = {name: type(module).__name__ for name, module in model.named_modules()}
    meta = any(t.device.type == "meta" for t in [*model.parameters(), *model.buffers()])
    laws, arrays = _defaults(model) if meta else ({}, {})
    first: dict[int, Parameter] = {}
    records: dict[str, Parameter] = {}
    tensors = [(n, t, False) for n, t in model.named_parameters(remove_duplicate=False)]
    tensors += [(n, t, True) for n, t in model.named_buffers(remove_duplicate=False)]
    ties: dict[int, list[str]] = {}
    for name, tensor, _ in tensors:
        ties.setdefault(id(tensor), []).append(name)
    for name, tensor, buffer in tensors:
        if id(tensor) not in first:
            first[id(tensor)] = _record(name, tensor, buffer, tuple(ties[id(tensor)][1:]), owners, laws, arrays)
        records[name] = first[id(tensor)]
    return records if meta else _with_copies(records, {name: tensor for name, tensor, buffer in tensors if not buffer})


def _with_copies(records: dict[str, Parameter], tensors: dict[str, torch.Tensor]) -> dict[str, Parameter]:
    """Parameters that hold the very values of an earlier one say so: layers that were copied start alike."""
    seen: dict[tuple, str] = {}
    found = dict(records)
    for name, tensor in tensors.items():
        known = records[name]
        if known.name != name or not known.stats.get("std") or known.value is not None:
            continue
        figures = (known.shape, known.dtype, *(known.stats[k] for k in ("mean", "std", "min", "max")))
        other = seen.setdefault(figures, name)
        if other != name and torch.equal(tensor, tensors[other]):
            found |= dict.fromkeys((name, *known.tied), replace(known, copy_of=other))
    return found


def _no_lazy_parameters(model: torch.nn.Module) -> None:
    """Parameters that get their shape from the first batch have neither a fan nor a law before it."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if torch.nn.parameter.is_lazy(tensor):
            raise ModelError(
                f"{name} has no shape yet",
                cause="it belongs to a lazy module, which waits for its first batch",
                remedy="run model(batch) once yourself, then give it to fanin",
            )


def _defaults(model: torch.nn.Module) -> tuple[dict[str, Distribution], dict[str, np.ndarray]]:
    from fanin.frameworks.torch.defaults import default_draws

    return default_draws(model)


def _record(name, tensor, buffer, tied, owners, laws, arrays) -> Parameter:
    module = name.rpartition(".")[0]
    common = {
        "name": name,
        "shape": tuple(tensor.shape),
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "tied": tied,
        "trainable": bool(tensor.requires_grad),
        "buffer": buffer,
        "module": module,
        "kind": owners.get(module, ""),
    }
    if tensor.device.type == "meta":
        law = next((laws[n] for n in (name, *tied) if n in laws), None)
        return Parameter(**common, law=law, value=arrays.get(name))
    if buffer:
        return Parameter(**common, value=array_of(tensor))
    if not tensor.is_floating_point() and not tensor.is_complex():
        raise ModelError(
            f"parameter {name} has dtype {common['dtype']}",
            cause="an initialization draws real numbers; integers are codes or indices",
            remedy="register it as a buffer, or check the model before quantization",
        )
    stats = statistics(tensor) | alike(tensor)
    if gates := GATES.get(common["kind"]) if "bias" in name.rpartition(".")[2] else None:
        law = _by_gate(tensor, gates)
        return Parameter(**common, law=law if law is not None else _law(stats), stats=MappingProxyType(stats))
    table = "Embedding" in common["kind"] and tensor.numel() <= TABLE
    if table and (not tensor.requires_grad or _smooth(tensor)):  # sinusoids: known, not drawn
        return Parameter(**common, law=_law(stats), value=array_of(tensor), stats=MappingProxyType(stats))
    law = _law(stats)
    return Parameter(**common, law=law, stats=MappingProxyType(stats), observed=_observed(tensor, law, stats))


def _smooth(tensor: torch.Tensor) -> bool:
    """Whether neighbouring rows of a table go together, as sinusoids do and rows that were drawn never."""
    if tensor.dim() != 2 or len(tensor) < 8 or not torch.isfinite(tensor).all():
        return False
    rows = tensor.detach().double()
    rows = rows - rows.mean(0)
    return bool((rows[1:] * rows[:-1]).mean() > 0.5 * (rows**2).mean())


def _observed(tensor: torch.Tensor, law: Distribution | None, stats: Mapping[str, float]) -> np.ndarray | None:
    """The values themselves, where they are few and the plain law of their mean and spread is not theirs."""
    if law is None or isinstance(law, Constant) or tensor.numel() > TABLE or stats.get("nonfinite"):
        return None
    if tensor.dim() == 2 and (stats.get("same_0") or stats.get("same_1")):
        return array_of(tensor).astype(float)
    if tensor.numel() != max(tensor.shape, default=0):
        return None
    if _in_order(tensor):
        return array_of(tensor).astype(float)
    if tensor.dim() != 1 or tensor.numel() < 8:
        return None
    if abs(stats["mean"]) > stats["std"]:  # far from zero: what comes next may be an exponential, that reads the tails
        return array_of(tensor).astype(float)
    values = np.sort(array_of(tensor).astype(float))
    at = (np.arange(len(values)) + 0.5) / len(values)
    below = np.searchsorted(np.asarray(law.quantile(np.linspace(0.0005, 0.9995, 1000))), values) / 1000
    return array_of(tensor).astype(float) if np.abs(below - at).max() > KOLMOGOROV / np.sqrt(len(values)) else None


def _in_order(tensor: torch.Tensor) -> bool:
    """Whether numbers only grow or only fall, as decays that were set head by head do: four drawn ones seldom."""
    steps = tensor.detach().double().flatten().diff()
    return len(steps) >= 3 and bool((steps > 0).all() or (steps < 0).all())


KOLMOGOROV = 1.95
"""The Kolmogorov-Smirnov statistic that one sample in a thousand passes, times the root of its size."""


GATES = {"LSTM": 4, "LSTMCell": 4, "GRU": 3, "GRUCell": 3}
"""Modules whose biases are blocks, a gate each."""


def _by_gate(tensor: torch.Tensor, gates: int) -> Distribution | None:
    """A law for each block of a recurrent layer's bias, where their means differ (forget gates of one); else None."""
    blocks = [statistics(block) for block in tensor.detach().chunk(gates)]
    means, error = [b["mean"] for b in blocks], max(b["std"] / max(b["size"], 1) ** 0.5 for b in blocks)
    laws = [_law(b) for b in blocks]
    if max(means) - min(means) <= 6 * error or any(law is None for law in laws):
        return None
    return Stacked(tuple(law for law in laws if law is not None))


def statistics(tensor: torch.Tensor) -> dict[str, float]:
    """Mean, std, rms, extremes, kurtosis, share of non-finite and of zero elements; moments over the finite ones."""
    flat = tensor.detach().reshape(-1)
    n = flat.numel()
    if n == 0:
        return {"size": 0.0, "mean": 0.0, "std": 0.0, "rms": 0.0, "nonfinite": 0.0, "zeros": 0.0}
    finite = torch.isfinite(flat)
    bad = n - int(finite.sum())
    values = (flat if not bad else flat[finite]).to(torch.float64 if n <= SAMPLE else torch.float32)
    if values.numel() == 0:
        return {"size": float(n), "mean": 0.0, "std": 0.0, "rms": 0.0, "nonfinite": 1.0, "zeros": 0.0}
    std, mean = torch.std_mean(values, correction=0)
    low, high = torch.aminmax(values)
    some = values[:: max(values.numel() // SAMPLE, 1)].double()
    centred = some - mean
    variance = float((centred**2).mean())
    return {
        "size": float(n),
        "mean": float(mean),
        "std": float(std) if float(high) > float(low) else 0.0,
        "rms": float((std.double() ** 2 + mean.double() ** 2).sqrt()),
        "min": float(low),
        "max": float(high),
        "kurtosis": float((centred**4).mean()) / variance**2 if variance > 0 else float("nan"),
        "nonfinite": bad / n,
        "zeros": float((values == 0).double().mean()),
    }


def alike(tensor: torch.Tensor) -> dict[str, float]:
    """``same_0`` and ``same_1``: 1 where all slices along that axis are equal, so that nothing tells units apart."""
    found: dict[str, float] = {}
    for axis in range(min(tensor.dim(), 2) if tensor.dim() > 1 else 0):
        slices = tensor.detach().movedim(axis, 0)
        first = slices[:1]
        same = len(slices) > 1 and torch.equal(first, slices[1:2]) and bool((slices == first).all())
        found[f"same_{axis}"] = float(same)
    return found


def _law(stats: Mapping[str, float]) -> Distribution | None:
    """The simplest law with the values' mean and standard deviation."""
    mean, std = stats["mean"], stats["std"]
    if abs(mean) < 4 * std / np.sqrt(max(stats["size"], 1)):
        mean = 0.0  # what a finite draw of a centred law leaves
    if not np.isfinite(mean) or not np.isfinite(std):
        return None
    if std <= 1e-7 * abs(mean) or std == 0:
        return Constant(mean)
    return Uniform(std, mean=mean) if _is_uniform(stats) else Normal(std, mean=mean)


def _is_uniform(stats: Mapping[str, float]) -> bool:
    """By kurtosis, 1.8 with a standard error of 1.2 / sqrt(n), and a range over which a normal law is less likely."""
    off, n = abs(stats.get("kurtosis", 3.0) - 1.8), stats["size"]
    if off < 0.05:
        return True
    narrow = stats["max"] - stats["min"] < np.sqrt(2 * np.pi * np.e) * stats["std"]
    return n >= 64 and off < 3 * 1.2 / np.sqrt(n) and narrow
