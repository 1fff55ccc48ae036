"""Laws of the path time t: at which times an update looks, and with which weight.

An objective is an integral over times, ``L = int f(t) l(t) dt``, with its own density f. An update
may draw its times from any density p that covers f; with the weights ``w = f / p`` the mean of
``w l`` is L whatever p is, and p decides about the variance alone. Without them p takes the place
of f: another objective.

* `Power`, `Likelihood`, `LogitNormal` are fixed. `BinLaw` is learnt: it reweighs bins of equal mass
  of the objective's law by a running score to some power, mixed with a share of that law.
* The score may be the loss of a row (power 1: loss-proportional; power 1/2: the law of least
  variance where a row's gradient is as long as its error), or
* the decrease of the whole objective by a step on rows of that bin (`trial_decreases`), after
  *Adaptive Non-uniform Timestep Sampling* (Kim et al., 2411.09998).

From that paper is the aim: draw the times whose update lowers the objective over ALL times most,
``Delta_k^t = L(theta_k) - L(theta_{k+1}^(t))``, and measure it while training. The rest is ours.
The paper (and its public code, ku-dmlab/Adaptive-Timestep-Sampler) learns a network ``pi(t | a_0)``
with a Beta law by policy gradients with an entropy bonus, and measures Delta of the updates that
are made anyway, on a few selected times; that code trains without weights w. We take bins, make a
trial step on each which is undone, measure the objective on all times, and leave the weights to
the caller.
"""

import math
from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor

Column = Float[Tensor, "n 1"]
Bins = Float[Tensor, "bins"]


def uniform(n: int, generator: torch.Generator) -> Column:
    """Times spread evenly over [0, 1)."""
    return torch.rand(n, 1, generator=generator, device=generator.device)


Times = Float[Tensor, "*n"]


class Law:
    """A density on (0, 1); a kind of law gives the first three, the rest follows."""

    def density(self, t: Times) -> Times:
        raise NotImplementedError

    def cdf(self, t: Times) -> Times:
        """The mass below t."""
        raise NotImplementedError

    def quantile(self, u: Times) -> Times:
        """The time below which lies the mass u."""
        raise NotImplementedError

    def sample(self, n: int, generator: torch.Generator) -> Column:
        """n independent times."""
        return self.quantile(uniform(n, generator))

    def spread(self, n: int, generator: torch.Generator) -> Column:
        """n times, rising, one from each of n slices of equal mass.

        Each of them, taken at random, has the law; but the share of an interval hardly varies from
        batch to batch (stratified sampling).
        """
        slices = torch.arange(n, device=generator.device)[:, None]
        return self.quantile((slices + uniform(n, generator)) / n)


class Power(Law):
    """``p(t) = k t^(k - 1)``: the largest of k uniform times; k = 1 is uniform.

    A pair of uniform times sorted into r <= t has k = 2 (meanflow.sample_times).
    """

    def __init__(self, k: float = 1.0) -> None:
        if k <= 0:
            raise ValueError(f"k must be above 0, got {k}")
        self.k = k

    def density(self, t: Times) -> Times:
        return self.k * t ** (self.k - 1)

    def cdf(self, t: Times) -> Times:
        return t**self.k

    def quantile(self, u: Times) -> Times:
        return u ** (1 / self.k)


