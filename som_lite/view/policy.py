"""The explorer of a one-step policy: where it sends noise, in any state (chapters 00 and 09)."""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import Rectangle
from torch import Tensor

from som_lite.view import plots
from som_lite.view.controls import Slider
from som_lite.view.explorer import Explorer
from som_lite.view.style import COLOURS, SHADE, figure, plane

CELLS = 120  # a side, of the shading of the box


def policy_explorer(
    generate: Callable[[Tensor, Tensor], Tensor],
    noise: Float[Tensor, "n d"],
    observation: Float[Tensor, "o"],
    *,
    coordinate: int | tuple[int, ...] = 0,
    span: tuple[float, float] = (-1.0, 1.0),
    label: str | tuple[str, ...] = "observation",
    dims: tuple[int, int] = (0, 1),
    limit=2.5,
    marks: Callable[[Tensor], Tensor] | None = None,
    forbidden: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Explorer:
    """Noise points on the left; on the right, the way a policy sends them and the actions it makes.

    generate     (noise (n, d), observations (n, o)) -> actions (n, d) in [-1, 1]
    observation  the state to look at; the slider `label` runs its `coordinate` over `span`, and a
                 tuple of labels and coordinates makes as many sliders
    dims         the two components to show; a single component is spread out over the other axis
    marks        observation (o,) -> actions (m, d) to mark with crosses, such as the best ones
    forbidden    (actions (m, 2), observation (o,)) -> (m,): which actions to shade
    """
    coordinates = [coordinate] if isinstance(coordinate, int) else list(coordinate)
    seen = _sliders(observation, coordinates, span, [label] if isinstance(label, str) else label)
    source = _two_of(noise, dims)

    shades = _cells_of_the_box()

    @cache
    def answers(*values: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        state = observation.clone()
        state[coordinates] = torch.tensor(values, dtype=state.dtype)
        with torch.no_grad():
            actions = generate(noise, state.expand(len(noise), -1))
        crossed = _two_of(marks(state) if marks else actions[:0], dims)
        shaded = forbidden(shades.reshape(-1, 2), state) if forbidden else torch.zeros(CELLS**2)
        return _two_of(actions, dims), crossed, plots.as_array(shaded).reshape(CELLS, CELLS)

    fig, (left, right) = figure(8.4, 4.6, ncols=2)
    _axes_of(plane(left, limit), "\\varepsilon", noise, dims)
    left.set_title("noise")
    place_source, _ = _points(left, "noise", source)
    place_source(source)
    _axes_of(plane(right, limit), "a", noise, dims)
    box = Rectangle((-1, -1), 2, 2, fill=False, linestyle="--", edgecolor=COLOURS["reference"])
    right.add_patch(box)
    shade = right.imshow(
        np.zeros((CELLS, CELLS)),
        extent=(-1, 1, -1, 1),
        origin="lower",
        cmap=ListedColormap(["#ffffff", SHADE]),
        vmin=0,
        vmax=1,
        interpolation="nearest",
        zorder=0,
    )
    place_points, moving = _points(right, "one-step", source)
    crosses = plots.particles(right, source[:0], "reference", size=10, alpha=1.0)
    crosses.set(markeredgewidth=2.0, zorder=6)

    def place(**values):
        ends, best, shaded = answers(*(values[name] for name in seen))
        shade.set_data(shaded)
        place_points(source + values["progress"] * (ends - source))
        crosses.set_data(*best.T)
        state = ", ".join(f"{name} = {slider.label(values[name])}" for name, slider in seen.items())
        right.title.set_text(f"progress {values['progress']:.1f} at {state}")

    return Explorer(
        fig,
        moving=[shade, box, *moving, crosses, right.title],
        place=place,
        controls={"progress": Slider(0.0, 1.0, 0.1, 1.0, "from noise to action"), **seen},
        name="From noise to action",
        description="Left: noise points, six of them numbered. Right: the same points on the way "
        "to the actions that a one-step policy makes of them; at progress 1 all are in the dashed "
        f"box of allowed actions. Moving {' or '.join(seen)} changes what the policy sees, and "
        f"the actions.{' Crosses mark actions to compare with.' if marks else ''}"
        f"{' Shaded actions are forbidden.' if forbidden else ''}",
    )


def _sliders(
    observation: Tensor, coordinates: Sequence[int], span: tuple[float, float], names: Sequence[str]
) -> dict[str, Slider]:
    """One slider for each coordinate of what the policy sees, with 21 positions."""
    low, high = span
    if len(names) != len(coordinates):
        raise ValueError(f"label must name {len(coordinates)} coordinates, got {list(names)}")
    for k in coordinates:
        if not low <= (start := observation[k].item()) <= high:
            raise ValueError(f"span must contain observation[{k}] = {start:.3g}, got {span}")
    return {
        name: Slider(low, high, (high - low) / 20, observation[k].item(), "what the policy sees")
        for name, k in zip(names, coordinates, strict=True)
    }


def _cells_of_the_box() -> Float[Tensor, "cells cells 2"]:
    """The centres of equal cells of [-1, 1]^2; row i has the i-th height."""
    middle = 2 * (torch.arange(CELLS) + 0.5) / CELLS - 1
    return torch.stack(torch.meshgrid(middle, middle, indexing="xy"), dim=-1)


def _axes_of(ax: Axes, letter: str, x: Tensor, dims: tuple[int, int]) -> None:
    shown = dims if x.shape[1] > 1 else (0,)
    for name, k in zip((ax.set_xlabel, ax.set_ylabel), shown, strict=False):
        name(f"${letter}_{{{k + 1}}}$")


def _points(ax: Axes, kind: str, source: np.ndarray):
    """The points of a panel, six of them numbered, with their way from the source."""
    numbered = _far_apart(source, 6)
    trails = plots.trajectories(ax, source[None], "noise", linewidth=0.6, alpha=0.35)
    points = plots.particles(ax, source, kind)
    discs = plots.particles(ax, source[numbered], kind, size=13, alpha=1.0)
    discs.set(marker="o", markeredgecolor="black", markeredgewidth=0.8, zorder=4)
    look = {"ha": "center", "va": "center_baseline", "color": "white", "weight": "bold", "size": 9}
    numbers = [ax.text(0, 0, str(k), zorder=5, **look) for k in range(1, len(numbered) + 1)]

    def place(now: np.ndarray) -> None:
        trails.set_segments(list(np.stack([source, now], axis=1)))
        points.set_data(*now.T)
        discs.set_data(*now[numbered].T)
        for number, position in zip(numbers, now[numbered], strict=True):
            number.set_position(position)

    return place, [trails, points, discs, *numbers]


def _two_of(x: Float[Tensor, "n d"], dims: tuple[int, int]) -> np.ndarray:
    """Two components of every row (n, 2); beside a single one the other axis tells rows apart."""
    if x.shape[1] == 1:
        return np.stack([plots.as_array(x)[:, 0], np.linspace(-0.9, 0.9, len(x))], axis=1)
    return plots.as_array(x)[:, dims]


def _far_apart(points: np.ndarray, count: int) -> list[int]:
    """Rows of points in the middle of the plane, each as far as can be from those before it."""
    inside = np.flatnonzero(np.linalg.norm(points, axis=1) < 1.8)
    chosen = inside[:1].tolist()
    while len(chosen) < min(count, len(inside)):
        gaps = np.linalg.norm(points[inside, None] - points[chosen], axis=-1).min(axis=1)
        chosen.append(int(inside[gaps.argmax()]))
    return chosen
