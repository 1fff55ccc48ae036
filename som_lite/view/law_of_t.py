"""The explorer of laws of t: where they look, what that does to the gradient and the error (11).

It shows a record of trainings (tests/benchmarks/timesteps.py) and computes nothing but ratios.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from som_lite.view.controls import Choice
from som_lite.view.explorer import Explorer
from som_lite.view.style import COLOURS, LINES, MARKERS, figure

NO_WEIGHTS = ("logit-normal", "decrease, no weights")  # plans that change the objective
OWN, SPREAD = "own", "spread"


def law_of_t_explorer(
    parts: Mapping[str, Mapping], start: tuple[str, str] | None = None
) -> Explorer:
    """Density of a law over t beside the best one; error over that of the objective's own law.

    parts   loss -> the record of its trainings: `looks` (updates), `grid` (times of equal mass
            under the objective), `objective` and `density` there, `second` and `variance` of a
            row's gradient, `error` by target, plan, seed and look
    start   the loss and the law shown first; by default the first of each
    """
    plans = list(dict.fromkeys(plan for part in parts.values() for plan in part["density"]))
    loss_first, law_first = start or (next(iter(parts)), plans[0])
    looks = next(iter(parts.values()))["looks"]
    shares = [round(100 * look / looks[-1]) for look in looks]
    fig, (left, right) = figure(8.6, 4.4, ncols=2)
    (best,) = left.plot([], [], color=COLOURS["score"], linestyle=LINES["score"], label="best")
    (own,) = left.plot([], [], color=COLOURS["reference"], label="own")
    (law,) = left.plot([], [], color=COLOURS["flow"], linestyle=LINES["flow"], label="this law")
    left.set(xlim=(0, 1), ylim=(0, 3.5), xlabel="time $t$", autoscale_on=False)
    left.legend(frameon=False, loc="upper center", ncols=3, fontsize=9)
    right.axhline(1, color=COLOURS["reference"], linewidth=1.2)
    bars = LineCollection([], colors=COLOURS["flow"], linewidths=2)
    right.add_collection(bars, autolim=False)
    (curve,) = right.plot([], [], MARKERS["flow"], color=COLOURS["flow"], markersize=6)
    (here,) = right.plot([], [], MARKERS["flow"], color=COLOURS["flow"], markersize=12)
    _error_axes(right, shares)

    def place(done: int, loss: str, times: str) -> None:
        part, at = parts[loss], shares.index(done)
        plan = times if times in part["density"] else OWN
        t, f, g = (np.array(part[key]) for key in ("grid", "objective", "second"))
        own.set_data(t, f)
        best.set_data(t, best_density(f, g[at]))
        law.set_data(t, part["density"][plan][at])
        middle, low, high = mean_ratio(error_ratios(part, plan))
        bars.set_segments([[(x, a), (x, b)] for x, a, b in zip(shares, low, high, strict=True)])
        curve.set_data(shares, middle)
        here.set_data([done], [middle[at]])
        left.title.set_text(f"{plan}: {variance_words(part, plan, at)}")
        right.title.set_text(f"{loss}: error {middle[at]:.2f} of own's")

    return Explorer(
        fig,
        moving=[best, own, law, bars, curve, here, left.title, right.title],
        place=place,
        controls={
            "done": Choice(shares, shares[-1], "per cent of the updates"),
            "loss": Choice(list(parts), loss_first, "what is learnt"),
            "times": Choice(plans, law_first, "how they are chosen"),
        },
        name="The law of t",
        description="Left, densities over the time t: black the law that the loss is written for, "
        "purple the one of least variance, orange dashed the chosen one; above, how much variance "
        "the gradient has with it. Right, against the share of the updates done: the error with "
        "the chosen law over that with the loss's own, as triangles with 95 % intervals; a black "
        "line at 1. For most laws and losses the intervals hold 1 or lie near it; far above it "
        "stand laws without weights, and uniform times where the likelihood is learnt.",
    )


def best_density(f: np.ndarray, second: np.ndarray) -> np.ndarray:
    """``f root(G)``, normalised: the law of least variance. Points have equal mass under f."""
    return f * np.sqrt(second) / np.sqrt(second).mean()


def relative_variance(part: Mapping, plan: str, at: int) -> float:
    """``int f^2 G / p`` over its least value ``(int f root(G))^2``.

    Spread times leave the variance at each time alone; with many slices nothing is between them.
    """
    f, p = np.array(part["objective"]), np.array(part["density"][plan][at])
    second = np.array(part["second"][at])
    moment = np.array(part["variance"][at]) if plan == SPREAD else second * f / p
    return float(moment.mean() / np.sqrt(second).mean() ** 2)


def variance_words(part: Mapping, plan: str, at: int) -> str:
    if plan in NO_WEIGHTS:
        return "another objective"
    return f"{relative_variance(part, plan, at):.2f} of the least variance"


def error_ratios(part: Mapping, plan: str) -> np.ndarray:
    """Errors over those of the own law with the same target and seed: (pairs, looks)."""
    pairs = [np.array(e[plan]) / np.array(e[OWN]) for e in part["error"].values()]
    return np.concatenate(pairs)


def equal_time_ratios(part: Mapping, plan: str) -> np.ndarray:
    """The same at equal processor's time, (pairs, 1): own's after three quarters of its updates.

    The plan has made fewer of them by then, or more; its error there is read off between two looks,
    on logarithmic scales.
    """
    at_own = 0.75 * part["looks"][-1]
    x = np.log(part["looks"])

    def errors(runs, updates):
        return [np.exp(np.interp(np.log(updates), x, np.log(run))) for run in runs]

    pairs = [
        np.divide(errors(e[plan], at_own / part["time"][plan]), errors(e[OWN], at_own))
        for e in part["error"].values()
    ]
    return np.concatenate(pairs)[:, None]


def mean_ratio(ratios: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Geometric mean over pairs and its 95 % bootstrap interval, look by look."""
    logs = np.log(ratios)
    draws = np.random.default_rng(0).integers(len(logs), size=(1000, len(logs)))
    low, high = np.quantile(logs[draws].mean(1), [0.025, 0.975], axis=0)
    return np.exp(logs.mean(0)), np.exp(low), np.exp(high)


def _error_axes(ax: Axes, shares: Sequence[int]) -> None:
    ax.set(xscale="log", yscale="log", xlim=(shares[0] / 1.2, 125), ylim=(0.6, 4))
    ax.set(xlabel="per cent of the updates", ylabel="error over own's", autoscale_on=False)
    ax.set_xticks(shares, [str(share) for share in shares])
    ax.set_yticks([0.7, 1, 1.5, 2, 3], ["0.7", "1", "1.5", "2", "3"])
    ax.minorticks_off()
