"""Three losses of the book as one: rows ``(a, r, t)`` and what u shall be there, for times given.

`flow_matching` (chapter 01) and `meanflow` (02) learn from pairs of data and noise; `from_q` is
the update of SOM's actor (06, 08), which learns from a known energy. The times come from outside,
so that any law of t (flow.timesteps) can be tried on any of them: `train_with_plan`.
"""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from som_lite.flow.boltzmann import BoxBoltzmann
from som_lite.flow.densities import GaussianMixture
from som_lite.flow.dual import value_and_rate
from som_lite.flow.intervals import Rows, interval_rows
from som_lite.flow.meanflow import AverageVelocity, sample
from som_lite.flow.nets import AverageVelocityNet, SkipVelocityNet
from som_lite.flow.ode import Times, heun_step, rk4_step, solve
from som_lite.flow.paths import Linear, Points
from som_lite.flow.scores import posterior_mean_estimate
from som_lite.flow.timesteps import (
    BinLaw,
    Law,
    LogitNormal,
    Power,
    adam_sizes,
    trial_decreases,
    weights,
)

PATH = Linear()
T_LOW, T_HIGH = 0.02, 0.999  # the ends of the path, where 1 / t and 1 / (1 - t) grow
POINTS = 1000  # on which errors are measured


@dataclass(frozen=True)
class Regression:
    """What there is to learn, and how well it has been learnt.

    rows       rows at the times t (n, 1); targets may depend on what the network knows so far
    objective  the law of t that the loss is written for
    error      0 for a perfect network; from fixed points
    lines      rows over intervals whose times are not chosen, or None
    """

    rows: Callable[[AverageVelocityNet, Times, torch.Generator], Rows]
    objective: Law
    error: Callable[[AverageVelocity], float]
    net: Callable[[], AverageVelocityNet]
    lines: Callable[[AverageVelocity, torch.Generator], Rows] | None = None


def row_errors(u: AverageVelocity, rows: Rows) -> Float[Tensor, "n"]:
    """``|u(a, r, t) - wanted|^2`` row by row."""
    return (u(rows.a, rows.r, rows.t) - rows.u).square().sum(-1)


def row_gradients(net: nn.Module, rows: Rows) -> Float[Tensor, "n parameters"]:
    """The gradient of each row's squared error in all weights of the network."""
    parameters = {name: p.detach() for name, p in net.named_parameters()}

    def error(parameters, a, r, t, u):
        out = torch.func.functional_call(net, parameters, (a[None], r[None], t[None]))
        return (out[0] - u).square().sum()

    one_row = torch.func.vmap(torch.func.grad(error), (None, 0, 0, 0, 0))
    return torch.cat([g.flatten(1) for g in one_row(parameters, *rows).values()], 1)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _middle(n: int) -> Tensor:
    """n evenly spread times (n, 1), each in the middle of its slice."""
    return (torch.arange(n)[:, None] + 0.5) / n


def _miss(ends: Points, noise: Points) -> Callable[[AverageVelocity], float]:
    """Mean distance from where one step sends the noise to where it should go."""

    @torch.no_grad()
    def miss(u: AverageVelocity) -> float:
        return float((sample(u, noise) - ends).norm(dim=-1).mean())

    return miss


UNIFORM = Power(1.0)


def flow_matching(data: GaussianMixture, objective: Law = UNIFORM) -> Regression:
    """Only r = t: the velocity, from pairs. The error is relative, ``|u - v| / |v|``."""
    fixed, t = _generator(1), objective.quantile(_middle(POINTS))
    a_t = PATH.noise(data.sample(POINTS, fixed), torch.randn(POINTS, 2, generator=fixed), t)
    v = data.velocity(a_t, t, PATH)

    def rows(net: AverageVelocityNet, t: Times, generator: torch.Generator) -> Rows:
        a0, eps = data.sample(len(t), generator), torch.randn(len(t), 2, generator=generator)
        return Rows(PATH.noise(a0, eps, t), t, t, eps - a0)

    @torch.no_grad()
    def error(u: AverageVelocity) -> float:
        return float(((u(a_t, t, t) - v).square().sum() / v.square().sum()).sqrt())

    return Regression(rows, objective, error, lambda: AverageVelocityNet(2, hidden=(64, 64)))


def meanflow(data: GaussianMixture, share_equal: float = 0.25) -> Regression:
    """The average velocity by its identity, from pairs; r is uniform below t, or t itself.

    With t from the law Power(2.0) that is the larger and the smaller of two uniform times.
    """
    fixed = _generator(1)
    noise = torch.randn(POINTS, 2, generator=fixed)
    ends = solve(lambda a, t: data.velocity(a, t, PATH), noise, steps=64, step=rk4_step)

    def rows(net: AverageVelocityNet, t: Times, generator: torch.Generator) -> Rows:
        a0, eps = data.sample(len(t), generator), torch.randn(len(t), 2, generator=generator)
        chance, part = torch.rand(2, len(t), 1, generator=generator)
        r = torch.where(chance < share_equal, t, part * t)
        a, v = PATH.noise(a0, eps, t), eps - a0
        with torch.no_grad():
            return Rows(a, r, t, v - (t - r) * value_and_rate(net, a, r, t, v)[1])

    error = _miss(ends, noise)
    return Regression(rows, Power(2.0), error, lambda: AverageVelocityNet(2, hidden=(64, 64)))


