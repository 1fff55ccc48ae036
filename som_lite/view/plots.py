"""Small drawing functions: each draws one thing on given axes and returns its artist.

Callables take and return float32 tensors, as those of `som_lite.flow` do; arrays may be NumPy
arrays or tensors. The window is the axes' own, so call `plane(ax)` first.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap
from matplotlib.contour import ContourSet
from matplotlib.image import AxesImage
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.quiver import Quiver
from matplotlib.ticker import EngFormatter
from torch import Tensor

from som_lite.view.style import BACKDROP, COLOURS, LINES, MARKERS, of_kind


def as_array(x) -> np.ndarray:
    """A NumPy array from a tensor (any device, with or without gradient), an array or a list."""
    return x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)


def grid(ax: Axes, points: int) -> Float[Tensor, "points points 2"]:
    """The centres of points x points equal cells of the axes' window; row i has the i-th height."""
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    cells = (torch.arange(points) + 0.5) / points
    x, y = left + (right - left) * cells, low + (high - low) * cells
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def density_on(ax: Axes, log_prob: Callable, points: int = 120) -> np.ndarray:
    """exp(log_prob) at the cell centres of `grid(ax, points)`: what `density` shows."""
    values = log_prob(grid(ax, points).reshape(-1, 2))
    return np.exp(as_array(values)).reshape(points, points)


def density(
    ax: Axes, log_prob: Callable, points: int = 120, cmap: str | Colormap = "viridis"
) -> AxesImage:
    """Draw exp(log_prob) as an image; `log_prob` maps (n, 2) to (n,), up to a constant.

    Colours run from zero to the greatest value in the window. For another density on the same scale
    hand `density_on(...)` to the image's `set_data`.
    """
    values = density_on(ax, log_prob, points)
    window = (*ax.get_xlim(), *ax.get_ylim())
    image = ax.imshow(
        values, extent=window, origin="lower", cmap=cmap, vmin=0.0, interpolation="bilinear"
    )
    return image


def backdrop(ax: Axes, log_prob: Callable, levels: int = 6, points: int = 120) -> ContourSet:
    """Draw exp(log_prob) in a few flat pale shades, to put arrows and particles on.

    Flat shades keep the pictures of an explorer small and quick to send.
    """
    values = density_on(ax, log_prob, points)
    x, y = as_array(grid(ax, points)).T.swapaxes(1, 2)
    heights = np.linspace(0.2, 1.0, levels + 1) ** 2 * values.max()
    return ax.contourf(x, y, values, levels=heights, cmap=BACKDROP, zorder=0)


def field(
    ax: Axes, velocity, points: int = 15, kind: str = "flow", scale=None, width=0.006
) -> Quiver:
    """Draw velocities as arrows on a grid; returns the quiver (`set_UVC` moves it).

    `velocity` maps positions (n, 2) to (n, 2), or is an array (points, points, 2) on `grid(ax,
    points)`. An arrow is `scale` units of the plane long per unit of speed; by default the longest
    one spans one and a half cells. Give `scale` when the field changes, so that lengths stay
    comparable.
    """
    where = grid(ax, points)
    arrows = velocity(where.reshape(-1, 2)) if callable(velocity) else velocity
    arrows = as_array(arrows).reshape(points, points, 2)
    if scale is None:
        cell = (ax.get_xlim()[1] - ax.get_xlim()[0]) / points
        scale = 1.5 * cell / max(np.hypot(*arrows.T).max(), 1e-12)
    return ax.quiver(
        *as_array(where).T.swapaxes(1, 2),
        *arrows.T.swapaxes(1, 2),
        color=of_kind(COLOURS, kind),
        angles="xy",
        scale_units="xy",
        scale=1.0 / scale,
        width=width,
        zorder=2,
    )


def arrow(ax: Axes, tail, vector, kind: str = "flow", width=0.012) -> Quiver:
    """Draw one arrow `vector` (2,) from `tail` (2,) in the plane's own units."""
    return ax.quiver(
        *as_array(tail),
        *as_array(vector),
        color=of_kind(COLOURS, kind),
        angles="xy",
        scale_units="xy",
        scale=1.0,
        width=width,
        zorder=4,
    )


def particles(ax: Axes, x, kind: str = "data", size=4.0, alpha=0.8) -> Line2D:
    """Draw points x (n, 2) in the colour and marker of their kind; `set_data(*x.T)` moves them."""
    (points,) = ax.plot(
        *as_array(x).T,
        color=of_kind(COLOURS, kind),
        marker=of_kind(MARKERS, kind),
        linestyle="none",
        markersize=size,
        markeredgewidth=1.0 if MARKERS[kind] == "x" else 0.0,
        alpha=alpha,
        zorder=3,
    )
    return points


def trajectories(ax: Axes, paths, kind: str = "flow", linewidth=1.0, alpha=0.6) -> LineCollection:
    """Draw n paths (T, n, 2) as lines; `set_segments(paths.swapaxes(0, 1))` moves them."""
    lines = LineCollection(
        list(as_array(paths).swapaxes(0, 1)),
        colors=of_kind(COLOURS, kind),
        linewidths=linewidth,
        alpha=alpha,
        zorder=2,
    )
    ax.add_collection(lines, autolim=False)
    return lines


def curve(
    ax: Axes, x, mean, spread=None, kind: str = "reference", label: str = "", shift=0.0
) -> Line2D:
    """Draw a learning curve with a band mean +- spread and its label at its right end.

    `x`, `mean` and `spread` have shape (n,); `shift` moves the label up by so many points, for
    curves that end close together.
    """
    x, mean = as_array(x), as_array(mean)
    colour = of_kind(COLOURS, kind)
    if x.max() >= 10_000:
        ax.xaxis.set_major_formatter(EngFormatter())  # 200 k, so that the numbers stay apart
    (line,) = ax.plot(x, mean, color=colour, linestyle=of_kind(LINES, kind), linewidth=1.8)
    if spread is not None:
        spread = as_array(spread)
        ax.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.18, linewidth=0)
    if label:
        line.set_label(label)
        ax.annotate(
            label,
            (x[-1], mean[-1]),
            xytext=(5, shift),
            textcoords="offset points",
            va="center",
        )
    return line


def key(ax: Axes, entries: Mapping[str, tuple[str, str]], ncols: int = 2) -> Legend:
    """Explain colours below the axes: text -> (kind, look), look: points, line, path or arrow."""
    handles = []
    for text, (kind, look) in entries.items():
        marker, line = of_kind(MARKERS, kind), of_kind(LINES, kind)
        looks = {
            "points": (marker, "none"),
            "line": ("", line),
            "path": (marker, line),
            "arrow": (">", "-"),
        }
        marker, line = of_kind(looks, look, name="look")
        colour = COLOURS[kind]
        handles.append(Line2D([], [], color=colour, marker=marker, linestyle=line, label=text))
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.08), "borderpad": 0.0}
    return ax.legend(handles=handles, ncols=ncols, frameon=False, columnspacing=1.2, **below)
