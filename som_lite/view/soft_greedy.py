"""The explorer of soft and greedy policies: temperature, candidates, proposals (08).

All points are made at construction, for every temperature and number of proposals, and looked up
later.
"""

from collections.abc import Callable, Sequence
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

from som_lite.flow.boltzmann import BoxBoltzmann
from som_lite.flow.scores import Energy
from som_lite.view import plots
from som_lite.view.controls import Choice
from som_lite.view.explorer import Explorer
from som_lite.view.one_step import CELLS, SHADES, density_shades, energy_marks
from som_lite.view.shades import Shades
from som_lite.view.style import COLOURS, figure, plane

Points = Float[Tensor, "n 2"]
SHOWN = 300  # actions in the picture; E[Q] is a mean over all


def soft_greedy_explorer(
    generate: Callable[[Points, float, int], Points],
    q: Energy,
    *,
    alphas: Sequence[float],
    candidates: Sequence[int] = (1, 4, 32),
    proposals: Sequence[int] = (4, 16, 64),
    actions: int = 600,
) -> Explorer:
    """Performed actions, each the best of N, over the exact density; their mean Q beside it.

    generate    (noise (n, 2), alpha, K) -> actions (n, 2) of an actor that learnt with K proposals
    q           the critic in one state, (n, 2) -> (n,)
    alphas      the positions of the temperature's slider, rising
    candidates  those of N; `actions` are performed for every N, from N times as much noise
    """
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(max(candidates) * actions, 2, generator=draw)
    exact = {alpha: BoxBoltzmann(q, alpha) for alpha in alphas}
    performed, means = {}, {}
    with torch.no_grad():
        for alpha, K in product(alphas, proposals):
            made = generate(noise, alpha, K)
            for N in candidates:
                best = best_of_every(made[: N * actions], q, N)
                performed[alpha, N, K] = best[:SHOWN].numpy()
                means[alpha, N, K] = float(q(best).mean())
    truth = {(x, N): best_of_n_mean(exact[x], N) for x, N in product(alphas, candidates)}

    fig, (left, right) = figure(8.4, 4.6, ncols=2)
    plane(left, 1.2)
    shades = {alpha: density_shades(left, exact[alpha]) for alpha in alphas}
    image = Shades(left, SHADES, CELLS)
    cloud = plots.particles(left, noise[:SHOWN], "one-step", size=4, alpha=0.7)
    (line,) = right.plot(alphas, [0.0] * len(alphas), color=COLOURS["reference"], linewidth=1.5)
    curve, here = energy_marks(right, alphas, [*truth.values(), *means.values()])
    plots.key(left, {"performed": ("one-step", "points")})
    plots.key(right, {"exact E[Q]": ("reference", "line"), "performed": ("one-step", "points")})
    right.get_legend().set_bbox_to_anchor((0.5, -0.16))

    def place(alpha, N, K):
        image.show(shades[alpha])
        cloud.set_data(*performed[alpha, N, K].T)
        line.set_data(alphas, [truth[x, N] for x in alphas])
        curve.set_data(alphas, [means[x, N, K] for x in alphas])
        here.set_data([alpha], [means[alpha, N, K]])
        left.title.set_text(f"$\\alpha$ = {alpha:g}, best of {N}, learnt with K = {K}")
        right.title.set_text(f"E[Q] = {means[alpha, N, K]:.3f}, exact {truth[alpha, N]:.3f}")

    return Explorer(
        fig,
        moving=[image, cloud, line, curve, here, left.title, right.title],
        place=place,
        controls={
            "alpha": Choice(list(alphas), alphas[len(alphas) // 2], "the temperature"),
            "N": Choice(list(candidates), candidates[0], "candidates of which one is performed"),
            "K": Choice(list(proposals), proposals[-1], "proposals that the actor learnt with"),
        },
        name="Soft or greedy",
        description="Left: performed actions as green diamonds, each the best of N one-step "
        "candidates, over the exact density of exp(Q / alpha) in shades of blue. Right, against "
        "the temperature: the exact E[Q] of the best of N as a black line, that of the performed "
        "actions as diamonds, a large one at the chosen temperature. As alpha falls or N rises "
        "the diamonds gather on the best places and E[Q] rises; with few proposals they spread.",
    )


def best_of_every(points: Points, q: Energy, N: int) -> Float[Tensor, "groups 2"]:
    """Of every N points in a row the one with the highest q: n = groups N."""
    groups = points.view(-1, N, points.shape[-1])
    return groups[torch.arange(len(groups)), q(groups).argmax(-1)]


def best_of_n_mean(target: BoxBoltzmann, N: int) -> float:
    """E[q] of the best of N draws: it is among the cells of mass P with probability P^N."""
    values = target.q(target.grid).double()
    order = values.argsort()
    below = target.p[order].cumsum(0).clamp(max=1) ** N
    return float(below.diff(prepend=below.new_zeros(1)) @ values[order])
