"""What did the runs below a folder return? One line each.

    python tests/benchmarks/returns.py chapters/recorded runs

The last row alone depends on luck: on tasks where a fall ends the episode it may double from one
row to the next. So beside it stand, for the second half of the rows, the mean, the least, and the
mean change from one row to the next; and the best row of all.
"""

import sys
from pathlib import Path

import numpy as np

from som_lite.rl.runs import Run


def main(folders: list[str]) -> None:
    columns = ("steps", "last row", "2nd half", "least", "change", "best")
    print(f"{'run':<40}" + "".join(f"{name:>10}" for name in columns))
    for folder in folders:
        for path in sorted(Path(folder).rglob("config.json")):
            curve = Run(path.parent).curve()
            steps, returns = curve["step"], curve["return_mean"]
            half = returns[steps > steps[-1] / 2]
            change = np.abs(np.diff(half)).mean()
            row = (steps[-1], returns[-1], half.mean(), half.min(), change, returns.max())
            name = path.parent.relative_to(folder).as_posix()
            print(f"{name:<40}" + "".join(f"{x:>10.0f}" for x in row))


if __name__ == "__main__":
    main(sys.argv[1:] or ["chapters/recorded"])
