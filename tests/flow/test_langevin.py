"""Langevin dynamics, against the exact law of a Gaussian chain, closed forms and quadrature."""

import math
from functools import partial

import pytest
import torch
from scipy.stats import kstest

from som_lite.flow.boltzmann import BoxBoltzmann, ridge, three_bumps
from som_lite.flow.densities import GaussianMixture
from som_lite.flow.langevin import (
    annealed_langevin,
    boltzmann_score,
    langevin,
    langevin_step,
    reflect,
)
from som_lite.flow.paths import VE, VP, Linear


def zero(a):
    return torch.zeros_like(a)


@pytest.mark.parametrize("eta_over_variance", [0.2, 1.0, 3.0])
@pytest.mark.parametrize("start", [0.0, 1.0])
def test_variance_of_the_gaussian_chain(generator, eta_over_variance, start):
    """A linear chain: ``V <- (1 - eta / 2c^2)^2 V + eta``, with limit c^2 / (1 - eta / 4c^2)."""
    c, n = 0.3, 100_000
    eta = eta_over_variance * c**2
    for steps in (1, 3, 60):
        a = langevin(lambda a: -a / c**2, torch.full((n, 1), start), eta, steps, generator, False)
        shrink = 1 - eta / (2 * c**2)
        variance = eta * sum(shrink ** (2 * k) for k in range(steps))
        # deviations of a sample mean and of a sample variance, times 4
        assert a.mean() == pytest.approx(
            start * shrink**steps, abs=4 * math.sqrt(variance / n) + 1e-6
        )
        assert a.var() == pytest.approx(variance, rel=4 * math.sqrt(2 / n))
    assert variance == pytest.approx(c**2 / (1 - eta / (4 * c**2)), rel=1e-5)


def test_a_step_of_four_variances_is_unstable(generator):
    """Just above the bound of the docstring, the distance grows by 5 % a step."""
    a = langevin(lambda a: -a, torch.ones(100, 1), 4.1, 200, generator, box=False)
    assert a.abs().min() > 1e3


def test_reflect_is_mirrors_one_after_another():
    a = torch.linspace(-7.3, 7.3, 300, dtype=torch.float64).view(-1, 2)
    folded = a.clone()
    while (outside := folded.abs() > 1).any():
        folded = torch.where(outside, 2 * folded.sign() - folded, folded)
    torch.testing.assert_close(reflect(a), folded, rtol=0, atol=1e-14)


@pytest.mark.parametrize("eta", [0.01, 1.0])
def test_uniform_stays_uniform(generator, eta):
    """Reflection keeps it exactly, whatever the step; 20 000 points, false alarm below 1e-3."""
    a = 2 * torch.rand(20_000, 1, generator=generator) - 1
    a = langevin(zero, a, eta, 50, generator)
    assert kstest(a[:, 0].numpy(), "uniform", (-1, 2)).pvalue > 1e-3


def test_density_against_a_wall(generator):
    """``p ~ exp(2a)`` on [-1, 1] has the mean coth 2 - 1/2, from drift and mirror together.

    The bias is of the order eta / 2 = .0025, the standard error .002 (n = 40 000).
    """
    u = torch.rand(40_000, 1, generator=generator)
    a = (math.exp(-2) + u * (math.exp(2) - math.exp(-2))).log() / 2  # exact samples
    a = langevin(lambda a: torch.full_like(a, 2.0), a, 0.005, 300, generator)
    assert a.abs().max() <= 1
    assert a.mean() == pytest.approx(1 / math.tanh(2) - 0.5, abs=0.008)
    # without the wall the walk would leave for good
    assert langevin(lambda a: torch.full_like(a, 2.0), a, 0.005, 300, generator, False).mean() > 1.5


