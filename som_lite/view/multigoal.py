"""The map of MultiGoal-v0: water, four paths of land, four goals."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle, Polygon

from som_lite.rl.multigoal import GOALS, ISLAND, REACH, SLOPE
from som_lite.view.style import COLOURS

WATER, LAND = "#d3e6f2", "#ffffff"


def draw_map(ax: Axes, labels: Sequence[str] = ()) -> None:
    """Water and land as far as the window of `ax` reaches, and the goals with a label in each."""
    ax.set_facecolor(WATER)
    far = 2 * max(np.abs([*ax.get_xlim(), *ax.get_ylim()]))
    for goal in GOALS:
        across = SLOPE * np.array([-goal[1], goal[0]])
        path = far * np.array([[0, 0], goal + across, goal - across])
        ax.add_patch(Polygon(path, facecolor=LAND, edgecolor="none", zorder=0))
        ax.add_patch(Circle(goal, REACH, fill=False, color=COLOURS["target"], linewidth=1.8))
    ax.add_patch(Circle((0, 0), ISLAND, facecolor=LAND, edgecolor="none", zorder=0))
    ax.set_xticks([-1, 0, 1])
    ax.set_yticks([-1, 0, 1])
    look = {"ha": "center", "va": "center", "fontsize": 11, "weight": "bold", "zorder": 5}
    for goal, label in zip(GOALS, labels, strict=False):
        ax.text(1.36 * goal[0], 1.36 * goal[1], label, **look)
