"""Boltzmann densities on the square, exactly: what every estimator and sampler is held against.

The density ``p(a) proportional to exp(q(a) / alpha)`` on ``[-1, 1]^2``, by midpoint quadrature: the
square is cut into equal cells, and a cell's mass is the softmax of ``q / alpha`` at its centre.
Sums over the cells then give normalised densities, expectations, samples, and the noised score.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from som_lite.flow.paths import Path, Points, Time
from som_lite.flow.scores import Energy


@dataclass(frozen=True)
class Bumps:
    """``q(a) = sum_k h_k exp(-|a - c_k|^2 / 2 w_k^2)``: centres (M, d), widths and heights (M,)."""

    centres: Float[Tensor, "M d"]
    widths: Float[Tensor, "M"]
    heights: Float[Tensor, "M"]

    def __call__(self, a: Points) -> Float[Tensor, "*batch"]:
        square = (a[..., None, :] - self.centres).square().sum(-1)
        return (self.heights * torch.exp(-square / (2 * self.widths**2))).sum(-1)


def four_bumps() -> Bumps:
    """Four equal hills towards the corners."""
    centres = torch.tensor([[0.6, 0.6], [0.6, -0.6], [-0.6, 0.6], [-0.6, -0.6]])
    return Bumps(centres, torch.full((4,), 0.15), torch.ones(4))


def three_bumps() -> Bumps:
    """Three hills of different width and height; at alpha = .1 they hold .58, .25, .18."""
    centres = torch.tensor([[-0.45, -0.4], [0.6, -0.1], [-0.1, 0.65]])
    return Bumps(centres, torch.tensor([0.2, 0.15, 0.15]), torch.tensor([1.0, 0.97, 0.93]))


def ring(a: Points) -> Float[Tensor, "*batch"]:
    """A circular crest of radius .6 and width .15."""
    return torch.exp(-((a.norm(dim=-1) - 0.6) ** 2) / (2 * 0.15**2))


def ridge(a: Points) -> Float[Tensor, "*batch"]:
    """A parabola around (.4, .4), long on the diagonal, cut by a corner of the square.

    At temperature .1 it is a Gaussian with deviations .6 along and .12 across the diagonal.
    """
    x = a - 0.4
    along, across = (x[..., 0] + x[..., 1]) / math.sqrt(2), (x[..., 0] - x[..., 1]) / math.sqrt(2)
    return 1 - 0.05 * ((along / 0.6) ** 2 + (across / 0.12) ** 2)


ENERGIES: dict[str, Energy] = {
    "four bumps": four_bumps(),
    "three bumps": three_bumps(),
    "ring": ring,
    "ridge": ridge,
}


class BoxBoltzmann:
    """The density proportional to ``exp(q / alpha)`` on ``[-1, 1]^2``, on ``cells * cells`` cells.

    The error of the midpoint rule falls with ``1 / cells^2``: with 201 cells it is below 1e-4 of
    the values as long as q / alpha has no feature narrower than about .1. Times are floats or
    (*batch, 1), with ``sigma_t`` at least a cell's width, 2 / cells. Raises ValueError for
    alpha <= 0 or fewer than two cells.
    """

    def __init__(self, q: Energy, alpha: float, cells: int = 201) -> None:
        if alpha <= 0:
            raise ValueError(f"alpha, the temperature, must be above 0, got {alpha}")
        if cells < 2:
            raise ValueError(f"cells must be at least 2, got {cells}")
        self.q, self.alpha, self.cells = q, alpha, cells
        self.axis = (torch.arange(cells) + 0.5) / cells * 2 - 1
        self.grid = torch.cartesian_prod(self.axis, self.axis)
        value = q(self.grid).double() / alpha
        self.log_z = float(value.logsumexp(0)) + 2 * math.log(2 / cells)
        self.p = value.softmax(0)

    def expectation(self, f: Energy) -> float:
        """``E[f(a)]`` of a function from (n, 2) to (n,)."""
        return float(self.p @ f(self.grid).double())

    def entropy(self) -> float:
        """``-E[log p(a)] = log Z - E[q] / alpha``, in nats; at most ``log 4``, the uniform's."""
        return self.log_z - self.expectation(self.q) / self.alpha

    def log_prob(self, a: Points) -> Float[Tensor, "*batch"]:
        """``q / alpha - log Z`` inside the square, ``-inf`` outside."""
        inside = (a.abs() <= 1).all(-1)
        return torch.where(inside, self.q(a) / self.alpha - self.log_z, -torch.inf)

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "n 2"]:
        """A cell by its mass, then a uniform point in it."""
        cell = torch.multinomial(self.p, n, replacement=True, generator=generator)
        return self.grid[cell] + (2 * torch.rand(n, 2, generator=generator) - 1) / self.cells

    def noised_log_prob(self, a: Points, t: Time, path: Path) -> Float[Tensor, "*batch"]:
        """``log p_t(a) = log sum_cells p N(a; mu cell, sigma^2 I)``."""
        left, right, shift = self._likelihoods(a, t, path)
        sigma = torch.as_tensor(path.sigma(t)).double().expand_as(shift)
        mass = ((left @ self._square()) * right).sum(-1)
        normal = -2 * sigma.log() - math.log(2 * math.pi)
        return (mass.log() + (shift + normal).squeeze(-1)).to(a.dtype)

    def posterior_mean(self, a: Points, t: Time, path: Path) -> Points:
        """``m(a, t) = E[a_0 | a_t = a]``, the cells weighted by ``p N(a; mu cell, sigma^2 I)``."""
        left, right, _ = self._likelihoods(a, t, path)
        by_left, by_right = left @ self._square(), right @ self._square().T
        axis = self.axis.double()
        m = torch.stack([(left * axis * by_right).sum(-1), (by_left * right * axis).sum(-1)], -1)
        return (m / (by_left * right).sum(-1, keepdim=True)).to(a.dtype)

    def noised_score(self, a: Points, t: Time, path: Path) -> Points:
        """``grad log p_t(a)``."""
        return path.score_from_mean(self.posterior_mean(a, t, path), a, t)

    def velocity(self, a: Points, t: Time, path: Path) -> Points:
        """The velocity of the probability-flow ODE."""
        return path.velocity_from_mean(self.posterior_mean(a, t, path), a, t)

    def _square(self) -> Float[Tensor, "cells cells"]:
        return self.p.view(self.cells, self.cells)

    def _likelihoods(self, a: Points, t: Time, path: Path):
        """The normal likelihood of each coordinate of the cells, (*batch, cells) twice.

        It factorises over the coordinates, which turns the sum over cells^2 into a matrix product.
        The logarithm of what was divided out, to keep the largest factors at 1, is (*batch, 1).
        """
        x = a.double()[..., None]
        mu = torch.as_tensor(path.mu(t)).double()[..., None]
        sigma = torch.as_tensor(path.sigma(t)).double()[..., None]
        log = -0.5 * ((x - mu * self.axis) / sigma).square()
        top = log.amax(-1, keepdim=True)
        left, right = (log - top).exp().unbind(-2)
        return left, right, top.sum(-2)
