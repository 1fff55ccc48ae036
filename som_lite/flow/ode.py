"""Solvers of the probability-flow ODE ``da/dt = v(a, t)``, run from noise (t = 1) to data (t = 0).

A velocity takes points (*batch, d) and times (*batch, 1). The three one-step methods differ only in
how often they look: Euler once (order 1), Heun twice (order 2), the classical Runge-Kutta four
times (order 4).
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from som_lite.flow.paths import Points

Times = Float[Tensor, "*batch 1"]
Velocity = Callable[[Points, Times], Points]
Step = Callable[[Velocity, Points, Times, Times], Points]


def euler_step(velocity: Velocity, a: Points, t: Times, dt: Times) -> Points:
    """``a + dt v(a, t)``."""
    return a + dt * velocity(a, t)


def heun_step(velocity: Velocity, a: Points, t: Times, dt: Times) -> Points:
    """Average of the velocities at both ends of an Euler step (explicit trapezoid rule)."""
    v0 = velocity(a, t)
    v1 = velocity(a + dt * v0, t + dt)
    return a + dt * (v0 + v1) / 2


def rk4_step(velocity: Velocity, a: Points, t: Times, dt: Times) -> Points:
    """The classical fourth-order Runge-Kutta step."""
    k1 = velocity(a, t)
    k2 = velocity(a + dt / 2 * k1, t + dt / 2)
    k3 = velocity(a + dt / 2 * k2, t + dt / 2)
    k4 = velocity(a + dt * k3, t + dt)
    return a + dt * (k1 + 2 * k2 + 2 * k3 + k4) / 6


STEPS: dict[str, Step] = {"euler": euler_step, "heun": heun_step, "rk4": rk4_step}


def solve(
    velocity: Velocity,
    a: Points,
    t0: float | Times = 1.0,
    t1: float | Times = 0.0,
    steps: int = 20,
    step: Step = heun_step,
    trajectory: bool = False,
) -> Tensor:
    """Integrate from time t0 to t1 in equal steps (times may differ from row to row).

    Returns the end points (*batch, d), or with ``trajectory`` all of them, (steps + 1, *batch, d).
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    start, end = (
        torch.as_tensor(t, dtype=a.dtype) + torch.zeros_like(a[..., :1]) for t in (t0, t1)
    )
    dt = (end - start) / steps
    points = [a]
    for i in range(steps):
        points.append(step(velocity, points[-1], start + i * dt, dt))
    return torch.stack(points) if trajectory else points[-1]


def reference_solve(
    velocity: Velocity, a: Points, t0: float = 1.0, t1: float = 0.0, tol: float = 1e-8
) -> Points:
    """The adaptive Dormand-Prince solver of ``torchdiffeq``, in float64: the yardstick for ours."""
    from torchdiffeq import odeint

    def field(t: Tensor, x: Tensor) -> Tensor:
        return velocity(x, t.expand_as(x[..., :1]))

    times = torch.tensor([t0, t1], dtype=torch.float64)
    land = {"step_t": times[1:]}  # end on t1, where it would step past it and interpolate
    points = odeint(field, a.double(), times, rtol=tol, atol=tol, method="dopri5", options=land)
    return points[-1]  # pyright: ignore[reportReturnType]  (odeint is not annotated)
