"""Quadrature on the square, against closed forms and scipy's adaptive integration."""

import math

import pytest
import torch
from scipy.integrate import dblquad

from som_lite.flow.boltzmann import ENERGIES, BoxBoltzmann, Bumps, four_bumps
from som_lite.flow.densities import GaussianMixture, UniformBoxes
from som_lite.flow.paths import VE, VP, Linear

ALPHA = 0.1
PATHS = [Linear(), VP(), VE()]


def test_four_bumps_are_equal_hills_towards_the_corners():
    """At each centre the other three, at least 1.2 away, add less than e^-32."""
    corners = 0.6 * torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    torch.testing.assert_close(four_bumps()(corners), torch.ones(4))
    beside = four_bumps()(corners + torch.tensor([0.15, 0.0]))  # one width away
    torch.testing.assert_close(beside, torch.full((4,), math.exp(-0.5)))


@pytest.fixture
def mixture():
    """A narrow mixture that leaves 1e-7 of its mass outside the square."""
    means = torch.tensor([[0.3, 0.2], [-0.4, -0.1]])
    return GaussianMixture(means, torch.tensor([0.1, 0.12]), torch.tensor([0.6, 0.4]))


@pytest.fixture
def points(generator):
    return 1.5 * torch.randn(40, 2, generator=generator)


@pytest.mark.parametrize("name", ENERGIES)
def test_normaliser_and_expectation_agree_with_adaptive_integration(name):
    q = ENERGIES[name]
    box = BoxBoltzmann(q, ALPHA)

    def weight(y, x, power=0):
        value = float(q(torch.tensor([x, y], dtype=torch.float64)))
        return value**power * math.exp(value / ALPHA)

    z = dblquad(weight, -1, 1, -1, 1, epsabs=0, epsrel=1e-6)[0]
    first = dblquad(lambda y, x: weight(y, x, 1), -1, 1, -1, 1, epsabs=0, epsrel=1e-6)[0]
    # the midpoint rule with cells of .01 on features of width .05 (bumps at this temperature)
    assert box.log_z == pytest.approx(math.log(z), abs=2e-4)
    assert box.expectation(q) == pytest.approx(first / z, abs=2e-4)


def test_density_integrates_to_one_and_ends_at_the_border():
    box = BoxBoltzmann(four_bumps(), ALPHA, cells=101)
    # on another grid than its own
    axis = (torch.arange(140) + 0.5) / 70 - 1
    total = box.log_prob(torch.cartesian_prod(axis, axis)).exp().mean() * 4
    assert total == pytest.approx(1, abs=1e-3)  # two midpoint rules
    assert box.log_prob(torch.tensor([1.01, 0.0])) == -torch.inf


def test_entropy_of_a_gaussian_and_of_the_uniform():
    std = 0.15
    box = BoxBoltzmann(lambda a: -a.square().sum(-1) / (2 * std**2), 1.0)
    assert box.entropy() == pytest.approx(math.log(2 * math.pi * math.e * std**2), abs=1e-4)
    flat = BoxBoltzmann(lambda a: torch.zeros(a.shape[:-1]), 1.0)
    assert flat.entropy() == pytest.approx(math.log(4), abs=1e-9)


def test_samples_have_the_moments_of_the_density(mixture, generator):
    x = BoxBoltzmann(mixture.log_prob, 1.0).sample(40_000, generator)
    mean = mixture.weights @ mixture.means
    # the standard deviation of a coordinate is below .37: four standard errors
    assert torch.allclose(x.mean(0), mean, atol=4 * 0.37 / 200)
    assert x.abs().max() <= 1


@pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)
@pytest.mark.parametrize("t", [0.3, 0.6, 0.95])
def test_noised_quantities_of_a_mixture_have_its_closed_form(mixture, points, path, t):
    box = BoxBoltzmann(mixture.log_prob, 1.0, cells=401)
    noised = mixture.noised(path, t)
    a = points * path.sigma(t) + path.mu(t) * mixture.means[0]
    # 1e-4: the mass outside and the cells; relative for log p_t, of which float32 keeps six digits
    assert torch.allclose(box.noised_log_prob(a, t, path), noised.log_prob(a), 1e-4, 1e-4)
    mean = mixture.posterior_mean(a, t, path)
    assert torch.allclose(box.posterior_mean(a, t, path), mean, atol=2e-4)
    score = mixture.noised_score(a, t, path)
    assert torch.allclose(box.noised_score(a, t, path), score, 1e-3, 2e-4 / path.sigma(t) ** 2)


def test_a_flat_energy_is_the_uniform_box(points):
    low = -torch.ones(1, 2)
    uniform, path = UniformBoxes(low, -low), Linear()
    box = BoxBoltzmann(lambda a: torch.zeros(a.shape[:-1]), 1.0, cells=401)
    t = torch.linspace(0.1, 0.95, len(points))[:, None]  # one time per point
    expected = uniform.velocity(points, t, path)
    # the border is a jump: the midpoint rule with h = .005 errs by about h^2 / sigma there
    assert torch.allclose(box.velocity(points, t, path), expected, atol=5e-3)


def test_far_points_stay_finite():
    a = torch.tensor([[30.0, -30.0]])
    box = BoxBoltzmann(four_bumps(), ALPHA)
    assert torch.allclose(
        box.posterior_mean(a, 0.1, Linear()), torch.tensor([[1.0, -1.0]]), 0, 0.02
    )
    assert box.noised_log_prob(a, 0.1, Linear()).isfinite().all()


def test_bumps_by_hand():
    q = Bumps(
        torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.tensor([0.5, 1.0]), torch.tensor([2.0, 3.0])
    )
    assert q(torch.tensor([1.0, 0.0])) == pytest.approx(2 * math.exp(-2) + 3)


@pytest.mark.parametrize(
    ("settings", "words"), [({"alpha": 0.0}, "alpha"), ({"alpha": 1.0, "cells": 1}, "cells")]
)
def test_bad_input_is_named(settings, words):
    with pytest.raises(ValueError, match=words):
        BoxBoltzmann(four_bumps(), **settings)
