"""How spread out is a sample?  Fit a Gaussian mixture to it and read off an entropy."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def mixture_entropy(
    x: Float[Tensor, "S n d"],
    components: int = 3,
    iterations: int = 20,
    generator: torch.Generator | None = None,
    floor: float = 1e-6,
) -> Float[Tensor, "S"]:
    """Entropy in nats of S samples of n points each, by a mixture of full Gaussians.

    Expectation maximisation from random points as means; then ``sum_k w_k (H_k - log w_k)`` with
    ``H_k = 1/2 log det(2 pi e C_k)``: an upper bound of the mixture's entropy, and its value where
    the components do not overlap (Huber et al. 2008). Variances are at least ``floor``.
    """
    S, n, d = x.shape
    eye = floor * torch.eye(d, dtype=x.dtype, device=x.device)
    pick = torch.rand(S, n, generator=generator, device=x.device).argsort(-1)[:, :components]
    means = x.gather(1, pick[..., None].expand(-1, -1, d))
    covs = _covariance(x, x.new_full((S, n, 1), 1 / n)).expand(-1, components, -1, -1) + eye
    weights = x.new_full((S, components), 1 / components)
    for _ in range(iterations):
        normal = torch.distributions.MultivariateNormal(means[:, None], covs[:, None])
        log_joint = normal.log_prob(x[:, :, None]) + weights.log()[:, None]
        share = log_joint.softmax(-1)  # (S, n, components)
        weights = share.mean(1).clamp(min=1e-8)
        share = share / share.sum(1, keepdim=True).clamp(min=1e-8)
        means = torch.einsum("snk,snd->skd", share, x)
        covs = _covariance(x, share) + eye
    entropy = 0.5 * (torch.logdet(covs) + d * math.log(2 * math.pi * math.e))
    return (weights * (entropy - weights.log())).sum(-1)


def _covariance(x: Float[Tensor, "S n d"], share: Float[Tensor, "S n k"]) -> Tensor:
    """Covariances (S, k, d, d) under weights that sum to one over the n points."""
    means = torch.einsum("snk,snd->skd", share, x)
    centred = x[:, :, None] - means[:, None]
    return torch.einsum("snk,snkd,snke->skde", share, centred, centred)
