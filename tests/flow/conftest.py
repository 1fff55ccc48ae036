"""What the flow tests share: a generator, the three paths, a Gaussian known in closed form."""

import math

import pytest
import torch

from som_lite.flow.paths import VE, VP, Linear

PATHS = {"linear": Linear(), "vp": VP(), "ve": VE()}


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(params=PATHS.values(), ids=PATHS.keys())
def path(request):
    return request.param


class Gaussian:
    """``a_0 ~ N(m0, c^2)`` noised, from its textbook closed form, sharing no code with the package.

    V_t = mu_t^2 c^2 + sigma_t^2, flow map phi(a) = mu_r m0 + sqrt(V_r / V_t) (a - mu_t m0).
    """

    def __init__(self, m0: float = 0.7, c: float = 0.4) -> None:
        self.m0, self.c = m0, c

    def coefficients(self, path, t):
        """mu and sigma^2 (the square, as it has a derivative at 0), written out anew."""
        t = torch.as_tensor(t, dtype=torch.float64)
        if isinstance(path, Linear):
            return 1 - t, t**2
        if isinstance(path, VP):
            rise = path.beta_max - path.beta_min
            mu = torch.exp(-0.5 * path.beta_min * t - 0.25 * rise * t**2)
            return mu, 1 - mu**2
        low, high = math.log(path.sigma_min), math.log(path.sigma_max)
        return torch.ones_like(t), torch.exp(2 * (low + t * (high - low)))

    def moments(self, path, t):
        """Mean and variance of ``a_t``."""
        mu, sigma2 = self.coefficients(path, t)
        return mu * self.m0, mu**2 * self.c**2 + sigma2

    def score(self, a, t, path):
        mean, var = self.moments(path, t)
        return -(a - mean) / var

    def posterior_mean(self, a, t, path):
        mean, var = self.moments(path, t)
        return self.m0 + self.coefficients(path, t)[0] * self.c**2 / var * (a - mean)

    def flow_map(self, a, t, r, path):
        (mean_t, var_t), (mean_r, var_r) = self.moments(path, t), self.moments(path, r)
        return mean_r + (var_r / var_t).sqrt() * (a - mean_t)

    def velocity(self, a, t, path, h=1e-5):
        """The speed of the flow map, by a central difference (error O(h^2), about 1e-9 here)."""
        forward, backward = (self.flow_map(a, t, t + d, path) for d in (h, -h))
        return (forward - backward) / (2 * h)

    def average_velocity(self, a, r, t, path):
        return (a - self.flow_map(a, t, r, path)) / (t - r)


@pytest.fixture(scope="session")
def gaussian():
    """The Gaussian class itself, so that tests may choose m0 and c."""
    return Gaussian
