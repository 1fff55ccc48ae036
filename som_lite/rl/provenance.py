"""Where a run comes from: its command, the versions of everything, the machine."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from som_lite.rl.config import TrainConfig

PACKAGES = ("som_lite", "torch", "numpy", "gymnasium", "mujoco")


def describe(config: TrainConfig, of: str | None) -> dict[str, Any]:
    """What config.json tells of a run that commit `of` began."""
    return {
        "command": config.command(),
        "config": config.to_dict(),
        "seed": config.seed,
        "commit": of,
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


def commit() -> str | None:
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
