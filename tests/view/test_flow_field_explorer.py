import numpy as np
import pytest
import torch

from som_lite.flow.densities import three_modes
from som_lite.flow.ode import reference_solve
from som_lite.flow.paths import Linear
from som_lite.view.explorers import flow_field_explorer

TARGET = three_modes()
NOISE = torch.randn(40, 2, generator=torch.Generator().manual_seed(1))
# The pictures hold single precision; 80 Runge-Kutta steps are far below a pixel, which is 0.016.
PIXEL = 2e-3


def velocity(a, t):
    return TARGET.velocity(a, t, Linear())


@pytest.fixture(scope="module")
def explorer():
    return flow_field_explorer(velocity, TARGET.log_prob, NOISE)


def points(explorer, count=40):
    """The moving points: those of the flow, then those of the Euler steps."""
    return [
        a.get_xydata()
        for a in explorer.moving
        if hasattr(a, "get_xydata") and len(a.get_xydata()) == count
    ]


def titles(explorer):
    return [a.get_text() for a in explorer.moving if hasattr(a, "get_text")]


def quiver(explorer):
    return next(a for a in explorer.moving if type(a).__name__ == "Quiver")


@pytest.mark.parametrize("t", [1.0, 0.65, 0.05, 0.0])
def test_particles_are_where_an_independent_solver_takes_them(explorer, t):
    explorer.set(t=t)
    truth = NOISE if t == 1 else reference_solve(velocity, NOISE, 1.0, t)
    np.testing.assert_allclose(points(explorer)[0], truth, atol=PIXEL)


def test_lines_lead_from_the_noise_to_the_particles(explorer):
    explorer.set(t=0.3)
    lines = next(a for a in explorer.moving if type(a).__name__ == "LineCollection").get_segments()
    np.testing.assert_allclose([line[0] for line in lines], NOISE[: len(lines)], atol=1e-6)
    np.testing.assert_allclose(
        [line[-1] for line in lines], points(explorer)[0][: len(lines)], atol=1e-6
    )


@pytest.mark.parametrize("t", [1.0, 0.4])
def test_arrows_are_the_velocity_reversed(explorer, t):
    explorer.set(t=t)
    arrows = quiver(explorer)
    where = torch.tensor(arrows.XY, dtype=torch.float32)
    truth = velocity(where, torch.full((len(where), 1), t))
    np.testing.assert_allclose(np.c_[arrows.U, arrows.V], -truth, atol=1e-5)


def test_one_euler_step_from_noise_lands_on_the_mean(explorer):
    explorer.set(t=1.0, n=1)
    mean = TARGET.weights @ TARGET.means
    np.testing.assert_allclose(points(explorer)[1], mean.expand(40, 2), atol=1e-5)


def test_one_euler_step_lands_on_the_posterior_mean(explorer):
    """On the linear path a - t v = m, at every time."""
    explorer.set(t=0.5, n=1)
    now = torch.tensor(points(explorer)[0])
    m = TARGET.posterior_mean(now, torch.full((40, 1), 0.5), Linear())
    np.testing.assert_allclose(points(explorer)[1], m, atol=1e-5)


def test_later_starts_and_more_steps_end_nearer(explorer):
    def off(t, n):
        explorer.set(t=t, n=n)
        return float(titles(explorer)[1].split()[-1])

    by_steps = [off(1.0, n) for n in explorer.controls["n"].positions]
    by_time = [off(t, 1) for t in (1.0, 0.75, 0.5, 0.25, 0.0)]
    assert by_steps == sorted(by_steps, reverse=True) and by_steps[-1] < 0.1 < 1 < by_steps[0]
    assert by_time == sorted(by_time, reverse=True) and by_time[-1] == 0


def test_every_position_draws_a_picture_of_its_own(explorer):
    for key, control in explorer.controls.items():
        explorer.set(t=1.0, n=1)
        pictures = set()
        for value in control.positions:
            explorer.set(**{key: value})
            pictures.add(explorer.image.value)
        assert len(pictures) == len(control.positions)


def test_play_is_there_and_moves_t(explorer):
    play = explorer.box.children[1].children[0]
    explorer.set(t=0.5)
    play.value += 1
    assert explorer.values["t"] == 0.55


def test_a_velocity_that_is_infinite_at_t_0_draws():
    """A net for a density with hard edges may divide by t."""
    explorer = flow_field_explorer(
        lambda a, t: a / t, TARGET.log_prob, noise=torch.full((5, 2), 0.5)
    )
    explorer.set(t=0.0)
    assert np.isfinite(points(explorer, 5)[0]).all()
    assert np.isfinite(quiver(explorer).U).all()
