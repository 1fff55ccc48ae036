"""Soft actor-critic (Haarnoja et al. 2018, arXiv 1812.05905), with an automatic temperature."""

import copy
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from som_lite.flow.nets import MLP
from som_lite.rl.agents.common import Part, adam, derive, flatten, require, seeded, unflatten
from som_lite.rl.critic import TwinQ, polyak_, td_target
from som_lite.rl.replay import Batch

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0  # keeps exp(log_std) finite and the density proper


@dataclass(frozen=True)
class SACConfig:
    """Settings of SAC; the defaults are those in common use on MuJoCo."""

    gamma: float = 0.99  # discount per environment step
    tau: float = 0.005  # share of the online critic that enters the target critic per update
    batch: int = 256  # transitions per update
    hidden: tuple[int, ...] = (256, 256)  # widths of the hidden ReLU layers, actor and critics
    actor_lr: float = 3e-4  # Adam step size of the actor
    critic_lr: float = 3e-4  # Adam step size of the critics
    alpha_lr: float = 3e-4  # Adam step size of log alpha
    alpha: float = 1.0  # temperature at the start
    target_entropy: float = -1.0  # entropy to hold, in nats per action dimension

    def __post_init__(self) -> None:
        require(0 <= self.gamma <= 1, "gamma", self.gamma, "in [0, 1]")
        require(0 < self.tau <= 1, "tau", self.tau, "in (0, 1]")
        require(self.batch >= 1, "batch", self.batch, "at least 1")
        require(min(self.hidden, default=0) >= 1, "hidden", self.hidden, "one or more widths >= 1")
        for name in ("actor_lr", "critic_lr", "alpha_lr", "alpha"):
            require(getattr(self, name) > 0, name, getattr(self, name), "above 0")


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


class SAC:
    """Maximises reward plus alpha times entropy with a tanh-Gaussian policy."""

    policy_parts = ("actor", "critic")  # what `act` needs

    def __init__(
        self,
        obs_dim: int,
        act_dim: int,
        config: SACConfig = SACConfig(),
        seed: int = 0,
        device: str = "cpu",
    ):
        self.config, self.act_dim = config, act_dim
        self.generator = torch.Generator(device).manual_seed(derive(seed, 1))
        with seeded(derive(seed, 0)):
            self.actor = MLP([obs_dim, *config.hidden, 2 * act_dim], nn.ReLU).to(device)
            self.critic = TwinQ(obs_dim, act_dim, config.hidden).to(device)
        self.critic_target = copy.deepcopy(self.critic).requires_grad_(False)
        self.log_alpha = torch.tensor(math.log(config.alpha), device=device, requires_grad=True)
        self.actor_optimizer = adam(self.actor.parameters(), config.actor_lr)
        self.critic_optimizer = adam(self.critic.parameters(), config.critic_lr)
        self.alpha_optimizer = adam([self.log_alpha], config.alpha_lr)

    def policy(
        self, obs: Float[Tensor, "*batch obs"]
    ) -> tuple[Float[Tensor, "*batch d"], Float[Tensor, "*batch"]]:
        """One reparameterised action per row and its log-density."""
        mean, log_std = self.actor(obs).chunk(2, dim=-1)
        eps = torch.randn(mean.shape, generator=self.generator, device=mean.device)
        return squash(mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX), eps)

    @torch.no_grad()
    def generate(self, obs: Float[Tensor, "B obs"], n: int) -> Float[Tensor, "B {n} d"]:
        """n actions per state, drawn from the policy."""
        return self.policy(obs[:, None].expand(-1, n, -1))[0]

    @torch.no_grad()
    def act(self, obs: Float[Tensor, "B obs"], explore: bool) -> Float[Tensor, "B d"]:
        """A draw from the policy to explore; its squashed mean otherwise."""
        if explore:
            return self.generate(obs, 1)[:, 0]
        return self.actor(obs).chunk(2, dim=-1)[0].tanh()

    def critic_update(self, batch: Batch) -> dict[str, Tensor]:
        """Regress both critics on r + gamma (1 - terminated) (min Q'(s', a') - alpha log pi)."""
        with torch.no_grad():
            next_action, next_log_pi = self.policy(batch.next_obs)
            next_q = self.critic_target.min(batch.next_obs, next_action)
            next_v = next_q - self.log_alpha.exp() * next_log_pi
            y = td_target(batch.reward, batch.terminated, next_v, self.config.gamma)
        q = self.critic(batch.obs, batch.action)
        loss = (q - y).square().mean(dim=1).sum()
        self.critic_optimizer.zero_grad()
        loss.backward()
        self.critic_optimizer.step()
        return {"critic_loss": loss.detach(), "q_mean": q.detach().mean()}

    def actor_update(self, batch: Batch) -> dict[str, Tensor]:
        """Minimise E[alpha log pi(a|s) - min Q(s, a)] through the action, then move alpha."""
        action, log_pi = self.policy(batch.obs)
        alpha = self.log_alpha.exp().detach()
        loss = (alpha * log_pi - self.critic.min(batch.obs, action)).mean()
        self.actor_optimizer.zero_grad()
        loss.backward(inputs=list(self.actor.parameters()))  # the critic's .grad stays untouched
        self.actor_optimizer.step()

        surplus = log_pi.detach().mean() + self.config.target_entropy * self.act_dim
        self.alpha_optimizer.zero_grad()
        (-self.log_alpha * surplus).backward()
        self.alpha_optimizer.step()
        return {"actor_loss": loss.detach(), "entropy": -log_pi.detach().mean(), "alpha": alpha}

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """Critic, actor, then the slow target critic. Returns scalar tensors."""
        metrics = self.critic_update(batch) | self.actor_update(batch)
        polyak_(self.critic_target, self.critic, self.config.tau)
        return metrics

    def parts(self) -> dict[str, Part]:
        """Everything that changes in training, by name."""
        return {
            "actor": self.actor,
            "critic": self.critic,
            "critic_target": self.critic_target,
            "log_alpha": self.log_alpha,
            "actor_optimizer": self.actor_optimizer,
            "critic_optimizer": self.critic_optimizer,
            "alpha_optimizer": self.alpha_optimizer,
            "generator": self.generator,
        }

    def state_dict(self) -> dict[str, Tensor]:
        return flatten(self.parts())

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        unflatten(state, self.parts())
