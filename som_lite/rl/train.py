"""Train an agent from beginning to end, whatever comes between."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from tqdm import tqdm

from som_lite.rl.board import board, check_log
from som_lite.rl.config import TrainConfig
from som_lite.rl.device import check_machine
from som_lite.rl.interrupt import interruptible
from som_lite.rl.lock import locked
from som_lite.rl.runs import Run
from som_lite.rl.training import Training

BAR = "{desc} {percentage:3.0f}% |{bar}| {n}/{total}, {rate_fmt}, {remaining} left{postfix}"


def train(config: TrainConfig, on_row: Callable[[Training], None] | None = None) -> Path:
    """Train one agent and return its run folder.

    A folder that already holds a checkpoint of the same settings is continued, and the result is
    the one an uninterrupted run would have had, bit for bit; `steps` may be larger than before, and
    device and threads others. Ctrl-C writes a checkpoint and raises KeyboardInterrupt; a second one
    stops at once and leaves the last checkpoint.
    `on_row` is called with the state of the training after every new row of the curve.

    Raises ValueError for settings that cannot work here, for a folder that holds something else or
    that another process trains in, and as soon as a number is seen that is not finite: the last
    checkpoint and policy stay as they were. OSError, with the same promise, when the disk is full.
    """
    check_log(config)
    memory = check_machine(config)
    Run.check(config)  # a mistake must not leave a folder behind
    with locked(config.folder / "checkpoint"), _threads(config.threads):
        run = Run.create(config)
        if config.progress:
            print(memory, file=sys.stderr)
        with interruptible() as interrupted:
            training = Training(config, run)
            training.stop = interrupted.is_set
            try:
                with board(training) as log:
                    _loop(training, [call for call in (on_row, log) if call])
            except (ValueError, OSError) as error:
                where = f"stopped at step {training.step}"
                kind = ValueError if isinstance(error, ValueError) else OSError
                raise kind(f"{error}; {where}, {_kept(training)}") from error
            except KeyboardInterrupt:
                raise KeyboardInterrupt(f"stopped at once; {_kept(training)}") from None
        if interrupted.is_set():
            raise KeyboardInterrupt(f"stopped at step {training.step}; the same command continues")
    return run.folder


def _loop(training: Training, calls: list[Callable[[Training], None]]) -> None:
    config = training.config
    bar = tqdm(
        total=config.steps,
        initial=training.step,
        disable=not config.progress,
        unit="step",
        desc=f"{config.agent} {config.env}",
        mininterval=0.5,
        bar_format=BAR,
    )
    with bar:
        move = training.settle  # first what an interrupted step left to do
        while True:
            before = training.last
            move()
            bar.update(training.step - bar.n)
            if training.last is not None and training.last is not before:
                bar.set_postfix_str(f", return {training.last['return_mean']:.1f}")
                for call in calls:
                    call(training)
            if training.step >= config.steps or training.stop():
                break
            move = training.advance
    if training.unsaved:
        training.save()


def _kept(training: Training) -> str:
    steps = training.checkpoints.whole
    return f"{training.run.folder} keeps the checkpoint of step {steps[-1] if steps else 0}"


@contextmanager
def _threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
