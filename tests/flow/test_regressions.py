"""Three losses as one regression: exact networks have no error, every plan learns."""

import pytest
import torch

from som_lite.flow.boltzmann import BoxBoltzmann, ring
from som_lite.flow.densities import three_modes
from som_lite.flow.meanflow import average_velocity, meanflow_target
from som_lite.flow.paths import Linear
from som_lite.flow.regressions import (
    PLANS,
    Plan,
    flow_matching,
    from_q,
    meanflow,
    row_errors,
    row_gradients,
    train_with_plan,
)
from som_lite.flow.timesteps import BinLaw, Likelihood, Power

DATA = three_modes()


def velocity(a, t):
    return DATA.velocity(a, t, Linear())


def test_the_exact_velocity_has_no_error_and_twice_it_has_one():
    for objective in (Power(1.0), Likelihood()):
        error = flow_matching(DATA, objective).error
        assert error(lambda a, r, t: velocity(a, t)) == 0
        assert error(lambda a, r, t: 2 * velocity(a, t)) == pytest.approx(1, abs=1e-6)


def test_the_exact_average_velocity_has_no_error():
    task = meanflow(DATA)
    exact = task.error(lambda a, r, t: average_velocity(velocity, a, r, t))
    assert exact < 1e-4  # the same Runge-Kutta steps on both sides, but for rounding
    assert task.error(lambda a, r, t: velocity(a, t)) > 1  # one Euler step goes to the mean


def test_the_exact_flow_of_q_has_nearly_no_error():
    exact = BoxBoltzmann(ring, 0.15, cells=81)
    field = lambda a, t: exact.velocity(a, t.clamp(0.03, 0.999), Linear())  # noqa: E731
    task = from_q(ring)
    # 64 steps down to t = 0 with a velocity that stands still below .03: some hundredths
    assert task.error(lambda a, r, t: average_velocity(field, a, r, t)) < 0.03
    assert task.error(lambda a, r, t: a) > 0.3


def test_meanflow_rows_have_the_target_of_the_identity(generator):
    task = meanflow(DATA)
    torch.manual_seed(0)
    net, t = task.net(), Power(2.0).sample(30, generator)
    state = generator.get_state()
    rows = task.rows(net, t, generator)
    generator.set_state(state)
    a0, eps = DATA.sample(30, generator), torch.randn(30, 2, generator=generator)
    target = meanflow_target(net, rows.a, rows.r, rows.t, eps - a0)
    torch.testing.assert_close(rows.u, target, rtol=1e-4, atol=1e-5)  # dual pass against jvp
    assert not rows.u.requires_grad and (rows.r <= rows.t).all()


def test_row_gradients_are_those_of_autograd(generator):
    task = flow_matching(DATA)
    torch.manual_seed(0)
    net = task.net()
    rows = task.rows(net, Power().sample(5, generator), generator)
    gradients = row_gradients(net, rows)
    for i, error in enumerate(row_errors(net, rows)):
        one = torch.autograd.grad(error, list(net.parameters()), retain_graph=True)
        wanted = torch.cat([g.flatten() for g in one])
        torch.testing.assert_close(gradients[i], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", PLANS)
def test_every_plan_learns_and_repeats_itself(name):
    task = flow_matching(DATA, Power(2.0))
    net, looks = train_with_plan(task, PLANS[name], 60, looks=[5, 60])
    assert [look.updates for look in looks] == [5, 60]
    assert looks[1].error < 0.9 * looks[0].error or name == "logit-normal"  # another loss
    if isinstance(looks[1].law, BinLaw):
        assert looks[1].law.score is not None  # it has learnt
    again, _ = train_with_plan(task, PLANS[name], 60)
    assert all(torch.equal(x, y) for x, y in zip(net.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("task", [meanflow(DATA), from_q(ring)], ids=["meanflow", "from_q"])
def test_one_step_maps_are_learnt(task):
    _, looks = train_with_plan(task, Plan(), 300, looks=[2, 300])
    assert looks[1].error < 0.9 * looks[0].error


def test_bad_plans_are_named():
    with pytest.raises(ValueError, match="learns must be"):
        Plan(learns="luck")
    with pytest.raises(ValueError, match="every and trial"):
        Plan(every=0)
