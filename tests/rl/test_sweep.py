"""Sweeps of runs small enough to be real: a few steps of Pendulum."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from som_lite.rl import cli
from som_lite.rl.agents import SACConfig, SOMConfig
from som_lite.rl.config import TrainConfig
from som_lite.rl.runs import Run
from som_lite.rl.summary import returns_table
from som_lite.rl.sweep import grid, processes, sweep, train_command, variants

TINY = {"steps": 40, "start_steps": 20, "eval_every": 20, "eval_episodes": 1}
SAC = TrainConfig("Pendulum-v1", "sac", config=SACConfig(hidden=(8,), batch=8), **TINY)
SOM = TrainConfig("Pendulum-v1", "som", config=SOMConfig(hidden=(8,), batch=8, K=4), **TINY)


def test_grid_takes_every_combination_seed_by_seed():
    configs = grid([SAC, SOM], ["Hopper-v5", "Walker2d-v5"], [0, 5], "there")
    assert [(c.seed, c.env, c.agent) for c in configs[:4]] == [
        (0, "Hopper-v5", "sac"),
        (0, "Hopper-v5", "som"),
        (0, "Walker2d-v5", "sac"),
        (0, "Walker2d-v5", "som"),
    ]
    assert len({c.out for c in configs}) == len(configs) == 8
    assert configs[-1].out == "there/som/Walker2d-v5/seed5" and configs[-1].config == SOM.config


def test_the_command_of_a_run_makes_its_config(monkeypatch):
    asked = []
    monkeypatch.setattr(cli, "train", lambda config: asked.append(config) or config.folder)
    (config,) = grid([SOM], ["Hopper-v5"], [3])
    cli.main(train_command(config)[1:])
    assert asked == [config]


def test_sweep_is_the_same_as_training_one_by_one(tmp_path, capsys):
    configs = grid([SAC], ["Pendulum-v1"], [0, 1], str(tmp_path / "both"))
    assert sweep(configs, partial(processes, jobs=2)) == []
    alone = replace(configs[1], out=str(tmp_path / "alone"))
    cli.main(train_command(alone)[1:])
    last = [Run(c.out).curve()["return_mean"][-1] for c in (*configs, alone)]
    assert last[1] == last[2] != last[0]
    out = capsys.readouterr().out
    assert f"{configs[0].out}: return {last[0]:.1f} after 40 steps" in out
    mean = (last[0] + last[1]) / 2
    assert f"{mean:.4g} [" in returns_table([Run(c.out) for c in configs])
    files = {p: p.read_bytes() for p in (tmp_path / "both").rglob("*") if p.is_file()}
    assert sweep(configs, partial(processes, jobs=2)) == []  # finished runs are not even started
    assert capsys.readouterr().out.count(", as it was") == 2
    assert files == {p: p.read_bytes() for p in files}


def test_a_run_that_fails_is_named_and_stops_no_other(tmp_path, capsys):
    (good,) = grid([SAC], ["Pendulum-v1"], [0], str(tmp_path))
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    bad = replace(good, out=str(blocked))
    assert sweep([bad, good], partial(processes, jobs=1)) == [bad]
    assert Run(good.out).curve()["step"][-1] == 40
    assert f"{blocked}: FAILED: som-lite: " in capsys.readouterr().out


def test_dry_run_prints_one_command_a_line(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cli.main("sweep --envs Hopper-v5 Walker2d-v5 --seeds 0 1 --steps 9000 --dry-run".split())
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8 and all(line.startswith("som-lite train --env ") for line in lines)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_ctrl_c_leaves_checkpoints_that_continue(tmp_path):
    options = "sweep --envs Pendulum-v1 --agents sac --seeds 0 1 --jobs 2 --steps 100000"
    small = "--start-steps 20 --eval-every 20 --eval-episodes 1 --config.hidden 8 --config.batch 8"
    words = [*options.split(), *small.split(), "--out", str(tmp_path)]
    command = [sys.executable, "-m", "som_lite.rl.cli", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        folders = [tmp_path / "sac" / "Pendulum-v1" / f"seed{k}" for k in (0, 1)]
        end = time.monotonic() + 100
        while not all((f / "curve.csv").exists() for f in folders):
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130 and "the same command continues" in error
    for folder in folders:
        assert Run(folder).checkpoints.steps()


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell")
def test_a_job_of_an_array_runs_its_line(tmp_path):
    """The README's script for Slurm, on lines that only say what they were given."""
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (job,) = re.findall(r"--wrap '(.*)'", text)
    (tmp_path / "runs.txt").write_text("echo one\necho 'out/hidden=8  9' two\n")
    environment = os.environ | {"SLURM_ARRAY_TASK_ID": "2"}
    said = subprocess.check_output(["sh", "-c", job], cwd=tmp_path, env=environment, text=True)
    assert said == "out/hidden=8  9 two\n"


def test_settings_are_varied_together():
    vary = [["config.alpha", "0.1", "0.2"], ["--utd", "1"], ["config.hidden", "8 9"]]
    assert list(variants(vary)) == [
        (
            f"/alpha={alpha},utd=1,hidden=8 9",
            ["--config.alpha", alpha, "--utd", "1", "--config.hidden", "8", "9"],
        )
        for alpha in ("0.1", "0.2")
    ]
    assert list(variants([])) == [("", [])]
    with pytest.raises(ValueError, match="vary must be a name and its values, got 'utd'"):
        list(variants([["utd"]]))


def test_every_variant_has_its_folder(capsys):
    words = "--envs Hopper-v5 --agents sac --seeds 0 --vary config.gamma 0.9 0.98 --dry-run"
    cli.main(["sweep", *words.split()])
    lines = capsys.readouterr().out.splitlines()
    for gamma, line in zip(("0.9", "0.98"), lines, strict=True):
        assert f"--config.gamma {gamma}" in line
        assert f"--out runs/gamma={gamma}/sac/Hopper-v5/seed0" in line
