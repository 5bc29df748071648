"""einsum and the bilinear layer as chains around one matrix product."""

from __future__ import annotations

import math

import numpy as np

from fanin.frameworks.torch.arguments import Arguments
from fanin.frameworks.torch.chain import Chain, Shape
from fanin.graph import Kind


def einsum(a: Arguments) -> Chain:
    """Two operands as one matrix product: axes that are kept by both, contracted, and of either alone."""
    chain = Chain(a)
    handles = [a.refs.index(t.id) for t in a["tensors"]]
    terms, result = _letters(a["equation"], [chain.shapes[h] for h in handles])
    if any(len(set(t)) != len(t) for t in terms):
        raise TypeError("a diagonal")
    if len(terms) == 1 and set(terms[0]) == set(result):
        chain.permute(handles[0], [terms[0].index(c) for c in result])
        return chain
    if len(terms) != 2:
        raise TypeError(f"{len(terms)} operands")
    both = set(terms[0]) & set(terms[1])
    lone = set(terms[0]) ^ set(terms[1])
    if lone - set(result):
        raise TypeError("an axis of one operand is summed by itself")
    size = {c: n for t, h in zip(terms, handles, strict=True) for c, n in zip(t, chain.shapes[h], strict=True)}
    batch = [c for c in result if c in both]
    inner = [c for c in terms[0] if c in both and c not in result]
    if not batch and a.refs[handles[0]] in a.weights and a.refs[handles[1]] not in a.weights:
        terms, handles = terms[::-1], handles[::-1]
    free = [[c for c in t if c not in both] for t in terms]
    product = lambda letters: math.prod(size[c] for c in letters)  # noqa: E731
    whole = not batch and a.refs[handles[1]] in a.weights  # a dense layer: any number of axes before the last
    x = chain.permute(handles[0], [terms[0].index(c) for c in (*batch, *free[0], *inner)])
    rows = [size[c] for c in free[0]] if whole else [product(free[0])]
    x = chain.reshape(x, (*[size[c] for c in batch], *rows, product(inner)))
    y = chain.permute(handles[1], [terms[1].index(c) for c in (*batch, *inner, *free[1])])
    y = chain.reshape(y, (*[size[c] for c in batch], product(inner), product(free[1])))
    shape = (*chain.shapes[x][:-1], product(free[1]))
    out = chain.add(Kind.MIX, {}, [x, y], shape, np.matmul)
    letters = [*batch, *free[0], *free[1]]
    out = chain.reshape(out, tuple(size[c] for c in letters))
    chain.permute(out, [letters.index(c) for c in result])
    return chain


def bilinear(a: Arguments) -> Chain:
    """x_i W_kij y_j + b_k: the outer product of the inputs, flattened, under a dense layer."""
    chain = Chain(a)
    x, y, weight = a.given("input1"), a.given("input2"), a.given("weight")
    out, first, second = chain.shapes[weight]
    places = chain.shapes[x][:-1]
    x = chain.reshape(x, (*places, first, 1))
    y = chain.reshape(y, (*places, 1, second))
    both = chain.add(Kind.PRODUCT, {}, [x, y], (*places, first, second), np.multiply)
    both = chain.reshape(both, (*places, first * second))
    matrix = chain.reshape(chain.permute(weight, (1, 2, 0)), (first * second, out))
    made = chain.add(Kind.MIX, {}, [both, matrix], (*places, out), np.matmul)
    if a.get("bias") is not None:
        chain.add(Kind.SUM, {}, [made, a.given("bias")], (*places, out), np.add)
    return chain


def _letters(equation: str, shapes: list[Shape]) -> tuple[list[list[str]], list[str]]:
    """Letters of every operand and of the result; an ellipsis becomes capital letters that are not used."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    spare = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in equation]
    terms, most = [], 0
    for term, shape in zip(left.split(","), shapes, strict=True):
        dots = len(shape) - len(term.replace("...", ""))
        most = max(most, dots if "..." in term else 0)
        head, mark, tail = term.partition("...")
        terms.append([*head, *(spare[:dots][::-1] if mark else []), *tail])
    if arrow:
        head, mark, tail = right.partition("...")
        return terms, [*head, *(spare[:most][::-1] if mark else []), *tail]
    every = [c for t in terms for c in t]
    return terms, [*spare[:most][::-1], *sorted(c for c in set(every) if every.count(c) == 1 and c not in spare)]
