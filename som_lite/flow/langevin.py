"""Langevin dynamics: samples of a density from its score alone, by many small noisy steps.

A step climbs the log density a little and adds noise. With step size eta and normal noise xi,

    a <- a + eta / 2 s(a) + sqrt(eta) xi,      s = grad log p.

For ``p proportional to exp(q / alpha)`` the score is ``grad q / alpha``. Walks rarely leave a hill
of p. Annealed Langevin dynamics walks on a sequence of noised densities, from nearly pure noise,
where there is one hill, to nearly none (Song and Ermon, 1907.05600, algorithm 1). As policies, with
a learnt q: Langevin Q-learning, and with noise levels NC-LQL (2602.07873).
"""

from collections.abc import Callable, Iterable
from functools import partial

import torch

from som_lite.flow.paths import Path, Points
from som_lite.flow.scores import Energy

Score = Callable[[Points], Points]


def boltzmann_score(q: Energy, alpha: float, a: Points) -> Points:
    """``grad q(a) / alpha``, the score of ``exp(q / alpha)`` wherever that density is positive."""
    with torch.enable_grad():
        a = a.detach().requires_grad_()
        (grad,) = torch.autograd.grad(q(a).sum(), a)
    return grad / alpha


def reflect(a: Points) -> Points:
    """Fold all space into the box ``[-1, 1]^d``, as mirrors on its faces do.

    A folded symmetric step is symmetric again, so without drift the uniform density stays exactly
    as it is. Clipping would pile up points on the faces: a share of order ``sqrt(eta)``.
    """
    return 1 - ((a + 1) % 4 - 2).abs()


def langevin_step(
    score: Score, a: Points, eta: float, generator: torch.Generator, box: bool = True
) -> Points:
    """``a + eta / 2 s(a) + sqrt(eta) xi``, reflected at the faces of the box unless box=False."""
    xi = torch.randn(a.shape, generator=generator, dtype=a.dtype, device=a.device)
    a = a + eta / 2 * score(a) + eta**0.5 * xi
    return reflect(a) if box else a


def langevin(
    score: Score,
    a: Points,
    eta: float,
    steps: int,
    generator: torch.Generator,
    box: bool = True,
) -> Points:
    """Where the walks that start at the points a (*batch, d) are after so many steps.

    Where log p has the curvature ``-1 / c^2``, the step must be below ``4 c^2``, and the walk finds
    the variance ``c^2 / (1 - eta / 4 c^2)`` in place of ``c^2``. Raises ValueError for eta <= 0 or
    steps < 1.
    """
    if eta <= 0:
        raise ValueError(f"eta, the step size, must be above 0, got {eta}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    for _ in range(steps):
        a = langevin_step(score, a, eta, generator, box)
    return a


def annealed_langevin(
    score: Callable[..., Points],
    a: Points,
    path: Path,
    times: Iterable[float],
    steps: int,
    generator: torch.Generator,
    rate: float = 0.5,
) -> Points:
    """Walk ``steps`` steps at each noise level in turn, of size ``rate sigma_t^2``.

    ``score(a, t=t)`` is the score of the noised density ``p_t``; ``times`` fall from about 1 to
    about 0, sigma_t > 0. A noised log density is nowhere more curved than ``-1 / sigma_t^2``, so
    every ``rate`` below 4 is stable. Noised densities fill all space: there is no box. Returns
    points of the last level; `reflect` takes the few that its noise put outside back into the box.
    Raises ValueError for a rate outside (0, 4).
    """
    if not 0 < rate < 4:
        raise ValueError(f"rate, the step size over sigma^2, must lie in (0, 4), got {rate}")
    for t in times:
        eta = rate * float(path.sigma(t)) ** 2
        a = langevin(partial(score, t=t), a, eta, steps, generator, box=False)
    return a
