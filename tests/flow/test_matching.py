"""The flow-matching loss: its minimiser, its floor, its gradient."""

import pytest
import torch

from som_lite.flow.densities import GaussianMixture
from som_lite.flow.matching import VelocityNet, flow_matching_loss
from som_lite.flow.nets import MLP
from som_lite.flow.paths import Linear

SPREAD, N = 0.5, 100_000


@pytest.fixture
def blob():
    """One Gaussian, N((.7, -.3), SPREAD^2 I), in float64."""
    mean = torch.tensor([[0.7, -0.3]], dtype=torch.float64)
    return GaussianMixture(mean, torch.full_like(mean[:, 0], SPREAD), torch.ones_like(mean[:, 0]))


def pairs(blob, seed=0):
    g = torch.Generator().manual_seed(seed)
    a0, eps = blob.sample(N, g), torch.randn(N, 2, generator=g, dtype=torch.float64)
    return a0, eps, torch.rand(N, 1, generator=g, dtype=torch.float64)


def test_loss_of_the_truth_is_the_conditional_variance(blob):
    a0, eps, t = pairs(blob)
    path = Linear()
    loss = flow_matching_loss(lambda a, t: blob.velocity(a, t, path), a0, eps, t, path)
    # Var(eps - a0 | a_t) = c^2 / V_t in each of two dimensions; its mean over t in [0, 1] by a sum
    times = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    floor = (2 * SPREAD**2 / ((1 - times) ** 2 * SPREAD**2 + times**2)).mean()
    # one standard error of the mean of N losses, each of the size of its mean, is 0.3 %
    assert loss == pytest.approx(floor.item(), rel=0.015)


def test_a_shifted_field_costs_its_squared_distance_to_the_truth(blob):
    path, (a0, eps, t) = Linear(), pairs(blob)
    shift = torch.tensor([0.6, -0.8], dtype=torch.float64)  # of length 1

    def truth(a, t):
        return blob.velocity(a, t, path)

    gap = flow_matching_loss(lambda a, t: truth(a, t) + shift, a0, eps, t, path)
    gap = gap - flow_matching_loss(truth, a0, eps, t, path)
    # the cross term is a mean of N numbers of size 2: standard error 0.007
    assert gap == pytest.approx(1.0, abs=0.03)


def test_gradient_reaches_every_weight_and_shapes_follow_the_point():
    net = VelocityNet(3, hidden=(8,), octaves=2)
    assert isinstance(net.mlp, MLP)
    g = torch.Generator().manual_seed(0)
    a0, eps = torch.randn(2, 5, 3, generator=g)
    t = torch.rand(5, 1, generator=g)
    assert net(a0, t).shape == (5, 3)
    deep = net(torch.stack([a0, eps]), torch.stack([t, t]))  # more axes: every row for itself
    torch.testing.assert_close(deep, torch.stack([net(a0, t), net(eps, t)]))
    flow_matching_loss(net, a0, eps, t, Linear()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_the_net_hears_the_time():
    net = VelocityNet(2, hidden=(8,))
    a, t = torch.ones(4, 2), torch.tensor([[0.0], [0.3], [0.6], [1.0]])
    assert net(a, t).unique(dim=0).shape == (4, 2)
