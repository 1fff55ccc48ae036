"""Denoising against closed forms: for normal data every prediction and every step is known."""

import math

import pytest
import torch

from som_lite.flow.denoising import (
    NoiseNet,
    ancestral_step,
    bridge,
    denoise,
    denoising_loss,
    implicit_step,
    mean_from_noise,
    noise_from_mean,
    weighted_error,
)
from som_lite.flow.paths import VP, Linear

MEAN, STD = 0.3, 0.2  # of the data in one dimension: inside the box to seven deviations
PATHS = pytest.mark.parametrize("path", [VP(), Linear()], ids=["vp", "linear"])


def posterior(a, t, path):
    """E[a_0 | a_t = a] for data N(MEAN, STD^2)."""
    mu, var = path.mu(t), path.mu(t) ** 2 * STD**2 + path.sigma(t) ** 2
    return MEAN + mu * STD**2 / var * (a - mu * MEAN)


@PATHS
@pytest.mark.parametrize(("t", "r"), [(0.3, 0.1), (0.9, 0.5), (1.0, 0.8)])
def test_the_bridge_is_bayes_rule(path, t, r):
    """Law of total variance and covariance of the jointly normal (a_r, a_t), data N(0, 1)."""
    k, j, s = (float(x) for x in bridge(t, r, path))
    mu_r, mu_t, var_r, var_t = (
        float(x) for x in (path.mu(r), path.mu(t), path.sigma(r) ** 2, path.sigma(t) ** 2)
    )
    # E[a_r a_0] = mu_r, E[a_r^2] = mu_r^2 + var_r, each through k a_t + j a_0 + s z
    assert k * mu_t + j == pytest.approx(mu_r, abs=1e-9)
    total = k**2 * (mu_t**2 + var_t) + 2 * k * j * mu_t + j**2 + s**2
    assert total == pytest.approx(mu_r**2 + var_r, abs=1e-9)
    # the shared noise: cov(a_r, a_t | a_0) = mu_t / mu_r sigma_r^2
    assert k * var_t == pytest.approx(mu_t / mu_r * var_r, abs=1e-9)


@PATHS
def test_a_chain_with_the_exact_prediction_ends_in_the_data(path):
    g = torch.Generator().manual_seed(0)
    eps = torch.randn(10_000, 1, generator=g)
    for generator in (g, None):
        a = denoise(lambda a, t: posterior(a, t, path), eps, path, 800, generator)
        # standard errors .002 and .0014; the chain's own error, seen on VP: .016 at 200 steps,
        # falling with 1 / steps
        assert a.mean().item() == pytest.approx(MEAN, abs=0.008)
        assert a.std().item() == pytest.approx(STD, abs=0.009)


@PATHS
def test_both_steps_are_exact_where_the_data_are_one_point(path):
    g = torch.Generator().manual_seed(0)
    eps, m, t, r = torch.randn(50_000, 1, generator=g), torch.tensor(0.4), 0.7, 0.4
    a = path.noise(m.expand_as(eps), eps, t)
    a_r = implicit_step(m.expand_as(eps), a, t, r, path)
    torch.testing.assert_close(a_r, path.noise(m.expand_as(eps), eps, r))  # default for float32
    drawn = ancestral_step(m.expand_as(eps), a, t, r, path, torch.randn(50_000, 1, generator=g))
    # four standard errors of 50 000 draws
    assert drawn.mean().item() == pytest.approx(float(path.mu(r)) * 0.4, abs=0.013)
    assert drawn.std().item() == pytest.approx(float(path.sigma(r)), rel=0.013)


def test_noise_and_mean_are_inverse():
    path, a, t = VP(), torch.randn(4, 2), torch.full((4, 1), 0.4)
    m = torch.rand(4, 2)
    back = mean_from_noise(noise_from_mean(m, a, t, path), a, t, path)
    torch.testing.assert_close(back, m)


def test_a_weight_tilts_the_density():
    """Weights exp(c a_0) move N(0, s^2) to N(c s^2, s^2): its noise prediction is the best one."""
    g = torch.Generator().manual_seed(0)
    path, n, c, s, t = VP(), 400_000, 1.5, 0.5, torch.tensor([[0.4]])
    a0, eps = s * torch.randn(n, 1, generator=g), torch.randn(n, 1, generator=g)
    weight = (c * a0[:, 0] - (c * s) ** 2 / 2).exp()
    mu, sigma = path.mu(t), path.sigma(t)
    slope = sigma / (mu**2 * s**2 + sigma**2)

    def loss(centre):
        predict = lambda a, _: slope * (a - mu * centre)  # noqa: E731
        return denoising_loss(predict, a0, eps, t.expand(n, 1), path, weight).item()

    losses = {x: loss(x) for x in (0.0, 0.2, c * s**2, 0.55)}
    assert min(losses, key=losses.__getitem__) == c * s**2
    # there it is the variance of the noise given a_t
    assert losses[c * s**2] == pytest.approx((1 - slope * sigma).item(), rel=0.01)


def test_neither_target_nor_weight_gets_a_gradient():
    p, y, w = (torch.ones(3, 2, requires_grad=True) for _ in range(3))
    weighted_error(p, 2 * y, w[:, 0]).backward()
    assert y.grad is None and w.grad is None
    torch.testing.assert_close(p.grad, torch.full((3, 2), -2 / 3))


def test_an_untrained_net_starts_at_the_noise():
    net = NoiseNet(2, 3, (16,))
    for p in net.mlp.parameters():
        p.data.zero_()
    a, t = torch.randn(5, 2), torch.rand(5, 1)
    torch.testing.assert_close(net(a, t, torch.ones(5, 3)), VP().sigma(t) * a)


def test_the_chain_ends_in_the_box_and_counts_its_steps():
    calls = []

    def wild(a, t):
        calls.append(float(t[0]))
        return 100 * torch.randn_like(a)

    a = denoise(wild, torch.randn(64, 2), VP(), 4, torch.Generator())
    assert a.abs().max() <= 1 and calls == [1.0, 0.75, 0.5, 0.25]
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        denoise(wild, torch.randn(1, 2), VP(), 0, None)


def test_gradients_pass_through_the_chain():
    scale = torch.tensor(0.5, requires_grad=True)
    a = denoise(lambda a, t: scale * a, torch.full((1, 1), 0.1), Linear(), 1, None)
    a.sum().backward()
    assert scale.grad.item() == pytest.approx(0.1) and math.isclose(a.item(), 0.05, rel_tol=1e-6)
