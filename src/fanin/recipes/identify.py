"""What stored tensors were most likely drawn from: the law by likelihood, the scheme by its std, with p-values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fanin.distributions import Constant, Distribution, Normal, TruncatedNormal, distribution
from fanin.errors import ModelError
from fanin.recipes import blocks, marks
from fanin.recipes.candidates import Candidate, candidates
from fanin.recipes.fitting import fitted, scale_p, shape_p
from fanin.recipes.tensors import named_arrays

LEAST = 20  # elements below which nothing can be told
NATS = 4.0  # log-likelihood by which a law must be worse to be dropped
ALPHA = 0.005  # false alarms over the whole model; a lone tensor is named rightly in 99.5 of 100 draws


@dataclass(frozen=True)
class Guess:
    """What is known of one tensor.

    Attributes:
        name, shape, size: of the tensor.
        distribution: the law with its fitted scale; None where none fits.
        schemes: known schemes that fit, likely ones first; more than one where they cannot be told apart.
        p_value: of the best fit, before correction for the number of tensors.
        verdict: "fresh" (a known law), "constant", "not fresh" (no known law fits), "too few", "no values".
        note: what a reader should look at.
    """

    name: str
    shape: tuple[int, ...]
    distribution: Distribution | None
    schemes: tuple[str, ...] = ()
    p_value: float | None = None
    verdict: str = "fresh"
    note: str = ""

    @property
    def std(self) -> float | None:
        """Of the fitted law at this shape."""
        return None if self.distribution is None else self.distribution.moments(self.shape)[1]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        law = None if self.distribution is None else self.distribution.to_dict()
        return {
            "name": self.name,
            "shape": list(self.shape),
            "distribution": law,
            "std": self.std,
            "schemes": list(self.schemes),
            "p_value": self.p_value,
            "verdict": self.verdict,
            "note": self.note,
        }


@dataclass(frozen=True)
class Identification(Mapping[str, Guess]):
    """A Guess for every tensor, by name."""

    guesses: Mapping[str, Guess] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Guess:
        return self.guesses[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.guesses)

    def __len__(self) -> int:
        return len(self.guesses)

    @property
    def unlikely(self) -> list[Guess]:
        """Tensors with a note, and those that no known law explains."""
        return [g for g in self.guesses.values() if g.note or g.verdict == "not fresh"]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"tensors": [g.to_dict() for g in self.guesses.values()]}

    def __str__(self) -> str:
        lines: list[tuple[str, ...]] = [("tensor", "shape", "drawn from", "p", "as by")]
        for g in self.guesses.values():
            law = str(g.distribution) if g.distribution is not None else g.verdict
            p = "" if g.p_value is None else f"{g.p_value:.2g}"
            by = " or ".join(g.schemes) or ("" if g.verdict in ("constant", "too few") else "no known scheme")
            lines.append(
                (g.name, "×".join(map(str, g.shape)) or "scalar", law, p, "; ".join(filter(None, (by, g.note))))
            )
        widths = [max(len(line[i]) for line in lines) for i in range(4)]
        text = [
            "  ".join([*(c.ljust(w) for c, w in zip(line[:4], widths, strict=True)), line[4]]).rstrip()
            for line in lines
        ]
        return "\n".join(text)


def identify(source: Any) -> Identification:
    """For every tensor, the law and the scheme that it was most likely drawn by.

    Args:
        source: a torch module, a mapping of names to tensors or arrays, or the path of a safetensors file.

    A scheme is kept where neither its scale nor its shape is rejected, at a level corrected for the number of
    tensors. Where several are, the one that explains most tensors of the model comes first.

    Errors: ModelError where there are no values to look at; TargetError for a file that cannot be read.

    Example:
        >>> import torch, fanin
        >>> _ = torch.manual_seed(0)
        >>> fanin.identify(torch.nn.Linear(300, 100))["weight"].schemes
        ("torch's default, U(±1/sqrt(300))",)
    """
    found = [(name, shape, array) for name, shape, array in named_arrays(source, buffers=False)]
    if not found:
        raise ModelError("there are no floating-point tensors to identify", remedy="give a model or a state dict")
    if all(array is None for _, _, array in found):
        raise ModelError("the model is on the meta device: it has no values", remedy="load or draw its weights first")
    shapes = {name: shape for name, shape, _ in found}
    level = ALPHA / max(len(found), 1) / 2  # a tensor is tested twice: its scale, and the shape of its law
    fans = _module_fans(source)
    guesses = {name: _guess(name, array, shapes, fans.get(name), level) for name, _, array in found}
    return Identification(_marked(_agreed(guesses), found))


def _module_fans(source: Any) -> dict[str, Any]:
    """Fans by parameter of modules whose layout is known."""
    from fanin.axes import fans
    from fanin.errors import ArgumentError

    sizes: dict[str, Any] = {}
    for path, module in source.named_modules() if hasattr(source, "named_modules") else ():
        for leaf, tensor in module.named_parameters(recurse=False):
            if len(tensor.shape) >= 2:
                try:
                    sizes[f"{path}.{leaf}" if path else leaf] = fans(module, parameter=leaf)
                except ArgumentError:
                    continue
    return sizes


def _guess(
    name: str, array: np.ndarray | None, shapes: Mapping[str, tuple[int, ...]], fans: Any, level: float
) -> Guess:
    shape = shapes[name]
    if array is None or array.dtype.kind != "f":
        return Guess(name, shape, None, verdict="no values")
    values = np.asarray(array, np.float64)
    if not np.isfinite(values).all():
        share = 100 * (1 - np.isfinite(values).mean())
        return Guess(name, shape, None, verdict="not fresh", note=f"{share:.3g} % of its elements are not finite")
    values, note = _without_padding(values)
    if values.size and np.ptp(values) <= 1e-12 * max(abs(float(values.flat[0])), 1e-300):
        return Guess(name, shape, Constant(float(values.flat[0])), verdict="constant", note=note)
    if values.size < LEAST:
        return Guess(name, shape, None, verdict="too few", note=note)
    whole = blocks.matrix_law(values) or blocks.gated(values)
    if whole is not None:
        return Guess(name, shape, whole[0], (whole[1],), None, note=note)
    known, thin = candidates(name, shapes, fans), blocks.thinned(values)
    if thin is None:
        return _drawn(name, shape, values.ravel(), known, level, note)
    rest, share, words = thin
    if rest.size < LEAST:
        return Guess(name, shape, None, verdict="too few", note=_joined(note, f"{share:.3g} of it is zero"))
    odd = "" if words.startswith("sparse") else f"{100 * share:.3g} % of it is zero"
    guess = _drawn(name, shape, rest, known, level, _joined(note, odd))
    if not isinstance(guess.distribution, Normal):
        return guess
    return replace(guess, distribution=blocks.sparse(share, guess.distribution.std), schemes=(words, *guess.schemes))


def _without_padding(values: np.ndarray) -> tuple[np.ndarray, str]:
    """A table without the row that a padding index zeroed."""
    if values.ndim != 2 or values.shape[0] < 3:
        return values, ""
    empty = np.flatnonzero(~values.any(axis=1))
    if len(empty) != 1:
        return values, ""
    return np.delete(values, empty[0], axis=0), f"row {empty[0]} is zero, as a padding index leaves it"


def _drawn(
    name: str, shape: tuple[int, ...], values: np.ndarray, known: list[Candidate], level: float, note: str
) -> Guess:
    fits = fitted(values)
    best = max(likely for _, likely in fits)
    laws = {law.kind: law for law, likely in sorted(fits, key=lambda f: -f[1]) if likely > best - NATS}
    kept = _kept(values, [c for c in known if c.kind in laws and not c.rare], level)
    kept = kept or _kept(values, [c for c in known if c.kind in laws and c.rare], level)
    if kept:
        law = laws[kept[0][0].kind]
        note = _joined(note, marks.outliers(values, law, level))
        return Guess(name, shape, law, tuple(c.scheme for c, _ in kept), kept[0][1], "fresh", note)
    found = {kind: shape_p(values, law) for kind, law in laws.items()}
    kind = max(found, key=lambda k: found[k])
    if found[kind] < level:
        words = "no known law fits: trained, or changed"
        return Guess(name, shape, None, (), found[kind], "not fresh", _joined(note, words))
    return Guess(name, shape, laws[kind], (), found[kind], "fresh", _joined(note, marks.mistake(laws[kind], known)))


def _kept(values: np.ndarray, known: list[Candidate], level: float) -> list[tuple[Candidate, float]]:
    """Schemes that neither the scale nor the shape rejects, with the smaller p-value of the two, likely ones first."""
    scaled = [(c, scale_p(values, distribution(c.kind, c.std))) for c in known]
    shaped = [(c, p, shape_p(values, distribution(c.kind, c.std))) for c, p in scaled if p > level]
    return sorted(((c, min(p, q)) for c, p, q in shaped if q > level), key=lambda pair: -pair[1])


def _agreed(guesses: Mapping[str, Guess]) -> dict[str, Guess]:
    """The schemes of each tensor in the order of how many tensors they explain."""
    votes = Counter(_family(scheme) for g in guesses.values() for scheme in g.schemes)
    agreed = {}
    for name, guess in guesses.items():
        order = tuple(sorted(guess.schemes, key=lambda scheme: -votes[_family(scheme)]))
        agreed[name] = replace(guess, schemes=order, distribution=_law_of(order, guess))
    return agreed


def _law_of(schemes: tuple[str, ...], guess: Guess) -> Distribution | None:
    """The fitted law; normal or truncated as the first scheme has it, where both fit."""
    if not schemes or not isinstance(guess.distribution, Normal | TruncatedNormal):
        return guess.distribution
    kind = TruncatedNormal if "truncated" in schemes[0] else Normal
    return kind(guess.distribution.std, mean=guess.distribution.mean)


def _family(scheme: str) -> str:
    """A scheme without the numbers of one tensor."""
    return scheme.split(", U(")[0]


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _marked(guesses: dict[str, Guess], found: list) -> dict[str, Guess]:
    """With the notes that take more than one tensor to see."""
    plain = ("constant", "too few", "no values")
    same = marks.twins((n, shape, a) for n, shape, a in found if guesses[n].verdict not in plain)
    notes = {name: f"the same values as {other}" for name, other in same.items()}
    shapes = {name: shape for name, shape, _ in found}
    stds = {name: g.std if g.verdict == "fresh" else None for name, g in guesses.items()}
    for name, words in marks.unscaled(shapes, stds).items():
        notes[name] = _joined(notes.get(name, ""), words)
    return {n: replace(g, note=_joined(g.note, notes[n])) if n in notes else g for n, g in guesses.items()}
