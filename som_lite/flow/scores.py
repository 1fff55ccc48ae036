"""The score of a noised Boltzmann density from its energy alone, by Monte Carlo.

The target is ``p_0 proportional to exp(Q / alpha)``. Seen as a function of ``a_0``, the likelihood
``N(a; mu a_0, sigma^2 I)`` is a normal with mean ``a / mu`` and standard deviation ``sigma / mu``.
Proposals drawn from it need only the softmax of ``Q / alpha`` as importance weights. Two estimators
follow:

* posterior mean (Tweedie; SDAC, 2502.00361):  ``m = sum_k w_k a_0^(k)``: forward passes only;
* gradient (target-score identity; iDEM, 2402.06121):
  ``s = 1/mu sum_k w_k grad Q(a_0^(k)) / alpha``.

``box=True`` truncates the proposals to ``[-1, 1]^d``: the posterior-mean estimator is then exact,
as K grows, for a density on the box. The gradient estimator misses a boundary term there.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from som_lite.flow.densities import log_normal_mass
from som_lite.flow.paths import Path, Points, Time

Energy = Callable[[Float[Tensor, "*batch K d"]], Float[Tensor, "*batch K"]]


class Estimate(NamedTuple):
    """Posterior mean and score (*batch, d), and the effective sample size (*batch), from 1 to K."""

    m: Points
    score: Points
    ess: Float[Tensor, "*batch"]


def free_proposals(
    a: Points, t: Time, path: Path, K: int, generator: torch.Generator
) -> Float[Tensor, "*batch K d"]:
    """``a_0^(k) = (a + sigma xi_k) / mu`` with normal ``xi_k``. Infinite at mu = 0."""
    mu, sigma = _coefficients(a, t, path)
    xi = _rand(torch.randn, a, K, generator)
    return (a[..., None, :] + sigma * xi) / mu


def box_proposals(
    a: Points, t: Time, path: Path, K: int, generator: torch.Generator
) -> Float[Tensor, "*batch K d"]:
    """The same normal truncated to ``[-1, 1]^d``, coordinate by coordinate, by inverse transform.

    In units of the noise, the box is ``[low, high] = [(-mu - a) / sigma, (mu - a) / sigma]``. The
    quantile is taken in the lower tail, where float32 keeps its digits; far out, the density
    ``exp(-z^2 / 2)`` is replaced by ``|z| exp(-z^2 / 2)``, the same up to ``1 / z^2``, whose
    quantile is elementary. A box so narrow that the normal is flat on it (mu -> 0, the pure-noise
    end of the path) gets uniform proposals. Needs sigma > 0.
    """
    mu, sigma = _coefficients(a, t, path)
    low, high = (-mu - a[..., None, :]) / sigma, (mu - a[..., None, :]) / sigma
    flip = low + high > 0
    low, high = torch.where(flip, -high, low), torch.where(flip, -low, high)
    width = high - low
    u = _rand(torch.rand, a, K, generator).clamp(min=torch.finfo(a.dtype).eps / 4)  # 0 maps to -inf
    cdf_low, cdf_high = _ndtr(low), _ndtr(high)
    z = torch.special.ndtri(cdf_low + u * (cdf_high - cdf_low))
    ratio = ((high - low) * (high + low) / 2).exp()  # far density: mass below low / mass below high
    far = -(high**2 - 2 * (ratio + u * (1 - ratio)).log()).sqrt()
    z = torch.where(high < -10, far, z)
    fraction = torch.where(width < 1e-3, u, ((z - low) / width.clamp(min=1e-3)).clamp(0, 1))
    return torch.where(flip, 1 - 2 * fraction, 2 * fraction - 1)


def importance_weights(
    q: Float[Tensor, "*batch K"], alpha: float | Tensor
) -> Float[Tensor, "*batch K"]:
    """Self-normalised weights ``w_k = softmax_k(Q_k / alpha)``."""
    return (q / alpha).softmax(-1)


def effective_sample_size(w: Float[Tensor, "*batch K"]) -> Float[Tensor, "*batch"]:
    """``1 / sum_k w_k^2``: K for equal weights, 1 when one proposal takes all (Kish)."""
    return 1 / w.square().sum(-1)


def posterior_mean_estimate(
    q: Energy,
    a: Points,
    t: Time,
    path: Path,
    alpha: float | Tensor,
    K: int,
    generator: torch.Generator,
    box: bool = True,
) -> Estimate:
    """``m = sum_k w_k a_0^(k)`` and ``s = (mu m - a) / sigma^2``. Needs no gradient of Q."""
    with torch.no_grad():
        a0 = (box_proposals if box else free_proposals)(a, t, path, K, generator)
        w = importance_weights(q(a0), alpha)
        m = (w[..., None] * a0).sum(-2)
        return Estimate(m, path.score_from_mean(m, a, t), effective_sample_size(w))


def shared_posterior_mean_estimate(
    q: Energy,
    a: Float[Tensor, "B d"],
    t: Float[Tensor, "B 1"],
    path: Path,
    alpha: float | Tensor,
    K: int,
    generator: torch.Generator,
    own: Float[Tensor, "B C d"],
    width: float = 0.15,
) -> Estimate:
    """The posterior mean from K box proposals and C blurred samples ``own`` of the current model.

    Where a says little (t near 1), box proposals rarely meet a narrow mode; the model's own
    samples, each blurred by a normal of standard deviation ``width`` cut to the box, do. All K + C
    points are weighted by target over mixture density, the balance heuristic of multiple importance
    sampling (Veach and Guibas 1995), so the limit is exact whatever the model proposes. Own samples
    outside the box are first moved onto it.
    """
    pool = proposal_pool(q, a[:, None], t[:, None], path, alpha, K, generator, own, (width,))
    m = pool_mean(pool)[:, 0]
    return Estimate(m, path.score_from_mean(m, a, t), effective_sample_size(pool.w)[:, 0])


class Pool(NamedTuple):
    """Proposals z of a state, and the weights w that each of its M noised points gives them.

    The first ``P - C`` are box proposals, the last C are blurred samples of the model.
    """

    z: Float[Tensor, "S P d"]
    w: Float[Tensor, "S M P"]


def proposal_pool(
    q: Energy,
    a: Float[Tensor, "S M d"],
    t: Float[Tensor, "S M 1"],
    path: Path,
    alpha: float | Tensor,
    K: int,
    generator: torch.Generator,
    own: Float[Tensor, "S C d"],
    widths: tuple[float, ...],
) -> Pool:
    """K box proposals around each of M noised points, and C blurred samples: P = MK + C a state.

    All points of a state use all its proposals, so q is asked P times for M posterior means of P
    proposals each. They are weighted by target over the density of the whole mixture. Own samples
    are blurred with the ``widths`` in turn: narrow modes need a small one, wide modes a large one.
    """
    with torch.no_grad():
        own = own.clamp(-1, 1)
        width = _in_turn(widths, own)
        near = box_proposals(a, t, path, K, generator).flatten(1, 2)
        z = torch.cat([near, _blur(own, width, generator)], dim=1)
        mu, sigma = _coefficients(a, t, path)  # (S, M, 1, 1)
        log_likelihood = -0.5 * ((a[:, :, None] - mu * z[:, None]) / sigma).square().sum(-1)
        log_box = log_likelihood - _log_box_integral(a, t, path)
        log_near = log_box.logsumexp(1) + math.log(K)
        log_own = _log_kernel_density(z, own, width) + math.log(own.shape[1])
        log_target = q(z) / alpha - torch.logaddexp(log_near, log_own)
        return Pool(z, (log_target[:, None] + log_likelihood).softmax(-1))


def pool_mean(pool: Pool) -> Float[Tensor, "S M d"]:
    """The posterior means ``m = sum_k w_k z_k`` of a pool's points."""
    return pool.w @ pool.z


