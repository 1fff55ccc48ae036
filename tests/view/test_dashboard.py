import io

import numpy as np
import pytest
import torch
from PIL import Image

from som_lite.rl.train import TrainConfig, Training, train
from som_lite.view import dashboard as module
from som_lite.view import notebook
from som_lite.view.dashboard import PAUSE, Dashboard
from tests.rl.toys import SMALL

CENTRE = torch.zeros(2)


@pytest.fixture
def shown(monkeypatch):
    """What the notebook would display, as a list of MIME bundles."""
    bundles = []
    for place in (module, notebook):
        monkeypatch.setattr(place, "display", lambda bundle, raw: bundles.append(bundle))
    return bundles


def config(out, agent="som", **changes) -> TrainConfig:
    settings = {"env": "MultiGoal-v0", "steps": 120, "start_steps": 40, "eval_every": 20}
    settings |= {"eval_episodes": 2, "progress": False, "out": str(out), **changes}
    return TrainConfig(agent=agent, config=SMALL[agent], **settings)


def curve(panel) -> np.ndarray:
    return panel.lines[0].get_xydata() if panel.lines else np.zeros((0, 2))


def panel_of(dashboard, title):
    return next(ax for ax in dashboard.fig.axes if ax.get_title() == title)


@pytest.mark.parametrize(("agent", "title"), [("som", "effective sample size"), ("sac", "entropy")])
def test_panels_show_the_rows_of_the_curve(agent, title, tmp_path, shown):
    rows = []
    with Dashboard(CENTRE) as dashboard:

        def on_row(training):
            dashboard(training)
            rows[:] = training.rows

        train(config(tmp_path / "run", agent), on_row=on_row)
    returns = curve(panel_of(dashboard, "return of an evaluation"))
    np.testing.assert_allclose(returns, [(row["step"], row["return_mean"]) for row in rows])
    learnt = [row for row in rows if "critic_loss" in row]
    assert 0 < len(learnt) < len(rows) == 6  # no losses before learning begins
    for name, words in (("critic_loss", "loss of the critic"), ("q_mean", "mean of Q")):
        found = curve(panel_of(dashboard, words))
        np.testing.assert_allclose(found, [(row["step"], row[name]) for row in learnt])
    assert len(curve(panel_of(dashboard, title))) == len(learnt)
    assert panel_of(dashboard, "actions at step 120")


def test_actions_are_those_of_the_agent_and_crosses_those_given(tmp_path, shown):
    marks = torch.tensor([[0.5, 0.5], [-0.5, 0.5]])
    last = []
    with Dashboard(CENTRE, marks=marks) as dashboard:
        train(config(tmp_path / "run"), on_row=lambda t: (dashboard(t), last.append(t)))
    points, crosses = panel_of(dashboard, "actions at step 120").lines
    np.testing.assert_allclose(crosses.get_xydata(), marks)
    actions = points.get_xydata()
    assert actions.shape == (200, 2) and np.abs(actions).max() <= 1
    # The agent's own actions, from another draw: the same mean up to the noise of 200 samples.
    more = last[-1].agent.generate(CENTRE[None], 4000)[0].numpy()
    np.testing.assert_allclose(actions.mean(0), more.mean(0), atol=5 * more.std() / 200**0.5)


def test_training_goes_on_as_if_nobody_looked(tmp_path, shown, monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.0)
    monkeypatch.setattr(module, "SHARE", 1.0)  # draw every row
    plain = train(config(tmp_path / "plain"))
    with Dashboard(CENTRE) as dashboard:
        watched = train(config(tmp_path / "watched"), on_row=dashboard)
    one, two = ((run / "policy.safetensors").read_bytes() for run in (plain, watched))
    assert one == two


def test_the_stored_picture_depends_on_the_training_alone(tmp_path, shown):
    for k in range(2):
        with Dashboard(CENTRE, description="six panels") as dashboard:
            train(config(tmp_path / str(k)), on_row=dashboard)
    live, still, live_again, still_again = shown
    assert list(live) == list(live_again) == [module.VIEW]
    assert still == still_again and "image/png" in still
    assert still["text/plain"] == "Figure: six panels"
    assert dashboard.box.layout.display == "none"


def test_pictures_are_few(tmp_path, shown, monkeypatch):
    """At most one in PAUSE seconds, and then one in ten times what drawing takes."""
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    dashboard, times = Dashboard(CENTRE), []

    def draw(cost):
        times.append(clock[0])
        clock[0] += cost
        return np.zeros((1, 1, 4), np.uint8)

    training = Training.__new__(Training)
    training.rows = [{"step": 1, "return_mean": 0.0, "return_std": 0.0}]
    training.config, training.sizes = config("nowhere"), (2, 2)
    for cost in (0.01, 0.2):
        monkeypatch.setattr(dashboard, "draw", lambda cost=cost: draw(cost))
        times.clear()
        for _ in range(1000):
            clock[0] += 0.01
            dashboard(training)
        gaps = np.diff(times)
        # a hundredth of a second is how often it is asked
        assert np.allclose(gaps, max(PAUSE + cost, 10 * cost), atol=0.011) and len(times) > 3


def test_the_widget_shows_the_picture_and_words(tmp_path, shown):
    with Dashboard(CENTRE) as dashboard:
        train(config(tmp_path / "run"), on_row=dashboard)
    assert Image.open(io.BytesIO(dashboard.image.value)).size == (960, 600)
    assert dashboard.words.value.startswith("step 120 of 120: return ")


def test_an_interrupted_training_shows_how_far_it_came(tmp_path, shown):
    def stop(training):
        dashboard(training)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Dashboard(CENTRE) as dashboard:
        train(config(tmp_path / "run"), on_row=stop)
    assert len(shown) == 2 and "image/png" in shown[1]


def test_before_the_first_row_there_is_nothing_to_store(shown):
    with Dashboard(CENTRE):
        pass
    assert len(shown) == 1


def test_an_agent_without_a_panel_is_named(shown):
    training = Training.__new__(Training)
    training.config = TrainConfig()
    object.__setattr__(training.config, "agent", "ppo")
    with (
        pytest.raises(ValueError, match="agent of a dashboard must be one of som, sac, got 'ppo'"),
        Dashboard(CENTRE) as dashboard,
    ):
        dashboard(training)
    assert len(shown) == 1  # no picture hides the message


def test_a_task_with_one_component_is_refused(shown):
    training = Training.__new__(Training)
    training.config, training.sizes = config("nowhere"), (4, 1)
    with pytest.raises(ValueError, match="two components of an action, this task has one"):
        Dashboard(torch.zeros(4))(training)
