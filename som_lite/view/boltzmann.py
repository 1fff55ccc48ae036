"""The explorer of Boltzmann densities: temperature, and noise level with its score (chapter 03).

What is heavy is computed at construction for every position of the sliders, and looked up later.
"""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from som_lite.flow.boltzmann import BoxBoltzmann
from som_lite.flow.langevin import boltzmann_score
from som_lite.flow.paths import Linear, Path
from som_lite.flow.scores import Energy
from som_lite.view import plots
from som_lite.view.controls import Choice, Slider
from som_lite.view.explorer import Explorer
from som_lite.view.shades import Shades
from som_lite.view.style import BACKDROP, COLOURS, figure, plane

ALPHAS = (0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0)
TIMES = Slider(0.0, 1.0, 0.05, 0.3, "noise level, 0 is none")
# White, then the backdrop's blues.
SHADES = (255 * np.vstack([[1, 1, 1, 1], BACKDROP(np.linspace(0, 1, 9))])).astype(np.uint8)
PIXELS, ARROWS = 180, 12
HALF = 5.0  # a score of this length is drawn half as long as an infinite one


def boltzmann_explorer(
    q: Energy,
    alphas: Sequence[float] = ALPHAS,
    *,
    alpha: float = 0.1,
    path: Path | None = None,
    limit=2.0,
    cells: int = 201,
) -> Explorer:
    """exp(q / alpha) on the square with E[q] and entropy; beside it, noised to time t, its score.

    q       the energy, (n, 2) -> (n,)
    alphas  the temperatures of the slider, which starts at `alpha`, one of them
    path    the noising path, by default linear
    cells   the quadrature has cells^2 points; sigma_t must be at least 2 / cells for t >= 0.05
    """
    path = path or Linear()
    temperature = Choice(alphas, alpha, "temperature")
    targets = {value: BoxBoltzmann(q, value, cells) for value in alphas}
    fig, (left, right) = figure(8.4, 4.7, ncols=2)
    policy, place_policy = _policy_panel(plane(left, 1.0), q, targets)
    noised, place_noised = _noised_panel(plane(right, limit), q, targets, path)

    def place(alpha, t):
        place_policy(alpha)
        place_noised(alpha, t)

    return Explorer(
        fig,
        moving=[*policy, *noised],
        place=place,
        controls={"alpha": temperature, "t": TIMES},
        name="Temperature and noise level of a Boltzmann density",
        description="Left: the density exp(Q / alpha) / Z on the square of actions, with E[Q] and "
        "entropy. Low alpha leaves small spots at the best actions, high alpha an even shade. "
        "Right: the same density noised to time t on a larger window, the square dashed, with "
        "arrows of its score; long arrows are shortened. At t = 0 there are arrows in the square "
        "only, short between the hills. With noise the hills melt together and arrows reach "
        "everywhere; at t = 1 all point to the origin. Shades are relative to the highest value of "
        "each picture.",
    )


def _shades(log_density: Tensor) -> np.ndarray:
    """The number of every pixel's shade, by the density relative to its highest value."""
    relative = (log_density - log_density.max()).exp().view(PIXELS, PIXELS)
    return (relative * (len(SHADES) - 0.5)).round().clamp(max=len(SHADES) - 1).byte().numpy()


def _policy_panel(ax: Axes, q: Energy, targets: dict[float, BoxBoltzmann]):
    """Left panel: the density on the square, its E[q] and its entropy."""
    where = plots.grid(ax, PIXELS).reshape(-1, 2)
    pictures = {alpha: _shades(q(where) / alpha) for alpha in targets}
    words = {
        alpha: f"E[Q] = {p.expectation(q):.3f}, entropy = {p.entropy():+.2f}"
        for alpha, p in targets.items()
    }
    image = Shades(ax, SHADES, PIXELS)
    ax.set(xlabel="$a_1$", ylabel="$a_2$")

    def place(alpha: float) -> None:
        image.show(pictures[alpha])
        ax.title.set_text(words[alpha])

    return [image, *ax.spines.values(), ax.title], place


def _noised_panel(ax: Axes, q: Energy, targets: dict[float, BoxBoltzmann], path: Path):
    """Right panel: the noised density and its score."""
    fine, coarse = (plots.grid(ax, n).reshape(-1, 2) for n in (PIXELS, ARROWS))
    inside = (coarse.abs() <= 1).all(-1, keepdim=True)
    pictures, scores = {}, {}
    for alpha, target in targets.items():
        clean = boltzmann_score(q, alpha, coarse)
        pictures[alpha, 0.0] = _shades(target.log_prob(fine))
        scores[alpha, 0.0] = torch.where(inside, clean, torch.nan).numpy()
        for t in TIMES.positions[1:]:
            pictures[alpha, t] = _shades(_noised_on_grid(target, fine, t, path))
            scores[alpha, t] = target.noised_score(coarse, t, path).numpy()
    longest = 1.1 * (ax.get_xlim()[1] - ax.get_xlim()[0]) / ARROWS
    image = Shades(ax, SHADES, PIXELS)
    box = Rectangle((-1, -1), 2, 2, fill=False, linestyle="--", edgecolor=COLOURS["reference"])
    ax.add_patch(box)
    arrows = plots.field(ax, np.zeros((len(coarse), 2)), ARROWS, "score", longest, width=0.005)
    ax.set(xlabel="$a_1$", ylabel="$a_2$")

    def place(alpha: float, t: float) -> None:
        image.show(pictures[alpha, t])
        s = scores[alpha, t]
        shortened = s / (HALF + np.linalg.norm(s, axis=-1, keepdims=True))
        arrows.set_UVC(*np.ma.masked_invalid(shortened).T)
        ax.title.set_text(f"noised to t = {t:.2f} at alpha = {alpha:g}")

    return [image, box, arrows, *ax.spines.values(), ax.title], place


def _noised_on_grid(target: BoxBoltzmann, grid: Tensor, t: float, path: Path) -> Tensor:
    """``log p_t`` up to a constant, by two matrix products, as the grid is a product as well."""
    x = grid.view(PIXELS, PIXELS, 2)[0, :, 0].double()[:, None]  # the heights are the same numbers
    normal = torch.exp(-0.5 * ((x - path.mu(t) * target.axis) / path.sigma(t)).square())
    mass = normal @ target.p.view(target.cells, target.cells).T @ normal.T
    return mass.log().flatten()
