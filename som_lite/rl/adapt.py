"""One wrapper between any environment and the agents: vectors in, vectors out, nothing else."""

import math
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from jaxtyping import Bool, Float

from som_lite.rl.finite import require_finite

WHOLE = 2**53  # float64 holds every integer up to here


class Adapted(gym.Wrapper):
    """Flat float32 observations, one number of reward, flat actions in [-1, 1].

    Observations are copies, so that an environment may overwrite its own. Actions are clipped to
    [-1, 1], rescaled by `rescaling`, and reach the environment in its own shape and type.
    `terminated` and `truncated` stay apart.

    Raises ValueError for observations that are not a Box, or actions that are not a bounded Box;
    in `reset` and `step`, ValueError for values of another size than declared, and NotFinite for
    an observation, reward or action that is NaN, infinite or too large for float32.
    """

    def __init__(self, env: gym.Env):
        super().__init__(env)
        seen, done = env.observation_space, env.action_space
        if not isinstance(seen, spaces.Box):
            raise _unsupported(env, f"its observations are {seen}, not a Box")
        if not isinstance(done, spaces.Box):
            raise _unsupported(env, f"its actions are {done}, not a continuous Box")
        for name, box in (("observations", seen), ("actions", done)):
            if box.low.size == 0:
                raise _unsupported(env, f"its {name} have no component, shape {box.shape}")
        try:
            self.rescale = rescaling(done)
        except ValueError as error:
            raise _unsupported(env, str(error)) from error
        self.observation_space = spaces.Box(-np.inf, np.inf, (seen.low.size,), np.float32)
        self.action_space = spaces.Box(-1, 1, (done.low.size,), np.float32)
        self.shapes = (seen.low.size,), (done.low.size,)
        self.now = 0  # steps since the last reset

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """The first observation of an episode."""
        self.now = 0
        obs, info = self.env.reset(seed=seed, options=options)
        return self._observation(obs), info

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One step of the environment."""
        self.now += 1
        unit = self._numbers("action", action, self.shapes[1]).clip(-1, 1).astype(np.float64)
        obs, reward, terminated, truncated, info = self.env.step(self.rescale(unit))
        reward = float(self._numbers("reward", reward, ()))
        return self._observation(obs), reward, bool(terminated), bool(truncated), info

    def _observation(self, obs: Any) -> Float[np.ndarray, "o"]:
        # `astype` copies: what the environment does with its own array no longer matters.
        return self._numbers("observation", obs, self.shapes[0]).astype(np.float32)

    def _numbers(self, name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
        step = f"{self.now} of the episode"
        try:
            x = np.asarray(value)
        except ValueError:  # rows of different lengths
            x = np.asarray(None)
        if x.dtype.kind not in "fiub":
            raise ValueError(f"{name} at step {step} must be numbers, got a {type(value).__name__}")
        if x.size != math.prod(shape):
            wanted = f"{math.prod(shape)} numbers"
            raise ValueError(f"{name} at step {step} has shape {x.shape}, expected {wanted}")
        x = x.reshape(shape)
        require_finite(name, x, step)
        return x


def rescaling(box: spaces.Box) -> Callable[[Float[np.ndarray, "d"]], np.ndarray]:
    """The map from [-1, 1]^d to `box`: flat float64 in, the shape and type of `box` out.

    Real actions: the affine map with -1 -> low and 1 -> high, computed in float64. Whole-numbered
    actions: [-1, 1] is cut into as many equal parts as there are numbers from low to high, so that
    uniform draws are uniform again. A component with low = high is constant.

    Raises ValueError for a bound that is infinite, or whole and beyond 2^53.
    """
    with np.errstate(over="ignore"):
        low, high = (x.astype(np.float64).ravel() for x in (box.low, box.high))
    whole = box.dtype.kind in "iub"
    bounded = (box.bounded_below & box.bounded_above).ravel()
    _require_all(bounded & np.isfinite(low) & np.isfinite(high), box, "is not bounded")
    _require_all((np.maximum(-low, high) <= WHOLE) | (not whole), box, "has bounds beyond 2^53")
    middle, half = low / 2 + high / 2, high / 2 - low / 2  # halves first: low + high may overflow
    half += 0.5 * whole  # every number gets the part that is nearest to it

    def rescale(unit: Float[np.ndarray, "d"]) -> np.ndarray:
        x = middle + half * unit
        x = np.clip(np.rint(x) if whole else x, low, high)
        return x.astype(box.dtype).reshape(box.shape)

    return rescale


def _require_all(good: Bool[np.ndarray, "d"], box: spaces.Box, complaint: str) -> None:
    """Raise ValueError that names the first component of `box` which is not good."""
    if not good.all():
        i = tuple(int(k) for k in np.unravel_index(int(good.argmin()), box.shape))
        name = f"component {i[0] if len(i) == 1 else i} of its actions" if i else "its action"
        raise ValueError(f"{name} {complaint}: from {box.low[i]} to {box.high[i]}, {box.dtype}")


def _unsupported(env: gym.Env, why: str) -> ValueError:
    name = env.spec.id if env.spec else type(env).__name__
    env.close()
    return ValueError(f"environment {name!r} is not supported: {why}")