def blurred(
    own: Float[Tensor, "S C d"], widths: tuple[float, ...], generator: torch.Generator
) -> Float[Tensor, "S C d"]:
    """One draw around every sample, whose density is `kernel_log_density`."""
    return _blur(own.clamp(-1, 1), _in_turn(widths, own), generator)


def kernel_log_density(
    z: Float[Tensor, "S P d"], own: Float[Tensor, "S C d"], widths: tuple[float, ...]
) -> Float[Tensor, "S P"]:
    """Log density at z of the samples ``own`` blurred by the ``widths`` in turn, cut to the box."""
    return _log_kernel_density(z, own.clamp(-1, 1), _in_turn(widths, own))


def uphill(
    q: Energy,
    own: Float[Tensor, "S C d"],
    alpha: float | Tensor,
    steps: int = 3,
    width: float = 0.15,
) -> Float[Tensor, "S C d"]:
    """Samples moved along ``grad q``, as centres of proposals: in many dimensions few hit a mode.

    A step is ``width^2 grad q / alpha``, the mean of a normal of that width times a density of that
    slope, and at most ``width sqrt(d)`` long. Blurred, the moved samples have a known density, so
    `proposal_pool` stays right in the limit. A step costs a forward and a backward pass of q.
    """
    most = width * own.shape[-1] ** 0.5
    for _ in range(steps):
        with torch.enable_grad():
            at = own.detach().requires_grad_()
            (grad,) = torch.autograd.grad((q(at) / alpha).sum(), at)
        step = width**2 * grad
        step = step * (most / step.norm(dim=-1, keepdim=True).clamp(min=1e-9)).clamp(max=1)
        own = (own.detach() + step).clamp(-1, 1)
    return own


