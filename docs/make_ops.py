"""Write docs/ops.md: what the theory makes of every PyTorch operation.

    python docs/make_ops.py

The operations are the rows of ``fanin.frameworks.torch.ops.TABLE``; what is said of a kind stands below, with the
tolerance that its test allows beside four standard errors.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fanin.frameworks.torch.convert import MULTIPLE
from fanin.frameworks.torch.ops import SPLITS, TABLE
from fanin.graph import Kind
from fanin.theory.engine import RULES

PAGE = Path(__file__).with_name("ops.md")

BUILDERS = {  # function that builds the row -> kind
    "pointwise": Kind.POINTWISE, "_sum": Kind.SUM, "_product": Kind.PRODUCT,
    "_dense": Kind.DENSE, "_addmm": Kind.DENSE, "_conv": Kind.CONV, "_embedding": Kind.EMBED, "_layer_norm": Kind.NORM,
    "_rms_norm": Kind.NORM, "_batch_norm": Kind.NORM, "_instance_norm": Kind.NORM, "_group_norm": Kind.NORM,
    "_softmax": Kind.SOFTMAX, "_attention": Kind.ATTENTION, "_dropout": Kind.DROP, "_pool": Kind.POOL,
    "_adaptive": Kind.POOL, "_reduce": Kind.REDUCE, "_matmul": Kind.MIX, "_baddbmm": Kind.MIX, "_how": Kind.MOVE,
    "_permute": Kind.MOVE, "_transpose": Kind.MOVE, "_slice": Kind.MOVE, "_narrow": Kind.MOVE, "_select": Kind.MOVE,
    "_cat": Kind.MOVE, "_pad": Kind.MOVE, "_flip": Kind.MOVE, "_roll": Kind.MOVE, "_index": Kind.MOVE,
    "_index_select": Kind.MOVE, "_topk": Kind.ROUTE, "_sorted": Kind.ROUTE, "_grouped": Kind.EXPERTS,
    "_turned": Kind.MOVE, "_movedim": Kind.MOVE, "_gather": Kind.MOVE, "<lambda>": Kind.MOVE,
    "slice_scatter": Kind.MOVE, "select_scatter": Kind.MOVE, "index_put": Kind.MOVE, "along": Kind.MOVE,
    "scatter": Kind.MOVE, "scatter_add": Kind.MOVE, "scatter_reduce": Kind.MOVE, "bag": Kind.REDUCE,
    "masked_scatter": Kind.MOVE, "masked_fill": Kind.POINTWISE,
    "fill": Kind.CONSTANT,
    "_extreme": Kind.REDUCE, "_view": Kind.MOVE, "_uniform": Kind.CONSTANT,
    "_normal": Kind.CONSTANT, "_bernoulli": Kind.CONSTANT,
    "norm": Kind.REDUCE, "weight_norm": Kind.PRODUCT, "fold": Kind.MOVE, "channel_shuffle": Kind.MOVE,
    "joined": Kind.MOVE, "diagonal": Kind.MOVE, "outer": Kind.PRODUCT, "cosine_similarity": Kind.REDUCE,
    "fourier": Kind.REDUCE,
    # chains: the kind that counts
    "prelu": Kind.POINTWISE, "glu": Kind.PRODUCT, "triangle": Kind.PRODUCT, "logsumexp": Kind.REDUCE,
    "cumsum": Kind.REDUCE, "interpolation": Kind.REDUCE, "filled": Kind.CONSTANT, "copied": Kind.MOVE,
    "repeat": Kind.MOVE, "repeat_interleave": Kind.MOVE, "pixel_shuffle": Kind.MOVE, "pixel_unshuffle": Kind.MOVE,
    "_recurrent": Kind.RECUR, "im2col": Kind.MOVE, "windows": Kind.MOVE, "nearest": Kind.MOVE, "einsum": Kind.MIX,
    "bilinear": Kind.MIX, "every_pair": Kind.REDUCE, "each_pair": Kind.REDUCE, "loss": Kind.REDUCE,
    "gru": Kind.SUM, "lstm": Kind.SUM, "plain": Kind.POINTWISE, "packed_rows": Kind.MOVE, "strided": Kind.MOVE,
}  # fmt: skip

EXACT, APPROXIMATE, NONE = "exact", "approximate", "unmodelled"
CLAIMS: dict[Kind, tuple[str, str]] = {
    Kind.DENSE: (EXACT, "in the wide limit; weights with a mean within 1 %"),
    Kind.CONV: (EXACT, "in the wide limit, at every position"),
    Kind.EMBED: (EXACT, "repeated ids counted"),
    Kind.POINTWISE: (EXACT, "of one tensor, and of two; a comparison of two signals is taken as independent of both"),
    Kind.SUM: (EXACT, "on one latent; on two by quadrature"),
    Kind.PRODUCT: (EXACT, "on one latent; on two by quadrature"),
    Kind.NORM: (EXACT, "up to 1/s where s elements share a statistic; 1 % for groups of channels"),
    Kind.SOFTMAX: (APPROXIMATE, "weights as lognormal: 2 %"),
    Kind.ATTENTION: (APPROXIMATE, "logits as Gaussian: 2 %"),
    Kind.MIX: (APPROXIMATE, "with a weight exact; two signals taken as independent: 2 %; a tensor with itself 3 %"),
    Kind.POOL: (APPROXIMATE, "means exact; maxima by the mean correlation of neighbours: 1 %, overlapping patches 8 %"),
    Kind.REDUCE: (EXACT, "but for variances over few elements, which fluctuate by 2/n"),
    Kind.MOVE: (EXACT, "places and features are told apart by axis"),
    Kind.DROP: (EXACT, "plain and alpha dropout"),
    Kind.CONSTANT: (EXACT, "a constant, or the law of what is drawn"),
    Kind.EXPERTS: (APPROXIMATE, "every expert alike"),
    Kind.RECUR: (APPROXIMATE, "a population of units: 2 %"),
    Kind.ROUTE: (APPROXIMATE, "order statistics of independent entries; after a softmax 12 %"),
}
"""What is said of a kind, and its error: of the mean square, so twice that of the rms."""

SPECIAL = {
    **dict.fromkeys(
        ("zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full", "new_empty"),
        (EXACT, "a constant"),
    ),
    "logsumexp": (APPROXIMATE, "sums of exponentials as lognormal"),
    **dict.fromkeys(("fft_fft", "fft_fft2", "fft_fftn"), (APPROXIMATE, "the real part, as Gaussian: 2 %")),
    **dict.fromkeys(
        ("gru_cell", "lstm_cell/0", "lstm_cell/1", "rnn_tanh_cell", "rnn_relu_cell"),
        (APPROXIMATE, "what it is made of; gates as independent of the state: 5 % in a loop"),
    ),
    "cosine_similarity": (APPROXIMATE, "lengths as certain: 2 %"),
    **dict.fromkeys(("view_as_complex", "view_as_real", "real"), (EXACT, "rotations by known complex numbers")),
}
MISSING = {
    "prod", "cumprod", "median", "kthvalue", "masked_select",
    "grid_sampler", "cdist", "_euclidean_dist", "logcumsumexp", "fft_rfft2", "fft_irfft2", "stft", "linalg_qr",
    "linalg_solve", "linalg_inv", "deform_conv2d", "roi_align", "ctc_loss", "renorm",
}  # fmt: skip


def kind_of(row: Callable) -> Kind:
    """The kind that a row of the table builds."""
    name = row.__qualname__.split(".")[0]
    if name not in BUILDERS:
        raise SystemExit(f"docs/make_ops.py: say in BUILDERS what kind {name} builds")
    return BUILDERS[name]


def lines() -> list[str]:
    """The table, operations by name."""
    out = ["| operation | kind | prediction | remark |", "|---|---|---|---|"]
    for name in sorted({*TABLE, *SPLITS, *MULTIPLE}):
        kind = Kind.MOVE if name in SPLITS else kind_of(TABLE[MULTIPLE.get(name, (name,))[0]])
        claim, remark = SPECIAL.get(name) or (
            CLAIMS.get(kind, (NONE, "")) if kind in RULES else (NONE, "the kind has no rule")
        )
        out.append(f"| `{name}` | {kind} | {claim} | {remark} |")
    return out


def missing() -> list[str]:
    """Common operations that have no row."""
    return [name for name in sorted(MISSING) if name not in TABLE and name not in SPLITS and name not in MULTIPLE]


def page() -> str:
    """The whole page."""
    without = ", ".join(f"`{name}`" for name in missing())
    return "\n".join(
        [
            "# Operations",
            "",
            "<!-- written by docs/make_ops.py: do not edit -->",
            "What the [theory](theory.md) makes of every PyTorch operation. An operation without a row is shown as",
            "unmodelled where the signal passes through it, and so is all that depends on it; on masks, positions and",
            "other tensors that depend on no weight any operation is simply evaluated. An error is that of the mean",
            "square which the operation's test allows beside four standard errors; the rms has half of it.",
            "",
            *lines(),
            "",
            "## Without a row",
            "",
            f"Among the operations that models use: {without}.",
            "",
            "With `surrogate=True` (`--surrogate`) such an operation is run on samples of what the theory says its",
            "inputs are, and its row is marked; so is one whose rule does not cover the case at hand.",
            "",
        ]
    )


if __name__ == "__main__":
    PAGE.write_text(page())
