import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks the trainings")
def test_a_few_kills():
    """The full number is in tests/README.md."""
    words = "-m tests.robustness.kills --agents sac --kills 6 --steps 130"
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, *words.split()], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "sac: 6 kills (2 time, 2 during a write, 2 after a write)" in done.stdout
