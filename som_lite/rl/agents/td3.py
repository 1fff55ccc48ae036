"""TD3: twin delayed deterministic policy gradient (Fujimoto et al. 2018, arXiv 1802.09477).

The deterministic end of the family: the actor is one action per state, pushed up the gradient of
the critic; all randomness is noise added to it. The slow copy that the paper takes its targets from
is the averaged actor.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from som_lite.flow.nets import MLP
from som_lite.rl.agents.base import ActorConfig, ActorCritic, Metrics
from som_lite.rl.replay import Batch


@dataclass(frozen=True)
class TD3Config(ActorConfig):
    """Settings of TD3; noises are standard deviations on the box [-1, 1]."""

    n_evaluate: int = 1  # 1: the action without noise
    actor_every: int = 2  # the delay
    explore_noise: float = 0.1  # added to actions that explore
    target_noise: float = 0.2  # added to the action of the TD target, which smooths Q ...
    noise_clip: float = 0.5  # ... and where this noise is cut

    def __post_init__(self) -> None:
        super().__post_init__()
        self.positive("explore_noise", "target_noise", "noise_clip")


PAPER = TD3Config(critic="plain", hidden=(400, 300), batch=100)


class TD3(ActorCritic):
    """One action per state, the best by the critic; exploration by added noise."""

    paper = PAPER
    config: TD3Config

    def make_actor(self) -> nn.Module:
        return nn.Sequential(
            MLP([self.obs_dim, *self.config.hidden, self.act_dim], nn.ReLU), nn.Tanh()
        )

    @torch.no_grad()
    def generate(
        self, obs: Float[Tensor, "B obs"], n: int, averaged: bool = False
    ) -> Float[Tensor, "B {n} d"]:
        """The action plus noise, then clipped: nothing leaves the box."""
        noise = self.config.explore_noise * self.randn(len(obs), n, self.act_dim)
        return (self.mode(obs, averaged)[:, None] + noise).clamp(-1, 1)

    def mode(self, obs: Float[Tensor, "B obs"], averaged: bool = False) -> Float[Tensor, "B d"]:
        """The actor's action."""
        return (self.actor_average if averaged else self.actor)(obs)

    @torch.no_grad()
    def next_action(self, obs: Float[Tensor, "B obs"]) -> tuple[Tensor, float]:
        """The slow actor's action with clipped noise: Q must not be sharper than that."""
        c = self.config
        noise = (c.target_noise * self.randn(len(obs), self.act_dim)).clamp(
            -c.noise_clip, c.noise_clip
        )
        return (self.mode(obs, averaged=True) + noise).clamp(-1, 1), 0.0

    def actor_loss(self, batch: Batch) -> tuple[Float[Tensor, ""], Metrics]:
        """E[-Q_1(s, a(s))], through the action: the deterministic policy gradient."""
        return -self.critic.q1(batch.obs, self.mode(batch.obs)).mean(), {}
