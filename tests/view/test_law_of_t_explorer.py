"""What the explorer of laws shows, from a record made up so that every number is known."""

import numpy as np
import pytest

from som_lite.view.explorers import law_of_t_explorer
from som_lite.view.law_of_t import (
    best_density,
    equal_time_ratios,
    error_ratios,
    mean_ratio,
    relative_variance,
)

LOOKS = [10, 40]
GRID = ((np.arange(64) + 0.5) / 64).tolist()


def part(bend):
    """A uniform objective, the second moment (1 + bend t)^2, and errors that are known."""
    t = np.array(GRID)
    second = (1 + bend * t) ** 2
    laws = {"own": np.ones(64), "loss": (1 + bend * t) / (1 + bend / 2), "spread": np.ones(64)}
    laws |= {"decrease, no weights": np.ones(64)}
    factor = {"own": 1.0, "loss": 0.5, "spread": 1.0, "decrease, no weights": 3.0}
    return {
        "looks": LOOKS,
        "grid": GRID,
        "objective": [1.0] * 64,
        "density": {k: [x.tolist()] * 2 for k, x in laws.items()},
        "second": [second.tolist()] * 2,
        "variance": [(second / 4).tolist()] * 2,
        "error": {
            target: {k: [[f * s, f * s / 2] for s in (1.0, 2.0)] for k, f in factor.items()}
            for target in ("one", "two")
        },
    }


PARTS = {"steep": part(4.0), "flat": part(0.0)}


@pytest.fixture(scope="module")
def explorer():
    return law_of_t_explorer(PARTS)


def titles(explorer):
    return [a.get_text() for a in explorer.moving if hasattr(a, "get_text")]


def test_variances_are_the_closed_form():
    """int (1 + 4 t)^2 = 31 / 3 and (int 1 + 4 t)^2 = 9; the law along its root has the least."""
    assert relative_variance(PARTS["steep"], "own", 1) == pytest.approx(31 / 27, abs=1e-3)
    assert relative_variance(PARTS["steep"], "loss", 1) == pytest.approx(1, abs=1e-6)
    assert relative_variance(PARTS["steep"], "spread", 1) == pytest.approx(31 / 108, abs=1e-3)
    assert relative_variance(PARTS["flat"], "own", 1) == pytest.approx(1)


def test_best_density_integrates_to_one_for_an_objective_that_is_not_flat():
    t = np.sqrt(np.array(GRID))  # equal mass under f = 2 t
    p = best_density(2 * t, 1 / t**2)  # p proportional to f root(G) = 2: uniform
    np.testing.assert_allclose(p, 1, rtol=0.05)  # the mean of 1 / t, large near 0, by 64 cells
    assert np.ptp(p) < 1e-9


def test_ratios_pair_targets_and_seeds():
    ratios = error_ratios(PARTS["steep"], "decrease, no weights")
    assert ratios.shape == (4, 2) and np.allclose(ratios, 3)
    middle, low, high = mean_ratio(np.array([[1.0], [4.0]]))
    assert middle[0] == pytest.approx(2) and low[0] == 1 and high[0] == pytest.approx(4)


def test_a_slower_update_is_met_earlier_on_its_curve():
    """Errors 1 / updates: after 30 updates own has 1 / 30; twice as slow, the plan has 1 / 15."""
    record = {"looks": LOOKS, "time": {"loss": 2.0, "own": 1.0}}
    record["error"] = {"one": {plan: [[1 / 10, 1 / 40]] for plan in ("own", "loss")}}
    np.testing.assert_allclose(equal_time_ratios(record, "loss"), [[2.0]])
    np.testing.assert_allclose(equal_time_ratios(record, "own"), [[1.0]])


def test_titles_say_what_is_shown(explorer):
    explorer.set(done=100, loss="steep", times="own")
    assert titles(explorer) == ["own: 1.15 of the least variance", "steep: error 1.00 of own's"]
    explorer.set(times="decrease, no weights")
    assert titles(explorer) == [
        "decrease, no weights: another objective",
        "steep: error 3.00 of own's",
    ]


def test_a_law_that_a_loss_was_not_tried_with_shows_its_own():
    density = PARTS["steep"]["density"] | {"uniform": [[1.0] * 64] * 2}
    uniform = {**PARTS["steep"], "density": density}
    uniform["error"] = {
        target: plans | {"uniform": [[1.0, 0.5], [2.0, 1.0]]}
        for target, plans in PARTS["steep"]["error"].items()
    }
    both = {"steep": uniform, "flat": PARTS["flat"]}
    explorer = law_of_t_explorer(both, start=("flat", "uniform"))
    assert explorer.values["loss"] == "flat"
    assert titles(explorer)[0].startswith("own")


def test_every_position_draws_and_the_flip_book_is_small(explorer):
    for key, control in explorer.controls.items():
        for value in control.positions:
            explorer.set(**{key: value})
    pictures = set()
    for plan in ("own", "loss", "decrease, no weights"):
        explorer.set(times=plan)
        pictures.add(explorer.image.value)
    assert len(pictures) == 3
    assert len(explorer._repr_mimebundle_()["text/html"]) < 250_000


def test_a_position_that_is_none_is_named(explorer):
    with pytest.raises(ValueError, match="loss must be one of"):
        explorer.set(loss="SOM")
