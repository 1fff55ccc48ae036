"""Does it pay to choose the times t of an update?  Four losses, seven laws, three targets.

    python -m tests.benchmarks.timesteps [--seeds 5] [--scale 1.0] [--part NAME ...] [--table]

Flow matching (01), the same with the weights of the likelihood, MeanFlow (02) and SOM's actor on a
known Q (06, 08), each by the plans of `som_lite.flow.regressions.PLANS`. "own" draws the times from
the law that the loss is written for. Written to chapters/recorded/timesteps.json, which chapter 11
shows, part by part, and as a table to timesteps.md beside this file:

* the variance of a row's gradient by t, during training with "own" (first target, seed 0);
* the error after so many updates, over that of "own" with the same seed: geometric mean over
  targets and seeds, with a 95 % bootstrap interval over these pairs;
* the processor's time of an update over that of "own", from blocks of updates that take turns;
* the same ratio of errors at equal time: "own" after three quarters of its updates, the plan after
  as many as it makes in that time.
"""

import argparse
import json
import statistics
from functools import partial
from pathlib import Path

import numpy as np
import torch

from som_lite.flow import regressions
from som_lite.flow.boltzmann import Bumps, ridge, ring, three_bumps
from som_lite.flow.densities import pinwheel, three_modes, two_moons
from som_lite.flow.regressions import (
    PLANS,
    Regression,
    flow_matching,
    from_q,
    meanflow,
    train_with_plan,
)
from som_lite.flow.timesteps import Likelihood
from som_lite.view.law_of_t import equal_time_ratios, error_ratios, mean_ratio

HERE = Path(__file__).parent
RECORD = HERE.parents[1] / "chapters" / "recorded" / "timesteps.json"
SHARES = (1 / 16, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1)  # of the updates, when to look
EARLY = 1  # the second look, after an eighth
MODULE = "tests.benchmarks.timesteps"
POINTS = 64  # times, of equal mass under the objective, at which densities and variances are kept
ROWS = 128  # rows per time behind a variance

DATA = {"three modes": three_modes, "two moons": two_moons, "pinwheel": pinwheel}
WIDE = Bumps(three_bumps().centres, torch.tensor([0.3, 0.2, 0.2]), torch.tensor([1.0, 0.97, 0.93]))
ENERGIES = {"three bumps": WIDE, "ring": ring, "ridge": ridge}
PARTS = {  # name -> (targets, its regression, updates)
    "flow matching": (DATA, lambda data: flow_matching(data()), 800),
    "likelihood": (DATA, lambda data: flow_matching(data(), Likelihood()), 800),
    "MeanFlow": (DATA, lambda data: meanflow(data()), 800),
    "SOM's actor": (ENERGIES, from_q, 600),
}


def grid(task: Regression) -> torch.Tensor:
    return task.objective.quantile((torch.arange(POINTS) + 0.5) / POINTS)


def gradient_moments(task: Regression, net) -> tuple[list[float], list[float]]:
    """At each time of the grid: E|g|^2 of a row's gradient g, and its variance E|g - E g|^2."""
    second, variance = [], []
    for t in grid(task):
        column = torch.full((ROWS, 1), float(t))
        rows = task.rows(net, column, torch.Generator().manual_seed(7))
        g = regressions.row_gradients(net, rows)
        second.append(float(g.square().sum(1).mean()))
        variance.append(float(g.var(0).sum()))
    return second, variance


def digits(x, places: int = 5):
    """Rounded to significant digits, through lists."""
    if isinstance(x, list | tuple):
        return [digits(y, places) for y in x]
    return float(f"{x:.{places}g}")


def relative_times(task: Regression, updates: int = 50, rounds: int = 3) -> dict[str, float]:
    """Of an update by each plan, over "own"; the plans take turns, the first round warms up."""
    plans, last = plans_of(task), [updates]
    times = [
        {
            name: train_with_plan(task, plan, updates, looks=last)[1][0].seconds
            for name, plan in plans.items()
        }
        for _ in range(rounds + 1)
    ]
    return {p: statistics.median(row[p] / row["own"] for row in times[1:]) for p in plans}


