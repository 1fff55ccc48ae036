"""The explorer of neighbours: what each agent makes of one known Q, at any temperature (10).

The points are made elsewhere, by training; here they are looked up.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from som_lite.flow.boltzmann import BoxBoltzmann, Bumps
from som_lite.view import plots
from som_lite.view.controls import Choice
from som_lite.view.explorer import Explorer
from som_lite.view.one_step import CELLS, SHADES, SHOWN, density_shades
from som_lite.view.shades import Shades
from som_lite.view.style import figure, plane

Points = Float[Tensor, "n 2"]


def neighbours_explorer(
    points: Mapping[str, Mapping[float | None, Points]], q: Bumps, *, alphas: Sequence[float]
) -> Explorer:
    """Samples over the density of exp(q / alpha), and the shares of the hills of q.

    points  agent -> temperature -> its actions (n, 2); {None: actions} for an agent without one
    q       the energy, whose hills are counted by the nearest centre
    alphas  the positions of the temperature's slider, rising
    """
    for name, clouds in points.items():
        if None not in clouds and (missing := [x for x in alphas if x not in clouds]):
            raise ValueError(f"points of {name} lack the temperatures {missing}")
    exact = {alpha: BoxBoltzmann(q, alpha) for alpha in alphas}
    truth = {alpha: _shares(q, x.grid, x.p) for alpha, x in exact.items()}
    hills = np.arange(len(q.centres))

    fig, (left, right) = figure(8.4, 4.6, ncols=2)
    plane(left, 1.2)
    shades = {alpha: density_shades(left, exact[alpha]) for alpha in alphas}
    image = Shades(left, SHADES, CELLS)
    cloud = plots.particles(left, np.zeros((1, 2)), "one-step", size=3, alpha=0.7)
    wanted = plots.particles(right, np.zeros((1, 2)), "reference", size=11, alpha=1.0)
    found = plots.particles(right, np.zeros((1, 2)), "one-step", size=8, alpha=1.0)
    right.set(xlim=(-0.5, len(hills) - 0.5), ylim=(-0.05, 1.05), autoscale_on=False)
    names = [f"{height:g}" for height in q.heights]
    right.set_xticks(hills, names)
    right.set(xlabel="height of the hill", ylabel="share of the actions")
    plots.key(left, {"actions": ("one-step", "points")})
    plots.key(right, {"exact": ("reference", "points"), "actions": ("one-step", "points")})
    right.get_legend().set_bbox_to_anchor((0.5, -0.16))

    def place(agent, alpha):
        clouds = points[agent]
        a = clouds[None] if None in clouds else clouds[alpha]
        note = "no temperature" if None in clouds else f"$\\alpha$ = {alpha:g}"
        image.show(shades[alpha])
        cloud.set_data(*a[:SHOWN].T)
        wanted.set_data(hills, truth[alpha])
        found.set_data(hills, _shares(q, a, torch.full((len(a),), 1 / len(a), dtype=torch.float64)))
        left.title.set_text(f"{agent}, {note}")
        mean = float(q(a).mean())
        right.title.set_text(f"E[Q] = {mean:.3f}, exact {exact[alpha].expectation(q):.3f}")

    return Explorer(
        fig,
        moving=[image, cloud, wanted, found, left.title, right.title],
        place=place,
        controls={
            "agent": Choice(list(points), meaning="which agent drew the actions"),
            "alpha": Choice(list(alphas), alphas[len(alphas) // 2], "the temperature"),
        },
        name="One known Q, every agent",
        description="Left: the actions of an agent as green diamonds over the exact density of "
        "exp(Q / alpha) in shades of blue. Right: for each hill of Q, by its height, the exact "
        "share as a black cross and that of the actions as a green diamond. Agents that aim at the "
        "Boltzmann density put diamonds near crosses and follow the temperature; others share "
        "equally, or have one hill with all actions.",
    )


def _shares(q: Bumps, a: Points, weight: Float[Tensor, "n"]) -> np.ndarray:
    """The share of the weight that is nearest to each centre of q."""
    nearest = torch.cdist(a, q.centres).argmin(-1)
    return torch.bincount(nearest, weight, len(q.centres)).numpy()
