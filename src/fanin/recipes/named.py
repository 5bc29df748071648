"""The recipes by name: a row each, and a short function where a scheme of the paper needs one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from fanin.distributions import DeltaOrthogonal, Distribution, Identity, Normal, Orthogonal, Uniform, Zeros
from fanin.recipes.adapters import lora
from fanin.recipes.critical import critical
from fanin.recipes.data import LEARNED, started
from fanin.recipes.deepscale import deepscale
from fanin.recipes.hadamard import hadamard
from fanin.recipes.heads import ppo, retinanet
from fanin.recipes.lsuv import lsuv
from fanin.recipes.plan import Entry
from fanin.recipes.recipe import DISTRIBUTIONS, IID, MODES, WEIGHTS, Made, Option, Recipe, Weight, Weights
from fanin.recipes.recurrent import lstm
from fanin.recipes.residual import fixup, gpt2, mup, skipinit
from fanin.recipes.shared import drawn, kept, sized
from fanin.recipes.transformer import deepnorm, t_fixup
from fanin.recipes.vision import vit
from fanin.schemes import MODES as FAN_OF
from fanin.schemes import variance_scaling

Rule = Callable[[Weight, Mapping[str, Any]], tuple[Distribution, str] | None]


def each(rule: Rule, table: Rule | None = None) -> Callable[[Weights, Mapping[str, Any]], Made]:
    """A recipe that looks at one weight at a time; look-up tables by ``table``."""

    def make(weights: Weights, options: Mapping[str, Any]) -> Made:
        entries: dict[str, Entry] = {}
        for weight in weights.by_name.values():
            found = None
            if weight.role in WEIGHTS:
                found = rule(weight, options)
            elif weight.role == "embedding":
                found = (table or _table)(weight, options)
            if found is not None:
                entries[weight.name] = drawn(weight.parameter, found[0], weight.fans, found[1])
        return entries, []

    return make


def _table(weight: Weight, options: Mapping[str, Any]) -> tuple[Distribution, str]:
    """A look-up table, of which schemes for sums say nothing."""
    if weight.parameter.tied:
        return Normal(0.02), "a look-up table that is also the head: 0.02"
    return Normal(1.0), "a look-up table: one row is read, so std 1 gives a signal of rms 1"


def _scaled(weight: Weight, scale: float, options: Mapping[str, Any], words: str) -> tuple[Distribution, str] | None:
    """Var = scale / fan by the mode of the options, in the distribution of the options."""
    if weight.fans is None:
        return None
    mode, kind = options.get("mode", "fan_in"), options.get("distribution", "normal")
    std = variance_scaling(weight.fans, scale=scale, mode=mode).std
    return sized(kind, std, weight.shape), f"{words}, {mode} {variance_fan(weight, mode):g}"


def variance_fan(weight: Weight, mode: str) -> float:
    """The fan of a mode."""
    assert weight.fans is not None
    return FAN_OF[mode](weight.fans)


def _he(weight: Weight, options: Mapping[str, Any]) -> tuple[Distribution, str] | None:
    slope = options["slope"]
    words = "He: Var = 2 / fan" if not slope else f"He: Var = 2 / ((1 + {slope:g}^2) fan)"
    return _scaled(weight, 2 / (1 + slope**2), options, words)


def _glorot(weight: Weight, options: Mapping[str, Any]) -> tuple[Distribution, str] | None:
    return _scaled(weight, options["gain"] ** 2, options, "Glorot: Var = gain^2 / fan")


def _lecun(weight: Weight, options: Mapping[str, Any]) -> tuple[Distribution, str] | None:
    return _scaled(weight, 1.0, options, "LeCun: Var = 1 / fan")


def _orthogonal(weight: Weight, options: Mapping[str, Any]) -> tuple[Distribution, str]:
    return Orthogonal(options["gain"]), f"orthonormal rows or columns times {options['gain']:g}"


def _delta_orthogonal(weight: Weight, options: Mapping[str, Any]) -> tuple[Distribution, str]:
    if len(weight.shape) < 3:
        return _orthogonal(weight, options)
    return DeltaOrthogonal(options["gain"]), "an orthonormal matrix at the central tap, zero elsewhere"


def _fixed(std: float) -> Rule:
    def rule(weight: Weight, options: Mapping[str, Any]) -> tuple[Distribution, str]:
        return sized(
            options.get("distribution", "normal"), options.get("std", std), weight.shape
        ), f"std {options.get('std', std):g}, whatever the fans"

    return rule


def _zero(weight: Weight, options: Mapping[str, Any]) -> tuple[Distribution, str]:
    return Zeros(), "zero"


def _torch_default(weights: Weights, options: Mapping[str, Any]) -> Made:
    """U[-1/sqrt(fan_in), 1/sqrt(fan_in)] for weights and their biases, N(0, 1) for tables."""
    entries: dict[str, Entry] = {}
    owner = {w.parameter.module: w for w in weights.by_name.values() if w.role in WEIGHTS and w.fans is not None}
    for weight in weights.by_name.values():
        fans = _torch_fan(weight, owner)
        if weight.role == "embedding":
            entries[weight.name] = drawn(weight.parameter, Normal(1.0), weight.fans, "torch draws tables from N(0, 1)")
        elif fans is not None:
            bound = 1 / math.sqrt(fans)
            words = f"torch's default: uniform within 1 / sqrt({fans:g})"
            entries[weight.name] = drawn(weight.parameter, Uniform(bound / math.sqrt(3)), weight.fans, words)
    return entries, []


def _torch_fan(weight: Weight, owner: Mapping[str, Weight]) -> float | None:
    """What torch calls fan_in: elements of a slice along the first axis; hidden size for recurrent layers."""
    holder = weight if weight.role in WEIGHTS else owner.get(weight.parameter.module) if weight.role == "bias" else None
    if holder is None or len(holder.shape) < 2:
        return None
    if holder.role == "recurrent" and holder.fans is not None:
        return holder.fans.fan_out
    return math.prod(holder.shape[1:])


def _keras_table(weight: Weight, options: Mapping[str, Any]) -> tuple[Distribution, str]:
    return Uniform(0.05 / math.sqrt(3)), "Keras draws tables from U(-0.05, 0.05)"


def _keras_default(weight: Weight, options: Mapping[str, Any]) -> tuple[Distribution, str] | None:
    return _scaled(weight, 1.0, {"mode": "fan_avg", "distribution": "uniform"}, "Keras' default: Glorot uniform")


def _auto(weights: Weights, options: Mapping[str, Any]) -> Made:
    from fanin.recipes.auto import auto

    assert weights.structure is not None
    entries, notes = auto(weights.structure, options)
    for weight in weights.by_name.values():
        if weight.name in entries or weight.role not in (*WEIGHTS, "embedding"):
            continue
        entries[weight.name] = _unreached(weight, options)
    return entries, notes


def _unreached(weight: Weight, options: Mapping[str, Any]) -> Entry:
    """Weights that the graph does not show at work: inside an operation without a rule, or not on this batch's way."""
    where = "this batch does not reach it" if weight.unused else "it works inside an operation that is not modelled"
    if weight.role == "embedding":
        return drawn(weight.parameter, Normal(0.02), weight.fans, f"a look-up table, 0.02; {where}")
    if weight.fans is None:
        return kept(weight.parameter, f"{where} and its fans are not known")
    kind = options["distribution"]
    law = sized("normal" if kind == "auto" else kind, 1 / math.sqrt(weight.fans.fan_in), weight.shape)
    return drawn(weight.parameter, law, weight.fans, f"1 / sqrt(fan_in); {where}")