def test_score_is_the_gradient_of_the_log_density():
    """Central differences of the normalised density: error h^2 = 1e-8 times a third derivative."""
    bumps = three_bumps()
    box = BoxBoltzmann(lambda a: bumps(a.double()), 0.2, cells=31)
    a = torch.rand(30, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 0.5
    h = 1e-4 * torch.eye(2, dtype=torch.float64)
    rise = [(box.log_prob(a + d) - box.log_prob(a - d)) / 2e-4 for d in h]
    score = boltzmann_score(box.q, 0.2, a)
    torch.testing.assert_close(score, torch.stack(rise, -1), rtol=1e-5, atol=1e-5)
    assert not score.requires_grad


def test_score_inside_no_grad_and_of_a_batch_of_batches():
    a = torch.rand(3, 4, 2)
    with torch.no_grad():
        score = boltzmann_score(lambda a: -a.square().sum(-1), 0.5, a)
    torch.testing.assert_close(score, -4 * a)


@pytest.mark.parametrize("q", [three_bumps(), ridge], ids=["three bumps", "ridge"])
def test_it_stays_at_the_boltzmann_density(generator, q):
    """From exact samples: E[q], its spread and the mean stay those of quadrature.

    Bias of a mode with variance c^2 = .1 * .15^2: eta / 4c^2 = .02 of the width, so .002 in E[q]
    (three bumps); the standard error of E[q] is below .0015 (10 000 points), of the mean .006.
    """
    box = BoxBoltzmann(q, 0.1, cells=101)
    a = box.sample(10_000, generator)
    a = langevin(partial(boltzmann_score, q, 0.1), a, 0.0002, 200, generator)
    mean = box.expectation(q)
    spread = math.sqrt(box.expectation(lambda a: (q(a) - mean) ** 2))
    assert q(a).mean() == pytest.approx(mean, abs=0.006)
    assert q(a).std() == pytest.approx(spread, rel=0.05)
    for k in range(2):
        assert a[:, k].mean() == pytest.approx(box.expectation(lambda a, k=k: a[:, k]), abs=0.025)


def test_step_size_of_a_noise_level(generator):
    """One level, a Gaussian p_0: the chain's variance at the step rate * sigma^2, exactly."""
    c, t, rate, path = 0.5, 0.4, 1.5, Linear()
    V = (1 - t) ** 2 * c**2 + t**2
    eta = rate * t**2
    a = annealed_langevin(
        lambda a, t: -a / ((1 - t) ** 2 * c**2 + t**2),
        torch.zeros(100_000, 1),
        path,
        [t],
        40,
        generator,
        rate,
    )
    assert a.var() == pytest.approx(V / (1 - eta / (4 * V)), rel=4 * math.sqrt(2 / 100_000))


@pytest.mark.parametrize("path", [Linear(), VP(), VE(0.02, 2.0)], ids=["linear", "vp", "ve"])
def test_annealing_finds_the_masses_where_a_walk_does_not(generator, path):
    """Masses .5, .3, .2 from noise; .03 is six standard errors, for levels that are not exact."""
    means = torch.tensor([[-0.6, -0.5], [0.7, 0.1], [0.0, 0.8]])
    p = GaussianMixture(means, torch.full((3,), 0.1), torch.tensor([0.5, 0.3, 0.2]))

    def masses(a):
        return torch.bincount(torch.cdist(a, means).argmin(-1), minlength=3) / len(a)

    times = [k / 40 for k in range(39, 0, -1)]
    start = float(path.sigma(times[0])) * torch.randn(10_000, 2, generator=generator)
    a = annealed_langevin(partial(p.noised_score, path=path), start, path, times, 10, generator)
    torch.testing.assert_close(masses(a), p.weights, rtol=0, atol=0.03)
    walked = langevin(p.score, means[:1].repeat(1000, 1), 0.005, 390, generator)
    assert masses(walked)[0] > 0.95


def test_same_seed_same_walk():
    def walk(seed):
        generator = torch.Generator().manual_seed(seed)
        return langevin(zero, torch.zeros(5, 3), 0.1, 4, generator)

    assert torch.equal(walk(0), walk(0)) and not torch.equal(walk(0), walk(1))
    assert langevin_step(zero, torch.zeros(5, 3).double(), 0.1, torch.Generator()).dtype == (
        torch.float64
    )


def test_bad_arguments_are_named(generator):
    a = torch.zeros(2, 1)
    with pytest.raises(ValueError, match="eta, the step size, must be above 0, got 0"):
        langevin(zero, a, 0.0, 5, generator)
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        langevin(zero, a, 0.1, 0, generator)
    with pytest.raises(ValueError, match=r"rate, .* must lie in \(0, 4\), got 4"):
        annealed_langevin(lambda a, t: -a, a, Linear(), [0.5], 1, generator, rate=4.0)
