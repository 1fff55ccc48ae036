"""A bandit with a known Q: what an agent makes of it without the noise of a learnt critic."""

import torch
from torch import nn

from som_lite.flow.boltzmann import Bumps
from som_lite.rl.agents.base import ActorCritic
from som_lite.rl.replay import Batch

EASY = Bumps(torch.tensor([[0.5, -0.3]]), torch.tensor([0.4]), torch.ones(1))  # one wide hill


class KnownQ(nn.Module):
    """A critic whose two networks agree on q(a), whatever the state."""

    def __init__(self, q):
        super().__init__()
        self.q = q

    def q1(self, obs, a):
        return self.q(a) + 0 * obs.sum(-1)

    min = q1

    def forward(self, obs, a):
        return torch.stack([self.q1(obs, a)] * 2)


def transitions(q, B, generator, dim=2):
    """B uniform actions in the only state, rewarded with q; every episode ends."""
    a = 2 * torch.rand(B, dim, generator=generator) - 1
    return Batch(torch.zeros(B, 1), a, q(a), torch.zeros(B, 1), torch.ones(B))


def learn(agent, q, updates, B=64, seed=0):
    """Actors follow the known q; an agent without one has to learn it from the rewards."""
    generator = torch.Generator().manual_seed(seed)
    if isinstance(agent, ActorCritic):
        agent.critic = KnownQ(q)
    for _ in range(updates):
        batch = transitions(q, B, generator)
        if isinstance(agent, ActorCritic):
            agent.updates += 1
            agent.actor_update(batch)
        else:
            agent.update(batch)
    return agent


def actions(agent, n):
    """n actions in the only state, (n, 2)."""
    return agent.generate(torch.zeros(1, 1), n)[0]
