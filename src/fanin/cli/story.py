"""`fanin demo`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from fanin.cli.screen import color, remark, say, width, will_write


@click.command(short_help="A network that stalls, why, and how it is mended.")
@click.option("--html", type=click.Path(path_type=Path), default=Path("report.html"), show_default=True)
@click.option("--epochs", type=click.IntRange(1, 100), default=6, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def demo(html: Path, epochs: int, seed: int) -> None:
    """Show a 30-layer network on real data that stalls, why it does, and how it is mended. Takes about a minute."""
    will_write(html)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads stall on busy machines
    from fanin.demo import tell

    tell(html, epochs=epochs, seed=seed, say=say, remark=remark, width=width(), color=color())
