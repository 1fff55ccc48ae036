"""The engine of a sweep on several machines: every run is a task of a Ray cluster.

A task trains in its worker's own process, and the run folder lies on a disk that all nodes share.
When the worker or its node dies, the lock on the folder dies with it; Ray gives the task to another
worker, which goes on from the last checkpoint.
"""

import importlib
import os
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any

from som_lite.rl.config import TrainConfig
from som_lite.rl.device import require_device
from som_lite.rl.sweep import POLL_S
from som_lite.rl.train import train

ray: Any = importlib.import_module("ray")  # the extra `cluster`; without it a sweep runs here alone

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported to anybody
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the default of later versions; else it warns
    "RAY_worker_register_timeout_seconds": "600",  # a busy machine starts Ray's parts slowly ...
    "RAY_agent_register_timeout_ms": "600000",  # ... and it would give up after 60 and 30 s
}
LIVES = 4  # so often a run may lose its worker; then it has failed
STOP_S = 60  # how long stopped runs may take to write their checkpoints


def ray_tasks(
    configs: Sequence[TrainConfig], jobs: int, address: str = ""
) -> Generator[dict[int, str], None, None]:
    """Train all on the cluster at ``address``, as many at a time as it has cores.

    Without an address Ray is started on this machine, for ``jobs`` runs at a time.
    """
    if not configs:
        return
    _connect(configs, jobs, address)
    running: dict[Any, int] = {}
    try:
        running = {_task(config): place for place, config in enumerate(configs)}
        while running:
            ended, _ = ray.wait(list(running), num_returns=len(running), timeout=POLL_S)
            yield {running.pop(task): _error(task) for task in ended}
    finally:
        for task in running:
            ray.cancel(task)  # as Ctrl-C: train() writes its checkpoint and ends
        if running:
            ray.wait(list(running), num_returns=len(running), timeout=STOP_S)
        ray.shutdown()


def _connect(configs: Sequence[TrainConfig], jobs: int, address: str) -> None:
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if address:
        ray.init(address, **quiet)
        return
    for device in {config.device for config in configs}:
        require_device(device)  # a task that asks for what no node has would wait for ever
    cores = jobs * max(config.threads for config in configs)
    ray.init("local", num_cpus=cores, include_dashboard=False, **quiet)


def _task(config: TrainConfig) -> Any:
    """Hand a run to the cluster: its threads' cores, a card of its own if it asks for one."""
    there = replace(config, out=str(config.folder.resolve()))  # workers have other directories
    needs = {"num_cpus": config.threads, "num_gpus": int(config.device.startswith("cuda"))}
    return ray.remote(max_calls=1, max_retries=LIVES - 1, **needs)(_train).remote(there)


def _train(config: TrainConfig) -> str:
    """Train in this worker; what went wrong, "" for nothing. A worker makes one run."""
    try:
        train(config)
    except (ValueError, OSError) as error:
        return str(error)
    return ""


def _error(task: Any) -> str:
    try:
        return ray.get(task)
    except ray.exceptions.RayError as error:
        return str(error).strip() or type(error).__name__
