"""The explorer of offline methods: how far each goes, and what it leaves behind (12).

The actions are made elsewhere; here they are looked up.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from som_lite.flow.boltzmann import BoxBoltzmann
from som_lite.flow.scores import Energy
from som_lite.view import plots
from som_lite.view.controls import Choice
from som_lite.view.explorer import Explorer
from som_lite.view.one_step import CELLS, SHADES, SHOWN, density_shades
from som_lite.view.shades import Shades
from som_lite.view.style import figure, plane

Points = Float[Tensor, "n 2"]


def offline_explorer(
    actions: Mapping[str, Sequence[Points]],
    data: BoxBoltzmann,
    q: Energy,
    outside: Callable[[Points], float],
    *,
    names: Sequence[str],
) -> Explorer:
    """Actions over the data's density; their mean Q against the share that left the data.

    actions  method -> its actions at every strength, from the mildest to the strongest
    data     the density of the recorded actions
    outside  the share of some actions that left the data
    names    of the strengths, as many
    """
    for method, clouds in actions.items():
        if len(clouds) != len(names):
            raise ValueError(f"{method} needs {len(names)} strengths, got {len(clouds)}")
    spots = {
        method: np.array([[outside(a), float(q(a).mean())] for a in clouds])
        for method, clouds in actions.items()
    }
    fig, (left, right) = figure(8.4, 4.6, ncols=2)
    plane(left, 1.2)
    image = Shades(left, SHADES, CELLS)
    image.show(density_shades(left, data))
    cloud = plots.particles(left, np.zeros((1, 2)), "one-step", size=3, alpha=0.7)
    means = np.concatenate(list(spots.values()))[:, 1]
    margin = 0.05 * (means.max() - means.min()) + 0.01
    right.set(xlim=(-0.05, 1.05), ylim=(means.min() - margin, means.max() + margin))
    right.set(xlabel="share outside the data", ylabel="E[Q]", autoscale_on=False)
    others = plots.particles(right, np.concatenate(list(spots.values())), "source", size=4)
    curve = plots.particles(right, np.zeros((len(names), 2)), "one-step", size=6)
    here = plots.particles(right, np.zeros((1, 2)), "one-step", size=11, alpha=1.0)
    plots.key(left, {"actions": ("one-step", "points")})
    plots.key(right, {"this method": ("one-step", "points"), "all": ("source", "points")})
    right.get_legend().set_bbox_to_anchor((0.5, -0.16))

    def place(method, strength):
        chosen = list(names).index(strength)
        cloud.set_data(*actions[method][chosen][:SHOWN].T)
        curve.set_data(*spots[method].T)
        here.set_data(*spots[method][chosen : chosen + 1].T)
        gone, mean = spots[method][chosen]
        left.title.set_text(f"{method}, {strength}")
        right.title.set_text(f"E[Q] = {mean:.3f}, outside {gone:.3f}")

    return Explorer(
        fig,
        moving=[image, others, cloud, curve, here, left.title, right.title],
        place=place,
        controls={
            "method": Choice(list(actions), meaning="how actions are made"),
            "strength": Choice(list(names), meaning="how hard it pulls towards a high Q"),
        },
        name="Better, and how far away",
        description="Left: the actions of a method as green diamonds over the density of the data "
        "in shades of blue. Right: mean Q against the share of actions outside the data; grey dots "
        "are all methods at all strengths, green diamonds the chosen method, a large one the "
        "chosen strength. Stronger pulls go up and to the right; a good method goes up first.",
    )
