"""Plans: the next 16 positions of a walk, learnt as one long action.

A flow over plans knows from the data alone that walks are smooth and go round walls; where they
should lead is said later, by guidance (Janner et al., 2205.09991, with a denoiser).
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from som_lite.rl.maze import REACH, open_way
from som_lite.rl.offline.data import Data

STEPS = 16


def windows(data: Data, steps: int = STEPS) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "n p"]]:
    """Every start in the data, and the flattened `steps` positions that followed it.

    No window crosses the end of an episode.
    """
    rows = torch.arange(len(data.episode) - steps + 1)
    rows = rows[data.episode[rows] == data.episode[rows + steps - 1]]
    following = rows[:, None] + torch.arange(steps)
    return data.batch.obs[rows], data.batch.next_obs[following].flatten(1)


def end(plan: Float[Tensor, "*B p"]) -> Float[Tensor, "*B 2"]:
    """Where the plan leads."""
    return plan[..., -2:]


def closeness(goal: Float[Tensor, "*#B 2"], plan: Float[Tensor, "*B p"]) -> Float[Tensor, "*B"]:
    """``-|end - goal|^2``: the value of a plan, known without any critic."""
    return -(end(plan) - goal).square().sum(-1)


def crosses(start: Float[Tensor, "B 2"], plan: Float[Tensor, "B p"]) -> Bool[Tensor, "B"]:
    """Does a piece of the plan lead through the block or a wall?"""
    points = torch.cat([start[:, None], plan.unflatten(1, (-1, 2))], 1).numpy()
    return torch.from_numpy(~open_way(points[:, :-1], points[:, 1:]).all(-1))


def succeeds(
    start: Float[Tensor, "B 2"], goal: Float[Tensor, "B 2"], plan: Float[Tensor, "B p"]
) -> Bool[Tensor, "B"]:
    """Does the plan reach the goal, through free space alone?"""
    reached = (end(plan) - goal).norm(dim=-1) < REACH
    return reached & ~crosses(start, plan)
