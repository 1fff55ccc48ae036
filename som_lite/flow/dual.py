"""A value and its rate of change in one pass through a network: forward differentiation by hand.

``torch.func.jvp`` does the same for any function. Written out for the book's network it saves what
the library spends on being general, and it shares the pass with the value that the loss needs
anyway: MeanFlow's update asks the network once where it had asked twice (chapter 11).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from som_lite.flow.nets import AverageVelocityNet, TimeEmbedding
from som_lite.flow.ode import Times
from som_lite.flow.paths import Points


def time_rate(time: TimeEmbedding, t: Times) -> Float[Tensor, "*batch features"]:
    """The derivative of the embedding in t."""
    angle = t * time.frequency
    return torch.cat([time.frequency * angle.cos(), -time.frequency * angle.sin()], -1)


def value_and_rate(
    net: AverageVelocityNet, a: Points, r: Times, t: Times, v: Points
) -> tuple[Points, Points]:
    """``u(a, r, t)``, and its rate ``v . d_a u + d_t u`` along (v, 0, 1).

    A pair (z, dz) goes through the layers: a linear one maps dz by its weights, SiLU multiplies it
    by its slope ``s (1 + z (1 - s))``, s the sigmoid of z. The value carries gradient, the rate
    none. Raises TypeError for a network of other layers.
    """
    if type(net) is not AverageVelocityNet:
        raise TypeError(f"net must be an AverageVelocityNet, got {type(net).__name__}")
    z = torch.cat([a, net.time(t), net.time(t - r)], -1)
    dz = torch.cat([v, time_rate(net.time, t), time_rate(net.time, t - r)], -1)
    for layer in net.mlp:
        if isinstance(layer, nn.Linear):
            dz = dz @ layer.weight.detach().T
        else:
            x = z.detach()
            s = torch.sigmoid(x)
            dz = dz * s * (1 + x * (1 - s))
        z = layer(z)
    return z, dz


def dual_meanflow_loss(
    net: AverageVelocityNet, a: Points, r: Times, t: Times, v: Points
) -> Float[Tensor, ""]:
    """`meanflow_loss` in one pass: ``|u - (v - (t - r) rate)|^2``, the rate without gradient."""
    u, rate = value_and_rate(net, a, r, t, v)
    return (u - v + (t - r) * rate).square().sum(-1).mean()
