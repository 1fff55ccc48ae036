"""How good is a policy? Returns over whole episodes, and a video of one."""

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import gymnasium as gym
import imageio.v2 as imageio
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from som_lite.rl.agents.common import derive, require
from som_lite.rl.drawing import frame_rate, off_screen, picture
from som_lite.rl.envs import make_env

MAX_STEPS = 10_000  # per episode of evaluation, where the task has no time limit of its own


@runtime_checkable
class Policy(Protocol):
    """What can be evaluated: every agent, and anything else that acts."""

    generator: torch.Generator

    def act(self, obs: Tensor, explore: bool) -> Tensor: ...


class Episodes(NamedTuple):
    """What happened in E episodes."""

    returns: Float[np.ndarray, "E"]  # undiscounted sums of rewards
    lengths: Int[np.ndarray, "E"]  # steps
    terminated: Bool[np.ndarray, "E"]  # ended by the task; otherwise time ran out


def evaluate(
    agent: Policy, env_id: str, episodes: int = 10, seed: int = 0, **options: Any
) -> Float[np.ndarray, "{episodes}"]:
    """Undiscounted returns of `agent` acting without exploration; the options are those of `play`.

    The same seed gives the same returns bit for bit. Raises as `play` does.
    """
    return play(agent, env_id, episodes, seed, **options).returns


