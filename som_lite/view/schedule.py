"""The explorer of paths and solvers: one flow in three clothes, walked in n steps (chapter 05).

Points are drawn at ``a_t / sqrt(mu_t^2 + sigma_t^2)``: the noise is standard normal at t = 1 and
the data is itself at t = 0, whatever the path. In this window the exact flow lines of all Gaussian
paths are the same curves; what differs is where on them the n steps fall.
"""

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from torch import Tensor

from som_lite.flow.densities import GaussianMixture, three_modes
from som_lite.flow.ode import euler_step, heun_step, rk4_step, solve
from som_lite.flow.paths import VE, VP, Linear, Path
from som_lite.view import plots
from som_lite.view.controls import Choice
from som_lite.view.explorer import Explorer
from som_lite.view.style import COLOURS, LINES, figure, plane

Points = Float[Tensor, "n 2"]
PATHS = {"linear": Linear(), "VP": VP(), "VE": VE()}
SOLVERS = {"Euler": euler_step, "Heun": heun_step, "RK4": rk4_step}
CALLS = {"Euler": 1, "Heun": 2, "RK4": 4}  # of the network, per step
COUNTS = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32]
FINE = 128  # Runge-Kutta steps that count as exact in a picture


def schedule_explorer(
    target: GaussianMixture | None = None, *, noise: Points | None = None, limit=3.0
) -> Explorer:
    """n solver steps from noise to data along a VP, VE or linear path, beside the exact flow.

    target  the data's density, with its exact velocity on every path; by default three blobs
    noise   where the samples start (scaled by the noise level of the path), by default 120 normal
            draws; the first six are drawn with their lines on the left
    """
    target = target or three_modes()
    if noise is None:
        noise = torch.randn(120, 2, generator=torch.Generator().manual_seed(0))
    lines = limit * torch.tensor(
        [[0.37, 0.63], [-0.4, 0.33], [0.67, -0.63], [-0.1, -0.73], [-0.77, 0.03], [0.13, -0.17]]
    )
    starts = torch.cat([lines, noise])
    exact = {name: _walk(target, path, starts, FINE, "RK4") for name, path in PATHS.items()}
    walked = {
        (name, solver, n): _walk(target, path, starts, n, solver)
        for name, path in PATHS.items()
        for solver in SOLVERS
        for n in COUNTS
    }
    fig, (left, right) = figure(8.4, 4.9, ncols=2)
    for ax in (left, right):
        plane(ax, limit)
        plots.backdrop(ax, target.log_prob)
    road, place_lines = _lines_panel(left, exact, walked, len(lines))
    ends, place_ends = _ends_panel(right, exact, walked, len(lines))

    def place(n: int, path: str, solver: str) -> None:
        place_lines(n, path, solver)
        place_ends(n, path, solver)

    return Explorer(
        fig,
        moving=[*road, *ends],
        place=place,
        controls={
            "n": Choice(COUNTS, 6, "solver steps from noise to data"),
            "path": Choice(list(PATHS), "VP", "the noising path"),
            "solver": Choice(list(SOLVERS), "Heun", "the one-step method"),
        },
        name="Paths, solvers and steps",
        description="Left, over the target density, in a window that moves with the noise level: "
        "black lines are the exact flow, nearly the same for every path; orange triangles are the "
        "places where the solver steps. Paths put their steps at different places of the same "
        "lines. Right: end points of the solver (orange) and of the exact flow (black crosses), "
        "joined by red lines, with their mean distance and the number of network calls above. The "
        "distance falls as n grows, fastest for RK4, but with few network calls Euler can be best.",
    )


def _walk(target: GaussianMixture, path: Path, starts: Tensor, n: int, solver: str) -> Tensor:
    """The solver's points (n + 1, points, 2), divided by ``sqrt(mu^2 + sigma^2)``."""

    def velocity(a: Tensor, t: Tensor) -> Tensor:
        return target.velocity(a, t, path)

    a = starts * path.sigma(1.0).item()
    points = solve(velocity, a, steps=n, step=SOLVERS[solver], trajectory=True)
    t = torch.linspace(1, 0, n + 1)[:, None, None]
    return points / (path.mu(t) ** 2 + path.sigma(t) ** 2).sqrt()


def _lines_panel(ax: Axes, exact: dict, walked: dict, lines: int):
    """Left: the exact lines of the path, and the polygons of the solver."""
    first = walked["linear", "Euler", 1][:, :lines]
    truth = plots.trajectories(ax, exact["linear"][:, :lines], "reference", alpha=1.0)
    polygon = plots.trajectories(ax, first, "flow", linewidth=1.2, alpha=1.0)
    polygon.set_linestyle(LINES["flow"])
    places = plots.particles(ax, first.reshape(-1, 2), "flow", size=4, alpha=1.0)
    plots.particles(ax, first[0], "noise", size=7, alpha=1.0)
    plots.key(
        ax,
        {
            "noise": ("noise", "points"),
            "exact flow": ("reference", "line"),
            "the solver's steps": ("flow", "path"),
        },
        ncols=3,
    )

    def place(n: int, path: str, solver: str) -> None:
        points = walked[path, solver, n][:, :lines]
        truth.set_segments(list(exact[path][:, :lines].swapaxes(0, 1).numpy()))
        polygon.set_segments(list(points.swapaxes(0, 1).numpy()))
        places.set_data(*points.reshape(-1, 2).T)
        ax.title.set_text(f"{path} path, n = {n}")

    return [truth, polygon, places, ax.title], place


def _ends_panel(ax: Axes, exact: dict, walked: dict, lines: int):
    """Right: where the solver and the exact flow end, and how far apart."""
    misses = LineCollection(
        [], colors=COLOURS["error"], linestyles=[LINES["error"]], linewidths=1.2, zorder=2
    )
    ax.add_collection(misses, autolim=False)
    truth = plots.particles(ax, exact["linear"][-1, lines:], "reference", size=4, alpha=1.0)
    ends = plots.particles(ax, exact["linear"][-1, lines:], "flow", size=4)
    plots.key(
        ax,
        {
            "exact end": ("reference", "points"),
            "the solver's end": ("flow", "points"),
            "error": ("error", "line"),
        },
        ncols=3,
    )

    def place(n: int, path: str, solver: str) -> None:
        wanted, got = exact[path][-1, lines:], walked[path, solver, n][-1, lines:]
        misses.set_segments(list(torch.stack([wanted, got], 1).numpy()))
        truth.set_data(*wanted.T)
        ends.set_data(*got.T)
        off = (got - wanted).norm(dim=-1).mean().item()
        calls = n * CALLS[solver]
        plural = "s" * (calls > 1)
        ax.title.set_text(f"{solver}, {calls} network call{plural}: off by {off:.3g}")

    return [misses, truth, ends, ax.title], place
