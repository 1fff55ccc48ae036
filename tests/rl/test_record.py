"""som-lite record: what it refuses, and that what it writes is what happened."""

import json

import gymnasium as gym
import numpy as np
import pytest
import torch

from som_lite.rl import cli
from som_lite.rl.envs import make_env
from som_lite.rl.maze import BLOCK, GOAL, Maze, Walker, along_loop, free, on_loop, open_way
from som_lite.rl.offline.data import load_data
from som_lite.rl.record import RecordConfig, record

WALK = "som_lite.rl.maze:Walker"
SHORT = {"env": "Maze-v0", "max_steps": 9, "trained": 2, "noisy": 3, "random": 1}


@pytest.fixture
def data(tmp_path):
    return load_data(record(RecordConfig(WALK, str(tmp_path / "walks-v0"), **SHORT)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("nowhere --out walks-v0", "not a run folder (no config.json in it): nowhere"),
        (f"{WALK} --out walks-v0", "env must be a task where RUN is MODULE:NAME, got ''"),
        (f"{WALK} --env Maze-v0 --out walks", "out must end in a name such as hopper-mixed-v0"),
        (f"{WALK} --env Maze-v0 --out taken-v0", "taken-v0 is in use: choose another --out"),
        (f"{WALK} --env Maze-v9 --out walks-v0", "did you mean Maze-v0"),
        ("som_lite.rl.maze:Runner --env Maze-v0 --out walks-v0", "cannot import"),
        (f"{WALK} --env Maze-v0 --out walks-v0 --noise 0", "noise must be above 0 and finite"),
        (f"{WALK} --env Maze-v0 --out walks-v0 --random -1", "random must be 0 or more, got -1"),
        (
            f"{WALK} --env Maze-v0 --out walks-v0 --trained 0 --noisy 0 --random 0",
            "trained + noisy + random must be at least 1, got 0",
        ),
        ("--out walks-v0", "RUN"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken-v0").mkdir()
    (tmp_path / "taken-v0" / "thesis.txt").touch()
    with pytest.raises(SystemExit) as end:
        cli.main(["record", *arguments.split()])
    out, err = capsys.readouterr()
    assert end.value.code == 2 and out == "" and message in err and err.count("\n") == 1
    assert [p.name for p in tmp_path.rglob("*")] == ["taken-v0", "thesis.txt"]


def test_recorded_steps_are_those_of_the_environment(data):
    env = make_env("Maze-v0")
    env.reset()
    b = data.batch
    for i in range(len(b.reward)):
        vars(env.unwrapped)["position"] = b.obs[i].numpy()
        obs, reward, *_ = env.step(b.action[i].numpy())
        assert (obs == b.next_obs[i].numpy()).all() and reward == b.reward[i]
    assert len(b.reward) == 6 * 9 and b.terminated.sum() == 0
    inside = data.episode[1:] == data.episode[:-1]
    assert (b.next_obs[:-1][inside] == b.obs[1:][inside]).all()  # one walk an episode
    assert inside.sum() == 6 * 8


def test_metadata_tell_the_command_which_makes_the_same_data(data, tmp_path, monkeypatch, capsys):
    words = data.metadata["command"].split()
    assert words[:3] == ["som-lite", "record", WALK]
    monkeypatch.chdir(tmp_path)
    words[words.index("--out") + 1] = "again-v0"
    cli.main(words[1:])
    again = load_data("again-v0")
    for one, two in zip(data.batch, again.batch, strict=True):
        assert (one == two).all()
    assert "6 episodes, 54 steps" in capsys.readouterr().out


def test_qualities_are_in_the_data(data):
    assert data.policies == ["trained"] * 2 + ["noise 0.17", "noise 0.33", "noise 0.50", "random"]
    assert data.returns().sum() == data.batch.reward.sum()


def test_minari_itself_loads_it(data, tmp_path, monkeypatch):
    minari = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    found = minari.load_dataset("walks-v0")
    assert found.total_steps == 54 and found.spec.env_spec.id == "Maze-v0"
    first = found[0]
    assert first.observations.shape == (10, 2) and first.truncations.tolist() == 8 * [False] + [
        True
    ]
    assert (first.observations[:-1] == data.batch.obs[:9].numpy()).all()


def test_half_precision_keeps_what_was_done(tmp_path):
    out = tmp_path / "half-v0"
    data = load_data(record(RecordConfig(WALK, str(out), half=True, **SHORT)))
    env = make_env("Maze-v0")
    env.reset()
    for i in range(9):  # rounded actions were performed; positions are rounded by 2^-12 at most
        vars(env.unwrapped)["position"] = data.batch.obs[i].numpy()
        obs, *_ = env.step(data.batch.action[i].numpy())
        assert np.abs(obs - data.batch.next_obs[i].numpy()).max() < 1e-3
    space = json.loads(json.loads((out / "data/metadata.json").read_text())["action_space"])
    assert space["dtype"] == "float16"


def test_no_data_set(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no data set in Minari's format"):
        load_data(tmp_path)


# -- the maze --------------------------------------------------------------------------------------


def test_walls_stop_and_the_goal_pays():
    env = gym.make("Maze-v0").unwrapped
    assert isinstance(env, Maze)
    env.reset(seed=0)
    env.position = np.array([-BLOCK - 0.05, 0.0], np.float32)
    assert (env.step(np.array([1.0, 0.0]))[0] == env.position).all()  # into the block
    assert env.step(np.array([0.0, 1.0]))[0][1] == pytest.approx(0.25)
    env.position = GOAL + np.float32([0.05, 0.0])
    assert env.step(np.zeros(2))[1] == 1.0
    assert not open_way(np.array([-0.5, 0.5]), np.array([0.5, -0.5]))  # over the block


def test_the_loop_is_free_and_lengths_are_its_own():
    length = np.linspace(0, 3.99, 97)
    assert free(on_loop(length)).all()
    np.testing.assert_allclose(along_loop(on_loop(length)), length, atol=1e-9)


def test_walkers_go_round_in_both_directions():
    turned = []
    for seed in range(20):
        env, walker = make_env("Maze-v0"), Walker(seed)
        obs, _ = env.reset(seed=seed)
        seen = [obs]
        for _ in range(12):
            obs, *_ = env.step(walker.act(torch.from_numpy(obs)[None], False)[0].numpy())
            seen.append(obs)
        x, y = np.stack(seen).T
        turned.append(np.unwrap(np.arctan2(y, x))[-1] - np.arctan2(y, x)[0])
    assert max(turned) > 1 and min(turned) < -1
