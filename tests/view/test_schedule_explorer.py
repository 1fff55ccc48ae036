"""The explorer of paths and solvers: what it shows, compared with independent integration."""

import itertools

import numpy as np
import pytest
import torch

from som_lite.flow.densities import GaussianMixture, three_modes
from som_lite.flow.ode import reference_solve
from som_lite.flow.paths import VE, VP, Linear
from som_lite.view.explorers import schedule_explorer

TARGET = three_modes()
PATHS = {"linear": Linear(), "VP": VP(), "VE": VE()}
NOISE = torch.randn(13, 2, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def explorer():
    return schedule_explorer(noise=NOISE)


def exact_lines(explorer):
    return next(a for a in explorer.moving if type(a).__name__ == "LineCollection").get_segments()


def ends(explorer):
    """The exact ends and those of the solver, on the right."""
    drawn = [a.get_xydata() for a in explorer.moving if hasattr(a, "get_xydata")]
    return [points for points in drawn if len(points) == len(NOISE)]


def title(explorer, word):
    texts = [a.get_text() for a in explorer.moving if hasattr(a, "get_text")]
    return next(text for text in texts if word in text)


def off_by(explorer):
    return float(title(explorer, "off by").split()[-1])


def test_every_position_of_every_slider_draws(explorer):
    for key, control in explorer.controls.items():
        pictures = set()
        for value in control.positions:
            explorer.set(**{key: value})
            pictures.add(explorer.image.value)
        assert len(pictures) == len(control.positions)


@pytest.mark.parametrize("name", PATHS)
def test_exact_ends_are_those_of_an_independent_solver(explorer, name):
    """128 RK4 steps in single precision: far below a pixel, which is 0.017 wide."""
    explorer.set(path=name, n=8)
    path = PATHS[name]
    start = path.sigma(1.0).item() * NOISE
    end = reference_solve(lambda a, t: TARGET.velocity(a, t, path), start)
    # VE stops at sigma = .01, and the window divides by sqrt(1 + sigma^2)
    end = end / (1 + path.sigma(0.0) ** 2).sqrt()
    np.testing.assert_allclose(ends(explorer)[0], end, atol=1e-3)


def test_one_euler_step_by_hand(explorer):
    """On the linear path it is ``eps - v(eps, 1)``, the mean of the data, from everywhere."""
    explorer.set(path="linear", solver="Euler", n=1)
    mean = (TARGET.weights @ TARGET.means).expand(len(NOISE), 2)
    np.testing.assert_allclose(ends(explorer)[1], mean, atol=1e-5)
    assert "Euler, 1 network call:" in title(explorer, "off by")
    distance = np.linalg.norm(ends(explorer)[1] - ends(explorer)[0], axis=1).mean()
    assert off_by(explorer) == pytest.approx(distance, rel=5e-3)  # three digits are shown


def test_network_calls_are_steps_times_looks(explorer):
    for solver, looks in (("Euler", 1), ("Heun", 2), ("RK4", 4)):
        explorer.set(path="VP", solver=solver, n=12)
        assert f"{solver}, {12 * looks} network calls" in title(explorer, "off by")


def test_errors_fall_with_steps_and_faster_for_higher_orders(explorer):
    """From 16 to 32 steps the error falls by 2 and about 4 for orders 1 and 2, and more for 4."""
    for path in PATHS:
        factors = []
        for solver in ("Euler", "Heun", "RK4"):
            errors = []
            for n in (16, 32):
                explorer.set(path=path, solver=solver, n=n)
                errors.append(off_by(explorer))
            factors.append(errors[0] / errors[1])
        assert 1.5 < factors[0] < 3 < factors[1] < 8 < factors[2]


def test_all_paths_have_the_same_lines(explorer):
    """Equal up to where they start: ratios sigma / mu of 152 (VP), 10 (VE), infinity (linear).

    So VE's first points are off the common line by about a tenth; a distance to the nearest point
    of a polygon with 128 sides adds less.
    """
    segments = {}
    for name in PATHS:
        explorer.set(path=name)
        segments[name] = exact_lines(explorer)
    for one, other in itertools.combinations(PATHS, 2):
        for line, same in zip(segments[one], segments[other], strict=True):
            gaps = np.linalg.norm(line[:, None] - same[None], axis=-1).min(1)
            assert gaps.max() < 0.15


def test_extreme_settings(explorer):
    for name, solver, n in itertools.product(PATHS, ("Euler", "RK4"), (1, 32)):
        explorer.set(path=name, solver=solver, n=n)
        assert np.isfinite(ends(explorer)[1]).all()


def test_another_target_is_used():
    """Data in one tight blob: everything ends there."""
    one = GaussianMixture(torch.tensor([[1.0, -1.0]]), torch.tensor([0.1]), torch.ones(1))
    explorer = schedule_explorer(one, noise=NOISE)
    assert np.linalg.norm(ends(explorer)[0] - [1.0, -1.0], axis=1).max() < 0.4


def test_the_flip_book_is_small(explorer):
    assert len(explorer._repr_mimebundle_()["text/html"]) < 200_000