def play(
    agent: Policy,
    env_id: str,
    episodes: int = 10,
    seed: int = 0,
    *,
    n: int | None = None,
    averaged: bool | None = None,
    max_steps: int | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Episodes:
    """Whole episodes of `agent` acting without exploration.

    n          candidates of which the critic picks the action, instead of the agent's own setting
    averaged   act with the averaged weights or with the last ones
    max_steps  an episode is cut after so many; by default the task's time limit, or 10 000 steps
               where it has none, which a warning tells
    stop       asked before every step; once it says True, KeyboardInterrupt is raised

    All episodes run side by side, so that the policy sees one batch per step. The same seed gives
    the same episodes bit for bit, and the agent's own random stream is left as it was.

    Raises ValueError for fewer than one episode, candidate or step, a negative seed, and an option
    that `agent` does not have; NotFinite when the task gives what is not finite.
    """
    for name, value in (("episodes", episodes), ("max_steps", max_steps)):
        require(value is None or value >= 1, name, value, "at least 1")
    require(seed >= 0, "seed", seed, "0 or more")
    options = _options(agent, n, averaged)
    envs: list[gym.Env] = []
    try:
        for _ in range(episodes):
            envs.append(make_env(env_id))
        limit = _limit(envs[0], max_steps)
        with own_noise(agent, seed):
            result = _play(agent, envs, seed, limit, options, stop)
    finally:
        for env in envs:
            env.close()
    if limit == MAX_STEPS != max_steps and (result.lengths[~result.terminated] == limit).any():
        _tell_cut(env_id, limit)
    return result


@cache
def _tell_cut(env_id: str, limit: int) -> None:
    """Once for each task, not in every row of a training."""
    text = f"{env_id} has no time limit: episodes were cut after {limit} steps (max_steps)"
    warnings.warn(text, stacklevel=3)


def _limit(env: gym.Env, max_steps: int | None) -> int:
    own = env.spec.max_episode_steps if env.spec else None
    return max_steps or own or MAX_STEPS


def _play(
    agent: Policy,
    envs: list[gym.Env],
    seed: int,
    limit: int,
    options: dict[str, Any],
    stop: Callable[[], bool],
) -> Episodes:
    E = len(envs)
    obs = np.stack([env.reset(seed=start_seed(seed, i))[0] for i, env in enumerate(envs)])
    result = Episodes(np.zeros(E), np.zeros(E, int), np.zeros(E, bool))
    running = np.ones(E, bool)
    while running.any():
        # Episodes that are over stay in the batch: its size decides which noise a row gets.
        actions = _act(agent, obs, False, options)
        for i in np.flatnonzero(running):
            if stop():
                raise KeyboardInterrupt("evaluation stopped")
            obs[i], reward, terminated, truncated, _ = envs[i].step(actions[i])
            result.returns[i] += float(reward)
            result.lengths[i] += 1
            result.terminated[i] = terminated
            running[i] = not (terminated or truncated) and result.lengths[i] < limit
    return result


def record_video(
    agent: Policy,
    env_id: str,
    path: str | Path,
    seed: int = 0,
    *,
    n: int | None = None,
    averaged: bool | None = None,
    max_steps: int | None = None,
) -> float:
    """Film one episode to `path` (.mp4 or .gif) and return its return.

    It starts where the first episode of `play` with this seed starts; the options are those of
    `play`. Without a screen MuJoCo draws through EGL. Raises ValueError for another file type, and
    for an environment that cannot be drawn.
    """
    path = Path(path)
    if path.suffix not in (".mp4", ".gif"):
        raise ValueError(f"video must end in .mp4 or .gif, got {str(path)!r}")
    options = _options(agent, n, averaged)
    env = make_env(env_id, render_mode="rgb_array")
    try:
        with own_noise(agent, seed), off_screen():
            obs, _ = env.reset(seed=start_seed(seed, 0))
            picture(env, env_id)  # before the file is there: it may fail
            path.parent.mkdir(parents=True, exist_ok=True)
            total, steps, limit = 0.0, 0, _limit(env, max_steps)
            done = False
            with imageio.get_writer(path, **frame_rate(env, path.suffix)) as video:
                while not done:
                    frame = picture(env, env_id)
                    video.append_data(frame)  # pyright: ignore[reportAttributeAccessIssue]
                    action = _act(agent, obs, False, options)
                    obs, reward, terminated, truncated, _ = env.step(action)
                    total, steps = total + float(reward), steps + 1
                    done = terminated or truncated or steps == limit
    finally:
        env.close()
    return total


def act(
    agent: Policy,
    obs: Any,
    explore: bool = False,
    *,
    n: int | None = None,
    averaged: bool | None = None,
) -> np.ndarray:
    """Actions (B, d) of the agent for observations (B, o), or one (d,) for one (o,).

    Observations may be arrays of any number type, or lists. `n` and `averaged` as in `play`.
    Raises ValueError for another shape, and for an option that the agent does not have.
    """
    return _act(agent, obs, explore, _options(agent, n, averaged))


def _act(agent: Policy, obs: Any, explore: bool, options: dict[str, Any]) -> np.ndarray:
    x = torch.tensor(np.asarray(obs, np.float32), device=agent.generator.device)  # a copy
    o = getattr(agent, "obs_dim", x.shape[-1] if x.ndim else "o")
    if x.ndim not in (1, 2) or x.shape[-1] != o:
        raise ValueError(f"obs must have shape ({o},) or (B, {o}), got {tuple(x.shape)}")
    actions = agent.act(torch.atleast_2d(x), explore, **options).cpu().numpy()
    return actions[0] if x.ndim == 1 else actions


def _options(agent: Policy, n: int | None, averaged: bool | None) -> dict[str, Any]:
    """The options that were given, as keywords of `agent.act`."""
    require(n is None or n >= 1, "n", n, "at least 1")
    given = {k: x for k, x in (("n", n), ("averaged", averaged)) if x is not None}
    if given:
        known = inspect.signature(agent.act).parameters
        for name in given.keys() - known.keys():
            raise ValueError(f"{type(agent).__name__} has no option {name!r} of how to act")
    return given


def start_seed(seed: int, episode: int) -> int:
    """Seed of the start state of an episode, the same however many episodes there are."""
    return derive(seed, 1, episode)


@contextmanager
def own_noise(agent: Policy, seed: int) -> Iterator[None]:
    """Lend the agent a random stream of its own, then give it back the one it had."""
    before = agent.generator.get_state()
    agent.generator.manual_seed(derive(seed, 0))
    try:
        yield
    finally:
        agent.generator.set_state(before)
