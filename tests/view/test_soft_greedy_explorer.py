"""What the soft-or-greedy explorer shows, against closed forms of a linear critic."""

import math

import pytest
import torch

from som_lite.flow.boltzmann import BoxBoltzmann
from som_lite.view.explorers import soft_greedy_explorer
from som_lite.view.soft_greedy import best_of_every, best_of_n_mean

ALPHAS, NS, KS = (0.2, 0.5, 1.0), (1, 4, 32), (4, 16)


def slope(a):
    """Q(a) = a_1: the density is exp(a_1 / alpha), with E[Q] = coth(1 / alpha) - alpha."""
    return a[..., 0]


def distribution(x, alpha):
    return (math.exp(x / alpha) - math.exp(-1 / alpha)) / (2 * math.sinh(1 / alpha))


def closed_form(alpha, N):
    """E[max of N] = 1 - int F^N over [-1, 1], by the midpoint rule."""
    x = [(i + 0.5) / 1000 - 1 for i in range(2000)]
    return 1 - sum(distribution(z, alpha) ** N for z in x) / 1000


def exact_for_many(noise, alpha, K):
    """Exact actions with K = 16; with 4 proposals, uniform ones."""
    u = torch.special.ndtr(noise)
    low, high = math.exp(-1 / alpha), math.exp(1 / alpha)
    first = alpha * torch.log(low + u[:, :1] * (high - low)) if K > 4 else 2 * u[:, :1] - 1
    return torch.cat([first, 2 * u[:, 1:] - 1], -1)


@pytest.fixture(scope="module")
def explorer():
    return soft_greedy_explorer(
        exact_for_many, slope, alphas=ALPHAS, candidates=NS, proposals=KS, actions=2000
    )


def shown_means(explorer):
    texts = [a.get_text() for a in explorer.moving if hasattr(a, "get_text")]
    words = next(text for text in texts if "exact" in text).split()
    return float(words[2].strip(",")), float(words[4])


@pytest.mark.parametrize("N", NS)
@pytest.mark.parametrize("alpha", ALPHAS)
def test_both_means_are_the_closed_form(explorer, alpha, N):
    explorer.set(alpha=alpha, N=N, K=16)
    mean, exact = shown_means(explorer)
    # Cells are .01 wide, and the largest of 32 lies within some cells of the edge: .003.
    assert exact == pytest.approx(closed_form(alpha, N), abs=5e-3)
    # 2000 actions with a standard deviation below .5: three standard errors are .034
    assert mean == pytest.approx(closed_form(alpha, N), abs=0.034)


def test_few_proposals_show_their_own_actions(explorer):
    explorer.set(alpha=0.2, N=1, K=4)
    mean, exact = shown_means(explorer)
    assert abs(mean) < 0.04 and exact > 0.7  # uniform actions: E[Q] = 0


def test_the_best_of_every_n_is_picked_within_its_group():
    points = torch.tensor([[1.0, 0], [3, 0], [9, 0], [2, 0], [0, 0], [5, 0]])
    assert best_of_every(points, slope, 3)[:, 0].tolist() == [9.0, 5.0]
    assert torch.equal(best_of_every(points, slope, 1), points)


def test_the_best_of_one_is_the_expectation():
    target = BoxBoltzmann(slope, 0.3)
    assert best_of_n_mean(target, 1) == pytest.approx(target.expectation(slope), abs=1e-9)


def test_every_position_draws_and_the_flip_book_is_small(explorer):
    for key, control in explorer.controls.items():
        pictures = set()
        for value in control.positions:
            explorer.set(**{key: value})
            pictures.add(explorer.image.value)
        assert len(pictures) == len(control.positions)
    assert len(explorer._repr_mimebundle_()["text/html"]) < 250_000


def test_a_position_that_is_none_is_named(explorer):
    with pytest.raises(ValueError, match="N must be one of"):
        explorer.set(N=2)
