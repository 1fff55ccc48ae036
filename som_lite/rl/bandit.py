"""A bandit with a known Q: what does an agent make of it, without the noise of a learnt critic?

One state, and every episode ends after one action. `FixedQ` stands where an agent has its critic.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from som_lite.flow.scores import Energy
from som_lite.rl.agents.base import ActorCritic, QAgent
from som_lite.rl.critic import TwinQ
from som_lite.rl.replay import Batch


class _Value(nn.Module):
    def __init__(self, q: Energy) -> None:
        super().__init__()
        self.q = q

    def forward(self, obs: Tensor, a: Tensor) -> Tensor:
        return self.q(a) + 0 * obs.sum(-1)  # obs and actions broadcast, as in a critic


class FixedQ(TwinQ):
    """A critic whose two networks agree on q(a), whatever the state."""

    def __init__(self, q: Energy) -> None:
        nn.Module.__init__(self)
        self.q1 = self.q2 = _Value(q)  # pyright: ignore[reportAttributeAccessIssue]

    def min(self, obs: Tensor, a: Tensor) -> Tensor:
        """The smaller of two equal values."""
        return self.q1(obs, a)


def transitions(q: Energy, B: int, generator: torch.Generator, dim: int = 2) -> Batch:
    """B uniform actions in the only state, rewarded with q; every episode ends."""
    a = 2 * torch.rand(B, dim, generator=generator) - 1
    return Batch(torch.zeros(B, 1), a, q(a), torch.zeros(B, 1), torch.ones(B))


def learn_from(
    agent: QAgent, q: Energy, updates: int, B: int = 64, seed: int = 0, decay: bool = False
) -> QAgent:
    """Actors follow the known q; an agent without one learns it from the rewards.

    With ``decay`` the step size falls in a line to zero. Nothing follows an action, so none is
    drawn for the target of the TD loss.
    """
    generator = torch.Generator().manual_seed(seed)
    if isinstance(agent, ActorCritic):
        agent.critic, optimizer, update = FixedQ(q), agent.actor_optimizer, agent.actor_update
    else:
        optimizer, update = agent.critic_optimizer, agent.critic_update
        agent.next_action = lambda obs: (obs.new_zeros(len(obs), agent.act_dim), 0.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0 if decay else 1.0, updates)
    for _ in range(updates):
        agent.updates += 1
        update(transitions(q, B, generator, agent.act_dim))
        schedule.step()
    return agent


def actions(agent: QAgent, n: int) -> Float[Tensor, "{n} d"]:
    """n actions in the only state."""
    return agent.generate(torch.zeros(1, 1), n)[0]


def network_calls(agent: QAgent) -> int:
    """How often an action asks a network: the actor; where there is none, the critic."""
    net = agent.actor if isinstance(agent, ActorCritic) else agent.critic.q1
    calls = []
    hook = net.register_forward_hook(lambda *_: calls.append(1))
    actions(agent, 1)
    hook.remove()
    return len(calls)
