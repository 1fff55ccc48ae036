"""MeanFlow (2505.13447): learn the average velocity over [r, t], sample in one step.

    u(a, r, t) = 1/(t - r) int_r^t v(a_tau, tau) dtau    along the flow line through a at time t
    u = v - (t - r) (v . d_a u + d_t u)                  the MeanFlow identity
    a_r = a_t - (t - r) u(a_t, r, t)                     so one step is  a_0 = eps - u(eps, 0, 1)

Points are (*batch, d); r <= t are (*batch, 1); at r = t the average velocity is the instantaneous
one.
"""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import torch
from jaxtyping import Float
from torch import Tensor

from som_lite.flow.ode import Times, Velocity, rk4_step, solve
from som_lite.flow.paths import Points
from som_lite.flow.timesteps import Column, LogitNormal, uniform

AverageVelocity = Callable[[Points, Times, Times], Points]
P = ParamSpec("P")


def average_velocity(velocity: Velocity, a: Points, r: Times, t: Times, steps: int = 64) -> Points:
    """The true ``u(a, r, t)`` of a known field: follow its line from t to r, divide by t - r."""
    end = solve(velocity, a, t, r, steps, rk4_step)
    gap = t - r
    tiny = torch.finfo(a.dtype).eps ** 0.5  # below, rounding in a - end outweighs the change of v
    return torch.where(gap > tiny, (a - end) / gap.clamp(min=tiny), velocity(a, t))


def with_hint(function: Callable[P, Points]) -> Callable[P, Points]:
    """What `torch.func.jvp` says of layers it cannot pass ends in a line of what to do about it."""

    @wraps(function)
    def hinted(*args: P.args, **kwargs: P.kwargs) -> Points:
        try:
            return function(*args, **kwargs)
        except RuntimeError as error:
            if "forward AD" in str(error) or "captured Tensor" in str(error):
                error.add_note(
                    "u must be differentiable in forward mode: put batch normalisation into "
                    "evaluation mode, and write fused attention as products and a softmax"
                )
            raise

    return hinted


@with_hint
def meanflow_target(u: AverageVelocity, a: Points, r: Times, t: Times, v: Points) -> Points:
    """``v - (t - r) (v . d_a u + d_t u)``: one Jacobian-vector product along (v, 0, 1).

    Carries no gradient.
    """
    tangents = (v, torch.zeros_like(r), torch.ones_like(t))
    with torch.no_grad():
        du_dt = torch.func.jvp(u, (a, r, t), tangents)[1]
        return v - (t - r) * du_dt


def adaptive_weight(squared_error: Float[Tensor, "*batch"], p: float, c: float) -> Tensor:
    """``1 / (error + c)^p`` without gradient (2505.13447, eq. 22): p = 0 is plain squared error."""
    return (squared_error.detach() + c) ** -p


def meanflow_loss(
    u: AverageVelocity,
    a: Points,
    r: Times,
    t: Times,
    v: Points,
    p: float = 0.0,
    c: float = 1e-3,
) -> Float[Tensor, ""]:
    """Mean over the batch of ``weight * ||u - target||^2``, summed over dimensions."""
    error = (u(a, r, t) - meanflow_target(u, a, r, t, v)).square().sum(-1)
    return (adaptive_weight(error, p, c) * error).mean()


LAWS: dict[str, Callable[..., Column]] = {
    "uniform": uniform,
    "logit_normal": LogitNormal().sample,
}


def sample_times(
    n: int,
    generator: torch.Generator,
    law: str = "uniform",
    share_equal: float = 0.25,
    t_min: float = 1e-3,
    t_max: float = 1.0,
) -> tuple[Column, Column]:
    """Draw two times, order them into r <= t, and set r = t on about ``share_equal`` of the n rows.

    The rows with r = t teach the instantaneous velocity, on which all longer intervals build.
    """
    if law not in LAWS:
        raise ValueError(f"law must be one of {', '.join(LAWS)}, got {law!r}")
    if not 0 <= share_equal <= 1:
        raise ValueError(f"share_equal must lie in [0, 1], got {share_equal}")
    one, two = LAWS[law](n, generator), LAWS[law](n, generator)
    t = torch.maximum(one, two).clamp(t_min, t_max)
    equal = uniform(n, generator) < share_equal
    return torch.where(equal, t, torch.minimum(one, two).clamp(max=t_max)), t


def sample(u: AverageVelocity, eps: Points, steps: int = 1) -> Points:
    """From noise (t = 1) to data (t = 0) in equal jumps ``a_r = a_t - (t - r) u(a_t, r, t)``."""
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    a, ones = eps, torch.ones_like(eps[..., :1])
    for i in range(steps, 0, -1):
        t, r = ones * (i / steps), ones * ((i - 1) / steps)
        a = a - (t - r) * u(a, r, t)
    return a
