"""What each ingredient of the one-step sampler buys: the default setting with one thing changed.

    python tests/benchmarks/one_step_ablation.py [--updates 1000] [--seeds 3] [--out FILE]
        [--changed ROW ...] [--step-sizes RATE ...]

Every row tries some step sizes on a seed of its own, keeps the one with the smallest distance, and
is then trained on the seeds shown. Writes a Markdown table beside this script. Rows that the table
already holds are not run again, so an interrupted run goes on where it stopped; delete the file to
start anew.
"""

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
from one_step import ALPHA, TARGETS, Target, floor, judge

from som_lite.flow import fit_one_step_sampler, sampler
from som_lite.flow.intervals import Rows, interval_rows
from som_lite.flow.meanflow import adaptive_weight, meanflow_target, sample
from som_lite.flow.nets import AverageVelocityNet, SkipVelocityNet
from som_lite.flow.sampler import instant_rows

SAMPLER, INTERVALS = "som_lite.flow.sampler", "som_lite.flow.intervals"
STEP_SIZES = (2e-3, 5e-3, 1e-2)
TUNING_SEED = 100


@dataclass
class Change:
    """Other settings of the sampler, and makers of replacements of its parts.

    A maker is given the target and what the running fit does not pass on.
    """

    settings: dict = field(default_factory=dict)
    parts: dict[str, Callable[[Target, "Live"], object]] = field(default_factory=dict)


@dataclass
class Live:
    """The network that learns, and the temperature of the present update."""

    net: SkipVelocityNet | None = None
    alpha: float = ALPHA


def random_intervals(t, lines: int, generator):
    """r uniform below t; r = 0 on the first rows."""
    r = t * torch.rand(t.shape, generator=generator)
    r[:lines] = 0
    return r


