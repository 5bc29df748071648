"""Rows of the table that sum over features: dense layers, convolutions, embeddings, matrix products, attention."""

from __future__ import annotations

import numpy as np
import torch

from fanin.frameworks.torch.arguments import Arguments, Built, Row
from fanin.frameworks.torch.chain import Chain
from fanin.graph import Kind


def _dense(a: Arguments) -> Built:
    return Kind.DENSE, {"x": a.at("input"), "weight": a.at("weight"), "bias": a.at("bias"), "out_first": True}


def _addmm(a: Arguments) -> Built:
    return Kind.DENSE, {"x": a.at("mat1"), "weight": a.at("mat2"), "bias": a.at("self"), "out_first": False}


def _conv(dims: int, transposed: bool = False) -> Row:
    def build(a: Arguments) -> Built:
        tuple_ = lambda v: tuple(v) if len(v) == dims else tuple(v) * dims  # noqa: E731
        stride, dilation = tuple_(a["stride"]), tuple_(a["dilation"])
        kernel = a.size("weight")[2:]
        padding = a["padding"]
        if isinstance(padding, str):
            total = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
            padding = [n // 2 for n in total]  # the odd one goes to the right, where the output says how far taps reach
        return Kind.CONV, {
            "x": a.at("input"),
            "weight": a.at("weight"),
            "bias": a.at("bias"),
            "stride": stride,
            "padding": tuple_(padding),
            "dilation": dilation,
            "groups": int(a["groups"]),
            "transposed": transposed,
            "input_size": a.size("input")[2:],
        }

    return build


def _embedding(a: Arguments) -> Built:
    return Kind.EMBED, {"ids": a.at("indices"), "weight": a.at("weight"), "padding": int(a.get("padding_idx", -1))}


def _matmul(a: Arguments) -> Built:
    return Kind.MIX, {}


def _baddbmm(a: Arguments) -> Built:
    names = ("batch1", "batch2") if "batch1" in a._values else ("mat1", "mat2")
    return Kind.MIX, {
        "x": a.at(names[0]),
        "y": a.at(names[1]),
        "bias": a.at("self"),
        "alpha": float(a.get("alpha", 1)),
        "beta": float(a.get("beta", 1)),
    }


def _softmax(log: bool) -> Row:
    return lambda a: (Kind.SOFTMAX, {"axis": int(a["dim"]), "log": log})


def _attention(a: Arguments) -> Built:
    d = a.size("query")[-1]
    scale = a.get("scale")
    attrs = {
        "scale": float(scale) if scale is not None else d**-0.5,
        "causal": bool(a["is_causal"]),
        "dropout": float(a["dropout_p"]),
        "mask": a.at("attn_mask"),
    }
    operands = [a.given(name) for name in ("query", "key", "value")]
    return (Kind.ATTENTION, attrs) if len(set(operands)) == 3 else _of_one_tensor(a, attrs, operands)


def _of_one_tensor(a: Arguments, attrs: dict, operands: list[int]) -> Chain:
    """Attention whose queries, keys or values are one tensor: copies, since rules tell operands apart by position."""
    chain, inputs = Chain(a), []
    for x in operands:
        inputs.append(x if x not in inputs else chain.expand(x, chain.shapes[x]))
    if attrs["mask"] is not None:
        inputs.append(attrs["mask"])
        attrs = {**attrs, "mask": 3}

    def run(*arrays: np.ndarray) -> np.ndarray:
        q, k, v, *rest = (torch.from_numpy(np.array(array, order="C")) for array in arrays)
        mask, attend = rest[0] if rest else None, torch.nn.functional.scaled_dot_product_attention
        return attend(q, k, v, mask, is_causal=attrs["causal"], scale=attrs["scale"]).numpy()

    chain.add(Kind.ATTENTION, attrs, inputs, a.shape, run)
    return chain


def _grouped(a: Arguments) -> Built:
    names = list(a._values)
    return Kind.EXPERTS, {"x": a.at(names[0]), "weight": a.at(names[1]), "in_axis": 1}


WEIGHTED: dict[str, Row] = {
    "linear": _dense,
    "addmm": _addmm,
    **{f"conv{d}d": _conv(d) for d in (1, 2, 3)},
    **{f"conv_transpose{d}d": _conv(d, transposed=True) for d in (1, 2, 3)},
    "embedding": _embedding,
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot"), _matmul),
    "baddbmm": _baddbmm,
    **dict.fromkeys(("softmax", "_softmax", "_safe_softmax"), _softmax(False)),
    **dict.fromkeys(("log_softmax", "_log_softmax"), _softmax(True)),
    "scaled_dot_product_attention": _attention,
    **dict.fromkeys(("grouped_mm_fallback", "_grouped_mm"), _grouped),
}
"""A weight or another signal is what they are summed with."""
