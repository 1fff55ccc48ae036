"""Bending a flow while it flows: towards a high value, with or without a classifier.

On the linear path a velocity and a score belong together by ``v = -(a + t s) / (1 - t)``. To tilt
the density p_0 by a factor ``f(a_0)`` one adds ``grad log E[f(a_0) | a_t]`` to the score:

    v_guided = v - t / (1 - t) grad_a log E[f(a_0) | a_t = a].

classifier guidance (2105.05233)        f = exp(Q / alpha), and Q at the posterior mean stands for
                                        the expectation: exact when Q is linear and p_0 normal
without a classifier (2207.12598)       f = p(good | a_0)^w, from two velocities: of all the data,
                                        and of the good ones
"""

import torch
from jaxtyping import Float
from torch import Tensor

from som_lite.flow.langevin import boltzmann_score
from som_lite.flow.ode import Times, Velocity
from som_lite.flow.paths import Points
from som_lite.flow.scores import Energy

NEAREST = 0.2  # to t = 1, in 1 - t: nothing is left of a_0 there, and the factor is infinite


def guided_velocity(v: Velocity, q: Energy, alpha: float) -> Velocity:
    """``v - t / (1 - t) grad_a Q(m) / alpha`` with the posterior mean ``m = a - t v(a, t)``."""

    def guided(a: Points, t: Times) -> Points:
        uphill = boltzmann_score(lambda a: q(a - t * v(a, t)), alpha, a)
        return v(a, t) - t / (1 - t).clamp(min=NEAREST) * uphill

    return guided


def classifier_free_velocity(v_all: Velocity, v_good: Velocity, w: float) -> Velocity:
    """``v_all + w (v_good - v_all)``: w = 0 is the data, w = 1 the good data, beyond is more so."""

    def guided(a: Points, t: Times) -> Points:
        all_ = v_all(a, t)
        return all_ + w * (v_good(a, t) - all_)

    return guided


def labels(
    good: Float[Tensor, "B"], generator: torch.Generator, hide: float = 0.3
) -> Float[Tensor, "B 1"]:
    """1 for good rows and -1 for others; 0, which means not told, on a share ``hide`` of them."""
    told = torch.rand(len(good), generator=generator) >= hide
    return ((2 * good - 1) * told)[:, None]
