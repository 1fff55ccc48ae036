"""A run folder: what was asked for, what came out, and everything needed to go on.

config.json               command, settings, seed, commit, versions, hardware, wall time, hashes
curve.csv                 one row per evaluation
policy.safetensors        the networks that `act` needs
policy_best.safetensors   the same as they were in the row with the highest return
checkpoint/               the exact state of training; not part of a recorded run
tensorboard/              the curve once more, where --log tensorboard asked for it
"""

import csv
import shutil
from array import array
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from som_lite.rl.agents import AGENTS
from som_lite.rl.agents.base import QAgent as Agent
from som_lite.rl.agents.common import flatten, unflatten
from som_lite.rl.checkpoint import Checkpoints
from som_lite.rl.config import TrainConfig
from som_lite.rl.files import (
    atomic,
    own_file,
    read_json,
    read_tensors,
    sha256,
    write_json,
    write_tensors,
)
from som_lite.rl.finite import not_finite
from som_lite.rl.provenance import commit, describe

Row = dict[str, int | float]  # of the learning curve
CURVE, POLICY, BEST = "curve.csv", "policy.safetensors", "policy_best.safetensors"
BOARD = "tensorboard"  # folder
LIMITS = {"config.json": 2**20, CURVE: 2**25, POLICY: 2**28, BEST: 2**28}  # bytes
BEGUN = {"checkpoint", "config.json.tmp"}  # what a run leaves that was killed as it began
LARGEST = 100_000  # setting of an agent that is loaded, so that acting cannot fill the memory


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
            others = folder.is_dir() and {p.name for p in folder.iterdir()} - BEGUN
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
        for name in LIMITS:
            (folder / f"{name}.tmp").unlink(missing_ok=True)  # half written by a killed process
        if config.restart:
            Checkpoints(folder / "checkpoint").clear()
            if (folder / BOARD).exists():
                shutil.rmtree(folder / BOARD)
            for name in (CURVE, POLICY, BEST, "config.json"):
                (folder / name).unlink(missing_ok=True)
        if not (folder / "config.json").exists():
            write_json(folder / "config.json", describe(config, commit()))
        return cls(folder)

    @property
    def checkpoints(self) -> Checkpoints:
        """The checkpoints of the run, if it has any."""
        return Checkpoints(self.folder / "checkpoint")

    def info(self) -> dict[str, Any]:
        """Everything in config.json. Raises ValueError when that is not what a run writes."""
        info = read_json(own_file(self.folder, "config.json", LIMITS["config.json"]))
        if not isinstance(info.get("config"), dict):
            raise ValueError(f"{self.folder / 'config.json'} is damaged: it holds no settings")
        return info

    def config(self) -> TrainConfig:
        """The settings of the run."""
        return TrainConfig.from_dict(self.info()["config"])

    def curve(self) -> dict[str, np.ndarray]:
        """The learning curve: column name -> values (NaN where nothing was logged)."""
        path = self._file(CURVE, "the run has not been evaluated yet")
        try:
            with path.open(newline="", encoding="utf-8") as file:
                names, *rows = csv.reader(file)
            if not {"step", "return_mean"} <= set(names):
                raise ValueError("no columns step and return_mean")
            table = [array("d", (float(x or "nan") for x in row)) for row in rows]
            if not rows:
                raise ValueError("no row after the names")
            columns = zip(*table, strict=True)
            return dict(zip(names, map(np.array, columns), strict=True))
        except (ValueError, csv.Error) as error:
            raise ValueError(f"{path} is damaged: {error}") from error

    def load_agent(self, device: str = "cpu", best: bool = False) -> Agent:
        """The trained agent, fit to act and to be looked at (to train on, resume the run).

        As it was last, or as it was in the best row of the curve.
        """
        path = self._file(BEST if best else POLICY, "the run has not written a policy yet")
        state, sizes = read_tensors(path)
        config = self.config()
        _require_modest(path, config, sizes, sum(x.numel() for x in state.values()))
        if bad := not_finite(state):
            raise ValueError(f"{path} is damaged: {bad[0]} is not finite")
        agent = AGENTS[config.agent][1](
            sizes["obs_dim"], sizes["act_dim"], config.config, seed=config.seed, device=device
        )
        try:
            unflatten(state, _policy(agent))
        except (RuntimeError, KeyError) as error:
            reason = str(error).splitlines()[-1].strip()
            raise ValueError(f"{path} does not fit the settings of its run: {reason}") from error
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
        known = describe(config, self.info()["commit"])
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
        half = {k: _halved(x) for k, x in state.items()}
        write_tensors(folder / POLICY, half, sizes)
        hashes = {name: sha256(folder / name) for name in (CURVE, POLICY)}
        write_json(folder / "config.json", self.info() | {"sha256": hashes})
        return Run(folder)

    def _file(self, name: str, otherwise: str) -> Path:
        try:
            return own_file(self.folder, name, LIMITS[name])
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error}: {otherwise}") from None


def _halved(x: Tensor) -> Tensor:
    """In half precision where that holds it: a running variance may be larger than 65504."""
    return x.half() if x.is_floating_point() and x.abs().max() < 6e4 else x


def load_agent(run: "Run | str | Path", device: str = "cpu") -> Agent:
    """The agent of a run, given the run or its folder."""
    return (run if isinstance(run, Run) else Run(run)).load_agent(device)


def _policy(agent: Agent) -> dict[str, Any]:
    return {name: part for name, part in agent.parts().items() if name in agent.policy_parts}


def _require_modest(path: Path, config: TrainConfig, sizes: dict, numbers: int) -> None:
    """Raise ValueError for an agent larger than its file: absurd settings must not fill memory."""
    inner = vars(config.config)
    widths = [sizes.get("obs_dim"), *inner["hidden"], sizes.get("act_dim")]
    if not all(isinstance(x, int) and 0 <= x <= LARGEST for x in widths):
        raise ValueError(f"{path} is damaged: its sizes are {sizes}")
    settings = [x for x in inner.values() if isinstance(x, int)]
    if max(settings, default=0) > LARGEST or len(widths) > 100:
        raise ValueError(f"{path.parent} is refused: settings of its agent are above {LARGEST:,}")
    if (needed := sum(a * b for a, b in pairwise(widths))) > numbers:
        raise ValueError(f"{path} does not fit its settings: {numbers} numbers of {needed}")
