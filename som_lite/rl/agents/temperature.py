"""A temperature that holds the policy's entropy at a target (Haarnoja et al. 2018, 1812.05905)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from som_lite.rl.agents.common import adam


class Temperature:
    """log alpha and its Adam: it rises while the entropy is below ``target`` (in nats)."""

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
