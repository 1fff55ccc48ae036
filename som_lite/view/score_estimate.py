"""The explorer of score estimates: a velocity estimated from Q against the exact one (chapter 04).

Every combination of estimator, proposals, K and t is computed at construction and looked up later.
"""

from itertools import product

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from som_lite.flow.boltzmann import BoxBoltzmann
from som_lite.flow.densities import GaussianMixture
from som_lite.flow.paths import Linear, Path
from som_lite.flow.scores import Energy, gradient_estimate, posterior_mean_estimate
from som_lite.view import plots
from som_lite.view.controls import Choice, Slider
from som_lite.view.explorer import Explorer
from som_lite.view.style import COLOURS, LINES, figure, plane

Target = GaussianMixture | BoxBoltzmann
ESTIMATORS = {"posterior mean": posterior_mean_estimate, "gradient": gradient_estimate}
PROPOSALS = {"in the box": True, "unbounded": False}
COUNTS = (4, 16, 64, 256)
TIMES = Slider(0.05, 0.95, 0.05, 0.4, "noise level")
CELLS = 9
LONGEST = 2.0  # speed at which an arrow is cut
HIGHEST = 30.0  # error at which a curve is cut: four decades hold all that can be used


def score_estimate_explorer(
    target: Target,
    q: Energy,
    alpha: float = 1.0,
    *,
    path: Path | None = None,
    limit=1.75,
    samples: int = 200,
) -> Explorer:
    """The velocity from an estimated score over the exact one; its error and the ESS against t.

    target   the exact answer, proportional to exp(q / alpha)
    q        the energy that the estimators see, (*batch, K, 2) -> (*batch, K)
    path     the noising path, by default linear
    samples  points a_t ~ p_t over which the error and the sample size are averaged
    """
    path = path or Linear()
    fig, (left, right) = figure(8.4, 4.7, ncols=2)
    plots.backdrop(plane(left, limit), target.log_prob)
    where = plots.grid(left, CELLS).reshape(-1, 2)
    table, exact = _tabulate(target, q, alpha, path, where, samples)
    arrows, place_arrows = _field_panel(left, exact)
    curves, place_curves = _curve_panel(right)

    def place(t, K, estimator, proposals):
        rows = [table[estimator, proposals, K, time] for time in TIMES.positions]
        place_arrows(t, rows[TIMES.positions.index(t)]["v"])
        place_curves(t, K, rows)

    return Explorer(
        fig,
        moving=[*arrows, *curves],
        place=place,
        controls={
            "t": TIMES,
            "K": Choice(COUNTS, 64, "proposals per point"),
            "estimator": Choice(list(ESTIMATORS), meaning="what is averaged"),
            "proposals": Choice(list(PROPOSALS), meaning="where candidates may lie"),
        },
        name="A score estimated from Q",
        description="Left, over the target density: the exact field -v in black and, in orange, "
        "its estimate from K values of Q at each point; long arrows are cut. Right, against t on a "
        "logarithmic axis: the root mean square error over points of the path, and the effective "
        "sample size as a share of K, with marks at the chosen t; errors are cut at "
        f"{HIGHEST:g}. With the posterior mean and proposals in the box the error stays small at "
        "every t; the gradient estimator and unbounded proposals lose all accuracy towards t = 1.",
    )


def _tabulate(target: Target, q: Energy, alpha: float, path: Path, where: Tensor, samples: int):
    """For every setting and time: v estimated at `where`, its error over samples, mean ESS.

    Also the exact -v at `where`, by time.
    """
    draws = torch.Generator().manual_seed(0)
    a0, eps = target.sample(samples, draws), torch.randn(samples, 2, generator=draws)
    table, exact = {}, {}
    for t in TIMES.positions:
        a = torch.cat([where, path.noise(a0, eps, t)])
        v = target.velocity(a, t, path)
        exact[t] = v[: len(where)].numpy()
        for (name, estimate), (box, flag), K in product(
            ESTIMATORS.items(), PROPOSALS.items(), COUNTS
        ):
            generator = torch.Generator().manual_seed(1)
            m, _, ess = estimate(q, a, t, path, alpha, K, generator, flag)
            guess = path.velocity_from_mean(m, a, t)
            error = (guess - v)[len(where) :].double().square().sum(-1).mean().sqrt()
            table[name, box, K, t] = {
                "v": guess[: len(where)].numpy(),
                "rmse": error.item(),
                "ess": ess[len(where) :].mean().item(),
            }
    return table, exact


def _field_panel(ax: Axes, exact: dict[float, np.ndarray]):
    """Left: arrows of the exact field and of the estimate, long ones cut."""
    scale = 0.25
    start = next(iter(exact.values()))
    truth = plots.field(ax, start, CELLS, "reference", scale=scale, width=0.010)
    guess = plots.field(ax, start, CELLS, "velocity", scale=scale, width=0.005)
    plots.key(
        ax,
        {"exact $-v$": ("reference", "arrow"), "estimate": ("velocity", "arrow")},
    )

    def place(t: float, v: np.ndarray) -> None:
        truth.set_UVC(*_cut(-exact[t]).T)
        guess.set_UVC(*_cut(-v).T)
        ax.title.set_text(f"the field at t = {t:.2f}")

    return [truth, guess, ax.title], place


def _cut(arrows: np.ndarray) -> np.ndarray:
    """The same directions, no arrow longer than LONGEST."""
    length = np.linalg.norm(arrows, axis=-1, keepdims=True)
    return arrows * np.minimum(1.0, LONGEST / np.maximum(length, 1e-12))


def _curve_panel(ax: Axes):
    """Right: the error and the effective share of the K proposals against t, on fixed limits."""
    times = TIMES.positions
    ax.set(xlim=(0, 1), ylim=(2e-3, 60), yscale="log", xlabel="$t$")
    drawn = {}
    for kind in ("error", "reference"):
        (line,) = ax.plot(times, np.ones(len(times)), color=COLOURS[kind], linestyle=LINES[kind])
        (mark,) = ax.plot([0.5], [1.0], marker="o", color=COLOURS[kind], markersize=8)
        drawn[kind] = line, mark
    plots.key(
        ax,
        {
            f"root mean square error of $v$, cut at {HIGHEST:g}": ("error", "line"),
            "ESS / K": ("reference", "line"),
        },
        ncols=1,
    ).set_bbox_to_anchor((0.5, -0.14))

    def place(t: float, K: int, rows: list[dict]) -> None:
        here = times.index(t)
        for kind, values in (
            ("error", [min(row["rmse"], HIGHEST) for row in rows]),
            ("reference", [row["ess"] / K for row in rows]),
        ):
            line, mark = drawn[kind]
            line.set_ydata(values)
            mark.set_data([t], [values[here]])
        error, ess = rows[here]["rmse"], rows[here]["ess"]
        ax.title.set_text(f"error {error:.2g}, ESS {ess:.1f} of {K}")

    return [*drawn["error"], *drawn["reference"], ax.title], place
