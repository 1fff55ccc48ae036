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
from som_lite.flow.ode import Times, Velocity
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


def mean_heun_step(velocity: Velocity, a: Points, t: Times, r: Times) -> Points:
    """From t to r with the average of the posterior means (not velocities) at both ends.

    ``a_r = r/t a + (1 - r/t) (m_0 + m_1) / 2``, ``m = a - t v``. To r = 0 it is an Euler step.
    """
    v0 = velocity(a, t)
    v1 = velocity(a - (t - r) * v0, r)
    late = r / (2 * t)
    return a - (t - r) * ((1 - late) * v0 + late * v1)


def flow_line(velocity: Velocity, eps: Points, times: Float[Tensor, "T"]) -> Float[Tensor, "T n d"]:
    """Points of the flow lines through eps, at falling times of which the first belongs to eps."""
    points, ones = [eps], torch.ones_like(eps[:, :1])
    for t, r in pairwise(times):
        points.append(mean_heun_step(velocity, points[-1], t * ones, r * ones))
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
