import json
import sys
from dataclasses import replace

import gymnasium as gym
import pytest

from som_lite.rl import cli
from som_lite.rl.agents import SOMPaper, SOMPaperConfig
from som_lite.rl.agents.sdac import SDAC, SDACConfig
from som_lite.rl.runs import Run


@pytest.fixture
def run(capsys):
    """run("train", "--env", ...) -> (exit code, stdout, stderr)"""

    def call(*arguments):
        code = 0
        try:
            cli.main(list(arguments))
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def asked(monkeypatch):
    """The configs that would have been trained."""
    configs = []
    monkeypatch.setattr(cli, "train", lambda config: configs.append(config) or config.folder)
    return configs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("paint", "unknown command 'paint': use train, evaluate, record, sweep"),
        ("train --env HalfCheeta-v5", "did you mean HalfCheetah-v5"),
        ("train --env CartPole-v1", "not a continuous Box"),
        ("train --steps -5", "steps must be at least 1, got -5"),
        ("train --steps many", "--steps"),
        ("train --stepz 5", "unknown option --stepz: did you mean --steps"),
        ("train --agent ppo", "invalid choice: 'ppo'"),
        (
            "train --agent sac --config.K 3",
            "there is --config.K of --agent som",
        ),
        ("train --agent lql --preset paper", "preset must be one of one_core for agent lql"),
        ("train --preset fast", "invalid choice: 'fast'"),
        ("train --config.gamma 2", "gamma must be in [0, 1], got 2.0"),
        ("sweep", "envs must be one or more, got []"),
        ("sweep --envs Hopper-v5 --agents ppo", "invalid choice: 'ppo'"),
        ("sweep --envs Hoper-v5", "did you mean Hopper-v5"),
        ("sweep --envs Hopper-v5 --jobs 0", "jobs must be at least 1, got 0"),
        (
            "sweep --envs Hopper-v5 --config.K 3",
            "there is --config.K of --agent som",
        ),
        ("evaluate", "RUN"),
        ("evaluate nowhere", "not a run folder (no config.json in it): nowhere"),
        ("evaluate --episodes", "--episodes"),
    ],
)
def test_a_mistake_is_one_line_on_stderr(run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments.split())
    assert code == 2 and out == "" and err.startswith("som-lite: ") and message in err
    assert err.count("\n") == 1 and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command", ["", "train", "train --agent sac", "evaluate", "record", "sweep"]
)
def test_help(run, command):
    code, out, err = run(*command.split(), "--help")
    assert code == 0 and err == "" and "usage: som-lite" in out


def test_options_reach_the_config(run, asked):
    run(*"train --env Hopper-v5 --agent sac --config.gamma 0.98 --config.hidden 8 9".split())
    run(*"train --agent som_paper --config.K 7 --seed 3".split())
    run("train", "--agent=sac", "--no-progress")
    first, second, third = asked
    assert first.config.gamma == 0.98 and first.config.hidden == (8, 9)
    assert str(first.folder) == "runs/sac/Hopper-v5/seed0"
    assert second.config == SOMPaperConfig(K=7) and second.seed == 3
    assert third.agent == "sac" and not third.progress


def test_a_preset_is_where_the_options_start_from(run, asked):
    run(*"train --agent sdac --preset paper --config.K 7".split())
    run(*"train --agent sdac --preset one_core".split())
    run(*"train --agent som_paper --preset one_core".split())
    paper, one_core, reading = (config.config for config in asked)
    assert paper == replace(SDAC.paper, K=7) and one_core == SDACConfig()
    assert reading == SOMPaper.one_core != SOMPaperConfig()


def test_the_recorded_command_makes_the_same_config(run, asked):
    starts = ["som_paper --steps 7000", "sac --utd 0.5", "dipo --preset paper"]
    for start in (f"train --agent {words}" for words in starts):
        run(*start.split())
        run(*asked[-1].command().split()[1:])
        assert asked[-1] == asked[-2]


def test_train_and_evaluate(run, tmp_path):
    folder = str(tmp_path / "run")
    options = "--agent sac --env Pendulum-v1 --steps 60 --start-steps 30 --eval-every 30"
    small = "--eval-episodes 1 --config.hidden 8 --config.batch 8"
    code, out, err = run("train", *options.split(), *small.split(), "--out", folder)
    assert code == 0 and out.strip() == folder and "60/60" in err
    assert Run(folder).curve()["step"].tolist() == [30, 60]
    results = [run("evaluate", folder, "--episodes", "2", "--seed", "4") for _ in range(2)]
    assert results[0] == results[1]
    code, out, err = results[0]
    assert code == 0 and err == "" and out.startswith("Pendulum-v1: return -")
    assert "±" in out and "episodes: 2" in out


def test_a_strangers_run_has_no_module_imported(run, tmp_path, own_module):
    """It names one; only the reader's own --env has it imported, and then it works."""
    task, folder = f"{own_module}:Thermostat-v0", tmp_path / "run"
    small = "--agent sac --config.hidden 8 --config.batch 8 --steps 20 --start-steps 19"
    code, _, err = run("train", "--env", task, *small.split(), "--out", str(folder))
    assert code == 0, err
    sys.modules.pop(own_module)
    code, out, err = run("evaluate", str(folder))
    assert (code, out) == (2, "") and own_module not in sys.modules
    assert err == (
        f"som-lite: {folder} was trained on {task}, and importing tasks runs its code: "
        f"if you trust it, add --env {task}\n"
    )
    gym.registry.pop("Thermostat-v0")
    code, out, _ = run("evaluate", str(folder), "--env", task, "--episodes", "1", "--json")
    assert code == 0 and json.loads(out)["env"] == task and own_module in sys.modules


def test_ctrl_c_is_one_line_too(run, monkeypatch):
    def stop(config):
        raise KeyboardInterrupt("stopped at step 9; the same command continues")

    monkeypatch.setattr(cli, "train", stop)
    assert run("train") == (130, "", "som-lite: stopped at step 9; the same command continues\n")
