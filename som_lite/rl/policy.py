"""A trained policy and a learning curve, each by one call and in numpy.

    policy = load_policy("runs/som/Hopper-v5/seed0")
    action = policy(observation)

The folder may come from a stranger: JSON, CSV and safetensors are read and nothing is executed,
links are not followed, and what is larger than any run of this package is refused.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike

from som_lite.rl.agents.base import QAgent
from som_lite.rl.runs import Run


class TrainedPolicy:
    """Observations in, actions out; both are numpy arrays.

    `policy(obs)` takes one observation (obs_dim,) or a batch (B, obs_dim), of any number type and
    also as a list, and returns actions (act_dim,) or (B, act_dim) in [-1, 1]: what the environments
    of `som_lite.rl.envs.make_env` take. Raises ValueError for another shape and for what is not
    finite.
    """

    def __init__(self, agent: QAgent, seed: int = 0):
        self.agent, self.obs_dim, self.act_dim = agent, agent.obs_dim, agent.act_dim
        agent.generator.manual_seed(seed)

    def __call__(self, obs: ArrayLike) -> np.ndarray:
        x = np.asarray(obs, np.float32)
        if x.ndim not in (1, 2) or x.shape[-1] != self.obs_dim:
            raise ValueError(
                f"obs must have shape ({self.obs_dim},) or (B, {self.obs_dim}), got {x.shape}"
            )
        if not np.isfinite(x).all():
            raise ValueError("obs must be finite, got NaN or infinity in it")
        batch = torch.from_numpy(np.atleast_2d(x)).to(self.agent.generator.device)
        return (
            self.agent.act(batch, explore=False).cpu().numpy().reshape(*x.shape[:-1], self.act_dim)
        )


def load_policy(
    run: str | Path, *, best: bool = False, seed: int = 0, device: str = "cpu"
) -> TrainedPolicy:
    """The policy in a run folder: as it was last, or as it was in the best row of the curve.

    `seed` decides the noise it acts by. Raises FileNotFoundError for a folder that holds no policy,
    ValueError for one that is damaged or refused.
    """
    return TrainedPolicy(Run(run).load_agent(device, best), seed)


def read_curve(run: str | Path) -> dict[str, np.ndarray]:
    """The learning curve in a run folder: column name -> values (NaN where nothing was logged).

    Raises FileNotFoundError and ValueError as `load_policy` does.
    """
    return Run(run).curve()
