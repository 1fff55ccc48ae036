"""Toy densities on the plane with noised score, posterior mean and velocity in closed form.

Curved shapes (moons, rings, pinwheel) are Gaussian mixtures with many components, so the truth
stays exact.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from som_lite.flow.paths import Path, Points, Time

Values = Float[Tensor, "*batch"]


@dataclass(frozen=True)
class GaussianMixture:
    """``p_0 = sum_k w_k N(mean_k, std_k^2 I)``; noised by a path it stays a mixture.

    means (M, d), stds (M,), weights (M,) which sum to one.
    """

    means: Float[Tensor, "M d"]
    stds: Float[Tensor, "M"]
    weights: Float[Tensor, "M"]

    def __post_init__(self) -> None:
        if not torch.isclose(self.weights.sum(), torch.tensor(1.0, dtype=self.weights.dtype)):
            raise ValueError(f"weights must sum to 1, got {self.weights.sum():.6g}")

    @property
    def dim(self) -> int:
        return self.means.shape[1]

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "n d"]:
        """Draw n points: a component by its weight, then a normal around its mean."""
        k = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        noise = torch.randn(n, self.dim, generator=generator, dtype=self.means.dtype)
        return self.means[k] + self.stds[k, None] * noise

    def log_prob(self, x: Points) -> Values:
        return self._log_joint(x, 1.0, self.stds**2).logsumexp(-1)

    def score(self, x: Points) -> Points:
        """``grad log p_0``."""
        return self._noised_score(x, 1.0, self.stds**2)

    def noised(self, path: Path, t: float) -> "GaussianMixture":
        """The law of ``a_t``: means shrink by mu, variances become ``mu^2 std^2 + sigma^2``."""
        mu, sigma = path.mu(t), path.sigma(t)
        return GaussianMixture(
            mu * self.means, (mu**2 * self.stds**2 + sigma**2).sqrt(), self.weights
        )

    def noised_score(self, a: Points, t: Time, path: Path) -> Points:
        """``s(a, t)``: the responsibility-weighted pull ``-(a - mu mean_k) / V_k``."""
        mu = path.mu(t)
        return self._noised_score(a, mu, mu**2 * self.stds**2 + path.sigma(t) ** 2)

    def posterior_mean(self, a: Points, t: Time, path: Path) -> Points:
        """``m(a, t) = sum_k g_k (mean_k + mu std_k^2 / V_k (a - mu mean_k))``.

        The g_k are the responsibilities, V_k the component variances at t.
        """
        mu = path.mu(t)
        var = mu**2 * self.stds**2 + path.sigma(t) ** 2
        gain = mu * self.stds**2 / var
        g = self._log_joint(a, mu, var).softmax(-1)
        mean_part = ((g * (1 - gain * mu))[..., None] * self.means).sum(-2)
        return mean_part + (g * gain).sum(-1, keepdim=True) * a

    def velocity(self, a: Points, t: Time, path: Path) -> Points:
        """``v(a, t) = E[mu' a_0 + sigma' eps | a_t = a]``, finite at both ends of every path."""
        mu = path.mu(t)
        var = mu**2 * self.stds**2 + path.sigma(t) ** 2
        # per component: E[a_0] = mean + mu std^2 (a - mu mean) / V,
        #                E[sigma' eps] = sigma sigma' (a - mu mean) / V
        slope = (path.dmu(t) * mu * self.stds**2 + path.sigma_dsigma(t)) / var
        g = self._log_joint(a, mu, var).softmax(-1)
        mean_part = ((g * (path.dmu(t) - slope * mu))[..., None] * self.means).sum(-2)
        return mean_part + (g * slope).sum(-1, keepdim=True) * a

    def _log_joint(self, a: Points, mu: Tensor | float, var: Tensor) -> Tensor:
        """``log w_k N(a; mu mean_k, var_k I)``, shape (*batch, M)."""
        mu = torch.as_tensor(mu, dtype=a.dtype)
        sq = (a[..., None, :] - mu[..., None] * self.means).square().sum(-1)
        return self.weights.log() - 0.5 * sq / var - 0.5 * self.dim * (2 * math.pi * var).log()

    def _noised_score(self, a: Points, mu: Tensor | float, var: Tensor) -> Points:
        pull = self._log_joint(a, mu, var).softmax(-1) / var
        mu = torch.as_tensor(mu, dtype=a.dtype)
        return mu * (pull[..., None] * self.means).sum(-2) - pull.sum(-1, keepdim=True) * a


@dataclass(frozen=True)
class UniformBoxes:
    """The uniform density on disjoint boxes of equal volume: lows (M, d), highs (M, d)."""

    lows: Float[Tensor, "M d"]
    highs: Float[Tensor, "M d"]

    @property
    def dim(self) -> int:
        return self.lows.shape[1]

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "n d"]:
        """Draw n points: a box, then a uniform point in it."""
        k = torch.randint(len(self.lows), (n,), generator=generator)
        u = torch.rand(n, self.dim, generator=generator, dtype=self.lows.dtype)
        return self.lows[k] + u * (self.highs - self.lows)[k]

    def log_prob(self, x: Points) -> Values:
        """``-log(total volume)`` inside, ``-inf`` outside."""
        x = x[..., None, :]
        inside = ((x >= self.lows) & (x <= self.highs)).all(-1).any(-1)
        volume = (self.highs - self.lows).prod(-1).sum()
        return torch.where(inside, -volume.log(), -torch.inf)

    def posterior_mean(self, a: Points, t: Time, path: Path) -> Points:
        """``m(a, t)``: in each box a truncated normal with mean ``a/mu`` and std ``sigma/mu``.

        Computed in float64; mu is kept above 1e-4, where the posterior is already uniform to 1e-4.
        Needs sigma > 0.
        """
        x = a.double()[..., None, :]
        mu = torch.as_tensor(path.mu(t)).double().clamp(min=1e-4)[..., None]
        sigma = torch.as_tensor(path.sigma(t)).double()[..., None]
        low, high = (mu * self.lows - x) / sigma, (mu * self.highs - x) / sigma
        log_mass = log_normal_mass(low, high)
        density = torch.exp(_log_phi(low) - log_mass) - torch.exp(_log_phi(high) - log_mass)
        mean = ((x + sigma * density) / mu).clamp(self.lows, self.highs)
        g = log_mass.sum(-1).softmax(-1)
        return (g[..., None] * mean).sum(-2).to(a.dtype)

    def noised_score(self, a: Points, t: Time, path: Path) -> Points:
        return path.score_from_mean(self.posterior_mean(a, t, path), a, t)

    def velocity(self, a: Points, t: Time, path: Path) -> Points:
        return path.velocity_from_mean(self.posterior_mean(a, t, path), a, t)


def _log_phi(x: Tensor) -> Tensor:
    return -0.5 * x**2 - 0.5 * math.log(2 * math.pi)


def log_normal_mass(low: Tensor, high: Tensor) -> Tensor:
    """``log P(low < Z < high)``, in the lower tail, where the distribution keeps its digits."""
    flip = low + high > 0
    low, high = torch.where(flip, -high, low), torch.where(flip, -low, high)
    log_high = torch.special.log_ndtr(high)
    return log_high + torch.log(-torch.expm1(torch.special.log_ndtr(low) - log_high))


def _even_mixture(means: Tensor, std: float) -> GaussianMixture:
    n = len(means)
    return GaussianMixture(means, torch.full((n,), std), torch.full((n,), 1 / n))


def three_modes() -> GaussianMixture:
    """Three unequal blobs: masses .5, .3, .2."""
    means = torch.tensor([[-1.4, -1.2], [1.6, 0.2], [-0.2, 1.8]])
    return GaussianMixture(means, torch.tensor([0.35, 0.4, 0.25]), torch.tensor([0.5, 0.3, 0.2]))


def two_moons(components: int = 24) -> GaussianMixture:
    """Two interleaved half circles."""
    angle = torch.linspace(0, math.pi, components)
    upper = torch.stack([1.4 * angle.cos() - 0.7, 1.4 * angle.sin() - 0.3], -1)
    return _even_mixture(torch.cat([upper, -upper]), 0.15)


def rings(components: int = 32) -> GaussianMixture:
    """Two concentric rings of equal mass."""
    angle = 2 * math.pi * torch.arange(components) / components
    circle = torch.stack([angle.cos(), angle.sin()], -1)
    return _even_mixture(torch.cat([0.9 * circle, 2.1 * circle]), 0.14)


def pinwheel(arms: int = 5, components: int = 10) -> GaussianMixture:
    """Five bent arms."""
    radius = torch.linspace(0.5, 2.3, components)
    angle = 2 * math.pi * torch.arange(arms)[:, None] / arms + 0.5 * radius
    means = torch.stack([radius * angle.cos(), radius * angle.sin()], -1)
    return _even_mixture(means.reshape(-1, 2), 0.17)


def checkerboard() -> UniformBoxes:
    """Eight unit squares of a four by four board."""
    corners = [(i, j) for i in range(-2, 2) for j in range(-2, 2) if (i + j) % 2 == 0]
    lows = torch.tensor(corners, dtype=torch.float32)
    return UniformBoxes(lows, lows + 1)


TOYS = {
    "three modes": three_modes,
    "two moons": two_moons,
    "rings": rings,
    "pinwheel": pinwheel,
    "checkerboard": checkerboard,
}
