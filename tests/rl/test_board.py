import importlib.util

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from som_lite.rl import read_curve
from som_lite.rl.board import check_log, latest_actions
from som_lite.rl.runs import Run
from som_lite.rl.sweep import train_command
from som_lite.rl.train import Training, train
from tests.rl.test_train import interrupt_at, make_config, outcome, raise_error


def shown(run):
    """What TensorBoard would show: name -> [(step, value)]."""
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"histograms": 0})
    events.Reload()
    scalars = {
        name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]
    }
    return scalars, events


def check_same_as_the_curve(run):
    curve, (scalars, _) = read_curve(run), shown(run)
    assert scalars.keys() == curve.keys() - {"step"}
    for name, points in scalars.items():
        logged = ~np.isnan(curve[name])
        expected = np.stack([curve["step"], curve[name]], 1)[logged]
        # events hold float32, the CSV every digit
        np.testing.assert_allclose(points, expected, rtol=1e-6)


def test_the_columns_of_the_csv_and_nothing_else_changes(tmp_path):
    plain = train(make_config(tmp_path / "plain"))
    run = train(make_config(tmp_path / "run", log="tensorboard"))
    check_same_as_the_curve(run)
    assert outcome(run) == outcome(plain)
    assert not (plain / "tensorboard").exists()


def test_a_run_that_died_and_grew_shows_each_step_once(tmp_path, monkeypatch):
    """The row of the end, step 100, and those after the checkpoint are written anew."""
    out = tmp_path / "run"
    train(make_config(out, steps=100, log="tensorboard"))
    assert [step for step, _ in shown(out)[0]["return_mean"]] == [80, 100]
    interrupt_at(monkeypatch, 165, raise_error)
    longer = make_config(out, log="tensorboard", checkpoint_every=110)
    with pytest.raises(RuntimeError):
        train(longer)
    train(longer)
    check_same_as_the_curve(out)
    train(longer)  # finished: nothing is left to do
    check_same_as_the_curve(out)


def test_rows_from_before_it_was_asked_for_are_shown(tmp_path):
    train(make_config(tmp_path, steps=80))
    check_same_as_the_curve(train(make_config(tmp_path, log="tensorboard")))


def test_restart_begins_anew(tmp_path):
    train(make_config(tmp_path, log="tensorboard"))
    train(make_config(tmp_path, log="tensorboard", seed=1, steps=80, restart=True))
    check_same_as_the_curve(tmp_path)


def test_the_actions_are_those_of_the_policy_in_the_last_states(tmp_path):
    config = make_config(tmp_path, log="tensorboard", capacity=50)
    train(config)
    training = Training(config, Run(tmp_path))  # as it was at the end
    stream = training.agent.generator.get_state()
    actions = latest_actions(training)
    assert actions.shape == (50, 1)  # the ring holds no more
    assert training.agent.generator.get_state().equal(stream)
    last = shown(tmp_path)[1].Histograms("action/0")[-1]
    assert last.step == 240
    values = last.histogram_value
    expected = actions.min(), actions.max(), len(actions), actions.sum()
    # the sum of float32 numbers in another order
    assert (values.min, values.max, values.num, values.sum) == pytest.approx(expected, rel=1e-5)


def test_links_and_unknown_logs_are_refused(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    train(make_config(tmp_path / "run", steps=60))
    (tmp_path / "run" / "tensorboard").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="tensorboard is a link"):
        train(make_config(tmp_path / "run", log="tensorboard"))
    assert not list((tmp_path / "elsewhere").iterdir())
    with pytest.raises(ValueError, match=r"log must be one of csv, tensorboard, got 'wandb'"):
        make_config(tmp_path, log="wandb")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install tensorboard"):
        train(make_config(tmp_path / "new", log="tensorboard"))
    assert not (tmp_path / "new").exists()
    check_log(make_config(tmp_path / "new"))


def test_a_sweep_hands_it_on(tmp_path):
    words = train_command(make_config(tmp_path, log="tensorboard"))
    assert words[words.index("--log") + 1] == "tensorboard"
    assert "--log" not in train_command(make_config(tmp_path))
