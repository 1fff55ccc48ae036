"""The replay buffer: a ring of transitions in preallocated tensors."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


class Batch(NamedTuple):
    """B transitions, float32. `terminated` is 1 where the task ended, never where time ran out."""

    obs: Float[Tensor, "B obs"]
    action: Float[Tensor, "B act"]
    reward: Float[Tensor, "B"]
    next_obs: Float[Tensor, "B obs"]
    terminated: Float[Tensor, "B"]


class Replay:
    """The last `capacity` transitions of a run.

    `next_obs` is the observation the step really led to (not the first one of the next episode),
    and only `terminated` is kept: a state where the clock ran out still has a future, so its value
    must be bootstrapped. Raises ValueError for a capacity below 1.
    """

    def __init__(self, capacity: int, obs_dim: int, act_dim: int, device: str = "cpu"):
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, got {capacity}")
        self.capacity = capacity
        self.count = 0  # transitions ever added; the next one goes to row count % capacity
        widths = ((obs_dim,), (act_dim,), (), (obs_dim,), ())
        self.data = Batch(*(torch.zeros(capacity, *w, device=device) for w in widths))

    def __len__(self) -> int:
        return min(self.count, self.capacity)

    def add(
        self,
        obs: np.ndarray,
        action: np.ndarray,
        reward: float,
        next_obs: np.ndarray,
        terminated: bool,
    ) -> None:
        """Write one transition over the oldest row; what was passed is copied.

        Raises ValueError for a shape that is not the column's, where torch would broadcast.
        """
        row = self.count % self.capacity
        transition = Batch(*map(torch.as_tensor, (obs, action, reward, next_obs, terminated)))
        for name, value in transition._asdict().items():
            column = getattr(self.data, name)
            if value.shape != column.shape[1:]:
                _refuse(name, value.shape, column.shape[1:])
        for column, value in zip(self.data, transition, strict=True):
            column[row] = value
        self.count += 1

    def sample(self, B: int, generator: torch.Generator) -> Batch:
        """B rows, uniformly and with replacement. Raises ValueError when the buffer is empty."""
        if self.count == 0:
            raise ValueError("the replay buffer is empty: add a transition before sampling")
        rows = torch.randint(len(self), (B,), generator=generator, device=generator.device)
        return Batch(*(column[rows] for column in self.data))

    def state_dict(self) -> dict[str, Tensor]:
        """The filled part, and the count."""
        filled = {name: x[: len(self)] for name, x in self.data._asdict().items()}
        return filled | {"count": torch.tensor(self.count)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what `state_dict` gave, and the place in the ring.

        Raises ValueError for other widths, more rows than the capacity, or another capacity where
        the ring has wrapped.
        """
        count, rows = int(state["count"]), len(state["reward"])
        if rows > self.capacity or (count > rows and rows != self.capacity):
            ring = f"a ring of {rows} rows{', wrapped' * (count > rows)}"
            raise ValueError(f"{ring}, does not fit capacity {self.capacity}")
        for name, column in self.data._asdict().items():
            if state[name].shape != (rows, *column.shape[1:]):
                _refuse(name, state[name].shape, (rows, *column.shape[1:]))
        self.count = count
        for name, column in self.data._asdict().items():
            column[:rows] = state[name]


def _refuse(name: str, given: Sequence[int], expected: Sequence[int]) -> None:
    raise ValueError(f"{name} must have shape {tuple(expected)}, got {tuple(given)}")
