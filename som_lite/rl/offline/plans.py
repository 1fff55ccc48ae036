"""Plans: where a walk will be in the next 16 steps, learnt as one long action.

A flow over plans knows from the data alone that walks are smooth and go round walls; where they
should lead is said later, by guidance (Janner et al., 2205.09991, with a denoiser). A plan is every
second of the next 16 positions, flattened.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from som_lite.rl.maze import BLOCK, REACH, open_way
from som_lite.rl.offline.data import Data

STEPS, EVERY = 16, 2


def windows(
    data: Data, steps: int = STEPS, every: int = EVERY
) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "n p"]]:
    """Every start in the data, and the plan that was walked from it.

    No window crosses the end of an episode.
    """
    rows = torch.arange(len(data.episode) - steps + 1)
    rows = rows[data.episode[rows] == data.episode[rows + steps - 1]]
    following = rows[:, None] + torch.arange(every - 1, steps, every)
    return data.batch.obs[rows], data.batch.next_obs[following].flatten(1)


def from_the_left(
    starts: Float[Tensor, "n 2"], plans: Float[Tensor, "n p"]
) -> tuple[Float[Tensor, "m 2"], Float[Tensor, "m p"]]:
    """Those that start in the middle of the left corridor, where walks part: up or down."""
    here = (starts[:, 0] < -BLOCK) & (starts[:, 1].abs() < 0.3)
    return starts[here], plans[here]


def positions(start: Float[Tensor, "B 2"], plan: Float[Tensor, "B p"]) -> Float[Tensor, "B k 2"]:
    """The start, then those of the plan."""
    return torch.cat([start[:, None], plan.unflatten(1, (-1, 2))], 1)


def end(plan: Float[Tensor, "*B p"]) -> Float[Tensor, "*B 2"]:
    """Where the plan leads."""
    return plan[..., -2:]


def closeness(goal: Float[Tensor, "*#B 2"], plan: Float[Tensor, "*B p"]) -> Float[Tensor, "*B"]:
    """``-|end - goal|^2``: the value of a plan, known without any critic."""
    return -(end(plan) - goal).square().sum(-1)


def crosses(start: Float[Tensor, "B 2"], plan: Float[Tensor, "B p"]) -> Bool[Tensor, "B"]:
    """Does a piece of the plan lead through the block or a wall?"""
    points = positions(start, plan).numpy()
    return torch.from_numpy(~open_way(points[:, :-1], points[:, 1:]).all(-1))


def succeeds(
    start: Float[Tensor, "B 2"], goal: Float[Tensor, "B 2"], plan: Float[Tensor, "B p"]
) -> Bool[Tensor, "B"]:
    """Does the plan reach the goal, through free space alone?"""
    reached = (end(plan) - goal).norm(dim=-1) < REACH
    return reached & ~crosses(start, plan)
