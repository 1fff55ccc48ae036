"""What did the runs below a folder return? One line each.

    python tests/benchmarks/returns.py chapters/recorded runs

The last row alone depends on luck: on tasks where a fall ends the episode it may double from one
row to the next. So the mean over the second half of the rows stands beside it.
"""

import sys
from pathlib import Path

from som_lite.rl.runs import Run


def main(folders: list[str]) -> None:
    print(f"{'run':<36}{'steps':>8}{'last row':>10}{'2nd half':>10}{'best':>8}")
    for folder in folders:
        for path in sorted(Path(folder).rglob("config.json")):
            run = Run(path.parent)
            curve, name = run.curve(), "/".join(path.parent.parts[-3:])
            steps, returns = curve["step"], curve["return_mean"]
            half = returns[steps > steps[-1] / 2].mean()
            row = f"{steps[-1]:>8.0f}{returns[-1]:>10.0f}{half:>10.0f}{returns.max():>8.0f}"
            print(f"{name:<36}{row}")


if __name__ == "__main__":
    main(sys.argv[1:] or ["chapters/recorded"])
