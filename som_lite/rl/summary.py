"""What many runs come to: returns by task and agent, over seeds."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import trim_mean

from som_lite.rl.config import FREE, leaves
from som_lite.rl.runs import Run

Group = tuple[str, str]  # task, agent
UNLIKE = ("seed", *FREE)  # settings in which the runs of one group may differ


class Interval(NamedTuple):
    """An estimate and the 95 % interval around it, which one seed alone does not have."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.value:.4g}"
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


def find_runs(places: Sequence[str | Path]) -> list[Run]:
    """The runs that are, or lie anywhere below, the given folders, in order.

    Raises FileNotFoundError for a folder without any.
    """
    runs = []
    for place in places:
        found = sorted(p.parent for p in Path(place).rglob("config.json"))
        if not found:
            raise FileNotFoundError(f"no run in {place}")
        runs += map(Run, dict.fromkeys(found))
    return runs


def by_group(runs: Sequence[Run]) -> dict[Group, list[dict[str, np.ndarray]]]:
    """The curves of the runs of each task and agent, cut where the shortest of them ends.

    Where an agent ran with several settings on a task, its name tells them. Runs that have no row
    yet are left out.
    """
    runs = [run for run in runs if (run.folder / "curve.csv").is_file()]
    settings = [leaves(run.info()["config"]) for run in runs]
    groups: dict[Group, list[dict[str, np.ndarray]]] = {}
    for run, mine in zip(runs, settings, strict=True):
        same = [s for s in settings if (s["env"], s["agent"]) == (mine["env"], mine["agent"])]
        varied = [k for k, v in mine.items() if any(s.get(k) != v for s in same)]
        words = [f"{k.rpartition('.')[2]}={mine[k]}" for k in varied if k not in UNLIKE]
        groups.setdefault((mine["env"], " ".join([mine["agent"], *words])), []).append(run.curve())
    for curves in groups.values():
        end = min(curve["step"][-1] for curve in curves)
        for curve in curves:
            kept = curve["step"] <= end
            curve.update({name: x[kept] for name, x in curve.items()})
    return dict(sorted(groups.items()))


def interquartile_mean(x: Float[np.ndarray, "n *m"]) -> Float[np.ndarray, "*m"]:
    """The mean of the middle half: a quarter of the seeds, rounded down, is left out at each end.

    Agarwal et al. 2021 (arXiv 2108.13264). With three seeds or fewer it is the mean.
    """
    return np.asarray(trim_mean(x, 0.25, axis=0))


def bootstrap(
    x: Float[np.ndarray, "n *m"], statistic: Callable = interquartile_mean, draws: int = 2000
) -> Float[np.ndarray, "2 *m"]:
    """The ends of the 95 % percentile interval of `statistic` over seeds drawn with replacement.

    The draws are always the same, so that a table can be made again.
    """
    chosen = np.random.default_rng(0).integers(len(x), size=(draws, len(x)))
    return np.percentile([statistic(x[rows]) for rows in chosen], [2.5, 97.5], axis=0)


def estimate(x: Float[np.ndarray, "n"], statistic: Callable) -> Interval:
    """A statistic of the seeds and its bootstrap interval."""
    low, high = bootstrap(x, statistic)
    return Interval(float(statistic(x)), float(low), float(high))


def returns_table(runs: Sequence[Run]) -> str:
    """A line per task and agent: mean and interquartile mean of the last return, over seeds."""
    lines = [("task", "agent", "steps", "seeds", "mean [95 %]", "interquartile mean [95 %]")]
    for (env, agent), curves in by_group(runs).items():
        last = np.array([curve["return_mean"][-1] for curve in curves])
        mean = estimate(last, lambda x: np.mean(x, axis=0))
        middle = estimate(last, interquartile_mean)
        steps = f"{curves[0]['step'][-1]:.0f}"
        lines.append((env, agent, steps, str(len(last)), str(mean), str(middle)))
    if len(lines) == 1:
        raise ValueError("no run has been evaluated yet")
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = ["  ".join(x.ljust(w) for x, w in zip(line, widths, strict=True)) for line in lines]
    return "\n".join(row.rstrip() for row in rows)
