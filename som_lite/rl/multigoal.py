"""A point that hops over water to one of four equally good goals: a task where hedging fails.

The land is a cross of four paths, one along each half axis, that widen from the centre outwards.
Two hops lead from the centre to a goal, and there is time for two: the first one decides. So Q at
the centre has four equal peaks with water between them, at the middles of the sides of the box of
actions and not in its corners, where a wide tanh-Gaussian would find them. A policy needs four
humps to reach all goals (after the multi-goal task of Haarnoja et al., 1702.08165, section 5,
whose goals also lie on the axes).
"""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

GOALS = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]], dtype=np.float32)
REACH = 0.25  # a goal counts as reached within this distance
STRIDE = 0.6  # length of the longest hop
SLOPE = 0.25  # half the width of a path over the distance from the centre
ISLAND = 0.05  # radius of the land at the centre, where the four paths meet
DISTANCE_COST = 0.3  # per hop and unit of distance to the nearest goal
HORIZON = 2  # hops before the time limit truncates
WATER, LATE = -1, -2  # how an episode may end, beside the index of a goal


def on_land(position: np.ndarray) -> np.ndarray:
    """Which of the positions (..., 2) are dry."""
    along, across = np.abs(position).max(-1), np.abs(position).min(-1)
    on_island = np.linalg.norm(position, axis=-1) <= ISLAND
    return np.asarray((across <= SLOPE * along) | on_island)


class MultiGoal(gym.Env):
    """Observation: the position, in [-2, 2]^2. Action in [-1, 1]^2: the hop, at most one stride.

    Reward: 1 on reaching a goal and -1 on falling into the water, both of which terminate, less
    0.3 times the distance to the nearest goal. Only where a hop lands counts, not what it crosses.
    Episodes start at the centre; ``info["goal"]`` is the index of the goal that was reached.
    """

    metadata = {"render_modes": [], "render_fps": 10}  # noqa: RUF012 - Gymnasium's own convention

    def __init__(self, render_mode: str | None = None) -> None:
        self.observation_space = gym.spaces.Box(-2, 2, (2,), np.float32)
        self.action_space = gym.spaces.Box(-1, 1, (2,), np.float32)
        self.render_mode = render_mode

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.position = np.zeros(2, np.float32)
        return self.position.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        hop = STRIDE * action / max(1.0, float(np.linalg.norm(action)))
        self.position = np.clip(self.position + hop, -2, 2).astype(np.float32)
        distance = np.linalg.norm(GOALS - self.position, axis=1)
        reached = bool(distance.min() < REACH)
        drowned = not reached and not on_land(self.position)
        reward = float(reached) - float(drowned) - DISTANCE_COST * float(distance.min())
        info = {"goal": int(distance.argmin())} if reached else {}
        return self.position.copy(), reward, reached or drowned, False, info


def in_time(actions: np.ndarray) -> np.ndarray:
    """Which goals can still be reached after these first hops (n, 2)?  (n, goals), at most one.

    Where the answer is no, no policy whatever reaches that goal.
    """
    hops = STRIDE * actions / np.maximum(1, np.linalg.norm(actions, axis=-1))[:, None]
    distances = np.linalg.norm(GOALS - hops[:, None], axis=-1)
    return on_land(hops)[:, None] & (distances < REACH + (HORIZON - 1) * STRIDE)


def play(
    policy: Callable[[np.ndarray], np.ndarray], episodes: int = 200
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Episodes side by side: positions (hops + 1, n, 2), returns (n,) and how each one ended (n,).

    `policy` makes one action per position, (n, 2) -> (n, 2). An end is a goal's index, WATER or
    LATE.
    """
    envs = [MultiGoal() for _ in range(episodes)]
    position = np.stack([env.reset()[0] for env in envs])
    positions, returns, ends = [position.copy()], np.zeros(episodes), np.full(episodes, LATE)
    running = np.ones(episodes, dtype=bool)
    for _ in range(HORIZON):
        actions = np.clip(policy(position), -1, 1)
        for i in np.flatnonzero(running):
            position[i], reward, over, _, info = envs[i].step(actions[i])
            returns[i] += reward
            if over:
                ends[i], running[i] = info.get("goal", WATER), False
        positions.append(position.copy())
    return np.stack(positions), returns, ends


def register() -> None:
    """Make the task known to Gymnasium as ``MultiGoal-v0``."""
    if "MultiGoal-v0" not in gym.registry:
        gym.register("MultiGoal-v0", f"{__name__}:MultiGoal", max_episode_steps=HORIZON)
