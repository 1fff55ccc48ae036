"""The small world against simulation, a plain iteration and other forms of the same numbers."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from som_lite.rl.small_world import (
    ACTIONS,
    PLACES,
    STRIDE,
    as_batch,
    best_of_n_policy,
    best_of_n_q,
    cliff_walk,
    policy_q,
    step,
    tabulate,
    terrain,
    visited,
)

WORLD = cliff_walk()


def random_policy(seed=0):
    return torch.rand(PLACES, ACTIONS, generator=torch.Generator().manual_seed(seed)).double()


def normalised(policy):
    return policy / policy.sum(1, keepdim=True)


def test_chances_sum_to_one_and_keep_the_mean_away_from_both_edges():
    assert WORLD.chance.min() >= 0
    inner = slice(6, PLACES - 6)
    torch.testing.assert_close(WORLD.end[inner], torch.zeros_like(WORLD.end[inner]))
    mean = WORLD.chance[inner] @ WORLD.places
    want = WORLD.places[inner, None] + STRIDE * WORLD.actions  # wobble has mean 0
    torch.testing.assert_close(mean, want)


def test_only_the_cliff_ends_the_task():
    assert (WORLD.end[:30].abs() < 1e-12).all()
    # From the last place, a full step to the right ends for certain, one to the left never.
    torch.testing.assert_close(WORLD.end[-1, [0, -1]], torch.tensor([0.0, 1.0]).double())
    # Without a step only the wobbles by one and two places to the right do.
    assert WORLD.end[-1, ACTIONS // 2].item() == pytest.approx(0.3)


def linear_solve(policy, gamma, keep):
    """Q from one linear system of all pairs (s, a), by numpy: no V in between."""
    onward = torch.einsum("sat,tb->satb", WORLD.chance, policy).numpy()
    size = PLACES * ACTIONS
    matrix = np.eye(size) - gamma * keep * onward.reshape(size, size)
    return np.linalg.solve(matrix, WORLD.reward.numpy().ravel()).reshape(PLACES, ACTIONS)


@pytest.mark.parametrize("stop", [0.0, 0.1])
def test_value_of_a_policy_solves_the_system_of_pairs(stop):
    policy = normalised(random_policy())
    q = policy_q(WORLD, policy, 0.95, stop)
    # two solvers of well-conditioned systems, in double precision
    np.testing.assert_allclose(q, linear_solve(policy, 0.95, 1 - stop), atol=1e-10)


@pytest.mark.parametrize("n", [1, 2, 8, 1000])
def test_best_of_n_has_the_value_that_it_picks_by(n):
    q = best_of_n_q(WORLD, n, 0.95)
    np.testing.assert_allclose(q, linear_solve(best_of_n_policy(q, n), 0.95, 1), atol=1e-8)
    if n == 1000:  # the share of any but the best is at most (32/33)^1000, about 4e-14
        value = q.max(1).values
        torch.testing.assert_close(q, WORLD.reward + 0.95 * WORLD.chance @ value)


def test_more_candidates_are_worth_more():
    values = [best_of_n_q(WORLD, n, 0.95) for n in (1, 2, 8, 1000)]
    assert all((b > a - 1e-9).all() for a, b in pairwise(values))


def test_shares_of_the_best_of_n_are_those_of_drawing():
    q, generator = random_policy(1)[:1], torch.Generator().manual_seed(2)
    drawn = torch.randint(ACTIONS, (100_000, 4), generator=generator)
    picked = drawn[torch.arange(len(drawn)), q[0][drawn].argmax(1)]
    share = torch.bincount(picked, minlength=ACTIONS) / len(drawn)
    # a share of at most 0.12 is uncertain by 0.001
    torch.testing.assert_close(best_of_n_policy(q, 4)[0].float(), share, atol=0.005, rtol=0)
    torch.testing.assert_close(best_of_n_policy(q, 4).sum(1), torch.ones(1).double())


def test_among_equals_the_first_is_the_best():
    policy = best_of_n_policy(torch.zeros(1, 5).double(), 1000)
    assert policy[0, 0] > 0.99


def test_steps_land_as_often_as_the_chances_say():
    generator, count = torch.Generator().manual_seed(3), 40_000
    place, action = torch.full((count,), PLACES - 2), torch.full((count,), 20)
    after, ended = step(WORLD, place, action, generator)
    # a share p of 40 000 is uncertain by sqrt(p (1 - p) / 40 000) <= 0.0025
    assert ended.mean().item() == pytest.approx(WORLD.end[-2, 20].item(), abs=0.01)
    going_on = torch.bincount(after[ended == 0], minlength=PLACES) / count
    torch.testing.assert_close(going_on.double(), WORLD.chance[-2, 20], atol=0.01, rtol=0)


def test_visits_by_age_are_those_of_walkers():
    policy, generator, count = normalised(random_policy(4)), torch.Generator().manual_seed(5), 20000
    start = torch.zeros(PLACES).double()
    start[30] = 1
    chances = visited(WORLD, policy, start, 4)
    place, alive = torch.full((count,), 30), torch.ones(count).double()
    for age in range(4):
        share = torch.zeros(PLACES).double().scatter_add_(0, place, alive) / count
        torch.testing.assert_close(share, chances[age], atol=0.015, rtol=0)
        action = torch.multinomial(policy[place], 1, generator=generator).squeeze(1)
        place, ended = step(WORLD, place, action, generator)
        alive = alive * (1 - ended)


def test_batches_and_tables_speak_of_places_and_actions_as_numbers():
    place, action, after = torch.tensor([0, 40]), torch.tensor([32, 16]), torch.tensor([4, 40])
    batch = as_batch(WORLD, place, action, after, torch.tensor([0.0, 1.0]))
    assert batch.obs.tolist() == [[-1.0], [1.0]] and batch.action.tolist() == [[1.0], [0.0]]
    assert batch.terminated.tolist() == [0, 1]
    want = terrain(torch.tensor([-1.0, 1.0])) - torch.tensor([0.1, 0])
    torch.testing.assert_close(batch.reward, want)
    values = tabulate(WORLD, lambda obs, a: (obs + 2 * a).squeeze(-1))
    assert values.shape == (PLACES, ACTIONS)
    assert values[0, -1].item() == 1.0 and values[-1, 0].item() == -1.0