def _dcgan(weights: Weights, options: Mapping[str, Any]) -> Made:
    """N(0, 0.02) for weights, N(1, 0.02) for the scales of norms."""
    entries, notes = each(_fixed(0.02), _fixed(0.02))(weights, options)
    for weight in weights.by_name.values():
        if weight.role == "norm_weight":
            law = Normal(options["std"], mean=1.0)
            entries[weight.name] = drawn(weight.parameter, law, None, "DCGAN: the scale of a norm, around one")
    return entries, notes


def _siren(weights: Weights, options: Mapping[str, Any]) -> Made:
    """First layers U(-1/n, 1/n), all others U(-sqrt(6/n) / omega, sqrt(6/n) / omega)."""
    structure = weights.structure
    assert structure is not None
    first = {n.id for n in structure.weighted if not any(structure.depends(n.id, w.id) for w in structure.weighted)}
    entries = {}
    for weight in weights.by_name.values():
        if weight.role not in WEIGHTS or weight.fans is None:
            continue
        n, omega = weight.fans.fan_in, options["omega"]
        early = bool(weight.uses) and weight.uses[0].node.id in first
        bound = 1 / n if early else math.sqrt(6 / n) / omega
        words = (
            f"SIREN, first layer: uniform within 1 / {n:g}"
            if early
            else f"SIREN: uniform within sqrt(6 / {n:g}) / {omega:g}"
        )
        entries[weight.name] = drawn(weight.parameter, Uniform(bound / math.sqrt(3)), weight.fans, words)
    return entries, []


