"""A one-step sampler of ``exp(q(a) / alpha)`` on the box ``[-1, 1]^d``, trained from q alone.

One network ``u(a, r, t)`` learns from two kinds of rows, both by plain squared error:

* at one time (r = t): ``u = v = (a - m) / t``, the posterior mean m estimated from q (flow.scores);
* over an interval (r < t): ``u = (a_t - a_r) / (t - r)``, from two points of a flow line that a
  slow copy of the network follows from noise with its own ``u(a, t, t)`` (flow.intervals).
"""

import copy

import torch
from jaxtyping import Float
from torch import Tensor

from som_lite.flow.intervals import T_MIN, Rows, in_box, interval_rows
from som_lite.flow.meanflow import AverageVelocity, sample
from som_lite.flow.nets import SkipVelocityNet
from som_lite.flow.paths import Linear
from som_lite.flow.scores import Energy, shared_posterior_mean_estimate


class OneStepSampler:
    """Maps noise to points of the box: ``sample(n)`` in one network call, or in several."""

    def __init__(self, net: SkipVelocityNet, dim: int, seed: int = 0) -> None:
        self.net, self.dim = net, dim
        self.generator = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def sample(self, n: int, steps: int = 1) -> Float[Tensor, "n d"]:
        """n points, each from fresh noise."""
        eps = torch.randn(n, self.dim, generator=self.generator)
        return sample(in_box(self.net), eps, steps)


def instant_rows(
    q: Energy, alpha: float, own: Float[Tensor, "n d"], K: int, generator: torch.Generator
) -> Rows:
    """Rows with r = t at noised points: half of them the model's ``own`` samples, half uniform."""
    n, path = len(own), Linear()
    uniform = 2 * torch.rand(own.shape, generator=generator) - 1
    a0 = torch.where(torch.arange(n)[:, None] % 2 == 0, own, uniform)
    t = torch.rand(n, 1, generator=generator).square().clamp(min=T_MIN)
    a = path.noise(a0, torch.randn(own.shape, generator=generator), t)
    some = own[torch.randint(n, (n, K // 2), generator=generator)]
    m = shared_posterior_mean_estimate(q, a, t, path, alpha, K - K // 2, generator, some).m
    return Rows(a, t, t, path.velocity_from_mean(m, a, t))


def squared_error(u: AverageVelocity, rows: Rows) -> Float[Tensor, ""]:
    """Mean over the rows of ``|u(a, r, t) - wanted|^2``, summed over dimensions."""
    return (u(rows.a, rows.r, rows.t) - rows.u).square().sum(-1).mean()


def fit_one_step_sampler(
    q: Energy,
    dim: int,
    alpha: float,
    seed: int = 0,
    *,
    updates: int = 4000,
    batch: int = 256,
    K: int = 64,
    lines: int = 64,
    steps: int = 8,
    pairs: int = 4,
    interval_weight: float = 2.0,
    learning_rate: float = 5e-3,
    memory: float = 0.99,
    hidden: tuple[int, ...] = (128, 128, 128),
) -> OneStepSampler:
    """Train a one-step sampler of the density proportional to ``exp(q / alpha)`` on the box.

    q maps (..., d) to (...); its gradient is not used. An update regresses on ``batch`` rows with
    r = t, from K proposals each, and on ``lines * pairs`` rows with r < t, from flow lines of
    ``steps`` solver steps. The slow copy that draws them, and that is returned, is the running mean
    of the weights over about ``1 / (1 - memory)`` updates. Adam's step size falls from
    ``learning_rate`` to 0 along a half cosine. Raises ValueError for dim, updates < 1, K < 2 or
    alpha <= 0.
    """
    for name, value, least in (("dim", dim, 1), ("K", K, 2), ("updates", updates, 1)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
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
            eps = torch.randn(lines, dim, generator=generator)
            interval = interval_rows(slow, eps, steps, pairs, generator)
        loss = squared_error(net, instant) + interval_weight * squared_error(net, interval)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        for old, new in zip(slow.parameters(), net.parameters(), strict=True):
            old.lerp_(new.detach(), 1 - memory)
    return OneStepSampler(slow, dim, seed)
