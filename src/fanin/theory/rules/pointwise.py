"""Pointwise functions, sums, products and dropout."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from fanin.graph import Node
from fanin.theory import grid, places, prefix, shifts, shut, turns
from fanin.theory.combine import apply, binary, matched
from fanin.theory.contraction import axis_groups, axis_size, known_pairs
from fanin.theory.law import FEATURE, Atom, Law, fresh_latent, gaussian, gaussians, latent_for
from fanin.theory.records import replace
from fanin.theory.rules import picked
from fanin.theory.spread import of_sum
from fanin.theory.state import Hidden, Known, Value, as_law
from fanin.theory.words import renamed

MOST_LEVELS = 64  # joint levels of two tensors beside a third


def pointwise(node: Node, *inputs: Value) -> Law:
    """Any pointwise function of one, two or three tensors."""
    fn = node.attrs["fn"]
    if any(isinstance(v, Hidden) for v in inputs):
        return _left_by_a_mask(fn, inputs, node.shape)
    laws = [as_law(v) for v in inputs]
    if node.attrs.get("steady"):
        return _steady(laws[0])
    random = [law for law in laws if not law.deterministic]
    if node.dtype == "bool" and len(random) == 2 and not random[0].latent.aligned(random[1].latent):
        return fold(fn, laws, node.shape).marked("a mask of two tensors is taken as independent of both")
    if len(laws) == 1:
        return reshaped(apply(fn, laws[0]), node.shape)
    together = picked.over_total(fn, *laws) if len(laws) == 2 else None
    if together is not None:
        return together
    try:
        return fold(fn, laws, node.shape)
    except NotImplementedError:
        if not getattr(fn, "weighted", False):
            raise
    f, w, g = laws  # f w + g, whose places differ too much in law: one after the other
    return binary(np.add, binary(np.multiply, f, w, node.shape, pair="product"), g, node.shape, pair="sum")


def _steady(x: Law) -> Law:
    """What divides numbers that are as much larger where it is: its rms, since ``E[(n/d)^2] E[d^2] = E[n^2]``."""
    values = np.where(x.means < 0, -1.0, 1.0) * np.sqrt(x.seconds)
    return x.with_values(np.repeat(values[:, None], x.values.shape[1], 1))


def _left_by_a_mask(fn, inputs: tuple[Value, ...], shape: tuple[int, ...]) -> Law:
    """What a mask that depends on weights leaves, where it puts minus infinity elsewhere: groups a router ruled out."""
    hidden = [i for i, v in enumerate(inputs) if isinstance(v, Hidden)]
    if len(inputs) == 2 and len(hidden) == 1:
        x = as_law(inputs[1 - hidden[0]])
        both = [fn(v, m) if hidden[0] else fn(m, v) for v in (x.values,) for m in (np.zeros(()), np.ones(()))]
        if np.isneginf(both[1]).all() and both[0].shape == x.values.shape:
            return reshaped(x.with_values(np.asarray(both[0], float)), shape).marked("what a router ruled out left out")
    raise NotImplementedError("a pointwise function of integers that depend on weights")


def fold(fn, laws: list[Law], shape: tuple[int, ...]) -> Law:
    """A function of several laws of which at most two are independent: known ones are folded in first."""
    if len(laws) == 2:
        return binary(fn, laws[0], laws[1], shape)
    random = [i for i, law in enumerate(laws) if not law.deterministic]
    if len(laws) == 3 and len(random) <= 2:
        return _with_known(fn, laws, random, shape)
    first = laws[random[0]]
    alike = [i for i in random if laws[i].latent.aligned(first.latent)]
    if len(alike) == len(laws):
        return _on_one_latent(fn, laws, shape)
    rest = [i for i in range(len(laws)) if i not in alike]
    if len(laws) == 3 and len(alike) == 1 and laws[rest[0]].latent.aligned(laws[rest[1]].latent):
        alike, rest = rest, alike
    if len(rest) == 1:
        return _and_another(fn, laws, alike, rest[0], shape)
    raise NotImplementedError(f"a pointwise function of {len(laws)} independent tensors")


def joined(laws: list[Law], ndim: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Levels of every law for each joint level, and the joint level of every place."""
    levels = [law.level.reshape((1,) * (ndim - law.level.ndim) + law.level.shape) for law in laws]
    code = np.zeros((1,) * ndim, np.int64)
    for law, level in zip(laws, levels, strict=True):
        code = code * len(law.values) + level
    codes, level = np.unique(code, return_inverse=True)
    of = []
    for law in reversed(laws):
        of.append(codes % len(law.values))
        codes = codes // len(law.values)
    return of[::-1], level.reshape(code.shape).astype(np.int32)


