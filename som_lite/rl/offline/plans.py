"""Plans: the next 16 steps of a walk, learnt as one long action.

A flow over plans knows from the data alone that walks are smooth and go round walls; where they
should lead is said later, by guidance (Janner et al., 2205.09991, with a denoiser). A plan is a row
of steps in strides, each in [-1, 1]^2: small errors of the clone then bend a walk, while errors of
positions would tear it.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from som_lite.rl.maze import BLOCK, REACH, STRIDE, open_way
from som_lite.rl.offline.data import Data

STEPS = 16


def windows(data: Data, steps: int = STEPS) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "n p"]]:
    """Every start in the data, and the next `steps` steps from it, flattened.

    No window crosses the end of an episode.
    """
    rows = torch.arange(len(data.episode) - steps + 1)
    rows = rows[data.episode[rows] == data.episode[rows + steps - 1]]
    walked = (data.batch.next_obs - data.batch.obs) / STRIDE
    return data.batch.obs[rows], walked[rows[:, None] + torch.arange(steps)].flatten(1)


def from_the_left(
    starts: Float[Tensor, "n 2"], plans: Float[Tensor, "n p"]
) -> tuple[Float[Tensor, "m 2"], Float[Tensor, "m p"]]:
    """Those that start in the middle of the left corridor, where walks part: up or down."""
    here = (starts[:, 0] < -BLOCK) & (starts[:, 1].abs() < 0.3)
    return starts[here], plans[here]


def positions(
    start: Float[Tensor, "*#B 2"], plan: Float[Tensor, "*B p"]
) -> Float[Tensor, "*B steps1 2"]:
    """The start and the position after each step."""
    walked = STRIDE * plan.unflatten(-1, (-1, 2)).cumsum(-2)
    return start[..., None, :] + torch.cat([torch.zeros_like(walked[..., :1, :]), walked], -2)


def end(start: Float[Tensor, "*#B 2"], plan: Float[Tensor, "*B p"]) -> Float[Tensor, "*B 2"]:
    """Where the plan leads."""
    return start + STRIDE * plan.unflatten(-1, (-1, 2)).sum(-2)


def closeness(
    start: Float[Tensor, "*#B 2"], goal: Float[Tensor, "*#B 2"], plan: Float[Tensor, "*B p"]
) -> Float[Tensor, "*B"]:
    """``-|end - goal|^2``: the value of a plan, known without any critic."""
    return -(end(start, plan) - goal).square().sum(-1)


def crosses(start: Float[Tensor, "B 2"], plan: Float[Tensor, "B p"]) -> Bool[Tensor, "B"]:
    """Does a step of the plan lead through the block or a wall?"""
    points = positions(start, plan).numpy()
    return torch.from_numpy(~open_way(points[:, :-1], points[:, 1:]).all(-1))


def succeeds(
    start: Float[Tensor, "B 2"], goal: Float[Tensor, "B 2"], plan: Float[Tensor, "B p"]
) -> Bool[Tensor, "B"]:
    """Does the plan reach the goal, through free space alone?"""
    reached = (end(start, plan) - goal).norm(dim=-1) < REACH
    return reached & ~crosses(start, plan)
