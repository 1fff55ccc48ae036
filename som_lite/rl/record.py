"""Let a policy act and keep what happened: a data set of mixed quality to learn from offline."""

import importlib
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
import torch
import tyro

from som_lite.rl.agents.common import derive, require
from som_lite.rl.envs import make_env
from som_lite.rl.evaluate import Policy, act, own_noise, start_seed
from som_lite.rl.offline.data import Episode, require_free, write_data
from som_lite.rl.runs import Run


@dataclass(frozen=True)
class RecordConfig:
    """Let a trained policy act and write a data set in Minari's format.

    Some episodes of the policy as it is, some with noise on its actions, some of random actions.
    """

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """run folder, or MODULE:NAME of a policy of your own: NAME(seed) makes one for each episode"""
    out: str  # new folder of the data set, such as data/hopper-mixed-v0
    env: str = ""  # task; a run's own by default
    trained: int = 4  # episodes of the policy as it is
    noisy: int = 4  # episodes with normal noise on its actions
    random: int = 4  # episodes of uniform actions
    noise: float = 0.5  # its standard deviation in the last noisy episode; it rises evenly to that
    n: int | None = None  # candidates of which the critic picks one; None: the run's n_evaluate
    seed: int = 0  # decides start states and noise; the same seed gives the same data
    max_steps: int | None = None  # cut episodes after so many steps; None: the task's time limit
    half: bool = False  # observations and actions in half precision

    def __post_init__(self) -> None:
        for name in ("trained", "noisy", "random", "seed"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        total = self.trained + self.noisy + self.random
        require(total >= 1, "trained + noisy + random", total, "at least 1")
        require(0 < self.noise < float("inf"), "noise", self.noise, "above 0 and finite")
        for name in ("n", "max_steps"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, value, "at least 1")

    def command(self) -> str:
        """The command that makes the same data set."""
        words = ["som-lite", "record", self.run]
        for name, value in vars(self).items():
            if name == "run" or value == type(self).__dataclass_fields__[name].default:
                continue
            words += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
        return shlex.join(words)

    def qualities(self) -> list[tuple[str, float | None]]:
        """Per episode: who acts, in words, and the noise (None: nothing but noise)."""
        levels = self.noise * np.arange(1, self.noisy + 1) / max(self.noisy, 1)
        rows: list[tuple[str, float | None]] = [("trained", 0.0)] * self.trained
        rows += [(f"noise {x:.2f}", float(x)) for x in levels]
        return rows + [("random", None)] * self.random


def record(config: RecordConfig) -> Path:
    """Play all episodes, then write them; returns the folder.

    Raises ValueError, and writes nothing, for settings that cannot work.
    """
    require_free(config.out)
    policy_of, env_id = _source(config)
    env = make_env(env_id)
    try:
        episodes = [
            _episode(policy_of(derive(config.seed, 2, i)), env, words, noise, config, i)
            for i, (words, noise) in enumerate(config.qualities())
        ]
        return write_data(config.out, episodes, env, config.command(), config.half)
    finally:
        env.close()


def _source(config: RecordConfig) -> tuple[Callable[[int], Policy], str]:
    """A policy for each seed, and the task."""
    named = re.fullmatch(r"([\w.]+):(\w+)", config.run)
    if named and not Path(config.run).exists():
        require(bool(config.env), "env", config.env, "a task where RUN is MODULE:NAME")
        try:
            make = getattr(importlib.import_module(named[1]), named[2])
        except (ImportError, AttributeError) as error:
            raise ValueError(f"cannot import {config.run!r}: {error}") from error
        return make, config.env
    run = Run(config.run)
    agent = run.load_agent()
    return lambda seed: agent, config.env or run.config().env


def _episode(
    policy: Policy,
    env: gym.Env,
    words: str,
    noise: float | None,
    config: RecordConfig,
    number: int,
) -> Episode:
    draw = np.random.default_rng(derive(config.seed, 3, number))
    obs, _ = env.reset(seed=start_seed(config.seed, number))
    seen, done, rewards, over, terminated = [obs], [], [], False, False
    assert env.action_space.shape is not None
    options: dict[str, Any] = {} if config.n is None else {"n": config.n}
    with own_noise(policy, derive(config.seed, 4, number)), torch.no_grad():
        while not over:
            if noise is None:
                action = draw.uniform(-1, 1, env.action_space.shape)
            else:
                action = act(policy, obs, **options)
                action = action + noise * draw.standard_normal(action.shape)
            action = np.clip(action, -1, 1).astype(np.float16 if config.half else np.float32)
            obs, reward, terminated, truncated, _ = env.step(action.astype(np.float32))
            seen.append(obs)
            done.append(action)
            rewards.append(reward)
            over = terminated or truncated or len(rewards) == config.max_steps
    return Episode(np.stack(seen), np.stack(done), np.array(rewards), terminated, words)
