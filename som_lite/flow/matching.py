"""Flow matching (2210.02747): learn the marginal velocity from pairs of data and noise alone."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from som_lite.flow.nets import MLP, TimeEmbedding
from som_lite.flow.ode import Times, Velocity
from som_lite.flow.paths import Path, Points


class VelocityNet(nn.Module):
    """``v(a, t)``: an MLP on the point and the embedded time."""

    def __init__(self, dim: int, hidden: Sequence[int] = (128, 128, 128), octaves: int = 1) -> None:
        super().__init__()
        self.time = TimeEmbedding(octaves)
        self.mlp = MLP([dim + self.time.size, *hidden, dim])

    def forward(self, a: Points, t: Times) -> Points:
        return self.mlp(torch.cat([a, self.time(t)], -1))


def flow_matching_loss(
    v: Velocity, a0: Points, eps: Points, t: Times, path: Path
) -> Float[Tensor, ""]:
    """Mean over pairs of ``||v(a_t, t) - (mu' a_0 + sigma' eps)||^2``, summed over dimensions.

    Its least value is not zero but the spread of the pairs' velocities around the marginal one
    (2210.02747, theorem 2: the two losses differ by a constant).
    """
    a_t = path.noise(a0, eps, t)
    error = v(a_t, t) - path.conditional_velocity(a0, eps, t)
    return error.square().sum(-1).mean()
