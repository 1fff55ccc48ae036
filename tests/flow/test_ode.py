"""Solvers: order of convergence, an adaptive reference, exact transport, masses of a mixture."""

import math

import numpy as np
import pytest
import torch

from som_lite.flow.densities import GaussianMixture, checkerboard, three_modes
from som_lite.flow.ode import STEPS, euler_step, heun_step, reference_solve, rk4_step, solve
from som_lite.flow.paths import VE, VP, Linear

ORDERS = {"euler": 1, "heun": 2, "rk4": 4}


def riccati(a, t):
    """da/dt = cos(t) a^2: nonlinear in a and dependent on t; 1/a(t) = 1/a(s) + sin s - sin t."""
    return t.cos() * a**2


def riccati_solution(a, s, t):
    return 1 / (1 / a + math.sin(s) - math.sin(t))


def normal_points(n: int, dim: int = 2) -> torch.Tensor:
    """Standard normal points, spread evenly (Sobol): averages over them err by about 1/n."""
    u = torch.quasirandom.SobolEngine(dim, scramble=True, seed=0).draw(n, dtype=torch.float64)
    return torch.special.ndtri(u.clamp(1e-9, 1 - 1e-9))


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize(("t0", "t1"), [(1.0, 0.0), (0.0, 1.0)])
def test_order_of_convergence(name, t0, t1):
    """Slope of log error against log step, 32 .. 256 steps; higher orders in the step leave .1."""
    a = torch.tensor([[0.8], [0.5], [-0.5]], dtype=torch.float64)
    counts, errors = [32, 64, 128, 256], []
    for steps in counts:
        end = solve(riccati, a, t0, t1, steps, STEPS[name])
        errors.append((end - riccati_solution(a, t0, t1)).abs().max().item())
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert -slope == pytest.approx(ORDERS[name], abs=0.1)


def test_single_steps_by_hand():
    """One step of h = .5 on da/dt = a + t from a = 1, t = 0, worked out on paper."""
    field = lambda a, t: a + t  # noqa: E731
    a, t, dt = (torch.tensor([[x]], dtype=torch.float64) for x in (1.0, 0.0, 0.5))
    assert euler_step(field, a, t, dt).item() == pytest.approx(1.5, abs=1e-15)
    assert heun_step(field, a, t, dt).item() == pytest.approx(1 + 0.25 * (1 + 2), abs=1e-15)
    # k1 = 1, k2 = 1.25 + .25, k3 = 1.375 + .25, k4 = 1.8125 + .5
    want = 1 + 0.5 / 6 * (1 + 2 * 1.5 + 2 * 1.625 + 2.3125)
    assert rk4_step(field, a, t, dt).item() == pytest.approx(want, abs=1e-15)
    assert solve(field, a, 0.0, 0.5, 1, rk4_step).item() == pytest.approx(want, abs=1e-15)


@pytest.mark.parametrize("name", ORDERS)
def test_number_of_field_evaluations(name):
    """Order 1, 2 and 4 for 1, 2 and 4 looks at the field per step."""
    calls = []
    solve(lambda a, t: calls.append(t) or -a, torch.ones(1, 1), steps=7, step=STEPS[name])
    assert len(calls) == 7 * ORDERS[name]


def test_reference_solver_against_the_solution():
    """Tolerance 1e-8 per step; its global error stays within a factor of 100 of it."""
    a = torch.tensor([[0.5], [-0.4], [0.3]], dtype=torch.float64)
    for t0, t1 in ((1.0, 0.0), (0.2, 0.9)):
        end = reference_solve(riccati, a, t0, t1)
        torch.testing.assert_close(end, riccati_solution(a, t0, t1), rtol=0, atol=1e-6)
    assert reference_solve(riccati, a.float()).dtype == torch.float64


@pytest.mark.parametrize(("t0", "t1"), [(1.0, 0.0), (0.2, 0.9)])
def test_reference_solver_stays_between_its_times(t0, t1):
    """A path ends at t = 0: what lies behind it (sigma below 0, or its root) is not to be asked."""
    seen = []
    reference_solve(lambda a, t: seen.append(t) or riccati(a, t), torch.ones(1, 1) / 2, t0, t1)
    assert min(t0, t1) <= torch.cat(seen).min() and torch.cat(seen).max() <= max(t0, t1)


def test_runge_kutta_agrees_with_the_reference_on_a_mixture(path):
    """100 RK4 steps; measured differences 5e-7 to 1.8e-6, of which up to 1e-7 the reference's."""
    p = three_modes()
    a = path.sigma(1.0).item() * normal_points(16)
    velocity = lambda a, t: p.velocity(a, t, path)  # noqa: E731
    torch.testing.assert_close(
        solve(velocity, a, steps=100, step=rk4_step),
        reference_solve(velocity, a),
        rtol=0,
        atol=1e-5,
    )