def _identity(weight: Weight, options: Mapping[str, Any]) -> tuple[Distribution, str]:
    return Identity(options["gain"]), f"{options['gain']:g} on the diagonal (of the central tap), zero elsewhere"


_distribution = Option("normal", DISTRIBUTIONS)
_mode = Option("fan_in", MODES)
_gain = Option(1.0, low=0.0)
_slope = Option(0.0)

ROWS: list[Recipe] = [
    Recipe(
        "auto",
        _auto,
        "the theory of this package",
        {
            "distribution": Option("auto", ("auto", *DISTRIBUTIONS)),
            "balance": Option("forward", ("forward", "backward", "both")),
            "head": Option("auto", low=0.0),
        },
        needs_batch=True,
    ),
    Recipe("torch_default", _torch_default, "torch.nn: reset_parameters of Linear, Conv and recurrent layers"),
    Recipe("keras_default", each(_keras_default, _keras_table), "Keras 3: glorot_uniform, zero biases"),
    Recipe(
        "glorot",
        each(_glorot),
        "Glorot & Bengio 2010, PMLR 9:249-256, eq. 12 and 16",
        {"distribution": _distribution, "mode": Option("fan_avg", MODES), "gain": _gain},
    ),
    Recipe(
        "he",
        each(_he),
        "He et al. 2015, arXiv:1502.01852, eq. 10, 14, 15",
        {"distribution": _distribution, "mode": _mode, "slope": _slope},
    ),
    Recipe(
        "lecun",
        each(_lecun),
        "LeCun et al. 1998, Efficient BackProp, doi:10.1007/3-540-49430-8_2",
        {"distribution": _distribution, "mode": _mode},
    ),
    Recipe(
        "selu",
        each(_lecun),
        "Klambauer et al. 2017, Self-normalizing neural networks, arXiv:1706.02515",
        {"distribution": Option("normal", IID)},
    ),
    Recipe("orthogonal", each(_orthogonal), "Saxe, McClelland & Ganguli 2013, arXiv:1312.6120", {"gain": _gain}),
    Recipe("delta_orthogonal", each(_delta_orthogonal), "Xiao et al. 2018, arXiv:1806.05393", {"gain": _gain}),
    Recipe(
        "critical",
        critical,
        "Schoenholz et al. 2017, Deep information propagation, arXiv:1611.01232; Poole et al. 2016, arXiv:1606.05340",
        {"distribution": _distribution, "bias": Option(0.05, low=0.0)},
        needs_batch=True,
    ),
    Recipe("identity", each(_identity), "Le, Jaitly & Hinton 2015, arXiv:1504.00941", {"gain": _gain}),
    Recipe(
        "fixed",
        each(_fixed(0.02), _fixed(0.02)),
        "one std for every weight: AlexNet's 0.01, BERT's and ViT's 0.02",
        {"distribution": Option("normal", IID), "std": Option(0.02, low=0.0)},
    ),
    Recipe(
        "gpt2",
        gpt2,
        "Radford et al. 2019, Language models are unsupervised multitask learners, section 2.3",
        {"distribution": Option("normal", IID), "std": Option(0.02, low=0.0)},
        needs_batch=True,
    ),
    Recipe(
        "vit",
        vit,
        "Dosovitskiy et al. 2020, arXiv:2010.11929; timm: init_weights_vit_timm and init_weights_vit_jax",
        {"style": Option("timm", ("timm", "jax"))},
        needs_batch=True,
    ),
    Recipe("dcgan", _dcgan, "Radford, Metz & Chintala 2015, arXiv:1511.06434", {"std": Option(0.02, low=0.0)}),
    Recipe(
        "siren",
        _siren,
        "Sitzmann et al. 2020, Implicit neural representations with periodic activations, arXiv:2006.09661",
        {"omega": Option(30.0, low=0.0)},
        needs_batch=True,
    ),
    Recipe("fixup", fixup, "Zhang, Dauphin & Ma 2019, Fixup initialization, arXiv:1901.09321", needs_batch=True),
    Recipe(
        "skipinit",
        skipinit,
        "De & Smith 2020, arXiv:2002.10444; ReZero: Bachlechner et al. 2020, arXiv:2003.04887",
        needs_batch=True,
    ),
    Recipe(
        "t_fixup",
        t_fixup,
        "Huang et al. 2020, Improving transformer optimization through better initialization, PMLR 119:4475-4483",
        {"distribution": Option("normal", IID)},
        needs_batch=True,
    ),
    Recipe(
        "deepnorm",
        deepnorm,
        "Wang et al. 2022, DeepNet: Scaling transformers to 1,000 layers, arXiv:2203.00555",
        {"distribution": Option("normal", IID)},
        needs_batch=True,
    ),
    Recipe(
        "deepscale",
        deepscale,
        "Kedia et al. 2024, Transformers get stable, arXiv:2403.09635, section 4",
        {"distribution": Option("normal", IID), "correlation": Option(0.221, low=0.0, high=1.0)},
        needs_batch=True,
    ),
    Recipe(
        "mup",
        mup,
        "Yang et al. 2022, Tensor Programs V, arXiv:2203.03466; depth: Yang et al. 2023, arXiv:2310.02244",
        {"depth": Option(False)},
        needs_batch=True,
    ),
    Recipe(
        "hadamard",
        hadamard,
        "ZerO: Zhao, Schaefer & Anandkumar 2021, ZerO initialization, arXiv:2110.12661, algorithms 1 and 2",
        needs_batch=True,
    ),
    Recipe(
        "lsuv",
        lsuv,
        "Mishkin & Matas 2015, All you need is a good init, arXiv:1511.06422; in one pass",
        {"std": Option(1.0, low=0.0)},
        needs_batch=True,
    ),
    Recipe(
        "lstm",
        lstm,
        "Jozefowicz et al. 2015, PMLR 37:2342-2350; Saxe et al. 2013, arXiv:1312.6120",
        {"distribution": Option("uniform", IID), "forget": Option(1.0)},
    ),
    Recipe(
        "ppo",
        ppo,
        "Huang et al. 2022, The 37 implementation details of proximal policy optimization; arXiv:2006.05990",
        {"policy": Option(0.01, low=0.0)},
        needs_batch=True,
    ),
    Recipe(
        "retinanet",
        retinanet,
        "Lin et al. 2017, Focal loss for dense object detection, arXiv:1708.02002, section 4.1",
        {"prior": Option(0.01, low=0.0, high=1.0), "std": Option(0.01, low=0.0)},
        needs_batch=True,
    ),
    Recipe("lora", lora, "Hu et al. 2021, LoRA, arXiv:2106.09685, section 4.1", needs_batch=True),
    Recipe(
        "gradinit",
        started,
        "Zhu et al. 2021, GradInit, arXiv:2102.08098, algorithm 1",
        LEARNED["gradinit"],
    ),
    Recipe(
        "metainit",
        started,
        "Dauphin & Schoenholz 2019, MetaInit, NeurIPS 32, algorithm 1",
        LEARNED["metainit"],
    ),
    Recipe("zero", each(_zero, _zero), "every weight zero: for the last layer of a branch or a head"),
]

RECIPES: dict[str, Recipe] = {row.name: row for row in ROWS}
