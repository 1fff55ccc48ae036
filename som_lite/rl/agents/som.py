"""SOM: score-based one-step MeanFlow policy optimisation (Kim et al. 2026, arXiv 2605.23365).

The critic defines a Boltzmann policy pi(a|s) proportional to exp(Q(s, a) / alpha). Noise it,
estimate the score of the noised density by Monte Carlo, turn the score into the velocity of the
probability-flow ODE, and let MeanFlow average that velocity: the actor then maps noise to an
action in one network call.
"""

import copy
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from som_lite.flow.meanflow import LAWS, meanflow_loss, sample_times
from som_lite.flow.nets import AverageVelocityNet, SkipVelocityNet
from som_lite.flow.paths import PATHS
from som_lite.flow.scores import (
    Estimate,
    gradient_estimate,
    posterior_mean_estimate,
    shared_posterior_mean_estimate,
)
from som_lite.rl.agents.common import Part, adam, derive, flatten, require, seeded, unflatten
from som_lite.rl.critic import TwinQ, best_of_n, polyak_, td_target
from som_lite.rl.replay import Batch

ESTIMATORS = {"posterior_mean": posterior_mean_estimate, "gradient": gradient_estimate}
SOURCES = ("policy", "replay", "uniform")
SCALE_MEMORY = 0.99  # running mean of the spread of Q: about the last hundred actor updates


