"""A maze on the plane: a square room with a block in the middle, so that two ways lead round it.

Some walkers go left round, some right round; the mean of the two ways leads through the block. A
task where a cloned plan must be one way or the other.
"""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

BLOCK = 0.45  # half the width of the block; the room is [-1, 1]^2
STRIDE = 0.25  # length of the longest step
LOOP = 0.72  # half the width of the square on which walkers go round
GOAL = np.array([LOOP, 0.0], np.float32)
REACH = 0.2  # a goal counts as reached within this distance
HORIZON = 128  # steps before the time limit truncates


def free(points: np.ndarray) -> Bool[np.ndarray, "*n"]:
    """Which of the points (*n, 2) lie in the room and outside the block."""
    far = np.abs(points).max(-1)
    return np.asarray((far > BLOCK) & (far <= 1))


def open_way(start: np.ndarray, end: np.ndarray) -> Bool[np.ndarray, "*n"]:
    """Does the straight line from start to end (*n, 2) stay free? Looked at in 17 points."""
    share = np.linspace(0, 1, 17).reshape(-1, *[1] * np.ndim(start))
    return np.asarray(free(start + share * (end - start)).all(0))


class Maze(gym.Env):
    """Observation: the position in [-1, 1]^2. Action in [-1, 1]^2: the step, at most one stride.

    A step that would cross the block or a wall is not taken. Reward 1 within 0.2 of the goal, which
    is at the middle of the right corridor, else 0; nothing terminates. Episodes start anywhere.
    """

    metadata = {"render_modes": [], "render_fps": 10}  # noqa: RUF012 - Gymnasium's own convention

    def __init__(self, render_mode: str | None = None) -> None:
        self.observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
        self.action_space = gym.spaces.Box(-1, 1, (2,), np.float32)
        self.render_mode = render_mode

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.position = np.zeros(2, np.float32)
        while not free(self.position):
            self.position = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self.position.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        step = STRIDE * action / max(1.0, float(np.linalg.norm(action)))
        there = (self.position + step).astype(np.float32)
        if open_way(self.position, there):
            self.position = there
        reached = np.linalg.norm(self.position - GOAL) < REACH
        return self.position.copy(), float(reached), False, False, {}


def on_loop(length: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n 2"]:
    """The point of the walkers' square after so many sides, counter-clockwise from (1, 1) LOOP."""
    side, share = np.divmod(np.asarray(length) % 4, 1)
    x = np.select([side == 0, side == 1, side == 2], [1 - 2 * share, -1.0, 2 * share - 1], 1.0)
    y = np.select([side == 0, side == 1, side == 2], [1.0, 1 - 2 * share, -1.0], 2 * share - 1)
    return LOOP * np.stack([x, y], -1)


def along_loop(points: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n"]:
    """How far along the walkers' square is the point in the same direction from the middle?"""
    x, y = np.moveaxis(points / np.abs(points).max(-1, keepdims=True), -1, 0)
    on = [(y >= 1) & (x > -1), (x <= -1) & (y > -1), (y <= -1) & (x < 1)]
    return np.select(on, [(1 - x) / 2, 1 + (1 - y) / 2, 2 + (1 + x) / 2], 3 + (1 + y) / 2)


class Walker:
    """Goes round the block, each in a direction and at a speed of its own; now and then it turns.

    A policy for `som-lite record`: `Walker(seed)` for each episode.
    """

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.direction = 1.0 if self._uniform() < 0.5 else -1.0
        self.speed = 0.6 + 0.4 * self._uniform()

    def _uniform(self) -> float:
        return float(torch.rand((), generator=self.generator))

    def act(self, obs: Float[Tensor, "B 2"], explore: bool) -> Float[Tensor, "B 2"]:
        """A step towards the square a little further on, with a little noise."""
        if self._uniform() < 0.03:
            self.direction = -self.direction
        ahead = on_loop(along_loop(obs.numpy()) + 0.25 * self.direction) - obs.numpy()
        step = self.speed * ahead / np.linalg.norm(ahead, axis=-1, keepdims=True)
        noise = 0.1 * torch.randn(obs.shape, generator=self.generator)
        return torch.from_numpy(step.astype(np.float32)) + noise


def register() -> None:
    """Make the task known to Gymnasium as ``Maze-v0``."""
    if "Maze-v0" not in gym.registry:
        gym.register("Maze-v0", f"{__name__}:Maze", max_episode_steps=HORIZON)
