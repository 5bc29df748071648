"""What is known of cotangents given a latent: how their size goes with it (see ``theory.given``).

The gradient of a state that forgets by ``a_t = exp(-dt_t)`` is largest where dt is small, and it meets dt again: in the
next rate, in the state it is multiplied by, and in dt's own gradient. A part remembers ``psi(c) = E[g^2 | c] / E[g^2]``
as laws do; a product with y has

    E[(g y)^2] = E[g^2] E[y^2] E[psi_g psi_y],    psi_gy = psi_g psi_y / E[psi_g psi_y],

and where a part comes to a function of that very latent, ``g f'(z)``, its size is part of what follows the latent:
``sqrt(E[psi(c) | z])``.
"""

from __future__ import annotations

import numpy as np

from fanin.theory import given
from fanin.theory.adjoint.cotangent import Cotangent, Part
from fanin.theory.adjoint.joint import joint, joint_with
from fanin.theory.given import Given, Key, Table
from fanin.theory.law import Law
from fanin.theory.records import replace

LEAST = 1e-3  # of a gain


def multiplied(part: Part, sent: list[Part], out: Law, x: Law, y: Law) -> list[Part]:
    """The parts that a product with y sends to x, with what g and y know of each other.

    Args:
        part: at the product.
        sent: what it became, before the sum over copies.
    """
    mine, theirs = _of(part, out), given.known(y)
    if not mine and not theirs:
        return sent
    of_x, of_y, of_out, share = joint(out, x, y)
    if len(of_x) > given.MANY * 4:
        return sent
    laid = {k: g.at(of_out) for k, g in mine.items()}, {k: g.at(of_y) for k, g in theirs.items()}
    gain, _, found = given.product(*laid, (np.zeros(len(of_x)), np.zeros(len(of_x))))
    weight = share * y.seconds[of_y] * gain
    shares = np.zeros((len(x.values), len(of_x)))
    shares[of_x, np.arange(len(of_x))] = weight
    shares /= np.maximum(shares.sum(1, keepdims=True), 1e-300)
    known = {k: g.mixed(shares) for k, g in found.items()}
    if np.all(np.abs(gain - 1) < LEAST):
        return [replace(p, given=known) for p in sent]
    more = _laid_out(gain, (of_x, of_y, of_out), out, x, y)
    return [replace(p, second=p.second * more, given=known) for p in sent]


def _of(part: Part, law: Law) -> dict[Key, Given]:
    """What a part knows, where it is of the law's levels."""
    return dict(part.given) if all(len(g.second) == len(law.values) for g in part.given.values()) else {}


def _laid_out(gain: np.ndarray, levels: tuple[np.ndarray, ...], out: Law, x: Law, y: Law) -> np.ndarray:
    """A number of each joint level at every place."""
    if np.ptp(gain) <= LEAST:
        return np.full((1,) * out.level.ndim, gain.mean())
    lay = lambda lv: lv.reshape((1,) * (out.level.ndim - lv.ndim) + lv.shape)  # noqa: E731
    of_x, of_y, of_out = levels
    code = (lay(x.level).astype(np.int64) * len(y.values) + lay(y.level)) * len(out.values) + out.level
    return gain[np.searchsorted((of_x * len(y.values) + of_y) * len(out.values) + of_out, code)]


def carried(part: Part, sent: list[Part], out: Law, x: Law) -> list[Part]:
    """The same through what leaves elements in proportion: sums, and factors that are known."""
    known = _of(part, out)
    if known and not len(out.values) == len(x.values) == 1:
        of_x, of_out, share = joint_with(out, x)
        shares = np.zeros((len(x.values), len(out.values)))
        np.add.at(shares, (of_x, of_out), share)
        known = {k: g.mixed(shares) for k, g in known.items()}
    return [replace(p, given=known) for p in sent]


def summed(part: Part, known: Table, x: Law, wide: Law) -> Part:
    """Behind the sum over an operand's copies: places are told apart by latents of its own alone."""
    if x.shape != wide.shape and known:
        own = {key[:2] for key in (*given.own(x), *given.stored(x))}
        known = {key: g for key, g in known.items() if key[:2] in own}
    return replace(part, given=known)


def follow(g: Cotangent) -> Cotangent:
    """The cotangent in front of a function of its tensor's latent: what it knows given that one follows it."""
    name = (g.law.latent.id, g.law.latent.feature_view)
    if not any(key[:2] == name for p in g.parts for key in p.given):
        return g
    return replace(g, parts=tuple(_following(p, g.law, name) for p in g.parts))


def _following(part: Part, law: Law, name: tuple) -> Part:
    values, rest = part.values, {}
    for key, g in _of(part, law).items():
        if key[:2] != name:
            rest[key] = g
            continue
        psi = g.smoothed.second if key[2] else g.second
        form = np.sqrt(np.maximum(given.unfolded(psi), 0.0))
        values = form if values is None else values * form
    return replace(part, values=values, given=rest)


def merged(law: Law, parts: list[Part], means: list[float]) -> dict[Key, Given]:
    """Of a sum of parts: the mean by their mean squares."""
    total = sum(means)
    if total <= 0 or not any(p.given for p in parts):
        return {}
    found: dict[Key, Given] = {}
    for key in dict.fromkeys(k for p in parts for k in _of(p, law)):
        one = next(p.given[key] for p in parts if key in p.given)
        second = sum(m * (p.given[key].second if key in p.given else 1.0) for m, p in zip(means, parts, strict=True))
        found[key] = replace(one, second=second / total, first=0 * one.first)
    return given.kept(found)


def moved(part: Part, out: Law, x: Law) -> Part:
    """Behind a move: the same where levels are, else their mean."""
    if not part.given:
        return part
    known = part.given
    if len(out.values) != len(x.values):
        shares = np.tile(out.level_weight, (len(x.values), 1))
        known = {k: g.mixed(shares) for k, g in _of(part, out).items()}
    return replace(part, given=known)
