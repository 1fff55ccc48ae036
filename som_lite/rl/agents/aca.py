"""ACA: actor-critic without actor (Ki et al. 2025, arXiv 2509.21022).

A critic that also values noisy actions steers the denoising: the noise to take out points down its
gradient. Learning is cheap, acting costs a critic gradient per step. The gradient's length is
replaced by w; how far the predicted action may go is decided by the clip to the box.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from som_lite.flow.denoising import bridge, denoise, mean_from_noise
from som_lite.flow.paths import VP
from som_lite.rl.agents.base import Config, Metrics, QAgent
from som_lite.rl.agents.common import require
from som_lite.rl.critic import NoisyTwinQ, level_loss
from som_lite.rl.replay import Batch

PATH = VP()


@dataclass(frozen=True)
class ACAConfig(Config):
    """Settings of ACA."""

    critic: str = "plain"
    steps: int = 10  # of the chain from noise to an action
    w: float = 50.0  # length of every gradient

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.critic == "plain", "critic", self.critic, "plain: levels share no statistics")
        self.at_least_one("steps")
        self.positive("w")


PAPER = ACAConfig(hidden=(256, 256, 256), n_explore=32, n_target=32, steps=20)


class ACA(QAgent):
    """Actions are denoised along the gradient of a noise-level critic."""

    paper = PAPER
    config: ACAConfig
    critic: NoisyTwinQ

    def make_critic(self) -> NoisyTwinQ:
        return NoisyTwinQ(self.obs_dim, self.act_dim, self.config.hidden)

    @torch.no_grad()
    def generate(
        self, obs: Float[Tensor, "B obs"], n: int, averaged: bool = False
    ) -> Float[Tensor, "B {n} d"]:
        """n chains per state with eps = -w s grad Q / |grad Q|, s the step's own noise."""
        c, obs = self.config, obs[:, None]

        def mean(a: Float[Tensor, "B n d"], t: Float[Tensor, "B n 1"]) -> Float[Tensor, "B n d"]:
            now = float(t.flatten()[0])
            std = bridge(now, now - 1 / c.steps, PATH)[2]
            eps = -c.w * std * self.critic.uphill(obs, a, t)
            return mean_from_noise(eps, a, t, PATH)

        return denoise(mean, self.randn(len(obs), n, self.act_dim), PATH, c.steps, self.generator)

    def critic_loss(self, batch: Batch) -> tuple[Float[Tensor, ""], Metrics]:
        """TD at the clean end; Q(s, a_t, t) follows Q(s, a_0, 0) at the levels of the chain."""
        loss, metrics = super().critic_loss(batch)
        steps, g = self.config.steps, self.generator
        t = torch.randint(1, steps + 1, (len(batch.obs), 1), generator=g, device=g.device) / steps
        noisy = level_loss(self.critic, batch, self.randn(*batch.action.shape), t, PATH)
        return loss + noisy, metrics | {"level_loss": noisy.detach()}
