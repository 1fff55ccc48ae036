"""The explorer of a flow: particles that drift from noise to data, or jump (chapter 01).

What is heavy is computed at construction for every position of the sliders, and looked up later.
"""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Tensor

from som_lite.flow.ode import euler_step, rk4_step, solve
from som_lite.view import plots
from som_lite.view.canvas import flow_canvas
from som_lite.view.controls import Choice, Slider
from som_lite.view.explorer import Explorer
from som_lite.view.style import figure, plane

Velocity = Callable[[Tensor, Tensor], Tensor]
Points = Float[Tensor, "n 2"]
TIME = Slider(0.0, 1.0, 0.05, 0.5, "from noise at 1 to data at 0")
EULER = [1, 2, 4, 8, 32]  # steps to go
BETWEEN = 4  # Runge-Kutta steps from one position of the slider to the next: exact in a picture
LINES = 14  # particles that draw the line behind them


def flow_field_explorer(
    velocity: Velocity,
    log_prob: Callable[[Tensor], Tensor],
    noise: Points | None = None,
    limit=3.0,
) -> Explorer:
    """Arrows of v and particles at time t; and where n Euler steps take the particles from there.

    velocity  v(a, t) with a (n, 2) and t (n, 1), for example a trained net
    log_prob  the target's log density, (n, 2) -> (n,)
    noise     the particles at t = 1, by default 150 normal draws
    """
    if noise is None:
        noise = torch.randn(150, 2, generator=torch.Generator().manual_seed(0))

    def v(a, t):  # at t = 0 a density with hard edges has no velocity
        return velocity(a, t.clamp(min=1e-3))

    fig, (left, right) = figure(8.4, 4.9, ncols=2)
    for ax in (left, right):
        plane(ax, limit)
        plots.backdrop(ax, log_prob)
    with torch.no_grad():
        steps = BETWEEN * (len(TIME.positions) - 1)
        paths = solve(v, noise, steps=steps, step=rk4_step, trajectory=True)
        flow, place_flow = _flow_panel(left, v, paths)
        promise, place_promise = _promise_panel(right, v, paths)

    def place(t, n):
        now = steps - round(t * steps)  # the row of paths at time t
        place_flow(t, now)
        place_promise(t, n, now)

    return Explorer(
        fig,
        moving=[*flow, *promise],
        place=place,
        controls={"t": TIME, "n": Choice(EULER, 1, "Euler steps for the rest of the way")},
        name="A flow from noise to data",
        description="Left, over the target density: arrows of the velocity at time t, pointing the "
        "way a sampler moves, and particles that drift from noise at t = 1 into the target at "
        "t = 0, some with the line behind them. Right: where n Euler steps take each particle "
        "from there. One step from t = 1 puts all of them on one spot, the mean of the data; the "
        "later it starts or the more steps it takes, the nearer they come to the target.",
        play=True,
        page=partial(
            flow_canvas, v, log_prob, noise, (0.55 * limit, -0.6 * limit), EULER, 1, limit=limit
        ),
    )


def _flow_panel(ax: Axes, velocity: Velocity, paths: Float[Tensor, "steps n 2"]):
    """Left panel: the field at time t, the particles, and lines behind some of them."""
    cells = 12
    where = plots.grid(ax, cells).reshape(-1, 2)
    # Minus, since arrows point the way a sampler moves, from noise to data.
    v = {t: -velocity(where, torch.full((len(where), 1), t)).numpy() for t in TIME.positions}
    points = paths.numpy()
    behind = points[:, :LINES].swapaxes(0, 1)
    arrows = plots.field(ax, v[1.0], cells, "velocity", scale=0.13, width=0.005)
    lines = plots.trajectories(ax, points[:1, :LINES], "reference", linewidth=0.9, alpha=0.8)
    particles = plots.particles(ax, points[0], "noise", size=4.5, alpha=0.9)
    plots.key(
        ax,
        {
            "$-v(a, t)$": ("velocity", "arrow"),
            "particles": ("noise", "points"),
            "flow lines": ("reference", "line"),
        },
        ncols=3,
    )

    def place(t: float, now: int) -> None:
        arrows.set_UVC(*v[t].T)
        lines.set_segments(list(behind[:, : now + 1]))
        particles.set_data(*points[now].T)
        ax.title.set_text(f"the flow at t = {t:.2f}")

    return [arrows, lines, particles, ax.title], place


def _promise_panel(ax: Axes, velocity: Velocity, paths: Float[Tensor, "steps n 2"]):
    """Right panel: where n Euler steps from time t end, beside where the flow ends."""
    now = paths[::BETWEEN].flip(0)  # as TIME.positions, which rise
    t = torch.tensor(TIME.positions)[:, None, None].expand(*now.shape[:2], 1)
    ends = {n: solve(velocity, now, t, 0.0, n, euler_step) for n in EULER}
    off = {n: (end - paths[-1]).norm(dim=-1).mean(dim=-1).tolist() for n, end in ends.items()}
    plots.particles(ax, paths[-1], "reference", size=3.5, alpha=0.5)
    landed = plots.particles(ax, paths[-1], "flow", size=5)
    plots.key(
        ax,
        {
            "after the Euler steps": ("flow", "points"),
            "where the flow ends": ("reference", "points"),
        },
    )

    def place(t: float, n: int, now: int) -> None:
        k = TIME.positions.index(t)
        landed.set_data(*ends[n][k].T)
        ax.title.set_text(f"{n} Euler step{'s' * (n > 1)} from there: off by {off[n][k]:.2f}")

    return [landed, ax.title], place
