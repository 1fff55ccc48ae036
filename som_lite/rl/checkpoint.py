"""Checkpoints: the exact state of a training, the last two of them, each verified by its hashes.

    state-STEP.safetensors   networks, optimisers, random streams, counters
    rows-END.safetensors     a shard of the replay buffer: its transitions up to number END
    STEP.json                the checkpoint: names and SHA-256 of its files; written last
    lock                     held by the process that trains

A full shard never changes, so that a checkpoint writes the transitions made since the last one and
not the whole buffer; reading takes one shard's column at a time.
"""

import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from som_lite.rl.files import (
    own_file,
    read_json,
    read_tensors,
    sha256,
    write_json,
    write_tensors,
)
from som_lite.rl.replay import Replay

LARGEST_LIST, LARGEST_FILE = 2**20, 2**31  # bytes; hashing a larger one would take minutes
SHARD = 2**15  # transitions in a full shard: 94 MB on Humanoid, 6 MB on HalfCheetah


class Checkpoints:
    """The checkpoints in a folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.whole: list[int] = []  # steps of those that this process wrote or has verified
        self.shards: dict[str, str] = {}  # of the last one: name -> hash

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, verified or not, in order."""
        return sorted(int(p.stem) for p in self.folder.glob("*.json") if p.stem.isdigit())

    def clear(self) -> None:
        """Remove all of them."""
        self.whole, self.shards = [], {}
        self._tidy()

    def save(
        self, step: int, tensors: dict[str, Tensor], counters: dict[str, Any], replay: Replay
    ) -> None:
        """Write the checkpoint of `step`; of the older ones only the last whole one stays."""
        self.folder.mkdir(exist_ok=True)
        self.shards = self._write_rows(replay)
        name = f"state-{step:012d}.safetensors"
        write_tensors(self.folder / name, tensors, counters | {"count": replay.count})
        write_json(self._list(step), self.shards | {name: sha256(self.folder / name)})
        self.whole = [*[s for s in self.whole if s != step][-1:], step]
        self._tidy()

    def load(self, replay: Replay) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and counters of the newest whole checkpoint, its transitions put into `replay`.

        A damaged one is named in a warning and the previous one used; ValueError when none is
        whole. None when there is no checkpoint at all.
        """
        complaints = []
        for step in reversed(self.steps()):
            try:
                files = self._verified(step)
            except ValueError as error:
                complaints.append(str(error))
                continue
            if complaints:
                then = f"going back to the checkpoint of step {step}"
                warnings.warn(f"{'; '.join(complaints)}: {then}", stacklevel=2)
            state = next(name for name in files if name.startswith("state-"))
            self.whole = [step]
            self.shards = {name: h for name, h in files.items() if name != state}
            tensors, counters = read_tensors(self.folder / state)
            self._read_rows(replay, counters["count"])
            return tensors, counters
        if complaints:
            raise ValueError(f"no checkpoint is whole ({'; '.join(complaints)}): use --restart")
        return None

    def _write_rows(self, replay: Replay) -> dict[str, str]:
        """Write the shards that the last checkpoint does not have; the names and hashes of all."""
        oldest, shards = replay.count - len(replay), {}
        for start in range(oldest // SHARD * SHARD, replay.count, SHARD):
            end = min(start + SHARD, replay.count)
            name = f"rows-{end:012d}.safetensors"
            if name not in self.shards:
                rows = torch.arange(max(start, oldest), end) % replay.capacity
                columns = {k: x[rows.to(x.device)] for k, x in replay.data._asdict().items()}
                write_tensors(self.folder / name, columns, {})
                shards[name] = sha256(self.folder / name)
            else:
                shards[name] = self.shards[name]
        return shards

    def _read_rows(self, replay: Replay, count: int) -> None:
        for name in self.shards:
            with safe_open(self.folder / name, framework="pt") as file:
                for key, column in replay.data._asdict().items():
                    rows, end = file.get_tensor(key), int(name[5:17])
                    number = torch.arange(end - len(rows), end)
                    kept = number >= count - replay.capacity
                    place = (number[kept] % replay.capacity).to(column.device)
                    column[place] = rows[kept].to(column.device)
        replay.count = count

    def _verified(self, step: int) -> dict[str, str]:
        """Names and hashes of a checkpoint's files. Raises ValueError when one is not as it was."""
        files = read_json(own_file(self.folder, self._list(step).name, LARGEST_LIST))
        for name, digest in files.items():
            try:
                path = own_file(self.folder, Path(name).name, LARGEST_FILE)
            except FileNotFoundError as error:
                raise ValueError(f"{self.folder / name} is missing") from error
            if sha256(path) != digest:
                raise ValueError(f"{path} is damaged: its SHA-256 is not the one recorded")
        if sum(name.startswith("state-") for name in files) != 1:
            raise ValueError(f"{self._list(step)} is damaged: it lists no state")
        return files

    def _tidy(self) -> None:
        """Remove what no whole checkpoint needs, and what a killed process left half written."""
        needed = set()
        for step in self.whole:
            needed |= {self._list(step).name, *read_json(self._list(step))}
        for pattern in ("*.json", "state-*", "rows-*", "*.tmp"):
            for path in self.folder.glob(pattern):
                if path.name not in needed:
                    path.unlink()

    def _list(self, step: int) -> Path:
        return self.folder / f"{step:012d}.json"
