"""Checkpoints keep a ring of transitions by shards, notice damage, and go back one."""

import json

import numpy as np
import pytest
import torch

from som_lite.rl import checkpoint
from som_lite.rl.checkpoint import Checkpoints
from som_lite.rl.replay import Replay


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(checkpoint, "SHARD", 10)


def fill(replay, until):
    """Transition number n holds n everywhere."""
    for n in range(replay.count, until):
        replay.add(np.full(2, n), np.full(1, n), float(n), np.full(2, n), bool(n % 2))


def save(folder, counts, capacity=25):
    checkpoints, replay = Checkpoints(folder), Replay(capacity, 2, 1)
    for count in counts:
        fill(replay, count)
        checkpoints.save(count, {"x": torch.tensor(float(count))}, {"step": count}, replay)
    return checkpoints, replay


@pytest.mark.parametrize("counts", [[0], [7], [10], [7, 9, 23], [25, 26], [5, 60], [61, 75, 76]])
def test_what_was_saved_is_loaded(tmp_path, counts):
    """Less than a shard, whole shards, a ring that wraps, one that wraps between two saves."""
    _, saved = save(tmp_path / "c", counts)
    loaded = Replay(25, 2, 1)
    tensors, counters = Checkpoints(tmp_path / "c").load(loaded)
    assert tensors["x"] == counts[-1] and counters["step"] == counts[-1]
    assert loaded.count == saved.count
    for a, b in zip(saved.data, loaded.data, strict=True):
        assert torch.equal(a, b)


def test_a_run_that_grows_gets_a_larger_ring(tmp_path):
    save(tmp_path / "c", [25])
    loaded = Replay(40, 2, 1)
    Checkpoints(tmp_path / "c").load(loaded)
    fill(loaded, 40)
    assert torch.equal(loaded.data.reward, torch.arange(40.0))


def test_a_full_shard_is_written_once(tmp_path):
    checkpoints, replay = save(tmp_path / "c", [25], capacity=100)
    old = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "c").glob("rows-*")}
    fill(replay, 33)
    checkpoints.save(33, {}, {}, replay)
    new = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "c").glob("rows-*")}
    full = ["rows-000000000010.safetensors", "rows-000000000020.safetensors"]
    assert [old[name] for name in full] == [new[name] for name in full]
    # 20 ... 25 belongs to the previous checkpoint, which stays whole.
    assert new.keys() - old.keys() == {f"rows-{n:012d}.safetensors" for n in (30, 33)}


def test_two_stay_and_what_neither_needs_goes(tmp_path):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "state-000000000003.safetensors.tmp").write_text("half")
    save(tmp_path / "c", [5, 15, 25, 38])
    assert Checkpoints(tmp_path / "c").steps() == [25, 38]
    names = {p.name for p in (tmp_path / "c").iterdir() if p.name.startswith("rows")}
    assert names == {f"rows-{n:012d}.safetensors" for n in (10, 20, 25, 30, 38)}
    assert not list((tmp_path / "c").glob("*.tmp"))


def damage(path, how):
    data = path.read_bytes()
    if how == "torn":
        path.write_bytes(data[: len(data) // 2])
    elif how == "one bit":
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    else:
        path.unlink()


@pytest.mark.parametrize("how", ["torn", "one bit", "gone"])
@pytest.mark.parametrize(
    "name", ["state-000000000015.safetensors", "rows-000000000015.safetensors"]
)
def test_a_damaged_one_is_named_and_the_previous_used(tmp_path, name, how):
    save(tmp_path / "c", [5, 15])
    damage(tmp_path / "c" / name, how)
    loaded = Replay(25, 2, 1)
    checkpoints = Checkpoints(tmp_path / "c")
    with pytest.warns(UserWarning, match=f"{name} is (damaged|missing).*going back .* step 5"):
        tensors, _ = checkpoints.load(loaded)
    assert tensors["x"] == 5 and loaded.count == 5
    fill(loaded, 8)
    checkpoints.save(8, {"x": torch.tensor(8.0)}, {}, loaded)
    assert Checkpoints(tmp_path / "c").steps() == [5, 8]  # the damaged one does not come back


@pytest.mark.parametrize("how", ["torn", "one bit"])
def test_a_damaged_list_is_a_damaged_checkpoint(tmp_path, how):
    save(tmp_path / "c", [5, 15])
    path = tmp_path / "c" / f"{15:012d}.json"
    if how == "torn":
        damage(path, how)
    else:
        files = json.loads(path.read_text())
        name, digest = files.popitem()
        path.write_text(json.dumps(files | {name: "0" + digest[1:], "../x": "0"}))
    with pytest.warns(UserWarning, match="going back to the checkpoint of step 5"):
        assert Checkpoints(tmp_path / "c").load(Replay(25, 2, 1))[0]["x"] == 5


def test_when_none_is_whole_both_are_named(tmp_path):
    save(tmp_path / "c", [5, 15])
    for path in (tmp_path / "c").glob("state-*"):
        damage(path, "torn")
    with pytest.raises(ValueError, match=r"no checkpoint is whole .*0015.*0005.*use --restart"):
        Checkpoints(tmp_path / "c").load(Replay(25, 2, 1))


def test_no_checkpoint_at_all(tmp_path):
    assert Checkpoints(tmp_path / "nowhere").load(Replay(25, 2, 1)) is None
