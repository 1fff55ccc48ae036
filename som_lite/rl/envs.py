"""From the name of a task to an environment as every agent here expects it."""

import difflib
import importlib
import logging
import warnings
from typing import Any

import gymnasium as gym
import mujoco

from som_lite.rl import maze, multigoal
from som_lite.rl.adapt import Adapted
from som_lite.rl.drawing import track

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
    """The environment as `Adapted` shows it: flat float32 observations, actions in [-1, 1].

    `env_id` is an id that Gymnasium knows, or `module:EnvId`: then the module, which registers
    the id, is imported first.

    Raises ValueError for an unknown id (naming the nearest), a module that cannot be imported, and
    for spaces that `Adapted` refuses.
    """
    env = _make(_registered(env_id), env_id, render_mode)
    track(env)
    return Adapted(env)


def _registered(env_id: str) -> str:
    """The id without the module, which has been imported. Raises ValueError for an unknown id."""
    multigoal.register()
    maze.register()
    module, _, name = env_id.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except Exception as error:  # the module is the reader's own: anything may be wrong in it
            absent = isinstance(error, ModuleNotFoundError) and error.name == module.split(".")[0]
            hint = "; is its folder in PYTHONPATH?" if absent else ""
            text = f"cannot import {module!r} for {env_id!r}: {_line(error)}{hint}"
            raise ValueError(text) from error
    if name not in gym.registry:
        near = difflib.get_close_matches(name, gym.registry, n=3, cutoff=0.6)
        hint = f"did you mean {', '.join(near)}?" if near else f"try {TASKS[0]}-v5"
        unknown = f"{module!r} registers no {name!r}" if module else f"unknown environment {name!r}"
        own = "" if module else "; a task of your own is MODULE:ID"
        raise ValueError(f"{unknown}: {hint}{own}")
    return name


def _make(name: str, env_id: str, render_mode: str | None) -> gym.Env:
    options: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
    with warnings.catch_warnings():
        # The v4 tasks are asked for on purpose: most published curves use them.
        warnings.filterwarnings("ignore", ".*is out of date", DeprecationWarning)
        # Whether an environment can draw is seen when it is asked to.
        warnings.filterwarnings("ignore", ".*not in the possible render_modes")
        try:
            return gym.make(name, disable_env_checker=True, **options)
        except Exception as error:  # constructors fail in their own ways
            raise ValueError(f"cannot make environment {env_id!r}: {_line(error)}") from error


def _line(error: Exception) -> str:
    """The first line of an error, with its type unless that is Gymnasium's own."""
    text = (str(error).strip().splitlines() or [""])[0]
    kind = "" if isinstance(error, gym.error.Error) and text else type(error).__name__
    return ": ".join(filter(None, (kind, text)))
