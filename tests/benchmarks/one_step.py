"""How close is the one-step sampler to the exact Boltzmann density?  Five targets, one setting.

    python tests/benchmarks/one_step.py [--target "four bumps" ...] [--seeds 3] [--updates 4000]

Every q has its maximum near 1 and the temperature is 0.1. A line gives, for one target and seed:
seconds; E[Q] in per cent off the exact value for 1, 2 and 20 steps; the largest error of a mode's
mass; the sliced 2-Wasserstein distance to exact samples (the floor: between two exact sets); and
the share of one-step outputs that would leave the box by more than 2 % if the network's answer were
not moved into it.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from som_lite.flow import fit_one_step_sampler
from som_lite.flow.boltzmann import ENERGIES, BoxBoltzmann
from som_lite.flow.sampler import OneStepSampler

ALPHA = 0.1
N = 10_000  # samples per figure; the standard error of a mode's mass is below .005


@dataclass(frozen=True)
class Target:
    """An energy on the box, its exact samples, E[Q] and masses; ``mode`` numbers a point's mode."""

    dim: int
    q: Callable[[Tensor], Tensor]
    mode: Callable[[Tensor], Tensor]
    sample: Callable[[int, torch.Generator], Tensor]
    expected_q: float
    masses: Tensor


def on_grid(q, mode, cells: int = 801) -> Target:
    """A target on the plane, by quadrature."""
    exact = BoxBoltzmann(q, ALPHA, cells)
    modes = mode(exact.grid)
    masses = torch.zeros(int(modes.max()) + 1, dtype=exact.p.dtype).index_add(0, modes, exact.p)
    return Target(2, q, mode, exact.sample, exact.expectation(q), masses)


def bumps(name: str) -> Target:
    """The mode of a point is the nearest centre."""
    q = ENERGIES[name]
    return on_grid(q, lambda a: torch.cdist(a, q.centres).argmin(-1))


def ring() -> Target:
    """Its "modes" are the four quadrants."""
    return on_grid(ENERGIES["ring"], lambda a: 2 * (a[:, 0] > 0).long() + (a[:, 1] > 0).long())


def ridge() -> Target:
    """Its "modes" are three parts along it."""
    return on_grid(ENERGIES["ridge"], lambda a: (a.sum(-1) > 0.4).long() + (a.sum(-1) > 1.2).long())


def normals(c: Tensor, std: float, log_weights: Tensor) -> Target:
    """``exp(q / alpha)`` mixes normals cut by the box; weights before the cut.

    Exact samples come coordinate by coordinate; E[Q] and the masses are means over 400 000 of them
    (standard error of E[Q] .0003).
    """
    dim = c.shape[1]
    low, high = (torch.special.ndtr((edge - c) / std) for edge in (-1, 1))
    component = (log_weights + (high - low).log().sum(-1)).softmax(0)

    def q(a: Tensor) -> Tensor:
        square = (a[..., None, :] - c).square().sum(-1)
        return 1 + ALPHA * (log_weights - square / (2 * std**2)).logsumexp(-1)

    def mode(a: Tensor) -> Tensor:
        return torch.cdist(a, c).argmin(-1)

    def sample(n: int, generator: torch.Generator) -> Tensor:
        k = torch.multinomial(component, n, replacement=True, generator=generator)
        u = torch.rand(n, dim, generator=generator)
        x = c[k] + std * torch.special.ndtri(low[k] + u * (high - low)[k])
        return x.clamp(-1, 1)  # float32 rounds a quantile near 1 to 1

    x = sample(400_000, torch.Generator().manual_seed(1))
    return Target(dim, q, mode, sample, float(q(x).mean()), mode_masses(mode(x), len(c)))


