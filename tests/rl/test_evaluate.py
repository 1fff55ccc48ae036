import numpy as np
import pytest
import torch

from som_lite.rl.envs import make_env
from som_lite.rl.evaluate import evaluate, record_video, start_seed


class Zero:
    """Acts with zeros, and draws from its generator as a stochastic agent would."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(3)

    def act(self, obs, explore):
        self.drawn = torch.rand(4, generator=self.generator)
        return torch.zeros(len(obs), 1)


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
    agent = make_agent(3, 1)
    runs = []
    for seed in (0, 0, 1):
        runs.append(evaluate(agent, "Pendulum-v1", episodes=3, seed=seed))
        agent.act(torch.zeros(1, 3), explore=True)  # its own stream goes on, and must not matter
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
    with pytest.raises(ValueError, match="cannot draw Clock-v0: NotImpl"):
        record_video(Zero(), "Clock-v0", tmp_path / "film.mp4")
    assert list(tmp_path.iterdir()) == []


def test_a_video_is_written(tmp_path, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    total = record_video(Zero(), "InvertedPendulum-v5", tmp_path / "films" / "pole.mp4", seed=1)
    # Each step of this task pays 1 until the pole falls.
    assert total >= 1 and total == int(total)
    data = (tmp_path / "films" / "pole.mp4").read_bytes()
    assert data[4:8] == b"ftyp" and len(data) > 1000
