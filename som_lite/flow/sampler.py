"""A one-step sampler of ``exp(q(a) / alpha)`` on the box ``[-1, 1]^d``, trained from q alone.

One network ``u(a, r, t)`` learns from two kinds of rows, both by plain squared error:

* at one time (r = t): ``u = v = (a - m) / t``, the posterior mean m estimated from q (flow.scores);
* over an interval (r < t): ``u = (a_t - a_r) / (t - r)``, from two points of a flow line that a
  slow copy of the network follows from noise with its own ``u(a, t, t)`` (flow.intervals).

The temperature falls to alpha during the first quarter of training: warm densities are broad, and a
mode that has been found once is not lost.
"""

import copy
import math
import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from som_lite.flow.intervals import T_MIN, Rows, in_box, interval_rows
from som_lite.flow.meanflow import AverageVelocity, sample
from som_lite.flow.nets import MLP, SkipVelocityNet
from som_lite.flow.paths import Linear
from som_lite.flow.scores import (
    Energy,
    blurred,
    effective_sample_size,
    kernel_log_density,
    pool_mean,
    proposal_pool,
    sharpened,
)

WIDTHS = (0.05, 0.15, 0.3)  # blurs of the model's samples: narrow modes, few and many dimensions
SHARING = 32  # rows that share their proposals: the more, the smaller the bias of each


@dataclass(frozen=True)
class Diagnosis:
    """What a fitted sampler's own proposals say about it, from fresh noise.

    ``missed`` is the share of the target's mass, as uniform points of the box see it, that lies far
    from all of the model's samples.
    """

    t: tuple[float, ...]  # noise levels
    ess: tuple[float, ...]  # median effective number of proposals at each of them
    box_wins: tuple[float, ...]  # share of points whose heaviest proposal came from the box
    missed: float

    @property
    def doubts(self) -> str:
        """Why the sampler should not be trusted; empty if nothing speaks against it."""
        found = []
        if min(self.ess) < 4:
            worst = self.t[self.ess.index(min(self.ess))]
            found.append(f"at t = {worst} only {min(self.ess):.1f} proposals count (4 wanted)")
        if self.missed > 0.1:
            found.append(f"{self.missed:.0%} of the target's mass lies where it does not sample")
        return "; ".join(found)


class OneStepSampler:
    """Maps noise to points of the box: ``sample(n)`` in one network call, or in several."""

    def __init__(
        self, net: SkipVelocityNet, dim: int, seed: int = 0, diagnosis: Diagnosis | None = None
    ) -> None:
        self.net, self.dim, self.diagnosis = net, dim, diagnosis
        self.generator = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def sample(self, n: int, steps: int = 1) -> Float[Tensor, "n d"]:
        """n points, each from fresh noise."""
        eps = torch.randn(n, self.dim, generator=self.generator)
        return sample(in_box(self.net), eps, steps)


def instant_rows(
    q: Energy,
    alpha: float | Tensor,
    own: Float[Tensor, "S C d"],
    M: int,
    K: int,
    generator: torch.Generator,
    uniform: float = 0.25,
    sharpen: bool = False,
) -> Rows:
    """M rows with r = t for each of S states: noised samples of the model, some of them uniform.

    q maps (S, P, d) to (S, P). All rows of a state share its proposals, K box proposals a row and
    its C samples, blurred (flow.scores.proposal_pool): q is asked MK + C times a state. The first M
    samples are noised, a share ``uniform`` of them replaced by uniform points of the box. Times are
    squares of an even spread, dense near data. ``sharpen`` takes the first order of the weights'
    bias out (flow.scores.sharpened). Rows of a state follow each other.
    """
    S = len(own)
    near = own[:, :M].clamp(-1, 1)
    far = 2 * torch.rand(near.shape, generator=generator, device=own.device) - 1
    chance = torch.rand(S, M, 1, generator=generator, device=own.device)
    a0 = torch.where(chance < uniform, far, near)
    shift = torch.rand(S, M, 1, generator=generator, device=own.device)
    t = ((torch.arange(M, device=own.device)[:, None] + shift) / M).square().clamp(min=T_MIN)
    eps = torch.randn(a0.shape, generator=generator, device=own.device)
    a = Linear().noise(a0, eps, t)
    pool = proposal_pool(q, a, t, Linear(), alpha, K, generator, own, WIDTHS)
    m = pool_mean(pool._replace(w=sharpened(pool.w)) if sharpen else pool)
    v = Linear().velocity_from_mean(m, a, t)
    a, t, v = (x.flatten(0, 1) for x in (a, t, v))
    return Rows(a, t, t, v)


@torch.no_grad()
def magnify_inputs(mlp: MLP, gain: float) -> None:
    """Start from features finer by ``gain``: a fresh network learns smooth functions first."""
    for parameter in mlp[0].parameters():
        parameter.mul_(gain)


def squared_error(u: AverageVelocity, rows: Rows) -> Float[Tensor, ""]:
    """Mean over the rows of ``|u(a, r, t) - wanted|^2``, summed over dimensions."""
    return (u(rows.a, rows.r, rows.t) - rows.u).square().sum(-1).mean()


