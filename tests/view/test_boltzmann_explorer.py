"""What the sliders show, against log densities and scores computed directly."""

import numpy as np
import pytest
import torch

from som_lite.flow.boltzmann import BoxBoltzmann, three_bumps
from som_lite.flow.langevin import boltzmann_score
from som_lite.flow.paths import VP, Linear
from som_lite.view.boltzmann import HALF, PIXELS, boltzmann_explorer
from som_lite.view.explorer import Explorer

BUMPS = three_bumps()
ALPHAS = (0.1, 0.3, 2.0)


@pytest.fixture(scope="module")
def explorer() -> Explorer:
    return boltzmann_explorer(BUMPS, ALPHAS, alpha=0.3, cells=101)


def artists(explorer, kind):
    return [a for a in explorer.moving if type(a).__name__ == kind]


def shades(explorer, side):
    """The number of every pixel's shade in the left (0) or right (1) picture."""
    return artists(explorer, "Shades")[side].numbers


def expected_shades(log_density):
    relative = np.exp(log_density - log_density.max())
    return np.minimum(np.round(relative * 9.5), 9)


def centres(limit):
    x = (np.arange(PIXELS) + 0.5) / PIXELS * 2 * limit - limit
    return torch.tensor(np.stack(np.meshgrid(x, x), -1).reshape(-1, 2), dtype=torch.float32)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_left_is_the_density_with_its_numbers(explorer, alpha):
    explorer.set(alpha=alpha)
    value = BUMPS(centres(1.0)).numpy().astype(float) / alpha
    want = expected_shades(value).reshape(PIXELS, PIXELS)
    # rounding at the edge of a shade may differ by one in a few pixels
    assert (shades(explorer, 0) == want).mean() > 0.999
    exact = BoxBoltzmann(BUMPS, alpha)
    title = artists(explorer, "Text")[0].get_text()
    numbers = [float(part.split("=")[1]) for part in title.split(",")]
    assert numbers == pytest.approx([exact.expectation(BUMPS), exact.entropy()], abs=0.006)


@pytest.mark.parametrize(("alpha", "t"), [(0.1, 0.3), (0.1, 0.05), (2.0, 1.0)])
def test_right_is_the_noised_density_and_its_score(explorer, alpha, t):
    explorer.set(alpha=alpha, t=t)
    exact = BoxBoltzmann(BUMPS, alpha)
    log = exact.noised_log_prob(centres(2.0)[::7], t, Linear()).numpy().astype(float)
    log_max = exact.noised_log_prob(centres(2.0), t, Linear()).max().item()
    want = np.minimum(np.round(np.exp(log - log_max) * 9.5), 9)
    assert (shades(explorer, 1).ravel()[::7] == want).mean() > 0.995  # two grids of cells
    (arrows,) = artists(explorer, "Quiver")
    where = torch.tensor(arrows.XY, dtype=torch.float32)
    score = exact.noised_score(where, t, Linear()).numpy()
    want = score / (HALF + np.linalg.norm(score, axis=1, keepdims=True))
    np.testing.assert_allclose(np.c_[arrows.U, arrows.V], want, atol=0.005)


def test_without_noise_the_arrows_are_the_gradient_in_the_square(explorer):
    explorer.set(alpha=0.3, t=0.0)
    (arrows,) = artists(explorer, "Quiver")
    where = torch.tensor(arrows.XY, dtype=torch.float32)
    inside = (where.abs() <= 1).all(-1).numpy()
    assert np.array_equal(~arrows.Umask, inside)
    score = boltzmann_score(BUMPS, 0.3, where).numpy()
    want = score / (HALF + np.linalg.norm(score, axis=1, keepdims=True))
    np.testing.assert_allclose(arrows.U[inside], want[inside, 0], atol=1e-6)
    outside = (centres(2.0).abs() > 1).any(-1).numpy()
    assert (shades(explorer, 1).ravel()[outside] == 0).all()


def test_every_position_draws_a_picture_of_its_own(explorer):
    for key, control in explorer.controls.items():
        pictures = set()
        for value in control.positions:
            explorer.set(**{key: value})
            pictures.add(explorer.image.value)
        assert len(pictures) == len(control.positions)


def test_another_path():
    explorer = boltzmann_explorer(BUMPS, (0.1, 0.2), path=VP(), cells=61)
    explorer.set(t=1.0)
    (arrows,) = artists(explorer, "Quiver")
    where = torch.tensor(arrows.XY, dtype=torch.float32)
    score = BoxBoltzmann(BUMPS, 0.1).noised_score(where, 1.0, VP()).numpy()
    want = score / (HALF + np.linalg.norm(score, axis=1, keepdims=True))
    np.testing.assert_allclose(np.c_[arrows.U, arrows.V], want, atol=1e-4)


def test_flip_book_is_small():
    page = boltzmann_explorer(BUMPS)._repr_mimebundle_()["text/html"]
    assert len(page) < 300_000
