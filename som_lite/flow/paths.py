"""Noising paths ``a_t = mu_t a_0 + sigma_t eps``; score, velocity, posterior mean from each other.

Time runs from data (``t = 0``) to noise (``t = 1``). Times are floats or tensors ``(*batch, 1)``
that broadcast against points ``(*batch, d)``. With the posterior mean ``m = E[a_0 | a_t]``, the
score ``s = grad log p_t`` and the marginal velocity ``v = E[mu' a_0 + sigma' eps | a_t]``,
everything follows from

    E[eps | a_t] = -sigma s          (Tweedie)        and        a_t = mu m + sigma E[eps | a_t].
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

Points = Float[Tensor, "*batch d"]
Time = Float[Tensor, "*#batch 1"] | float


def _tensor(t: Time) -> Tensor:
    """A float becomes a float64 scalar: exact, and it never changes the dtype of what it scales."""
    return t if isinstance(t, Tensor) else torch.tensor(t, dtype=torch.float64)


def _require_column(t: Tensor | float) -> None:
    """Times (B,) beside points (B, 1) would make (B, B)."""
    if isinstance(t, Tensor) and t.ndim and t.shape[-1] != 1:
        raise ValueError(f"t must be a number or have shape (*batch, 1), got {tuple(t.shape)}")


class Path:
    """A Gaussian path. Subclasses give ``mu, sigma``, their derivatives, and ``sigma * sigma'``.

    Shapes: ``t`` is a float or ``(*batch, 1)``; points, scores, means and velocities are
    ``(*batch, d)``.
    """

    def mu(self, t: Time) -> Tensor:
        raise NotImplementedError

    def dmu(self, t: Time) -> Tensor:
        raise NotImplementedError

    def sigma(self, t: Time) -> Tensor:
        raise NotImplementedError

    def sigma_dsigma(self, t: Time) -> Tensor:
        """Half the growth rate of the variance: finite where ``sigma'`` is not (VP at t = 0)."""
        raise NotImplementedError

    def dsigma(self, t: Time) -> Tensor:
        return self.sigma_dsigma(t) / self.sigma(t)

    def noise(self, a0: Points, eps: Points, t: Time) -> Points:
        """The point ``a_t = mu_t a_0 + sigma_t eps`` on the path.

        Raises ValueError for times of another shape, with which torch might broadcast.
        """
        _require_column(t)
        return self.mu(t) * a0 + self.sigma(t) * eps

    def conditional_velocity(self, a0: Points, eps: Points, t: Time) -> Points:
        """``mu' a_0 + sigma' eps``: the speed of a pair (a_0, eps). Its mean given a_t is ``v``.

        Raises ValueError as `noise` does.
        """
        _require_column(t)
        return self.dmu(t) * a0 + self.dsigma(t) * eps

    def score_from_mean(self, m: Points, a: Points, t: Time) -> Points:
        """``s = (mu m - a) / sigma^2`` (Tweedie). Infinite at sigma = 0."""
        return (self.mu(t) * m - a) / self.sigma(t) ** 2

    def mean_from_score(self, s: Points, a: Points, t: Time) -> Points:
        """``m = (a + sigma^2 s) / mu`` (Tweedie). Infinite at mu = 0 (linear path, t = 1)."""
        return (a + self.sigma(t) ** 2 * s) / self.mu(t)

    def velocity_from_score(self, s: Points, a: Points, t: Time) -> Points:
        """``v = (mu' a - g s) / mu``, ``g = mu sigma sigma' - mu' sigma^2``. Infinite at mu = 0."""
        return (self.dmu(t) * a - self._g(t) * s) / self.mu(t)

    def velocity_from_mean(self, m: Points, a: Points, t: Time) -> Points:
        """``v = mu' m + sigma'/sigma (a - mu m)``; linear path: ``(a - m) / t``.

        Infinite at sigma = 0.
        """
        return self.dmu(t) * m + self.sigma_dsigma(t) / self.sigma(t) ** 2 * (a - self.mu(t) * m)

    def score_from_velocity(self, v: Points, a: Points, t: Time) -> Points:
        """``s = (mu' a - mu v) / g``: the inverse of :meth:`velocity_from_score`.

        Finite at mu = 0; infinite at t = 0 on the linear path, where g = t.
        """
        return (self.dmu(t) * a - self.mu(t) * v) / self._g(t)

    def mean_from_velocity(self, v: Points, a: Points, t: Time) -> Points:
        """``m = (sigma sigma' a - sigma^2 v) / g``: the inverse of :meth:`velocity_from_mean`."""
        return (self.sigma_dsigma(t) * a - self.sigma(t) ** 2 * v) / self._g(t)

    def _g(self, t: Time) -> Tensor:
        return self.mu(t) * self.sigma_dsigma(t) - self.dmu(t) * self.sigma(t) ** 2


