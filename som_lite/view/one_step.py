"""The explorer of a one-step sampler: its points over the exact density, at any temperature (06).

All points are made at construction, for every temperature and number of steps, and looked up later.
"""

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from torch import Tensor

from som_lite.flow.boltzmann import BoxBoltzmann
from som_lite.flow.scores import Energy
from som_lite.view import plots
from som_lite.view.controls import Choice
from som_lite.view.explorer import Explorer
from som_lite.view.shades import Shades
from som_lite.view.style import BACKDROP, COLOURS, figure, plane

Points = Float[Tensor, "n 2"]
SHADES = BACKDROP(np.linspace(0, 1, 9), bytes=True)
CELLS = 120  # squares of one shade, a side
SHOWN = 500  # points in the picture; E[Q] is a mean over all


def one_step_explorer(
    generate: Callable[[Points, float, int], Points],
    q: Energy,
    *,
    alphas: Sequence[float],
    steps: Sequence[int] = (1, 2, 20),
    noise: Points | None = None,
) -> Explorer:
    """Samples over the density of exp(q / alpha), and their mean q beside the exact one.

    generate  (noise (n, 2), alpha, steps) -> points (n, 2), for example a trained network
    q         the energy, (n, 2) -> (n,)
    alphas    the positions of the temperature's slider, rising
    noise     where the sampler starts, by default 4000 normal draws
    """
    if noise is None:
        noise = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0))
    exact = {alpha: BoxBoltzmann(q, alpha) for alpha in alphas}
    with torch.no_grad():
        points = {(x, n): generate(noise, x, n) for x, n in product(alphas, steps)}
        means = {key: float(q(x).mean()) for key, x in points.items()}
    truth = {alpha: exact[alpha].expectation(q) for alpha in alphas}

    fig, (left, right) = figure(8.4, 4.6, ncols=2)
    plane(left, 1.2)
    shades = {alpha: density_shades(left, exact[alpha]) for alpha in alphas}
    image = Shades(left, SHADES, CELLS)
    cloud = plots.particles(left, noise[:SHOWN], "one-step", size=3, alpha=0.7)
    right.plot(alphas, list(truth.values()), color=COLOURS["reference"], linewidth=1.5)
    curve, here = energy_marks(right, alphas, [*truth.values(), *means.values()])
    plots.key(left, {"samples": ("one-step", "points")})
    plots.key(right, {"exact E[Q]": ("reference", "line"), "samples": ("one-step", "points")})
    right.get_legend().set_bbox_to_anchor((0.5, -0.16))

    def place(alpha, steps):
        image.show(shades[alpha])
        cloud.set_data(*points[alpha, steps][:SHOWN].T)
        curve.set_data(alphas, [means[x, steps] for x in alphas])
        here.set_data([alpha], [means[alpha, steps]])
        left.title.set_text(f"$\\alpha$ = {alpha:g}, {steps} step{'s' * (steps > 1)}")
        right.title.set_text(f"E[Q] = {means[alpha, steps]:.3f}, exact {truth[alpha]:.3f}")

    return Explorer(
        fig,
        moving=[image, cloud, curve, here, left.title, right.title],
        place=place,
        controls={
            "alpha": Choice(list(alphas), alphas[len(alphas) // 2], "the temperature"),
            "steps": Choice(list(steps), steps[0], "calls of the network per sample"),
        },
        name="One step, two steps, many",
        description="Left: samples as green diamonds over the exact density of exp(Q / alpha) in "
        "shades of blue. Right, against the temperature: the exact E[Q] as a black line and the "
        "mean Q of the samples as diamonds, a large one at the chosen temperature. As alpha falls "
        "the blue shrinks onto the hills of Q, the samples follow, and both E[Q] rise.",
    )


def density_shades(ax: Axes, target: BoxBoltzmann) -> np.ndarray:
    """The number of every square's shade, by the density relative to its highest value."""
    density = plots.density_on(ax, target.log_prob, CELLS)
    return ((len(SHADES) - 1) * density / density.max()).astype(np.uint8)


def energy_marks(ax: Axes, alphas: Sequence[float], values: Sequence[float]) -> tuple[Line2D, ...]:
    """E[Q] against the temperature: marks of every alpha, and a large one for the chosen alpha.

    The axes hold all `values`, so that they stand still while the marks move.
    """
    curve = plots.particles(ax, np.zeros((len(alphas), 2)), "one-step", size=6)
    here = plots.particles(ax, np.zeros((1, 2)), "one-step", size=11, alpha=1.0)
    margin = 0.05 * (max(values) - min(values)) + 0.01
    ax.set(xscale="log", xlabel="temperature $\\alpha$", autoscale_on=False)
    ax.set(ylim=(min(values) - margin, max(values) + margin))
    ax.set(xlim=(alphas[0] / 1.15, alphas[-1] * 1.15))
    ax.set_xticks(alphas, [f"{alpha:g}" for alpha in alphas])
    ax.minorticks_off()
    return curve, here
