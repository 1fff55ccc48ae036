"""LQL and NC-LQL: Langevin Q-learning (Ki et al. 2026, arXiv 2602.07873).

No actor: the gradient of the critic moves the actions. LQL walks on Q itself, with noise of the
size that makes exp(Q / alpha) the stationary law; walks rarely leave a hill. NC-LQL also learns Q
at noisy actions, one landscape per noise level, and walks down the levels from smooth to sharp.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from som_lite.flow.langevin import boltzmann_score, langevin
from som_lite.flow.paths import VE
from som_lite.rl.agents.base import Config, Metrics, QAgent
from som_lite.rl.agents.common import require
from som_lite.rl.agents.levels import LevelAgent, LevelConfig
from som_lite.rl.agents.temperature import RelativeTemperature
from som_lite.rl.replay import Batch

PATH = VE(sigma_min=0.001, sigma_max=0.1)  # noise levels, a geometric row


@dataclass(frozen=True)
class LQLConfig(Config):
    """Settings of LQL."""

    n_evaluate: int = 1
    steps: int = 10  # of a walk
    eta: float = 0.03  # step size: a step's noise has the standard deviation sqrt(eta)
    alpha: float = 0.1  # temperature
    relative: bool = True  # measure alpha in units of the spread of Q over uniform actions

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least_one("steps")
        self.positive("eta", "alpha")


@dataclass(frozen=True)
class NCLQLConfig(LevelConfig):
    """Settings of NC-LQL."""

    n_evaluate: int = 1
    levels: int = 10  # of noise, from .1 to .001
    steps: int = 1  # at each level
    eta: float = 1e-4  # step size at the last level; it grows with the square of the noise
    w: float = 500.0  # length of every gradient

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.levels >= 2, "levels", self.levels, "at least 2")
        self.at_least_one("steps")
        self.positive("eta", "w")


PAPER = NCLQLConfig(hidden=(256, 256, 256), critic_lr=1e-4, steps=2)


class LQL(QAgent):
    """Actions are the ends of short walks on Q."""

    policy_parts = ("critic", "temperature.scale.value")
    config: LQLConfig

    def build(self) -> None:
        super().build()
        self.temperature = RelativeTemperature(self.config.alpha, self.config.relative, self.device)

    @torch.no_grad()
    def generate(
        self, obs: Float[Tensor, "B obs"], n: int, averaged: bool = False
    ) -> Float[Tensor, "B {n} d"]:
        """n walks per state from uniform points: a + eta/2 grad Q / alpha + sqrt(eta) xi."""
        alpha, obs = float(self.temperature.alpha()), obs[:, None]

        def score(a: Float[Tensor, "B n d"]) -> Float[Tensor, "B n d"]:
            return boltzmann_score(lambda a: self.critic.min(obs, a), alpha, a)

        start = self.uniform(len(obs), n, self.act_dim)
        return langevin(score, start, self.config.eta, self.config.steps, self.generator)

    def critic_loss(self, batch: Batch) -> tuple[Float[Tensor, ""], Metrics]:
        """TD; and the spread of Q is followed."""
        with torch.no_grad():
            q = self.critic.min(batch.obs[:, None], self.uniform(len(batch.obs), 4, self.act_dim))
            self.temperature.scale.update(q)
        loss, metrics = super().critic_loss(batch)
        return loss, metrics | {"alpha": self.temperature.alpha()}


class NCLQL(LevelAgent):
    """Actions are the ends of walks down the noise levels of a noise-conditioned critic."""

    paper, path = PAPER, PATH
    config: NCLQLConfig

    @torch.no_grad()
    def generate(
        self, obs: Float[Tensor, "B obs"], n: int, averaged: bool = False
    ) -> Float[Tensor, "B {n} d"]:
        """Annealed: eta_l = eta (sigma_l / sigma_L)^2, and only the direction of the gradient."""
        c, a = self.config, self.uniform(len(obs), n, self.act_dim)
        for i in range(c.levels - 1, -1, -1):
            t = a.new_full((*a.shape[:-1], 1), i / (c.levels - 1))
            eta = c.eta * float(PATH.sigma(i / (c.levels - 1)) / PATH.sigma(0.0)) ** 2
            for _ in range(c.steps):
                ahead = self.critic.uphill(obs[:, None], a, t)
                a = a + eta / 2 * c.w * ahead + eta**0.5 * self.randn(*a.shape)
                a = a.clamp(-1, 1)
        return a

    def levels(self, n: int) -> Float[Tensor, "n 1"]:
        """Times of the levels of noise, all equally likely."""
        levels, g = self.config.levels, self.generator
        return torch.randint(levels, (n, 1), generator=g, device=g.device) / (levels - 1)
