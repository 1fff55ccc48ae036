"""Temperatures: one that holds the policy's entropy, one in units of the critic's own spread."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from som_lite.flow.scores import Energy
from som_lite.rl.agents.common import adam
from som_lite.rl.critic import RunningScale


class Temperature:
    """log alpha and its Adam: it rises while the entropy is below ``target`` (in nats).

    Haarnoja et al. 2018, arXiv 1812.05905.
    """

    has_parts = True

    def __init__(self, start: float, target: float, lr: float, device: str) -> None:
        self.target = target
        self.log_alpha = torch.tensor(math.log(start), device=device, requires_grad=True)
        self.optimizer = adam([self.log_alpha], lr)

    def alpha(self) -> Float[Tensor, ""]:
        """The temperature, without gradient."""
        return self.log_alpha.detach().exp()

    def update(self, entropy: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """One step on log alpha (entropy - target); returns alpha as it was before the step."""
        before = self.alpha()
        self.optimizer.zero_grad()
        (self.log_alpha * (entropy.detach() - self.target)).backward()
        self.optimizer.step()
        return before


class RelativeTemperature:
    """``share`` of the running spread of Q over the actions of a state, or ``share`` itself.

    A critic's values grow with the rewards and with learning; measured in units of their spread,
    one temperature suits every task.
    """

    has_parts = True

    def __init__(self, share: float, relative: bool, device: str) -> None:
        self.share, self.relative, self.scale = share, relative, RunningScale(device)

    def alpha(self) -> Float[Tensor, ""]:
        """What Q is divided by."""
        return self.share * (self.scale.clamped() if self.relative else torch.ones(()))

    def watching(self, q: Energy) -> Energy:
        """q, whose spread over the last axis is followed by every call of it."""

        def watched(a: Float[Tensor, "*batch K d"]) -> Float[Tensor, "*batch K"]:
            value = q(a)
            self.scale.update(value.detach())
            return value

        return watched
