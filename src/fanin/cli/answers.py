"""Commands that answer one question exactly: gain, fans, env."""

from __future__ import annotations

import math
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import click

import fanin
from fanin.cli.screen import say
from fanin.errors import ArgumentError

PACKAGES = ["numpy", "scipy", "torch", "transformers", "safetensors", "numba", "jax", "keras", "scikit-learn"]


@click.command(short_help="The gain of an activation.")
@click.argument("activation")
@click.option("--mode", type=click.Choice(["forward", "backward"]), default="forward", show_default=True)
@click.option("--std", type=float, default=1.0, show_default=True, help="Std of the pre-activation to keep.")
def gain(activation: str, mode: Literal["forward", "backward"], std: float) -> None:
    """Print the gain of an activation: Var(w) = gain^2 / fan keeps what --mode says.

    ACTIVATION is a name, such as relu, tanh, gelu or "leaky_relu(0.2)".
    """
    value = fanin.gain(activation, mode=mode, std=std)
    fan, kept = (
        ("fan_in", f"the pre-activation std {std:g}") if mode == "forward" else ("fan_out", "the gradient's std")
    )
    formula = "std / sqrt(E f(std z)^2)" if mode == "forward" else "1 / sqrt(E f'(std z)^2)"
    say(f"{value:.10g}")
    say(f"{activation}: weights of std {value:.4g} / sqrt({fan}) keep {kept}; gain = {formula}, z ~ N(0, 1)")


@click.command(short_help="fan_in and fan_out of a weight.")
@click.argument("shape")
@click.option("--layout", help="Axes of the weight: OIHW (torch), HWIO (Keras, JAX), IO, OI, ...")
@click.option("--groups", type=int, default=1, show_default=True)
@click.option("--transposed", is_flag=True, help="A transposed convolution.")
@click.option("--stride", help="Stride of the layer, such as 2 or 2,2.")
def fans(shape: str, layout: str | None, groups: int, transposed: bool, stride: str | None) -> None:
    """Print fan_in and fan_out of a weight of SHAPE, such as 5,5,3,8."""
    sizes = _sizes("SHAPE", shape)
    further: dict[str, Any] = {"stride": _stride(stride)} if stride else {}
    found = fanin.fans(sizes, layout=layout, groups=groups, transposed=transposed, **further)
    fan_in, fan_out = _number(found.fan_in), _number(found.fan_out)
    say(f"fan_in {fan_in}  fan_out {fan_out}")
    stds = {
        "he_normal": math.sqrt(2 / found.fan_in),
        "glorot_normal": math.sqrt(2 / (found.fan_in + found.fan_out)),
        "lecun_normal": math.sqrt(1 / found.fan_in),
    }
    weight = "×".join(map(str, sizes)) + (f" {layout}" if layout else " in torch's layout")
    listed = ", ".join(f"{name} {value:.4g}" for name, value in stds.items())
    say(f"{weight}: {fan_in} inputs feed one output, one input feeds {fan_out} outputs; std of {listed}")


@click.command(short_help="Versions and the machine.")
def env() -> None:
    """Print versions and the machine, for a bug report."""
    say(f"fanin {fanin.__version__}")
    say(f"python {platform.python_version()}")
    for package in PACKAGES:
        say(f"{package} {_version(package)}")
    from fanin.targets.memory import free_bytes

    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    say(f"{machine}, {free_bytes() / 2**30:.1f} GiB of memory free")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.6g}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _sizes(what: str, text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(part) for part in text.strip("()[] ").replace("x", ",").split(",") if part.strip())
    except ValueError as error:
        raise ArgumentError(f"{what} {text!r} is not a list of numbers", remedy="write 5,5,3,8") from error
    if not sizes:
        raise ArgumentError(f"{what} is empty", remedy="write 5,5,3,8")
    return sizes


def _stride(text: str) -> Any:
    sizes = _sizes("--stride", text)
    return sizes[0] if len(sizes) == 1 else sizes
