"""A run in TensorBoard: `som-lite train --log tensorboard`, then `tensorboard --logdir runs`."""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from som_lite.rl.config import TrainConfig
from som_lite.rl.evaluate import act, own_noise
from som_lite.rl.runs import BOARD, Row
from som_lite.rl.training import Training

STATES = 256  # whose actions are shown


def check_log(config: TrainConfig) -> None:
    """Raise ValueError where TensorBoard is asked for and not installed."""
    if config.log == "tensorboard" and importlib.util.find_spec("tensorboard") is None:
        raise ValueError(
            "log tensorboard needs a package that is not installed: pip install tensorboard"
        )


@contextmanager
def board(training: Training) -> Iterator[Callable[[Training], None] | None]:
    """What is to be called after every new row; None if the curve is written as CSV alone.

    Every column of curve.csv becomes a scalar, and how the actions in the latest states are spread
    a histogram for each component. A run that continues shows each step once.

    Raises ValueError when the folder of the event files is a link.
    """
    if training.config.log != "tensorboard":
        yield None
        return
    from torch.utils.tensorboard.writer import SummaryWriter  # takes seconds, and is an extra

    folder = training.run.folder / BOARD
    if folder.is_symlink():
        raise ValueError(f"{folder} is a link, which is not followed")
    rows, new = training.kept_rows(), not folder.exists()
    hidden = int(rows[-1]["step"]) + 1 if rows else 0  # from here on steps are written again
    with SummaryWriter(str(folder), purge_step=hidden) as writer:
        for row in rows if new else []:
            _write_row(writer, row)

        def write(training: Training) -> None:
            assert training.last is not None  # the row that this call tells of
            _write_row(writer, training.last)
            for i, actions in enumerate(latest_actions(training).T):
                writer.add_histogram(f"action/{i}", actions, training.step)
            writer.flush()

        yield write


def latest_actions(training: Training) -> np.ndarray:
    """The policy's actions (n, d), without exploration, in the last states that it has seen."""
    replay = training.replay
    rows = torch.arange(max(replay.count - min(len(replay), STATES), 0), replay.count)
    obs = replay.data.obs[(rows % replay.capacity).to(replay.data.obs.device)].cpu()
    with own_noise(training.agent, 0):
        return act(training.agent, obs.numpy())


def _write_row(writer: Any, row: Row) -> None:
    for name, value in row.items():
        if name != "step":
            writer.add_scalar(name, value, row["step"])