def six_dimensions(std: float = 0.25) -> Target:
    """Three modes of masses about .50, .30, .20."""
    c = torch.tensor(
        [
            [0.5, -0.5, 0.3, 0.5, -0.2, 0.4],
            [-0.5, 0.4, -0.4, 0.3, 0.5, -0.3],
            [-0.1, 0.1, 0.5, -0.5, -0.5, -0.5],
        ]
    )
    return normals(c, std, torch.tensor([0.5, 0.3, 0.2]).log())


TARGETS = {
    "four bumps": partial(bumps, "four bumps"),
    "three bumps": partial(bumps, "three bumps"),
    "ring": ring,
    "ridge": ridge,
    "6-D mixture": six_dimensions,
}


def mode_masses(modes: Tensor, count: int) -> Tensor:
    return torch.bincount(modes, minlength=count).double() / len(modes)


def sliced_wasserstein(x: Tensor, y: Tensor, directions: int = 200) -> float:
    """2-Wasserstein distance of equally many points, root mean square over random directions."""
    e = torch.randn(x.shape[1], directions, generator=torch.Generator().manual_seed(0))
    e = e / e.norm(dim=0)
    return float(((x @ e).sort(0)[0] - (y @ e).sort(0)[0]).square().mean().sqrt())


def floor(target: Target, pairs: int = 4) -> float:
    """The mean distance between two exact sets."""
    generator = torch.Generator().manual_seed(2)
    sets = [(target.sample(N, generator), target.sample(N, generator)) for _ in range(pairs)]
    return sum(sliced_wasserstein(x, y) for x, y in sets) / pairs


@torch.no_grad()
def outside(sampler: OneStepSampler) -> float:
    """Share of one-step outputs ``eps - u(eps, 0, 1)`` beyond 1.02, before anything moves them."""
    eps = torch.randn(N, sampler.dim, generator=torch.Generator().manual_seed(3))
    ones = torch.ones(N, 1)
    return float(((eps - sampler.net(eps, 0 * ones, ones)).abs() > 1.02).any(-1).double().mean())


def judge(target: Target, sampler: OneStepSampler) -> dict[int, tuple[float, float, float]]:
    """For 1, 2 and 20 steps: E[Q] in per cent off, worst mass error, distance to exact samples."""
    exact = target.sample(N, torch.Generator().manual_seed(4))
    result = {}
    for steps in (1, 2, 20):
        x = sampler.sample(N, steps)
        off = 100 * (float(target.q(x).mean()) / target.expected_q - 1)
        masses = mode_masses(target.mode(x), len(target.masses))
        worst = float((masses - target.masses).abs().max())
        result[steps] = (off, worst, sliced_wasserstein(x, exact))
    return result


HEAD = """\
| target | seed | cpu s (wall) | exact E[Q] | 1 step | 2 steps | 20 steps | mass error 1 / 2 / 20 \
| distance 1 / 2 / 20 (floor) | outside |
|---|---|---|---|---|---|---|---|---|---|"""


def line(name: str, seed: int, **settings) -> str:
    target = TARGETS[name]()
    wall, cpu = time.perf_counter(), time.process_time()
    sampler = fit_one_step_sampler(target.q, target.dim, ALPHA, seed, **settings)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    off, mass, distance = zip(*judge(target, sampler).values(), strict=True)
    cells = [name, f"{seed}", f"{cpu:.0f} ({wall:.0f})", f"{target.expected_q:.3f}"]
    cells += [f"{x:+.1f} %" for x in off]
    cells += [" / ".join(f"{x:.3f}" for x in mass)]
    cells += [" / ".join(f"{x:.3f}" for x in distance) + f" ({floor(target):.3f})"]
    return f"| {' | '.join(cells)} | {100 * outside(sampler):.1f} % |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds, from 0")
    parser.add_argument("--updates", type=int, help="updates (default: the sampler's own)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    settings = {} if args.updates is None else {"updates": args.updates}
    print(HEAD)
    for name in args.target:
        for seed in range(args.seeds):
            print(line(name, seed, **settings), flush=True)


if __name__ == "__main__":
    main()
