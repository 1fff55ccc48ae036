"""What the papers on diffusion policies share: an actor that denoises, and rows to teach it.

The chain is the ancestral sampler of DDPM (2006.11239) on the variance-preserving path. The papers
take 20 steps or more, networks of three layers and 32 to 500 proposals; the defaults here are
scaled down to one CPU core (10 steps, two layers, 8 or 16 proposals), the same for all of them.
Each sibling's `PAPER` holds the settings of its own code instead.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from som_lite.flow.denoising import NoiseNet, denoise, mean_from_noise
from som_lite.flow.paths import VP
from som_lite.rl.agents.base import ActorConfig, ActorCritic
from som_lite.rl.replay import Batch

PATH = VP()


@dataclass(frozen=True)
class DenoiserConfig(ActorConfig):
    """Settings of every actor that denoises."""

    actor_batch: int = 128  # the first so many transitions teach the actor
    octaves: int = 4  # frequencies in the actor's time embedding
    steps: int = 10  # of the chain from noise to an action

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least_one("actor_batch", "octaves", "steps")


class DenoisingActor(ActorCritic):
    """The actor predicts the noise in a noisy action; a sibling gives `actor_loss`."""

    config: DenoiserConfig

    def make_actor(self) -> nn.Module:
        c = self.config
        return NoiseNet(self.act_dim, self.obs_dim, c.hidden, c.octaves, PATH)

    def chain(
        self, actor: nn.Module, obs: Float[Tensor, "B obs"], n: int
    ) -> Float[Tensor, "B {n} d"]:
        """n actions per state from ``steps`` ancestral steps, with their gradient."""
        obs = obs[:, None].expand(-1, n, -1)

        def mean(a: Float[Tensor, "B n d"], t: Float[Tensor, "B n 1"]) -> Float[Tensor, "B n d"]:
            return mean_from_noise(actor(a, t, obs), a, t, PATH)

        eps = self.randn(*obs.shape[:2], self.act_dim)
        return denoise(mean, eps, PATH, self.config.steps, self.generator)

    @torch.no_grad()
    def generate(
        self, obs: Float[Tensor, "B obs"], n: int, averaged: bool = False
    ) -> Float[Tensor, "B {n} d"]:
        """n actions per state, each denoised from fresh noise."""
        return self.chain(self.actor_average if averaged else self.actor, obs, n)

    def rows(self, batch: Batch) -> tuple[Float[Tensor, "b obs"], Float[Tensor, "b d"]]:
        """The states and recorded actions that teach the actor."""
        b = self.config.actor_batch
        return batch.obs[:b], batch.action[:b]

    def noised(self, a0: Float[Tensor, "n d"]) -> tuple[Tensor, Tensor, Tensor]:
        """(a_t, eps, t): a0 with noise of one of the levels where the chain will ask."""
        t = self.levels(len(a0))
        eps = self.randn(*a0.shape)
        return PATH.noise(a0, eps, t), eps, t

    def levels(self, n: int) -> Float[Tensor, "n 1"]:
        """Times of the chain: 1/steps, 2/steps, ..., 1, all equally likely."""
        steps, g = self.config.steps, self.generator
        return torch.randint(1, steps + 1, (n, 1), generator=g, device=g.device) / steps