def spread_over_box(q: Energy, dim: int, generator: torch.Generator) -> float:
    """Standard deviation of q at 1000 uniform points of the box."""
    return float(q(2 * torch.rand(1000, dim, generator=generator) - 1).std())


def falling_temperature(start: float, end: float, progress: float) -> float:
    """Geometrically from start (or from end, if that is higher) to end, reached at progress = 1."""
    return end * max(1.0, start / end) ** max(0.0, 1 - progress)


@torch.no_grad()
def diagnose(
    q: Energy, alpha: float, own: Float[Tensor, "n d"], generator: torch.Generator
) -> Diagnosis:
    """Ask the estimator and 20 000 uniform points of the box how far to trust samples ``own``."""
    d, levels, n = own.shape[1], (0.1, 0.3, 0.5, 0.7, 0.9, 0.999), 32
    ess, wins = [], []
    for t in levels:
        some = own[torch.randint(len(own), (n, 1, 1), generator=generator), torch.arange(d)]
        a = Linear().noise(some, torch.randn(some.shape, generator=generator), t)
        centres = own[torch.randint(len(own), (n, 64), generator=generator)]
        times = torch.full((n, 1, 1), t)
        pool = proposal_pool(q, a, times, Linear(), alpha, 64, generator, centres, WIDTHS)
        ess.append(float(effective_sample_size(pool.w).median()))
        wins.append(float((pool.w.argmax(-1) < 64).float().mean()))
    return Diagnosis(levels, tuple(ess), tuple(wins), missed_mass(q, alpha, own, generator))


def missed_mass(
    q: Energy, alpha: float, own: Float[Tensor, "n d"], generator: torch.Generator
) -> float:
    """The share of the mass of ``exp(q / alpha)`` far from all samples ``own``, by importance.

    Far: half as far again from the nearest sample as 99 of 100 samples are from each other. Asked
    of 20 n uniform points of the box; the samples, blurred, stand for the rest of the mass.
    """
    n, d = own.shape
    uniform = 2 * torch.rand(20 * n, d, generator=generator) - 1
    z = torch.cat([uniform, blurred(own[None], WIDTHS, generator)[0]])
    log_own = kernel_log_density(z[None], own[None], WIDTHS)[0]
    log_uniform = own.new_tensor(20.0 * n).log() - d * math.log(2)
    w = (q(z) / alpha - torch.logaddexp(log_uniform, log_own + math.log(n))).softmax(0)
    apart = torch.cdist(own, own).fill_diagonal_(torch.inf).amin(1).quantile(0.99)
    return float(w[: len(uniform)][torch.cdist(uniform, own).amin(1) > 1.5 * apart].sum())


def fit_one_step_sampler(
    q: Energy,
    dim: int,
    alpha: float,
    seed: int = 0,
    *,
    updates: int = 4000,
    batch: int = 256,
    K: int = 8,
    lines: int = 128,
    steps: int = 8,
    pairs: int = 4,
    interval_weight: float = 1.0,
    warm: float = 0.25,
    learning_rate: float = 1e-2,
    memory: float = 0.99,
    hidden: tuple[int, ...] = (128, 128, 128),
    gain: float = 3.0,
) -> OneStepSampler:
    """Train a one-step sampler of the density proportional to ``exp(q / alpha)`` on the box.

    q maps (..., d) to (...); its gradient is not used. An update regresses on ``batch`` rows with
    r = t, for each of which q is asked K times, and on ``lines * pairs`` rows with r < t, from flow
    lines of ``steps`` solver steps. The slow copy that draws them, and that is returned, is the
    running mean of the weights over about ``1 / (1 - memory)`` updates. The temperature falls to
    alpha during the share ``warm`` of the updates, Adam's step size from ``learning_rate`` to 0
    along a half cosine. The first layer starts ``gain`` times larger than usual, for narrow modes.
    The sampler comes with a `Diagnosis`; one UserWarning tells its doubts. Raises ValueError for
    dim, updates < 1, K < 2 or alpha <= 0.
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
    magnify_inputs(net.mlp, gain)
    slow = copy.deepcopy(net).requires_grad_(False)
    optimizer = torch.optim.Adam(net.parameters(), learning_rate, betas=(0.9, 0.99), fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    start = spread_over_box(q, dim, generator)
    group = math.gcd(batch, SHARING)
    states = batch // group
    for update in range(updates):
        with torch.no_grad():
            own = sample(in_box(slow), torch.randn(batch, dim, generator=generator))
            now = falling_temperature(start, alpha, update / max(1.0, warm * updates))
            pools = own[torch.randint(batch, (states, K // 2 * group), generator=generator)]
            instant = instant_rows(q, now, pools, group, K - K // 2, generator, sharpen=True)
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
    own = sample(in_box(slow), torch.randn(1024, dim, generator=generator))
    diagnosis = diagnose(q, alpha, own, generator)
    if diagnosis.doubts:
        warnings.warn(f"one-step sampler not to be trusted: {diagnosis.doubts}", stacklevel=2)
    return OneStepSampler(slow, dim, seed, diagnosis)