@pytest.mark.parametrize("step", [heun_step, rk4_step])
def test_transport_of_a_gaussian_is_exact(path, step, gaussian):
    """The flow map phi_{t -> r}(a) of the closed form, with times that differ from row to row.

    150 steps; measured: Heun at most 5e-4 (VE path, where sigma grows a thousandfold), RK4 2e-8.
    """
    g = gaussian(0.7, 0.4)
    p = GaussianMixture(
        torch.full((1, 1), 0.7, dtype=torch.float64),
        torch.full((1,), 0.4, dtype=torch.float64),
        torch.ones(1, dtype=torch.float64),
    )
    a, t, r = (
        torch.tensor(x, dtype=torch.float64)[:, None]
        for x in ([1.3, -0.5, 1.0, -2.0, 0.3], [0.6, 0.9, 1.0, 0.5, 0.1], [0.2, 0.0, 0.0, 0.5, 0.8])
    )
    velocity = lambda a, t: p.velocity(a, t, path)  # noqa: E731
    end = solve(velocity, a, t, r, 150, step)
    tolerance = 1e-3 if step is heun_step else 1e-6
    torch.testing.assert_close(end, g.flow_map(a, t, r, path), rtol=0, atol=tolerance)
    assert torch.equal(end[3], a[3])  # an empty interval


@pytest.mark.parametrize("path", [Linear(), VP(), VE()], ids=["linear", "vp", "ve"])
def test_masses_of_a_mixture_after_transport(path):
    """Noise carried by the exact field lands in the three modes with masses .5/.3/.2.

    4096 Sobol points, error about .002; VP and VE start from a normal that is off p_1 by mu(1) =
    .007 and by 1/sigma_max^2 of the variance, which moves the masses by up to .005: within .01.
    """
    p = GaussianMixture(
        torch.tensor([[-0.6, -0.5], [0.7, 0.1], [0.0, 0.8]]),
        torch.tensor([0.12, 0.15, 0.1]), torch.tensor([0.5, 0.3, 0.2]),
    )  # fmt: skip
    a = path.sigma(1.0).item() * normal_points(4096)
    end = solve(lambda a, t: p.velocity(a, t, path), a, steps=100, step=rk4_step)
    mode = torch.cdist(end, p.means.double()).argmin(1)
    masses = torch.bincount(mode, minlength=3) / len(mode)
    torch.testing.assert_close(masses, p.weights, rtol=0, atol=0.01)
    for k in range(3):
        inside = end[mode == k]
        torch.testing.assert_close(inside.mean(0), p.means[k].double(), rtol=0, atol=0.02)
        torch.testing.assert_close(inside.std(0).mean(), p.stds[k].double(), rtol=0.1, atol=0)


def test_transport_to_the_checkerboard():
    """Fields with edges: 98 % of the points end on the board, one eighth on each square.

    4 standard errors of a share of 4096 points: .021.
    """
    board, path = checkerboard(), Linear()
    a = normal_points(4096)
    end = solve(lambda a, t: board.velocity(a, t, path), a, 1.0, 1e-3, 60)
    slack = 0.02  # the field at t = .001 still has Heun's last steps of .017 to correct
    squares = ((end[:, None] > board.lows - slack) & (end[:, None] < board.highs + slack)).all(-1)
    assert squares.any(1).double().mean() > 0.98
    assert (squares.double().mean(0) - 1 / 8).abs().max() < 0.021


def test_rounding_of_times_does_not_leave_the_path(path):
    """start + i dt + dt may come out as -1e-17, and VP's sigma is a square root."""
    p, a = three_modes(), torch.zeros(1, 2, dtype=torch.float64)
    assert path.sigma(torch.full((1, 1), -1e-17, dtype=torch.float64)).isfinite()
    for steps in range(3, 25):
        assert solve(lambda a, t: p.velocity(a, t, path), a, steps=steps).isfinite().all(), steps


def test_trajectory_has_every_point():
    a = torch.ones(3, 4, 2, dtype=torch.float64)
    path = solve(lambda a, t: -a, a, 1.0, 0.0, steps=6, trajectory=True)
    assert path.shape == (7, 3, 4, 2)
    assert torch.equal(path[0], a)
    torch.testing.assert_close(path[-1], solve(lambda a, t: -a, a, 1.0, 0.0, steps=6))
    half = solve(lambda a, t: -a, a, 1.0, 0.5, steps=3)
    torch.testing.assert_close(path[3], half)


def test_times_reach_the_field_as_a_column():
    """(*batch, 1), running from t0 to t1 in equal steps; the dtype is that of the points."""
    seen = []
    solve(lambda a, t: seen.append(t) or 0 * a, torch.zeros(2, 5, 3), 1.0, 0.0, 4, euler_step)
    assert all(t.shape == (2, 5, 1) and t.dtype == torch.float32 for t in seen)
    assert [t[0, 0, 0].item() for t in seen] == pytest.approx([1, 0.75, 0.5, 0.25])


def test_row_wise_times_equal_separate_solves():
    a = torch.tensor([[0.5, 0.2], [-1.0, 0.4]], dtype=torch.float64)
    t0, t1 = torch.tensor([[1.0], [0.7]]).double(), torch.tensor([[0.2], [0.3]]).double()
    together = solve(riccati, a, t0, t1, 10)
    apart = [solve(riccati, a[i : i + 1], t0[i].item(), t1[i].item(), 10) for i in range(2)]
    torch.testing.assert_close(together, torch.cat(apart))


@pytest.mark.parametrize("steps", [0, -3])
def test_steps_must_be_positive(steps):
    with pytest.raises(ValueError, match=f"steps.*{steps}"):
        solve(riccati, torch.ones(1, 1), steps=steps)
