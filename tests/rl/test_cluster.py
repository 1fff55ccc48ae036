"""A sweep on a Ray of this machine's own. Its workers are processes that can be killed."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from som_lite.rl import cli
from som_lite.rl.agents import SACConfig
from som_lite.rl.config import TrainConfig
from som_lite.rl.runs import Run
from som_lite.rl.sweep import grid, processes, sweep

with_ray = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra `cluster`"),
    pytest.mark.skipif(os.name == "nt", reason="POSIX signals"),
]
PATIENCE = 500  # seconds; Ray starts within ten where nothing else runs
WORDS = (
    "sweep --engine ray --jobs 2 --envs Pendulum-v1 --agents sac --start-steps 20 --eval-every 250 "
    "--eval-episodes 1 --config.hidden 8 --config.batch 8"
)
SMALL = TrainConfig(  # the same
    "Pendulum-v1", "sac", steps=3000, start_steps=20, eval_every=250, eval_episodes=1,
    checkpoint_every=250, progress=False, config=SACConfig(hidden=(8,), batch=8),
)  # fmt: skip


@contextmanager
def sweeping(options, out):
    """The sweep as a process of its own."""
    words = [*WORDS.split(), *options.split(), "--out", str(out)]
    command = [sys.executable, "-m", "som_lite.rl.cli", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)


def wait_for(condition, process):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.05)


def trainer(folder):
    """The process that holds the lock of a run."""
    return int((folder / "checkpoint" / "lock").read_text())


def saved(folder):
    """The step of the last checkpoint; 0 also before there is one."""
    steps = Run(folder).checkpoints.steps() if (folder / "config.json").exists() else ()
    return max(steps, default=0)


class TestOnRay:
    pytestmark = with_ray

    def test_a_killed_worker_costs_a_sweep_nothing(self, tmp_path):
        killed, done, bad = grid([SMALL], [SMALL.env], [0, 1, 2], str(tmp_path / "runs"))
        alone = replace(killed, out=str(tmp_path / "alone"))
        assert sweep([done, alone], partial(processes, jobs=2)) == []
        bad.folder.write_text("in the way")
        options = "--seeds 0 1 2 --steps 3000 --checkpoint-every 250"
        with sweeping(options, tmp_path / "runs") as process:
            wait_for(lambda: saved(killed.folder), process)
            first = trainer(killed.folder)
            os.kill(first, signal.SIGKILL)
            kept = saved(killed.folder)
            out, error = process.communicate(timeout=PATIENCE)
        assert 0 < kept < SMALL.steps and trainer(killed.folder) != first
        # what was lost is done again, bit for bit as if nothing had happened
        curves = [Run(folder).curve()["return_mean"] for folder in (killed.folder, alone.folder)]
        assert np.array_equal(*curves) and len(curves[0]) == 12
        policies = [folder / "policy.safetensors" for folder in (killed.folder, alone.folder)]
        assert policies[0].read_bytes() == policies[1].read_bytes()
        # the run that cannot work is named, the finished one left alone, and all seen on one bar
        assert process.returncode == 2 and f"1 of 3 runs failed: {bad.out}" in error
        assert f"{bad.out}: FAILED: {bad.out} is not empty and is not a run" in out
        assert f"{done.out}: return" in out and out.count(", as it was") == 1
        assert "6000/9000" in error and "0 runs to end, 1 failed" in error

    def test_ctrl_c_leaves_checkpoints_that_continue(self, tmp_path):
        options = "--seeds 0 1 --steps 1000000 --checkpoint-every 1000000"
        folders = [run.folder for run in grid([SMALL], [SMALL.env], [0, 1], str(tmp_path))]
        with sweeping(options, tmp_path) as process:
            wait_for(lambda: all((f / "curve.csv").exists() for f in folders), process)
            assert not any(map(saved, folders))
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=PATIENCE)
        assert process.returncode == 130 and "the same command continues" in error
        assert all(map(saved, folders))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--engine spark", "invalid choice: 'spark'"),
        ("--address auto", "address must be left out unless --engine is ray, got 'auto'"),
    ],
)
def test_options_that_do_not_go_together(options, message, capsys):
    with pytest.raises(SystemExit):
        cli.main(["sweep", "--envs", "Pendulum-v1", *options.split()])
    assert message in capsys.readouterr().err


def test_without_ray_one_line_says_what_is_missing(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "som_lite.rl.cluster", raising=False)
    with pytest.raises(SystemExit):
        cli.main("sweep --envs Pendulum-v1 --engine ray".split())
    assert "--engine ray needs Ray" in capsys.readouterr().err
