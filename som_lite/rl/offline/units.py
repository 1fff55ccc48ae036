"""States in units of their spread in the data."""

from jaxtyping import Float
from torch import Tensor, nn


class Units(nn.Module):
    """``(s - mean) / spread``, component by component; fixed when the data are there."""

    mean: Tensor
    spread: Tensor

    def __init__(self, obs: Float[Tensor, "n obs"]) -> None:
        super().__init__()
        self.register_buffer("mean", obs.mean(0))
        self.register_buffer("spread", obs.std(0).clamp(min=1e-3))

    def forward(self, obs: Float[Tensor, "*B obs"]) -> Float[Tensor, "*B obs"]:
        return (obs - self.mean) / self.spread
