"""Small environments whose right answers are known, and agents of their size."""

import gymnasium as gym
import numpy as np

from som_lite.rl.agents import AGENTS
from som_lite.rl.agents.base import ActorCritic

BOX = gym.spaces.Box(-1, 1, (1,), np.float32)


class Glider(gym.Env):
    """A mass on a line pushed by the action; the reward is minus its squared distance from 0."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = BOX

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = np.array([self.np_random.uniform(-1, 1), 0], np.float32)
        return self.state.copy(), {}

    def step(self, action):
        x, v = self.state
        v = np.float32(0.8 * v + 0.3 * action[0])
        self.state = np.array([np.clip(x + v, -2, 2), v], np.float32)
        return self.state.copy(), -float(self.state[0] ** 2), False, False, {}


class Clock(gym.Env):
    """Observes how many steps an episode has taken; terminates after 3 to 9, drawn by the seed.

    Every step is rewarded with 1, so that the return is the length of the episode.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 1}  # noqa: RUF012
    observation_space = gym.spaces.Box(0, np.inf, (1,), np.float32)
    action_space = BOX

    def __init__(self, render_mode=None):
        self.render_mode = render_mode  # but it cannot draw

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.now, self.length = 0, int(self.np_random.integers(3, 10))
        return np.zeros(1, np.float32), {"length": self.length}

    def step(self, action):
        self.now += 1
        return np.array([self.now], np.float32), 1.0, self.now == self.length, False, {}


class Wide(Glider):
    """Actions in [-3, 1] and observations of a shape and type that must be flattened."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2, 3), np.float64)
    action_space = gym.spaces.Box(np.float32([-3]), np.float32([1]))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.arange(6.0).reshape(2, 3), {}

    def step(self, action):
        self.received = action
        return np.arange(6.0).reshape(2, 3), 0.0, False, False, {}


class Unbounded(Glider):
    action_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)


class Words(Glider):
    observation_space = gym.spaces.Text(8)


for kind, limit in ((Glider, 20), (Clock, 1000), (Wide, 5), (Unbounded, 5), (Words, 5)):
    gym.register(f"{kind.__name__}-v0", kind, max_episode_steps=limit)
gym.register("ShortClock-v0", Clock, max_episode_steps=2)  # always cut short

_SMALL = {"hidden": (32, 32), "batch": 32, "critic_lr": 3e-3}
_ACTOR = {"actor_lr": 3e-3, "actor_every": 1}
_OWN = {  # what else makes an agent learn a toy within seconds
    "sac": {"alpha_lr": 3e-3},
    "som": {"actor_batch": 32, "lines": 16, "actor_tau": 0.02, "n_evaluate": 8},
    "som_paper": {"actor_batch": 32, "K": 16, "n_evaluate": 8},
    "td3": {"explore_noise": 0.3},
    "sdac": {"actor_batch": 32, "steps": 5, "K": 8, "n_evaluate": 8, "actor_tau": 0.02},
    "qsm": {"actor_batch": 32, "steps": 5, "n_evaluate": 8, "actor_tau": 0.02},
    "dpmd": {"actor_batch": 16, "steps": 5, "K": 4, "n_evaluate": 8, "actor_tau": 0.02},
    "qvpo": {"actor_batch": 16, "steps": 5, "K": 4, "n_evaluate": 8, "actor_tau": 0.02},
    "dipo": {"actor_batch": 32, "steps": 5, "n_evaluate": 8, "actor_tau": 0.02},
    "fpmd_r": {"actor_batch": 16, "K": 4, "n_evaluate": 8, "actor_tau": 0.02},
    "lql": {"steps": 5, "n_evaluate": 8},
    "nc_lql": {"levels": 5, "n_evaluate": 8},
    "dacer": {"actor_batch": 32, "steps": 3, "actor_tau": 0.02, "samples": 16},
    "mfpo": {"actor_batch": 32, "own": 4, "K": 8, "actor_tau": 0.02, "n_evaluate": 8},
    "aca": {"steps": 5, "n_evaluate": 8, "w": 5.0},
}
_OWN |= {"idem": _OWN["sdac"], "fpmd_m": _OWN["fpmd_r"], "dacer2": _OWN["dacer"] | {"eta": 0.01}}
SMALL = {
    name: config(**_SMALL, **(_ACTOR if issubclass(agent, ActorCritic) else {}), **_OWN[name])
    for name, (config, agent) in AGENTS.items()
}