def _on_one_latent(fn, laws: list[Law], shape: tuple[int, ...]) -> Law:
    of, level = joined(laws, len(shape))
    values = np.asarray(fn(*[law.values[i] for law, i in zip(laws, of, strict=True)]), float)
    whole = max(laws, key=lambda law: np.prod(law.shape))
    return binary(lambda a, b: b, whole, replace(whole, shape=shape, values=values, level=level), shape)


def _and_another(fn, laws: list[Law], alike: list[int], other: int, shape: tuple[int, ...]) -> Law:
    """All but one on the same latent: they are read off at z, so that two tensors are left."""
    whole = max((laws[i] for i in alike), key=lambda law: np.prod(law.shape))
    rows, level = joined([laws[i] for i in alike], len(shape))
    if len(rows[0]) > MOST_LEVELS:
        raise NotImplementedError(f"a pointwise function of {len(laws)} tensors whose places differ in law")
    latent = replace(whole, values=grid.Z_UNIT[None], level=np.zeros((1,) * len(whole.shape), np.int32))

    def at_level(*row):
        def of(z, value):
            arguments: list[Any] = [value] * len(laws)
            for i, k in zip(alike, row, strict=True):
                arguments[i] = grid.at(laws[i].values[k], np.ravel(z)).reshape(np.shape(z))
            return fn(*arguments)

        return binary(of, latent, laws[other], shape)

    pieces = [at_level(*row) for row in zip(*rows, strict=True)]
    numbers = np.repeat(np.arange(len(pieces), dtype=float)[:, None], grid.POINTS, axis=1)
    return choose(replace(latent, shape=shape, values=numbers, level=level), pieces, shape)


def _with_known(fn, laws: list[Law], random: list[int], shape: tuple[int, ...]) -> Law:
    """``where(mask, x, y)`` and its like: join the known argument's levels to the first random one, keep the other."""
    known = next(i for i in range(3) if i not in random[:1] and laws[i].deterministic)
    others = [i for i in range(3) if i != known]
    first, second = laws[others[0]], laws[others[1]]
    kept = laws[known]
    picks = kept.values[:, 0]
    pieces = []
    for number in picks:

        def at_number(a, b, number=number):
            arguments: list[Any] = [None, None, None]
            arguments[known], arguments[others[0]], arguments[others[1]] = np.full(np.shape(a), number), a, b
            return fn(*arguments)

        pieces.append(binary(at_number, first, second, shape))
    return choose(kept, pieces, shape)


def choose(index: Law, pieces: list[Law], shape: tuple[int, ...]) -> Law:
    """The tensor that takes its element from ``pieces[level of index]``."""
    if len(pieces) == 1:
        return pieces[0]
    ndim = len(shape)
    levels = [p.level.reshape((1,) * (ndim - p.level.ndim) + p.level.shape) for p in pieces]
    which = index.level.reshape((1,) * (ndim - index.level.ndim) + index.level.shape)
    starts = np.cumsum([0, *[len(p.values) for p in pieces]])
    target = np.broadcast_shapes(which.shape, *[lv.shape for lv in levels])
    level = np.zeros(target, np.int32)
    for i, lv in enumerate(levels):
        level = np.where(which == i, lv + starts[i], level).astype(np.int32)
    used, level_new = np.unique(level, return_inverse=True)
    values = np.concatenate([p.values for p in pieces])[used]
    owner = max(pieces, key=lambda p: 0 if p.deterministic else p.level_weight.sum())
    random = next((p for p in pieces if not p.deterministic), owner)
    return replace(random, values=values, level=level_new.reshape(level.shape).astype(np.int32), given={})


