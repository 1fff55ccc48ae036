"""What no paper is about: settings, seeds, the order of an update, acting by best of N, state.

QAgent         a critic, and actions that `generate` draws; a sibling gives `generate`, and changes
               `make_critic`, `next_action` or `critic_loss` where its paper does
ActorCritic    adds an actor; a sibling gives `make_actor`, `generate` and `actor_loss`
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from som_lite.rl.agents.common import (
    Part,
    adam,
    collect_parts,
    derive,
    flatten,
    require,
    seeded,
    unflatten,
)
from som_lite.rl.critic import CRITICS, TwinQ, best_of_n, polyak_, td_target
from som_lite.rl.replay import Batch

Metrics = dict[str, Tensor]  # scalars without gradient; they stay tensors until they are logged
HEALTH_EVERY = 100  # updates between two looks at the critic's units


@dataclass(frozen=True)
class Config:
    """Settings that every agent has."""

    gamma: float = 0.99  # discount per environment step
    batch: int = 256  # transitions per update
    hidden: tuple[int, ...] = (256, 256)  # widths of the hidden layers, actor and critics
    critic: str = "batch_norm"  # batch_norm (no target critic) or plain (with one)
    critic_lr: float = 1e-3  # Adam step size of the critics
    tau: float = 0.005  # plain critic: share of the online one that enters the target per update
    n_explore: int = 1  # candidates of which the critic picks one while exploring
    n_target: int = 1  # the same in the TD target
    n_evaluate: int = 32  # the same in evaluation

    def __post_init__(self) -> None:
        require(0 <= self.gamma <= 1, "gamma", self.gamma, "in [0, 1]")
        require(min(self.hidden, default=0) >= 1, "hidden", self.hidden, "one or more widths >= 1")
        require(
            self.critic in CRITICS, "critic", self.critic, f"one of {', '.join(sorted(CRITICS))}"
        )
        require(0 < self.tau <= 1, "tau", self.tau, "in (0, 1]")
        self.positive("critic_lr")
        self.at_least_one("batch", "n_explore", "n_target", "n_evaluate")

    def positive(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            require(0 < value < float("inf"), name, value, "above 0 and finite")

    def at_least_one(self, *names: str) -> None:
        for name in names:
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")


@dataclass(frozen=True)
class ActorConfig(Config):
    """Settings that every agent with an actor has."""

    actor_lr: float = 1e-3  # Adam step size of the actor
    actor_every: int = 3  # critic updates per actor update
    actor_tau: float = 0.005  # share of the actor that enters its average per update; 1: no average

    def __post_init__(self) -> None:
        super().__post_init__()
        self.positive("actor_lr")
        self.at_least_one("actor_every")
        require(0 < self.actor_tau <= 1, "actor_tau", self.actor_tau, "in (0, 1]")


class QAgent:
    """A critic, and a policy that draws candidates of which the critic may pick one."""

    policy_parts: tuple[str, ...] = ("critic",)  # what `act` needs
    paper: Any = None  # the settings of its paper or of its public code, where they are known
    one_core: Any = None  # settings for one CPU core; None: the defaults

    def __init__(
        self, obs_dim: int, act_dim: int, config: Any, seed: int = 0, device: str = "cpu"
    ) -> None:
        self.config, self.obs_dim, self.act_dim, self.device = config, obs_dim, act_dim, device
        self.generator = torch.Generator(device).manual_seed(derive(seed, 1))
        self.updates = torch.zeros((), dtype=torch.int64)
        with seeded(derive(seed, 0)):
            self.build()

    def build(self) -> None:
        """Make the networks and their optimisers; called once, under the agent's own seed."""
        c, kind = self.config, CRITICS[self.config.critic]
        self.critic = self.make_critic().to(self.device)
        self.critic_optimizer = adam(self.critic.parameters(), c.critic_lr, kind.betas)
        if kind.needs_target:
            self.critic_target = copy.deepcopy(self.critic).requires_grad_(False)

    def make_critic(self) -> TwinQ:
        c = self.config
        return TwinQ(self.obs_dim, self.act_dim, c.hidden, CRITICS[c.critic])

    # -- acting ------------------------------------------------------------------------------

    def generate(
        self, obs: Float[Tensor, "B obs"], n: int, averaged: bool = False
    ) -> Float[Tensor, "B {n} d"]:
        """n actions in the box per state, without gradient: the only place where they are made.

        ``averaged`` asks for those of the averaged actor, where there is one.
        """
        raise NotImplementedError

    def mode(
        self, obs: Float[Tensor, "B obs"], averaged: bool = False
    ) -> Float[Tensor, "B d"] | None:
        """The action without noise, where a policy has one: evaluation with n = 1 takes it."""
        return None

    @torch.no_grad()
    def act(
        self,
        obs: Float[Tensor, "*B obs"],
        explore: bool,
        n: int | None = None,
        averaged: bool = True,
    ) -> Float[Tensor, "*B d"]:
        """The best of n candidates by the critic; n is ``n_explore`` or ``n_evaluate``.

        Evaluation draws them from the averaged actor: the weights wander, and with them the
        returns from one row of the curve to the next.
        """
        if obs.ndim == 1:  # one observation
            return self.act(obs[None], explore, n, averaged)[0]
        count = n or (self.config.n_explore if explore else self.config.n_evaluate)
        averaged = averaged and not explore
        if count == 1 and not explore and (mode := self.mode(obs, averaged)) is not None:
            return mode
        candidates = self.generate(obs, count, averaged)
        return best_of_n(self.critic, obs, candidates)

    # -- learning ----------------------------------------------------------------------------

    def update(self, batch: Batch) -> Metrics:
        """The critic's update, whatever else the agent learns, then the slow target critic."""
        metrics = self.critic_update(batch)
        self.updates += 1
        if hasattr(self, "critic_target"):
            polyak_(self.critic_target, self.critic, self.config.tau)
        if self.updates % HEALTH_EVERY == 1:
            metrics |= self.critic.health(batch.obs, batch.action)
        return metrics

    @torch.no_grad()
    def next_action(self, obs: Float[Tensor, "B obs"]) -> tuple[Tensor, Tensor | float]:
        """The action a' that the TD target values at s', and what is added to its value."""
        judge = getattr(self, "critic_target", self.critic)
        return best_of_n(judge, obs, self.generate(obs, self.config.n_target)), 0.0

    def critic_update(self, batch: Batch) -> Metrics:
        """One step of both critics."""
        loss, metrics = self.critic_loss(batch)
        self.critic_optimizer.zero_grad()
        loss.backward()
        self.critic_optimizer.step()
        return metrics

    def critic_loss(self, batch: Batch) -> tuple[Float[Tensor, ""], Metrics]:
        """Regress both critics on y = r + gamma (1 - terminated) (min Q(s', a') + bonus)."""
        next_action, bonus = self.next_action(batch.next_obs)
        q, next_q = self.critic.values(batch, next_action, getattr(self, "critic_target", None))
        next_value = next_q.detach().amin(dim=0) + bonus
        y = td_target(batch.reward, batch.terminated, next_value, self.config.gamma)
        loss = (q - y).square().mean(dim=1).sum()
        return loss, {"critic_loss": loss.detach(), "q_mean": q.detach().mean()}

    def randn(self, *shape: int) -> Tensor:
        """Standard normal numbers from the agent's own stream."""
        return torch.randn(shape, generator=self.generator, device=self.generator.device)

    def uniform(self, *shape: int) -> Tensor:
        """Uniform numbers in [-1, 1] from the same stream."""
        unit = torch.rand(shape, generator=self.generator, device=self.generator.device)
        return 2 * unit - 1

    # -- state -------------------------------------------------------------------------------

    def parts(self) -> dict[str, Part]:
        """Everything that changes in training, by name: nothing can be forgotten."""
        return collect_parts(vars(self))

    def state_dict(self) -> dict[str, Tensor]:
        return flatten(self.parts())

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        unflatten(state, self.parts())


