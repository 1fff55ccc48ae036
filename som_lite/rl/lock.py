"""One process at a time in a run folder."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows outside WSL
    fcntl = None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold `folder`/lock, making the folder if need be. Raises ValueError when another holds it,
    and when one of the two is a link: what is written and tidied up there would lie elsewhere.

    The operating system lets go of the lock when its process ends, however it ends: the file that
    stays behind blocks nobody.
    """
    for path in (folder, folder / "lock"):
        if path.is_symlink():
            raise ValueError(f"{path} is a link, which is not followed")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+", encoding="utf-8") as file:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read(20).strip() or "unknown"
            raise ValueError(
                f"{folder.parent} is in use by process {owner}: "
                "wait for it, or choose another --out"
            ) from None
        except OSError as error:
            warnings.warn(f"{folder} cannot be locked ({error.strerror})", stacklevel=3)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