def total(node: Node, *inputs: Value) -> Law:
    """x + alpha y."""
    x, y = laid_out(inputs, rows=True)
    alpha = node.attrs.get("alpha", 1.0)
    if alpha != 1:
        y = replace(apply(lambda v: alpha * v, y), prefix=prefix.times(y.prefix, alpha))
    law = shut.around(lambda x, y: binary(np.add, x, y, node.shape, pair="sum"), x, y)
    return turns.of_sum(shifts.of_sum(law, x, y), (x, y))


def product(node: Node, *inputs: Value) -> Law:
    """x * y."""
    x, y = laid_out(inputs)
    table = any(isinstance(v, Known) and not law.deterministic for v, law in zip(inputs, (x, y), strict=True))
    return turns.of_product(binary(np.multiply, x, y, node.shape, pair="product", moments_only=table), x, y)


def laid_out(inputs: tuple[Value, ...], *, rows: bool = False) -> list[Law]:
    """Two operands as laws; known numbers that vary along features (sinusoids, rotations) count as drawn along them.

    Args:
        rows: whether each row of such a table keeps a mean of its own, which a norm behind a sum removes.
    """
    signal = next((v for v in inputs if isinstance(v, Law)), None)
    if signal is None:
        return [as_law(v) for v in inputs]
    return [featured(v, signal, rows=rows) if isinstance(v, Known) else as_law(v) for v in inputs]


_TABLES: WeakKeyDictionary[Known, dict[Any, Any]] = WeakKeyDictionary()  # every layer reads the same rotations


def featured(known: Known, signal: Law, *, rows: bool = False) -> Law:
    """A known array seen by fresh weights: what counts is its mean square, and products between places, over features.

    Two places of a table of sinusoids have the mean product of their rows; rotations by them make keys at distance d
    agree by the mean cosine over frequencies. As numbers that are the same everywhere they would have none of this.
    Beside a weight (a mask beside a table of relative positions) it is what it is: a weight's axes are no features yet.
    """
    if not signal.groups or len(known.shape) > len(signal.shape):
        return known.law
    shape, ndim = known.shape, len(known.shape)
    axis = next((i for i in range(ndim) if shape[i] > 1 and axis_groups(signal.axes[i - ndim]) == {FEATURE}), None)
    if axis is None or shape[axis] != signal.shape[axis - ndim] or known.array.dtype == bool:
        return known.law
    tables = _TABLES.setdefault(known, {})
    if "mask" not in tables:
        tables["mask"] = known.law if shut.is_mask(known.array) else None
    if tables["mask"] is not None:
        return known.law
    axes = tuple(
        b if a and a[0].group.startswith("free") and axis_size(a) == axis_size(b) else a
        for a, b in zip(known.axes, signal.axes[-ndim:], strict=True)
    )
    if (axis, rows, axes) not in tables:
        tables[axis, rows, axes] = _table(replace(known, axes=axes), axis, rows)
    law = tables[axis, rows, axes]
    return law if law.deterministic else replace(law, latent=replace(law.latent, id=fresh_latent({}).id))


def _table(known: Known, axis: int, rows: bool) -> Law:
    if np.iscomplexobj(known.array):
        return _turned(known, axis)
    array = np.asarray(known.array, float)
    if not np.isfinite(array).all() or np.ptp(array, axis=axis).max() == 0:
        return known.law
    axes = tuple(
        (Atom(n, FEATURE),) if i == axis else a for i, (n, a) in enumerate(zip(array.shape, known.axes, strict=True))
    )
    second, pairs = known_pairs(array, known.axes, axis)
    mean = array.mean(axis, keepdims=True)
    if rows and np.ptp(mean) > 1e-3 * array.std():
        law = gaussians(array.shape, axes, mean, np.expand_dims(second, axis) - mean**2)
    else:
        law = _formed(gaussian(array.shape, axes, np.expand_dims(second, axis), lambda s: 0.0), array)
    law = replace(law, latent=latent_for(law, lambda s: pairs.get(s, float(second.mean())), law.groups))
    return _by_distance(law, array, axis)


def _turned(known: Known, axis: int) -> Law:
    """Complex numbers that turn others: their squared size, and how far two places' turns agree."""
    shape = known.array.shape
    axes = tuple(
        (Atom(n, FEATURE),) if i == axis else a for i, (n, a) in enumerate(zip(shape, known.axes, strict=True))
    )
    second, pairs = known_pairs(known.array, known.axes, axis)
    return gaussian(shape, axes, np.expand_dims(second, axis), lambda s: pairs.get(s, float(second.mean())))


