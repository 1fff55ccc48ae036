import csv
import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from som_lite.rl.runs import Run
from som_lite.rl.train import TrainConfig, Training, train
from tests.rl.toys import SMALL


def make_config(out, **changes):
    settings = {
        "env": "Glider-v0", "agent": "sac", "steps": 240, "start_steps": 40, "eval_every": 80,
        "eval_episodes": 2, "checkpoint_every": 60, "progress": False, "out": str(out),
    }  # fmt: skip
    settings |= changes
    return TrainConfig(config=SMALL[settings["agent"]], **settings)


def outcome(folder):
    """Everything a run produced that does not depend on the clock."""
    with (folder / "curve.csv").open(newline="") as file:
        curve = [row | {"wall_s": ""} for row in csv.DictReader(file)]
    return curve, (folder / "policy.safetensors").read_bytes()


def interrupt_at(monkeypatch, step, action):
    """Call `action` in the middle of the environment step after `step`."""
    plain = Training.interact

    def interact(self):
        if self.step == step:
            monkeypatch.setattr(Training, "interact", plain)
            action()
        plain(self)

    monkeypatch.setattr(Training, "interact", interact)


def raise_error():
    raise RuntimeError("power cut")


def test_a_run_is_repeatable_and_its_seed_matters(name, tmp_path):
    runs = [
        outcome(train(make_config(tmp_path / str(i), agent=name, steps=100, seed=seed)))
        for i, seed in enumerate((0, 0, 1))
    ]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_a_run_that_died_continues_exactly(name, tmp_path, monkeypatch):
    """It dies at step 133, inside an episode and between checkpoint (120) and row (160)."""
    whole = outcome(train(make_config(tmp_path / "whole", agent=name)))
    interrupt_at(monkeypatch, 133, raise_error)
    with pytest.raises(RuntimeError):
        train(make_config(tmp_path / "parts", agent=name))
    assert Run(tmp_path / "parts").load_checkpoint()[1]["step"] == 120
    assert outcome(train(make_config(tmp_path / "parts", agent=name))) == whole


def test_a_run_that_died_before_its_first_checkpoint_starts_again(tmp_path, monkeypatch):
    whole = outcome(train(make_config(tmp_path / "whole", eval_every=30)))
    interrupt_at(monkeypatch, 50, raise_error)
    with pytest.raises(RuntimeError):
        train(make_config(tmp_path / "parts", eval_every=30))
    assert outcome(train(make_config(tmp_path / "parts", eval_every=30))) == whole


def test_ctrl_c_saves_inside_an_episode_of_mujoco_and_continues_exactly(tmp_path, monkeypatch):
    settings = {"env": "HalfCheetah-v5", "steps": 120, "eval_every": 120, "eval_episodes": 1}
    whole = outcome(train(make_config(tmp_path / "whole", **settings)))
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    interrupt_at(monkeypatch, 90, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt, match="stopped at step 91; the same command continues"):
        train(make_config(tmp_path / "parts", **settings))
    assert handlers == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    assert Run(tmp_path / "parts").load_checkpoint()[1]["step"] == 91
    assert outcome(train(make_config(tmp_path / "parts", **settings))) == whole


