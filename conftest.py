"""How stored outputs are compared: `pytest --nbval chapters/` needs no further options.

Decimals agree to 1e-3, all else exactly; stderr and HTML are no results and are skipped.
The kernel is the Python that runs pytest, and a cell that takes 300 s has failed.
"""

import os
import re
import sys
from math import isclose
from pathlib import Path

# Set before any kernel or library starts, and inherited by the kernels.
# Times and the last digits of small nets depend on the number of threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Without a screen MuJoCo renders through EGL.
if sys.platform == "linux" and not os.environ.get("DISPLAY"):
    os.environ.setdefault("MUJOCO_GL", "egl")

DECIMAL = re.compile(r"(?<![\w.])[-+]?\d+\.\d*(?:e[-+]?\d+)?", re.IGNORECASE)


class Output(str):
    """Two outputs are equal if they differ only in decimals, by at most 1e-3 relative."""

    __hash__ = str.__hash__

    def __eq__(self, other):
        if DECIMAL.sub("<n>", self) != DECIMAL.sub("<n>", other):
            return False
        pairs = zip(DECIMAL.findall(self), DECIMAL.findall(other), strict=True)
        # The absolute part is for numbers that are zero up to rounding.
        return all(isclose(float(a), float(b), rel_tol=1e-3, abs_tol=1e-6) for a, b in pairs)

    def __ne__(self, other):
        return not self == other


def pytest_configure(config):
    option = config.option
    if getattr(option, "nbval", False) or getattr(option, "nbval_lax", False):
        option.nbval_current_env |= option.nbval_kernel_name is None
        option.nbval_cell_timeout = min(option.nbval_cell_timeout, 300)
        # Absolute, since nbval reads it relative to where pytest was started.
        outputs = Path(__file__).parent / "tests" / "outputs.cfg"
        option.nbval_sanitize_with = option.nbval_sanitize_with or str(outputs)


def pytest_collectstart(collector):
    if type(collector).__name__ == "IPyNbFile":
        collector.skip_compare += ("stderr", "text/html")


def pytest_itemcollected(item):
    if type(item).__name__ == "IPyNbCell":
        plain = item.sanitize
        item.sanitize = lambda s: Output(plain(s)) if isinstance(s, str) else s
