"""Draw every static figure of the book: `make figures`. Unchanged figures keep their bytes.

A figure is a function that returns a matplotlib figure, and points that move on it if there are
any; its docstring becomes the title inside the SVG file, which screen readers speak.
"""

import re
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.patches import Rectangle

from som_lite.flow.boltzmann import BoxBoltzmann, Bumps, three_bumps
from som_lite.flow.densities import two_moons
from som_lite.flow.ode import rk4_step, solve
from som_lite.flow.paths import Linear
from som_lite.rl.multigoal import play
from som_lite.rl.runs import Run
from som_lite.view import plots, style
from som_lite.view.moving import Movement, animated
from som_lite.view.multigoal import draw_map

HERE = Path(__file__).resolve().parent
RECORDED = HERE.parent / "chapters" / "recorded"


def one_step():
    """Noise becomes data: along curved flow lines in many small steps, or in one average step."""
    target, path = two_moons(), Linear()
    noise = torch.randn(40, 2, generator=torch.Generator().manual_seed(3))

    def velocity(a, t):
        return target.velocity(a, t, path)

    flow = solve(velocity, noise, steps=60, step=rk4_step, trajectory=True)[::3]

    fig, (left, right) = style.figure(8.0, 4.3, ncols=2)
    for ax, lines, kind in ((left, flow, "flow"), (right, flow[[0, -1]], "one-step")):
        style.plane(ax)
        plots.backdrop(ax, target.log_prob, points=45)
        plots.trajectories(ax, lines, kind)
        plots.particles(ax, noise, "noise").set_label("noise")
        plots.particles(ax, flow[-1], "data").set_label("data")
        ax.legend(loc="lower right", frameon=False)
    left.set_title("flow matching: many small steps\nalong the velocity $v(a, t)$")
    right.set_title("MeanFlow: one step\nby the average velocity $u(a, 0, 1)$")
    return fig


def boltzmann_flow(target, path, noise, end=0.02):
    """The exact flow lines (22, n, 2); below `end`, where cells show, one step to the mean."""

    def velocity(a, t):
        return target.velocity(a, t, path)

    lines = solve(velocity, noise, 1.0, end, steps=40, step=rk4_step, trajectory=True)
    return torch.cat([lines[::2], target.posterior_mean(lines[-1:], end, path)])


def ladder():
    """From critic to actor: Q, Boltzmann density, score, velocity, average velocity, one jump."""
    q, path = Bumps(three_bumps().centres, torch.tensor([0.3, 0.22, 0.22]), torch.ones(3)), Linear()
    target = BoxBoltzmann(q, alpha=0.15)
    noise = torch.randn(36, 2, generator=torch.Generator().manual_seed(1))
    lines = boltzmann_flow(target, path, noise[noise.abs().amax(1) < 1.7])
    few = boltzmann_flow(target, path, torch.tensor([[-1.5, 1.1], [1.6, 0.9], [0.9, -1.4]]))

    fig, axes = style.figure(7.6, 5.4, ncols=3, nrows=2)
    critic, density, score, many, chords, actor = axes.flat
    for ax, title, chapters in (
        (critic, "1  critic $Q$", "chapters 03, 09"),
        (density, "2  density $e^{Q/\\alpha}$", "chapter 03"),
        (score, "3  noise it: score $s$", "chapters 03, 04"),
        (many, "4  velocity $v$", "chapters 01, 05"),
        (chords, "5  average velocity $u$", "chapter 02"),
        (actor, "6  one-step actor", "chapters 06, 09"),
    ):
        style.plane(ax, 1.8).set(title=title, xlabel=chapters, xticks=[], yticks=[])
        ax.add_patch(Rectangle((-1, -1), 2, 2, fill=False, linestyle=":", zorder=1))
        if ax not in (critic, score):
            plots.backdrop(ax, target.log_prob, levels=4 if ax is density else 2, points=60)

    axis = torch.linspace(-1, 1, 50)
    square = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    critic.contourf(axis, axis, q(square), levels=7, cmap="viridis", zorder=0)
    plots.backdrop(score, lambda a: target.noised_log_prob(a, 0.3, path), levels=4, points=40)
    plots.field(score, lambda a: target.noised_score(a, 0.3, path), points=9, kind="score")

    plots.trajectories(many, lines, "flow", alpha=0.9)
    plots.trajectories(actor, lines[[0, -1]], "one-step", alpha=0.9)
    plots.trajectories(chords, few, "flow", linewidth=1.3, alpha=0.9)
    for line in few.swapaxes(0, 1):
        for end in (9, 15, -1):  # the times r; t = 1
            plots.arrow(chords, line[0], line[end] - line[0], "average", width=0.009)
    for ax, drawn in ((many, lines), (chords, few), (actor, lines)):
        plots.particles(ax, drawn[0], "noise", alpha=1.0)
        plots.particles(ax, drawn[-1], "data", alpha=1.0)
    return fig


