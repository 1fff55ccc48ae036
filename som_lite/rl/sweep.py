"""Many runs: every agent on every task with every seed, as processes side by side.

Each run is a `som-lite train` of its own, so whatever stops a sweep, the same command continues it.
"""

import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from som_lite.rl.agents.common import require
from som_lite.rl.config import TrainConfig
from som_lite.rl.runs import Run

POLL_S = 0.2  # between two looks at the processes


def grid(
    base: Sequence[TrainConfig], envs: Sequence[str], seeds: Sequence[int], out: str = "runs"
) -> list[TrainConfig]:
    """One config per task, seed and base (one base per agent), folder out/<agent>/<env>/seed<k>.

    Seed by seed, so that a sweep cut short has whole comparisons. Raises ValueError for an empty
    list.
    """
    for name, values in (("agents", base), ("envs", envs), ("seeds", seeds)):
        require(len(values) > 0, name, list(values), "one or more")
    return [
        replace(c, env=env, seed=seed, out=f"{out}/{c.agent}/{env}/seed{seed}", progress=False)
        for seed, env, c in product(seeds, envs, base)
    ]


def train_command(config: TrainConfig) -> list[str]:
    """The words of the `som-lite train` that makes one run of a sweep."""
    return [*config.command().split(), "--out", config.out, "--no-progress"]


def sweep(configs: Sequence[TrainConfig], jobs: int) -> list[TrainConfig]:
    """Train all, at most ``jobs`` at a time; print a line as each ends. Returns those that failed.

    Ctrl-C stops every process after its checkpoint and raises KeyboardInterrupt.
    """
    require(jobs >= 1, "jobs", jobs, "at least 1")
    waiting, running, failed = list(configs), {}, []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                config = waiting.pop(0)
                running[_start(config)] = config
            time.sleep(POLL_S)
            for process in [p for p in running if p.poll() is not None]:
                config = running.pop(process)
                error = process.communicate()[1].strip()
                print(f"{config.out}: {error or _last_return(config)}", flush=True)
                if process.returncode:
                    failed.append(config)
    except KeyboardInterrupt:
        for process in running:
            process.terminate()  # train() writes its checkpoint and ends
        for process in running:
            process.wait()
        raise KeyboardInterrupt("stopped; the same command continues") from None
    return failed


def summary(configs: Sequence[TrainConfig]) -> str:
    """Per task and agent: mean and standard deviation over the seeds of the last row's return."""
    lines = []
    for env, agent in dict.fromkeys((c.env, c.agent) for c in configs):
        runs = [Run(c.out) for c in configs if (c.env, c.agent) == (env, agent)]
        last = np.array([run.curve()["return_mean"][-1] for run in runs])
        lines.append(
            f"{env:28} {agent:4} {last.mean():9.1f} ± {last.std():.1f}  seeds: {len(last)}"
        )
    return "\n".join(lines)


def script(configs: Sequence[TrainConfig]) -> str:
    """The commands of all runs, one a line, for a cluster's own queue."""
    return "\n".join(shlex.join(train_command(config)) for config in configs)


def _start(config: TrainConfig) -> subprocess.Popen:
    words = [sys.executable, "-m", "som_lite.rl.cli", *train_command(config)[1:]]
    # a session of its own: Ctrl-C in the terminal reaches the sweep, which stops the runs once
    return subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def _last_return(config: TrainConfig) -> str:
    curve = Run(config.out).curve()
    return f"return {curve['return_mean'][-1]:.1f} after {curve['step'][-1]:.0f} steps"