def plans_of(task: Regression) -> dict[str, regressions.Plan]:
    """All of them, but "uniform" only where it is not the objective's own law."""
    flat = task.objective.density(grid(task)).std() == 0
    return {name: plan for name, plan in PLANS.items() if not (flat and name == "uniform")}


def measure(part: str, seeds: int, scale: float) -> dict:
    """All trainings of one loss."""
    targets, make, updates = PARTS[part]
    first, updates = next(iter(targets)), int(scale * updates)
    looks = [round(share * updates) for share in SHARES]
    errors, density, moments = {}, {}, []
    for target, source in targets.items():
        task = make(source)
        errors[target] = {}
        for name, plan in plans_of(task).items():
            runs = []
            for seed in range(seeds):
                shown = target == first and seed == 0
                watch = partial(gradient_moments, task) if shown and name == "own" else None
                _, seen = train_with_plan(task, plan, updates, seed, looks=looks, watch=watch)
                runs.append([look.error for look in seen])
                if shown:
                    density[name] = [look.law.density(grid(task)).tolist() for look in seen]
                if shown and name == "own":
                    moments = [look.seen for look in seen]
            errors[target][name] = runs
            print(f"{part:14}{target:13}{name:22}{np.mean(runs, 0)[-1]:.4f}", flush=True)
    task = make(targets[first])
    return {
        "looks": looks,
        "error": {k: {p: digits(x) for p, x in v.items()} for k, v in errors.items()},
        "time": {p: digits(x, 3) for p, x in relative_times(task).items()},
        "grid": digits(grid(task).tolist()),
        "objective": digits(task.objective.density(grid(task)).tolist()),
        "density": {p: digits(x) for p, x in density.items()},
        "second": digits([m[0] for m in moments]),
        "variance": digits([m[1] for m in moments]),
    }


def table(record: dict) -> str:
    lines = [
        *(f"`{part['command']}`\n" for part in record["parts"].values()),
        "Errors over those of `own`, below 1 is better; in brackets 95 % intervals.\n",
        "| loss | times | 1/8 of the updates | all | time of an update | at equal time |",
        "|---|---|---|---|---|---|",
    ]
    show = lambda numbers: "{:.2f} ({:.2f} to {:.2f})".format(*numbers)  # noqa: E731
    for name, part in record["parts"].items():
        for plan in [p for p in part["time"] if p != "own"]:
            over_looks = np.stack(mean_ratio(error_ratios(part, plan)))
            cells = [show(over_looks[:, EARLY]), show(over_looks[:, -1])]
            at_equal_time = np.stack(mean_ratio(equal_time_ratios(part, plan)))[:, 0]
            cells += [f"{part['time'][plan]:.2f}", show(at_equal_time)]
            lines.append(f"| {name} | {plan} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of updates")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path, default=RECORD)
    parser.add_argument("--table", action="store_true", help="only the table, of what is recorded")
    args = parser.parse_args()
    if args.table:
        (HERE / "timesteps.md").write_text(table(json.loads(args.out.read_text())), "utf-8")
        return
    torch.set_num_threads(1)
    record = json.loads(args.out.read_text()) if args.out.exists() else {"parts": {}}
    record["torch"] = torch.__version__
    for part in args.part:
        measured = measure(part, args.seeds, args.scale)
        measured["command"] = (
            f'python -m {MODULE} --seeds {args.seeds} --scale {args.scale:g} --part "{part}"'
        )
        record["parts"][part] = measured
        args.out.write_text(json.dumps(record) + "\n", encoding="utf-8")
    text = table(record)
    if args.out == RECORD:
        (HERE / "timesteps.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
