"""Kill trainings at random moments, go on, and compare with a training that nobody killed.

    python -m tests.robustness.kills --kills 50

A third of the kills comes after a random time, a third in the middle of a write (the file is there
under its temporary name, half as long), a third right after a write. After each one the last
checkpoint must be whole and no older than before, and curve and policy readable; at the end
curve, policies, and the whole state of training must be those of the undisturbed run, bit for bit.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from som_lite.rl import files
from som_lite.rl.agents import AGENTS
from som_lite.rl.config import TrainConfig
from som_lite.rl.replay import Replay
from som_lite.rl.runs import BEST, POLICY, Run
from som_lite.rl.train import train
from tests.rl.toys import SMALL

WAYS = ("time", "during a write", "after a write")


def config_of(agent: str, folder: Path, steps: int) -> TrainConfig:
    """Rows every 30 and checkpoints every 20 steps, so that kills meet many writes."""
    return TrainConfig(
        env="Glider-v0", agent=agent, steps=steps, start_steps=40, eval_every=30, eval_episodes=1,
        checkpoint_every=20, progress=False, out=str(folder), config=SMALL[agent],
    )  # fmt: skip


def in_child(work: Callable[[], object], life: float | None = None) -> int:
    """Run `work` in a forked process; kill it after `life` seconds. What `os.waitpid` tells."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    if life is not None:
        time.sleep(life)
        os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL, "a training failed"
    return status


def die_at_write(number: int, during: bool) -> None:
    """Make this process kill itself in the middle of, or right after, its write of this number."""
    plain, count = os.replace, [0]

    def replace_or_die(source, target):
        count[0] += 1
        if count[0] == number and during:
            os.truncate(source, os.path.getsize(source) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        plain(source, target)
        if count[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)

    files.os.replace = replace_or_die


def one_life(config: TrainConfig, way: str, chance: random.Random, whole_s: float) -> bool:
    """Train until the kill; True when the training ended before it came."""
    if way == "time":
        return in_child(lambda: train(config), chance.uniform(0, whole_s / 5)) == 0

    number = chance.randint(1, 25)

    def work() -> None:
        die_at_write(number, way == "during a write")
        train(config)

    return in_child(work) == 0


def inspect(config: TrainConfig, before: int) -> int:
    """Check what the kill left; the step of the last checkpoint."""
    if not (config.folder / "config.json").exists():
        return 0  # killed before it had begun
    run = Run(config.folder)
    steps = run.checkpoints.steps()
    if steps:
        run.checkpoints.load(Replay(config.steps, 2, 1))  # a damaged one would warn: an error here
    last = steps[-1] if steps else 0
    assert last >= before, f"checkpoint {before} is lost, the last one is {last}"
    if (config.folder / POLICY).exists():
        run.load_agent()
    if (config.folder / "curve.csv").exists():
        run.curve()
    return last


def outcome(folder: Path) -> dict[str, object]:
    """Everything a finished run holds that does not depend on the clock."""
    run = Run(folder)
    curve = {k: v.tobytes() for k, v in run.curve().items() if k != "wall_s"}
    replay = Replay(run.config().steps, 2, 1)
    tensors, counters = run.checkpoints.load(replay) or ({}, {})
    state = {k: x.numpy().tobytes() for k, x in (tensors | replay.data._asdict()).items()}
    policies = {name: (folder / name).read_bytes() for name in (POLICY, BEST)}
    return curve | state | policies | {"updates": counters["updates"]}


def trial(agent: str, kills: int, steps: int, folder: Path, chance: random.Random) -> str:
    """Kill one training so many times; a line of what happened. Raises AssertionError."""
    whole = config_of(agent, folder / f"{agent}-whole", steps)
    start = time.monotonic()
    assert in_child(lambda: train(whole)) == 0, "the undisturbed run failed"
    whole_s = time.monotonic() - start
    done, finished, last = dict.fromkeys(WAYS, 0), 0, 0
    config = replace(whole, out=str(folder / f"{agent}-killed-0"))
    while sum(done.values()) < kills:
        way = WAYS[sum(done.values()) % 3]
        if one_life(config, way, chance, whole_s):
            assert outcome(config.folder) == outcome(whole.folder), f"{config.folder} differs"
            finished, last = finished + 1, 0
            config = replace(whole, out=str(folder / f"{agent}-killed-{finished}"))
        else:
            done[way] += 1
            last = inspect(config, last)
    assert in_child(lambda: train(config)) == 0, "the run cannot be continued"
    assert outcome(config.folder) == outcome(whole.folder), f"{config.folder} differs"
    counts = ", ".join(f"{n} {way}" for way, n in done.items())
    return f"{agent}: {kills} kills ({counts}), {finished + 1} runs, all as if nothing had happened"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="for each agent")
    parser.add_argument("--agents", nargs="+", default=list(AGENTS), choices=AGENTS)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("error", UserWarning)
    for agent in options.agents:
        with tempfile.TemporaryDirectory() as folder:
            chance = random.Random(options.seed)
            print(trial(agent, options.kills, options.steps, Path(folder), chance), flush=True)


if __name__ == "__main__":
    sys.exit(main())
