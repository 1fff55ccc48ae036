"""Learning curves of runs as a picture: a panel for each task, a line and a band for each agent."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from som_lite.rl.runs import Run
from som_lite.rl.summary import bootstrap, by_group, interquartile_mean
from som_lite.view import plots, style


def learning_curves(runs: Sequence[Run]) -> Figure:
    """Return over steps: interquartile mean over seeds, in its 95 % bootstrap interval.

    Seeds of one agent and task are drawn where all of them have a row. Raises ValueError when no
    run has been evaluated yet.
    """
    groups = by_group(runs)
    tasks = list(dict.fromkeys(env for env, _ in groups))
    if not tasks:
        raise ValueError("no run has been evaluated yet")
    ncols = min(3, len(tasks))
    nrows = -(-len(tasks) // ncols)
    fig, axes = style.figure(max(4.5, 3.2 * ncols), 2.8 * nrows, ncols=ncols, nrows=nrows)
    panels = list(np.ravel(axes))
    for ax in panels[len(tasks) :]:
        ax.remove()
    for ax, task in zip(panels, tasks, strict=False):
        for (env, agent), curves in groups.items():
            if env == task:
                draw(ax, curves, agent)
        ax.set(title=task, xlabel="steps", xlim=(0, None))
        ax.legend(frameon=False, fontsize=9)
    panels[0].set_ylabel("return")
    return fig


def draw(ax, curves: list[dict[str, np.ndarray]], agent: str) -> None:
    """One agent's line and band on one task."""
    steps = curves[0]["step"]
    for curve in curves[1:]:
        steps = np.intersect1d(steps, curve["step"])
    seeds = np.stack([c["return_mean"][np.isin(c["step"], steps)] for c in curves])
    kind, settings = agent.partition(" ")[::2]
    known = kind in style.COLOURS and not settings
    line = plots.curve(ax, steps, interquartile_mean(seeds), kind=kind if known else "reference")
    if not known:  # a colour of its own, and no meaning in it
        line.set_color(f"C{len(ax.lines)}")
    line.set_label(f"{agent}, {len(curves)} {'seed' if len(curves) == 1 else 'seeds'}")
    if len(curves) > 1:
        low, high = bootstrap(seeds)
        ax.fill_between(steps, low, high, color=line.get_color(), alpha=0.18, linewidth=0)
