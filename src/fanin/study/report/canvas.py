"""Where figures are drawn: sizes, type, and colours that a page may exchange for those of its theme."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fanin.errors import MissingDependency
from fanin.study.spec import Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = {"text": "#1c1e21", "muted": "#6b7178", "line": "#d4d7db", "grid": "#eceef0"}
"""Names of the page's style -> colours in a file."""
ARMS = ("#3b6fd4", "#d9711c", "#23824a", "#a24fc0", "#c62f2f", "#2a7f9e", "#8f6b00", "#d0508f")
ARMS_IN_THE_DARK = ("#7fa8f5", "#f0a05a", "#5ec487", "#c98be2", "#f07575", "#6cc1de", "#d8b040", "#f08fc0")
STATUS = {"stalled": "#b07c01", "diverged": "#c62f30", "failed": "#5b2a86"}
STATUS_IN_THE_DARK = {"stalled": "#e3b341", "diverged": "#f07575", "failed": "#b48ae0"}
DASHES = ("-", "--", ":")
PIXELS = 100
"""Of a page for an inch of a figure."""
TITLE = 117
"""Letters of titles beside each other in a row of panels."""


@dataclass(frozen=True)
class Drawing:
    """A figure with what is said of it.

    Attributes:
        name: of its file, and of its place in the page.
        title, text: above and below it.
        figure: matplotlib's.
    """

    name: str
    title: str
    text: str
    figure: Figure


def style_of(study: Study) -> dict[str, tuple[str, str]]:
    """Arm -> colour and dashes; the same in every figure."""
    return {arm.name: (ARMS[i % len(ARMS)], DASHES[i // len(ARMS) % len(DASHES)]) for i, arm in enumerate(study.arms)}


def new(width: float, height: float) -> Figure:
    """An empty figure, in inches. Errors: MissingDependency without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependency("figures need matplotlib", remedy='pip install "fanin[study]"') from None
    return Figure(figsize=(width, height), layout="constrained")


def panels(count: int, *, width: float = 11.5, height: float = 2.6, most: int = 4) -> tuple[Figure, list[Axes]]:
    """A figure of ``count`` panels in rows of at most ``most``, and their axes."""
    columns = min(most, count)
    rows = -(-count // columns)
    figure = new(width if count > 1 else min(width, 7.0), max(height * rows + 0.4, 2.2))
    grid = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for spare in grid[count:]:
        spare.remove()
    return figure, grid[:count]


def plain(axes: Axes) -> None:
    """Two spines, a light grid below the data, small ticks."""
    axes.set_axisbelow(True)
    axes.grid(color=INK["grid"], linewidth=0.8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(INK["line"])
    axes.tick_params(which="both", length=2.5, colors=INK["line"], labelcolor=INK["muted"])
    axes.patch.set_visible(False)


def titled(axes: Axes, *lines: str) -> None:
    """Lines above a panel, broken where they would run into the next one."""
    spec = axes.get_subplotspec()
    most = TITLE // (spec.get_gridspec().ncols if spec else 1)
    axes.set_title("\n".join(textwrap.fill(line, max(most, 20)) for line in lines if line), loc="left")


@contextmanager
def type_set(name: str) -> Iterator[None]:
    """matplotlib's settings for drawing and saving: own ones, whatever the user's are."""
    try:
        import matplotlib
    except ImportError:
        raise MissingDependency("figures need matplotlib", remedy='pip install "fanin[study]"') from None
    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "axes.titlesize": 9.5,
        "axes.titleweight": "bold",
        "axes.labelsize": 9,
        "axes.labelcolor": INK["muted"],
        "axes.titlecolor": INK["text"],
        "text.color": INK["text"],
        "legend.frameon": False,
        "figure.facecolor": "white",
        "axes.unicode_minus": True,
    }
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(settings)
        yield


def saved(drawing: Drawing, kind: str, *, dpi: int = 160) -> bytes:
    """The figure as a file of this kind, the same bytes for the same figure."""
    buffer = io.BytesIO()
    with type_set(drawing.name):
        metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
        drawing.figure.savefig(buffer, format=kind, dpi=dpi, metadata=metadata)
    return buffer.getvalue()


def inline(drawing: Drawing) -> str:
    """The figure as an element of the page, in the page's colours and type."""
    drawing.figure.patch.set_visible(False)
    text = saved(drawing, "svg").decode()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.S)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{drawing.name}-", text)
    text = text.replace("'DejaVu Sans'", "system-ui, 'DejaVu Sans', sans-serif")
    for name, color in _variables().items():
        text = text.replace(color, f"var({name})")
    pixels = round(PIXELS * drawing.figure.get_figwidth())
    head = re.sub(r'(width|height)="[\d.]+pt" ?', "", text[: (end := text.index(">"))])
    shown = f'{head} role="img" aria-label="{drawing.title}" style="width:100%;max-width:{pixels}px;height:auto"'
    return shown + text[end:]


def _variables() -> dict[str, str]:
    """Variable of the page's style -> the colour it replaces."""
    arms = {f"--arm{i}": color for i, color in enumerate(ARMS)}
    return {f"--{name}": color for name, color in INK.items()} | arms | {f"--{n}": c for n, c in STATUS.items()}


def style_sheet() -> str:
    """Both themes' values of the variables that figures bring along."""
    light = _variables() | {"--line": "var(--line)"}
    dark = {f"--arm{i}": c for i, c in enumerate(ARMS_IN_THE_DARK)} | {
        f"--{name}": c for name, c in STATUS_IN_THE_DARK.items()
    }
    own = {name: color for name, color in light.items() if name.startswith("--arm") or name[2:] in STATUS}
    rules = [(":root", own), ('html[data-theme="dark"]', dark)]
    return "\n".join(f"{where} {{ {' '.join(f'{n}: {c};' for n, c in rule.items())} }}" for where, rule in rules)


def ink_on(color: Any) -> str:
    """Black or white, whichever is read on a coloured cell."""
    red, green, blue = (float(part) for part in color[:3])
    return "#111111" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.55 else "#fafafa"
