"""Draw every static figure of the book: `make figures`. Unchanged figures keep their bytes.

A figure is a function that returns a matplotlib figure; its docstring becomes the title inside the
SVG file, which screen readers speak.
"""

from pathlib import Path

import matplotlib
import torch

from som_lite.flow.densities import two_moons
from som_lite.flow.ode import rk4_step, solve
from som_lite.flow.paths import Linear
from som_lite.view import plots, style

HERE = Path(__file__).resolve().parent


def one_step():
    """Noise becomes data: along curved flow lines in many small steps, or in one average step."""
    target, path = two_moons(), Linear()
    noise = torch.randn(40, 2, generator=torch.Generator().manual_seed(3))

    def velocity(a, t):
        return target.velocity(a, t, path)

    flow = solve(velocity, noise, steps=60, step=rk4_step, trajectory=True)

    fig, (left, right) = style.figure(8.0, 4.3, ncols=2)
    for ax, lines, kind in ((left, flow, "flow"), (right, flow[[0, -1]], "one-step")):
        style.plane(ax)
        plots.backdrop(ax, target.log_prob, points=60)
        plots.trajectories(ax, lines, kind)
        plots.particles(ax, noise, "noise").set_label("noise")
        plots.particles(ax, flow[-1], "data").set_label("data")
        ax.legend(loc="lower right", frameon=False)
    left.set_title("flow matching: many small steps\nalong the velocity $v(a, t)$")
    right.set_title("MeanFlow: one step\nby the average velocity $u(a, 0, 1)$")
    return fig


FIGURES = {"one_step": one_step}


def save(name, place=HERE):
    """Draw a figure into place/name.svg; the bytes depend on the picture alone."""
    draw = FIGURES[name]
    path = place / f"{name}.svg"
    about = {"Title": draw.__doc__.splitlines()[0], "Date": None, "Creator": None}
    with matplotlib.rc_context({"svg.hashsalt": name}):
        draw().savefig(path, format="svg", metadata=about)
    return path


if __name__ == "__main__":
    for name in FIGURES:
        print(save(name).name)
