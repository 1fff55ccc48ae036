"""Tables of runs whose curves are written by hand."""

import numpy as np
import pytest

from som_lite.rl.config import TrainConfig
from som_lite.rl.runs import Run
from som_lite.rl.summary import bootstrap, by_group, find_runs, interquartile_mean, returns_table
from tests.rl.toys import SMALL


def write(folder, returns, env="Glider-v0", agent="sac", **changes):
    config = TrainConfig(env, agent, config=SMALL[agent], out=str(folder), **changes)
    run = Run.create(config)
    run.save_curve([{"step": 10 * i + 10, "return_mean": float(r)} for i, r in enumerate(returns)])
    return run


@pytest.fixture
def runs(tmp_path):
    for seed, last in enumerate((1.0, 2.0, 3.0, 100.0)):
        write(tmp_path / f"sac{seed}", [0, last], seed=seed)
    write(tmp_path / "long", [0, 7, 8], agent="som")
    write(tmp_path / "short", [0, 5], agent="som", seed=1)
    return find_runs([tmp_path])


def test_a_table(runs):
    lines = returns_table(runs).splitlines()
    assert lines[0].split()[:4] == ["task", "agent", "steps", "seeds"]
    sac, som = (line.split() for line in lines[1:])
    # (1 + 2 + 3 + 100) / 4 and, without the lowest and the highest of four, (2 + 3) / 2
    assert sac[:5] == ["Glider-v0", "sac", "20", "4", "26.5"] and "2.5" in sac
    # compared where the shorter run ends
    assert som[:5] == ["Glider-v0", "som", "20", "2", "6"]


def test_other_settings_are_another_group(tmp_path):
    write(tmp_path / "a", [1.0], seed=0)
    write(tmp_path / "b", [2.0], seed=1, threads=2)
    write(tmp_path / "c", [3.0], seed=1, utd=0.5)
    names = [agent for _, agent in by_group(find_runs([tmp_path]))]
    assert names == ["sac utd=0.5", "sac utd=1.0"]


def test_the_interquartile_mean_of_seven():
    """A quarter of 7, rounded down, is 1: the mean of the middle five."""
    assert interquartile_mean(np.array([0.0, 1, 2, 3, 4, 5, 1000])) == 3


def test_the_bootstrap_interval_is_that_of_a_mean():
    """400 normal numbers: mean ± 1.96 / 20; 2000 draws know the ends to about 0.01."""
    x = np.random.default_rng(1).normal(size=400)
    low, high = bootstrap(x, lambda x: np.mean(x, axis=0))
    half = 1.96 * x.std() / 20
    np.testing.assert_allclose([low, high], [x.mean() - half, x.mean() + half], atol=0.015)


def test_nothing_to_tell(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run in"):
        find_runs([tmp_path])
    run = Run.create(TrainConfig("Glider-v0", out=str(tmp_path / "new")))
    with pytest.raises(ValueError, match="no run has been evaluated"):
        returns_table([run])
