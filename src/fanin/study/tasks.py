"""Tasks of the built-in studies that are no plain pair of a built-in model and data, each a factory.

``factory = "fanin.study.tasks:NAME"``. Each returns ``(model, train, test, loss)``, as a user's factory does.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from fanin.study.data.arguments import check_count
from fanin.study.data.draws import generator

LOGITS = 3.0
"""Standard deviation of normalized logits: ten classes can be told apart down to a loss of .0004."""


def sparse(
    *, active: int = 1, features: int = 64, outputs: int = 10, train: int = 2_000, test: int = 1_000, **levels: Any
) -> tuple:
    """Inputs of which ``active`` features are not zero, for a dense network.

    Features are drawn at random, with random signs and of mean square 1: a pre-activation of the first layer is a sum
    of ``active`` weights. The class is the largest of ``outputs`` random linear scores, whatever the sparsity.

    Args:
        levels: keywords of the dense network.

    Example:
        >>> model, (x, y), test, loss = sparse(active=4, train=8, test=4, width=8)
        >>> x.shape, (x != 0).sum(1).unique().tolist(), x.square().mean().item()
        (torch.Size([8, 64]), [4], 1.0)
    """
    import torch

    from fanin.frameworks.torch.training import MODELS
    from fanin.frameworks.torch.training.problem import cross_entropy

    check_count("active", active, 1, features)
    scores = generator(0, "sparse", "scores").standard_normal((features, outputs))
    rng = generator(0, "sparse", "samples", active)

    def draw(count: int) -> tuple:
        on = np.argsort(rng.random((count, features)), axis=1) < active
        inputs = on * rng.choice([-1.0, 1.0], (count, features)) * (features / active) ** 0.5
        return torch.from_numpy(inputs.astype(np.float32)), torch.from_numpy((inputs @ scores).argmax(1))

    return MODELS["dense"]((features,), outputs, **levels), draw(train), draw(test), cross_entropy


def normalized(*, depth: int = 4, width: int = 64, activation: str = "relu", norm: str = "batch") -> tuple:
    """Digits and a dense network in which BatchNorm, without parameters of its own, follows every matrix, the last one
    too: nothing depends on the scale of any weight.

    Args:
        norm: "batch".
    """
    from torch import nn

    from fanin.errors import StudyError
    from fanin.frameworks.torch.training.models.parts import activation as named
    from fanin.frameworks.torch.training.problem import cross_entropy

    if norm != "batch":
        raise StudyError(f"norm {norm!r} of the normalized task", remedy="batch")
    train, test, classes = _digits()
    sizes = [64, *[width] * depth, classes]
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out, bias=False), nn.BatchNorm1d(fan_out, affine=False), named(activation)]
    return nn.Sequential(*layers[:-1]), train, test, lambda out, target: cross_entropy(LOGITS * out, target)


def _digits() -> tuple:
    import torch

    from fanin.study.data import DATASETS

    data = DATASETS["digits"]()
    train, test = (data.inputs, data.targets), (data.test_inputs, data.test_targets)
    return *(tuple(map(torch.from_numpy, pair)) for pair in (train, test)), data.classes


def stages(
    *, depth: int = 14, width: int = 8, activation: str = "prelu", side: int = 32, train: int = 8_000, test: int = 1_000
) -> tuple:
    """Patches of photographs and a network in the shape of He et al. 2015, table 1: a convolution 7 x 7 of stride 2,
    four of 3 x 3, ``depth - 8`` of 3 x 3 with twice the channels, with a maximum pool after each stage, and three dense
    layers. The slopes of PReLU belong to ``depth - 1`` layers.

    Example:
        >>> from torch import nn
        >>> model, train, test, loss = stages(train=8, test=4)
        >>> sum(isinstance(part, nn.PReLU) for part in model.modules()), tuple(model(train[0]).shape)
        (13, (8, 8))
    """
    import torch
    from torch import nn

    from fanin.frameworks.torch.training.models.parts import activation as named
    from fanin.frameworks.torch.training.problem import cross_entropy
    from fanin.study.data import DATASETS

    check_count("depth", depth, 9)
    data = DATASETS["patches"](side=side, train=train, test=test)
    layers: list[nn.Module] = [nn.Conv2d(data.shape[0], width, 7, 2, 3), named(activation), nn.MaxPool2d(2)]
    channels = width
    for count, wide in ((4, 2 * width), (depth - 8, 4 * width)):
        for _ in range(count):
            layers += [nn.Conv2d(channels, wide, 3, 1, 1), named(activation)]
            channels = wide
        layers.append(nn.MaxPool2d(2))
    layers.append(nn.Flatten())
    flat = channels * (side // 16) ** 2
    for fan_in in (flat, channels):
        layers += [nn.Linear(fan_in, channels), named(activation)]
    pairs = ((data.inputs, data.targets), (data.test_inputs, data.test_targets))
    train_set, test_set = (tuple(map(torch.from_numpy, pair)) for pair in pairs)
    return nn.Sequential(*layers, nn.Linear(channels, data.outputs)), train_set, test_set, cross_entropy
