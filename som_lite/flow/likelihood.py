"""The density that a flow gives to a point, from the divergence of its velocity.

A small cloud of points grows with the flow at the relative rate ``div v``, and its density falls at
that rate: ``d log p_t(a_t) / dt = -div v(a_t, t)`` along a flow line. Hence, for the line that
starts in a at t = 0 and reaches a_1 at t = 1,

    log p_0(a) = log p_1(a_1) + int_0^1 div v(a_t, t) dt

(instantaneous change of variables: 1806.07366, theorem 1).
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from som_lite.flow.ode import Step, Times, Velocity, rk4_step, solve
from som_lite.flow.paths import Points

Values = Float[Tensor, "*batch"]
Divergence = Callable[[Velocity, Points, Times], Values]


def divergence(velocity: Velocity, a: Points, t: Times) -> Values:
    """``div v = sum_i d v_i / d a_i``, exact, by one Jacobian-vector product per dimension.

    The velocity must treat the rows of a (*batch, d) separately; returns (*batch,).
    """
    total = torch.zeros_like(a[..., 0])
    for i, axis in enumerate(torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)):
        column = torch.func.jvp(lambda x: velocity(x, t), (a,), (axis.expand_as(a),))[1]
        total = total + column[..., i]
    return total


def hutchinson_divergence(velocity: Velocity, a: Points, t: Times, probe: Points) -> Values:
    """``z . (d_a v) z`` for a random probe z with ``E[z z^T] = I``: one product in any dimension.

    Unbiased when the probe (*batch, d), such as random signs, is independent of a
    (1810.01367, section 3.1).
    """
    along = torch.func.jvp(lambda x: velocity(x, t), (a,), (probe,))[1]
    return (probe * along).sum(-1)


def log_likelihood(
    velocity: Velocity,
    log_prior: Callable[[Points], Values],
    a: Points,
    t0: float = 0.0,
    steps: int = 50,
    step: Step = rk4_step,
    div: Divergence = divergence,
) -> Values:
    """``log p_{t0}(a)`` of the flow whose points have the log density ``log_prior`` at t = 1.

    Follows a (*batch, d) from t0 to 1 and carries the integral of the divergence as one more
    coordinate, with the same solver; returns (*batch,).
    """

    def field(x: Tensor, t: Times) -> Tensor:
        a = x[..., :-1]
        return torch.cat([velocity(a, t), div(velocity, a, t)[..., None]], -1)

    start = torch.cat([a, torch.zeros_like(a[..., :1])], -1)
    end = solve(field, start, t0, 1.0, steps, step)
    return log_prior(end[..., :-1]) + end[..., -1]
