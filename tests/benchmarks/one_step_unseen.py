"""The one-step sampler on targets of its own, before and after a change of it.

    python tests/benchmarks/one_step_unseen.py [--target "moons" ...] [--seeds 1] [--updates N]
        [--settings before now]

Five targets on the plane and one in ten dimensions, temperature 0.1. A line gives, for one target,
setting and seed: processor seconds (in one process, so that ratios mean something on a busy
machine); E[Q] in per cent off the exact value, the worst error of a mode's mass, and the distance
in floors, each for 1 / 20 steps (``one_step.py`` defines them); and what the sampler itself doubts.
``before``: the settings of the sampler until its first layer was magnified and its weights
sharpened; its groups of 16 rows with shared proposals are now of 32.
"""

import argparse
import math
import time
import warnings
from contextlib import contextmanager, nullcontext
from unittest.mock import patch

import torch
from one_step import ALPHA, Target, floor, judge, normals, on_grid
from torch import Tensor

from som_lite.flow import fit_one_step_sampler
from som_lite.flow.boltzmann import Bumps

BEFORE = {"updates": 4000, "K": 8, "interval_weight": 2.0, "learning_rate": 5e-3, "gain": 1.0}
SETTINGS = {"before": BEFORE, "now": {}}


def five_hills() -> Target:
    """Hills of five widths and heights, of standard deviations .03 to .07 at this temperature."""
    q = Bumps(
        torch.tensor([[-0.7, 0.6], [0.1, 0.75], [0.65, 0.2], [0.3, -0.6], [-0.5, -0.35]]),
        torch.tensor([0.1, 0.2, 0.14, 0.12, 0.22]),
        torch.tensor([1.05, 0.95, 1.0, 1.02, 0.9]),
    )
    return on_grid(q, lambda a: torch.cdist(a, q.centres).argmin(-1))


def moons() -> Target:
    """Two interleaved half circles; the mode is the half circle that is nearer."""

    def crest(x: Tensor, y: Tensor) -> Tensor:
        off = ((x.square() + y.square()).sqrt() - 0.55).square() + 4 * (-y).relu().square()
        return torch.exp(-off / (2 * 0.12**2))

    def parts(a: Tensor) -> Tensor:
        x, y = a.unbind(-1)
        return torch.stack([crest(x + 0.2, y + 0.1), crest(0.2 - x, 0.1 - y)])

    return on_grid(lambda a: parts(a).sum(0), lambda a: parts(a).argmax(0))


def crate() -> Target:
    """Five hills and, at the edges, flanks of others; the modes are the cells of a 3 by 3 board."""

    def q(a: Tensor) -> Tensor:
        return 0.5 + 0.5 * torch.cos(1.6 * math.pi * a).prod(-1)

    def mode(a: Tensor) -> Tensor:
        cell = (1.6 * a).round().long().clamp(-1, 1) + 1
        return 3 * cell[:, 0] + cell[:, 1]

    return on_grid(q, mode)


def cross() -> Target:
    """Two ridges that cross, one longer; the modes are the quadrants around the crossing."""

    def q(a: Tensor) -> Tensor:
        x, y = a[..., 0] + 0.15, a[..., 1] - 0.1
        u, v = ((x + y) / math.sqrt(2)).square(), ((x - y) / math.sqrt(2)).square()
        long = torch.exp(-u / (2 * 0.12**2) - v / (2 * 0.8**2))
        return torch.maximum(long, torch.exp(-v / (2 * 0.12**2) - u / (2 * 0.5**2)))

    return on_grid(q, lambda a: 2 * (a[:, 0] > -0.15).long() + (a[:, 1] > 0.1).long())


def cliff() -> Target:
    """A saddle with a ripple, highest in two corners of the box; each half of it is a mode."""

    def q(a: Tensor) -> Tensor:
        return 0.5 + 0.5 * a.prod(-1) + 0.1 * torch.sin(5 * a[..., 0])

    return on_grid(q, lambda a: (a.sum(-1) > 0).long())


def ten_dimensions(std: float = 0.25) -> Target:
    """Three normals cut by the box, of masses .20, .31, .49."""
    signs = [[1, -1, 1, 1, -1, 1, -1, -1, 1, -1], [-1, 1, 1, -1, -1, 1, 1, -1, -1, 1]]
    c = 0.5 * torch.tensor([*signs, [1, 1, -1, -1, 1, -1, -1, 1, 1, 1]])
    low, high = (torch.special.ndtr((edge - c) / std) for edge in (-1, 1))
    masses = torch.tensor([0.20, 0.31, 0.49])
    return normals(c, std, masses.log() - (high - low).log().sum(-1))


TARGETS = {
    "five hills": five_hills,
    "moons": moons,
    "crate": crate,
    "cross": cross,
    "cliff": cliff,
    "10-D mixture": ten_dimensions,
}

HEAD = """\
| target | setting | seed | cpu s | E[Q] 1 / 20 steps | mass error 1 / 20 \
| distance 1 / 20, in floors | its doubts |
|---|---|---|---|---|---|---|---|"""


@contextmanager
def as_before():
    """Plain weights, and 16 rows that share their proposals."""
    with (
        patch("som_lite.flow.sampler.sharpened", lambda w: w),
        patch("som_lite.flow.sampler.SHARING", 16),
    ):
        yield


def line(name: str, setting: str, seed: int, changed: dict) -> str:
    target = TARGETS[name]()
    with warnings.catch_warnings(), as_before() if setting == "before" else nullcontext():
        warnings.simplefilter("ignore")  # its doubts stand in the table
        cpu = time.process_time()
        settings = SETTINGS[setting] | changed
        sampler = fit_one_step_sampler(target.q, target.dim, ALPHA, seed, **settings)
        cpu = time.process_time() - cpu
    found, apart = judge(target, sampler), floor(target)
    cells = [name, setting, f"{seed}", f"{cpu:.0f}"]
    cells += [" / ".join(f"{found[k][0]:+.1f} %" for k in (1, 20))]
    cells += [" / ".join(f"{found[k][1]:.3f}" for k in (1, 20))]
    cells += [" / ".join(f"{found[k][2] / apart:.2f}" for k in (1, 20))]
    return f"| {' | '.join(cells)} | {sampler.diagnosis.doubts or 'none'} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--target", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--updates", type=int, help="updates (default: the setting's own)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    changed = {} if args.updates is None else {"updates": args.updates}
    print(HEAD)
    for name in args.target:
        for seed in args.seeds:
            for setting in args.settings:
                print(line(name, setting, seed, changed), flush=True)


if __name__ == "__main__":
    main()
