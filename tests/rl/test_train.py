import csv
import dataclasses
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

from som_lite.rl import training as training_module
from som_lite.rl.agents.common import derive
from som_lite.rl.evaluate import evaluate
from som_lite.rl.runs import Run
from som_lite.rl.train import TrainConfig, Training, train
from tests.rl.toys import SMALL, Glider


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
        outcome(train(make_config(tmp_path / str(i), agent=name, steps=60, seed=seed)))
        for i, seed in enumerate((0, 0, 1))
    ]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_a_run_that_died_continues_exactly(name, tmp_path, monkeypatch):
    """It dies at step 133, inside an episode and between checkpoint (120) and row (160)."""
    settings = {"agent": name, "steps": 170}
    whole = outcome(train(make_config(tmp_path / "whole", **settings)))
    interrupt_at(monkeypatch, 133, raise_error)
    with pytest.raises(RuntimeError):
        train(make_config(tmp_path / "parts", **settings))
    assert Run(tmp_path / "parts").checkpoints.steps()[-1] == 120
    assert outcome(train(make_config(tmp_path / "parts", **settings))) == whole


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
    assert Run(tmp_path / "parts").checkpoints.steps()[-1] == 91
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
    checkpoint = tmp_path / "parts" / "checkpoint" / f"{100:012d}.json"
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
    with pytest.raises(ValueError, match="device 'cuda' cannot run agent"):
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


def test_on_row_hears_of_every_row_when_it_is_written(tmp_path):
    heard = []
    out = tmp_path / "run"

    def on_row(training):
        with (out / "curve.csv").open(newline="") as file:
            written = [int(row["step"]) for row in csv.DictReader(file)]
        heard.append((written, training.step))

    train(make_config(out, steps=200), on_row=on_row)
    assert heard == [([80], 80), ([80, 160], 160), ([80, 160, 200], 200)]


def spoil(part):
    """An update after which something is NaN."""

    def update(training, plain, batch):
        metrics = plain(batch)
        if training.step == 150:
            if part == "loss":
                return metrics | {"critic_loss": torch.tensor(float("nan"))}
            if part == "weight":
                next(training.agent.critic.parameters()).data[0] = -torch.inf
            if part == "moment":
                optimizer = training.agent.actor_optimizer
                next(iter(optimizer.state.values()))["exp_avg"].fill_(torch.nan)
        return metrics

    return update


@pytest.mark.parametrize(
    ("part", "named"),
    [
        ("loss", "critic_loss"),
        ("weight", r"\bcritic\b"),
        ("moment", "actor_optimizer"),
    ],
)
def test_what_stops_being_finite_stops_the_run(tmp_path, monkeypatch, part, named):
    spoilt, plain = spoil(part), Training.learn

    def learn(self):
        update = self.agent.update
        self.agent.update = lambda batch: spoilt(self, update, batch)
        plain(self)
        self.agent.update = update

    monkeypatch.setattr(Training, "learn", learn)
    config = make_config(tmp_path / "run")
    with pytest.raises(
        ValueError, match=f"no longer finite: .*{named}.*; stopped at step 1[56]"
    ) as error:
        train(config)
    assert "run keeps the checkpoint of step 120" in str(error.value)
    assert Run(tmp_path / "run").checkpoints.steps()[-1] == 120
    assert Run(tmp_path / "run").curve()["step"].tolist() == [80]
    for x in Run(tmp_path / "run").load_agent().state_dict().values():
        assert torch.isfinite(x).all()
    monkeypatch.undo()
    assert outcome(train(config)) == outcome(train(make_config(tmp_path / "whole")))


def test_recorded_results_without_checkpoint_are_not_overwritten(tmp_path):
    published = Run(train(make_config(tmp_path / "run"))).publish(tmp_path / "recorded")
    config = make_config(published.folder)
    before = {p: p.read_bytes() for p in published.folder.rglob("*")}
    with pytest.raises(ValueError, match=r"holds results .* but no checkpoint .*--restart"):
        train(config)
    assert before == {p: p.read_bytes() for p in published.folder.rglob("*")}
    changed = dataclasses.replace(config, seed=1, restart=True)
    again = outcome(train(changed))
    assert again == outcome(train(make_config(tmp_path / "other", seed=1)))


def test_a_run_killed_as_it_began_can_begin_again(tmp_path):
    config = make_config(tmp_path / "run", steps=80)
    (config.folder / "checkpoint").mkdir(parents=True)
    for left in ("config.json.tmp", "checkpoint/lock"):
        (config.folder / left).write_text("{")
        train(dataclasses.replace(config, restart=True))
        assert not list(config.folder.rglob("*.tmp"))


def test_restart_forgets_the_checkpoint(tmp_path):
    config = make_config(tmp_path / "run")
    whole = outcome(train(config))
    train(dataclasses.replace(config, steps=160, restart=True))
    assert Run(config.folder).curve()["step"].tolist() == [80, 160]
    assert outcome(train(config)) == whole


def test_two_in_one_folder(tmp_path, monkeypatch):
    """A second training is refused at once, and the first goes on."""
    config, refused = make_config(tmp_path / "run"), []

    def second():
        with pytest.raises(ValueError, match=f"run is in use by process {os.getpid()}"):
            train(config)
        refused.append(True)

    interrupt_at(monkeypatch, 100, second)
    whole = outcome(train(config))
    assert refused and whole == outcome(train(make_config(tmp_path / "whole")))


def test_the_row_at_the_end_leaves_no_trace(tmp_path):
    """130 steps, later 240: rows at 80 and 130, later 80, 160 and 240, and the same averages."""
    config = make_config(tmp_path / "run", steps=130)
    train(config)
    assert Run(config.folder).curve()["step"].tolist() == [80, 130]
    grown = outcome(train(dataclasses.replace(config, steps=240)))
    assert [row["step"] for row in grown[0]] == ["80", "160", "240"]
    assert grown == outcome(train(make_config(tmp_path / "whole")))


