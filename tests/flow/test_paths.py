"""Paths: coefficients against autograd, conversions against a Gaussian and quadrature."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from som_lite.flow.paths import PATHS, VE, VP, Linear, Path

ALL = [Linear(), VP(), VP(0.5, 3.0), VE(), VE(0.1, 2.0)]
IDS = ["linear", "vp", "vp(.5, 3)", "ve", "ve(.1, 2)"]
every_path = pytest.mark.parametrize("path", ALL, ids=IDS)


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def derivative(f, t):
    t = t.clone().requires_grad_()
    (grad,) = torch.autograd.grad(f(t).sum(), t, allow_unused=True)
    return torch.zeros_like(t) if grad is None else grad


def conversions(path, s, m, v, a, t):
    """Every conversion, with the value it should give: (name, got, want)."""
    return [
        ("score_from_mean", path.score_from_mean(m, a, t), s),
        ("score_from_velocity", path.score_from_velocity(v, a, t), s),
        ("mean_from_score", path.mean_from_score(s, a, t), m),
        ("mean_from_velocity", path.mean_from_velocity(v, a, t), m),
        ("velocity_from_score", path.velocity_from_score(s, a, t), v),
        ("velocity_from_mean", path.velocity_from_mean(m, a, t), v),
    ]


@every_path
def test_derivatives_agree_with_autograd(path):
    """Both sides are float64 evaluations of smooth functions: only rounding differs."""
    t = torch.linspace(0.01, 0.99, 41, dtype=torch.float64)[:, None]
    mu = lambda t: path.mu(t) + 0 * t  # noqa: E731  (VE's mu does not depend on t)
    torch.testing.assert_close(path.dmu(t), derivative(mu, t), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(path.dsigma(t), derivative(path.sigma, t), rtol=1e-10, atol=0)
    half_variance = lambda t: path.sigma(t) ** 2 / 2  # noqa: E731
    torch.testing.assert_close(
        path.sigma_dsigma(t), derivative(half_variance, t), rtol=1e-10, atol=0
    )


@every_path
def test_coefficients_agree_with_their_definition(path, gaussian):
    """sigma = sqrt(1 - mu^2), as the test writes it for VP, cancels: 1e-13 are lost at t = .01."""
    t = torch.linspace(0.01, 1, 34, dtype=torch.float64)[:, None]
    mu, sigma2 = gaussian().coefficients(path, t)
    torch.testing.assert_close(path.mu(t), mu, rtol=1e-13, atol=0)
    torch.testing.assert_close(path.sigma(t), sigma2.sqrt(), rtol=1e-12, atol=0)


def test_vp_preserves_the_variance():
    t = torch.linspace(0, 1, 101, dtype=torch.float64)[:, None]
    path = VP()
    torch.testing.assert_close(path.mu(t) ** 2 + path.sigma(t) ** 2, torch.ones_like(t))


def test_vp_sigma_keeps_its_digits_at_small_times():
    """sigma^2 -> beta_min t; in float32, 1 - mu^2 would be 0 or 1.2e-7."""
    t = torch.tensor([[1e-7]])
    expected = math.sqrt(-math.expm1(-0.1 * 1e-7 - 9.95 * 1e-14))
    assert VP().sigma(t).item() == pytest.approx(expected, rel=1e-6)  # float32


@pytest.mark.parametrize(
    ("path", "mu", "sigma"),
    [
        (Linear(), (1, 0), (0, 1)),
        (VP(), (1, math.exp(-5.025)), (0, math.sqrt(1 - math.exp(-10.05)))),
        (VE(0.01, 10.0), (1, 1), (0.01, 10)),
    ],
)
def test_end_points(path, mu, sigma):
    for t, mu_t, sigma_t in zip((0.0, 1.0), mu, sigma, strict=True):
        assert path.mu(t).item() == pytest.approx(mu_t, rel=1e-14)
        assert path.sigma(t).item() == pytest.approx(sigma_t, rel=1e-14)
        assert torch.isfinite(path.sigma_dsigma(t)) and torch.isfinite(path.dmu(t))


def test_what_is_documented_as_infinite_is():
    a = torch.ones(1, 2)
    zero, one = torch.zeros(1, 1), torch.ones(1, 1)
    assert VP().dsigma(zero).isinf().all()
    assert Linear().velocity_from_score(a, a, one).isinf().all()
    assert Linear().mean_from_score(a, a, one).isinf().all()
    assert Linear().score_from_mean(a, 2 * a, zero).isinf().all()


@every_path
def test_conversions_that_are_finite_at_the_noise_end(path):
    a, t = torch.tensor([[0.3, -2.0]]), torch.ones(1, 1)
    m = torch.tensor([[0.1, 0.2]])
    v = path.velocity_from_mean(m, a, t)
    for name in ("score_from_velocity", "mean_from_velocity"):
        assert getattr(path, name)(v, a, t).isfinite().all(), name
    assert path.score_from_mean(m, a, t).isfinite().all() and v.isfinite().all()


def test_noise_and_conditional_velocity_are_the_line_and_its_slope(path, generator):
    """a_t and its time derivative, the latter by autograd through the former."""
    a0, eps = torch.randn(2, 50, 3, dtype=torch.float64, generator=generator)
    t = 0.05 + 0.9 * torch.rand(50, 1, dtype=torch.float64, generator=generator)
    mu, sigma = path.mu(t), path.sigma(t)
    torch.testing.assert_close(path.noise(a0, eps, t), a0 * mu + eps * sigma)
    for i in range(3):
        slope = derivative(lambda t, i=i: path.noise(a0, eps, t)[:, i], t)
        got = path.conditional_velocity(a0, eps, t)[:, i : i + 1]
        torch.testing.assert_close(got, slope, rtol=1e-9, atol=1e-12)


# a, t, s, m, v on N(.7, .4^2): computed once with 100 digits, printed with 8
VECTORS = [
    (Linear(), 1.3, 0.6, -2.64522822, 0.86929461, 0.71784232),
    (Linear(), -0.5, 0.9, 0.70231641, 0.68876294, -1.32084771),
    (VP(), 1.3, 0.6, -1.21339973, 0.73142488, -0.52133365),
    (VP(), -0.5, 0.9, 0.51202177, 0.69860759, -0.10825605),
    (VP(), 1.0, 1.0, -0.99543600, 0.70104666, -0.04564000),
]


@pytest.mark.parametrize(("path", "a", "t", "s", "m", "v"), VECTORS)
def test_test_vectors(path, a, t, s, m, v):
    """Half a unit of the eighth decimal, times a conversion's largest slope, 1/mu = 152 (VP)."""
    a, t, s, m, v = (column(x) for x in (a, t, s, m, v))
    for name, got, want in conversions(path, s, m, v, a, t):
        assert torch.allclose(got, want, rtol=0, atol=1e-6), (name, got, want)


