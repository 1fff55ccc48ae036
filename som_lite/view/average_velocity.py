"""The explorer of average velocities: u(a, r, t) beside v(a, t), one step beside many (chapter 02).

What is heavy is computed at construction for every position of the sliders, and looked up later.
"""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Tensor

from som_lite.flow.meanflow import average_velocity
from som_lite.flow.ode import euler_step, rk4_step, solve
from som_lite.view import plots
from som_lite.view.canvas import flow_canvas
from som_lite.view.controls import Choice, Slider
from som_lite.view.explorer import Explorer
from som_lite.view.style import figure, plane

Velocity = Callable[[Tensor, Tensor], Tensor]
AverageVelocity = Callable[[Tensor, Tensor, Tensor], Tensor]
Points = Float[Tensor, "n 2"]
EULER = [1, 2, 4, 8, 16, 32]  # steps
FINE = 16  # Runge-Kutta steps that count as exact in a picture


def average_velocity_explorer(
    velocity: Velocity,
    average: AverageVelocity | None = None,
    *,
    log_prob: Callable[[Tensor], Tensor],
    noise: Points | None = None,
    limit=3.0,
) -> Explorer:
    """Arrows of u and v with one jump of u, and end points of one step of u and n Euler steps of v.

    velocity  v(a, t) with a (n, 2) and t (n, 1)
    average   u(a, r, t), for example a trained net; by default the truth, by integrating `velocity`
    log_prob  the target's log density, (n, 2) -> (n,)
    noise     where the samplers on the right start, by default 120 normal draws
    """
    if noise is None:
        noise = torch.randn(120, 2, generator=torch.Generator().manual_seed(0))

    def v(a, t):  # at t = 0 a density with hard edges has no velocity
        return velocity(a, t.clamp(min=1e-3))

    u = average or (lambda a, r, t: average_velocity(v, a, r, t, FINE))
    fig, (left, right) = figure(8.4, 4.9, ncols=2)
    for ax in (left, right):
        plane(ax, limit)
        plots.backdrop(ax, log_prob)
    r = Slider(0.0, 1.0, 0.05, 0.3, "start of the interval")
    t = Slider(0.0, 1.0, 0.05, 1.0, "its end, and the time of the point x")
    starts = limit * torch.tensor([[0.55, -0.6], [-0.7, 0.35], [0.3, 0.75], [-0.25, -0.7]])
    with torch.no_grad():
        interval, place_interval = _interval_panel(left, v, u, r.positions, starts)
        steps, place_steps = _steps_panel(right, v, u, noise)

    def place(r, t, x, n):
        place_interval(r, t, x - 1)
        place_steps(n)

    return Explorer(
        fig,
        moving=[*interval, *steps],
        place=place,
        controls={
            "r": r,
            "t": t,
            "x": Choice(range(1, len(starts) + 1), 1, "which point jumps"),
            "n": Choice(EULER, 2, "Euler steps on the right"),
        },
        ordered=("r", "t"),
        name="Average and instantaneous velocity",
        description="Left, over the target density: arrows of the instantaneous velocity v at time "
        "t and of the average velocity u over [r, t], both pointing the way a sampler moves. They "
        "coincide at r = t and part as r falls. One jump along u from the point x lands where the "
        "curved path of v ends. Right: a few Euler steps of v end far from where the flow ends, "
        "one step of u ends there.",
        page=partial(
            flow_canvas,
            v,
            log_prob,
            noise,
            tuple(starts[0].tolist()),
            EULER,
            2,
            limit=limit,
            interval=(r.start, t.start),
            average=average,
        ),
    )


