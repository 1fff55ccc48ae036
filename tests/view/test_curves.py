import pytest

from som_lite.rl.summary import find_runs
from som_lite.view.curves import learning_curves
from tests.rl.test_summary import write


def test_the_picture_shows_what_the_table_tells(tmp_path):
    for seed, last in enumerate((1.0, 2.0, 3.0, 100.0)):
        write(tmp_path / f"sac{seed}", [0, last], seed=seed)
    write(tmp_path / "long", [0, 7, 8], agent="som")
    write(tmp_path / "short", [0, 5], agent="som", seed=1)
    (ax,) = learning_curves(find_runs([tmp_path])).axes
    lines = {line.get_label(): line for line in ax.lines}
    assert list(lines) == ["sac, 4 seeds", "som, 2 seeds"]
    assert lines["sac, 4 seeds"].get_ydata().tolist() == [0, 2.5]
    assert lines["som, 2 seeds"].get_xdata().tolist() == [10, 20]
    band = ax.collections[1].get_paths()[0].vertices
    assert band[:, 1].max() == 7 and band[band[:, 0] == 20, 1].min() == 5


def test_other_settings_have_another_colour(tmp_path):
    write(tmp_path / "a", [1.0, 2.0], utd=0.5)
    write(tmp_path / "b", [2.0, 3.0])
    (ax,) = learning_curves(find_runs([tmp_path])).axes
    assert [line.get_label() for line in ax.lines] == ["sac utd=0.5, 1 seed", "sac utd=1.0, 1 seed"]
    assert len({line.get_color() for line in ax.lines}) == 2


def test_a_panel_for_each_task(tmp_path):
    for env in ("Glider-v0", "Clock-v0", "Wide-v0", "ShortClock-v0"):
        write(tmp_path / env, [1.0], env=env)
    titles = [ax.get_title() for ax in learning_curves(find_runs([tmp_path])).axes]
    assert titles == ["Clock-v0", "Glider-v0", "ShortClock-v0", "Wide-v0"]


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="no run has been evaluated"):
        learning_curves([])
