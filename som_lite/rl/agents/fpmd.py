"""FPMD: one-step flow policy mirror descent (Chen et al. 2025, arXiv 2507.23675).

DPMD for flows: the same weighted actions of the old policy, learnt as straight lines. A straight
line needs one step where its end is certain; the error of a single Euler step is bounded by the
variance of the policy, which mirror descent lowers. FPMD-R is a rectified flow; FPMD-M learns the
average velocity, by MeanFlow, and has no such error.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from som_lite.flow.denoising import weighted_error
from som_lite.flow.meanflow import meanflow_target, sample, sample_times
from som_lite.flow.nets import AverageVelocityNet
from som_lite.flow.ode import euler_step, solve
from som_lite.flow.paths import Linear
from som_lite.rl.agents.dpmd import DPMD, DPMDConfig

PATH = Linear()


@dataclass(frozen=True)
class FPMDConfig(DPMDConfig):
    """Settings of both."""

    octaves: int = 1  # frequencies in the actor's time embedding
    steps: int = 1  # of the flow from noise to an action
    start: float = 1.0  # standard deviation of the noise that actions are made from
    share_equal: float = 0.25  # FPMD-M: share of rows with r = t

    def __post_init__(self) -> None:
        super().__post_init__()
        self.positive("start")


# Its code draws one action per state and weighs it against the other states of the batch.
PAPER = FPMDConfig(
    critic="plain", hidden=(256, 256, 256), critic_lr=3e-4, actor_lr=3e-4, actor_every=1,
    actor_batch=256, n_explore=32, n_target=32, alpha=1.0, start=0.5, share_equal=0.0,
)  # fmt: skip


class FPMDR(DPMD):
    """Mirror descent with a velocity, v(a, t) = u(a, t, t), and Euler steps."""

    paper = PAPER
    config: FPMDConfig

    def make_actor(self) -> nn.Module:
        """It begins near 0, where an action is its noise: a policy without spread cannot tilt."""
        c = self.config
        return AverageVelocityNet(self.act_dim, self.obs_dim, c.hidden, c.octaves)

    @torch.no_grad()
    def generate(
        self, obs: Float[Tensor, "B obs"], n: int, averaged: bool = False
    ) -> Float[Tensor, "B {n} d"]:
        """n actions per state: noise follows the flow, then is clipped."""
        actor = self.actor_average if averaged else self.actor
        obs = obs[:, None].expand(-1, n, -1)
        eps = self.config.start * self.randn(*obs.shape[:2], self.act_dim)
        return self.flow(lambda a, r, t: actor(a, r, t, obs), eps).clamp(-1, 1)

    def flow(self, u, eps: Float[Tensor, "*B d"]) -> Float[Tensor, "*B d"]:
        """Euler steps of the instantaneous velocity."""
        return solve(lambda a, t: u(a, t, t), eps, steps=self.config.steps, step=euler_step)

    def matching_loss(
        self, obs: Float[Tensor, "n obs"], a0: Float[Tensor, "n d"], weight: Float[Tensor, "n"]
    ) -> Float[Tensor, ""]:
        """w |v(a_t, t) - (eps - a_0)|^2, the rectified flow."""
        eps, t = self.randn(*a0.shape), sample_times(len(a0), self.generator, share_equal=1.0)[1]
        a_t, v = PATH.noise(a0, eps, t), PATH.conditional_velocity(a0, eps, t)
        return weighted_error(self.actor(a_t, t, t, obs), v, weight)


class FPMDM(FPMDR):
    """Mirror descent with an average velocity, and jumps."""

    def flow(self, u, eps: Float[Tensor, "*B d"]) -> Float[Tensor, "*B d"]:
        """Jumps of the average velocity: a_r = a_t - (t - r) u(a_t, r, t)."""
        return sample(u, eps, self.config.steps)

    def matching_loss(
        self, obs: Float[Tensor, "n obs"], a0: Float[Tensor, "n d"], weight: Float[Tensor, "n"]
    ) -> Float[Tensor, ""]:
        """w |u(a_t, r, t) - MeanFlow's target of eps - a_0|^2."""
        eps, share = self.randn(*a0.shape), self.config.share_equal
        r, t = sample_times(len(a0), self.generator, share_equal=share)
        a_t, v = PATH.noise(a0, eps, t), PATH.conditional_velocity(a0, eps, t)

        def u(a: Tensor, r: Tensor, t: Tensor) -> Tensor:
            return self.actor(a, r, t, obs)

        return weighted_error(u(a_t, r, t), meanflow_target(u, a_t, r, t, v), weight)
