import signal
import subprocess
import sys
import threading

import pytest

from som_lite.rl.lock import locked

HOLD = "import sys, time, pathlib; from som_lite.rl.lock import locked\n"
HOLD += "with locked(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(100)"


def test_another_process_is_refused_until_it_dies(tmp_path):
    folder = tmp_path / "run" / "checkpoint"
    words = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=f"run is in use by process {process.pid}:"):
            with locked(folder):
                pass
        process.kill()
        assert process.wait() == -signal.SIGKILL
    with locked(folder):  # the file it left blocks nobody
        pass


def test_another_thread_is_refused(tmp_path):
    refused = []

    def second():
        try:
            with locked(tmp_path):
                pass
        except ValueError:
            refused.append(True)

    with locked(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert refused == [True]
    second()
    assert refused == [True]
