"""Recorded episodes in Minari's format (Farama Foundation), the common one of offline learning.

A data set is a folder NAME-vN/data with metadata.json and main_data.hdf5, which holds a group per
episode: observations (T + 1 rows), actions, rewards, terminations and truncations (T rows). The
package `minari` does the work; what is here adds compression, and tensors to learn from.
"""

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from som_lite.rl.replay import Batch

NAME = re.compile(r"[-\w]+-v\d+")


class Episode(NamedTuple):
    """T steps as they happened; `policy` says in words who acted."""

    obs: Float[np.ndarray, "T1 obs"]  # one more row than steps: the last state is in it
    action: Float[np.ndarray, "T act"]
    reward: Float[np.ndarray, "T"]
    terminated: bool  # ended by the task; otherwise time ran out
    policy: str


class Data(NamedTuple):
    """All transitions of a data set, in order, and which episode each belongs to."""

    batch: Batch
    episode: Float[Tensor, "n"]
    policies: list[str]  # per episode: who acted
    metadata: dict[str, Any]

    def returns(self) -> Float[Tensor, "E"]:
        """The return of every episode."""
        total = torch.zeros(len(self.policies))
        return total.index_add(0, self.episode.long(), self.batch.reward)

    def sample(self, B: int, generator: torch.Generator) -> Batch:
        """B transitions, uniformly and with replacement."""
        rows = torch.randint(len(self.batch.reward), (B,), generator=generator)
        return Batch(*(column[rows] for column in self.batch))


def require_free(out: str | Path) -> Path:
    """The folder of a new data set. Raises ValueError for a bad name or a folder in use."""
    folder = Path(out)
    if not NAME.fullmatch(folder.name):
        raise ValueError(f"out must end in a name such as hopper-mixed-v0, got {str(out)!r}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is in use: choose another --out")
    return folder


def write_data(
    out: str | Path,
    episodes: Sequence[Episode],
    env: gym.Env,
    command: str,
    half: bool = False,
    **more: Any,
) -> Path:
    """Write episodes to the new folder `out`; `command` says how to make them again.

    `half` keeps observations and actions in half precision. Raises ValueError as `require_free`.
    """
    storage_of, buffer_of, version = _minari()
    final = require_free(out)
    half_written = final.with_name(f"{final.name}.tmp")
    shutil.rmtree(half_written, ignore_errors=True)  # of a killed process
    folder = (half_written / "data").absolute()  # minari joins a relative path to itself
    folder.mkdir(parents=True)
    kind = np.float16 if half else np.float32
    seen, done = (_box(space, kind) for space in (env.observation_space, env.action_space))
    storage = storage_of.new(
        folder, seen, done, env_spec=gym.spec(env.spec.id) if env.spec else None
    )
    buffers = [
        buffer_of(
            observations=x.obs.astype(kind),
            actions=x.action.astype(kind),
            rewards=x.reward.astype(np.float32),
            terminations=_last(len(x.reward), x.terminated),
            truncations=_last(len(x.reward), not x.terminated),
            infos={},
        )
        for x in episodes
    ]
    about = {"dataset_id": final.name, "minari_version": version, "command": command}
    storage.update_metadata(about | {"author": {"The som_lite authors"}} | more)
    storage.update_episodes(buffers)
    storage.update_episode_metadata({"policy": x.policy} for x in episodes)
    _compress(folder / "main_data.hdf5")
    half_written.rename(final)
    return final


def load_data(folder: str | Path) -> Data:
    """A data set as tensors, float32; `next_obs` never crosses the end of an episode.

    Raises FileNotFoundError where there is none. Reading executes nothing and starts no
    environment.
    """
    storage_of, _, _ = _minari()
    place = (Path(folder) / "data").absolute()
    if not (place / "metadata.json").is_file():
        raise FileNotFoundError(f"no data set in Minari's format (data/metadata.json) in {folder}")
    storage = storage_of.read(place)
    rows: dict[str, list[np.ndarray]] = {name: [] for name in (*Batch._fields, "episode")}
    numbers = range(storage.total_episodes)
    for number, x in zip(numbers, storage.get_episodes(numbers), strict=True):
        obs = x["observations"]
        columns = obs[:-1], x["actions"], x["rewards"], obs[1:], x["terminations"]
        whose = np.full(len(x["rewards"]), number)
        for name, column in zip(rows, (*columns, whose), strict=True):
            rows[name].append(np.asarray(column, np.float32))
    tensors = [torch.from_numpy(np.concatenate(column)) for column in rows.values()]
    who = [str(x.get("policy", "")) for x in storage.get_episode_metadata(numbers)]
    return Data(Batch(*tensors[:-1]), tensors[-1], who, storage.metadata)


def _minari() -> tuple[Any, Any, str]:
    """Imported where it is used: nothing else of the package needs it."""
    try:
        import minari
        from minari.data_collector import EpisodeBuffer
        from minari.dataset.minari_storage import MinariStorage
    except ImportError as error:
        raise ValueError('data sets need minari: pip install "som_lite[offline]"') from error
    return MinariStorage, EpisodeBuffer, minari.__version__


def _box(space: gym.Space, kind: type) -> gym.spaces.Box:
    assert isinstance(space, gym.spaces.Box)
    return gym.spaces.Box(space.low.astype(kind), space.high.astype(kind), dtype=kind)


def _last(steps: int, value: bool) -> np.ndarray:
    """False, False, ..., value."""
    return np.arange(steps) == steps - 1 if value else np.zeros(steps, bool)


def _compress(path: Path) -> None:
    """The same file with gzip and byte shuffling, which any HDF5 reader undoes by itself."""
    import h5py

    small = path.with_suffix(".tmp")
    packed = {"compression": "gzip", "shuffle": True}
    # libver: indices of one chunk take some bytes there, and kilobytes in the old format
    with h5py.File(path, "r") as source, h5py.File(small, "w", libver="latest") as target:
        for name, group in source.items():
            copy = target.create_group(name)
            copy.attrs.update(group.attrs)
            for key, x in group.items():
                if key == "infos":  # an empty group
                    copy.create_group(key)
                    continue
                copy.create_dataset(key, data=x[()], chunks=x.shape, **packed)
    os.replace(small, path)
