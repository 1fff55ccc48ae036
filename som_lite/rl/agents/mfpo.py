"""MFPO: mean flow policy optimisation under maximum entropy (Dong et al. 2026, arXiv 2604.14698).

SOM's nearest relative. The velocity of the noised Boltzmann density comes from two sets of
proposals, the policy's own actions and box proposals, mixed by their effective sample sizes. The
log density is one more coordinate of the flow: where ``da/dt = v``, the surprise ``l = -log p``
grows by ``dl/dt = div v``. Its average, like that of v, is learnt by MeanFlow's identity, so that
a few jumps give an action and log pi: for the weights of the own actions, the entropy in the TD
target, and a temperature that holds the entropy.

Left out: its critic learns a distribution of returns; here it is the one of all agents.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from som_lite.flow.denoising import weighted_error
from som_lite.flow.likelihood import hutchinson_divergence
from som_lite.flow.meanflow import meanflow_target, sample, sample_times
from som_lite.flow.nets import FlowWithDensityNet
from som_lite.flow.paths import Linear
from som_lite.flow.scores import box_proposals, effective_sample_size
from som_lite.rl.agents.base import ActorConfig, ActorCritic, Metrics
from som_lite.rl.agents.common import require
from som_lite.rl.agents.temperature import Temperature
from som_lite.rl.replay import Batch

PATH = Linear()


@dataclass(frozen=True)
class MFPOConfig(ActorConfig):
    """Settings of MFPO."""

    n_evaluate: int = 10
    actor_batch: int = 64  # the first so many transitions teach the actor
    octaves: int = 1  # frequencies in the actor's time embedding
    steps: int = 2  # jumps from noise to an action
    own: int = 8  # proposals per row that are actions of the policy
    K: int = 16  # box proposals per row
    alpha: float = 0.1  # temperature at the start
    alpha_lr: float = 1e-3  # Adam step size of log alpha
    target_entropy: float = -0.5  # entropy to hold, in nats per action dimension
    share_equal: float = 0.75  # share of rows with r = t

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least_one("actor_batch", "octaves", "steps")
        self.positive("alpha", "alpha_lr")
        require(min(self.own, self.K) >= 2, "own and K", (self.own, self.K), "at least 2 each")


PAPER = MFPOConfig(
    critic="plain", hidden=(256, 256, 256), critic_lr=3e-4, actor_lr=3e-4, actor_every=1,
    actor_batch=256, own=16, K=32, alpha=0.01, alpha_lr=3e-4,
)  # fmt: skip


class MFPO(ActorCritic):
    """A few-step flow policy with a density, which follows the soft Boltzmann policy."""

    paper = PAPER
    config: MFPOConfig
    actor: FlowWithDensityNet

    def build(self) -> None:
        super().build()
        c = self.config
        entropy = c.target_entropy * self.act_dim
        self.temperature = Temperature(c.alpha, entropy, c.alpha_lr, self.device)

    def make_actor(self) -> FlowWithDensityNet:
        c = self.config
        return FlowWithDensityNet(self.act_dim, self.obs_dim, c.hidden, c.octaves)

    @torch.no_grad()
    def policy(
        self, obs: Float[Tensor, "B obs"], n: int, averaged: bool = False
    ) -> tuple[Float[Tensor, "B {n} d"], Float[Tensor, "B {n}"]]:
        """n actions per state and their -log pi: jumps from (eps, -log N(eps))."""
        actor = self.actor_average if averaged else self.actor
        obs, d = obs[:, None].expand(-1, n, -1), self.act_dim
        eps = self.randn(*obs.shape[:2], d)
        surprise = 0.5 * (eps.square().sum(-1, keepdim=True) + d * math.log(2 * math.pi))
        start = torch.cat([eps, surprise], -1)
        end = sample(lambda x, r, t: actor(x, r, t, obs), start, self.config.steps)
        return end[..., :-1].clamp(-1, 1), end[..., -1]

    def generate(
        self, obs: Float[Tensor, "B obs"], n: int, averaged: bool = False
    ) -> Float[Tensor, "B {n} d"]:
        """n actions per state, by jumps of the average velocity."""
        return self.policy(obs, n, averaged)[0]

    def next_action(self, obs: Float[Tensor, "B obs"]) -> tuple[Tensor, Tensor]:
        """A draw, whose value counts more by -alpha log pi."""
        action, surprise = self.policy(obs, 1)
        return action[:, 0], self.temperature.alpha() * surprise[:, 0]

    def actor_loss(self, batch: Batch) -> tuple[Float[Tensor, ""], Metrics]:
        """Q -> posterior mean -> velocity and its divergence -> average of both, by MeanFlow."""
        c, obs = self.config, batch.obs[: self.config.actor_batch]
        r, t = sample_times(
            len(obs), self.generator, "logit_normal", c.share_equal, t_min=0.02, t_max=0.999
        )
        action, surprise = self.policy(obs, 1)
        a_t = PATH.noise(action[:, 0], self.randn(len(obs), self.act_dim), t)
        m, ess = self.posterior_mean(obs, a_t, t)
        v = PATH.velocity_from_mean(m, a_t, t)
        with torch.no_grad():
            probe = self.randn(*a_t.shape).sign()
            div = hutchinson_divergence(lambda a, t: self.actor.u(a, t, t, obs), a_t, t, probe)

        def u(x: Tensor, r: Tensor, t: Tensor) -> Tensor:
            return self.actor(x, r, t, obs)

        x = torch.cat([a_t, torch.zeros_like(t)], -1)
        target = meanflow_target(u, x, r, t, torch.cat([v, div[:, None]], -1))
        return weighted_error(u(x, r, t), target), {"ess": ess.mean(), "entropy": surprise.mean()}

    def actor_update(self, batch: Batch) -> Metrics:
        """The actor, then the temperature by the entropy that the actor had."""
        metrics = super().actor_update(batch)
        return metrics | {"alpha": self.temperature.update(metrics["entropy"])}

    @torch.no_grad()
    def posterior_mean(
        self, obs: Float[Tensor, "b obs"], a_t: Float[Tensor, "b d"], t: Float[Tensor, "b 1"]
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b"]]:
        """The means by own and by box proposals, weighted by the effective sample sizes."""
        own, surprise = self.policy(obs, self.config.own)
        box = box_proposals(a_t, t, PATH, self.config.K, self.generator)
        likelihood = -((a_t[:, None] - (1 - t[:, None]) * own) / t[:, None]).square().sum(-1) / 2
        means, sizes = [], []
        for a, log_ratio in ((own, likelihood + surprise), (box, torch.zeros_like(box[..., 0]))):
            w = (self.critic.min(obs[:, None], a) / self.temperature.alpha() + log_ratio).softmax(
                -1
            )
            means.append((w[..., None] * a).sum(1))
            sizes.append(effective_sample_size(w)[:, None])
        total = sizes[0] + sizes[1]
        return (sizes[0] * means[0] + sizes[1] * means[1]) / total, total[:, 0]
