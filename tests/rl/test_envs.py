import os

import gymnasium as gym
import mujoco
import numpy as np
import pytest

from som_lite.rl.envs import TASKS, make_env


@pytest.mark.parametrize("version", ["v4", "v5"])
@pytest.mark.parametrize("task", TASKS)
def test_tasks_are_silent_and_of_one_shape(task, version, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    env = make_env(f"{task}-{version}")
    obs, _ = env.reset(seed=0)
    assert env.action_space == gym.spaces.Box(-1, 1, env.action_space.shape, np.float32)
    for action in (env.action_space.low, env.action_space.high, env.action_space.sample()):
        next_obs, reward, _, _, _ = env.step(action)
        for x in (obs, next_obs):
            assert x.dtype == np.float32 and x.shape == env.observation_space.shape and x.ndim == 1
        assert np.isfinite(reward)
    env.close()
    assert os.listdir(tmp_path) == []
    assert capfd.readouterr() == ("", "")


def test_observation_sizes_differ_between_versions():
    # The reason why returns of v4 and v5 are never compared.
    sizes = {i: make_env(i).observation_space.shape[0] for i in ("Ant-v4", "Ant-v5", "Humanoid-v5")}
    assert sizes == {"Ant-v4": 27, "Ant-v5": 105, "Humanoid-v5": 348}


def test_mujoco_warnings_are_logged_and_leave_no_file(tmp_path, monkeypatch, capfd, caplog):
    monkeypatch.chdir(tmp_path)
    env = make_env("Hopper-v5")
    env.reset(seed=0)
    env.unwrapped.data.qvel[:] = 1e12
    mujoco.mj_step(env.unwrapped.model, env.unwrapped.data)
    env.close()
    assert os.listdir(tmp_path) == []
    assert capfd.readouterr() == ("", "")
    assert "QVEL" in caplog.text


def test_actions_are_rescaled_and_clipped_and_observations_flattened():
    env = make_env("Wide-v0")
    obs, _ = env.reset()
    assert obs.dtype == np.float32 and obs.tolist() == [0, 1, 2, 3, 4, 5]
    for given, received in ((-1, -3), (0, -1), (0.5, 0), (1, 1), (-7, -3), (2, 1)):
        env.step(np.float32([given]))
        # One rounding of an affine map in float32.
        np.testing.assert_allclose(env.unwrapped.received, [received], atol=1e-6)


def test_truncated_and_terminated_stay_apart():
    for env_id, ending in (("Clock-v0", (True, False)), ("ShortClock-v0", (False, True))):
        env = make_env(env_id)
        env.reset(seed=0)
        flags = (False, False)
        while not any(flags):
            _, _, *flags, _ = env.step(np.zeros(1, np.float32))
        assert tuple(flags) == ending


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("HalfCheeta-v5", "unknown environment 'HalfCheeta-v5': did you mean HalfCheetah-v5"),
        ("qqq", "unknown environment 'qqq': try"),
        ("CartPole-v1", "'CartPole-v1' is not supported: its actions are Discrete"),
        ("Unbounded-v0", "its actions are not bounded"),
        ("Words-v0", "its observations are Text"),
        ("HalfCheetah-v3", "cannot make environment 'HalfCheetah-v3'"),
    ],
)
def test_what_is_not_supported_is_said_in_one_line(env_id, message):
    with pytest.raises(ValueError, match=message) as error:
        make_env(env_id)
    assert "\n" not in str(error.value)
