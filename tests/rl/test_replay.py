import numpy as np
import pytest
import torch

from som_lite.rl.adapt import Adapted
from som_lite.rl.replay import Replay
from tests.rl.toys import Glider


def fill(replay, n, start=0):
    for i in range(start, start + n):
        x = np.float32([i, -i])
        replay.add(x, np.float32([i]), float(i), x + 1, i % 2 == 1)


def test_a_write_is_visible_on_the_next_read():
    replay = Replay(10, 2, 1)
    fill(replay, 4)
    replay.data.action[torch.tensor([1, 3])] = 9.0
    batch = replay.sample(100, torch.Generator().manual_seed(0))
    assert set(batch.action.flatten().tolist()) == {0.0, 9.0, 2.0}


def test_columns_stay_together_and_have_their_shapes():
    replay = Replay(10, 2, 1)
    fill(replay, 7)
    batch = replay.sample(64, torch.Generator().manual_seed(0))
    i = batch.reward
    assert batch.obs.shape == (64, 2) and batch.action.shape == (64, 1) and i.shape == (64,)
    assert torch.equal(batch.obs, torch.stack([i, -i], 1))
    assert torch.equal(batch.next_obs, batch.obs + 1)
    assert torch.equal(batch.action[:, 0], i)
    assert torch.equal(batch.terminated, i % 2)
    assert all(x.dtype == torch.float32 for x in batch)
    assert set(i.int().tolist()) == set(range(7))  # all rows are reached, no unwritten one is


def test_the_oldest_rows_are_overwritten():
    replay = Replay(5, 2, 1)
    fill(replay, 12)
    assert len(replay) == 5
    assert sorted(replay.data.reward.tolist()) == [7, 8, 9, 10, 11]


def test_sampling_depends_on_the_generator_alone():
    replay = Replay(50, 2, 1)
    fill(replay, 50)
    draw = lambda seed: replay.sample(8, torch.Generator().manual_seed(seed)).reward  # noqa: E731
    torch.manual_seed(1)
    first = draw(0)
    torch.manual_seed(2)
    assert torch.equal(first, draw(0)) and not torch.equal(first, draw(1))


@pytest.mark.parametrize("n", [3, 12])
def test_state_round_trip_continues_the_ring(n):
    replay, other = Replay(5, 2, 1), Replay(5, 2, 1)
    fill(replay, n)
    other.load_state_dict(replay.state_dict())
    for r in (replay, other):
        fill(r, 1, start=100)
    assert len(other) == len(replay)
    assert all(torch.equal(x, y) for x, y in zip(replay.data, other.data, strict=True))


class Overwriting(Glider):
    """Hands out its own array, and moves on in it."""

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.state, {}

    def step(self, action):
        self.state += [1, 0.5]
        return self.state, 0.0, False, False, {}


def test_what_an_environment_overwrites_is_stored_as_it_was():
    env, replay = Adapted(Overwriting()), Replay(100, 2, 1)
    obs, _ = env.reset(seed=0)
    action = np.zeros(1, np.float32)
    for i in range(100):
        action[:] = i / 100  # the caller's array may be overwritten too
        next_obs, reward, terminated, _, _ = env.step(action)
        replay.add(obs, action, reward, next_obs, terminated)
        obs = next_obs
    data = replay.data
    assert not (data.obs == data.next_obs).any()
    assert torch.equal(data.obs[1:], data.next_obs[:-1])
    # Steps of 1 from a start in [-1, 1]: float32 below 128 is exact to 4e-6.
    torch.testing.assert_close(data.next_obs - data.obs, torch.tensor([[1, 0.5]]).expand(100, 2))
    assert len(data.action.unique()) == 100


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("obs", np.zeros(1), r"obs must have shape \(2,\), got \(1,\)"),
        ("next_obs", np.zeros((1, 2)), r"next_obs must have shape \(2,\), got \(1, 2\)"),
        ("action", np.array(0.0), r"action must have shape \(1,\), got \(\)"),
    ],
)
def test_nothing_is_broadcast(column, value, message):
    row = {"obs": np.ones(2), "action": np.ones(1), "reward": 1.0, "next_obs": np.ones(2)}
    replay = Replay(3, 2, 1)
    with pytest.raises(ValueError, match=message):
        replay.add(**row | {column: value}, terminated=False)
    assert len(replay) == 0 and not any(x.any() for x in replay.data)


def test_a_state_that_does_not_fit_is_refused():
    full, wrapped = Replay(5, 2, 1), Replay(5, 2, 1)
    fill(full, 5)
    fill(wrapped, 6)
    for replay, state, message in (
        (Replay(4, 2, 1), full, "ring of 5 rows, does not fit capacity 4"),
        (Replay(9, 2, 1), wrapped, "ring of 5 rows, wrapped, does not fit capacity 9"),
        (Replay(5, 3, 1), full, r"obs must have shape \(5, 3\), got \(5, 2\)"),
    ):
        with pytest.raises(ValueError, match=message):
            replay.load_state_dict(state.state_dict())
        assert len(replay) == 0
    larger = Replay(9, 2, 1)
    larger.load_state_dict(full.state_dict())
    fill(larger, 1, start=5)
    assert larger.data.reward.tolist() == [0, 1, 2, 3, 4, 5, 0, 0, 0]


def test_errors():
    with pytest.raises(ValueError, match="capacity must be at least 1, got 0"):
        Replay(0, 2, 1)
    with pytest.raises(ValueError, match="empty"):
        Replay(3, 2, 1).sample(1, torch.Generator())