class ActorCritic(QAgent):
    """Adds an actor, which follows the critic every ``actor_every`` updates, and its average."""

    policy_parts = ("actor", "actor_average", "critic")

    def build(self) -> None:
        self.actor = self.make_actor().to(self.device)
        self.actor_average = self.actor  # without averaging they are the same
        if self.config.actor_tau < 1:
            self.actor_average = copy.deepcopy(self.actor).requires_grad_(False)
        self.actor_optimizer = adam(self.actor.parameters(), self.config.actor_lr)
        super().build()

    def make_actor(self) -> nn.Module:
        raise NotImplementedError

    def actor_loss(self, batch: Batch) -> tuple[Float[Tensor, ""], Metrics]:
        """What the actor's update lowers, and what it logs beside it."""
        raise NotImplementedError

    def update(self, batch: Batch) -> Metrics:
        metrics = super().update(batch)
        if self.updates % self.config.actor_every == 0:
            metrics |= self.actor_update(batch)
        return metrics

    def actor_update(self, batch: Batch) -> Metrics:
        """One step of the actor; the critics and their gradients stay untouched."""
        loss, metrics = self.actor_loss(batch)
        self.actor_optimizer.zero_grad()
        loss.backward(inputs=list(self.actor.parameters()))
        self.actor_optimizer.step()
        polyak_(self.actor_average, self.actor, self.config.actor_tau)
        return {"actor_loss": loss.detach()} | metrics
