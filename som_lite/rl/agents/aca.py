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
from som_lite.rl.agents.levels import LevelAgent, LevelConfig

PATH = VP()


@dataclass(frozen=True)
class ACAConfig(LevelConfig):
    """Settings of ACA."""

    steps: int = 10  # of the chain from noise to an action
    w: float = 50.0  # length of every gradient

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least_one("steps")
        self.positive("w")


PAPER = ACAConfig(hidden=(256, 256, 256), n_explore=32, n_target=32, steps=20)


class ACA(LevelAgent):
    """Actions are denoised along the gradient of a noise-level critic."""

    paper, path = PAPER, PATH
    config: ACAConfig

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

    def levels(self, n: int) -> Float[Tensor, "n 1"]:
        """Times of the chain: 1/steps, 2/steps, ..., 1, all equally likely."""
        steps, g = self.config.steps, self.generator
        return torch.randint(1, steps + 1, (n, 1), generator=g, device=g.device) / steps
