"""What this machine cannot do is refused before a folder exists."""

import re
from dataclasses import replace

import pytest
import torch

from som_lite.rl import device
from som_lite.rl.agents import SACConfig
from som_lite.rl.config import TrainConfig
from som_lite.rl.device import check_machine, check_memory, free_memory
from som_lite.rl.train import train

CONFIG = TrainConfig("Glider-v0", "sac", config=SACConfig(hidden=(8,)), progress=False)


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "CUDA", "meta", ""])
def test_a_device_that_is_none(name):
    with pytest.raises(ValueError, match="device must be cpu, cuda, cuda:N or mps, got"):
        replace(CONFIG, device=name)


@pytest.mark.parametrize("name", ["cuda:9", "mps"])
def test_a_device_that_is_not_here(tmp_path, name):
    if name == "mps" and torch.backends.mps.is_available():
        pytest.skip("it is here")
    with pytest.raises(ValueError, match=f"device '{name}' cannot run agent 'sac' here") as error:
        train(replace(CONFIG, device=name, out=str(tmp_path / "run")))
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


def test_a_buffer_larger_than_memory(tmp_path):
    huge = replace(CONFIG, capacity=10**13, steps=10**13, out=str(tmp_path / "run"))
    with pytest.raises(ValueError, match=r"10,000,000,000,000 transitions, 280000.00 GB are more"):
        train(huge)
    assert not (tmp_path / "run").exists()


def test_the_capacity_that_is_named_fits(monkeypatch):
    monkeypatch.setattr(device, "free_memory", lambda name: 10**6)
    with pytest.raises(ValueError) as error:
        check_memory(CONFIG, 2, 1)
    fits = int(re.search(r"below ([\d,]+)", str(error.value))[1].replace(",", ""))
    assert check_memory(replace(CONFIG, capacity=fits), 2, 1)
    # 7 numbers of 4 bytes a transition
    assert fits == 10**6 // 28


def test_what_the_buffer_takes_is_said(capsys, tmp_path):
    config = replace(CONFIG, steps=20, start_steps=19, eval_episodes=1, out=str(tmp_path / "run"))
    assert check_machine(config).startswith("replay buffer: 20 transitions, 0.00 GB")
    train(replace(config, progress=True))
    assert capsys.readouterr().err.startswith("replay buffer: 20 transitions")


def test_a_container_s_limit_counts(tmp_path):
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 150\n")
    assert device._cgroup(tmp_path) == 450
    (tmp_path / "memory.max").write_text("max\n")
    assert device._cgroup(tmp_path) is None
    assert device._cgroup(tmp_path / "none") is None


def test_free_memory_is_some_of_what_the_machine_has():
    free = free_memory()
    assert free is None or 0 < free < 2**50
