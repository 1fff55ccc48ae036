"""What the explorer of neighbours shows, against actions whose shares are known."""

import pytest
import torch

from som_lite.flow.boltzmann import BoxBoltzmann, Bumps
from som_lite.view.explorers import neighbours_explorer

ALPHAS = (0.1, 0.3)
Q = Bumps(torch.tensor([[-0.5, 0.0], [0.5, 0.0]]), torch.full((2,), 0.3), torch.tensor([1.0, 0.8]))
ON_HILL = {0: Q.centres[:1].expand(800, -1), 1: Q.centres[1:].expand(800, -1)}


@pytest.fixture(scope="module")
def explorer():
    generator = torch.Generator().manual_seed(0)
    boltzmann = {alpha: BoxBoltzmann(Q, alpha).sample(4000, generator) for alpha in ALPHAS}
    return neighbours_explorer(
        {"exact": boltzmann, "climber": {None: ON_HILL[0]}}, Q, alphas=ALPHAS
    )


def marks(explorer):
    """(exact shares, shares of the actions, titles)"""
    lines = [a.get_xydata() for a in explorer.moving if hasattr(a, "get_xydata")]
    wanted, found = (x[:, 1] for x in lines if len(x) == 2)
    return wanted, found, [a.get_text() for a in explorer.moving if hasattr(a, "get_text")]


@pytest.mark.parametrize("alpha", ALPHAS)
def test_exact_actions_have_the_exact_shares_and_value(explorer, alpha):
    explorer.set(agent="exact", alpha=alpha)
    wanted, found, titles = marks(explorer)
    target = BoxBoltzmann(Q, alpha)
    right = float(target.p[target.grid[:, 0] > 0].sum())
    assert wanted == pytest.approx([1 - right, right], abs=1e-6)
    assert found == pytest.approx(wanted, abs=0.03)  # 4000 draws: standard error below .008
    mean, exact = (float(word.strip(",")) for word in titles[1].split() if word[0].isdigit())
    assert mean == pytest.approx(exact, abs=0.02) and f"= {alpha:g}" in titles[0]


def test_an_agent_without_temperature_says_so_and_does_not_move(explorer):
    seen = []
    for alpha in ALPHAS:
        explorer.set(agent="climber", alpha=alpha)
        wanted, found, titles = marks(explorer)
        seen.append(tuple(wanted))
        assert found.tolist() == pytest.approx([1, 0]) and "no temperature" in titles[0]
    assert seen[0] != seen[1]


def test_every_position_draws_and_the_flip_book_is_small(explorer):
    pictures = set()
    for agent in ("exact", "climber"):
        for alpha in ALPHAS:
            explorer.set(agent=agent, alpha=alpha)
            pictures.add(explorer.image.value)
    assert len(pictures) == 4
    assert len(explorer._repr_mimebundle_()["text/html"]) < 250_000


def test_a_missing_temperature_is_named():
    with pytest.raises(ValueError, match=r"points of exact lack the temperatures \[0.3\]"):
        neighbours_explorer({"exact": {0.1: ON_HILL[0]}, "b": {None: ON_HILL[1]}}, Q, alphas=ALPHAS)
