import math

import ot
import pytest
import torch

from som_lite.flow.densities import three_modes
from som_lite.flow.distances import sliced_distance


def crowd(seed, n=500):
    return three_modes().sample(n, torch.Generator().manual_seed(seed))


def test_agrees_with_a_library():
    angles = math.pi * torch.arange(32) / 32
    projections = torch.stack([angles.cos(), angles.sin()]).double().numpy()
    ours, theirs = crowd(0), crowd(1)
    truth = ot.sliced_wasserstein_distance(
        ours.double().numpy(), theirs.double().numpy(), projections=projections, p=1
    )
    # The projections are rounded to single precision: 1e-7 of coordinates near 2.
    assert sliced_distance(ours, theirs) == pytest.approx(float(truth), rel=1e-5)


def test_of_a_shift_is_its_mean_shadow():
    """Moving by (3, 4) shifts the shadow on a line by 5 |cos|, whose mean is 5 * 2 / pi."""
    ours = crowd(0)
    distance = sliced_distance(ours, ours + torch.tensor([3.0, 4.0]))
    assert distance == pytest.approx(5 * 2 / math.pi, rel=1e-3)  # 32 directions: 8e-4


def test_does_not_ask_who_is_who():
    ours = crowd(0)
    assert sliced_distance(ours, ours.flip(0)) < 1e-6
