"""Densities against scipy and torch.distributions, autograd, and quadrature written anew here."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from som_lite.flow.densities import TOYS, GaussianMixture, UniformBoxes, checkerboard, three_modes
from som_lite.flow.paths import VE, VP, Linear

MIXTURES = {name: make for name, make in TOYS.items() if make is not checkerboard}
TIMES = [0.01, 0.1, 0.5, 0.9, 0.999, 1.0]


def double(p: GaussianMixture) -> GaussianMixture:
    weights = p.weights.double()
    return GaussianMixture(p.means.double(), p.stds.double(), weights / weights.sum())


def grid(half_width: float, n: int, dtype=torch.float64) -> tuple[torch.Tensor, float]:
    """Midpoints of n x n cells on a square, (n * n, 2), and the area of a cell."""
    h = 2 * half_width / n
    x = -half_width + h * (torch.arange(n, dtype=dtype) + 0.5)
    return torch.cartesian_prod(x, x), h * h


def noisy_points(p, path, t: float, n: int, generator) -> torch.Tensor:
    """Points where p_t lives, (n, 2) in float64, pushed outwards to see the outskirts too."""
    a0 = p.sample(n, generator).double()
    eps = torch.randn(n, 2, dtype=torch.float64, generator=generator)
    return 1.3 * path.noise(a0, eps, t)


def mixture_posterior(p: GaussianMixture, a, mu: float, sigma: float):
    """Nodes a_0 (G, 2) per point and normalised posterior weights, with scipy's normal densities.

    Trapezoid sums of smooth decaying functions converge faster than any power of the spacing, once
    it is below the narrowest width. The window is the likelihood's if that is narrower than the
    plane.
    """
    s = sigma / mu if mu > 0 else math.inf
    centre, half = (a / mu, 8 * s) if 8 * s < 5 else (np.zeros(2), 5.0)
    x = centre[:, None] + half * (np.arange(240) - 119.5) / 120  # (2, 240): the two axes
    log_likelihood = -0.5 * ((a[:, None] - mu * x) / sigma) ** 2
    likelihood = np.exp(log_likelihood - log_likelihood.max(1, keepdims=True))
    # scipy's normal density of each component (M) on each axis, then the sum over components of the
    # products
    factors = (
        stats.norm.pdf(x[:, None], p.means.T[..., None], p.stds[:, None]) * likelihood[:, None]
    )
    weight = np.einsum("m,mi,mj->ij", p.weights, *factors).ravel()
    return np.stack(np.meshgrid(*x, indexing="ij"), -1).reshape(-1, 2), weight / weight.sum()


def boxes_posterior(p: UniformBoxes, a, mu: float, sigma: float):
    """The same for boxes: Gauss-Legendre in each, on the part within 12 likelihood widths."""
    x, w = np.polynomial.legendre.leggauss(60)
    nodes, log_weight = [], []
    for low, high in zip(p.lows.double().numpy(), p.highs.double().numpy(), strict=True):
        nearest = np.clip(a / max(mu, 1e-12), low, high)
        reach = 12 * sigma / max(mu, 1e-12)
        low, high = np.maximum(low, nearest - reach), np.minimum(high, nearest + reach)
        axes = [(lo + hi) / 2 + (hi - lo) / 2 * x for lo, hi in zip(low, high, strict=True)]
        box = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
        nodes.append(box)
        log_w = np.log(np.outer(w, w)).ravel() + np.log((high - low) / 2).sum()
        log_weight.append(log_w - 0.5 * (((a - mu * box) / sigma) ** 2).sum(-1))
    log_weight = np.concatenate(log_weight)
    weight = np.exp(log_weight - log_weight.max())
    return np.concatenate(nodes), weight / weight.sum()


def truth_by_quadrature(posterior, p, a, t, path):
    """Score, posterior mean and velocity as averages over the posterior of a_0, row by row."""
    time = torch.tensor([[t]], dtype=torch.float64)
    mu, sigma, dmu = (f(time).item() for f in (path.mu, path.sigma, path.dmu))
    dsigma = path.dsigma(time).item()
    rows = []
    for point in a.numpy():
        nodes, weight = posterior(p, point, mu, sigma)
        eps = (point - mu * nodes) / sigma
        mean = weight @ nodes
        rows.append([-(weight @ eps) / sigma, mean, dmu * mean + dsigma * (weight @ eps)])
    return [torch.from_numpy(np.array(column)) for column in zip(*rows, strict=True)]


# --- p_0 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TOYS)
def test_integrates_to_one(name):
    """Cells of .04 against widths of at least .14: the midpoint sum is exact to float32 rounding.

    The checkerboard's edges lie on cell borders; its sum is exact too.
    """
    points, area = grid(5.0, 250, torch.float32)
    assert TOYS[name]().log_prob(points).exp().sum().item() * area == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("name", MIXTURES)
def test_log_prob_and_score_agree_with_torch_distributions(name, generator):
    p = double(TOYS[name]())
    d = torch.distributions
    reference = d.MixtureSameFamily(
        d.Categorical(p.weights), d.Independent(d.Normal(p.means, p.stds[:, None].expand(-1, 2)), 1)
    )
    x = (3 * torch.randn(100, 2, dtype=torch.float64, generator=generator)).requires_grad_()
    log_prob = reference.log_prob(x)
    (score,) = torch.autograd.grad(log_prob.sum(), x)
    x = x.detach()
    torch.testing.assert_close(p.log_prob(x), log_prob.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(p.score(x), score, rtol=1e-10, atol=1e-10)


def test_mixture_in_other_dimensions():
    """d = 1 and d = 3 against scipy: the normalising constant depends on d."""
    for d in (1, 3):
        means = torch.arange(2.0 * d, dtype=torch.float64).reshape(2, d)
        p = GaussianMixture(
            means, torch.tensor([0.5, 2.0]).double(), torch.tensor([0.3, 0.7]).double()
        )
        x = torch.linspace(-1, 4, 3 * d, dtype=torch.float64).reshape(3, d)
        want = sum(
            w * stats.multivariate_normal(m, s**2).pdf(x.numpy())
            for m, s, w in zip(means.numpy(), (0.5, 2.0), (0.3, 0.7), strict=True)
        )
        assert p.dim == d
        np.testing.assert_allclose(p.log_prob(x).exp().numpy(), want, rtol=1e-7)


def test_checkerboard_log_prob():
    """Eight unit squares of the board: density 1/8 on them, nothing elsewhere."""
    x = torch.tensor([[-1.5, -1.5], [0.5, 0.5], [1.9, 1.9], [0.5, -0.5], [2.5, 0.5], [-0.5, 0.5]])
    inside = torch.tensor([True, True, True, False, False, False])
    expected = torch.where(inside, torch.tensor(1 / 8).log(), -torch.inf)
    torch.testing.assert_close(checkerboard().log_prob(x), expected)
    assert checkerboard().dim == 2 and len(checkerboard().lows) == 8


@pytest.mark.parametrize("name", TOYS)
def test_samples_follow_log_prob(name, generator):
    """Pearson's chi-square over half-unit cells, within 4 standard deviations (fixed seed)."""
    p, n = TOYS[name](), 40_000
    x = p.sample(n, generator).numpy()
    assert x.shape == (n, 2)
    counts, _, _ = np.histogram2d(*x.T, bins=14, range=[[-3.5, 3.5]] * 2)
    fine, area = grid(3.5, 280, torch.float32)
    mass = p.log_prob(fine).exp().reshape(14, 20, 14, 20).sum((1, 3)).numpy() * area
    expected, frequent = n * mass, n * mass > 10
    rest = expected[~frequent].sum() + n * max(0.0, 1 - mass.sum())
    rare = n - counts[frequent].sum()
    chi2 = (((counts - expected) ** 2)[frequent] / expected[frequent]).sum()
    dof = frequent.sum() - (rest == 0)
    assert abs(rare - rest) <= 4 * math.sqrt(rest) + 1
    assert abs(chi2 - dof) < 4 * math.sqrt(2 * dof), (chi2, dof)


