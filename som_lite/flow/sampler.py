"""A one-step sampler of ``exp(q(a) / alpha)`` on the box ``[-1, 1]^d``, trained from q alone.

One network ``u(a, r, t)`` learns from two kinds of rows, both by plain squared error:

* at one time (r = t): ``u = v = (a - m) / t``, with the posterior mean m estimated from q (som_lite.flow.scores);
* over an interval (r < t): the *definition* of the average velocity, ``u = (a_t - a_r) / (t - r)``, where a_t and a_r
  lie on one flow line. The line starts at noise and follows the velocity of a slow copy of the network.

The second kind replaces the derivative in MeanFlow's identity (2505.13447), which magnifies every error of the
velocity, by a short ODE solve: the consistency of SplitMeanFlow (2507.16884) with the finest split. The linear path is used.
"""

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from som_lite.flow.meanflow import AverageVelocity, sample
from som_lite.flow.nets import SkipVelocityNet
from som_lite.flow.ode import Times, Velocity
from som_lite.flow.paths import Linear, Points
from som_lite.flow.scores import Energy, shared_posterior_mean_estimate

LINEAR = Linear()
T_MIN = 3e-3  # below it the noise is far smaller than any detail the network resolves


class Rows(NamedTuple):
    """Regression rows: points a (n, d), times r <= t (n, 1), and the average velocity u (n, d) wanted there."""

    a: Float[Tensor, "n d"]
    r: Float[Tensor, "n 1"]
    t: Float[Tensor, "n 1"]
    u: Float[Tensor, "n d"]


class OneStepSampler:
    """Maps noise to samples: ``sample(n)`` in one network call, ``sample(n, steps)`` in several."""

    def __init__(self, net: SkipVelocityNet, dim: int, seed: int = 0) -> None:
        self.net, self.dim = net, dim
        self.generator = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def sample(self, n: int, steps: int = 1) -> Float[Tensor, "n d"]:
        """n points of the box, each from fresh noise."""
        eps = torch.randn(n, self.dim, generator=self.generator)
        return sample(in_box(self.net), eps, steps)


def in_box(u: AverageVelocity) -> AverageVelocity:
    """u with ``a - t u`` moved into the box ``[-1, 1]^d``.

    On the linear path ``a - t u`` is an average over ``[r, t]``, with weight ``1 / tau^2``, of the posterior means along
    the flow line (at r = t the posterior mean, at r = 0 the end point), so it lies in the box if u is right.
    """

    def projected(a: Points, r: Times, t: Times) -> Points:
        return (a - (a - t * u(a, r, t)).clamp(-1, 1)) / t.clamp(min=T_MIN)

    return projected


def heun_step(velocity: Velocity, a: Points, t: Times, r: Times) -> Points:
    """From t to r by averaging the posterior means, not the velocities, at both ends of an Euler step.

    ``a_r = r/t a + (1 - r/t) (m_0 + m_1) / 2`` with ``m = a - t v``. At r = 0 it never asks for the velocity at 0.
    """
    v0 = velocity(a, t)
    v1 = velocity(a - (t - r) * v0, r)
    late = r / (2 * t)
    return a - (t - r) * ((1 - late) * v0 + late * v1)


def flow_line(velocity: Velocity, eps: Points, times: Float[Tensor, "T"]) -> Float[Tensor, "T n d"]:
    """Points of the flow lines that start at eps, at the falling times (the first is 1, the last 0)."""
    points, ones = [eps], torch.ones_like(eps[:, :1])
    for t, r in zip(times[:-1], times[1:], strict=True):
        points.append(heun_step(velocity, points[-1], t * ones, r * ones))
    return torch.stack(points)


def falling_times(steps: int, generator: torch.Generator) -> Float[Tensor, "T"]:
    """``steps + 1`` times from 1 to 0, squares of a randomly shifted even grid: dense near the data."""
    shift = torch.rand((), generator=generator) - 0.5
    inner = ((torch.arange(steps - 1, 0, -1) + shift) / steps).square()
    return torch.cat([torch.ones(1), inner, torch.zeros(1)])


