import numpy as np
import pytest
import torch

from som_lite.rl.replay import Replay


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


def test_errors():
    with pytest.raises(ValueError, match="capacity must be at least 1, got 0"):
        Replay(0, 2, 1)
    with pytest.raises(ValueError, match="empty"):
        Replay(3, 2, 1).sample(1, torch.Generator())
