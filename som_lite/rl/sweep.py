"""Many runs: every agent on every task with every seed and setting, several at a time.

Each run is a training of its own in a folder of its own, so whatever stops a sweep, the same
command continues it. An engine trains them: `processes` here, `ray_tasks` in `cluster.py`.
"""

import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import product

from tqdm import tqdm

from som_lite.rl.agents.common import require
from som_lite.rl.config import TrainConfig
from som_lite.rl.runs import Run
from som_lite.rl.train import BAR

# Trains all runs that it is given, and yields every POLL_S what has ended since: the run's place in
# the list -> what went wrong, "" for nothing. Closed early, it stops the rest at a checkpoint.
Engine = Callable[[Sequence[TrainConfig]], Generator[dict[int, str], None, None]]
POLL_S = 0.2


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
    log = [] if config.log == "csv" else ["--log", config.log]
    return [*config.command().split(), *log, "--out", config.out, "--no-progress"]


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


def sweep(
    configs: Sequence[TrainConfig], engine: Engine, progress: bool = False
) -> list[TrainConfig]:
    """Train all with `engine`; print a line as each ends. Returns those that failed.

    Runs that are finished are skipped. ``progress`` shows one bar on stderr for all of them.
    Ctrl-C stops every run after its checkpoint and raises KeyboardInterrupt.
    """
    waiting, failed = [c for c in configs if not is_finished(c)], []
    for config in configs:
        if config not in waiting:
            _tell(config, f"{_last_return(config)}, as it was")
    bar = tqdm(
        total=sum(c.steps for c in configs),
        initial=sum(map(steps_done, configs)),
        disable=not progress,
        bar_format=BAR,
        desc="sweep",
        unit="step",
    )
    left = len(waiting)
    try:
        with bar, closing(engine(waiting)) as looks:
            for ended in looks:
                for place, error in ended.items():
                    config = waiting[place]
                    failed += [config] if error else []
                    _tell(config, f"FAILED: {error}" if error else _last_return(config))
                left -= len(ended)
                bar.set_postfix_str(f"{left} runs to end, {len(failed)} failed")
                bar.update(sum(map(steps_done, configs)) - bar.n)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; the same command continues") from None
    return failed


def processes(configs: Sequence[TrainConfig], jobs: int) -> Generator[dict[int, str], None, None]:
    """The engine of one machine: each run is a `som-lite train`, at most ``jobs`` at a time."""
    require(jobs >= 1, "jobs", jobs, "at least 1")
    waiting, running = dict(enumerate(configs)), {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                place = next(iter(waiting))
                running[place] = _start(waiting.pop(place))
            time.sleep(POLL_S)
            ended = {i: process for i, process in running.items() if process.poll() is not None}
            running = {i: process for i, process in running.items() if i not in ended}
            yield {i: _error(process) for i, process in ended.items()}
    finally:
        for process in running.values():
            process.terminate()  # train() writes its checkpoint and ends
        for process in running.values():
            process.wait()


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


def _error(process: subprocess.Popen) -> str:
    error = process.communicate()[1].strip()
    return (error or str(process.returncode)) if process.returncode else ""


def _tell(config: TrainConfig, text: str) -> None:
    tqdm.write(f"{config.out}: {text}")


def _last_return(config: TrainConfig) -> str:
    curve = Run(config.out).curve()
    return f"return {curve['return_mean'][-1]:.1f} after {curve['step'][-1]:.0f} steps"
