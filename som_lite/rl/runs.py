"""A run folder: what was asked for, what came out, and everything needed to go on.

    config.json          command, settings, seed, commit, versions, hardware, wall time, hashes
    curve.csv            one row per evaluation
    policy.safetensors   the networks that `act` needs
    checkpoint/          the exact state of training; not part of a recorded run

Nothing here is a pickle: reading a run folder cannot run code. Every file is written beside its
place and then moved there, so that a run killed at any moment leaves whole files.
"""

import csv
import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from som_lite.rl.agents import AGENTS
from som_lite.rl.agents.base import QAgent as Agent
from som_lite.rl.agents.common import flatten, unflatten
from som_lite.rl.config import TrainConfig

PACKAGES = ("som_lite", "torch", "numpy", "gymnasium", "mujoco")
Row = dict[str, int | float]  # of the learning curve
HASHED = ("curve.csv", "policy.safetensors")


class Run:
    """A folder that holds a run. Raises FileNotFoundError when it does not hold one."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        if not (self.folder / "config.json").is_file():
            raise FileNotFoundError(f"not a run folder (no config.json in it): {self.folder}")

    @classmethod
    def create(cls, config: TrainConfig) -> "Run":
        """The folder of `config`, new or holding a run that `config` continues.

        Raises ValueError, and touches nothing, when the folder holds anything else.
        """
        folder = config.folder
        if (folder / "config.json").exists():
            if differences := cls(folder).config().differences(config):
                raise ValueError(
                    f"{folder} holds a run with other settings ({'; '.join(differences)}): "
                    "choose another --out"
                )
        elif folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
            raise ValueError(f"{folder} is not empty and is not a run: choose another --out")
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "config.json").exists():
            _write_json(folder / "config.json", _describe(config))
        return cls(folder)

    def info(self) -> dict[str, Any]:
        """Everything in config.json. Raises ValueError when that is not what a run writes."""
        path = self.folder / "config.json"
        try:
            info = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}") from error
        if not isinstance(info, dict) or not isinstance(info.get("config"), dict):
            raise ValueError(f"{path} was not written by a run: it holds no settings")
        return info

    def config(self) -> TrainConfig:
        """The settings of the run."""
        return TrainConfig.from_dict(self.info()["config"])

    def curve(self) -> dict[str, np.ndarray]:
        """The learning curve: column name -> values (NaN where nothing was logged)."""
        path = self._file("curve.csv", "the run has not been evaluated yet")
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return {k: np.array([float(row[k] or "nan") for row in rows]) for k in rows[0]}

    def load_agent(self, device: str = "cpu") -> Agent:
        """The trained agent, fit to act and to be looked at (to train on, resume the run)."""
        path = self._file("policy.safetensors", "the run has not written a policy yet")
        state, sizes = _read_tensors(path)
        config = self.config()
        agent = AGENTS[config.agent][1](
            sizes["obs_dim"], sizes["act_dim"], config.config, seed=config.seed, device=device
        )
        unflatten(state, _policy(agent))
        return agent

    def save_policy(self, agent: Agent, obs_dim: int, act_dim: int) -> None:
        """Write policy.safetensors."""
        sizes = {"obs_dim": obs_dim, "act_dim": act_dim}
        _write_tensors(self.folder / "policy.safetensors", flatten(_policy(agent)), sizes)

    def save_curve(self, rows: list[Row]) -> None:
        """Write curve.csv: one line per row, a column for every name that any row has."""
        columns = list(dict.fromkeys(name for row in rows for name in row))
        path = self.folder / "curve.csv"
        with _atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    def save_checkpoint(self, tensors: dict[str, Tensor], counters: dict[str, Any]) -> None:
        """Write the state of training as one file."""
        (self.folder / "checkpoint").mkdir(exist_ok=True)
        _write_tensors(self._checkpoint, tensors, counters)

    def load_checkpoint(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What `save_checkpoint` was given, or None when there is no checkpoint yet."""
        return _read_tensors(self._checkpoint) if self._checkpoint.exists() else None

    def describe(self, config: TrainConfig, wall_s: float) -> None:
        """Rewrite config.json with what is known now: wall time and hashes.

        The commit stays the one that began the run: the tree may have changed since it was loaded.
        """
        hashes = {n: _sha256(self.folder / n) for n in HASHED if (self.folder / n).exists()}
        known = _describe(config) | {"commit": self.info()["commit"]}
        known |= {"wall_s": round(wall_s, 1), "sha256": hashes}
        _write_json(self.folder / "config.json", known)

    def publish(self, root: str | Path) -> "Run":
        """Copy the part worth recording to root/<agent>/<env>/seed<k> and return that run.

        The policy is stored in half precision: a weight moves by at most 1 part in 2048, far less
        than one Adam step moved it, and the file is half as large. Raises FileExistsError when
        the destination exists.
        """
        config = self.config()
        folder = Path(root) / config.agent / config.env / f"seed{config.seed}"
        folder.mkdir(parents=True)
        shutil.copy(self._file("curve.csv", "the run has not been evaluated yet"), folder)
        path = self._file("policy.safetensors", "the run has not written a policy yet")
        state, sizes = _read_tensors(path)
        half = {k: x.half() if x.is_floating_point() else x for k, x in state.items()}
        _write_tensors(folder / "policy.safetensors", half, sizes)
        hashes = {name: _sha256(folder / name) for name in HASHED}
        _write_json(folder / "config.json", self.info() | {"sha256": hashes})
        return Run(folder)

    @property
    def _checkpoint(self) -> Path:
        return self.folder / "checkpoint" / "state.safetensors"

    def _file(self, name: str, otherwise: str) -> Path:
        path = self.folder / name
        if not path.is_file():
            raise FileNotFoundError(f"no {name} in {self.folder}: {otherwise}")
        return path


def load_agent(run: "Run | str | Path", device: str = "cpu") -> Agent:
    """The agent of a run, given the run or its folder."""
    return (run if isinstance(run, Run) else Run(run)).load_agent(device)


def _policy(agent: Agent) -> dict[str, Any]:
    return {name: part for name, part in agent.parts().items() if name in agent.policy_parts}


def _describe(config: TrainConfig) -> dict[str, Any]:
    return {
        "command": config.command(),
        "config": config.to_dict(),
        "seed": config.seed,
        "commit": _commit(),
        "packages": {"python": platform.python_version()} | _versions(),
        "hardware": _hardware(config.device),
    }


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"  # imported from a source tree
    return versions


def _commit() -> str | None:
    """The commit of the source tree, marked when files differ from it; None outside a checkout."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _hardware(device: str) -> str:
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        name = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), name)
    gpu = f", {torch.cuda.get_device_name(device)}" if device.startswith("cuda") else ""
    return f"{name}, {os.cpu_count()} cores{gpu}"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def _atomic(path: Path) -> Iterator[Path]:
    temporary = path.with_name(path.name + ".tmp")
    yield temporary
    os.replace(temporary, path)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    with _atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _write_tensors(path: Path, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """Tensors and JSON values in one file, the values under one key: several come unordered."""
    tensors = {k: x.detach().cpu().contiguous() for k, x in tensors.items()}
    with _atomic(path) as temporary:
        save_file(tensors, temporary, metadata={"json": json.dumps(values)})
        temporary.chmod(0o644)  # safetensors would keep it from other readers


def _read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            return tensors, json.loads(file.metadata()["json"])
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
