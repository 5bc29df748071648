"""FAN3xx: units and their activations."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from fanin.activations import moments
from fanin.checks.blame import describe
from fanin.checks.case import Case, listed, plural
from fanin.checks.finding import Severity
from fanin.checks.fit import Fit, bounded, called, fits, scheme_of
from fanin.checks.rule import Seen
from fanin.errors import FaninError
from fanin.graph.nonlinearity import Nonlinearity

TREND, GRAVE = 10.0, 1e3  # a misfit matters where it compounds to this over the depth
MOST_DEAD = 0.75  # half of the units are dead where all samples are alike; more needs another reason


def dead(case: Case) -> Iterator[Seen]:
    """Features that an activation leaves at zero for every sample of the batch."""
    shares = []
    for end, function in case.functions.items():
        row = case.measured_row(case.graph.by_id[end])
        share = row.extra.get("dead", 0.0) if row is not None else 0.0
        if share > MOST_DEAD:
            shares.append((share, end, function))
    if not shares:
        return
    share, end, function = max(shares, key=lambda s: s[0])
    yield Seen(
        case.graph.by_id[end].name,
        f"{share:.0%} of its features are zero for every sample; {plural(len(shares), 'layer')} so",
        share,
        (0.0, MOST_DEAD),
        f"the input of {called(function)} is negative for the whole batch: biases too low, or inputs of large mean",
        "start biases at zero and centre the inputs; fanin.init_(model, batch) sets both weights and biases",
        "error" if share > 0.95 else "warning",
    )


def saturated(case: Case) -> Iterator[Seen]:
    """Bounded functions whose input is so large that the slope is nearly zero."""
    found = [(left, rms, f) for f in case.functions.values() if (seen := _slope_left(case, f)) for left, rms in [seen]]
    bad = [item for item in found if item[0] < 0.1]
    if not bad:
        return
    left, rms, function = min(bad, key=lambda item: item[0])
    name = called(function)
    yield Seen(
        case.graph.by_id[function.start].name,
        f"pre-activation rms {rms:.3g}: {name} keeps {left:.2g} of its largest mean squared slope; "
        f"{plural(len(bad), 'layer')} in all",
        left,
        (0.1, 1.0),
        f"the input of {name} lies where it is flat, so that no gradient passes",
        f"bring its rms near 1: multiply the std of the weights before it by {1 / rms:.2g}, or normalize; "
        "fanin.init_(model, batch) does it",
        "error" if left < 0.01 else "warning",
    )


def _slope_left(case: Case, function: Nonlinearity) -> tuple[float, float] | None:
    """E[f'^2] at the pre-activation's mean and rms over the largest it has, for functions bounded on both sides."""
    row = case.row(case.graph.by_id[function.start])
    if row is None or not row.rms or not math.isfinite(row.rms) or not bounded(function):
        return None
    mean = row.mean or 0.0
    std = max(math.sqrt(max(row.rms**2 - mean**2, 0.0)), 1e-3 * row.rms)
    if row.rms < 1:
        return None
    name = called(function)
    spec = name if name != function.name else function.fn
    try:
        here = moments(spec, std, mean=mean).derivative_second_moment
        best = max(moments(spec, s).derivative_second_moment for s in (0.1, 1.0))
    except FaninError:
        return None
    return (here / best, row.rms) if best > 0 else None


def gain(case: Case) -> Iterator[Seen]:
    """Hidden layers without a norm whose std does not fit the activation that feeds them."""
    misfits = [f for f in fits(case) if not (0.9 < f.factor < 1.1 if f.forward else 0.97 < f.factor < 1.04)]
    total = math.exp(sum(math.log(f.factor) for f in misfits))
    quiet = not misfits or (not misfits[0].forward and not misfits[0].settled and 1 / 3 < total < 3)
    if quiet:
        return
    first = misfits[0]
    kept = "signal" if first.forward else "gradient"
    yield Seen(
        first.layer.weight.name,
        f"gain {first.gain:.3g}, {first.name} needs {first.needed:.3g}: the {kept} is multiplied by {first.factor:.3g} "
        f"here and by {total:.3g} over {plural(len(misfits), 'such layer')}",
        first.gain,
        (first.needed * 0.9, first.needed * 1.1) if first.forward else (first.needed * 0.97, first.needed * 1.04),
        describe(misfits) + _chaos(first),
        f"multiply the std by {1 / first.factor:.3g}: fanin.init_(model, batch) does it",
        _gravity(total),
    )


def _gravity(total: float) -> Severity:
    off = max(total, 1 / total) if total > 0 else math.inf
    return "error" if off > GRAVE else "warning" if off > TREND else "info"


def _chaos(fit: Fit) -> str:
    if fit.name in ("tanh", "erf", "softsign", "arctan", "hardtanh") and fit.factor > 1:
        return f"; a gain above 1 puts {fit.name} in the chaotic phase, where gradients grow with every layer"
    return ""


def wrong_fan(case: Case) -> Iterator[Seen]:
    """A std that is right for the other axis of the weight."""
    apart = [f for f in fits(case) if abs(math.log(f.layer.fans.fan_in / f.layer.fans.fan_out)) > math.log(1.3)]
    found = [f for f in apart if abs(f.std * math.sqrt(f.layer.fans.fan_out) / f.needed - 1) < 0.05]
    if found and len(found) == len(apart):
        first = found[0]
        i, o = first.layer.fans.fan_in, first.layer.fans.fan_out
        yield Seen(
            first.layer.weight.name,
            f"std {first.std:.3g} is {first.needed:.3g} / sqrt({o:g}), of fan_out; its fan_in is {i:g} "
            f"({plural(len(found), 'layer')} so: {listed([f.layer.weight.name for f in found])})",
            first.std,
            (0.9 * first.needed / math.sqrt(i), 1.1 * first.needed / math.sqrt(i)),
            "an initializer that takes a weight's axes for (out, in) was given (in, out), or mode='fan_out' was asked "
            "for, which keeps the gradient, not the signal",
            f"multiply the std by {math.sqrt(o / i):.3g} to keep the signal: fanin.init_(model, batch) knows the axes",
        )


def variance_as_std(case: Case) -> Iterator[Seen]:
    """A std that equals the variance it should have, in at least half of the layers."""
    known = fits(case)
    for formula, variance in VARIANCES.items():
        found = [f for f in known if f.layer.fans.fan_in > 4 and _near(f, variance)]
        if found and len(found) * 2 >= len(known) and not _by_chance(found, variance):
            fit = found[0]
            yield Seen(
                fit.layer.weight.name,
                f"std {fit.std:.3g} equals {formula}, which is a variance; {plural(len(found), 'layer')} so",
                fit.std,
                (0.9 * math.sqrt(fit.std), 1.1 * math.sqrt(fit.std)),
                "a variance was given where a standard deviation is asked for",
                f"take its root: std {math.sqrt(fit.std):.3g}, or fanin.init_(model, batch)",
            )
            return


VARIANCES: dict[str, Callable[[float, float], float]] = {
    "2/fan_in": lambda i, o: 2 / i,
    "1/fan_in": lambda i, o: 1 / i,
    "2/(fan_in + fan_out)": lambda i, o: 2 / (i + o),
    "2/fan_out": lambda i, o: 2 / o,
}


def _near(fit: Fit, variance: Callable[[float, float], float]) -> bool:
    wanted = variance(fit.layer.fans.fan_in, fit.layer.fans.fan_out)
    return abs(fit.std / wanted - 1) < max(4 / math.sqrt(2 * fit.layer.weight.size), 0.004)


def _by_chance(found: list[Fit], variance: Callable[[float, float], float]) -> bool:
    """Whether all layers taken together do not have this std, or have one of the round numbers that people fix."""
    ratios = [math.log(f.std / variance(f.layer.fans.fan_in, f.layer.fans.fan_out)) for f in found]
    tolerance = max(4 / math.sqrt(2 * sum(f.layer.weight.size for f in found)), 0.004)
    fixed = all((scheme_of(f.layer, f.std) or "").startswith("a fixed") for f in found)
    return fixed or abs(sum(ratios) / len(ratios)) > tolerance


def large_fan(case: Case) -> Iterator[Seen]:
    """A layer of very many inputs: tiny weights are right, and a mean in the inputs adds up coherently."""
    for layer in case.layers:
        fan_in, law = layer.fans.fan_in, layer.weight.law
        if fan_in < 1e5 or law is None:
            continue
        std = law.moments(layer.weight.shape)[1]
        right = math.sqrt(1 / fan_in)
        severity = "warning" if std > 4 * right or 0 < std < right / 4 else "info"
        yield Seen(
            layer.weight.name,
            f"fan_in {fan_in:,.0f}: std {std:.3g}, {std / right:.3g} times 1/sqrt(fan_in)",
            std,
            (right / 4, 4 * right),
            "so many inputs add up that weights must be this small; a mean of the inputs adds up faster than the rest",
            "keep std near 1/sqrt(fan_in), centre the inputs, and mind that one step of Adam moves every weight by lr: "
            f"lr * fan_in = {1e-3 * fan_in:,.0f} at lr 1e-3",
            severity,
        )
