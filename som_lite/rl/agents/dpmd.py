"""DPMD: diffusion policy mirror descent (Ma et al. 2025, arXiv 2502.00361).

A step of mirror descent tilts the old policy, pi_new = pi_old exp(Q / alpha) / Z. Its samples are
those of pi_old with weights; a weighted denoising loss learns from them, without any gradient of Q.
pi_old is the averaged actor. Every step tilts again: without noise from elsewhere the policy ends
in one mode.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from som_lite.flow.denoising import denoising_loss
from som_lite.flow.scores import effective_sample_size, importance_weights
from som_lite.rl.agents.base import Metrics
from som_lite.rl.agents.common import require
from som_lite.rl.agents.denoiser import PATH, DenoiserConfig, DenoisingActor
from som_lite.rl.agents.temperature import RelativeTemperature
from som_lite.rl.replay import Batch


@dataclass(frozen=True)
class DPMDConfig(DenoiserConfig):
    """Settings of DPMD."""

    actor_batch: int = 64  # states, each with K actions
    K: int = 8  # actions of the old policy per state, weighted against each other
    alpha: float = 0.5  # temperature of one step
    relative: bool = True  # measure alpha in units of the spread of Q over the actions

    def __post_init__(self) -> None:
        super().__post_init__()
        self.positive("alpha")
        require(self.K >= 2, "K", self.K, "at least 2: one action has nothing to be weighed by")


# Its code draws one action per state and weighs it against the other states of the batch.
PAPER = DPMDConfig(
    critic="plain", hidden=(256, 256, 256), critic_lr=3e-4, actor_lr=3e-4, actor_every=1,
    actor_batch=256, n_explore=32, n_target=32, steps=20, K=8, alpha=1.0,
)  # fmt: skip


class DPMD(DenoisingActor):
    """A denoiser of its own actions, weighted by exp(Q / alpha)."""

    paper = PAPER
    config: DPMDConfig

    def build(self) -> None:
        super().build()
        self.temperature = RelativeTemperature(self.config.alpha, self.config.relative, self.device)

    def actor_loss(self, batch: Batch) -> tuple[Float[Tensor, ""], Metrics]:
        """Match the old policy's actions, weighted by softmax(Q / alpha) over each state's K."""
        obs, K = self.rows(batch)[0], self.config.K
        a0 = self.generate(obs, K, averaged=True)
        with torch.no_grad():
            q = self.temperature.watching(lambda a: self.critic.min(obs[:, None], a))(a0)
            w = importance_weights(q, self.temperature.alpha())
        loss = self.matching_loss(obs.repeat_interleave(K, 0), a0.flatten(0, 1), (K * w).flatten())
        return loss, {"ess": effective_sample_size(w).mean(), "alpha": self.temperature.alpha()}

    def matching_loss(
        self, obs: Float[Tensor, "n obs"], a0: Float[Tensor, "n d"], weight: Float[Tensor, "n"]
    ) -> Float[Tensor, ""]:
        """Predict the noise added to a0."""
        _, eps, t = self.noised(a0)
        return denoising_loss(lambda a, t: self.actor(a, t, obs), a0, eps, t, PATH, weight)
