"""What the sliders show, against values computed by plain value iteration."""

import numpy as np
import pytest

from som_lite.rl.small_world import cliff_walk
from som_lite.view.value_landscape import COUNTS, GAMMAS, HORIZON, value_landscape_explorer

WORLD = cliff_walk()


@pytest.fixture(scope="module")
def explorer():
    return value_landscape_explorer(WORLD)


def value_iteration(gamma, n, keep):
    """V of the best of n by Q: sort the actions, weigh them by rank, and repeat."""
    rank = np.arange(WORLD.reward.shape[1] + 1) / WORLD.reward.shape[1]
    weights = np.diff(rank**n)
    reward, chance = WORLD.reward.numpy(), WORLD.chance.numpy()
    v = np.zeros(len(reward))
    for _ in range(3000):  # 0.99^3000 is 1e-13
        q = reward + gamma * keep * chance @ v
        v = np.sort(q, axis=1) @ weights
    return q, v


@pytest.mark.parametrize(
    ("gamma", "ends", "n"),
    [(0.99, 0, 1000), (0.99, 1, 1000), (0.5, 0, 1), (0.95, 1, 8)],
)
def test_lines_are_the_exact_values(explorer, gamma, ends, n):
    explorer.set(gamma=gamma, ends=explorer.controls["ends"].positions[ends], N=n)
    lines = {a.get_label(): a for a in explorer.moving if type(a).__name__ == "Line2D"}
    value, truth, best = (lines[x] for x in ("here", "ends told apart", "best action"))
    q, v = value_iteration(gamma, n, 1 - ends / HORIZON)
    # two ways to the same fixed point, in double precision
    np.testing.assert_allclose(value.get_ydata(), (1 - gamma) * v, atol=1e-9)
    np.testing.assert_allclose(
        truth.get_ydata(), (1 - gamma) * value_iteration(gamma, n, 1)[1], atol=1e-9
    )
    chosen = np.searchsorted(WORLD.actions.numpy(), best.get_ydata())
    np.testing.assert_allclose(q[np.arange(len(q)), chosen], q.max(1), atol=1e-9)


def test_shades_rank_the_actions_of_a_place(explorer):
    explorer.set(gamma=0.99, ends="told apart", N=1000)
    (image,) = [a for a in explorer.moving if type(a).__name__ == "Shades"]
    q, _ = value_iteration(0.99, 1000, 1)
    middle = image.numbers[:, image.numbers.shape[1] // 2]  # the place x = 0
    assert middle[0] == 0 and middle[-1] == 9  # from the worst action, left, to the best
    assert q[20].argmin() == 0 and q[20].argmax() == q.shape[1] - 1
    assert len(np.unique(image.numbers)) == 10


def test_every_position_draws_a_picture_of_its_own(explorer):
    for key, control in explorer.controls.items():
        pictures = set()
        for value in control.positions:
            explorer.set(**{key: value})
            pictures.add(explorer.image.value)
        assert len(pictures) == len(control.positions)


def test_flip_book_is_small():
    explorer = value_landscape_explorer(WORLD, GAMMAS, COUNTS[-2:])
    assert len(explorer._repr_mimebundle_()["text/html"]) < 200_000
