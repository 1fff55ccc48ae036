"""Likelihood: divergence against finite differences, densities against closed forms and mass 1."""

import itertools
import math
from functools import partial

import pytest
import torch

from som_lite.flow.densities import GaussianMixture, three_modes
from som_lite.flow.likelihood import divergence, hutchinson_divergence, log_likelihood
from som_lite.flow.ode import euler_step, heun_step, rk4_step
from som_lite.flow.paths import Linear


def mixture() -> GaussianMixture:
    p = three_modes()
    return GaussianMixture(p.means.double(), p.stds.double(), p.weights.double())


def swirl(a, t):
    """A field of no path in three dimensions, with a full Jacobian that depends on a and t."""
    x, y, z = a.unbind(-1)
    t = t[..., 0]
    return torch.stack([(x * y).sin() + t * z, x - y**3 * t, (y * z).cos() * x], -1)


def swirl_divergence(a, t):
    x, y, z = a.unbind(-1)
    return y * (x * y).cos() - 3 * y**2 * t[..., 0] - x * y * (y * z).sin()


def points(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def column(a, t):
    return torch.full_like(a[..., :1], t)


def test_divergence_by_hand():
    """Both sides are exact derivatives: rounding only."""
    a = points(2, 5, 3)
    t = points(2, 5, 1, seed=1).sigmoid()
    torch.testing.assert_close(divergence(swirl, a, t), swirl_divergence(a, t), rtol=0, atol=1e-12)


def test_divergence_of_a_mixture_against_differences(path):
    """Central differences, h = 1e-5: errors of h^2 times a third derivative and eps / h, 1e-7."""
    p, a, h = mixture(), points(20, 2), 1e-5
    t = column(a, 0.4)
    v = lambda a, t: p.velocity(a, t, path)  # noqa: E731
    by_differences = sum(
        (v(a + h * e, t) - v(a - h * e, t))[:, i] / (2 * h)
        for i, e in enumerate(torch.eye(2, dtype=torch.float64))
    )
    torch.testing.assert_close(divergence(v, a, t), by_differences, rtol=1e-7, atol=1e-6)


def test_hutchinson_averages_to_the_trace():
    """The mean over all eight sign vectors is the trace exactly; a single one is not."""
    a = points(6, 3)
    t = column(a, 0.7)
    signs = itertools.product([-1.0, 1.0], repeat=3)
    each = torch.stack(
        [
            hutchinson_divergence(swirl, a, t, torch.tensor(z, dtype=torch.float64).expand_as(a))
            for z in signs
        ]
    )
    torch.testing.assert_close(each.mean(0), swirl_divergence(a, t), rtol=0, atol=1e-12)
    assert each.std(0).min() > 0.1


def test_likelihood_of_a_gaussian(path, gaussian):
    """log N(a; mu_t m0, V_t) from the closed form, at t = 0 and at t = .3.

    Its error is that of 50 RK4 steps, measured 7e-8 (linear), 2e-5 (VP, which turns sharply near
    t = 0) and 1e-4 (VE, whose sigma grows a thousandfold).
    """
    g = gaussian(0.7, 0.4)
    one = torch.ones(1, dtype=torch.float64)
    p = GaussianMixture(0.7 * one[:, None], 0.4 * one, one)
    a = torch.linspace(-1.0, 2.0, 7, dtype=torch.float64)[:, None]

    def log_density(a, t):
        mean, var = g.moments(path, t)
        return (-0.5 * (a - mean) ** 2 / var - 0.5 * torch.log(2 * math.pi * var))[..., 0]

    for t in (0.0, 0.3):
        log_p = log_likelihood(
            lambda a, t: p.velocity(a, t, path), lambda a: log_density(a, 1.0), a, t0=t
        )
        torch.testing.assert_close(log_p, log_density(a, t), rtol=0, atol=3e-4)


def test_likelihood_of_a_mixture(path):
    """From its own p_1 back to the closed form at t = 0, where VE still has noise of .01.

    The error is that of 50 RK4 steps, measured at most 2e-4 (VE).
    """
    p = mixture()
    a = p.sample(60, torch.Generator().manual_seed(0))
    prior = p.noised(path, 1.0)
    log_p = log_likelihood(lambda a, t: p.velocity(a, t, path), prior.log_prob, a)
    torch.testing.assert_close(log_p, p.noised(path, 0.0).log_prob(a), rtol=0, atol=1e-3)


def test_a_lower_order_errs_more():
    """The step reaches the solver: RK4 beats Heun beats Euler on the same 20 steps."""
    p, path = mixture(), Linear()
    a = p.sample(60, torch.Generator().manual_seed(0))
    find = partial(
        log_likelihood, lambda a, t: p.velocity(a, t, path), p.noised(path, 1.0).log_prob, a
    )
    euler, heun, rk4 = (
        (log_p - p.log_prob(a)).abs().mean()
        for log_p in (find(steps=20, step=step) for step in (euler_step, heun_step, rk4_step))
    )
    assert rk4 < 0.1 * heun < 0.1 * euler


def test_any_flow_gives_a_density_of_mass_one():
    """A field that belongs to no path still moves mass without making any.

    Midpoint rule on [-6, 6]^2 with cells of .08, for a smooth function that has decayed at the
    border: measured 1 + 2e-7.
    """
    side = -6 + 0.08 * (torch.arange(150, dtype=torch.float64) + 0.5)
    grid = torch.cartesian_prod(side, side)

    def field(a, t):
        x, y = a.unbind(-1)
        return torch.stack([y.sin() + 0.3 * x * t[..., 0], -0.5 * y.tanh() + 0.4 * x.cos()], -1)

    def log_normal(a):
        return -0.5 * a.square().sum(-1) - math.log(2 * math.pi)

    mass = 0.08**2 * log_likelihood(field, log_normal, grid, steps=20).exp().sum()
    assert mass.item() == pytest.approx(1, abs=1e-4)


def test_hutchinson_in_the_likelihood():
    """A field with a diagonal Jacobian: signs give the trace itself, so both likelihoods agree."""
    a = points(5, 3)
    probe = points(5, 3, seed=1).sign()
    field = lambda a, t: -t * a.tanh()  # noqa: E731
    log_prior = lambda a: -0.5 * a.square().sum(-1)  # noqa: E731
    exact = log_likelihood(field, log_prior, a)
    estimate = log_likelihood(field, log_prior, a, div=partial(hutchinson_divergence, probe=probe))
    torch.testing.assert_close(estimate, exact, rtol=0, atol=1e-12)


def test_dtype_and_shape_are_those_of_the_points():
    log_p = log_likelihood(swirl, lambda a: a.sum(-1), torch.zeros(4, 2, 3), steps=2)
    assert log_p.shape == (4, 2) and log_p.dtype == torch.float32


def test_steps_must_be_positive():
    with pytest.raises(ValueError, match=r"steps.*0"):
        log_likelihood(swirl, lambda a: a.sum(-1), torch.zeros(4, 3), steps=0)
