"""Critics that are known exactly, each with the exact answer that its one-step actor must reach.

A `KnownQ` stands where an agent has its critic: ``min(obs, a)``. Its Boltzmann policy at the stated
temperature is known by quadrature, or coordinate by coordinate; `judge` compares the one-step
actions of an actor with it, state by state:

* ``mean``: largest error of a coordinate's mean, in units of the exact standard deviation;
* ``std``: standard deviation over the exact one, root mean square over coordinates;
* ``gap``: how much of the way from a uniform action's E[Q] to the exact E[Q] was gone;
* ``mass``: largest error of the mass of a mode.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from som_lite.flow.boltzmann import BoxBoltzmann, four_bumps, ridge

N = 2000  # actions per state
PROBES = 8  # states that are judged


class Figures(NamedTuple):
    mean: float
    std: float
    gap: float
    mass: float


@dataclass(frozen=True)
class KnownQ:
    """q maps obs (*batch, o) and a (*batch, d) to (*batch); ``exact(obs, n)`` draws n actions."""

    obs_dim: int
    act_dim: int
    alpha: float
    q: Callable[[Tensor, Tensor], Tensor]
    mode: Callable[[Tensor, Tensor], Tensor]
    modes: int
    exact: Callable[[Tensor, int, torch.Generator], Tensor]

    def min(self, obs: Tensor, a: Tensor) -> Tensor:
        return self.q(obs, a)

    def states(self, n: int, generator: torch.Generator) -> Tensor:
        """Unit vectors in random directions: the states of all targets."""
        x = torch.randn(n, self.obs_dim, generator=generator)
        return x / x.norm(dim=-1, keepdim=True)


def _without_state(q: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda obs, a: q(a)


def _on_the_plane(q, mode, modes: int, alpha: float) -> KnownQ:
    exact = BoxBoltzmann(q, alpha, 401)
    return KnownQ(
        2,
        2,
        alpha,
        _without_state(q),
        _without_state(mode),
        modes,
        lambda obs, n, generator: exact.sample(n, generator),
    )


def _cut_normal(mean: Tensor, std: float, generator: torch.Generator) -> Tensor:
    """A draw from N(mean, std^2 I) cut to the box, by inverse transform."""
    low, high = (torch.special.ndtr((edge - mean) / std) for edge in (-1, 1))
    u = torch.rand(mean.shape, generator=generator)
    return (mean + std * torch.special.ndtri(low + u * (high - low))).clamp(-1, 1)


def normal() -> KnownQ:
    """N(.5, .2^2) on [-1, 1] at temperature 1."""

    def exact(obs: Tensor, n: int, generator: torch.Generator) -> Tensor:
        return _cut_normal(torch.full((n, 1), 0.5), 0.2, generator)

    def q(obs: Tensor, a: Tensor) -> Tensor:
        return -((a[..., 0] - 0.5) ** 2) / (2 * 0.2**2)

    return KnownQ(2, 1, 1.0, q, lambda obs, a: (a[..., 0] > 0.5).long(), 2, exact)


def bumps() -> KnownQ:
    """Four equal hills at temperature .1: each has a standard deviation of about .05."""
    q = four_bumps()
    return _on_the_plane(q, lambda a: torch.cdist(a, q.centres).argmin(-1), 4, 0.1)


def border_ridge() -> KnownQ:
    """A ridge cut by a corner of the box; its "modes" are three parts along it."""

    def part(a: Tensor) -> Tensor:
        return (a.sum(-1) > 0.4).long() + (a.sum(-1) > 1.2).long()

    return _on_the_plane(ridge, part, 3, 0.1)


def mixture(dim: int = 6, std: float = 0.25, alpha: float = 0.1) -> KnownQ:
    """``exp(q / alpha)`` mixes three normals cut by the box, of masses near .5, .3, .2.

    The centres are three corners of a box of half width .5, far from each other (up to dim = 17).
    """
    signs = (torch.rand(3, dim, generator=torch.Generator().manual_seed(7)) < 0.5).float()
    centres = 0.5 * (2 * signs - 1)
    log_weights = torch.tensor([0.5, 0.3, 0.2]).log()
    low, high = (torch.special.ndtr((edge - centres) / std) for edge in (-1, 1))
    component = (log_weights + (high - low).log().sum(-1)).softmax(0)

    def q(obs: Tensor, a: Tensor) -> Tensor:
        square = (a[..., None, :] - centres).square().sum(-1)
        return alpha * (log_weights - square / (2 * std**2)).logsumexp(-1)

    def exact(obs: Tensor, n: int, generator: torch.Generator) -> Tensor:
        k = torch.multinomial(component, n, replacement=True, generator=generator)
        return _cut_normal(centres[k], std, generator)

    return KnownQ(2, dim, alpha, q, lambda obs, a: torch.cdist(a, centres).argmin(-1), 3, exact)


def swapping_pair(width: float = 0.25, alpha: float = 0.1) -> KnownQ:
    """Hills of height 1 and .94 at +-.5 s: they change places as the state s turns half round."""
    heights = torch.tensor([1.0, 0.94])

    def q(obs: Tensor, a: Tensor) -> Tensor:
        centres = 0.5 * torch.stack([obs, -obs], -2)
        square = (a[..., None, :] - centres).square().sum(-1)
        return (heights * torch.exp(-square / (2 * width**2))).sum(-1)

    def exact(obs: Tensor, n: int, generator: torch.Generator) -> Tensor:
        return BoxBoltzmann(lambda a: q(obs, a), alpha, 201).sample(n, generator)

    def mode(obs: Tensor, a: Tensor) -> Tensor:
        return ((a * obs).sum(-1) < 0).long()

    return KnownQ(2, 2, alpha, q, mode, 2, exact)


KNOWN: dict[str, Callable[[], KnownQ]] = {
    "normal": normal,
    "four bumps": bumps,
    "ridge": border_ridge,
    "6-D mixture": mixture,
    "swapping pair": swapping_pair,
}


def judge(target: KnownQ, generate: Callable[[Tensor, int], Tensor]) -> Figures:
    """Actions ``generate(obs, n)`` (B, n, d) against exact ones; means over the probed states."""
    generator = torch.Generator().manual_seed(11)
    states = target.states(PROBES, generator)
    rows = []
    for obs, a in zip(states, generate(states, N), strict=True):
        e = target.exact(obs, 10 * N, generator)
        uniform = 2 * torch.rand(len(e), target.act_dim, generator=generator) - 1
        mean = ((a.mean(0) - e.mean(0)).abs() / e.std(0)).max()
        std = (a.var(0).mean() / e.var(0).mean()).sqrt()
        low = target.q(obs, uniform).mean()
        gap = (target.q(obs, a).mean() - low) / (target.q(obs, e).mean() - low)
        mass = (_masses(target, obs, a) - _masses(target, obs, e)).abs().max()
        rows.append(torch.stack([mean, std, gap, mass]))
    return Figures(*torch.stack(rows).mean(0).tolist())


def _masses(target: KnownQ, obs: Tensor, a: Tensor) -> Tensor:
    return torch.bincount(target.mode(obs, a), minlength=target.modes) / len(a)