def test_linear_path_at_pure_noise():
    """At t = 1 the posterior is the prior: v = a - E[a_0], and the score is that of N(0, 1)."""
    a, t, m = column(1.0), column(1.0), column(0.7)
    assert Linear().velocity_from_mean(m, a, t).item() == pytest.approx(0.3, abs=1e-15)
    assert Linear().score_from_mean(m, a, t).item() == pytest.approx(-1.0, abs=1e-15)
    assert Linear().score_from_velocity(column(0.3), a, t).item() == pytest.approx(-1, abs=1e-15)
    assert Linear().mean_from_velocity(column(0.3), a, t).item() == pytest.approx(0.7, abs=1e-15)


@every_path
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    m0=st.floats(-2, 2),
    c=st.floats(0.1, 2),
    a=st.floats(-4, 4),
    t=st.floats(0.05, 0.95),
)
def test_conversions_agree_with_a_gaussian(path, gaussian, m0, c, a, t):
    """The truth is the flow map's own speed, by a central difference, good to about 1e-8 relative.

    Conversions out of a velocity or a score divide by as little as mu = .01 (VP) or sigma^2 = .0025
    (linear).
    """
    g, a, t = gaussian(m0, c), column(a), column(t)
    s, m, v = g.score(a, t, path), g.posterior_mean(a, t, path), g.velocity(a, t, path)
    mu, sigma2 = g.coefficients(path, t)
    scale = (1 + v.abs() + s.abs()) * (1 + 1 / mu + 1 / sigma2)
    for name, got, want in conversions(path, s, m, v, a, t):
        assert (got - want).abs() < 1e-7 * scale, (name, got, want)


