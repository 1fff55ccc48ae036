"""A full disk, a folder that may not be written to, a clock that was moved."""

import os
import resource
import time
from contextlib import contextmanager

import pytest

from som_lite.rl import cli
from som_lite.rl.runs import Run
from som_lite.rl.train import Training, train
from tests.rl.test_train import make_config, outcome
from tests.robustness.kills import in_child

KEPT = "keeps the checkpoint of step 120"


@contextmanager
def largest_file(size):
    """The system refuses to make a file larger than this, as it refuses any on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# the curve takes 400 bytes, the policy 26 kB, a state 78 kB: the write fails in each in turn
@pytest.mark.parametrize(("size", "kept"), [(300, ""), (1000, KEPT), (60_000, KEPT)])
def test_a_full_disk(size, kept, tmp_path):
    config = make_config(tmp_path / "run", steps=120)
    train(config)
    longer = make_config(tmp_path / "run")
    with largest_file(size), pytest.raises(OSError, match="too large") as error:
        train(longer)
    assert "\n" not in str(error.value)
    assert kept in str(error.value)
    assert not list((tmp_path / "run").rglob("*.tmp"))
    assert outcome(train(longer)) == outcome(train(make_config(tmp_path / "whole")))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="changes the user in a fork")
def test_a_folder_that_may_only_be_read(tmp_path, tmp_path_factory, capfd):
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o555)
    for place in (tmp_path, *tmp_path.parents):
        if place == tmp_path_factory.getbasetemp().parent.parent:
            break
        place.chmod(0o755)  # pytest keeps its folders to itself

    def work():
        if os.geteuid() == 0:
            os.setuid(65534)  # root may write everywhere
        with pytest.raises(SystemExit) as end:
            cli.main(["train", "--env", "Glider-v0", "--out", str(folder / "run")])
        assert end.value.code == 2

    in_child(work)
    assert capfd.readouterr().err.startswith("som-lite: [Errno 13] Permission denied: ")
    assert not list(folder.iterdir())


def test_the_clock_goes_backwards(tmp_path, monkeypatch):
    """Which checkpoint is the last one is told by its step, not by its date."""
    config = make_config(tmp_path / "run", steps=120)
    train(config)
    for i, path in enumerate(sorted((config.folder / "checkpoint").iterdir())):
        os.utime(path, (1e9 - i, 1e9 - i))
    now = iter(range(10**9, 0, -1))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    resumed = Training(make_config(tmp_path / "run"), Run(config.folder))
    assert resumed.step == 120
    assert outcome(train(make_config(tmp_path / "run"))) == outcome(
        train(make_config(tmp_path / "whole"))
    )