def noised_rows(target: Target, live: Live, u, eps, pairs: int, generator) -> Rows:
    """Points at one time with their velocity from q, at the temperature of the update."""
    n = len(eps) * pairs
    own = sample(u, torch.randn(n, eps.shape[1], generator=generator)).clamp(-1, 1)
    group = sampler.SHARING
    own = own[torch.randint(n, (n // group, 4 * group), generator=generator)]
    return instant_rows(target.q, live.alpha, own, group, 4, generator, sharpen=True)


def identity_rows(target: Target, live: Live, of_live: bool):
    """MeanFlow's identity with the velocity from q: a Jacobian-vector product, no ODE."""

    def rows(u, eps, steps, pairs, generator) -> Rows:
        a, _, t, v = noised_rows(target, live, u, eps, pairs, generator)
        r = random_intervals(t, len(eps), generator)
        return Rows(a, r, t, meanflow_target((of_live and live.net) or u, a, r, t, v))

    return rows


def split_rows(target: Target, live: Live):
    """SplitMeanFlow: two jumps of the slow copy, [t, s] and [s, r], as the target of one."""

    def rows(u, eps, steps, pairs, generator) -> Rows:
        a, _, t, _ = noised_rows(target, live, u, eps, pairs, generator)
        a[: len(eps)], t[: len(eps)] = eps, 1.0
        r = random_intervals(t, len(eps), generator)
        s = r + (t - r) * torch.rand(t.shape, generator=generator)
        late = u(a, s, t)
        early = u(a - (t - s) * late, r, s)
        return Rows(a, r, t, ((t - s) * late + (s - r) * early) / (t - r))

    return rows


def without_whole(target: Target, live: Live):
    def rows(u, eps, steps, pairs, generator) -> Rows:
        found = interval_rows(u, eps, steps, pairs + 1, generator)
        return Rows(*(x[len(eps) :] for x in found))

    return rows


def mean_heun(velocity, a, t, dt):
    """The average of the posterior means, not of the velocities, at both ends of a step."""
    v0 = velocity(a, t)
    late = (t + dt) / (2 * t)
    return a + dt * ((1 - late) * v0 + late * velocity(a + dt * v0, t + dt))


def adaptive_error(p: float):
    def error(u, rows: Rows):
        square = (u(rows.a, rows.r, rows.t) - rows.u).square().sum(-1)
        return (adaptive_weight(square, p, 1e-2) * square).mean()

    return error


def swap(part: str, new) -> Change:
    return Change(parts={part: lambda target, live: new})


def identity(of_live: bool) -> Change:
    make = partial(identity_rows, of_live=of_live)
    return Change(parts={f"{SAMPLER}.interval_rows": make})


ADAM = torch.optim.Adam
CHANGES = {
    "nothing (the default)": Change(),
    "identity of the live net for r < t": identity(of_live=True),
    "identity of the slow copy for r < t": identity(of_live=False),
    "one split for r < t": Change(parts={f"{SAMPLER}.interval_rows": split_rows}),
    "no slow copy": Change({"memory": 0.0}),
    "means averaged, not velocities": swap(f"{INTERVALS}.heun_step", mean_heun),
    "(r, t) = (0, 1) only by chance": Change(parts={f"{SAMPLER}.interval_rows": without_whole}),
    "a first layer of usual size": Change({"gain": 1.0}),
    "plain weights": swap(f"{SAMPLER}.sharpened", lambda w: w),
    "16 rows share proposals": swap(f"{SAMPLER}.SHARING", 16),
    "interval_weight 2": Change({"interval_weight": 2.0}),
    "interval_weight 4": Change({"interval_weight": 4.0}),
    "Adam's betas (.9, .999)": swap(
        "torch.optim.Adam", lambda p, lr, betas, fused: ADAM(p, lr, fused=fused)
    ),
    "no clipping": swap("torch.nn.utils.clip_grad_norm_", lambda parameters, norm: None),
    "octaves = 3": swap(f"{SAMPLER}.SkipVelocityNet", partial(SkipVelocityNet, octaves=3)),
    "adaptive weight, p = 1": swap(f"{SAMPLER}.squared_error", adaptive_error(1.0)),
    "constant step size": swap(
        "torch.optim.lr_scheduler.CosineAnnealingLR",
        lambda optimizer, updates: torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0),
    ),
    "no skip connection": swap(f"{SAMPLER}.SkipVelocityNet", AverageVelocityNet),
    "cold from the start": Change({"warm": 0.0}),
    "K = 4": Change({"K": 4}),
}

HEAD = """\
`python tests/benchmarks/one_step_ablation.py --updates {updates} --seeds {seeds}
--step-sizes {sizes}` (one core)

Sliced 2-Wasserstein distance to exact samples for 1 and 20 steps, mean over seeds with the smallest
and the largest; its floor, between exact sets; E[Q] in per cent off the exact value and worst error
of a mode's mass for one step. The step size is the best of these on seed {tuning}.

| target | changed | step size | distance, 1 step | 20 steps | floor | E[Q] | mass |
|---|---|---|---|---|---|---|---|
"""


def fit_and_judge(target: Target, change: Change, seed: int, rate: float, updates: int):
    live = Live()
    make_net, temperature = SkipVelocityNet, sampler.falling_temperature

    def recorded_net(*args, **kwargs):
        live.net = make_net(*args, **kwargs)
        return live.net

    def recorded_temperature(*args):
        live.alpha = temperature(*args)
        return live.alpha

    with ExitStack() as stack:
        for part, make in change.parts.items():
            stack.enter_context(patch(part, make(target, live)))
        make_net = sampler.SkipVelocityNet  # as changed
        stack.enter_context(patch(f"{SAMPLER}.SkipVelocityNet", recorded_net))
        stack.enter_context(patch(f"{SAMPLER}.falling_temperature", recorded_temperature))
        settings = {"updates": updates, "learning_rate": rate} | change.settings
        return judge(target, fit_one_step_sampler(target.q, target.dim, ALPHA, seed, **settings))


def spread(values: list[float]) -> str:
    return f"{sum(values) / len(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def line(name: str, what: str, change: Change, args: argparse.Namespace) -> str:
    target = TARGETS[name]()

    def run(seed: int, rate: float):
        return fit_and_judge(target, change, seed, rate, args.updates)

    rate = min(args.step_sizes, key=lambda rate: run(TUNING_SEED, rate)[1][2])
    found = [run(seed, rate) for seed in range(args.seeds)]
    off, mass = (sum(f[1][i] for f in found) / args.seeds for i in range(2))
    cells = [name, what, f"{rate:g}", spread([f[1][2] for f in found])]
    cells += [spread([f[20][2] for f in found]), f"{floor(target):.3f}"]
    return f"| {' | '.join(cells)} | {off:+.1f} % | {mass:.3f} |\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--updates", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--changed", nargs="+", choices=CHANGES, default=list(CHANGES))
    parser.add_argument("--step-sizes", nargs="+", type=float, default=STEP_SIZES)
    parser.add_argument("--target", nargs="+", choices=TARGETS, default=["four bumps", "ring"])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    if not args.out.exists():
        head = HEAD.format(
            updates=args.updates,
            seeds=args.seeds,
            sizes=" ".join(f"{size:g}" for size in args.step_sizes),
            tuning=TUNING_SEED,
        )
        args.out.write_text(head, encoding="utf-8")
    for name in args.target:
        for what in args.changed:
            if f"| {name} | {what} |" not in args.out.read_text(encoding="utf-8"):
                with args.out.open("a", encoding="utf-8") as table:
                    table.write(line(name, what, CHANGES[what], args))


if __name__ == "__main__":
    main()