def _formed(law: Law, array: np.ndarray) -> Law:
    """Elements distributed as the array's, with one mean."""
    mean, some = float(array.mean()), array.ravel()[:: max(array.size // 4096, 1)]
    form = matched(grid.quantile_grid(some, np.ones(len(some))), 0.0, 1.0)
    deviation = np.sqrt(np.maximum(law.seconds - mean**2, 0))
    return law.with_values(mean + deviation[:, None] * form)


def _by_distance(law: Law, array: np.ndarray, feature: int) -> Law:
    """The products of every two rows, where there is one sequence of them: neighbours among sinusoids are alike."""
    long = [i for i, n in enumerate(array.shape) if n > 1 and i != feature]
    named = [i for i in long if axis_groups(law.axes[i]) == {places.POSITION}]
    along = named if named else long
    if len(along) != 1 or len(law.axes[along[0]]) != 1:
        return law
    group = law.axes[along[0]][0].group
    laid = places.with_products(renamed(law, {group: places.POSITION}), np.moveaxis(array, along[0], 0), 1.0)
    return replace(law, latent=replace(law.latent, matrix=laid.latent.matrix))


def drop(node: Node, *inputs: Value) -> Law:
    """Dropout: kept with probability 1 - p and divided by it; the mean stays, the mean square grows by 1/(1-p)."""
    x = as_law(inputs[0])
    p = float(node.attrs["p"])
    if not node.attrs["active"] or p == 0 or node.shape == ():
        return x
    if p >= 1:
        return apply(np.zeros_like, x)
    if node.attrs.get("alpha"):
        return _alpha_dropped(x, p)
    law = replace(x, values=np.stack([_dropped(v, p) for v in x.values]))
    made = x.latent.source and replace(x.latent.source, keep=x.latent.source.keep * (1 - p))
    law = replace(law, latent=replace(latent_for(law, x.pair, law.groups), source=made, descent=x.latent.descent))
    if x.latent.spread:
        law = replace(law, latent=replace(law.latent, spread=of_sum(law, (x,)), reach=x.latent.reach))
    size = places.carried(x)
    return law if size is None else places.with_matrix(law, places.pair_matrix(x, size), size)


SATURATED = -1.7580993408473766
"""What alpha dropout puts in place of what it drops: -lambda alpha of SELU (Klambauer et al. 2017)."""


def alpha_scale(p: float) -> float:
    """The factor that keeps the variance of what has mean 0 and variance 1."""
    return float(((1 - p) * (1 + p * SATURATED**2)) ** -0.5)


def _alpha_dropped(x: Law, p: float) -> Law:
    """Dropped elements become a constant, then all go through a x + b, such that E[y | x] = (1 - p) a x."""
    a = alpha_scale(p)
    b = -a * SATURATED * p
    rows = []
    for v in x.values:
        kept, dropped = a * v + b, a * SATURATED + b
        samples = np.concatenate([kept, np.full(64, dropped)])
        weight = np.concatenate([grid.WEIGHT * (1 - p), np.full(64, p / 64)])
        mean = (1 - p) * grid.expectation(kept) + p * dropped
        second = (1 - p) * grid.expectation(kept**2) + p * dropped**2
        rows.append(matched(grid.quantile_grid(samples, weight), float(mean), float(second)))
    law = replace(x, values=np.stack(rows))
    return replace(law, latent=latent_for(law, lambda s: ((1 - p) * a) ** 2 * x.pair(s), law.groups))


def _dropped(values: np.ndarray, p: float) -> np.ndarray:
    """Monotone rearrangement of the mixture of zero (weight p) and x/(1-p) (weight 1-p)."""
    samples = np.concatenate([values / (1 - p), np.zeros(64)])
    weight = np.concatenate([grid.WEIGHT * (1 - p), np.full(64, p / 64)])
    mean, second = grid.expectation(values), grid.expectation(values**2) / (1 - p)
    return matched(grid.quantile_grid(samples, weight), float(mean), float(second))


def reshaped(law: Law, shape: tuple[int, ...]) -> Law:
    """The law under another shape of the same number of axes (a pointwise op does not move anything)."""
    return law if law.shape == shape else replace(law, shape=shape)
