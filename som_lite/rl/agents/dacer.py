"""DACER: diffusion actor-critic with entropy regulator (Wang et al. 2024, arXiv 2405.15177).

The chain is one differentiable function from noise to an action, and the critic is maximised
through all its steps. That would end in one action per state; noise is added to what the chain
gives, of a size that holds the entropy of the actions, estimated by fitting a Gaussian mixture.

DACER2 (Wang et al. 2025, arXiv 2505.23426) does with 5 steps: at every noise level the denoiser
also follows the direction of the critic's gradient, the more the noisier the action is.

Left out: the papers' critics learn a distribution of returns; here it is the one of all agents.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from som_lite.flow.denoising import weighted_error
from som_lite.flow.langevin import boltzmann_score
from som_lite.flow.mixtures import mixture_entropy
from som_lite.rl.agents.base import Metrics
from som_lite.rl.agents.denoiser import PATH, DenoiserConfig, DenoisingActor
from som_lite.rl.agents.temperature import Temperature
from som_lite.rl.replay import Batch


@dataclass(frozen=True)
class DACERConfig(DenoiserConfig):
    """Settings of DACER."""

    n_evaluate: int = 1  # 1: an action without added noise
    noise: float = 0.1  # lambda: kappa times this is the standard deviation of the added noise
    kappa: float = 1.0  # at the start
    kappa_lr: float = 0.03  # step size of log kappa
    target_entropy: float = -0.9  # entropy to hold, in nats per action dimension
    entropy_every: int = 100  # actor updates between two estimates of the entropy
    samples: int = 64  # actions per state for such an estimate

    def __post_init__(self) -> None:
        super().__post_init__()
        self.positive("noise", "kappa", "kappa_lr")
        self.at_least_one("entropy_every", "samples")


@dataclass(frozen=True)
class DACER2Config(DACERConfig):
    """Settings of DACER2: the field has the weight eta, at time t the length exp(c t + d)."""

    steps: int = 5  # of the chain from noise to an action
    eta: float = 0.1  # weight of the field of Q-gradients
    c: float = 0.4  # its length at time t is exp(c t + d)
    d: float = -1.8  # see c


PAPER = DACERConfig(
    critic="plain", hidden=(256, 256, 256), critic_lr=1e-4, actor_lr=1e-4, actor_every=1,
    actor_batch=256, steps=20, entropy_every=10_000, samples=200,
)  # fmt: skip


# eta is 1 on some tasks and .01 on others.
PAPER2 = DACER2Config(**vars(PAPER) | {"steps": 5, "eta": 1.0})


class DACER(DenoisingActor):
    """A chain that climbs the critic as a whole, with noise on its actions."""

    paper = PAPER
    policy_parts = (*DenoisingActor.policy_parts, "kappa.log_alpha")
    config: DACERConfig

    def build(self) -> None:
        super().build()
        c = self.config
        target = c.target_entropy * self.act_dim
        self.kappa = Temperature(c.kappa, target, c.kappa_lr, self.device)

    @torch.no_grad()
    def generate(
        self, obs: Float[Tensor, "B obs"], n: int, averaged: bool = False
    ) -> Float[Tensor, "B {n} d"]:
        """n actions per state: the chain's, plus lambda kappa xi, then clipped."""
        a = super().generate(obs, n, averaged)
        return (a + self.config.noise * self.kappa.alpha() * self.randn(*a.shape)).clamp(-1, 1)

    def mode(self, obs: Float[Tensor, "B obs"], averaged: bool = False) -> Float[Tensor, "B d"]:
        """One action of the chain, without the added noise."""
        return super().generate(obs, 1, averaged)[:, 0]

    def actor_loss(self, batch: Batch) -> tuple[Float[Tensor, ""], Metrics]:
        """E[-min Q(s, a_0)], through every step of the chain."""
        obs, _ = self.rows(batch)
        a0 = self.chain(self.actor, obs, 1)[:, 0]
        return -self.critic.min(obs, a0).mean(), {"kappa": self.kappa.alpha()}

    def actor_update(self, batch: Batch) -> Metrics:
        """The actor; now and then the size of the noise, by the entropy in a few states."""
        metrics = super().actor_update(batch)
        turn = int(self.updates) // self.config.actor_every
        if turn % self.config.entropy_every == 0:
            actions = self.generate(batch.obs[:8], self.config.samples)
            entropy = mixture_entropy(actions, generator=self.generator).mean()
            self.kappa.update(entropy)
            metrics["entropy"] = entropy
        return metrics


class DACER2(DACER):
    """DACER with a field of Q-gradients as a second teacher."""

    paper = PAPER2
    config: DACER2Config

    def actor_loss(self, batch: Batch) -> tuple[Float[Tensor, ""], Metrics]:
        """-Q / |Q| through the chain, and eta |score - e^(ct + d) grad Q / |grad Q||^2."""
        c, (obs, action) = self.config, self.rows(batch)
        loss, metrics = super().actor_loss(batch)
        a_t, _, t = self.noised(action)
        grad = boltzmann_score(lambda a: self.critic.min(obs, a), 1.0, a_t)
        unit = grad / grad.norm(dim=-1, keepdim=True).clamp(min=1e-8)
        score = -self.actor(a_t, t, obs) / PATH.sigma(t)
        field = weighted_error(score, (c.c * t + c.d).exp() * unit)
        scale = loss.detach().abs().clamp(min=1e-6)
        return loss / scale + c.eta * field, metrics | {"field": field.detach()}
