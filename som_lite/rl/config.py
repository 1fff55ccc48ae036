"""The settings of a training run: checked, written to JSON and read back, turned into a command."""

import re
import reprlib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

from som_lite.rl.agents import AGENTS, AgentConfig
from som_lite.rl.agents.common import require

# What may change when a run is continued, because it changes no row that is already written...
FREE = ("steps", "checkpoint_every", "device", "threads")
# ... and what is the reader's own affair, and not recorded at all.
UNRECORDED = ("out", "progress", "restart", "log")
LOGS = ("csv", "tensorboard")
MOST_THREADS = 1024


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one training run. Raises ValueError for a value that cannot work."""

    env: str = "HalfCheetah-v5"  # Gymnasium id of the task
    agent: str = "som"  # algorithm, by its name in som_lite.rl.agents
    steps: int = 1_000_000  # environment steps in all
    seed: int = 0  # decides weights, noise, start states and minibatches
    device: str = "cpu"  # of the networks and the replay buffer: cpu, cuda, cuda:1 ... or mps
    threads: int = 1  # CPU threads; one per run is best, several runs fill the cores
    start_steps: int = 5_000  # first steps taken with uniform random actions, without learning
    utd: float = 1.0  # updates per environment step after that
    capacity: int = 1_000_000  # transitions the replay buffer holds
    eval_every: int = 5_000  # steps from one row of the curve to the next
    eval_episodes: int = 10  # episodes averaged in a row
    checkpoint_every: int = 50_000  # steps between checkpoints; Ctrl-C always writes one
    out: str = ""  # run folder; empty means runs/<agent>/<env>/seed<seed>
    progress: bool = True  # show a progress bar on stderr
    log: str = "csv"  # csv, or tensorboard: both, with the policy's actions
    restart: bool = False  # throw away what the run folder holds and begin anew
    config: AgentConfig | None = None  # settings of the agent; None: its defaults

    def __post_init__(self) -> None:
        require(self.agent in AGENTS, "agent", self.agent, f"one of {', '.join(AGENTS)}")
        for name in ("steps", "threads", "capacity", "eval_every", "eval_episodes"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("seed", "start_steps", "utd"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        require(self.utd < float("inf"), "utd", self.utd, "finite")
        require(self.threads <= MOST_THREADS, "threads", self.threads, f"at most {MOST_THREADS}")
        require(self.checkpoint_every >= 1, "checkpoint_every", self.checkpoint_every, "at least 1")
        below = f"below steps ({self.steps}), or nothing is learnt"
        require(self.start_steps < self.steps, "start_steps", self.start_steps, below)
        device = re.fullmatch(r"cpu|cuda(:\d+)?|mps", self.device)
        require(bool(device), "device", self.device, "cpu, cuda, cuda:N or mps")
        require(self.log in LOGS, "log", self.log, f"one of {', '.join(LOGS)}")
        kind = AGENTS[self.agent][0]
        if self.config is None:
            object.__setattr__(self, "config", kind())
        elif not isinstance(self.config, kind):
            raise ValueError(
                f"config must be a {kind.__name__} for agent {self.agent!r}, "
                f"got a {type(self.config).__name__}"
            )

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.out or f"runs/{self.agent}/{self.env}/seed{self.seed}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON (tuples become lists), without what concerns one machine only."""
        return {k: v for k, v in _listed(asdict(self)).items() if k not in UNRECORDED}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainConfig":
        """The inverse of `to_dict`. Raises ValueError for settings this version does not have."""
        try:
            kind = AGENTS[values["agent"]][0]
            inner = {k: _tupled(v) for k, v in values["config"].items()}
            for owner, given in ((cls, values), (kind, values["config"])):
                _check_types(owner, given)
            if missing := [f.name for f in fields(kind) if f.name not in inner]:
                raise TypeError(f"no {', '.join(missing)}")  # a default would be a guess
            return cls(**values | {"config": kind(**inner)})
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"settings of another version of som_lite: {error}") from error

    def differences(self, other: "TrainConfig") -> list[str]:
        """What keeps `other` from continuing a run of this config, as `name: this -> other`."""
        mine, theirs = leaves(self.to_dict()), leaves(other.to_dict())
        return [
            f"{name}: {mine.get(name)} -> {theirs.get(name)}"
            for name in sorted(mine.keys() | theirs.keys())
            if name not in FREE and mine.get(name) != theirs.get(name)
        ]

    def command(self) -> str:
        """The command that makes this run: the task, the agent, and whatever is not a default."""
        default = TrainConfig(env=self.env, agent=self.agent)
        plain = leaves(default.to_dict())
        words = ["som-lite train", f"--env {self.env}", f"--agent {self.agent}"]
        for name, value in leaves(self.to_dict()).items():
            if name in ("steps", "seed") or value != plain[name]:
                words.append(_option(name, value))
        return " ".join(words)


def _check_types(owner: type, given: dict[str, Any]) -> None:
    """Raise TypeError for a value of another type than the field it is meant for."""
    for field in fields(owner):  # pyright: ignore[reportArgumentType]
        if field.name in given and field.name != "config":
            value = given[field.name]
            if not _is_of(_tupled(value), field.type):
                raise TypeError(f"{field.name} is {reprlib.repr(value)}")


def _is_of(value: Any, kind: Any) -> bool:
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_is_of(x, get_args(kind)[0]) for x in value)
    if isinstance(kind, UnionType):
        return any(_is_of(value, x) for x in get_args(kind))
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def leaves(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one flat dict, with names such as config.gamma."""
    flat = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= leaves(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _option(name: str, value: Any) -> str:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        head, _, last = flag.rpartition(".")
        return f"--{head}{'.' if head else ''}{'' if value else 'no-'}{last}"
    return f"--{flag} {' '.join(map(str, value)) if isinstance(value, list) else value}"


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _listed(v) for k, v in value.items()}
    return [_listed(v) for v in value] if isinstance(value, (list, tuple)) else value


def _tupled(value: Any) -> Any:
    return tuple(_tupled(v) for v in value) if isinstance(value, list) else value
