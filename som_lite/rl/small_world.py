"""A walker on a line, small enough for exact values: what the critic of chapter 07 is held against.

A low hill on the left, a high one on the right, and behind it a cliff. There are finitely many
places, so every expectation here is a sum and every value the solution of linear equations.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from som_lite.rl.replay import Batch

PLACES, ACTIONS = 41, 33  # both on [-1, 1]
STRIDE = 0.2  # the way of the action 1: four places
WOBBLE = {-2: 0.1, -1: 0.2, 0: 0.4, 1: 0.2, 2: 0.1}  # places added by chance -> probability
EFFORT = 0.1  # price of the action 1

Table = Float[Tensor, "S A"]


@dataclass(frozen=True)
class SmallWorld:
    """Rewards and chances of a finite world; ``chance`` sums to less than 1 where it may end."""

    places: Float[Tensor, "S"]
    actions: Float[Tensor, "A"]
    reward: Table
    chance: Float[Tensor, "S A S"]  # of going on at each place; the rest is the chance of an end

    @property
    def end(self) -> Table:
        """The chance that the task ends with this step."""
        return 1 - self.chance.sum(dim=-1)


def terrain(x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """What a place pays per step: a low, wide hill at -0.5, a high, narrow one at 0.7."""
    low, high = torch.exp(-(((x + 0.5) / 0.3) ** 2)), torch.exp(-(((x - 0.7) / 0.2) ** 2))
    return 0.6 * low + high


def cliff_walk() -> SmallWorld:
    """The world of chapter 07: x' = x + 0.2 a + wobble, a wall at -1, a cliff beyond 1.

    A landing between two places is on either, the nearer one more often: the mean is kept.
    """
    places = torch.linspace(-1, 1, PLACES, dtype=torch.float64)
    actions = torch.linspace(-1, 1, ACTIONS, dtype=torch.float64)
    unit = (places[1] - places[0]).item()
    landing = torch.arange(PLACES)[:, None] + (STRIDE / unit) * actions  # in places
    below = landing.floor().long()
    chance = torch.zeros(PLACES, ACTIONS, PLACES + 1, dtype=torch.float64)
    for wobble, p in WOBBLE.items():
        for place, share in ((below, 1 + below - landing), (below + 1, landing - below)):
            index = (place + wobble).clamp(0, PLACES)  # the wall; place PLACES is the abyss
            chance.scatter_add_(2, index[..., None], (p * share)[..., None])
    reward = terrain(places)[:, None] - EFFORT * actions.square()
    return SmallWorld(places, actions, reward, chance[..., :PLACES].contiguous())


def policy_q(
    world: SmallWorld, policy: Table, gamma: float, stop: Float[Tensor, "S"] | float = 0.0
) -> Table:
    """Q of a policy, by a linear solve: V = r_pi + gamma P_pi V, then Q = r + gamma P V.

    policy  probabilities of the actions, rows sum to 1
    stop    share of the transitions from each place that are stored as ends though they are none
    """
    keep = 1 - torch.as_tensor(stop, dtype=torch.float64).expand(len(world.places))
    onward = gamma * keep[:, None, None] * world.chance
    reward = (policy * world.reward).sum(dim=1)
    between = torch.einsum("sa,sat->st", policy, onward)
    value = torch.linalg.solve(torch.eye(len(reward), dtype=torch.float64) - between, reward)
    return world.reward + onward @ value


def best_of_n_policy(q: Table, n: int) -> Table:
    """Probabilities of the action that the best of n uniform candidates by q is, ties to the first.

    The action of rank k among A is the best of n with probability (k/A)^n - ((k-1)/A)^n.
    """
    ranks = q.flip(1).argsort(dim=1, stable=True).argsort(dim=1).flip(1).double()
    return ((ranks + 1) / q.shape[1]) ** n - (ranks / q.shape[1]) ** n


def best_of_n_q(
    world: SmallWorld, n: int, gamma: float, stop: Float[Tensor, "S"] | float = 0.0
) -> Table:
    """The Q whose own policy takes the best of n by it: n = 1 is uniform, n = 1000 the optimum.

    Policy iteration: evaluate exactly, choose anew, until nothing changes.
    """
    policy = best_of_n_policy(world.reward, 1)
    while True:
        q = policy_q(world, policy, gamma, stop)
        # Differences in the last digits are no news.
        better = best_of_n_policy((q / 1e-9).round(), n)
        if torch.equal(better, policy):
            return q
        policy = better


def step(
    world: SmallWorld, place: Tensor, action: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Next places and ends (float) of walkers at places and with actions, both as indices."""
    chance = torch.cat([world.chance, world.end[..., None].clamp(min=0)], dim=-1)[place, action]
    landed = torch.multinomial(chance, 1, generator=generator).squeeze(1)
    ended = landed == len(world.places)
    return torch.where(ended, place, landed), ended.double()


def visited(
    world: SmallWorld, policy: Table, start: Float[Tensor, "S"], horizon: int
) -> Float[Tensor, "horizon S"]:
    """The chance of being at each place after 0, 1, …, horizon - 1 steps of an episode."""
    between = torch.einsum("sa,sat->st", policy, world.chance)
    found = [start]
    for _ in range(horizon - 1):
        found.append(found[-1] @ between)
    return torch.stack(found)


def as_batch(
    world: SmallWorld, place: Tensor, action: Tensor, after: Tensor, ended: Tensor
) -> Batch:
    """Transitions, given as indices, in the form of the replay buffer: float32 numbers."""
    x, a = world.places.float()[:, None], world.actions.float()[:, None]
    reward = world.reward[place, action].float()
    return Batch(x[place], a[action], reward, x[after], ended.float())


def tabulate(world: SmallWorld, q: Callable[[Tensor, Tensor], Tensor]) -> Table:
    """A critic's values at every place and action."""
    obs, a = world.places.float()[:, None, None], world.actions.float()[None, :, None]
    with torch.no_grad():
        return q(obs, a).double()
