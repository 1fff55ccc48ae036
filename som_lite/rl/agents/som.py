"""SOM: score-based one-step MeanFlow policy optimisation (Kim et al. 2026, arXiv 2605.23365).

The critic defines a Boltzmann policy pi(a|s) proportional to exp(Q(s, a) / alpha). Noise it,
estimate the score of the noised density by Monte Carlo, turn the score into the velocity of the
probability-flow ODE, and let MeanFlow average that velocity: the actor then maps noise to an
action in one network call.

This is the book's advice; `som_paper.py` is a literal reading of the paper.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from som_lite.flow.intervals import interval_rows
from som_lite.flow.meanflow import meanflow_loss, sample_times
from som_lite.flow.nets import SkipVelocityNet
from som_lite.flow.paths import Linear
from som_lite.flow.scores import Estimate, posterior_mean_estimate, shared_posterior_mean_estimate
from som_lite.rl.agents.base import ActorConfig, ActorCritic, Metrics
from som_lite.rl.agents.common import require
from som_lite.rl.critic import RunningScale
from som_lite.rl.replay import Batch

PATH = Linear()
STEPS, PAIRS = 6, 2  # solver steps of a flow line, and intervals taken from each
TEACHERS = ("lines", "identity")
T_MAX = 0.999  # the path's end, short of the division by 1 - t


@dataclass(frozen=True)
class SOMConfig(ActorConfig):
    """Settings of SOM."""

    actor_batch: int = 128  # the first so many transitions teach the actor
    octaves: int = 1  # frequencies in the actor's time embedding; few keep d_t u small
    K: int = 16  # Monte-Carlo proposals per row
    own: float = 0.5  # share of them that are blurred actions of the policy
    alpha: float = 0.03  # temperature: the actor aims at exp(Q / alpha)
    relative: bool = True  # measure alpha in units of the spread of Q over the proposals
    teacher: str = "lines"  # of u over an interval: flow lines, or MeanFlow's identity
    lines: int = 64  # flow lines per actor update
    share_equal: float = 0.25  # identity: share of rows with r = t, which teach the velocity
    t_min: float = 0.02  # smallest t: towards 0 the factor 1/t magnifies the estimator's noise

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least_one("actor_batch", "octaves", "lines")
        require(self.teacher in TEACHERS, "teacher", self.teacher, " or ".join(TEACHERS))
        self.positive("alpha")
        require(self.K >= 2, "K", self.K, "at least 2: one proposal has no spread")
        require(0 <= self.own < 1, "own", self.own, "at least 0 and below 1")
        require(0 <= self.share_equal <= 1, "share_equal", self.share_equal, "in [0, 1]")
        require(0 < self.t_min < 1, "t_min", self.t_min, "in (0, 1)")


class SOM(ActorCritic):
    """A one-step flow policy that follows the Boltzmann density of its critic."""

    config: SOMConfig

    def __init__(
        self,
        obs_dim: int,
        act_dim: int,
        config: SOMConfig = SOMConfig(),
        seed: int = 0,
        device: str = "cpu",
    ):
        super().__init__(obs_dim, act_dim, config, seed, device)
        self.q_scale = RunningScale(device)

    def make_actor(self) -> nn.Module:
        return SkipVelocityNet(self.act_dim, self.obs_dim, self.config.hidden, self.config.octaves)

    @torch.no_grad()
    def generate(
        self, obs: Float[Tensor, "B obs"], n: int, averaged: bool = False
    ) -> Float[Tensor, "B {n} d"]:
        """n actions per state, each from fresh noise in one call: a = eps - u(eps, 0, 1 | s)."""
        actor = self.actor_average if averaged else self.actor
        eps = self.randn(len(obs), n, self.act_dim)
        zero, one = eps.new_zeros(*eps.shape[:-1], 1), eps.new_ones(*eps.shape[:-1], 1)
        return (eps - actor(eps, zero, one, obs[:, None].expand(-1, n, -1))).clamp(-1, 1)

    def actor_loss(self, batch: Batch) -> tuple[Float[Tensor, ""], Metrics]:
        """Q -> posterior mean of the noised Boltzmann density -> velocity -> u.

        At one time u is the velocity; over an interval it is the average along a flow line of the
        averaged actor (``lines``), or what MeanFlow's identity makes of both (``identity``).
        """
        c, obs = self.config, batch.obs[: self.config.actor_batch]
        share = c.share_equal if c.teacher == "identity" else 1.0
        r, t = sample_times(len(obs), self.generator, share_equal=share, t_min=c.t_min, t_max=T_MAX)
        a_t = PATH.noise(self.generate(obs, 1)[:, 0], self.randn(len(obs), self.act_dim), t)
        estimate = self.estimate(obs, a_t, t)
        v = PATH.velocity_from_mean(estimate.m, a_t, t)
        if c.teacher == "lines":  # r = t in every row, where the identity's target is v itself
            u = self.actor(a_t, r, t, obs)
            loss = (u - v).square().sum(-1).mean() + self.interval_loss(obs[: c.lines])
        else:
            loss = meanflow_loss(lambda a, r, t: self.actor(a, r, t, obs), a_t, r, t, v)
        return loss, {
            "ess": estimate.ess.mean(),
            "speed": v.norm(dim=-1).mean(),
            "q_scale": self.q_scale.value.clone(),
        }

    def interval_loss(self, obs: Float[Tensor, "B obs"]) -> Float[Tensor, ""]:
        """Squared error of u on intervals of the averaged actor's own flow lines."""
        with torch.no_grad():
            rows = interval_rows(
                lambda a, r, t: self.actor_average(a, r, t, obs),
                self.randn(len(obs), self.act_dim),
                STEPS,
                PAIRS,
                self.generator,
            )
        u = self.actor(rows.a, rows.r, rows.t, obs.repeat(PAIRS, 1))
        return (u - rows.u).square().sum(-1).mean()

    def temperature(self) -> Tensor | float:
        """What Q is divided by."""
        return self.config.alpha * (self.q_scale.clamped() if self.config.relative else 1.0)

    def estimate(
        self, obs: Float[Tensor, "B obs"], a_t: Float[Tensor, "B d"], t: Float[Tensor, "B 1"]
    ) -> Estimate:
        """Posterior mean of exp(Q / temperature) noised to time t, from K proposals a row."""
        c, scored = self.config, []

        def q(a: Float[Tensor, "B K d"]) -> Float[Tensor, "B K"]:
            scored.append(self.critic.min(obs[:, None], a))
            return scored[-1]

        temperature = self.temperature()
        if n_own := int(c.own * c.K):
            own = self.generate(obs, n_own)
            estimate = shared_posterior_mean_estimate(
                q, a_t, t, PATH, temperature, c.K - n_own, self.generator, own
            )
        else:
            estimate = posterior_mean_estimate(q, a_t, t, PATH, temperature, c.K, self.generator)
        self.q_scale.update(scored[0])
        return estimate
