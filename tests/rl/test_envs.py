import os
from fractions import Fraction

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from gymnasium.spaces import Box
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from som_lite.rl.adapt import Adapted
from som_lite.rl.envs import TASKS, make_env
from som_lite.rl.finite import LARGEST, NotFinite


class Given(gym.Env):
    """Has the spaces, and shows the observation and the reward, that a test asks for."""

    def __init__(self, actions=Box(-1, 1, (1,)), seen=Box(-1, 1, (1,)), obs=(0.0,), reward=0.0):  # noqa: B008
        self.action_space, self.observation_space = actions, seen
        self.obs, self.reward = obs, reward

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.obs, {}

    def step(self, action):
        self.received = action
        return self.obs, self.reward, False, False, {}


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
    for sent, received in ((-1, -3), (0, -1), (0.5, 0), (1, 1), (-7, -3), (2, 1)):
        env.step(np.float32([sent]))
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
        ("qqq", "unknown environment 'qqq': try InvertedPendulum-v5; a task of your own is MOD"),
        ("nowhere:Own-v0", "cannot import 'nowhere' for 'nowhere:Own-v0': Mod.*in PYTHONPATH"),
        ("CartPole-v1", "'CartPole-v1' is not supported: its actions are Discrete"),
        ("Unbounded-v0", "component 0 of its actions is not bounded: from -inf to inf, float32"),
        ("Words-v0", "its observations are Text"),
        ("HalfCheetah-v3", "cannot make environment 'HalfCheetah-v3'"),
    ],
)
def test_what_is_not_supported_is_said_in_one_line(env_id, message):
    with pytest.raises(ValueError, match=message) as error:
        make_env(env_id)
    assert "\n" not in str(error.value)


def test_a_task_of_the_readers_own_module(own_module):
    env = make_env(f"{own_module}:Thermostat-v0")
    assert env.spec.max_episode_steps == 50
    obs, _ = env.reset(seed=1)
    next_obs, reward, *_ = env.step(np.float32([0]))
    # 2.5 kW heat by 2.5 degrees, a tenth of the warmth is lost; float32 has 7 digits.
    assert next_obs[0] == pytest.approx(0.9 * obs[0] + 2.5, rel=1e-6)
    assert type(reward) is float and reward == pytest.approx(next_obs[0] - 20, rel=1e-6)
    assert make_env("Thermostat-v0").observation_space.shape == (1,)  # imported, so known
    with pytest.raises(ValueError, match="'tasks' registers no 'Termostat-v0': did you mean Therm"):
        make_env(f"{own_module}:Termostat-v0")
    with pytest.raises(ValueError, match="'tasks' registers no ''"):
        make_env(f"{own_module}:")


def test_a_module_that_fails_is_named_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "broken_task.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"^cannot import 'broken_task' for .*: ZeroDiv"):
        make_env("broken_task:X-v0")


def test_an_observation_is_a_copy():
    buffer = np.zeros(1, np.float32)
    env = Adapted(Given(obs=buffer))
    obs, _ = env.reset()
    buffer += 1
    next_obs, *_ = env.step(np.zeros(1))
    buffer += 1
    assert (obs.item(), next_obs.item()) == (0, 1)


