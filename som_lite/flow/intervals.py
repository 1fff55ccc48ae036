"""Average velocity by its definition: follow a flow line, ``u = (a_t - a_r) / (t - r)``.

MeanFlow's identity (2505.13447) needs the derivative of the network along the flow, which magnifies
every error of the velocity. A short ODE solve needs none: it is the consistency of SplitMeanFlow
(2507.16884) with many splits at once. All on the linear path. There ``a - t u(a, r, t)``
is the average of the posterior means along the flow line over [r, t] with weight ``1 / tau^2``: the
posterior mean at r = t, the end point at r = 0, and always in the box ``[-1, 1]^d``.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from som_lite.flow.meanflow import AverageVelocity
from som_lite.flow.ode import Times, Velocity, euler_step, heun_step
from som_lite.flow.paths import Points

T_MIN = 3e-3  # noise of this size blurs nothing that a small network resolves


class Rows(NamedTuple):
    """What to regress on: points a, times r <= t, and the average velocity u wanted there."""

    a: Float[Tensor, "n d"]
    r: Float[Tensor, "n 1"]
    t: Float[Tensor, "n 1"]
    u: Float[Tensor, "n d"]


def in_box(u: AverageVelocity) -> AverageVelocity:
    """u with ``a - t u`` moved to the nearest point of the box, which the truth never leaves."""

    def projected(a: Points, r: Times, t: Times) -> Points:
        return (a - (a - t * u(a, r, t)).clamp(-1, 1)) / t.clamp(min=T_MIN)

    return projected


def flow_line(velocity: Velocity, eps: Points, times: Float[Tensor, "T"]) -> Float[Tensor, "T n d"]:
    """Points of the flow lines through eps, at falling times of which the first belongs to eps.

    Heun's steps; an Euler step to t = 0, which ends at the posterior mean. Eight steps at
    `falling_times` carry normals of any deviation from .03 to .5 to within 6 % of their width.
    """
    points, ones = [eps], torch.ones_like(eps[:, :1])
    for t, r in pairwise(times):
        step = heun_step if r > 0 else euler_step
        points.append(step(velocity, points[-1], t * ones, (r - t) * ones))
    return torch.stack(points)


def falling_times(steps: int, generator: torch.Generator) -> Float[Tensor, "T"]:
    """``steps + 1`` times from 1 to 0: squares of a randomly shifted even grid, dense near data."""
    device = generator.device
    shift = torch.rand((), generator=generator, device=device) - 0.5
    inner = ((torch.arange(steps - 1, 0, -1, device=device) + shift) / steps).square()
    return torch.cat([torch.ones(1, device=device), inner, torch.zeros(1, device=device)])


def interval_rows(
    u: AverageVelocity,
    eps: Float[Tensor, "n d"],
    steps: int,
    pairs: int,
    generator: torch.Generator,
) -> Rows:
    """``pairs`` rows per flow line of u's own velocity: the interval (0, 1) and random ones.

    They come in ``pairs`` blocks of n; u closes over a condition, if there is one.
    """
    times = falling_times(steps, generator)
    line = flow_line(lambda a, t: in_box(u)(a, t, t), eps, times)
    start = torch.randint(steps, (pairs, len(eps)), generator=generator, device=eps.device)
    share = torch.rand(pairs, len(eps), generator=generator, device=eps.device)
    end = start + 1 + (share * (steps - start)).long()
    start[0], end[0] = 0, steps
    which = torch.arange(len(eps), device=eps.device)
    a, a_r = line[start, which].flatten(0, 1), line[end, which].flatten(0, 1)
    t, r = times[start].reshape(-1, 1), times[end].reshape(-1, 1)
    return Rows(a, r, t, (a - a_r) / (t - r))