class Likelihood(Law):
    """``p(t)`` proportional to ``(1 - t) / t`` on [low, 1], on the linear path.

    With this weight the squared error of a velocity is that of the score in the bound on the
    log-likelihood (2101.09258, theorem 1): ``g^2 / 2 |ds|^2``, ``g^2 = 2 t / (1 - t)``,
    ``ds = (1 - t) / t dv``.
    """

    def __init__(self, low: float = 1e-3) -> None:
        if not 0 < low < 1:
            raise ValueError(f"low must lie in (0, 1), got {low}: at t = 0 the mass is infinite")
        self.low, self.total = low, low - 1 - math.log(low)
        self.knots = torch.logspace(math.log10(low), 0, 4001)  # of the quantile's table
        self.levels = self.cdf(self.knots)

    def density(self, t: Times) -> Times:
        return torch.where(t < self.low, 0.0, (1 - t) / t / self.total)

    def cdf(self, t: Times) -> Times:
        return ((t / self.low).log() - (t - self.low)).clamp(min=0) / self.total

    def quantile(self, u: Times) -> Times:
        k = torch.searchsorted(self.levels, u.contiguous()).clamp(1, len(self.levels) - 1)
        low, high = self.levels[k - 1], self.levels[k]
        part = ((u - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
        return torch.lerp(self.knots[k - 1], self.knots[k], part)


class LogitNormal(Law):
    """The sigmoid of a normal (2403.03206).

    It falls faster than any power of t towards both ends, so weights f / p have no variance there.
    """

    def __init__(self, mean: float = -0.4, std: float = 1.0) -> None:
        if std <= 0:
            raise ValueError(f"std must be above 0, got {std}")
        self.mean, self.std = mean, std

    def density(self, t: Times) -> Times:
        z = (t.logit() - self.mean) / self.std
        return (-z.square() / 2).exp() / (math.sqrt(2 * math.pi) * self.std * t * (1 - t))

    def cdf(self, t: Times) -> Times:
        return torch.special.ndtr((t.logit() - self.mean) / self.std)

    def quantile(self, u: Times) -> Times:
        return torch.sigmoid(self.mean + self.std * torch.special.ndtri(u))

    def sample(self, n: int, generator: torch.Generator) -> Column:
        z = torch.randn(n, 1, generator=generator, device=generator.device)
        return torch.sigmoid(self.mean + self.std * z)


class BinLaw(Law):
    """A base law cut into bins of equal mass, which are drawn in proportion to ``score^power``.

    A share of the mass stays even, so a weight ``base / p`` is at most ``1 / share``. The score of
    a bin is a running mean over about ``1 / (1 - memory)`` looks. Before a look it is the base law.
    """

    def __init__(
        self,
        base: Law,
        bins: int = 16,
        power: float = 1.0,
        share: float = 0.2,
        memory: float = 0.9,
    ) -> None:
        if bins < 2:
            raise ValueError(f"bins must be at least 2, got {bins}")
        if not 0 < share <= 1:
            raise ValueError(f"share must lie in (0, 1], got {share}: some times would go unseen")
        if not 0 <= memory < 1:
            raise ValueError(f"memory must lie in [0, 1), got {memory}")
        self.base, self.power, self.share, self.memory = base, power, share, memory
        self.mass = torch.full((bins,), 1 / bins)
        self.score: Tensor | None = None

    def bin_of(self, t: Times) -> Int[Tensor, "*n"]:
        bins = len(self.mass)
        return (self.base.cdf(t) * bins).long().clamp(0, bins - 1)

    def density(self, t: Times) -> Times:
        return self.base.density(t) * self.mass[self.bin_of(t)] * len(self.mass)

    def cdf(self, t: Times) -> Times:
        k, bins = self.bin_of(t), len(self.mass)
        below = self.mass.cumsum(0)[k] - self.mass[k]
        return below + self.mass[k] * (self.base.cdf(t) * bins - k)

    def quantile(self, u: Times) -> Times:
        ends = self.mass.cumsum(0)
        k = torch.searchsorted(ends, u.contiguous(), right=True).clamp(max=len(ends) - 1)
        part = (u - ends[k] + self.mass[k]) / self.mass[k]  # of bin k that lies below
        return self.base.quantile((k + part.clamp(0, 1)) / len(ends))

    def learn(self, score: Bins) -> None:
        """Take in a look at the scores, none below 0; NaN where a bin was not seen."""
        if self.score is None:
            self.score = score.nan_to_num(float(score.nanmean()))
        seen = torch.where(score.isnan(), self.score, score)
        self.score = self.score.lerp(seen, 1 - self.memory)
        self.mass = mixed_masses(self.score**self.power, self.share)

    def observe(self, t: Column, value: Float[Tensor, "n"]) -> None:
        """Learn from rows: the score of a bin is the mean value of its rows."""
        k, bins = self.bin_of(t[:, 0]), len(self.mass)
        total = torch.zeros(bins).index_add(0, k, value.detach())
        self.learn(total / torch.bincount(k, minlength=bins))


def mixed_masses(score: Bins, share: float) -> Bins:
    """Masses in proportion to the scores, a share of them even; all even where no bin scores."""
    even = torch.full_like(score, 1 / len(score))
    total = score.sum()
    return share * even + (1 - share) * (score / total if total > 0 else even)


def weights(t: Column, objective: Law, law: Law) -> Float[Tensor, "n"]:
    """``f(t) / p(t)``: what a row counts whose time was drawn from law, not from objective."""
    return (objective.density(t) / law.density(t))[:, 0]


def trial_decreases(
    parameters: Iterable[Tensor],
    sizes: Iterable[Tensor],
    bin_loss: Callable[[int], Float[Tensor, ""]],
    whole_loss: Callable[[], Float[Tensor, ""]],
    bins: int,
) -> Bins:
    """How far a step on rows of one bin alone lowers the whole loss, bin by bin.

    ``Delta_b = L(theta) - L(theta - size * grad l_b(theta))`` (2411.09998, here by a trial step,
    which is undone). whole_loss must look at the same rows each time: chance would hide the
    differences.
    Parameters have their old values, bit for bit, when it returns.
    """
    parameters, sizes = list(parameters), list(sizes)
    old = [p.detach().clone() for p in parameters]
    falls = []
    with torch.no_grad():
        start = whole_loss()
    for b in range(bins):
        slopes = torch.autograd.grad(bin_loss(b), parameters)
        with torch.no_grad():
            for p, size, slope in zip(parameters, sizes, slopes, strict=True):
                p -= size * slope
            falls.append(start - whole_loss())
            for p, before in zip(parameters, old, strict=True):
                p.copy_(before)
    return torch.stack(falls)


def adam_sizes(optimizer: torch.optim.Adam) -> list[Tensor]:
    """What Adam multiplies each entry of a gradient with: ``lr / (root of its mean square)``."""
    sizes = []
    for group in optimizer.param_groups:
        for p in group["params"]:
            state = optimizer.state[p]
            grown = 1 - group["betas"][1] ** float(state["step"])
            sizes.append(group["lr"] / ((state["exp_avg_sq"] / grown).sqrt() + group["eps"]))
    return sizes
