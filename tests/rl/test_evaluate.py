import os
import signal
import sys
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest
import torch
from PIL import Image

from som_lite.rl.drawing import off_screen, picture
from som_lite.rl.envs import make_env
from som_lite.rl.evaluate import act, evaluate, play, record_video, start_seed
from som_lite.rl.finite import NotFinite
from tests.rl.toys import Glider


class Zero:
    """Acts with zeros, and draws from its generator as a stochastic agent would."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(3)

    def act(self, obs, explore):
        self.drawn = torch.rand(4, generator=self.generator)
        return torch.zeros(len(obs), 1)


class Odd(Glider):
    """A glider without a time limit; `at_step` and `show` are what a test wants them to be."""

    at_step, show = lambda self: None, lambda self: None
    gives_up = False  # truncates by itself
    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def step(self, action):
        self.at_step()
        obs, reward, terminated, _, info = super().step(action)
        return obs, reward, terminated, self.gives_up, info

    def render(self):
        return self.show()


gym.register("Odd-v0", Odd)


def test_only_the_first_episode_of_each_copy_counts():
    """Clock pays 1 per step, so a return is a length; lengths differ and copies are reset."""
    returns = evaluate(Zero(), "Clock-v0", episodes=8, seed=5)
    env = make_env("Clock-v0")
    lengths = [env.reset(seed=start_seed(5, i))[1]["length"] for i in range(8)]
    assert returns.tolist() == lengths
    assert len(set(lengths)) > 2


def test_truncated_episodes_end_too():
    assert evaluate(Zero(), "ShortClock-v0", episodes=3).tolist() == [2, 2, 2]


def test_same_seed_same_returns_and_other_seed_other_returns(make_agent):
    agent = make_agent(2, 1)
    runs = []
    for seed in (0, 0, 1):
        runs.append(evaluate(agent, "Glider-v0", episodes=3, seed=seed))
        agent.act(torch.zeros(1, 2), explore=True)  # its own stream goes on, and must not matter
    assert np.array_equal(runs[0], runs[1])
    assert not np.isin(runs[2], runs[0]).any()


def test_noise_follows_the_seed():
    """An evaluation with one fixed key would measure one sequence of noise again and again."""
    agent, drawn = Zero(), []
    for seed in (0, 0, 1):
        evaluate(agent, "ShortClock-v0", episodes=1, seed=seed)
        drawn.append(agent.drawn)
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_more_episodes_begin_with_the_same_ones():
    few = evaluate(Zero(), "Clock-v0", episodes=3, seed=2)
    assert np.array_equal(evaluate(Zero(), "Clock-v0", episodes=6, seed=2)[:3], few)


def test_the_agents_own_random_stream_is_left_alone():
    agent = Zero()
    before = agent.generator.get_state()
    evaluate(agent, "Clock-v0", episodes=2)
    assert torch.equal(agent.generator.get_state(), before)


def test_the_stream_is_given_back_after_an_error():
    agent = Zero()
    agent.act = None
    before = agent.generator.get_state()
    with pytest.raises(TypeError):
        evaluate(agent, "Clock-v0", episodes=2)
    assert torch.equal(agent.generator.get_state(), before)


def test_errors(tmp_path):
    with pytest.raises(ValueError, match="episodes must be at least 1, got 0"):
        evaluate(Zero(), "Clock-v0", episodes=0)
    with pytest.raises(ValueError, match=r"must end in \.mp4 or \.gif"):
        record_video(Zero(), "Clock-v0", tmp_path / "film.avi")
    for name in ("Clock-v0", "MultiGoal-v0"):
        with pytest.raises(ValueError, match=rf"cannot draw {name}: its render\(\) is not impl"):
            record_video(Zero(), name, tmp_path / "film.mp4")
    with pytest.raises(ValueError, match=r"cannot make environment 'Glider-v0': .*render_mode"):
        record_video(Zero(), "Glider-v0", tmp_path / "film.mp4")
    for option in ("episodes", "max_steps", "n"):
        with pytest.raises(ValueError, match=f"{option} must be at least 1, got 0"):
            evaluate(Zero(), "Clock-v0", **{option: 0})
    with pytest.raises(ValueError, match="seed must be 0 or more, got -1"):
        evaluate(Zero(), "Clock-v0", seed=-1)
    with pytest.raises(ValueError, match="Zero has no option 'averaged' of how to act"):
        evaluate(Zero(), "Clock-v0", averaged=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("display", ["", ":99"])  # no screen, and one that is not there
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere MuJoCo draws by other means")
def test_a_video_is_written_without_a_screen(tmp_path, monkeypatch, display, capfd):
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.setenv("MUJOCO_GL", "")
    total = record_video(Zero(), "InvertedPendulum-v5", tmp_path / "films" / "pole.mp4", seed=1)
    # Each step of this task pays 1 until the pole falls.
    assert total >= 1 and total == int(total)
    data = (tmp_path / "films" / "pole.mp4").read_bytes()
    assert data[4:8] == b"ftyp" and len(data) > 1000
    assert os.environ["MUJOCO_GL"] == "" and capfd.readouterr().err == ""


@pytest.mark.parametrize("task", ["HalfCheetah-v5", "Walker2d-v5", "Ant-v5"])
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere MuJoCo draws by other means")
def test_the_camera_goes_along_with_a_robot(task):
    env = make_env(task, render_mode="rgb_array")
    base: Any = env.unwrapped
    env.reset(seed=0)
    seen = []
    with off_screen():
        for way in (0.0, 50.0):
            base.data.qpos[0] += way
            mujoco.mj_forward(base.model, base.data)
            picture(env, task)
            seen.append(base.mujoco_renderer.viewer.scn.camera[0].pos[0])
    env.close()
    assert seen[1] - seen[0] == pytest.approx(50, abs=1e-3)  # the scene holds float32


def test_a_library_that_was_chosen_is_used(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    with off_screen():
        assert os.environ["MUJOCO_GL"] == "glfw"


@pytest.mark.parametrize(("suffix", "head"), [(".mp4", b"ftyp"), (".gif", b"GIF8")])
def test_a_video_needs_no_frame_rate_and_no_time_limit(tmp_path, monkeypatch, suffix, head):
    pictures = iter(np.random.default_rng(0).integers(0, 256, (4, 32, 48, 3), np.uint8))
    monkeypatch.setattr(Odd, "show", lambda self: next(pictures))
    path = tmp_path / f"film{suffix}"
    record_video(Zero(), "Odd-v0", path, max_steps=3)
    assert next(pictures, None) is None  # one was drawn before the film began, to see if it can be
    assert head in path.read_bytes()[:8]
    if suffix == ".gif":
        with Image.open(path) as film:
            # A thirtieth of a second; GIF counts in hundredths.
            assert film.n_frames == 3 and film.info["duration"] == 30


@pytest.mark.parametrize(
    ("shown", "reason"),
    [
        (lambda self: None, r"its render\(\) gave None, not an array"),
        (
            lambda self: np.zeros((3, 3)),
            r"its render\(\) gave float64 of shape \(3, 3\)",
        ),
        (lambda self: 1 / 0, "division by zero"),
        (lambda self: [][0], "list index out of range"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_one_line(tmp_path, monkeypatch, shown, reason):
    monkeypatch.setattr(Odd, "show", shown)
    with pytest.raises(ValueError, match=f"cannot draw Odd-v0: {reason}") as error:
        record_video(Zero(), "Odd-v0", tmp_path / "film.mp4")
    assert "\n" not in str(error.value) and list(tmp_path.iterdir()) == []


def test_lengths_and_endings_are_told():
    played = play(Zero(), "Clock-v0", episodes=5, seed=5)
    assert np.array_equal(played.lengths, played.returns) and played.terminated.all()
    played = play(Zero(), "ShortClock-v0", episodes=3)
    assert played.lengths.tolist() == [2, 2, 2] and not played.terminated.any()
    assert evaluate(Zero(), "Clock-v0", 5, 5, max_steps=4).max() == 4


def test_a_task_without_an_end_is_cut_and_it_is_said(monkeypatch):
    monkeypatch.setattr("som_lite.rl.evaluate.MAX_STEPS", 30)
    with pytest.warns(
        UserWarning, match=r"Odd-v0 has no time limit: .* after 30 steps \(max_steps"
    ):
        assert play(Zero(), "Odd-v0", episodes=2).lengths.tolist() == [30, 30]
    play(Zero(), "Odd-v0", episodes=1)  # a training evaluates often: said once is enough
    # What was asked for needs no warning (warnings are errors here), and a limit of the task none.
    assert play(Zero(), "Odd-v0", episodes=1, max_steps=7).lengths.tolist() == [7]
    assert play(Zero(), "Glider-v0", episodes=1).lengths.tolist() == [20]


def test_an_environment_may_truncate_by_itself(monkeypatch):
    monkeypatch.setattr(Odd, "gives_up", True)
    played = play(Zero(), "Odd-v0", episodes=2)
    assert played.lengths.tolist() == [1, 1] and not played.terminated.any()


def test_ctrl_c_ends_an_evaluation_at_once(monkeypatch):
    steps = []
    monkeypatch.setattr(Odd, "at_step", lambda self: steps.append(self))
    monkeypatch.setattr(Odd, "close", lambda self: steps.remove(self))
    agent = Zero()
    before = agent.generator.get_state()
    with pytest.raises(KeyboardInterrupt, match="evaluation stopped"):
        evaluate(agent, "Odd-v0", episodes=2, stop=lambda: len(steps) == 5)
    assert len(steps) == 3  # no step more, and both environments are closed
    assert torch.equal(agent.generator.get_state(), before)

    monkeypatch.setattr(Odd, "close", lambda self: None)
    monkeypatch.setattr(Odd, "at_step", lambda self: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        evaluate(agent, "Odd-v0")
    assert torch.equal(agent.generator.get_state(), before)


def test_what_is_not_finite_ends_an_evaluation(monkeypatch):
    def burst(self):
        self.state[0] = np.nan

    monkeypatch.setattr(Odd, "at_step", burst)
    with pytest.raises(NotFinite, match="reward is nan at step 1 of the episode"):
        evaluate(Zero(), "Odd-v0")


def test_a_task_of_the_readers_own_module(own_module):
    returns = evaluate(Zero(), f"{own_module}:Thermostat-v0", episodes=2)
    # 2.5 kW all the time: the room goes from 5 .. 15 degrees towards 25 within 50 steps, and is
    # at 20 once on its way: its distances sum to between 50 * 1 and 50 * 15.
    assert returns.shape == (2,) and (returns > -750).all() and (returns < -50).all()


def test_one_observation_or_many_in_any_form(make_agent):
    agent = make_agent(3, 2)
    many = np.random.default_rng(0).normal(size=(4, 3))
    actions = []
    for obs in (many, many.astype(np.float32), many.tolist(), torch.from_numpy(many)):
        agent.generator.manual_seed(0)
        actions.append(act(agent, obs))
    assert all(np.array_equal(actions[0], x) for x in actions)
    assert actions[0].shape == (4, 2) and actions[0].dtype == np.float32
    for obs in (many[0], many[0].tolist()):
        one = act(agent, obs)
        assert one.shape == (2,) and one.dtype == np.float32 and np.abs(one).max() <= 1
    for obs in (1.0, np.zeros((1, 1, 3)), [0.0, 0.0], np.zeros((3, 2))):
        with pytest.raises(ValueError, match=r"obs must have shape \(3,\) or \(B, 3\), got"):
            act(agent, obs)


def test_candidates_and_weights_reach_the_agent():
    class Curious(Zero):
        def act(self, obs, explore, n=9, averaged=True):
            self.seen = n, averaged
            return super().act(obs, explore)

    agent = Curious()
    evaluate(agent, "ShortClock-v0", episodes=1)
    assert agent.seen == (9, True)
    evaluate(agent, "ShortClock-v0", episodes=1, n=4, averaged=False)
    assert agent.seen == (4, False)
    act(agent, [0.0], averaged=False)
    assert agent.seen == (9, False)
