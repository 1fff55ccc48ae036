"""QVPO: Q-weighted variational policy optimisation (Ding et al. 2024, arXiv 2405.16173).

Of K own actions the best is kept and denoised with its advantage as weight, which is a bound of the
policy gradient's objective. A greedy policy would lose its spread; rows with uniform actions, with
a share of the weight, hold up its entropy.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from som_lite.flow.denoising import denoising_loss
from som_lite.rl.agents.base import Metrics
from som_lite.rl.agents.common import require
from som_lite.rl.agents.denoiser import PATH, DenoiserConfig, DenoisingActor
from som_lite.rl.replay import Batch


@dataclass(frozen=True)
class QVPOConfig(DenoiserConfig):
    """Settings of QVPO."""

    actor_batch: int = 64  # states, each with K own actions
    K: int = 8  # own actions per state, of which the best is learnt
    uniform: int = 2  # uniform actions per state
    omega: float = 0.02  # weight of all of them together, as a share of the best one's

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.K >= 2, "K", self.K, "at least 2: one action is never better than the mean")
        self.at_least_one("uniform")
        require(self.omega >= 0, "omega", self.omega, "0 or more")


# Its code lowers omega from .02 to .002 and draws the target's action from a slow actor.
PAPER = QVPOConfig(
    critic="plain", hidden=(256, 256, 256), critic_lr=3e-4, actor_lr=1e-4, actor_every=1,
    actor_batch=256, n_explore=4, n_target=4, steps=20, K=64, uniform=10,
)  # fmt: skip


class QVPO(DenoisingActor):
    """A denoiser of its best own actions, and of a few uniform ones."""

    paper = PAPER
    config: QVPOConfig

    def actor_loss(self, batch: Batch) -> tuple[Float[Tensor, ""], Metrics]:
        """E[max(Q - V, 0) |eps(a_t) - eps|^2] at the best of K, plus omega times uniform rows."""
        c, (obs, _) = self.config, self.rows(batch)
        best, advantage = self.best_own(obs)
        uniform = self.uniform(len(obs) * c.uniform, self.act_dim)
        share = c.omega / c.uniform * advantage
        weight = torch.cat([advantage, share.repeat_interleave(c.uniform)])
        obs = torch.cat([obs, obs.repeat_interleave(c.uniform, 0)])
        a0 = torch.cat([best, uniform])
        _, eps, t = self.noised(a0)
        loss = denoising_loss(lambda a, t: self.actor(a, t, obs), a0, eps, t, PATH, weight)
        return loss / weight.mean().clamp(min=1e-6), {"advantage": advantage.mean()}

    @torch.no_grad()
    def best_own(
        self, obs: Float[Tensor, "b obs"]
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b"]]:
        """The best of K own actions per state, and Q - V there, V the mean over the K."""
        own = self.generate(obs, self.config.K)
        q = self.critic.min(obs[:, None], own)
        top, index = q.max(dim=1)
        return own[torch.arange(len(own)), index], top - q.mean(dim=1)
