"""The networks of the book: an MLP, a smooth embedding of time, average-velocity nets of both."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from som_lite.flow.ode import Times
from som_lite.flow.paths import Points


class MLP(nn.Sequential):
    """Linear layers of the given sizes with an activation between them (none after the last)."""

    def __init__(self, sizes: Sequence[int], activation: type[nn.Module] = nn.SiLU) -> None:
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(sizes):
            layers += [nn.Linear(fan_in, fan_out), activation()]
        super().__init__(*layers[:-1])


class TimeEmbedding(nn.Module):
    """``sin`` and ``cos`` of ``pi/2 * 2^k t`` for k = 0 .. octaves - 1.

    Few octaves keep it smooth: MeanFlow regresses on the derivative in t, which high frequencies
    amplify.
    """

    frequency: Tensor

    def __init__(self, octaves: int = 1) -> None:
        super().__init__()
        self.size = 2 * octaves
        self.register_buffer(
            "frequency", math.pi / 2 * 2.0 ** torch.arange(octaves), persistent=False
        )

    def forward(self, t: Times) -> Float[Tensor, "*batch features"]:
        angle = t * self.frequency
        return torch.cat([angle.sin(), angle.cos()], -1)


class AverageVelocityNet(nn.Module):
    """``u(a, r, t)`` or ``u(a, r, t | cond)``: an MLP on the point, ``t``, ``t - r``, and cond."""

    def __init__(
        self, dim: int, cond_dim: int = 0, hidden: Sequence[int] = (128, 128, 128), octaves: int = 1
    ) -> None:
        super().__init__()
        self.time = TimeEmbedding(octaves)
        self.mlp = MLP([dim + 2 * self.time.size + cond_dim, *hidden, dim])

    def forward(
        self, a: Points, r: Times, t: Times, cond: Float[Tensor, "*batch c"] | None = None
    ) -> Points:
        parts = [a, self.time(t), self.time(t - r)] + ([] if cond is None else [cond])
        return self.mlp(torch.cat(parts, -1))


class SkipVelocityNet(AverageVelocityNet):
    """``u = v_G(a, t) + s / sqrt(V) F(y, r, t | cond)`` with ``y = a / sqrt(V)``, linear path.

    ``v_G = c / V a``, with ``c = t - (1 - t) s^2``, is the exact velocity of data ``N(0, s^2)``,
    with variance ``V = (1 - t)^2 s^2 + t^2`` at t. The MLP F sees inputs of unit size and learns
    only how the data differ from that normal (the preconditioning of Karras et al., 2206.00364,
    for velocities). Together: ``u = (c y + s F) / sqrt(V)``.
    """

    def __init__(
        self,
        dim: int,
        cond_dim: int = 0,
        hidden: Sequence[int] = (128, 128, 128),
        octaves: int = 1,
        spread: float = 0.5,
    ) -> None:
        super().__init__(dim, cond_dim, hidden, octaves)
        self.spread = spread

    def forward(
        self, a: Points, r: Times, t: Times, cond: Float[Tensor, "*batch c"] | None = None
    ) -> Points:
        data = (1 - t) * self.spread  # its standard deviation at t; that of the noise is t
        scale = (data.square() + t.square()).rsqrt()
        y = a * scale
        c = t - self.spread * data
        return scale * (c * y + self.spread * super().forward(y, r, t, cond))


class FlowWithDensityNet(nn.Module):
    """Average velocity of ``(a, l)`` with the surprise ``l = -log p``, which grows by ``div v``.

    Of a it is ``u``, of l the average divergence; neither depends on l (2604.14698).
    """

    def __init__(
        self, dim: int, cond_dim: int = 0, hidden: Sequence[int] = (128, 128), octaves: int = 1
    ) -> None:
        super().__init__()
        self.u = SkipVelocityNet(dim, cond_dim, hidden, octaves)
        self.div = AverageVelocityNet(dim, cond_dim, hidden, octaves)  # its outputs are summed

    def forward(
        self, x: Points, r: Times, t: Times, cond: Float[Tensor, "*batch c"] | None = None
    ) -> Points:
        a = x[..., :-1]
        div = self.div(a, r, t, cond).sum(-1, keepdim=True)
        return torch.cat([self.u(a, r, t, cond), div], -1)
