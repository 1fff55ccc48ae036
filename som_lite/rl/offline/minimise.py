"""One loop for every network of this folder: Adam, with a step size that falls to zero."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from som_lite.rl.agents.common import adam


def minimise(
    parameters: Iterable[Tensor],
    loss: Callable[[], Tensor],
    updates: int,
    lr: float = 2e-3,
    after: Callable[[], None] = lambda: None,
) -> list[float]:
    """Lower `loss()`, which draws its own batch, and call `after` behind each step.

    The step size falls in a line from `lr` to 0. Only `parameters` get gradients. Returns the
    losses. Raises ValueError for fewer than one update.
    """
    if updates < 1:
        raise ValueError(f"updates must be at least 1, got {updates}")
    parameters = list(parameters)
    optimizer = adam(parameters, lr)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, updates)
    losses = []
    for _ in range(updates):
        optimizer.zero_grad()
        value = loss()
        value.backward(inputs=parameters)
        optimizer.step()
        schedule.step()
        after()
        losses.append(value.item())
    return losses
