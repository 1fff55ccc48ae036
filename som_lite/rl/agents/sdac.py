"""SDAC: soft diffusion actor-critic by reweighted score matching (Ma et al. 2025, 2502.00361).

The aim is the Boltzmann policy exp(Q / alpha). Denoising score matching would need its samples;
reweighted, it needs only proposals around the noisy action and their Q. Regressing on the weighted
mean of the proposals has the same gradient as regressing on all of them.

iDEM (Akhound-Sadegh et al. 2024, 2402.06121) as a policy: the same with the other estimator of the
score, by the gradient of Q at the proposals.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from som_lite.flow.denoising import weighted_error
from som_lite.flow.paths import Points, Time
from som_lite.flow.scores import Energy, Estimate, gradient_estimate, posterior_mean_estimate
from som_lite.rl.agents.base import Metrics
from som_lite.rl.agents.common import require
from som_lite.rl.agents.denoiser import PATH, DenoiserConfig, DenoisingActor
from som_lite.rl.agents.temperature import RelativeTemperature
from som_lite.rl.replay import Batch


@dataclass(frozen=True)
class SDACConfig(DenoiserConfig):
    """Settings of SDAC and of iDEM."""

    K: int = 16  # proposals per row
    alpha: float = 0.05  # temperature: the actor aims at exp(Q / alpha)
    relative: bool = True  # measure alpha in units of the spread of Q over the proposals
    longest: float = 20.0  # iDEM: longer scores are cut to this length, as its code does

    def __post_init__(self) -> None:
        super().__post_init__()
        self.positive("alpha", "longest")
        require(self.K >= 2, "K", self.K, "at least 2: one proposal has no spread")


# alpha = 1: its code multiplies rewards by .2 and Q by 5.
PAPER = SDACConfig(
    critic="plain", hidden=(256, 256, 256), critic_lr=3e-4, actor_lr=3e-4, actor_every=1,
    actor_batch=256, n_explore=32, n_target=32, steps=20, K=64, alpha=1.0, relative=False,
)  # fmt: skip


class SDAC(DenoisingActor):
    """A denoiser of the Boltzmann density, taught by posterior means."""

    paper = PAPER
    config: SDACConfig

    def build(self) -> None:
        super().build()
        self.temperature = RelativeTemperature(self.config.alpha, self.config.relative, self.device)

    def actor_loss(self, batch: Batch) -> tuple[Float[Tensor, ""], Metrics]:
        """eps(a_t, t | s) = -sigma_t s_t: the score of exp(Q / alpha), noised to time t."""
        obs, action = self.rows(batch)
        a_t, _, t = self.noised(action)
        q = self.temperature.watching(lambda a: self.critic.min(obs[:, None], a))
        estimate = self.estimate(q, a_t, t)
        target = -PATH.sigma(t) * estimate.score
        metrics = {"ess": estimate.ess.mean(), "alpha": self.temperature.alpha()}
        return weighted_error(self.actor(a_t, t, obs), target), metrics

    def estimate(self, q: Energy, a_t: Points, t: Time) -> Estimate:
        """The posterior mean, from K values of Q per row."""
        alpha, K = self.temperature.alpha(), self.config.K
        return posterior_mean_estimate(q, a_t, t, PATH, alpha, K, self.generator)


class IDEM(SDAC):
    """A denoiser of the Boltzmann density, taught by gradients of Q."""

    def estimate(self, q: Energy, a_t: Points, t: Time) -> Estimate:
        """The score, from K gradients of Q per row; near t = 1 it is noise times 1 / mu_t."""
        alpha, K = self.temperature.alpha(), self.config.K
        estimate = gradient_estimate(q, a_t, t, PATH, alpha, K, self.generator)
        norm = estimate.score.norm(dim=-1, keepdim=True)
        shorter = torch.clamp(self.config.longest / norm.clamp(min=1e-8), max=1)
        return estimate._replace(score=estimate.score * shorter)