@dataclass(frozen=True)
class SOMConfig:
    """Settings of SOM: the defaults are the book's advice, `SOMConfig.paper()` the paper."""

    gamma: float = 0.99  # discount per environment step
    tau: float = 0.005  # share of the online critic that enters the target critic per update
    actor_tau: float = 0.002  # the same for the averaged actor that evaluation uses; 1: no average
    batch: int = 256  # transitions per critic update
    actor_batch: int = 128  # the first so many of them teach the actor
    hidden: tuple[int, ...] = (256, 256)  # widths of the hidden layers: SiLU actor, ReLU critics
    skip: bool = True  # actor = velocity of a normal + network; made for the linear path
    octaves: int = 1  # frequencies in the actor's time embedding; few keep d_t u small
    actor_lr: float = 1e-3  # Adam step size of the actor
    critic_lr: float = 1e-3  # Adam step size of the critics
    actor_every: int = 2  # critic updates per actor update
    path: str = "linear"  # noising path: linear, vp or ve
    estimator: str = "posterior_mean"  # of the noised score: posterior_mean or gradient
    box: bool = True  # keep the proposals inside the action box [-1, 1]^d
    K: int = 16  # Monte-Carlo proposals per row
    own: float = 0.5  # share of them that are blurred actions of the policy (posterior_mean only)
    bf16: bool = False  # score proposals in bfloat16: faster on CPUs that have it
    alpha: float = 0.03  # temperature: the actor aims at exp(Q / alpha)
    relative: bool = True  # measure alpha in units of the spread of Q over the proposals
    unit_norm: float = 0.0  # w: replace the score s by w s / |s|; 0 leaves it alone
    a0_source: str = "policy"  # the actions that are noised: policy, replay or uniform
    law: str = "uniform"  # how (r, t) are drawn: uniform or logit_normal
    share_equal: float = 0.25  # share of rows with r = t, which teach the instantaneous velocity
    t_min: float = 0.02  # smallest t: towards 0 the factor 1/t magnifies the estimator's noise
    loss_power: float = 0.0  # p of the adaptive weight 1 / (error + c)^p; 0 is plain squared error
    n_explore: int = 1  # candidates of which the critic picks one while exploring
    n_target: int = 1  # the same in the TD target
    n_evaluate: int = 32  # the same in evaluation

    def __post_init__(self) -> None:
        require(0 <= self.gamma <= 1, "gamma", self.gamma, "in [0, 1]")
        for name in ("tau", "actor_tau"):
            require(0 < getattr(self, name) <= 1, name, getattr(self, name), "in (0, 1]")
        require(min(self.hidden, default=0) >= 1, "hidden", self.hidden, "one or more widths >= 1")
        require(0 <= self.share_equal <= 1, "share_equal", self.share_equal, "in [0, 1]")
        require(0 < self.t_min < 1, "t_min", self.t_min, "in (0, 1)")
        for name, accepted in (
            ("path", PATHS),
            ("law", LAWS),
            ("estimator", ESTIMATORS),
            ("a0_source", SOURCES),
        ):
            value = getattr(self, name)
            require(value in accepted, name, value, f"one of {', '.join(accepted)}")
        linear = self.path == "linear"
        require(linear or not self.skip, "skip", self.skip, "off unless the path is linear")
        require(self.K >= 2, "K", self.K, "at least 2: one proposal has no spread")
        require(0 <= self.own < 1, "own", self.own, "at least 0 and below 1")
        shares = self.box and self.estimator == "posterior_mean"
        require(shares or not self.own, "own", self.own, "0 unless box and posterior_mean are set")
        for name in (
            "batch",
            "actor_batch",
            "octaves",
            "actor_every",
            "n_explore",
            "n_target",
            "n_evaluate",
        ):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("actor_lr", "critic_lr", "alpha"):
            require(getattr(self, name) > 0, name, getattr(self, name), "above 0")
        for name in ("unit_norm", "loss_power"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")

    @classmethod
    def paper(cls) -> "SOMConfig":
        """A literal reading: VP path, gradient estimator with free proposals, unit-norm score.

        What the paper does about the networks, the source of a_0 and N is not public; those are
        choices made here (2605.23365, eq. 5 and 8 as read by others).
        """
        return cls(
            hidden=(256, 256, 256),
            skip=False,
            path="vp",
            estimator="gradient",
            box=False,
            K=100,
            own=0.0,
            actor_lr=3e-4,
            critic_lr=3e-4,
            actor_batch=256,
            alpha=1.0,
            unit_norm=25.0,
            a0_source="replay",
            law="uniform",
            t_min=1e-3,
            loss_power=1.0,
            actor_tau=1.0,
            actor_every=1,
            n_explore=32,
            n_target=1,
            n_evaluate=32,
        )


class SOM:
    """A one-step flow policy that follows the Boltzmann density of its critic."""

    policy_parts = ("actor", "actor_average", "critic")  # what `act` needs

    def __init__(
        self,
        obs_dim: int,
        act_dim: int,
        config: SOMConfig = SOMConfig(),
        seed: int = 0,
        device: str = "cpu",
    ):
        self.config, self.act_dim, self.path = config, act_dim, PATHS[config.path]()
        self.generator = torch.Generator(device).manual_seed(derive(seed, 1))
        with seeded(derive(seed, 0)):
            net = SkipVelocityNet if config.skip else AverageVelocityNet
            self.actor = net(act_dim, obs_dim, config.hidden, config.octaves).to(device)
            self.critic = TwinQ(obs_dim, act_dim, config.hidden).to(device)
        self.actor_average = copy.deepcopy(self.actor).requires_grad_(False)
        self.critic_target = copy.deepcopy(self.critic).requires_grad_(False)
        self.q_scale = torch.ones((), device=device)
        self.updates = torch.zeros((), dtype=torch.int64)
        self.actor_optimizer = adam(self.actor.parameters(), config.actor_lr)
        self.critic_optimizer = adam(self.critic.parameters(), config.critic_lr)

    @torch.no_grad()
    def generate(
        self, obs: Float[Tensor, "B obs"], n: int, averaged: bool = False
    ) -> Float[Tensor, "B {n} d"]:
        """n actions per state, each from fresh noise in one call: a = eps - u(eps, 0, 1 | s).

        u is the actor as it is, or the average of its weights over the last updates.
        """
        actor = self.actor_average if averaged else self.actor
        cond = obs[:, None].expand(-1, n, -1)
        eps = self._randn(len(obs), n, self.act_dim)
        zero, one = eps.new_zeros(*eps.shape[:-1], 1), eps.new_ones(*eps.shape[:-1], 1)
        return (eps - actor(eps, zero, one, cond)).clamp(-1, 1)

    @torch.no_grad()
    def act(self, obs: Float[Tensor, "B obs"], explore: bool) -> Float[Tensor, "B d"]:
        """The best of N candidates by the critic; fewer, so noisier, when exploring.

        Evaluation draws them from the averaged actor: at this step size the weights wander, and
        with them the returns from one row of the curve to the next.
        """
        n = self.config.n_explore if explore else self.config.n_evaluate
        return best_of_n(self.critic, obs, self.generate(obs, n, averaged=not explore))

    def critic_update(self, batch: Batch) -> dict[str, Tensor]:
        """Regress both critics on y = r + gamma (1 - terminated) max_N min Q'(s', a'_n)."""
        with torch.no_grad():
            candidates = self.generate(batch.next_obs, self.config.n_target)
            next_q = self.critic_target.min(batch.next_obs[:, None], candidates).amax(dim=1)
            y = td_target(batch.reward, batch.terminated, next_q, self.config.gamma)
        q = self.critic(batch.obs, batch.action)
        loss = (q - y).square().mean(dim=1).sum()
        self.critic_optimizer.zero_grad()
        loss.backward()
        self.critic_optimizer.step()
        return {"critic_loss": loss.detach(), "q_mean": q.detach().mean()}

    def actor_update(self, batch: Batch) -> dict[str, Tensor]:
        """Q -> score of the noised Boltzmann density -> velocity -> MeanFlow regression."""
        batch = Batch(*(x[: self.config.actor_batch] for x in batch))
        obs = batch.obs
        r, t = sample_times(
            len(obs),
            self.generator,
            self.config.law,
            self.config.share_equal,
            self.config.t_min,
            0.999,
        )
        a_t = self.path.noise(self._clean_actions(batch), self._randn(len(obs), self.act_dim), t)
        estimate = self.estimate(obs, a_t, t)
        v = self._velocity(estimate, a_t, t)
        loss = meanflow_loss(
            lambda a, r, t: self.actor(a, r, t, obs), a_t, r, t, v, self.config.loss_power
        )
        self.actor_optimizer.zero_grad()
        loss.backward()
        self.actor_optimizer.step()
        polyak_(self.actor_average, self.actor, self.config.actor_tau)
        return {
            "actor_loss": loss.detach(),
            "ess": estimate.ess.mean(),
            "speed": v.norm(dim=-1).mean(),
            "q_scale": self.q_scale.clone(),
        }

    def estimate(
        self, obs: Float[Tensor, "B obs"], a_t: Float[Tensor, "B d"], t: Float[Tensor, "B 1"]
    ) -> Estimate:
        """Noised score and posterior mean of exp(Q / temperature), from K proposals a row."""
        c = self.config

        def q(a: Float[Tensor, "B K d"]) -> Float[Tensor, "B K"]:
            with torch.autocast(a.device.type, torch.bfloat16, enabled=c.bf16):
                value = self.critic.min(obs[:, None], a).float()
            self.q_scale.lerp_(value.detach().std(dim=-1).mean(), 1 - SCALE_MEMORY)
            return value

        temperature = c.alpha * (self.q_scale if c.relative else 1.0)
        if n_own := int(c.own * c.K):
            own = self.generate(obs, n_own)
            return shared_posterior_mean_estimate(
                q, a_t, t, self.path, temperature, c.K - n_own, self.generator, own
            )
        return ESTIMATORS[c.estimator](
            q, a_t, t, self.path, temperature, c.K, self.generator, c.box
        )

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """Critic, every so often the actor, then the slow target critic. Returns scalar tensors."""
        metrics = self.critic_update(batch)
        self.updates += 1
        if self.updates % self.config.actor_every == 0:
            metrics |= self.actor_update(batch)
        polyak_(self.critic_target, self.critic, self.config.tau)
        return metrics

    def _clean_actions(self, batch: Batch) -> Float[Tensor, "B d"]:
        if self.config.a0_source == "policy":
            return self.generate(batch.obs, 1)[:, 0]
        if self.config.a0_source == "replay":
            return batch.action
        return torch.empty_like(batch.action).uniform_(-1, 1, generator=self.generator)

    def _velocity(self, estimate: Estimate, a_t: Tensor, t: Tensor) -> Float[Tensor, "B d"]:
        if self.config.unit_norm:
            unit = estimate.score / (estimate.score.norm(dim=-1, keepdim=True) + 1e-6)
            return self.path.velocity_from_score(self.config.unit_norm * unit, a_t, t)
        return self.path.velocity_from_mean(estimate.m, a_t, t)

    def _randn(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, device=self.generator.device)

    def parts(self) -> dict[str, Part]:
        """Everything that changes in training, by name."""
        return {
            "actor": self.actor,
            "actor_average": self.actor_average,
            "critic": self.critic,
            "critic_target": self.critic_target,
            "q_scale": self.q_scale,
            "updates": self.updates,
            "actor_optimizer": self.actor_optimizer,
            "critic_optimizer": self.critic_optimizer,
            "generator": self.generator,
        }

    def state_dict(self) -> dict[str, Tensor]:
        return flatten(self.parts())

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        unflatten(state, self.parts())
