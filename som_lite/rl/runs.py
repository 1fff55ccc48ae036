"""A run folder: what was asked for, what came out, and everything needed to go on.

config.json               command, settings, seed, commit, versions, hardware, wall time, hashes
curve.csv                 one row per evaluation
policy.safetensors        the networks that `act` needs
policy_best.safetensors   the same as they were in the row with the highest return
checkpoint/               the exact state of training; not part of a recorded run
"""

import csv
import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from som_lite.rl.agents import AGENTS
from som_lite.rl.agents.base import QAgent as Agent
from som_lite.rl.agents.common import flatten, unflatten
from som_lite.rl.checkpoint import Checkpoints
from som_lite.rl.config import TrainConfig
from som_lite.rl.files import atomic, read_json, read_tensors, sha256, write_json, write_tensors

PACKAGES = ("som_lite", "torch", "numpy", "gymnasium", "mujoco")
Row = dict[str, int | float]  # of the learning curve
CURVE, POLICY, BEST = "curve.csv", "policy.safetensors", "policy_best.safetensors"


class Run:
    """A folder that holds a run. Raises FileNotFoundError when it does not hold one."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        if not (self.folder / "config.json").is_file():
            raise FileNotFoundError(f"not a run folder (no config.json in it): {self.folder}")

    @classmethod
    def check(cls, config: TrainConfig) -> None:
        """Raise ValueError unless the folder of `config` is free or holds a run it continues."""
        folder = config.folder
        if not (folder / "config.json").exists():
            others = folder.is_dir() and {p.name for p in folder.iterdir()} - {"checkpoint"}
            if others or (folder.exists() and not folder.is_dir()):
                raise ValueError(f"{folder} is not empty and is not a run: choose another --out")
        elif not config.restart:
            if differences := cls(folder).config().differences(config):
                raise ValueError(
                    f"{folder} holds a run with other settings ({'; '.join(differences)}): "
                    "choose another --out, or --restart"
                )
            results = [name for name in (CURVE, POLICY) if (folder / name).exists()]
            if results and not cls(folder).checkpoints.steps():
                raise ValueError(
                    f"{folder} holds results ({', '.join(results)}) but no checkpoint to go on "
                    "from: choose another --out, or --restart to throw them away"
                )

    @classmethod
    def create(cls, config: TrainConfig) -> "Run":
        """The folder of `config`, new, emptied by `restart`, or holding a run that it continues.

        Raises ValueError, and touches nothing, when the folder holds anything else.
        """
        cls.check(config)
        folder = config.folder
        folder.mkdir(parents=True, exist_ok=True)
        if config.restart:
            Checkpoints(folder / "checkpoint").clear()
            for name in (CURVE, POLICY, BEST, "config.json"):
                (folder / name).unlink(missing_ok=True)
        if not (folder / "config.json").exists():
            write_json(folder / "config.json", _describe(config, _commit()))
        return cls(folder)

    @property
    def checkpoints(self) -> Checkpoints:
        """The checkpoints of the run, if it has any."""
        return Checkpoints(self.folder / "checkpoint")

    def info(self) -> dict[str, Any]:
        """Everything in config.json. Raises ValueError when that is not what a run writes."""
        info = read_json(self.folder / "config.json")
        if not isinstance(info.get("config"), dict):
            raise ValueError(f"{self.folder / 'config.json'} is damaged: it holds no settings")
        return info

    def config(self) -> TrainConfig:
        """The settings of the run."""
        return TrainConfig.from_dict(self.info()["config"])

    def curve(self) -> dict[str, np.ndarray]:
        """The learning curve: column name -> values (NaN where nothing was logged)."""
        path = self._file(CURVE, "the run has not been evaluated yet")
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return {k: np.array([float(row[k] or "nan") for row in rows]) for k in rows[0]}

    def load_agent(self, device: str = "cpu", best: bool = False) -> Agent:
        """The trained agent, fit to act and to be looked at (to train on, resume the run).

        As it was last, or as it was in the best row of the curve.
        """
        path = self._file(BEST if best else POLICY, "the run has not written a policy yet")
        state, sizes = read_tensors(path)
        config = self.config()
        agent = AGENTS[config.agent][1](
            sizes["obs_dim"], sizes["act_dim"], config.config, seed=config.seed, device=device
        )
        unflatten(state, _policy(agent))
        return agent

    def save_policy(self, agent: Agent, obs_dim: int, act_dim: int, name: str = POLICY) -> None:
        """Write the networks that `act` needs."""
        sizes = {"obs_dim": obs_dim, "act_dim": act_dim}
        write_tensors(self.folder / name, flatten(_policy(agent)), sizes)

    def save_curve(self, rows: list[Row]) -> None:
        """Write curve.csv: one line per row, a column for every name that any row has."""
        columns = list(dict.fromkeys(name for row in rows for name in row))
        path = self.folder / CURVE
        with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    def describe(self, config: TrainConfig, wall_s: float) -> None:
        """Rewrite config.json with what is known now: wall time and hashes.

        The commit stays the one that began the run: the tree may have changed since it was loaded.
        """
        names = [n for n in (CURVE, POLICY, BEST) if (self.folder / n).exists()]
        hashes = {n: sha256(self.folder / n) for n in names}
        known = _describe(config, self.info()["commit"])
        known |= {"wall_s": round(wall_s, 1), "sha256": hashes}
        write_json(self.folder / "config.json", known)

    def publish(self, root: str | Path) -> "Run":
        """Copy the part worth recording to root/<agent>/<env>/seed<k> and return that run.

        The policy is stored in half precision: a weight moves by at most 1 part in 2048, far less
        than one Adam step moved it, and the file is half as large. Raises FileExistsError when
        the destination exists.
        """
        config = self.config()
        folder = Path(root) / config.agent / config.env / f"seed{config.seed}"
        folder.mkdir(parents=True)
        shutil.copy(self._file(CURVE, "the run has not been evaluated yet"), folder)
        path = self._file(POLICY, "the run has not written a policy yet")
        state, sizes = read_tensors(path)
        half = {k: x.half() if x.is_floating_point() else x for k, x in state.items()}
        write_tensors(folder / POLICY, half, sizes)
        hashes = {name: sha256(folder / name) for name in (CURVE, POLICY)}
        write_json(folder / "config.json", self.info() | {"sha256": hashes})
        return Run(folder)

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


def _describe(config: TrainConfig, commit: str | None) -> dict[str, Any]:
    return {
        "command": config.command(),
        "config": config.to_dict(),
        "seed": config.seed,
        "commit": commit,
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
