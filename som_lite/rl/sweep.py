"""Many runs: every agent on every task with every seed and setting, as processes side by side.

Each run is a `som-lite train` of its own, so whatever stops a sweep, the same command continues it.
"""

import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

from tqdm import tqdm

from som_lite.rl.agents.common import require
from som_lite.rl.config import TrainConfig
from som_lite.rl.runs import Run
from som_lite.rl.train import BAR

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


def variants(vary: Sequence[Sequence[str]]) -> Iterator[tuple[str, list[str]]]:
    """Every combination of --vary NAME VALUE ...: a part of the folder's name, and the options.

    Raises ValueError for a name without values.
    """
    for words in vary:
        require(len(words) >= 2, "vary", " ".join(words), "a name and its values")
    names = [words[0].lstrip("-") for words in vary]
    for values in product(*(words[1:] for words in vary)):
        pairs = list(zip(names, values, strict=True))
        place = ",".join(f"{name.rpartition('.')[2]}={value}" for name, value in pairs)
        options = [word for name, value in pairs for word in (f"--{name}", *value.split())]
        yield (f"/{place}" if place else ""), options


def sweep(configs: Sequence[TrainConfig], jobs: int, progress: bool = False) -> list[TrainConfig]:
    """Train all, at most ``jobs`` at a time; print a line as each ends. Returns those that failed.

    Runs that are finished are skipped. ``progress`` shows one bar on stderr for all of them.
    Ctrl-C stops every process after its checkpoint and raises KeyboardInterrupt.
    """
    require(jobs >= 1, "jobs", jobs, "at least 1")
    waiting, running, failed = list(configs), {}, []
    bar = tqdm(
        total=sum(c.steps for c in configs),
        initial=sum(map(steps_done, configs)),
        disable=not progress,
        bar_format=BAR,
        desc="sweep",
        unit="step",
    )
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                config = waiting.pop(0)
                if is_finished(config):
                    _tell(config, f"{_last_return(config)}, as it was")
                else:
                    running[_start(config)] = config
            time.sleep(POLL_S)
            for process in [p for p in running if p.poll() is not None]:
                config = running.pop(process)
                error = process.communicate()[1].strip()
                if process.returncode:
                    failed.append(config)
                    _tell(config, f"FAILED: {error or process.returncode}")
                else:
                    _tell(config, _last_return(config))
            counts = {"running": running, "waiting": waiting, "failed": failed}
            bar.set_postfix_str("".join(f", {len(x)} {name}" for name, x in counts.items()))
            bar.update(sum(map(steps_done, configs)) - bar.n)
    except KeyboardInterrupt:
        for process in running:
            process.terminate()  # train() writes its checkpoint and ends
        for process in running:
            process.wait()
        raise KeyboardInterrupt("stopped; the same command continues") from None
    finally:
        bar.close()
    return failed


def steps_done(config: TrainConfig) -> int:
    """Steps of a run up to its last row."""
    try:
        return min(config.steps, int(Run(config.folder).curve()["step"][-1]))
    except (OSError, ValueError, IndexError):
        return 0


def is_finished(config: TrainConfig) -> bool:
    """Does the folder hold this very run with all its steps?"""
    whole = steps_done(config) == config.steps
    return whole and not Run(config.folder).config().differences(config)


def script(configs: Sequence[TrainConfig]) -> str:
    """The commands of all runs, one a line, for a cluster's own queue."""
    return "\n".join(shlex.join(train_command(config)) for config in configs)


def _start(config: TrainConfig) -> subprocess.Popen:
    words = [sys.executable, "-m", "som_lite.rl.cli", *train_command(config)[1:]]
    # a session of its own: Ctrl-C in the terminal reaches the sweep, which stops the runs once
    return subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def _tell(config: TrainConfig, text: str) -> None:
    tqdm.write(f"{config.out}: {text}")


def _last_return(config: TrainConfig) -> str:
    curve = Run(config.out).curve()
    return f"return {curve['return_mean'][-1]:.1f} after {curve['step'][-1]:.0f} steps"
