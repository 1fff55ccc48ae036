"""The known critics answer for themselves: their exact draws pass, wrong ones do not."""

import pytest
import torch

from tests.rl.known_q import KNOWN, judge


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


each = pytest.mark.parametrize("name", KNOWN)


def exactly(target, generator):
    return lambda states, n: torch.stack([target.exact(s, n, generator) for s in states])


@each
def test_exact_actions_are_judged_exact(name, generator):
    target = KNOWN[name]()
    found = judge(target, exactly(target, generator))
    # 2000 actions a state: standard error of a mean .02 of a deviation, of a mass .011
    assert found.mean < 0.08 and found.mass < 0.04
    assert found.std == pytest.approx(1, abs=0.04) and found.gap == pytest.approx(1, abs=0.03)


@each
def test_uniform_and_shrunk_actions_are_judged_wrong(name, generator):
    target = KNOWN[name]()

    def shrunk(states, n):
        a = exactly(target, generator)(states, n)
        return a.mean(1, keepdim=True) + 0.5 * (a - a.mean(1, keepdim=True))

    def uniform(states, n):
        return 2 * torch.rand(len(states), n, target.act_dim, generator=generator) - 1

    assert judge(target, shrunk).std == pytest.approx(0.5, abs=0.03)
    assert abs(judge(target, uniform).gap) < 0.1


@each
def test_the_states_q_is_the_density_of_the_exact_actions(name, generator):
    """Importance weights exp(q / alpha) at uniform actions give the exact mean and E[q]."""
    target = KNOWN[name]()
    (obs,) = target.states(1, generator)
    uniform = 2 * torch.rand(400_000, target.act_dim, generator=generator) - 1
    w = (target.min(obs, uniform) / target.alpha).softmax(0)
    exact = target.exact(obs, 50_000, generator)
    # effective sizes from 1000 (six dimensions) up: standard error of a mean .02
    torch.testing.assert_close(w @ uniform, exact.mean(0), rtol=0, atol=0.06)
    spread = target.q(obs, uniform).std()
    assert abs(w @ target.q(obs, uniform) - target.q(obs, exact).mean()) < 0.05 * spread


def test_the_pair_swaps_places_when_the_state_turns_round(generator):
    pair = KNOWN["swapping pair"]()
    a = 2 * torch.rand(100, 2, generator=generator) - 1
    s = torch.tensor([0.6, 0.8])
    torch.testing.assert_close(pair.q(s, a), pair.q(-s, -a))
    here = float((pair.mode(s, pair.exact(s, 5000, generator)) == 0).float().mean())
    there = float((pair.mode(-s, pair.exact(-s, 5000, generator)) == 0).float().mean())
    assert here == pytest.approx(there, abs=0.04) and 0.55 < here < 0.75