@pytest.mark.parametrize("reward", [2, np.float32(2), [2.0], np.array([[2]]), np.array(2)])
def test_a_reward_is_one_number_in_whatever_form(reward):
    env = Adapted(Given(reward=reward))
    env.reset()
    got = env.step([0])[1]
    assert type(got) is float and got == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reward": np.nan}, "reward is nan at step 3 of the episode"),
        ({"reward": [-np.inf]}, "reward is -inf at step 3 of the episode"),
        ({"obs": [0, np.nan]}, "observation component 1 is nan at step 3 of the episode"),
        ({"obs": [1e300, 0]}, "observation component 0 is 1e+300, too large for float32, at step"),
    ],
)
def test_what_is_not_finite_stops_at_its_step(change, message):
    env = Adapted(Given(seen=Box(-np.inf, np.inf, (2,), np.float64), obs=[0, 0]))
    for _ in range(2):  # the steps are counted anew in every episode
        env.reset()
        env.step([0])
        env.step([0])
    vars(env.env).update(change)
    with pytest.raises(NotFinite) as error:
        env.step([0])
    assert str(error.value).startswith(message)
    with pytest.raises(NotFinite, match="action component 0 is nan at step 4"):
        env.step([np.nan])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"obs": [0, 1]}, r"observation at step 1 of the episode has shape \(2,\), expected 1 num"),
        ({"obs": None}, "observation at step 1 of the episode must be numbers, got a NoneType"),
        ({"obs": [[0], [1, 2]]}, "observation at step 1 .* must be numbers, got a list"),
        ({"reward": None}, "reward at step 1 of the episode must be numbers, got a NoneType"),
        ({"reward": [1, 2]}, r"reward at step 1 of the episode has shape \(2,\), expected 1"),
        ({"action": [0, 0]}, r"action at step 1 of the episode has shape \(2,\), expected 1"),
    ],
)
def test_what_has_another_form_than_declared_is_named(change, message):
    env = Adapted(Given())
    env.reset()
    action = change.pop("action", [0])
    vars(env.env).update(change)
    with pytest.raises(ValueError, match=message):
        env.step(action)


def adapted_or_refused(env, refused):
    """The adapted environment, or None after one clear line; `refused`: which of them is right."""
    if not refused:
        return Adapted(env)
    with pytest.raises(
        ValueError, match=r"'Given' is not supported: (its action|component)"
    ) as error:
        Adapted(env)
    assert "\n" not in str(error.value) and len(str(error.value)) < 200
    return None


def through(box, unit):
    """What the environment receives for an action in [-1, 1]."""
    env = Adapted(Given(actions=box))
    env.reset()
    env.step(unit)
    received = env.env.received
    assert type(received) is np.ndarray and received.dtype == box.dtype
    assert received.shape == box.shape and box.contains(received)
    return received


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (1, 2, 1)])
def test_the_environment_gets_its_own_shape(shape):
    unit = np.linspace(-1, 0.5, int(np.prod(shape)), dtype=np.float32)
    env = Adapted(Given(actions=Box(-2, 2, shape)))
    assert env.action_space == Box(-1, 1, unit.shape, np.float32)
    # 2 x is exact in binary.
    assert np.array_equal(through(Box(-2, 2, shape), unit), 2 * unit.reshape(shape))


def test_whole_numbered_actions_have_equal_parts():
    middles = -1 + (2 * np.arange(7) + 1) / 7  # of seven equal parts of [-1, 1]
    for share in (-0.99, 0, 0.99):  # of half a part: to just before its two ends
        units = middles + share / 7
        got = [through(Box(-3, 3, (1,), np.int32), [u]).item() for u in units]
        assert got == [-3, -2, -1, 0, 1, 2, 3]
    assert [through(Box(0, 1, (), bool), [u]).item() for u in (-1, -0.1, 0.1, 1)] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("box", "message"),
    [
        (
            Box(-np.inf, np.inf, (2,), np.int32),
            "component 0 of its actions is not bounded: from",
        ),
        (Box(np.array([-1, -np.inf]), np.ones(2), dtype=np.float64), "component 1 of its actions"),
        (Box(-1, np.inf, (), np.float32), "its action is not bounded: from -1.0 to inf, float32"),
        (
            Box(0, 2**62, (2, 2), np.int64),
            "(0, 0) of its actions has bounds beyond 2^53: from 0",
        ),
        (Box(-1, 1, (0,)), "its actions have no component"),
    ],
)
def test_a_bound_that_cannot_be_used_is_named(box, message):
    with pytest.raises(ValueError, match=r"^environment 'Given' is not supported: ") as error:
        Adapted(Given(actions=box))
    assert message in str(error.value) and "\n" not in str(error.value)


SHAPES = st.sampled_from([(), (1,), (3,), (2, 3), (1, 2, 1), (0,), (2, 0)])
TYPES = st.sampled_from("f2 f4 f8 i1 i2 i4 i8 u1 u4 u8 b1".split()).map(np.dtype)


