"""The explorer of the small world: what is worth what, and who thinks so (chapter 07).

All values are exact and computed at construction for every position of the sliders.
"""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes

from som_lite.rl.small_world import SmallWorld, Table, best_of_n_policy, best_of_n_q
from som_lite.view.controls import Choice
from som_lite.view.explorer import Explorer
from som_lite.view.shades import Shades
from som_lite.view.style import BACKDROP, COLOURS, LINES, figure, plane

GAMMAS = (0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 0.97, 0.99)
COUNTS = (1, 2, 4, 8, 32, 1000)
TOLD, CONFUSED = "told apart", "clock stored as end"
HORIZON = 10  # steps before the time limit
# White, then the backdrop's blues.
SHADES = (255 * np.vstack([[1, 1, 1, 1], BACKDROP(np.linspace(0, 1, 9))])).astype(np.uint8)
PIXELS = 164


def value_landscape_explorer(
    world: SmallWorld,
    gammas: Sequence[float] = GAMMAS,
    counts: Sequence[int] = COUNTS,
    *,
    gamma: float = 0.99,
    n: int = 1000,
) -> Explorer:
    """Q of the best of N by it, as the rank of actions in a place; beside it the values earned.

    "clock stored as end" cuts a share 1 / HORIZON of all transitions off, as when episodes of
    HORIZON steps are in full swing and the last step of each is taken for an end.
    """
    fig, (left, right) = figure(8.4, 4.4, ncols=2)
    actions, place_actions = _action_panel(plane(left, 1.0), world)
    values, place_values = _value_panel(right, world)
    found = {
        (g, ends, count): best_of_n_q(world, count, g, stop)
        for g in gammas
        for count in counts
        for ends, stop in ((TOLD, 0.0), (CONFUSED, 1 / HORIZON))
    }

    def place(gamma, ends, N):
        q = found[gamma, ends, N]
        place_actions(q)
        place_values(_per_step(q, N, gamma), _per_step(found[gamma, TOLD, N], N, gamma))

    return Explorer(
        fig,
        moving=[*actions, *values],
        place=place,
        controls={
            "gamma": Choice(gammas, gamma, "discount"),
            "ends": Choice([TOLD, CONFUSED], TOLD, "what the critic is told"),
            "N": Choice(counts, n, "candidates of which the critic picks one"),
        },
        name="Values of the walker on a line",
        description="Left: every place (across) and action (up), the darker the better the action "
        "for that place by Q; a black line marks the best one. Right: the terrain in grey and the "
        "value of each place per step, (1 - gamma) V, in green; a dotted black line is the value "
        "where ends are told apart. With a high discount the best action between the hills is to "
        "go right at full length, with a low one to stay on the low hill. Storing the clock as an "
        "end pulls the green line down and sends the walker back to the low hill.",
    )


def _per_step(q: Table, n: int, gamma: float) -> np.ndarray:
    """(1 - gamma) V: a reward per step, so that all discounts share one scale."""
    return ((1 - gamma) * (best_of_n_policy(q, n) * q).sum(dim=1)).numpy()


def _action_panel(ax: Axes, world: SmallWorld):
    """Left panel: which action is how good, place by place."""
    S, A = world.reward.shape
    columns, rows = (torch.linspace(0, size - 1, PIXELS).round().long() for size in (S, A))
    image = Shades(ax, SHADES, PIXELS)
    (best,) = ax.plot([], [], color=COLOURS["reference"], label="best action")
    ax.set(xlabel="place $x$", ylabel="action $a$", title="the darker, the better the action")

    def place(q: Table) -> None:
        low, high = q.min(dim=1, keepdim=True).values, q.max(dim=1, keepdim=True).values
        share = (q - low) / (high - low)
        numbers = (share * (len(SHADES) - 0.5)).floor().clamp(max=len(SHADES) - 1).byte()
        image.show(numbers.T[rows][:, columns].numpy())
        best.set_data(world.places.numpy(), world.actions[q.argmax(dim=1)].numpy())

    return [image, best, *ax.spines.values()], place


def _value_panel(ax: Axes, world: SmallWorld):
    """Right panel: the terrain and the values."""
    x = world.places.numpy()
    rewards = world.reward[:, len(world.actions) // 2].numpy()
    ax.fill_between(x, rewards, color="#dddddd", label="terrain")
    (truth,) = ax.plot([], [], color=COLOURS["reference"], linestyle=":", label="ends told apart")
    (value,) = ax.plot([], [], color=COLOURS["one-step"], linestyle=LINES["one-step"], label="here")
    ax.set(xlim=(-1, 1), ylim=(-0.05, 1.25), xlabel="place $x$", ylabel="$(1-\\gamma)\\,V(x)$")
    ax.set(title="value per step", xticks=[-1, -0.5, 0, 0.5, 1])
    ax.legend(loc="upper left", frameon=False)

    def place(here: np.ndarray, told_apart: np.ndarray) -> None:
        value.set_data(x, here)
        truth.set_data(x, told_apart)

    return [truth, value], place
