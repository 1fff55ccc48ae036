"""What a checkpoint of a large replay buffer costs, in units of the buffer.

    python -m tests.robustness.memory --gib 1.07

Prints the peak memory of a process that fills, saves and loads the buffer, and the bytes that a
first save and one 50 000 transitions later write.
"""

import argparse
import multiprocessing
import resource
import tempfile
from pathlib import Path

import numpy as np

from som_lite.rl.checkpoint import Checkpoints
from som_lite.rl.replay import Replay

OBS, ACT = 130, 8  # 270 numbers a transition


def peak() -> int:
    """Largest resident size of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def fill(replay: Replay, rows: int) -> None:
    """Random transitions in place of `rows` steps."""
    noise = np.random.default_rng(0)
    for column in replay.data:
        x = column.numpy()
        noise.standard_normal(out=x[replay.count : replay.count + rows], dtype=np.float32)
    replay.count += rows


def saving(folder: Path, capacity: int, queue: multiprocessing.Queue) -> None:
    start, replay, checkpoints = peak(), Replay(capacity, OBS, ACT), Checkpoints(folder)
    for rows in (capacity - 50_000, 50_000):
        fill(replay, rows)
        before = {p.name for p in folder.glob("rows-*")}
        filled = peak()
        checkpoints.save(replay.count, {}, {}, replay)
        new = [p for p in folder.glob("rows-*") if p.name not in before]
        queue.put((peak() - start, filled - start, sum(p.stat().st_size for p in new)))


def loading(folder: Path, capacity: int, queue: multiprocessing.Queue) -> None:
    start, replay = peak(), Replay(capacity, OBS, ACT)
    Checkpoints(folder).load(replay)
    queue.put(peak() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, default=1.07, help="size of the buffer")
    size = int(parser.parse_args().gib * 2**30)
    capacity = size // (4 * (2 * OBS + ACT + 2))
    fork = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as name:
        queue = fork.Queue()
        for work in (saving, loading):
            process = fork.Process(target=work, args=(Path(name), capacity, queue))
            process.start()
            process.join()
        for step in ("first save", "second save"):
            most, filled, written = queue.get()
            print(f"{step}: peak {most / size:.2f} (filled: {filled / size:.2f}), "
                  f"written {written / size:.3f}")  # fmt: skip
        print(f"load: peak {queue.get() / size:.2f}")


if __name__ == "__main__":
    main()