@dataclass(frozen=True)
class Linear(Path):
    """Straight lines: ``mu = 1 - t``, ``sigma = t``.

    Rectified flow (2209.03003), flow matching (2210.02747).
    """

    def mu(self, t: Time) -> Tensor:
        return 1 - _tensor(t)

    def dmu(self, t: Time) -> Tensor:
        return -torch.ones_like(_tensor(t))

    def sigma(self, t: Time) -> Tensor:
        return _tensor(t)

    def sigma_dsigma(self, t: Time) -> Tensor:
        return _tensor(t)

    def dsigma(self, t: Time) -> Tensor:
        return torch.ones_like(_tensor(t))


@dataclass(frozen=True)
class VP(Path):
    """Variance preserving (Song et al., 2011.13456): ``mu^2 + sigma^2 = 1``.

    ``mu = exp(-1/2 int_0^t beta)`` with ``beta(t) = beta_min + t (beta_max - beta_min)``; the
    velocity is ``v = -beta/2 (a + s)``.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        if not 0 < self.beta_min <= self.beta_max:
            raise ValueError(
                f"VP needs 0 < beta_min <= beta_max, got {self.beta_min} and {self.beta_max}"
            )

    def beta(self, t: Time) -> Tensor:
        return self.beta_min + _tensor(t) * (self.beta_max - self.beta_min)

    def log_mu(self, t: Time) -> Tensor:
        t = _tensor(t)
        return -0.5 * (self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2)

    def mu(self, t: Time) -> Tensor:
        return self.log_mu(t).exp()

    def dmu(self, t: Time) -> Tensor:
        return -0.5 * self.beta(t) * self.mu(t)

    def sigma(self, t: Time) -> Tensor:
        # 1 - mu^2 without cancellation at small t; a solver may step to t = -1e-17
        return (-torch.expm1(2 * self.log_mu(t))).clamp(min=0).sqrt()

    def sigma_dsigma(self, t: Time) -> Tensor:
        return 0.5 * self.beta(t) * self.mu(t) ** 2


@dataclass(frozen=True)
class VE(Path):
    """Variance exploding (Song et al., 2011.13456): ``sigma = sigma_min (sigma_max/sigma_min)^t``.

    ``mu = 1``. The noise has standard deviation ``sigma_max`` at t = 1, still ``sigma_min`` at 0.
    """

    sigma_min: float = 0.01
    sigma_max: float = 10.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(
                f"VE needs 0 < sigma_min < sigma_max, got {self.sigma_min} and {self.sigma_max}"
            )

    def mu(self, t: Time) -> Tensor:
        return torch.ones_like(_tensor(t))

    def dmu(self, t: Time) -> Tensor:
        return torch.zeros_like(_tensor(t))

    def sigma(self, t: Time) -> Tensor:
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** _tensor(t)

    def sigma_dsigma(self, t: Time) -> Tensor:
        return self.sigma(t) ** 2 * math.log(self.sigma_max / self.sigma_min)


PATHS = {"linear": Linear, "vp": VP, "ve": VE}
