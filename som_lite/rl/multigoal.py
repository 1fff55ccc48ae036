"""A point on the plane with four equally good goals: a task where a unimodal policy must choose.

From the centre the best action has four answers, so Q has four equal peaks. A Boltzmann policy
keeps them all; a Gaussian one settles on a single peak, or on the useless middle (after the
multi-goal task of Haarnoja et al., 1702.08165, section 5).
"""

from typing import Any

import gymnasium as gym
import numpy as np

GOALS = np.array([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]], dtype=np.float32)
REACH = 0.3  # a goal counts as reached within this distance
STRIDE = 0.25  # length of the longest step
DISTANCE_COST = 0.1  # per step and unit of distance to the nearest goal
HORIZON = 40  # steps before the time limit truncates


class MultiGoal(gym.Env):
    """Observation: the position, in [-2, 2]^2. Action in [-1, 1]^2: the step, at most one stride.

    Reward: 1 on reaching a goal, which terminates, less 0.1 times the distance to the nearest one.
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
        step = STRIDE * action / max(1.0, float(np.linalg.norm(action)))
        self.position = np.clip(self.position + step, -2, 2).astype(np.float32)
        distance = np.linalg.norm(GOALS - self.position, axis=1)
        reached = bool(distance.min() < REACH)
        info = {"goal": int(distance.argmin())} if reached else {}
        return (
            self.position.copy(),
            float(reached) - DISTANCE_COST * float(distance.min()),
            reached,
            False,
            info,
        )


def register() -> None:
    """Make the task known to Gymnasium as ``MultiGoal-v0``."""
    if "MultiGoal-v0" not in gym.registry:
        gym.register("MultiGoal-v0", f"{__name__}:MultiGoal", max_episode_steps=HORIZON)