def sharpened(w: Float[Tensor, "*batch P"]) -> Float[Tensor, "*batch P"]:
    """Weights whose mean has a bias of order ``1 / P^2`` instead of ``1 / P``.

    Self-normalised weights lean on what was proposed: their mean is off by ``- sum_k w_k^2 (z_k -
    m)`` to first order, and ``w_k (1 + w_k - sum_j w_j^2)`` takes that out. They stay above 0 and
    sum to 1, so the mean stays among the proposals.
    """
    return w * (1 + w - w.square().sum(-1, keepdim=True))


def gradient_estimate(
    q: Energy,
    a: Points,
    t: Time,
    path: Path,
    alpha: float | Tensor,
    K: int,
    generator: torch.Generator,
    box: bool = True,
) -> Estimate:
    """``s = 1/mu sum_k w_k grad Q(a_0^(k)) / alpha`` and ``m = (a + sigma^2 s) / mu``."""
    with torch.no_grad():
        a0 = (box_proposals if box else free_proposals)(a, t, path, K, generator)
        with torch.enable_grad():
            value = q(a0.requires_grad_())
            (grad,) = torch.autograd.grad(value.sum(), a0)
        w = importance_weights(value, alpha)
        score = (w[..., None] * grad).sum(-2) / (alpha * path.mu(t))
        return Estimate(path.mean_from_score(score, a, t), score, effective_sample_size(w))


def _ndtr(x: Tensor) -> Tensor:
    """The normal distribution function, exact in the lower tail, where torch's ndtr rounds to 0."""
    return 0.5 * torch.special.erfc(-x / math.sqrt(2))


def _coefficients(a: Points, t: Time, path: Path) -> tuple[Tensor, Tensor]:
    """mu and sigma with an axis for the K proposals: (*batch, 1, 1) or scalars."""
    mu, sigma = (torch.as_tensor(c, dtype=a.dtype) for c in (path.mu(t), path.sigma(t)))
    return (mu[..., None], sigma[..., None]) if mu.ndim else (mu, sigma)


def _rand(draw: Callable[..., Tensor], a: Points, K: int, generator: torch.Generator) -> Tensor:
    if K < 1:
        raise ValueError(f"K, the number of proposals, must be at least 1, got {K}")
    shape = (*a.shape[:-1], K, a.shape[-1])
    return draw(shape, generator=generator, dtype=a.dtype, device=a.device)


def _in_turn(widths: tuple[float, ...], own: Tensor) -> Float[Tensor, "C 1"]:
    return own.new_tensor(widths)[torch.arange(own.shape[-2]) % len(widths), None]


def _blur(centres: Tensor, widths: Tensor | float, generator: torch.Generator) -> Tensor:
    """One draw from ``N(centre, width^2 I)`` cut to the box, for every centre in the box."""
    low, high = (torch.special.ndtr((edge - centres) / widths) for edge in (-1, 1))
    u = torch.rand(
        centres.shape, generator=generator, dtype=centres.dtype, device=centres.device
    ).clamp(1e-6, 1 - 1e-6)
    return (centres + widths * torch.special.ndtri(low + u * (high - low))).clamp(-1, 1)


def _log_kernel_density(z: Tensor, centres: Tensor, widths: Tensor | float) -> Tensor:
    """Log density at z (B, N, d) of the mixture of the cut normals around the centres (B, C, d).

    widths is (C, 1) or one number. Exponents end at -80: below, float32 is slow, and box proposals
    outweigh what is left.
    """
    widths = centres.new_ones(centres.shape[-2], 1) * widths
    low, high = (torch.special.ndtr((edge - centres) / widths) for edge in (-1, 1))
    log_mass = (math.sqrt(2 * math.pi) * widths * (high - low)).log().sum(-1)
    least = log_mass.amin(-1, keepdim=True)  # the highest peak becomes 1
    precision = widths.squeeze(-1) ** -2
    square = z.square().sum(-1, keepdim=True) * precision  # (B, N, C)
    cross = z @ (centres * widths**-2).mT
    offset = least - log_mass - 0.5 * centres.square().sum(-1) * precision
    kernels = (cross - 0.5 * square + offset[:, None, :]).clamp(min=-80).exp()
    return kernels.mean(-1).log() - least


def _log_box_integral(a: Tensor, t: Tensor, path: Path) -> Tensor:
    """``log int_box exp(-|a - mu z|^2 / 2 sigma^2) dz``, (B, 1): normalises the box proposals."""
    mu, sigma = path.mu(t).clamp(min=1e-3), path.sigma(t)
    mass = log_normal_mass((-mu - a) / sigma, (mu - a) / sigma)
    return (mass + (math.sqrt(2 * math.pi) * sigma / mu).log()).sum(-1, keepdim=True)
