"""Points that move inside an SVG file: no script, three rounds, and then they rest at their end.

Animation is CSS, so the picture moves wherever an image may: in a notebook, on GitHub, on a page. A
reader whose system asks for less motion, and a viewer that knows no CSS, sees the end alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ROUND = 7  # seconds


@dataclass(frozen=True)
class Movement:
    """Points of `ax` that go through `stops`; `waits` says when, in per cent of a round.

    They leave stop k at the first number of waits[k] and are at stop k + 1 at its second one.
    """

    ax: Axes
    stops: Float[np.ndarray, "stops n 2"]
    waits: Sequence[tuple[int, int]]
    colours: Sequence[str]
    radius: float = 1.5


def svg_points(movement: Movement, fig: Figure) -> Float[np.ndarray, "stops n 2"]:
    """The stops in the units of the file: points, from the upper left."""
    stops = movement.stops
    pixels = movement.ax.transData.transform(stops.reshape(-1, 2)).reshape(stops.shape)
    return np.array([0, fig.bbox.height * 72 / fig.dpi]) + pixels * 72 / fig.dpi * [1, -1]


def keyframes(name: str, waits: Sequence[tuple[int, int]]) -> str:
    """Stop k is the shift --k from the end; the last stop is no shift."""
    frames, since = [], 0
    for stop, (leave, arrive) in enumerate(waits):
        frames.append(f"{since}%,{leave}% {{transform:translate(var(--s{stop}))}}")
        since = arrive
    frames.append(f"{since}%,100% {{transform:none}}")
    return f"@keyframes {name} {{{' '.join(frames)}}}"


def animated(svg: str, fig: Figure, movements: Sequence[Movement]) -> str:
    """The SVG text of `fig`, as it was just saved, with the moving points on top."""
    css = ["@media (prefers-reduced-motion: reduce) {circle {animation: none !important}}"]
    circles = []
    for k, movement in enumerate(movements):
        points = svg_points(movement, fig)
        css.append(keyframes(f"m{k}", movement.waits))
        css.append(f".m{k} {{animation: m{k} {ROUND}s ease-in-out 3 both}}")
        shifts = points[:-1] - points[-1]
        for i, (x, y) in enumerate(points[-1]):
            way = ";".join(
                f"--s{j}:{dx:.1f}px,{dy:.1f}px" for j, (dx, dy) in enumerate(shifts[:, i])
            )
            circles.append(
                f'<circle class="m{k}" cx="{x:.1f}" cy="{y:.1f}" r="{movement.radius}" '
                f'fill="{movement.colours[i]}" fill-opacity=".8" style="{way}"/>'
            )
    head, tail = svg.rsplit("</svg>", 1)
    return "\n".join([head, f"<style>{' '.join(css)}</style>", *circles, "</svg>"]) + tail