def _tabulate(velocity, average, times: list[float], where: Tensor, starts: Tensor):
    """For all r <= t: row[r, t] of -u at `where`, of the paths from the starts and of their jumps.

    Also -v[t] at `where`: minus, since arrows point the way a sampler moves, from noise to data.
    """
    pairs = [(r, t) for t in times for r in times if r <= t]

    def at_every_pair(points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        r, t = torch.tensor(pairs).repeat_interleave(len(points), dim=0).T[..., None]
        return points.repeat(len(pairs), 1), r, t

    v = {t: -velocity(where, torch.full((len(where), 1), t)).numpy() for t in times}
    u = -average(*at_every_pair(where)).reshape(len(pairs), -1, 2).numpy()
    a, r, t = at_every_pair(starts)
    jumps = (-(t - r) * average(a, r, t)).reshape(len(pairs), -1, 2).numpy()
    paths = solve(velocity, a, t, r, FINE, rk4_step, trajectory=True)
    paths = paths.reshape(FINE + 1, len(pairs), -1, 2).numpy()
    return {pair: k for k, pair in enumerate(pairs)}, v, u, paths, jumps


def _interval_panel(ax: Axes, velocity, average, times: list[float], starts: Points):
    """Left panel: arrows of v and u, and the jump from a start to the end of its path."""
    cells, scale = 10, 0.2
    where = plots.grid(ax, cells).reshape(-1, 2)
    row, v, u, paths, jumps = _tabulate(velocity, average, times, where, starts)
    tails = starts.numpy()

    broad = plots.field(ax, v[1.0], cells, "velocity", scale=scale, width=0.010)
    slim = plots.field(ax, u[0], cells, "average", scale=scale, width=0.005)
    path = plots.trajectories(ax, paths[:, :1, 0], "reference", linewidth=1.5, alpha=1.0)
    jump = plots.arrow(ax, tails[0], jumps[0, 0], "average")
    start = plots.particles(ax, tails[:1], "noise", size=9, alpha=1.0)
    end = plots.particles(ax, tails[:1], "reference", size=9, alpha=1.0)

    def place(r: float, t: float, point: int) -> None:
        k = row[r, t]
        broad.set_UVC(*v[t].T)
        slim.set_UVC(*u[k].T)
        path.set_segments([paths[:, k, point]])
        jump.set_offsets(tails[point])
        jump.set_UVC(*jumps[k, point])
        start.set_data(*tails[point, :, None])
        end.set_data(*paths[-1, k, point, :, None])
        ax.title.set_text(f"from t = {t:.2f} to r = {r:.2f}")

    plots.key(
        ax,
        {
            "$-v(a, t)$": ("velocity", "arrow"),
            "$-u(a, r, t)$, and one jump": ("average", "arrow"),
            "$a$ at time $t$": ("noise", "points"),
            "flow line to time $r$": ("reference", "path"),
        },
    )
    return [broad, slim, path, start, jump, end, ax.title], place


def _steps_panel(ax: Axes, velocity, average, noise: Points):
    """Right panel: where n Euler steps of v and one step of u take the noise."""
    ones = torch.ones_like(noise[:, :1])
    exact = solve(velocity, noise, steps=FINE, step=rk4_step)
    once = noise - average(noise, 0 * ones, ones)
    euler = {n: solve(velocity, noise, steps=n, step=euler_step) for n in EULER}
    plots.particles(ax, noise, "noise", size=2.5, alpha=0.6)
    many = plots.particles(ax, euler[1], "flow", size=6, alpha=0.6)
    one = plots.particles(ax, once, "one-step", size=3.5, alpha=1.0)
    one.set_zorder(many.get_zorder() + 1)  # on top, and smaller: neither hides the other
    plots.key(
        ax,
        {
            "Euler steps of $v$": ("velocity", "points"),
            f"one step of $u$: off by {_distance(once, exact):.2f}": ("average", "points"),
            "noise": ("noise", "points"),
        },
    )

    def place(n: int) -> None:
        many.set_data(*euler[n].T)
        ax.title.set_text(f"{n} Euler step{'s' * (n > 1)}: off by {_distance(euler[n], exact):.2f}")

    return [many, one, ax.title], place


def _distance(x: Points, y: Points) -> float:
    """Mean distance between points of the same row."""
    return (x - y).norm(dim=-1).mean().item()
