"""What each ingredient of the one-step sampler buys: the default setting with one thing changed.

    python tests/benchmarks/one_step_ablation.py [--updates 2000] [--out FILE]

Writes a Markdown table beside this script. Rows that the table already holds are not run again, so
an interrupted run goes on where it stopped; delete the file to start anew.
"""

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import torch
from one_step import ALPHA, TARGETS, Target, judge

from som_lite.flow import fit_one_step_sampler
from som_lite.flow.intervals import Rows, interval_rows
from som_lite.flow.meanflow import meanflow_target, sample
from som_lite.flow.nets import AverageVelocityNet
from som_lite.flow.sampler import instant_rows
from som_lite.flow.scores import posterior_mean_estimate

SAMPLER, INTERVALS = "som_lite.flow.sampler", "som_lite.flow.intervals"


@dataclass
class Change:
    """Other settings of the sampler, and makers of replacements of its parts."""

    settings: dict = field(default_factory=dict)
    parts: dict[str, Callable[[Target], object]] = field(default_factory=dict)
    targets: tuple[str, ...] = ("four bumps",)


def box_only(q, a, t, path, alpha, K, generator, own, width=0.15):
    """As many proposals, none of them from the model."""
    return posterior_mean_estimate(q, a, t, path, alpha, K + own.shape[1], generator)


def random_intervals(t, lines: int, generator):
    """r uniform below t; r = 0 on the first rows."""
    r = t * torch.rand(t.shape, generator=generator)
    r[:lines] = 0
    return r


def noised_rows(target: Target, u, eps, pairs: int, generator) -> Rows:
    """Points at one time with their velocity from q, around own samples and uniform ones."""
    own = sample(u, torch.randn(len(eps) * pairs, eps.shape[1], generator=generator)).clamp(-1, 1)
    return instant_rows(target.q, ALPHA, own, 64, generator)


def identity_rows(target: Target):
    """MeanFlow's identity with the velocity from q: a Jacobian-vector product, no ODE."""

    def rows(u, eps, steps, pairs, generator) -> Rows:
        a, _, t, v = noised_rows(target, u, eps, pairs, generator)
        r = random_intervals(t, len(eps), generator)
        return Rows(a, r, t, meanflow_target(u, a, r, t, v))

    return rows


def split_rows(target: Target):
    """SplitMeanFlow: two jumps of the slow copy, [t, s] and [s, r], as the target of one."""

    def rows(u, eps, steps, pairs, generator) -> Rows:
        a, _, t, _ = noised_rows(target, u, eps, pairs, generator)
        a[: len(eps)], t[: len(eps)] = eps, 1.0
        r = random_intervals(t, len(eps), generator)
        s = r + (t - r) * torch.rand(t.shape, generator=generator)
        late = u(a, s, t)
        early = u(a - (t - s) * late, r, s)
        return Rows(a, r, t, ((t - s) * late + (s - r) * early) / (t - r))

    return rows


def without_whole(target: Target):
    def rows(u, eps, steps, pairs, generator) -> Rows:
        found = interval_rows(u, eps, steps, pairs + 1, generator)
        return Rows(*(x[len(eps) :] for x in found))

    return rows


def plain_heun(velocity, a, t, r):
    v0 = velocity(a, t)
    return a - (t - r) / 2 * (v0 + velocity(a - (t - r) * v0, r)) if r.max() > 0 else a - t * v0


def constant_rate(optimizer, updates):
    return torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)


BOTH = ("four bumps", "6-D mixture")
CHANGES = {
    "nothing (the default)": Change(targets=BOTH),
    "box proposals only": Change(
        parts={f"{SAMPLER}.shared_posterior_mean_estimate": lambda _: box_only}, targets=BOTH
    ),
    "MeanFlow identity for r < t": Change(
        parts={f"{SAMPLER}.interval_rows": identity_rows}, targets=BOTH
    ),
    "the same, step size 5e-4": Change(
        {"learning_rate": 5e-4}, parts={f"{SAMPLER}.interval_rows": identity_rows}, targets=BOTH
    ),
    "no skip connection": Change(
        parts={f"{SAMPLER}.SkipVelocityNet": lambda _: AverageVelocityNet}
    ),
    "one split for r < t": Change(parts={f"{SAMPLER}.interval_rows": split_rows}),
    "plain Heun steps": Change(parts={f"{INTERVALS}.mean_heun_step": lambda _: plain_heun}),
    "constant step size": Change(
        parts={"torch.optim.lr_scheduler.CosineAnnealingLR": lambda _: constant_rate}
    ),
    "no slow copy": Change({"memory": 0.0}),
    "K = 16": Change({"K": 16}),
    "(r, t) = (0, 1) only by chance": Change(parts={f"{SAMPLER}.interval_rows": without_whole}),
}

HEAD = """\
`python tests/benchmarks/one_step_ablation.py --updates {updates}` (seed 0, one core)

E[Q] in per cent off the exact value, worst error of a mode's mass and sliced 2-Wasserstein distance
to exact samples, for 1, 2 and 20 steps (as in `one_step.py`).

| target | changed | E[Q] 1 step | 2 steps | 20 steps | mass 1 / 2 / 20 | distance 1 / 2 / 20 |
|---|---|---|---|---|---|---|
"""


def line(name: str, what: str, change: Change, updates: int) -> str:
    target = TARGETS[name]()
    with ExitStack() as stack:
        for part, make in change.parts.items():
            stack.enter_context(patch(part, make(target)))
        settings = {"updates": updates} | change.settings
        sampler = fit_one_step_sampler(target.q, target.dim, ALPHA, **settings)
    off, mass, distance = zip(*judge(target, sampler).values(), strict=True)
    cells = [name, what, *(f"{x:+.1f} %" for x in off)]
    cells += [" / ".join(f"{x:.3f}" for x in values) for values in (mass, distance)]
    return f"| {' | '.join(cells)} |\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    if not args.out.exists():
        args.out.write_text(HEAD.format(updates=args.updates), encoding="utf-8")
    for name in BOTH:
        for what, change in CHANGES.items():
            done = args.out.read_text(encoding="utf-8")
            if name in change.targets and f"| {name} | {what} |" not in done:
                with args.out.open("a", encoding="utf-8") as table:
                    table.write(line(name, what, change, args.updates))


if __name__ == "__main__":
    main()