def test_a_killed_process_continues_exactly(tmp_path):
    """SIGKILL at whatever moment it comes: no handler runs, files are whole."""
    settings = {"steps": 1000, "eval_every": 100, "checkpoint_every": 100}
    whole = outcome(train(make_config(tmp_path / "whole", **settings)))
    script = (
        "from tests.rl.test_train import make_config, train\n"
        f"train(make_config({str(tmp_path / 'parts')!r}, **{settings!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[2])
    checkpoint = tmp_path / "parts" / "checkpoint" / "state.safetensors"
    deadline = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "the process ended before it could be killed"
    assert outcome(train(make_config(tmp_path / "parts", **settings))) == whole


def test_steps_may_grow_but_not_shrink(tmp_path):
    short = make_config(tmp_path / "run", steps=160)
    train(short)
    whole = outcome(train(make_config(tmp_path / "whole")))
    grown = dataclasses.replace(short, steps=240)
    assert outcome(train(grown)) == whole
    with pytest.raises(ValueError, match="steps must be at least the 240"):
        train(short)


def test_a_finished_run_is_left_as_it_is(tmp_path):
    config = make_config(tmp_path / "run", steps=80)
    folder = train(config)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    train(config)
    assert before == {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_other_settings_are_refused_and_nothing_is_touched(tmp_path):
    folder = train(make_config(tmp_path / "run", steps=80))
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    with pytest.raises(ValueError, match=r"other settings \(seed: 0 -> 1; utd: 1\.0 -> 0\.5\)"):
        train(make_config(tmp_path / "run", steps=80, seed=1, utd=0.5))
    assert before == {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("my only copy")
    with pytest.raises(ValueError, match="not empty and is not a run"):
        train(make_config(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_unknown_task_leaves_no_folder(tmp_path):
    with pytest.raises(ValueError, match="unknown environment"):
        train(make_config(tmp_path / "run", env="Glyder-v0"))
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_where_there_is_none(tmp_path):
    with pytest.raises(ValueError, match="sees no CUDA"):
        train(make_config(tmp_path / "run", device="cuda"))
    assert not (tmp_path / "run").exists()


def test_the_buffer_holds_what_happened(tmp_path):
    """Clock observes the step of its episode: a wrong next_obs or a mixed-up end shows."""
    for env, ends in (("Clock-v0", True), ("ShortClock-v0", False)):
        config = make_config(tmp_path / env, env=env, steps=60, start_steps=30)
        run = Run.create(config)
        training = Training(config, run)
        for _ in range(60):
            training.advance()
        data = training.replay.data
        # The last observation of an episode, not the first of the next one.
        assert torch.equal(data.next_obs, data.obs + 1)
        last = torch.cat([data.obs[1:, 0] == 0, torch.tensor([False])])
        assert last.sum() > 5
        assert torch.equal(data.terminated[:-1].bool(), last[:-1] & ends)
        assert data.action.abs().max() <= 1


def test_random_actions_cover_the_box(tmp_path):
    config = make_config(tmp_path / "run", env="ShortClock-v0", steps=1001, start_steps=1000)
    training = Training(config, Run.create(config))
    for _ in range(1000):
        training.interact()
    a = training.replay.data.action[:1000, 0]
    # 1000 uniform draws: mean 0 +- 0.018, and each tenth of the box holds 100 +- 10.
    assert abs(a.mean()) < 0.09
    counts = np.histogram(a.numpy(), bins=10, range=(-1, 1))[0]
    assert counts.sum() == 1000 and counts.min() > 50 and counts.max() < 150


@pytest.mark.parametrize(("utd", "updates"), [(1.0, 50), (0.5, 25), (2.0, 100), (0.0, 0)])
def test_updates_per_step(tmp_path, utd, updates):
    config = make_config(tmp_path / "run", steps=80, start_steps=30, utd=utd)
    training = Training(config, Run.create(config))
    for _ in range(80):
        training.advance()
    assert training.updates == updates


def test_metrics_are_averaged_between_rows(tmp_path, monkeypatch):
    config = make_config(tmp_path / "run", steps=40, start_steps=1, eval_every=20)
    training = Training(config, Run.create(config))
    logged = iter(range(100))

    def update(batch):
        i = next(logged)
        every = {"always": torch.tensor(float(i))}
        return every | {"even": torch.tensor(1.0 * i)} if i % 2 == 0 else every

    monkeypatch.setattr(training.agent, "update", update)
    for _ in range(40):
        training.advance()
    curve = Run(tmp_path / "run").curve()
    # Step 1 is random, so that updates 0 ... 18 fall before the row of step 20 and 19 ... 38 after.
    assert curve["always"].tolist() == [np.mean(range(19)), np.mean(range(19, 39))]
    assert curve["even"].tolist() == [np.mean(range(0, 19, 2)), np.mean(range(20, 39, 2))]


def test_threads_are_set_for_the_run_only(tmp_path, monkeypatch):
    seen = []
    interrupt_at(monkeypatch, 50, lambda: seen.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    train(make_config(tmp_path / "run", steps=60, threads=2))
    assert seen == [2] and torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("field", "value", "accepted"),
    [
        ("agent", "ppo", "one of som, sac"),
        ("steps", -5, "at least 1"),
        ("seed", -1, "0 or more"),
        ("threads", 0, "at least 1"),
        ("utd", -0.5, "0 or more"),
        ("eval_every", 0, "at least 1"),
        ("checkpoint_every", 0, "at least 1"),
        ("start_steps", 600, "below steps"),
    ],
)
def test_settings_are_checked(field, value, accepted):
    config = TrainConfig(agent="sac", steps=600, start_steps=10)
    with pytest.raises(ValueError, match=f"{field} must be {accepted}.*, got {value!r}"):
        dataclasses.replace(config, **{field: value})


def test_settings_of_another_agent_are_refused():
    with pytest.raises(ValueError, match="config must be a SOMConfig for agent 'som', got a SACC"):
        TrainConfig(agent="som", config=SMALL["sac"])


def test_on_row_hears_of_every_row_when_it_is_written(name, tmp_path):
    heard = []
    out = tmp_path / "run"

    def on_row(training):
        with (out / "curve.csv").open(newline="") as file:
            written = [int(row["step"]) for row in csv.DictReader(file)]
        heard.append((written, training.step))

    train(make_config(out, agent=name, steps=200), on_row=on_row)
    assert heard == [([80], 80), ([80, 160], 160), ([80, 160, 200], 200)]
