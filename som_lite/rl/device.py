"""Can this machine do what is asked? Settled before anything is written."""

from pathlib import Path

import torch
from gymnasium.spaces import flatdim

from som_lite.rl.agents import AGENTS
from som_lite.rl.config import TrainConfig
from som_lite.rl.envs import make_env
from som_lite.rl.replay import Batch

GB = 1e9


def check_machine(config: TrainConfig) -> str:
    """Make the environment, try the device, weigh the replay buffer; what the buffer takes.

    Raises ValueError for an environment that cannot be made, a device that cannot run the agent,
    and a buffer larger than the memory that is free.
    """
    env = make_env(config.env)
    sizes = flatdim(env.observation_space), flatdim(env.action_space)
    env.close()
    check_device(config, *sizes)
    return check_memory(config, *sizes)


def check_device(config: TrainConfig, obs_dim: int, act_dim: int) -> None:
    """Run one update of the agent on a device other than the CPU. Raises ValueError if it fails."""
    if config.device == "cpu":
        return
    try:
        agent = AGENTS[config.agent][1](obs_dim, act_dim, config.config, device=config.device)
        widths = ((obs_dim,), (act_dim,), (), (obs_dim,), ())
        agent.update(Batch(*(torch.zeros(2, *w, device=config.device) for w in widths)))
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"device {config.device!r} cannot run agent {config.agent!r} here ({reason}): "
            "use --device cpu"
        ) from error


def require_device(name: str) -> None:
    """Raise ValueError for a device that is not here."""
    try:
        torch.zeros(1, device=name)
        torch.Generator(name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} cannot be used here ({reason})") from error


def check_memory(config: TrainConfig, obs_dim: int, act_dim: int) -> str:
    """What the replay buffer takes of what is free. Raises ValueError when it is more than that."""
    rows = min(config.capacity, config.steps)
    needed, free = 4 * rows * (2 * obs_dim + act_dim + 2), free_memory(config.device)
    text = f"replay buffer: {rows:,} transitions, {needed / GB:.2f} GB"
    if free is None:
        return text
    if needed > free:
        fits = int(free * rows // needed)
        raise ValueError(
            f"{text} are more than the {free / GB:.2f} GB that are free: "
            f"choose a --capacity below {fits:,}"
        )
    return f"{text} of {free / GB:.2f} GB free"


def free_memory(device: str = "cpu") -> int | None:
    """Bytes that can still be taken, or None where the system does not tell."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    limits = [x for x in (_meminfo(), _cgroup()) if x is not None]
    return min(limits, default=None)


def _meminfo(path: Path = Path("/proc/meminfo")) -> int | None:
    if not path.exists():
        return None
    lines = path.read_text(encoding="utf-8").splitlines()
    available = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(available[0]) * 1024 if available else None


def _cgroup(folder: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What a container may still take (cgroup v2); pages that only cache files are not counted."""
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return None if limit == "max" else int(limit) - used + int(stat["inactive_file"])
    except (OSError, ValueError, KeyError):
        return None
