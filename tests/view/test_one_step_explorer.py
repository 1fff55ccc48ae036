"""What the one-step explorer shows, against closed forms of a linear energy."""

import math

import numpy as np
import pytest
import torch

from som_lite.view.explorers import one_step_explorer
from som_lite.view.shades import Shades

ALPHAS = (0.1, 0.3, 1.0)


def slope(a):
    """q(a) = a_1: the density is exp(a_1 / alpha), with E[q] = coth(1 / alpha) - alpha."""
    return a[..., 0]


def inverse_distribution(noise, alpha, steps):
    """Exact samples for one step; for more, all of them on the right face."""
    if steps > 1:
        return torch.ones_like(noise)
    u = torch.special.ndtr(noise)
    low, high = math.exp(-1 / alpha), math.exp(1 / alpha)
    first = alpha * torch.log(low + u[:, :1] * (high - low))
    return torch.cat([first, 2 * u[:, 1:] - 1], -1)


@pytest.fixture(scope="module")
def explorer():
    noise = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0))
    return one_step_explorer(inverse_distribution, slope, alphas=ALPHAS, steps=(1, 2), noise=noise)


def titles(explorer):
    return [a.get_text() for a in explorer.moving if hasattr(a, "get_text")]


def shown_means(explorer):
    words = next(text for text in titles(explorer) if "exact" in text).split()
    return float(words[2].strip(",")), float(words[4])


@pytest.mark.parametrize("alpha", ALPHAS)
def test_both_means_are_the_closed_form(explorer, alpha):
    explorer.set(alpha=alpha, steps=1)
    mean, exact = shown_means(explorer)
    truth = 1 / math.tanh(1 / alpha) - alpha
    assert exact == pytest.approx(truth, abs=1e-3)  # three decimals and 201 cells
    # 4000 samples with a standard deviation below .5: standard error .008
    assert mean == pytest.approx(truth, abs=0.03)


def test_other_numbers_of_steps_show_other_points(explorer):
    explorer.set(alpha=0.3, steps=2)
    assert shown_means(explorer)[0] == 1.0
    clouds = [a.get_xydata() for a in explorer.moving if hasattr(a, "get_xydata")]
    assert all((cloud[:, -1] == 1).all() for cloud in clouds)  # points at (1, 1), means of 1


def test_the_picture_behind_is_the_density(explorer):
    explorer.set(alpha=0.3, steps=1)
    image = next(a for a in explorer.moving if isinstance(a, Shades)).numbers / 8
    x = (np.arange(120) + 0.5) / 120 * 2.4 - 1.2
    inside = np.abs(x) < 1
    row = np.where(inside, np.exp((x - x[inside].max()) / 0.3), 0.0)
    np.testing.assert_allclose(image[60], row, atol=1 / 8)  # eight flat shades, rounded down
    assert (image[0] == 0).all()  # above the box


def test_the_curve_holds_all_temperatures(explorer):
    explorer.set(alpha=1.0, steps=1)
    curve = next(
        a.get_xydata()
        for a in explorer.moving
        if hasattr(a, "get_xydata") and len(a.get_xydata()) == len(ALPHAS)
    )
    np.testing.assert_allclose(curve[:, 0], ALPHAS)
    assert (np.diff(curve[:, 1]) < 0).all()  # hotter is worse


def test_every_position_draws_and_the_flip_book_is_small(explorer):
    for key, control in explorer.controls.items():
        assert len({_picture(explorer, key, x) for x in control.positions}) == len(
            control.positions
        )
    assert len(explorer._repr_mimebundle_()["text/html"]) < 250_000


def _picture(explorer, key, value):
    explorer.set(**{key: value})
    return explorer.image.value


def test_a_temperature_that_is_no_position_is_named(explorer):
    with pytest.raises(ValueError, match="alpha must be one of"):
        explorer.set(alpha=0.2)
