"""How good is a policy? Returns over whole episodes, and a video of one."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

import gymnasium as gym
import imageio.v2 as imageio
import numpy as np
import torch
from torch import Tensor

from som_lite.rl.agents.common import derive
from som_lite.rl.envs import make_env


@runtime_checkable
class Policy(Protocol):
    """What can be evaluated: every agent, and anything else that acts."""

    generator: torch.Generator

    def act(self, obs: Tensor, explore: bool) -> Tensor: ...


def evaluate(agent: Policy, env_id: str, episodes: int = 10, seed: int = 0) -> np.ndarray:
    """Undiscounted returns (episodes,) of `agent` acting without exploration.

    All episodes run side by side in one vector environment, so that the policy sees one batch per
    step. The same seed gives the same returns bit for bit, and the agent's own random stream is
    left as it was. Raises ValueError for fewer than one episode or a negative seed.
    """
    if episodes < 1:
        raise ValueError(f"episodes must be at least 1, got {episodes}")
    envs = gym.vector.SyncVectorEnv([lambda: make_env(env_id)] * episodes)
    returns, running = np.zeros(episodes), np.ones(episodes, dtype=bool)
    with own_noise(agent, seed):
        obs, _ = envs.reset(seed=[start_seed(seed, i) for i in range(episodes)])
        while running.any():
            obs, reward, terminated, truncated, _ = envs.step(act(agent, obs))
            returns += reward * running
            # A copy that has finished is reset by the vector environment and goes on: from here
            # on it belongs to a second episode, which does not count.
            running &= ~(terminated | truncated)
    envs.close()
    return returns


def record_video(agent: Policy, env_id: str, path: str | Path, seed: int = 0) -> float:
    """Film one episode to `path` (.mp4 or .gif) and return its return.

    It starts where the first episode of `evaluate` with this seed starts. Without a display the
    frames are drawn off screen by EGL. Raises ValueError for another file type, and where the
    library that draws the frames is missing.
    """
    path = Path(path)
    if path.suffix not in (".mp4", ".gif"):
        raise ValueError(f"video must end in .mp4 or .gif, got {str(path)!r}")
    if sys.platform == "linux" and not (os.getenv("DISPLAY") or os.getenv("WAYLAND_DISPLAY")):
        os.environ.setdefault("MUJOCO_GL", "egl")
    env = make_env(env_id, render_mode="rgb_array")
    obs, _ = env.reset(seed=start_seed(seed, 0))
    try:
        env.render()
    except Exception as error:  # each graphics library fails in its own way
        raise ValueError(f"cannot draw {env_id}: {str(error) or repr(error)}") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    total, done = 0.0, False
    fps = env.metadata["render_fps"]
    with own_noise(agent, seed), imageio.get_writer(path, fps=fps) as video:
        while not done:
            video.append_data(env.render())  # pyright: ignore[reportAttributeAccessIssue]
            obs, reward, terminated, truncated, _ = env.step(act(agent, obs[None])[0])
            total, done = total + float(reward), terminated or truncated
    env.close()
    return total


def act(agent: Policy, obs: np.ndarray, explore: bool = False) -> np.ndarray:
    """Actions (B, d) of the agent for observations (B, o), numpy in and out."""
    x = torch.as_tensor(obs, device=agent.generator.device)
    return agent.act(x, explore).cpu().numpy()


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
