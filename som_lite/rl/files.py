"""Files that are whole or absent, and that cannot harm who reads them.

A file is written beside its place, brought to the disk and moved there, so that a process killed at
any moment leaves the old file or the new one. Nothing is a pickle: reading cannot run code.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path to write to; it takes the place of `path` when the block ends well."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.unlink(missing_ok=True)  # it may be a link to what is not ours
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write an object as indented JSON."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ValueError when it holds anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} is damaged: it holds no JSON object")
    return value


def write_tensors(path: Path, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """Tensors and JSON values in one file, the values under one key: several come unordered.

    Raises OSError where they cannot be written, for which safetensors has an error of its own.
    """
    tensors = {k: x.detach().cpu().contiguous() for k, x in tensors.items()}
    with atomic(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={"json": json.dumps(values)})
        except SafetensorError as error:
            raise OSError(f"{path} cannot be written: {error}") from error
        temporary.chmod(0o644)  # safetensors would keep it from other readers


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write_tensors` wrote. Raises ValueError when the file is not of that kind."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            values = json.loads((file.metadata() or {})["json"])
    except (SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} is damaged: its values are no JSON object")
    return tensors, values


def own_file(folder: Path, name: str, limit: int) -> Path:
    """The path of a file of `folder` itself, of at most `limit` bytes.

    Raises FileNotFoundError where there is none, ValueError for a link (which may lead anywhere)
    and for a larger file.
    """
    path = folder / name
    if path.is_symlink():
        raise ValueError(f"{path} is a link, which is not followed")
    if not path.is_file():
        raise FileNotFoundError(f"no {name} in {folder}")
    if (size := path.stat().st_size) > limit:
        raise ValueError(f"{path} has {size:,} bytes, more than the {limit:,} that any run needs")
    return path


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