def test_samples_depend_on_the_generator_alone():
    for make in TOYS.values():
        one, two = (make().sample(5, torch.Generator().manual_seed(3)) for _ in range(2))
        assert torch.equal(one, two)


def test_toys_live_near_the_plane_that_is_drawn(generator):
    """Within [-3, 3]^2, apart from at most one point in a thousand."""
    for name, make in TOYS.items():
        outside = (make().sample(20_000, generator).abs() > 3).any(-1).double().mean()
        assert outside < 1e-3, name


def test_weights_must_sum_to_one():
    with pytest.raises(ValueError, match="weights"):
        GaussianMixture(torch.zeros(2, 2), torch.ones(2), torch.tensor([0.5, 0.6]))


def test_three_modes_has_the_stated_masses():
    assert three_modes().weights.tolist() == pytest.approx([0.5, 0.3, 0.2])


# --- p_t ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["three modes", "pinwheel"])
@pytest.mark.parametrize("t", TIMES)
def test_noised_mixture_against_quadrature(name, t, path, generator):
    """Quadrature is good to about 1e-10; dividing by sigma (.01 at least) leaves 1e-7."""
    p = double(TOYS[name]())
    a = noisy_points(p, path, t, 6, generator)
    score, mean, velocity = truth_by_quadrature(mixture_posterior, p, a, t, path)
    time = torch.full((6, 1), t, dtype=torch.float64)
    torch.testing.assert_close(p.noised_score(a, time, path), score, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(p.posterior_mean(a, time, path), mean, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(p.velocity(a, time, path), velocity, rtol=1e-7, atol=1e-6)


@pytest.mark.parametrize("t", TIMES)
def test_noised_checkerboard_against_quadrature(t, path, generator):
    """Gauss-Legendre on at most 24 widths is good to 1e-9; a score divides by sigma^2 >= 1e-4.

    The posterior mean near mu = 0 may be off by 1e-4: it is computed at mu = 1e-4 instead of 0.
    """
    p = checkerboard()
    a = noisy_points(p, path, t, 6, generator)
    score, mean, velocity = truth_by_quadrature(boxes_posterior, p, a, t, path)
    time = torch.full((6, 1), t, dtype=torch.float64)
    near = 1e-3 if path.mu(t) < 1e-4 else 1e-7
    torch.testing.assert_close(p.posterior_mean(a, time, path), mean, rtol=0, atol=near)
    sigma = path.sigma(t).item()
    torch.testing.assert_close(
        p.noised_score(a, time, path), score, rtol=1e-6, atol=near / min(1, sigma**2)
    )
    torch.testing.assert_close(
        p.velocity(a, time, path), velocity, rtol=1e-6, atol=10 * near / min(1, sigma)
    )


def test_the_law_of_the_noised_mixture(path, generator):
    """noised(path, t) is the law of a_t: its score is noised_score; two moments are known."""
    p = double(three_modes())
    a = torch.randn(50, 2, dtype=torch.float64, generator=generator)
    for t in (0.1, 0.6, 1.0):
        noised = p.noised(path, t)
        torch.testing.assert_close(
            noised.score(a), p.noised_score(a, t, path), rtol=1e-12, atol=1e-12
        )
        mu, sigma = path.mu(t), path.sigma(t)
        spread = lambda q: (q.weights * q.stds**2).sum() + (q.weights @ q.means**2).mean()  # noqa: E731
        torch.testing.assert_close(noised.weights @ noised.means, mu * (p.weights @ p.means))
        torch.testing.assert_close(spread(noised), mu**2 * spread(p) + sigma**2)


def test_continuity_equation(path, generator):
    """d_t p + div(p v) = 0, divided by p: d_t log p + div v + v . score = 0.

    Central differences with h = 1e-4 err by h^2 times third derivatives, at most about 1e4 here (VE
    and small t, where p_t changes fastest); the terms themselves are of order 1 to 100.
    """
    p, h = double(three_modes()), 1e-4
    for t in (0.1, 0.3, 0.6, 0.9):
        a = noisy_points(p, path, t, 40, generator)
        log_p = lambda t, a=a: p.noised(path, t).log_prob(a)  # noqa: E731
        change = (log_p(t + h) - log_p(t - h)) / (2 * h)
        divergence = torch.zeros(40, dtype=torch.float64)
        for i in range(2):
            step = torch.zeros(2, dtype=torch.float64)
            step[i] = h
            ahead, behind = p.velocity(a + step, t, path), p.velocity(a - step, t, path)
            divergence += (ahead - behind)[:, i] / (2 * h)
        flux = (p.velocity(a, t, path) * p.noised_score(a, t, path)).sum(-1)
        residual = (change + divergence + flux).abs()
        size = change.abs() + divergence.abs() + flux.abs()
        assert (residual < 1e-5 * (1 + size)).all(), (t, residual.max())
        assert (change.abs() > 0.01).any()  # the terms do not vanish one by one


def test_continuity_equation_of_the_checkerboard():
    """The same in integrated form: the velocity carries p_0's mean to that of a_t, mu E[a_0] + 0.

    d/dt E[a_t^2] = 2 E[a_t . v] must equal d/dt (mu^2 E[a_0^2] + 2 sigma^2); Monte Carlo, 4
    standard errors.
    """
    p, path, n = checkerboard(), Linear(), 20_000
    generator = torch.Generator().manual_seed(0)
    second = 8 / 3  # E|a_0|^2: two coordinates, each uniform on [-2, 2], variance 4/3
    for t in (0.2, 0.5, 0.9):
        a0, eps = p.sample(n, generator), torch.randn(n, 2, generator=generator)
        a_t = path.noise(a0, eps, t)
        power = 2 * (a_t * p.velocity(a_t, t, path)).sum(-1).double()
        want = -2 * (1 - t) * second + 4 * t
        assert abs(power.mean().item() - want) < 4 * power.std().item() / math.sqrt(n)


def test_single_gaussian_is_the_closed_form(path, gaussian):
    """One component is the Gaussian of the reference closed form."""
    p = GaussianMixture(
        torch.full((1, 1), 0.7, dtype=torch.float64),
        torch.full((1,), 0.4, dtype=torch.float64),
        torch.ones(1, dtype=torch.float64),
    )
    g, a = gaussian(0.7, 0.4), torch.linspace(-2, 3, 11, dtype=torch.float64)[:, None]
    t = torch.full_like(a, 0.6)
    torch.testing.assert_close(p.noised_score(a, t, path), g.score(a, t, path), rtol=1e-10, atol=0)
    torch.testing.assert_close(
        p.posterior_mean(a, t, path), g.posterior_mean(a, t, path), rtol=1e-10, atol=0
    )
    torch.testing.assert_close(p.velocity(a, t, path), g.velocity(a, t, path), rtol=1e-7, atol=1e-8)


def test_velocity_of_the_mixture_is_finite_at_both_ends(path):
    """float32; at t = 0 and sigma = 0 the velocity is mu' a - sigma sigma' score."""
    p, a = three_modes(), torch.tensor([[0.5, 0.5], [-3.0, 3.0], [20.0, -20.0]])
    for t in (0.0, 1.0):
        assert p.velocity(a, t, path).isfinite().all()
    if path.sigma(0.0) == 0:
        want = path.dmu(0.0) * a - path.sigma_dsigma(0.0) * p.score(a)
        torch.testing.assert_close(p.velocity(a, 0.0, path), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", [three_modes, checkerboard])
def test_mean_at_pure_noise_is_the_prior_mean(make):
    """Linear path, t = 1: a_1 says nothing about a_0."""
    p = make()
    a = torch.tensor([[0.5, 0.5], [-3.0, 3.0]])
    prior = p.weights @ p.means if isinstance(p, GaussianMixture) else torch.zeros(2)
    mean = p.posterior_mean(a, torch.ones(2, 1), Linear())
    # the checkerboard evaluates it at mu = 1e-4: off by mu |a| E|a_0|^2 = 1e-3 at most
    torch.testing.assert_close(mean, prior.expand(2, 2), rtol=0, atol=1e-3)
    torch.testing.assert_close(p.velocity(a, 1.0, Linear()), a - mean, rtol=0, atol=1e-5)


def test_checkerboard_posterior_mean_far_away_and_at_small_noise():
    """float32, points far outside, hardly any noise: the mean is the nearest point of the board."""
    p = checkerboard()
    a = torch.tensor([[50.0, 50.0], [-50.0, -50.0], [0.5, 0.5], [1.5, 1.5], [2.5, 1.5]])
    near = torch.tensor([[2.0, 2.0], [-2.0, -2.0], [0.5, 0.5], [1.5, 1.5], [2.0, 1.5]])
    t = torch.full((5, 1), 1e-3)
    torch.testing.assert_close(p.posterior_mean(a, t, Linear()), near, rtol=0, atol=3e-3)
    for t in (1e-3, 0.01, 0.5, 0.99, 1.0):
        for path in (Linear(), VP(), VE()):
            mean = p.posterior_mean(a, t, path)
            assert mean.isfinite().all() and (mean.abs() <= 2).all()
            assert mean.dtype == torch.float32
            assert p.velocity(a, t, path).isfinite().all()


def test_float_and_column_times_agree(path, generator):
    for p in (three_modes(), checkerboard()):
        a = torch.randn(4, 3, 2, generator=generator)
        t = torch.full((4, 3, 1), 0.4)
        for method in (p.noised_score, p.posterior_mean, p.velocity):
            torch.testing.assert_close(method(a, t, path), method(a, 0.4, path))
            assert method(a, t, path).shape == a.shape
