"""Soft actor-critic (Haarnoja et al. 2018, arXiv 1812.05905), with an automatic temperature."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from som_lite.flow.nets import MLP
from som_lite.rl.agents.base import ActorConfig, ActorCritic, Metrics
from som_lite.rl.agents.common import require
from som_lite.rl.agents.temperature import Temperature
from som_lite.rl.replay import Batch

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0  # keeps exp(log_std) finite and the density proper


@dataclass(frozen=True)
class SACConfig(ActorConfig):
    """Settings of SAC."""

    n_evaluate: int = 1  # 1: the squashed mean; more: the best of so many draws
    alpha_lr: float = 3e-4  # Adam step size of log alpha
    alpha: float = 1.0  # temperature at the start
    target_entropy: float = -1.0  # entropy to hold, in nats per action dimension

    def __post_init__(self) -> None:
        super().__post_init__()
        self.positive("alpha_lr", "alpha")
        most = math.log(2)  # of the uniform density on [-1, 1]
        require(
            self.target_entropy < most,
            "target_entropy",
            self.target_entropy,
            f"below log 2 = {most:.3f}, the entropy of uniform actions",
        )


PAPER = SACConfig(
    critic="plain", critic_lr=3e-4, actor_lr=3e-4, actor_every=1, actor_tau=1.0,
)  # fmt: skip


def squash(
    mean: Float[Tensor, "*batch d"],
    log_std: Float[Tensor, "*batch d"],
    eps: Float[Tensor, "*batch d"],
) -> tuple[Float[Tensor, "*batch d"], Float[Tensor, "*batch"]]:
    """The action a = tanh(x), x = mean + std eps, and its log-density.

    log pi(a) = sum log N(x) - log(1 - tanh(x)^2), the last term written as
    2 (log 2 - x - softplus(-2x)), which stays exact where tanh has saturated in float32.
    """
    x = mean + log_std.exp() * eps
    log_normal = -0.5 * eps**2 - log_std - 0.5 * math.log(2 * math.pi)
    log_slope = 2 * (math.log(2) - x - F.softplus(-2 * x))
    return x.tanh(), (log_normal - log_slope).sum(-1)


class SAC(ActorCritic):
    """Maximises reward plus alpha times entropy with a tanh-Gaussian policy."""

    paper = PAPER
    config: SACConfig

    def __init__(
        self,
        obs_dim: int,
        act_dim: int,
        config: SACConfig = SACConfig(),
        seed: int = 0,
        device: str = "cpu",
    ):
        super().__init__(obs_dim, act_dim, config, seed, device)
        entropy = config.target_entropy * act_dim
        self.temperature = Temperature(config.alpha, entropy, config.alpha_lr, device)

    def make_actor(self) -> nn.Module:
        return MLP([self.obs_dim, *self.config.hidden, 2 * self.act_dim], nn.ReLU)

    def policy(
        self, obs: Float[Tensor, "*batch obs"], averaged: bool = False
    ) -> tuple[Float[Tensor, "*batch d"], Float[Tensor, "*batch"]]:
        """One reparameterised action per row and its log-density."""
        actor = self.actor_average if averaged else self.actor
        mean, log_std = actor(obs).chunk(2, dim=-1)
        return squash(mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX), self.randn(*mean.shape))

    @torch.no_grad()
    def generate(
        self, obs: Float[Tensor, "B obs"], n: int, averaged: bool = False
    ) -> Float[Tensor, "B {n} d"]:
        """n actions per state, drawn from the policy."""
        return self.policy(obs[:, None].expand(-1, n, -1), averaged)[0]

    def mode(self, obs: Float[Tensor, "B obs"], averaged: bool = False) -> Float[Tensor, "B d"]:
        """The squashed mean."""
        actor = self.actor_average if averaged else self.actor
        return actor(obs).chunk(2, dim=-1)[0].tanh()

    @torch.no_grad()
    def next_action(self, obs: Float[Tensor, "B obs"]) -> tuple[Tensor, Tensor]:
        """A draw, whose value counts less by alpha log pi: the soft value of Haarnoja et al."""
        action, log_pi = self.policy(obs)
        return action, -self.temperature.alpha() * log_pi

    def actor_loss(self, batch: Batch) -> tuple[Float[Tensor, ""], Metrics]:
        """E[alpha log pi(a|s) - min Q(s, a)], through the action."""
        action, log_pi = self.policy(batch.obs)
        loss = (self.temperature.alpha() * log_pi - self.critic.min(batch.obs, action)).mean()
        return loss, {"entropy": -log_pi.detach().mean()}

    def actor_update(self, batch: Batch) -> Metrics:
        """The actor, then the temperature by the entropy that the actor had."""
        metrics = super().actor_update(batch)
        return metrics | {"alpha": self.temperature.update(metrics["entropy"])}
