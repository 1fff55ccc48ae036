"""A window on a training while it runs: return, losses, how decided the policy is, its actions.

One image widget is redrawn now and then; what the notebook stores is the last picture alone.
"""

import time
from typing import Any

import ipywidgets as widgets
import numpy as np
from IPython.display import display
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import Rectangle
from torch import Tensor

from som_lite.rl.evaluate import own_noise
from som_lite.rl.train import Training
from som_lite.view import plots
from som_lite.view.notebook import show
from som_lite.view.png import quick_png
from som_lite.view.style import figure, of_kind, plane

VIEW = "application/vnd.jupyter.widget-view+json"
SAMPLES = 200  # actions in the last panel
PAUSE = 0.5  # seconds between two drawings, at least
SHARE = 0.1  # of the time that drawing may take, at most
SPREAD = {"som": "ess", "sac": "entropy"}  # by agent: the metric that tells how decided it is
WORDS = {
    "return_mean": "return of an evaluation",
    "critic_loss": "loss of the critic",
    "actor_loss": "loss of the actor",
    "q_mean": "mean of Q",
    "ess": "effective sample size",
    "entropy": "entropy",
}


class Dashboard:
    """Shows a training to the reader, from a `with` block around it:

        with Dashboard(observation, marks=best) as dashboard:
            train(config, on_row=dashboard)  # with progress=False in the config

    observation  (o,), the state whose actions are shown
    marks        (m, d) actions to mark with crosses, such as the best ones there
    description  alt text and stored text of the last picture

    A picture follows a row of the learning curve, unless the last one was drawn less than half a
    second ago or drawing would take more than a tenth of the time. The last picture, shown when the
    block ends, depends on the training alone. Only the first two components of actions are shown.
    ValueError at the first row for an agent other than som and sac, and for a task with one.
    """

    def __init__(
        self,
        observation: Float[Tensor, "o"],
        *,
        marks: Float[Tensor, "m d"] | None = None,
        description: str = "A training in six panels. Five curves over its steps: the mean return "
        "of the evaluations with its spread, the losses of critic and actor, the mean of Q, and "
        "how spread out the policy is: effective sample size or entropy. The sixth panel: actions "
        "that the policy draws in one state, in the square of allowed actions.",
    ):
        self.observation, self.marks, self.description = observation, marks, description
        self.fig, axes = figure(9.6, 6.0, ncols=3, nrows=2)
        self.fig.set_layout_engine(None)  # nothing moves from one picture to the next
        self.fig.subplots_adjust(0.06, 0.08, 0.97, 0.95, wspace=0.36, hspace=0.35)
        self.panels = axes.ravel()
        self.image = widgets.Image(format="png", layout={"max_width": "100%"})
        self.words = widgets.Label("waiting for the first evaluation")
        self.box = widgets.VBox([self.words, self.image]).add_class("som-dashboard")
        self.training: Any = None  # the `Training` that called last
        self.due = 0.0  # when the next drawing may be

    def __enter__(self) -> "Dashboard":
        bundle = self.box._repr_mimebundle_() or {}
        display({VIEW: bundle[VIEW]}, raw=True)  # no other layer: the still will be that
        return self

    def __call__(self, training: Training) -> None:
        """Take notice of a new row; draw it when the time has come."""
        of_kind(SPREAD, training.config.agent, name="the agent of a dashboard")
        if training.sizes[1] < 2:
            raise ValueError("the dashboard shows two components of an action, this task has one")
        self.training = training
        row = training.rows[-1]
        self.words.value = (
            f"step {row['step']} of {training.config.steps}: "
            f"return {row['return_mean']:.1f} ± {row['return_std']:.1f}"
        )
        start = time.monotonic()
        if start >= self.due:
            self.image.value = quick_png(self.draw())
            end = time.monotonic()
            self.due = end + max(PAUSE, (end - start) * (1 / SHARE - 1))

    def __exit__(self, *_: Any) -> None:
        self.box.layout.display = "none"  # the still takes its place
        if self.training is not None:
            self.draw()
            show(self.fig, self.description)

    def draw(self) -> np.ndarray:
        """Draw the rows and the policy as they are now; returns the pixels (height, width, 4)."""
        for ax in self.panels:
            ax.clear()
        returns, actions, critic_loss, actor_loss, q_mean, spread = self.panels
        agent = self.training.config.agent
        self._draw_curve(returns, "return_mean", agent, "return_std")
        self._draw_curve(critic_loss, "critic_loss", "error")
        critic_loss.set_yscale("log")
        self._draw_curve(actor_loss, "actor_loss", "error")
        self._draw_curve(q_mean, "q_mean", "target")
        self._draw_curve(spread, SPREAD[agent], "reference")
        self._draw_actions(actions)
        canvas = FigureCanvasAgg(self.fig)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())

    def _draw_curve(self, ax: Axes, name: str, kind: str, spread: str | None = None) -> None:
        """A metric over the steps, where the rows have it: not before learning begins."""
        steps = self.training.config.steps
        rows = [row for row in self.training.rows if name in row]
        if rows:
            x, y = ([row[key] for row in rows] for key in ("step", name))
            band = None if spread is None else [row[spread] for row in rows]
            plots.curve(ax, x, y, band, kind).set_marker(".")
        ax.set(xlim=(0, steps), xticks=[0, steps / 2, steps], xlabel="step", title=WORDS[name])

    def _draw_actions(self, ax: Axes) -> None:
        agent = self.training.agent
        obs = self.observation[None].to(agent.generator.device)
        with own_noise(agent, 0):  # training goes on as if nobody had looked
            actions = agent.generate(obs, SAMPLES)[0, :, :2]
        plane(ax, 1.15).set_title(f"actions at step {self.training.step}")
        ax.set_xticks([-1, 0, 1])
        ax.set_yticks([-1, 0, 1])
        ax.add_patch(Rectangle((-1, -1), 2, 2, fill=False, linestyle="--"))
        plots.particles(ax, actions, self.training.config.agent, alpha=0.6)
        if self.marks is not None:
            plots.particles(ax, self.marks[:, :2], "reference", size=9, alpha=1.0)