def draw_returns(ax, runs, kind):
    """One agent's returns over steps on one task; curves of unequal length up to the shortest."""
    curves = [run.curve() for run in runs]
    rows = min(len(curve["step"]) for curve in curves)
    for curve in curves if len(curves) > 1 else []:
        ax.plot(curve["step"], curve["return_mean"], color=style.COLOURS[kind], linewidth=0.7)
    mean = np.mean([curve["return_mean"][:rows] for curve in curves], axis=0)
    plots.curve(ax, curves[0]["step"][:rows], mean, kind=kind).set_label(kind.upper())


def learning_curves():
    """Return over steps of the recorded runs, SOM and SAC: thin lines are seeds, bold the mean."""
    folders = sorted(folder for kind in ("som", "sac") for folder in (RECORDED / kind).glob("*/*"))
    tasks = sorted({folder.parent.name for folder in folders})
    nrows = -(-len(tasks) // 3)
    fig, axes = style.figure(8.0, 2.8 * nrows, ncols=3, nrows=nrows)
    for ax in axes.flat[len(tasks) :]:
        ax.remove()
    legend = {}
    for ax, task in zip(axes.flat, tasks, strict=False):
        seeds = []
        for kind in ("som", "sac"):
            if runs := [Run(f) for f in folders if f.parent == RECORDED / kind / task]:
                draw_returns(ax, runs, kind)
                seeds.append(f"{kind.upper()} {len(runs)}")
        ax.set(title=task, xlabel=f"steps (seeds: {', '.join(seeds)})", xlim=(0, None))
        lines, names = ax.get_legend_handles_labels()
        legend |= dict(zip(names, lines, strict=True))
    axes.flat[0].set_ylabel("return")
    fig.legend(legend.values(), legend, loc="outside upper center", ncols=2, frameon=False)
    return fig


def one_call():
    """Noise becomes actions in one call, and actions become hops to four goals: a SOM policy."""
    agent = Run(RECORDED / "som" / "MultiGoal-v0" / "seed0").load_agent()

    def policy(positions):
        return agent.generate(torch.from_numpy(positions), 1, averaged=True)[:, 0].numpy()

    agent.generator.manual_seed(0)
    actions = agent.generate(torch.zeros(1, 2), 400, averaged=True)[0].numpy()
    noise = torch.randn(400, 2, generator=torch.Generator().manual_seed(0)).numpy()
    seen = np.abs(noise).max(axis=1) < 1.9
    positions, _, ends = play(policy, 200)

    fig, (left, right) = style.figure(8.0, 4.2, ncols=2)
    style.plane(left, 2.0).set(title="one network call: noise becomes actions", xlabel="action")
    left.add_patch(Rectangle((-1, -1), 2, 2, fill=False, linestyle="--", zorder=1))
    draw_map(style.plane(right, 1.5))
    right.set(title="each action is a hop: 200 episodes", xlabel="position")
    green, red = style.COLOURS["som"], style.COLOURS["error"]
    return fig, [
        Movement(left, np.stack([noise[seen], actions[seen]]), [(8, 34)], [green] * sum(seen)),
        Movement(right, positions, [(42, 52), (60, 70)], [green if e >= 0 else red for e in ends]),
    ]


FIGURES = {
    "one_step": one_step,
    "ladder": ladder,
    "learning_curves": learning_curves,
    "one_call": one_call,
}


def save(name, place=HERE):
    """Draw a figure into place/name.svg; the bytes depend on the picture alone."""
    draw = FIGURES[name]
    path = place / f"{name}.svg"
    about = {"Title": draw.__doc__.splitlines()[0], "Date": None, "Creator": None}
    drawn = draw()
    fig, movements = drawn if isinstance(drawn, tuple) else (drawn, [])
    with matplotlib.rc_context({"svg.hashsalt": name}):
        fig.savefig(path, format="svg", metadata=about)
    # Hundredths of a point are fine enough, and make half the file.
    text = re.sub(r"(\.\d\d)\d+(?=\s)", r"\1", path.read_text())
    path.write_text(animated(text, fig, movements) if movements else text)
    return path


if __name__ == "__main__":
    for name in FIGURES:
        print(save(name).name)
