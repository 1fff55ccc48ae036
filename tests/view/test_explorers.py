import itertools

import numpy as np
import pytest
import torch

from som_lite.flow.densities import three_modes
from som_lite.flow.ode import reference_solve
from som_lite.flow.paths import Linear
from som_lite.view.explorers import average_velocity_explorer, policy_explorer

TARGET = three_modes()


def velocity(a, t):
    return TARGET.velocity(a, t, Linear())


@pytest.fixture(scope="module")
def meanflow():
    noise = torch.randn(40, 2, generator=torch.Generator().manual_seed(1))
    return average_velocity_explorer(velocity, log_prob=TARGET.log_prob, noise=noise)


@pytest.fixture(scope="module")
def policy():
    def generate(noise, observation):
        turned = torch.stack([noise[:, 1], -noise[:, 0], noise[:, 2]], dim=-1)
        return torch.tanh(turned + observation[:, 1:2])

    noise = torch.randn(30, 3, generator=torch.Generator().manual_seed(2))
    observation = torch.tensor([0.3, 0.0])
    return policy_explorer(
        generate, noise, observation, coordinate=1, span=(-2.0, 2.0), label="angle", dims=(0, 2)
    )


def test_every_position_of_every_slider_draws(meanflow, policy):
    for explorer in (meanflow, policy):
        for key, control in explorer.controls.items():
            pictures = set()
            for value in control.positions:
                explorer.set(**{key: value})
                pictures.add(explorer.image.value)
            # a slider that is pushed along or passes a symmetric state may repeat one picture
            assert len(pictures) >= len(control.positions) - 1


def test_flip_books_are_small(meanflow, policy):
    for explorer in (meanflow, policy):
        assert len(explorer._repr_mimebundle_()["text/html"]) < 200_000


def artist(explorer, kind, index=0):
    return [a for a in explorer.moving if type(a).__name__ == kind][index]


def test_r_stays_below_t(meanflow):
    for r, t in itertools.product([0.0, 0.5, 1.0], repeat=2):
        meanflow.set(r=r)
        meanflow.set(t=t)
        assert meanflow.values["r"] <= meanflow.values["t"] == t


def test_jump_lands_where_an_independent_solver_ends(meanflow):
    meanflow.set(r=0.2, t=0.9, x=2)
    jump = next(a for a in meanflow.moving if type(a).__name__ == "Quiver" and len(a.U) == 1)
    start = torch.as_tensor(jump.get_offsets()[0], dtype=torch.float64)
    truth = reference_solve(velocity, start[None], 0.9, 0.2)[0]
    landed = start.numpy() + np.array([jump.U[0], jump.V[0]])
    # 32 Runge-Kutta steps in single precision: far below a pixel, which is 0.017 wide
    np.testing.assert_allclose(landed, truth, atol=1e-3)
    path = artist(meanflow, "LineCollection").get_segments()[0]
    np.testing.assert_allclose(path[-1], truth, atol=1e-3)


def test_u_is_v_when_the_interval_is_empty(meanflow):
    meanflow.set(r=0.6, t=0.6)
    v, u = (a for a in meanflow.moving if type(a).__name__ == "Quiver" and len(a.U) > 1)
    np.testing.assert_allclose(u.U, v.U, atol=1e-6)
    meanflow.set(r=0.0)
    assert np.abs(u.U - v.U).max() > 0.5  # and is another thing when it is not


def test_more_euler_steps_end_nearer(meanflow):
    def off(n):
        meanflow.set(n=n)
        title = next(a for a in meanflow.moving if "Euler" in getattr(a, "get_text", str)())
        return float(title.get_text().split()[-1])

    errors = [off(n) for n in meanflow.controls["n"].positions]
    assert errors == sorted(errors, reverse=True) and errors[0] > 1 and errors[-1] < 0.1


def test_a_wrong_average_velocity_misses():
    """A net that has learnt v in place of u is seen to miss: the explorer tells them apart."""
    explorer = average_velocity_explorer(
        velocity, lambda a, r, t: velocity(a, t), log_prob=TARGET.log_prob
    )
    explorer.set(r=0.0, t=1.0)
    jump = next(a for a in explorer.moving if type(a).__name__ == "Quiver" and len(a.U) == 1)
    landed = jump.get_offsets()[0] + np.array([jump.U[0], jump.V[0]])
    path = artist(explorer, "LineCollection").get_segments()[0]
    assert np.linalg.norm(landed - path[-1]) > 0.3


def test_policy_shows_noise_first_and_the_policys_actions_last(policy):
    points = max(
        (a for a in policy.moving if hasattr(a, "get_xydata")), key=lambda a: len(a.get_xydata())
    )
    noise = torch.randn(30, 3, generator=torch.Generator().manual_seed(2))
    policy.set(progress=0.0, angle=1.0)
    np.testing.assert_allclose(points.get_xydata(), noise[:, [0, 2]], atol=1e-6)
    policy.set(progress=1.0)
    action = torch.tanh(torch.stack([noise[:, 1], noise[:, 2]], dim=-1) + 1.0)
    np.testing.assert_allclose(points.get_xydata(), action, atol=1e-6)


def test_policy_with_a_single_action_component():
    noise = torch.linspace(-2, 2, 9)[:, None]
    explorer = policy_explorer(lambda eps, s: eps.tanh() * s, noise, torch.tensor([0.5]))
    explorer.set(progress=0.5, observation=-1.0)
    assert explorer.values["observation"] == -1.0


def test_policy_with_two_sliders_and_marks():
    noise = torch.randn(20, 2, generator=torch.Generator().manual_seed(3))
    explorer = policy_explorer(
        lambda eps, s: (eps + s[:, [0, 2]]).tanh(),
        noise,
        torch.zeros(3),
        coordinate=(2, 0),
        label=("y", "x"),
        marks=lambda s: s[None, [0, 2]],
    )
    explorer.set(x=0.5, y=-1.0)
    drawn = [a.get_xydata() for a in explorer.moving if hasattr(a, "get_xydata")]
    where = torch.tensor([[0.5, -1.0]])
    # The pictures are in double precision, the tensors in single.
    assert any(len(x) == 1 and np.allclose(x, where) for x in drawn)
    assert any(len(x) == 20 and np.allclose(x, (noise + where).tanh(), atol=1e-6) for x in drawn)


def test_policy_shades_the_actions_that_are_forbidden_in_the_state_it_shows():
    noise = torch.randn(20, 2, generator=torch.Generator().manual_seed(3))
    explorer = policy_explorer(
        lambda eps, s: eps.tanh(),
        noise,
        torch.zeros(1),
        forbidden=lambda a, s: (a[:, 0] > s[0]) & (a[:, 1] > 0),  # right of the state, upper half
    )
    for x, share in ((0.0, 0.5), (-0.5, 0.75), (1.0, 0.0)):
        explorer.set(observation=x)
        shaded = artist(explorer, "AxesImage").get_array()
        assert shaded[-1].mean() == pytest.approx(share, abs=0.01)  # the top row; cells are 1/120
        assert not shaded[0].any()


def test_policy_start_outside_the_span_is_an_error():
    with pytest.raises(ValueError, match=r"span must contain observation\[0\] = 5"):
        policy_explorer(lambda eps, s: eps, torch.zeros(3, 2), torch.tensor([5.0]))


def test_policy_names_missing_labels():
    with pytest.raises(ValueError, match=r"label must name 2 coordinates, got \['x'\]"):
        policy_explorer(
            lambda eps, s: eps, torch.zeros(3, 2), torch.zeros(2), coordinate=(0, 1), label="x"
        )
