"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from fanin.targets import Target, resolve

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

target = click.argument("target")
inputs = click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="SPEC",
    help='What the model takes, "float32[8,3,32,32]" or "input_ids:int64[2,16]"; may be repeated.',
)
seed = click.option("--seed", type=int, default=0, show_default=True, help="Seeds weights and made-up inputs.")
overrides = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="NAME=VALUE",
    help="A field of an hf: configuration or a keyword argument of a factory; may be repeated.",
)
small = click.option("--small", is_flag=True, help="Shrink an hf: configuration: fewer layers, narrower.")
recipe = click.option("--recipe", default="auto", show_default=True, help="How to choose the distributions.")
option = click.option(
    "--option",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    help="An option of the recipe, such as distribution=uniform or mode=fan_out; may be repeated.",
)


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """TARGET and how to build it."""
    for decorate in (small, overrides, seed, inputs, target):
        command = decorate(command)
    return command


def recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Which recipe, with which options."""
    return recipe(option(command))


def build(kind: dict[str, Any], *, meta: bool = False, need_batch: bool = True) -> Target:
    """The model of the options that `model_options` gave; takes them out of ``kind``."""
    names = ("inputs", "overrides", "small", "seed")
    return resolve(kind["target"], meta=meta, need_batch=need_batch, **{name: kind[name] for name in names})


def codes(text: str | None) -> list[str] | None:
    """``"FAN1,FAN203"`` -> a list; None stays None."""
    return [part.strip() for part in text.split(",") if part.strip()] if text else None