def from_q(q, alpha: float = 0.15, K: int = 16, lines: int = 32) -> Regression:
    """SOM's actor in one state: velocities from q at r = t, and intervals of its own flow lines."""
    exact, fixed = BoxBoltzmann(q, alpha, cells=81), _generator(1)
    noise = torch.randn(POINTS, 2, generator=fixed)
    ends = solve(
        lambda a, t: exact.velocity(a, t, PATH), noise, T_HIGH, 0.03, steps=48, step=heun_step
    )
    ends = exact.posterior_mean(ends, 0.03, PATH)

    def rows(net: AverageVelocityNet, t: Times, generator: torch.Generator) -> Rows:
        with torch.no_grad():
            t = t.clamp(T_LOW, T_HIGH)
            own = sample(net, torch.randn(len(t), 2, generator=generator)).clamp(-1, 1)
            a = PATH.noise(own, torch.randn(len(t), 2, generator=generator), t)
            m = posterior_mean_estimate(q, a, t, PATH, alpha, K, generator).m
            return Rows(a, t, t, PATH.velocity_from_mean(m, a, t))

    def intervals(u: AverageVelocity, generator: torch.Generator) -> Rows:
        with torch.no_grad():
            return interval_rows(u, torch.randn(lines, 2, generator=generator), 6, 2, generator)

    error = _miss(ends, noise)
    net = lambda: SkipVelocityNet(2, hidden=(64, 64))  # noqa: E731
    return Regression(rows, Power(2.0), error, net, intervals)


@dataclass(frozen=True)
class Plan:
    """How an update chooses its times.

    law       makes the law from that of the objective; None: the objective's own
    spread    one time from each slice of equal mass
    weighted  keep the weights f / p, and with them the objective
    learns    what a BinLaw learns from: "loss", "decrease", or nothing
    """

    law: Callable[[Law], Law] | None = None
    spread: bool = False
    weighted: bool = True
    learns: str = ""
    every: int = 50  # updates between two looks at the decrease
    trial: int = 32  # rows of a trial step

    def __post_init__(self) -> None:
        if self.learns not in ("", "loss", "decrease"):
            raise ValueError(f"learns must be '', 'loss' or 'decrease', got {self.learns!r}")
        if self.every < 1 or self.trial < 1:
            raise ValueError(f"every and trial must be at least 1, got {self.every}, {self.trial}")


PLANS = {
    "own": Plan(),
    "uniform": Plan(lambda f: UNIFORM),
    "spread": Plan(spread=True),
    "logit-normal": Plan(lambda f: LogitNormal(0.0), weighted=False),
    "loss": Plan(BinLaw, learns="loss"),
    "root loss": Plan(lambda f: BinLaw(f, power=0.5), learns="loss"),
    "decrease": Plan(BinLaw, learns="decrease"),
    "decrease, no weights": Plan(BinLaw, learns="decrease", weighted=False),
}


class Look(NamedTuple):
    """A training so far: updates, seconds of the processor, error, the law, what `watch` saw."""

    updates: int
    seconds: float
    error: float
    law: Law
    seen: Any


def bin_decreases(
    task: Regression, net, optimizer, law: BinLaw, trial: int, generator: torch.Generator
) -> Tensor:
    """The decrease of the whole objective by a trial step on each bin, none below 0."""
    bins = len(law.mass)
    probe = task.objective.spread(16 * bins, generator)
    fixed = generator.get_state()

    def rows(t: Times) -> Rows:
        generator.set_state(fixed)  # the same data and noise each time: only u has changed
        return task.rows(net, t, generator)

    def bin_loss(b: int) -> Tensor:
        return row_errors(net, rows(law.base.quantile((b + _middle(trial)) / bins))).mean()

    def whole_loss() -> Tensor:
        return row_errors(net, rows(probe)).mean()

    sizes = adam_sizes(optimizer)
    falls = trial_decreases(net.parameters(), sizes, bin_loss, whole_loss, bins)
    return falls.clamp(min=0)


def train_with_plan(
    task: Regression,
    plan: Plan = Plan(),
    updates: int = 800,
    seed: int = 0,
    batch: int = 128,
    learning_rate: float = 5e-3,
    looks: Sequence[int] = (),
    watch: Callable[[AverageVelocityNet], Any] | None = None,
) -> tuple[AverageVelocityNet, list[Look]]:
    """Train a network, with Adam's step size falling along a half cosine; look at it on the way."""
    generator, seen, spent = _generator(seed), [], 0.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = task.net()
    optimizer = torch.optim.Adam(net.parameters(), learning_rate, fused=True)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    law = plan.law(task.objective) if plan.law else task.objective
    for update in range(1, updates + 1):
        start = time.process_time()
        t = (law.spread if plan.spread else law.sample)(batch, generator)
        errors = row_errors(net, task.rows(net, t, generator))
        w = weights(t, task.objective, law) if plan.weighted else 1.0
        loss = (w * errors).mean()
        if task.lines:
            loss = loss + row_errors(net, task.lines(net, generator)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
        if isinstance(law, BinLaw) and plan.learns == "loss":
            law.observe(t, errors)
        elif isinstance(law, BinLaw) and plan.learns and update % plan.every == 0:
            law.learn(bin_decreases(task, net, optimizer, law, plan.trial, generator))
        spent += time.process_time() - start
        if update in looks:
            watched = watch(net) if watch else None
            seen.append(Look(update, spent, task.error(net), copy.copy(law), watched))
    return net, seen