@st.composite
def boxes(draw):
    """Boxes of every type and shape; bounds of all sizes, sometimes equal, sometimes infinite."""
    dtype, shape = draw(TYPES), draw(SHAPES)
    if dtype.kind == "f":
        values = arrays.from_dtype(dtype, allow_nan=False, allow_infinity=draw(st.booleans()))
        # Near the largest number, where sums overflow.
        values |= st.sampled_from([np.finfo(dtype).max, np.finfo(dtype).min]).map(dtype.type)
    else:
        values = arrays.from_dtype(dtype)
    a, b = (draw(arrays.arrays(dtype, shape, elements=values)) for _ in range(2))
    b = a if draw(st.integers(0, 9)) == 0 else b
    low, high = np.array(np.minimum(a, b)), np.array(np.maximum(a, b))
    if dtype.kind == "f":  # Box refuses +inf below and -inf above
        low[np.isposinf(low)], high[np.isneginf(high)] = 0, 0
        low = np.array(np.minimum(low, high))
    return Box(low, high, shape, dtype)


UNIT = st.floats(-1.5, 1.5, width=32) | st.sampled_from([-1, 0, 1])


@settings(deadline=None, max_examples=300)
@given(boxes(), st.lists(UNIT, min_size=6, max_size=6))
@example(Box(-3e38, 3e38, (2,), np.float32), [-1, 1, 0, 0, 0, 0])
@example(Box(-1.7e308, 1.7e308, (2,), np.float64), [-1, 1.5, 0, 0, 0, 0])
@example(Box(np.float32([0, -1]), np.float32([0, 1])), [0.3, 1, 0, 0, 0, 0])
def test_any_action_space_is_rescaled_or_refused(box, units):
    whole = box.dtype.kind in "iub"
    ends = [
        (low.item(), high.item()) for low, high in zip(box.low.flat, box.high.flat, strict=True)
    ]
    refused = not ends or not np.isfinite(box.low).all() or not np.isfinite(box.high).all()
    refused |= whole and any(max(-low, high) > 2**53 for low, high in ends)
    if adapted_or_refused(Given(actions=box), refused) is None:
        return
    units = np.float32(units[: len(ends)])
    for got, (low, high), unit in zip(through(box, units).flat, ends, units, strict=True):
        assert low <= got <= high
        share = (Fraction(float(np.clip(unit, -1, 1))) + 1) / 2
        low, high, got = (Fraction(x) for x in (low, high, got.item()))
        # A few roundings in float64, each relative to the larger bound.
        slack = 4 * Fraction(2) ** -53 * max(abs(low), abs(high)) + Fraction(2) ** -1073
        if whole:  # the nearest whole number to a point of [low - 1/2, high + 1/2]
            slack += Fraction(1, 2)
            exact = low - Fraction(1, 2) + share * (high - low + 1)
        else:  # and one rounding to the type of the box
            kind = np.finfo(box.dtype)
            slack += Fraction(float(kind.eps)) * max(abs(low), abs(high))
            slack += Fraction(float(kind.smallest_subnormal))
            exact = low + share * (high - low)
        assert abs(got - exact) <= slack


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_any_observation_is_a_float32_vector_or_refused(data):
    dtype, shape = data.draw(TYPES), data.draw(SHAPES)
    value = data.draw(arrays.arrays(dtype, shape, elements=arrays.from_dtype(dtype)))
    low, high = (0, 1) if dtype.kind == "b" else (-np.inf, np.inf)
    low, high = (0, np.iinfo(dtype).max) if dtype.kind == "u" else (low, high)
    env = Given(seen=Box(low, high, shape, dtype), obs=value)
    if value.size == 0:
        with pytest.raises(ValueError, match="its observations have no component"):
            Adapted(env)
        return
    env = Adapted(env)
    flat = [float(x) for x in value.flat]
    if all(abs(x) <= LARGEST for x in flat):
        obs, _ = env.reset()
        assert env.observation_space.contains(obs) and obs.shape == (len(flat),)
        assert np.array_equal(obs, np.array(flat, np.float32)) and not np.shares_memory(obs, value)
    else:
        with pytest.raises(NotFinite, match=r"observation component .* at step 0 of the episode"):
            env.reset()
