"""Prior Guidance (2505.10881): leave the clone as it is, and learn where its noise is drawn.

    maximise over rho    E[Q(s, G(s, eps))] - alpha KL(rho(.|s) || N(0, I)),   eps ~ rho(.|s)

G is the frozen clone, ``rho = N(b(s), diag c(s)^2)`` the learnt prior. The divergence is known in
closed form and needs no density of G. The best rho of all is ``N(0, I) exp(Q(G) / alpha) / Z``, and
G turns it into ``clone * exp(Q / alpha) / Z``. To act: one draw, one call of G, no candidates.

The paper's G is a denoiser of many steps; a latent critic ``V(s, eps) = Q(s, G(s, eps))`` spares
the way back through them. With a one-step G it is optional; both forms are here. The paper divides
the value by its mean size; here temperatures are in units of the spread of Q, as in the rest of
the book.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from som_lite.flow.nets import MLP
from som_lite.rl.offline.units import Units

LatentValue = Callable[[Tensor, Tensor], Tensor]  # of states (B, o) and noise (B, d)


class Prior(nn.Module):
    """``N(b(s), diag c(s)^2)``; it begins as N(0, I), where the clone began."""

    def __init__(
        self, obs: Float[Tensor, "n obs"], dim: int, hidden: Sequence[int] = (128, 128)
    ) -> None:
        super().__init__()
        self.units = Units(obs)
        self.mlp = MLP([obs.shape[-1], *hidden, 2 * dim])
        last = self.mlp[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(
        self, obs: Float[Tensor, "*B obs"]
    ) -> tuple[Float[Tensor, "*B d"], Float[Tensor, "*B d"]]:
        """b(s) and c(s)."""
        b, log_c = self.mlp(self.units(obs)).chunk(2, -1)
        return b, log_c.clamp(-5, 1).exp()

    def draw(
        self, obs: Float[Tensor, "*B obs"], generator: torch.Generator
    ) -> Float[Tensor, "*B d"]:
        """Noise for the clone, with its gradient."""
        b, c = self(obs)
        return b + c * torch.randn(b.shape, generator=generator)


def kl_to_standard(b: Float[Tensor, "*B d"], c: Float[Tensor, "*B d"]) -> Float[Tensor, "*B"]:
    """``KL(N(b, diag c^2) || N(0, I)) = 1/2 sum(c^2 + b^2 - 1 - 2 log c)``."""
    return 0.5 * (c.square() + b.square() - 1 - 2 * c.log()).sum(-1)


def prior_loss(
    prior: Prior,
    value: LatentValue,
    obs: Float[Tensor, "B obs"],
    alpha: float,
    generator: torch.Generator,
) -> Float[Tensor, ""]:
    """``KL - E[V(s, eps)] / alpha``, the objective over ``-alpha``: finite for any temperature."""
    b, c = prior(obs)
    eps = b + c * torch.randn(b.shape, generator=generator)
    return (kl_to_standard(b, c) - value(obs, eps) / alpha).mean()


class LatentCritic(MLP):
    """``V(s, eps)``: what the action is worth that the clone makes of this noise."""

    def __init__(self, obs_dim: int, dim: int, hidden: Sequence[int] = (128, 128)) -> None:
        super().__init__([obs_dim + dim, *hidden, 1])

    def forward(
        self, obs: Float[Tensor, "*B obs"], eps: Float[Tensor, "*B d"]
    ) -> Float[Tensor, "*B"]:
        return super().forward(torch.cat([obs, eps], -1)).squeeze(-1)


def latent_loss(
    latent: LatentCritic,
    value: LatentValue,
    obs: Float[Tensor, "B obs"],
    eps: Float[Tensor, "B d"],
) -> Float[Tensor, ""]:
    """Regress V(s, eps) on Q(s, G(s, eps)), which is asked without gradient."""
    with torch.no_grad():
        y = value(obs, eps)
    return (latent(obs, eps) - y).square().mean()
