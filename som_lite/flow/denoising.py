"""Denoising: learn to predict the noise in a noisy point, and walk from noise to data in steps.

A network predicts ``eps(a, t) = E[eps | a_t = a]``; posterior mean and score follow from it:

    m = (a - sigma eps) / mu,        s = -eps / sigma.

One chain serves every path. To go from t to r < t, the point ``a_r`` given ``a_t`` and ``a_0`` is a
normal whose mean lies between ``a_t`` and ``a_0``; the sampler puts the predicted m in the place of
``a_0`` (DDPM, 2006.11239, eq. 7) or drops the noise as well (DDIM, 2010.02502, eq. 12).
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from som_lite.flow.nets import MLP, TimeEmbedding
from som_lite.flow.ode import Times
from som_lite.flow.paths import VP, Path, Points, Time

Noise = Callable[[Points, Times], Points]  # predicts eps from a_t and t
Mean = Callable[[Points, Times], Points]  # predicts a_0 from a_t and t
DEFAULT_PATH = VP()


class NoiseNet(nn.Module):
    """``eps(a, t | cond) = sigma_t a + F(a, t, cond)`` with an MLP F, on a path of the VP kind.

    At pure noise ``a`` is the noise, so that F has least to do where the chain begins; F = 0 is
    right for data N(0, I).
    """

    def __init__(
        self,
        dim: int,
        cond_dim: int = 0,
        hidden: Sequence[int] = (128, 128),
        octaves: int = 4,
        path: Path = DEFAULT_PATH,
    ) -> None:
        super().__init__()
        self.path, self.time = path, TimeEmbedding(octaves)
        self.mlp = MLP([dim + self.time.size + cond_dim, *hidden, dim])

    def forward(self, a: Points, t: Times, cond: Float[Tensor, "*batch c"] | None = None) -> Points:
        parts = [a, self.time(t)] + ([] if cond is None else [cond])
        return self.path.sigma(t) * a + self.mlp(torch.cat(parts, -1))


def weighted_error(
    prediction: Points, target: Points, weight: Float[Tensor, "*batch"] | float = 1.0
) -> Float[Tensor, ""]:
    """Mean over the rows of ``w |prediction - target|^2``, summed over dimensions.

    Neither targets nor weights get a gradient.
    """
    error = (prediction - target.detach()).square().sum(-1)
    return (torch.as_tensor(weight).detach() * error).mean()


def denoising_loss(
    noise: Noise,
    a0: Points,
    eps: Points,
    t: Times,
    path: Path,
    weight: Float[Tensor, "*batch"] | float = 1.0,
) -> Float[Tensor, ""]:
    """Predict the noise that was added: ``w |eps(a_t, t) - eps|^2``.

    With weights, the least value belongs to data of density ``w(a_0) p_0(a_0)``, normalised.
    """
    return weighted_error(noise(path.noise(a0, eps, t), t), eps, weight)


def noise_from_mean(m: Points, a: Points, t: Time, path: Path) -> Points:
    """``eps = (a - mu m) / sigma``. Infinite at sigma = 0."""
    return (a - path.mu(t) * m) / path.sigma(t)


def mean_from_noise(eps: Points, a: Points, t: Time, path: Path) -> Points:
    """``m = (a - sigma eps) / mu``. Infinite at mu = 0."""
    return (a - path.sigma(t) * eps) / path.mu(t)


def bridge(t: float, r: float, path: Path) -> tuple[Tensor, Tensor, Tensor]:
    """``a_r | a_t, a_0 = N(k a_t + j a_0, s^2 I)`` for r < t: the scalars (k, j, s).

    ``a_t`` is ``c a_r`` plus independent noise of variance ``sigma_t^2 - c^2 sigma_r^2``, with
    ``c = mu_t / mu_r``; Bayes' rule does the rest. Finite at mu_t = 0; s = 0 where sigma_r = 0.
    """
    mu_r, var_r, var_t = path.mu(r), path.sigma(r) ** 2, path.sigma(t) ** 2
    c = path.mu(t) / mu_r
    added = var_t - c**2 * var_r
    return c * var_r / var_t, mu_r * added / var_t, (var_r * added / var_t).sqrt()


def ancestral_step(m: Points, a: Points, t: float, r: float, path: Path, z: Points) -> Points:
    """A draw of ``a_r`` given ``a_t = a`` and ``a_0 = m``, from standard normal z."""
    k, j, s = bridge(t, r, path)
    return k * a + j * m + s * z


def implicit_step(m: Points, a: Points, t: float, r: float, path: Path) -> Points:
    """``mu_r m + sigma_r eps`` with the same noise in ``a_t`` and ``a_r``: exact where m is fixed.

    An Euler step of the probability-flow ODE in the variables ``a / mu`` and ``sigma / mu``.
    """
    return path.mu(r) * m + path.sigma(r) * noise_from_mean(m, a, t, path)


def denoise(
    mean: Mean,
    eps: Points,
    path: Path,
    steps: int,
    generator: torch.Generator | None,
) -> Points:
    """From noise (t = 1) to data (t = 0) in equal steps; ``mean(a, t)`` predicts the end point.

    Ancestral steps with a generator, implicit ones without (None). Predictions are moved to the
    nearest point of ``[-1, 1]^d``, so the result lies in it. Gradients pass through the whole
    chain. Raises ValueError for steps < 1.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    a, ones = eps, torch.ones_like(eps[..., :1])
    for i in range(steps, 0, -1):
        t, r = i / steps, (i - 1) / steps
        m = mean(a, t * ones).clamp(-1, 1)
        if r == 0:  # nothing of the noise is left
            return m
        if generator is None:
            a = implicit_step(m, a, t, r, path)
        else:
            z = torch.randn(a.shape, generator=generator, dtype=a.dtype, device=a.device)
            a = ancestral_step(m, a, t, r, path, z)
    raise AssertionError("unreachable")