@pytest.mark.parametrize("t", [0.1, 0.4, 0.7, 0.95])
def test_conditional_velocity_averages_to_the_marginal_velocity(path, t):
    """E[mu' a_0 + sigma' eps | a_t = a] by quadrature over a_0, for a two-mode density on the line.

    The same quadrature gives p_t, hence the score (by autograd), and the posterior mean.
    """
    grid = torch.linspace(-6, 6, 24001, dtype=torch.float64)  # spacing .0005, kernel width >= .02
    modes = [(0.3, -1.0, 0.3), (0.7, 0.8, 0.5)]
    p0 = sum(w / c * torch.exp(-0.5 * ((grid - m) / c) ** 2) for w, m, c in modes)
    a = torch.linspace(-1.5, 1.5, 7, dtype=torch.float64)[:, None].requires_grad_()
    time = torch.full_like(a, t)
    mu, sigma = path.mu(time), path.sigma(time)
    weight = p0 * torch.exp(-0.5 * ((a - mu * grid) / sigma) ** 2)
    (s,) = torch.autograd.grad(weight.sum(1).log().sum(), a)
    weight = (weight / weight.sum(1, keepdim=True)).detach()[..., None]
    a = a.detach()
    eps = (a - mu * grid) / sigma
    pairs = path.conditional_velocity(
        grid[None, :, None].expand(7, -1, 1), eps[..., None], time[:, None].expand(7, len(grid), 1)
    )
    v, m = (weight * pairs).sum(1), (weight * grid[:, None]).sum(1)
    for name, got, want in conversions(path, s, m, v, a, time):
        # trapezoid sums of smooth, decaying functions: rounding only, times 1/mu <= 92 or 1/sigma^2
        # <= 4000
        assert torch.allclose(got, want, rtol=1e-8, atol=1e-8), (name, got, want)


def test_float_times_lose_no_digits_and_change_no_dtype(path):
    """A Python float is a float64; beside float32 points it must still give float32."""
    a = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
    t = torch.full_like(a, 0.3)
    torch.testing.assert_close(
        path.velocity_from_mean(a / 2, a, 0.3),
        path.velocity_from_mean(a / 2, a, t),
        rtol=1e-14,
        atol=0,
    )
    assert path.noise(a.float(), a.float(), 0.3).dtype == torch.float32
    assert path.velocity_from_score(a.float(), a.float(), 0.3).dtype == torch.float32
    assert path.noise(a.float(), a.float(), t.float()).dtype == torch.float32


def test_times_broadcast_against_points(path):
    a = torch.randn(4, 5, 2, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.2, 0.4, 0.6, 0.8])[:, None, None]
    assert path.noise(a, a, t).shape == a.shape
    each = torch.stack([path.velocity_from_mean(a[i] / 2, a[i], t[i]) for i in range(4)])
    torch.testing.assert_close(path.velocity_from_mean(a / 2, a, t), each)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: VP(0.0, 1.0), "beta_min"),
        (lambda: VP(-1.0, 1.0), "beta_min"),
        (lambda: VP(3.0, 1.0), "beta_max"),
        (lambda: VE(0.0, 1.0), "sigma_min"),
        (lambda: VE(2.0, 1.0), "sigma_max"),
        (lambda: VE(1.0, 1.0), "sigma_max"),
    ],
)
def test_bad_arguments(make, names):
    with pytest.raises(ValueError, match=names):
        make()


def test_names():
    assert {name: type(make()) for name, make in PATHS.items()} == {
        "linear": Linear, "vp": VP, "ve": VE,
    }  # fmt: skip
    for method in ("mu", "dmu", "sigma", "sigma_dsigma"):
        with pytest.raises(NotImplementedError):
            getattr(Path(), method)(0.5)
    assert VP() == VP(0.1, 20.0) and np.isclose(VP().beta(1.0).item(), 20)


@pytest.mark.parametrize("name", ["noise", "conditional_velocity"])
@pytest.mark.parametrize("d", [1, 4])
def test_times_that_would_broadcast_are_refused(name, d):
    """(4,) beside (4, 1) makes (4, 4), and beside (4, 4) mixes up rows and coordinates."""
    a, plain = torch.zeros(4, d), getattr(Linear, name)
    with pytest.raises(ValueError, match=r"t must be a number or have shape .*, got \(4,\)"):
        getattr(plain, "__wrapped__", plain)(Linear(), a, a, torch.rand(4))