def test_two_ctrl_c(tmp_path, monkeypatch):
    """The second one comes while the checkpoint is written: the one before stays."""
    whole = outcome(train(make_config(tmp_path / "whole")))
    interrupt_at(monkeypatch, 90, lambda: os.kill(os.getpid(), signal.SIGINT))
    plain = Training.save

    def save(self):
        if self.step == 91:
            os.kill(os.getpid(), signal.SIGINT)
        plain(self)

    monkeypatch.setattr(Training, "save", save)
    message = "stopped at once; .*parts keeps the checkpoint of step 60"
    with pytest.raises(KeyboardInterrupt, match=message):
        train(make_config(tmp_path / "parts"))
    assert Run(tmp_path / "parts").checkpoints.steps()[-1] == 60
    assert outcome(train(make_config(tmp_path / "parts"))) == whole


@pytest.mark.parametrize("at", [80, 240])
def test_ctrl_c_during_an_evaluation(tmp_path, monkeypatch, at):
    """It ends before the next step of the evaluation; the row is written when the run goes on."""
    settings = {"checkpoint_every": 80}
    whole = outcome(train(make_config(tmp_path / "whole", **settings)))
    plain, steps = training_module.evaluate, []

    def evaluate(agent, env, episodes, seed, stop):
        if seed == derive(0, 3, at):
            os.kill(os.getpid(), signal.SIGINT)
            act = agent.act
            agent.act = lambda *a: steps.append(1) or act(*a)
        return plain(agent, env, episodes, seed, stop=stop)

    monkeypatch.setattr(training_module, "evaluate", evaluate)
    with pytest.raises(KeyboardInterrupt, match=f"stopped at step {at}; the same command"):
        train(make_config(tmp_path / "parts", **settings))
    assert len(steps) == 1
    assert Run(tmp_path / "parts").checkpoints.steps()[-1] == at
    monkeypatch.undo()
    assert outcome(train(make_config(tmp_path / "parts", **settings))) == whole


def test_the_best_policy_is_kept(tmp_path):
    """It is the policy of the best row: an evaluation of it gives that row's return again."""
    config = make_config(tmp_path / "run", eval_every=40)
    run = Run(train(config))
    curve = run.curve()
    best = int(curve["return_mean"].argmax())
    assert best > 0, "the first row is the best one: the test says little"
    seed = derive(config.seed, 3, int(curve["step"][best]))
    returns = evaluate(run.load_agent(best=True), config.env, config.eval_episodes, seed)
    assert returns.mean() == curve["return_mean"][best]


def test_the_policy_is_as_new_as_the_curve(tmp_path, monkeypatch):
    config = make_config(tmp_path / "run", checkpoint_every=1000)
    interrupt_at(monkeypatch, 170, raise_error)
    with pytest.raises(RuntimeError):
        train(config)
    run = Run(config.folder)
    assert run.checkpoints.steps() == [0]
    seed = derive(config.seed, 3, 160)
    returns = evaluate(run.load_agent(), config.env, config.eval_episodes, seed)
    assert returns.mean() == run.curve()["return_mean"][-1]
    for file, digest in run.info()["sha256"].items():
        assert hashlib.sha256((run.folder / file).read_bytes()).hexdigest() == digest


def test_threads_may_change(tmp_path):
    config = make_config(tmp_path / "run", steps=160)
    train(config)
    train(dataclasses.replace(config, steps=240, threads=2))
    assert Run(config.folder).config().threads == 2


def test_a_run_moves_to_another_kind_of_device(tmp_path, monkeypatch):
    """A CUDA generator's state is 16 bytes; where the sizes differ new streams begin."""
    config = make_config(tmp_path / "run", steps=160)
    train(config)
    plain = Training.restore

    def restore(self, tensors, counters):
        moved = {k: x[:16] if k.endswith("generator") else x for k, x in tensors.items()}
        plain(self, moved, counters)

    monkeypatch.setattr(Training, "restore", restore)
    with pytest.warns(UserWarning, match="moves to device 'cpu'"):
        train(dataclasses.replace(config, steps=240))
    assert Run(config.folder).curve()["step"].tolist() == [80, 160, 240]


class Spoilt(Glider):
    """After 150 steps of training one number is wrong; evaluations make few steps."""

    def __init__(self, what):
        self.what, self.count = what, 0

    def step(self, action):
        obs, reward, *rest = super().step(action)
        self.count += 1
        if self.count == 150:
            obs = obs * np.nan if self.what == "observation" else obs
            reward = {"nan": np.nan, "-inf": -np.inf}.get(self.what, reward)
        return obs, reward, *rest


for what in ("nan", "-inf", "observation"):
    gym.register(f"Spoilt-{what}-v0", Spoilt, max_episode_steps=20, kwargs={"what": what})


@pytest.mark.parametrize(
    ("what", "named"),
    [("nan", "reward is nan"), ("-inf", "reward is -inf"), ("observation", "observation.* is nan")],
)
def test_a_task_that_gives_what_is_not_finite(tmp_path, what, named):
    config = make_config(tmp_path / "run", env=f"Spoilt-{what}-v0")
    with pytest.raises(ValueError, match=f"{named}.*; stopped at step 149, .* of step 120"):
        train(config)
    run = Run(config.folder)
    assert run.checkpoints.steps()[-1] == 120 and run.curve()["step"].tolist() == [80]
    assert all(torch.isfinite(x).all() for x in run.load_agent().state_dict().values())
