"""The look of the book: what a colour and a marker mean, and the figures that use them.

Colours are those of Okabe and Ito (*Color Universal Design*, 2008), which stay apart for readers
with any common kind of colour blindness. A thing keeps its colour in the whole book, and has a
marker or a line style of its own as a second cue.
"""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

GREY, BLUE, ORANGE, GREEN = "#7f7f7f", "#0072b2", "#e69f00", "#009e73"
PURPLE, VERMILLION, SKY, BLACK = "#cc79a7", "#d55e00", "#56b4e9", "#000000"

COLOURS = {
    "noise": GREY,
    "source": GREY,
    "data": BLUE,
    "target": BLUE,
    "flow": ORANGE,
    "velocity": ORANGE,
    "one-step": GREEN,
    "average": GREEN,
    "score": PURPLE,
    "error": VERMILLION,
    "reference": BLACK,
    "som": GREEN,  # SOM acts in one step
    "sac": SKY,
}

_SECOND_CUES = {  # per colour: marker, line style
    GREY: ("o", ":"),
    BLUE: ("s", "-"),
    ORANGE: ("^", "--"),
    GREEN: ("D", "-"),
    PURPLE: ("v", "-."),
    VERMILLION: ("X", (0, (1, 1))),
    SKY: ("P", "--"),
    BLACK: ("x", "-"),
}
MARKERS = {kind: _SECOND_CUES[colour][0] for kind, colour in COLOURS.items()}
LINES = {kind: _SECOND_CUES[colour][1] for kind, colour in COLOURS.items()}

# Pale shades of the target's blue: a density to draw arrows and particles on.
BACKDROP = LinearSegmentedColormap.from_list("backdrop", ["#eaf3f9", "#7fb4d6"])
SHADE = "#d3e6f2"  # ground that is forbidden, under everything else


def of_kind(table: dict[str, Any], kind: str, name: str = "kind") -> Any:
    """Look `kind` up in COLOURS, MARKERS or LINES; ValueError names the kinds there are."""
    if kind not in table:
        raise ValueError(f"{name} must be one of {', '.join(table)}, got {kind!r}")
    return table[kind]


def figure(width=5.0, height=4.0, ncols=1, nrows=1):
    """Return (figure, axes) on an Agg canvas: one Axes, or an array as `Figure.subplots` gives it.

    `width` and `height` are inches, 100 pixels each. The figure is unknown to pyplot: nothing shows
    it twice and nothing has to be closed. The layout adapts itself until `freeze` (or Explorer).
    """
    fig = Figure(figsize=(width, height), dpi=100, facecolor="white", layout="compressed")
    FigureCanvasAgg(fig)
    axes = fig.subplots(nrows, ncols)
    for ax in fig.axes:
        ax.spines[["top", "right"]].set_visible(False)
    return fig, axes


def freeze(fig: Figure) -> None:
    """Lay `fig` out once and keep that layout, so that no later drawing moves an axis."""
    fig.draw_without_rendering()
    fig.set_layout_engine("none")


def plane(ax: Axes, limit=3.0) -> Axes:
    """Make `ax` the plane [-limit, limit]^2 of the book: equal aspect, fixed limits, no grid."""
    ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", autoscale_on=False)
    ax.set_xticks([-limit, 0.0, limit])
    ax.set_yticks([-limit, 0.0, limit])
    ax.spines[:].set(visible=True, color="#b0b0b0")
    ax.tick_params(color="#b0b0b0")
    ax.grid(False)
    return ax
