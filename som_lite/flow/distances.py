"""How far two crowds of points are apart, when nobody knows which point belongs to which."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

Crowd = Float[Tensor, "n 2"]


def sliced_distance(points: Crowd, others: Crowd) -> float:
    """Sliced Wasserstein-1 distance on the plane: mean over 32 directions, evenly turned.

    Projected on a line, two crowds of equal size are nearest when sorted points are partners.
    """
    angles = math.pi * torch.arange(32) / 32
    directions = torch.stack([angles.cos(), angles.sin()])
    ours, theirs = ((crowd @ directions).sort(0).values for crowd in (points, others))
    return (ours - theirs).abs().mean().item()
