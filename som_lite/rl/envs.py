"""Environments as every agent here expects them: float32 vectors in, actions in [-1, 1] out."""

import difflib
import logging
import warnings
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium import spaces, wrappers

from som_lite.rl import multigoal

TASKS = (
    "InvertedPendulum",
    "Reacher",
    "Swimmer",
    "Hopper",
    "HalfCheetah",
    "Walker2d",
    "Ant",
    "Humanoid",
)  # MuJoCo task families, each as -v4 and -v5; returns of the two versions are not comparable

# MuJoCo would print its warnings and write MUJOCO_LOG.TXT into the working folder.
_log = logging.getLogger("som_lite.mujoco").warning
mujoco.set_mju_user_warning(_log)  # pyright: ignore[reportAttributeAccessIssue]


def make_env(env_id: str, render_mode: str | None = None) -> gym.Env:
    """The environment with flat float32 observations and actions rescaled to [-1, 1].

    This is the only place where actions are rescaled; they are also clipped, so that no agent can
    send an action out of the box. `terminated` and `truncated` stay apart, as Gymnasium gives them.

    Raises ValueError for an unknown id (naming the nearest), observations that are not a Box, and
    actions that are not a bounded Box.
    """
    env = _make(env_id, render_mode)
    box = env.observation_space
    if not isinstance(box, spaces.Box):
        raise _unsupported(env, f"its observations are {box}, not a Box")
    if not isinstance(env.action_space, spaces.Box):
        raise _unsupported(env, f"its actions are {env.action_space}, not a continuous Box")
    if not env.action_space.is_bounded():
        raise _unsupported(env, f"its actions are not bounded: {env.action_space}")
    low, high = (x.astype(np.float32).ravel() for x in (box.low, box.high))
    flat = spaces.Box(low, high, dtype=np.float32)
    env = wrappers.TransformObservation(env, lambda x: np.float32(x).ravel(), flat)
    env = wrappers.RescaleAction(env, np.float32(-1), np.float32(1))
    return wrappers.TransformAction(env, lambda a: np.clip(a, -1, 1), env.action_space)


def _make(env_id: str, render_mode: str | None) -> gym.Env:
    multigoal.register()
    if env_id not in gym.registry:
        near = difflib.get_close_matches(env_id, gym.registry, n=3, cutoff=0.6)
        hint = f"did you mean {', '.join(near)}?" if near else f"try {TASKS[4]}-v5 or Pendulum-v1"
        raise ValueError(f"unknown environment {env_id!r}: {hint}")
    with warnings.catch_warnings():
        # The v4 tasks are asked for on purpose: most published curves use them.
        warnings.filterwarnings("ignore", ".*is out of date", DeprecationWarning)
        try:
            options: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
            return gym.make(env_id, disable_env_checker=True, **options)
        except (gym.error.Error, ImportError, TypeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(f"cannot make environment {env_id!r}: {reason}") from error


def _unsupported(env: gym.Env, why: str) -> ValueError:
    name = env.spec.id if env.spec else type(env).__name__
    env.close()
    return ValueError(f"environment {name!r} is not supported: {why}")