def interval_rows(
    u: AverageVelocity, dim: int, lines: int, steps: int, pairs: int, generator: torch.Generator
) -> Rows:
    """From each of the flow lines: the whole interval (0, 1), and ``pairs - 1`` random pairs of its points."""
    eps = torch.randn(lines, dim, generator=generator)
    times = falling_times(steps, generator)
    line = flow_line(lambda a, t: in_box(u)(a, t, t), eps, times)
    start = torch.randint(steps, (pairs, lines), generator=generator)
    length = torch.rand(pairs, lines, generator=generator) * (steps - start)
    end = start + 1 + length.long()
    start[0], end[0] = 0, steps
    which = torch.arange(lines)
    a, a_r = line[start, which].flatten(0, 1), line[end, which].flatten(0, 1)
    t, r = times[start].reshape(-1, 1), times[end].reshape(-1, 1)
    return Rows(a, r, t, (a - a_r) / (t - r))


def instant_rows(
    q: Energy, alpha: float, own: Float[Tensor, "B d"], K: int, generator: torch.Generator
) -> Rows:
    """Velocities at r = t from q, at noised actions: half of them the model's own samples, half uniform."""
    uniform = 2 * torch.rand(own.shape, generator=generator) - 1
    a0 = torch.where(torch.arange(len(own))[:, None] % 2 == 0, own, uniform)
    t = torch.rand(len(own), 1, generator=generator).square().clamp(min=T_MIN)
    a = LINEAR.noise(a0, torch.randn(own.shape, generator=generator), t)
    helpers = own[torch.randint(len(own), (len(own), K // 2), generator=generator)]
    estimate = shared_posterior_mean_estimate(q, a, t, LINEAR, alpha, K // 2, generator, helpers)
    return Rows(a, t, t, LINEAR.velocity_from_mean(estimate.m, a, t))


def fit_one_step_sampler(
    q: Callable[[Float[Tensor, "*batch d"]], Float[Tensor, "*batch"]],
    dim: int,
    alpha: float,
    seed: int = 0,
    *,
    updates: int = 5000,
    batch: int = 256,
    K: int = 64,
    lines: int = 64,
    steps: int = 8,
    pairs: int = 4,
    interval_weight: float = 2.0,
    learning_rate: float = 5e-3,
    memory: float = 0.995,
    hidden: tuple[int, ...] = (128, 128, 128),
) -> OneStepSampler:
    """Train a one-step sampler of the density proportional to ``exp(q / alpha)`` on ``[-1, 1]^dim``.

    q maps (..., d) to (...); its gradient is not used. Each update regresses on ``batch`` rows at one time, with
    K proposals each, and on ``lines * pairs`` interval rows, made by ``steps`` solver steps of the slow copy, whose
    weights are the running mean of the trained ones over about ``1 / (1 - memory)`` updates. Adam's step size falls
    from ``learning_rate`` to 0 by a half cosine. The returned sampler uses the slow copy.
    """
    if dim < 1:
        raise ValueError(f"dim must be at least 1, got {dim}")
    if alpha <= 0:
        raise ValueError(f"alpha, the temperature, must be above 0, got {alpha}")
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = SkipVelocityNet(dim, hidden=hidden)
    slow = copy.deepcopy(net).requires_grad_(False)
    optimizer = torch.optim.Adam(net.parameters(), learning_rate, betas=(0.9, 0.99), fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    for _ in range(updates):
        with torch.no_grad():
            own = sample(in_box(slow), torch.randn(batch, dim, generator=generator))
            instant = instant_rows(q, alpha, own, K, generator)
            interval = interval_rows(slow, dim, lines, steps, pairs, generator)
        loss = squared_error(net, instant) + interval_weight * squared_error(net, interval)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        for old, new in zip(slow.parameters(), net.parameters(), strict=True):
            old.lerp_(new.detach(), 1 - memory)
    return OneStepSampler(slow, dim, seed)


def squared_error(u: AverageVelocity, rows: Rows) -> Float[Tensor, ""]:
    """Mean over the rows of ``|u(a, r, t) - wanted|^2``, summed over dimensions."""
    return (u(rows.a, rows.r, rows.t) - rows.u).square().sum(-1).mean()
