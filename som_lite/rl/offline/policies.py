"""Ways to act on a clone and a critic, as functions `draw(obs, generator) -> actions`.

With D forward passes of the actor or prior and C of the critic per action, counting one candidate
as one pass and a gradient as two more, the *work* of an action is

    clone 1,  best of N 2 N,  prior guidance 2,  classifier guidance 6 steps,  without one 2 steps

and its *depth*, the passes that must wait for one another, 1, 2, 2, 6 steps and steps.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from som_lite.flow.ode import euler_step, solve
from som_lite.rl.critic import TwinQ, best_of_n
from som_lite.rl.offline.clone import Clone
from som_lite.rl.offline.guidance import classifier_free_velocity, guided_velocity
from som_lite.rl.offline.prior_guidance import Prior

Draw = Callable[[Tensor, torch.Generator], Tensor]


class Policy(NamedTuple):
    """How to draw an action per state, and what it costs."""

    draw: Draw
    work: int  # passes of a network
    depth: int  # passes one after the other


class Acting:
    """A policy that `som_lite.rl.evaluate.play` can let act, with a random stream of its own."""

    def __init__(self, draw: Draw, seed: int = 0) -> None:
        self.draw, self.generator = draw, torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def act(self, obs: Float[Tensor, "B obs"], explore: bool) -> Float[Tensor, "B act"]:
        """Actions in the box."""
        return self.draw(obs, self.generator).clamp(-1, 1)


def noise(obs: Float[Tensor, "B obs"], dim: int, generator: torch.Generator) -> Tensor:
    """Standard normal, a row per state."""
    return torch.randn(len(obs), dim, generator=generator)


def cloned(clone: Clone) -> Policy:
    """What the data do."""
    return Policy(lambda obs, g: clone(obs, noise(obs, clone.act_dim, g)), 1, 1)


def best_candidate(clone: Clone, critic: TwinQ, N: int) -> Policy:
    """The best of N actions of the clone, by the critic."""
    return Policy(lambda obs, g: best_of_n(critic, obs, clone.draw(obs, N, g)), 2 * N, 2)


def prior_guided(clone: Clone, prior: Prior) -> Policy:
    """The clone's action for noise of the learnt prior."""
    return Policy(lambda obs, g: clone(obs, prior.draw(obs, g)), 2, 2)


def classifier_guided(clone: Clone, critic: TwinQ, alpha: float, steps: int) -> Policy:
    """The clone's flow, bent uphill at each of its Euler steps."""

    def draw(obs: Tensor, g: torch.Generator) -> Tensor:
        v = guided_velocity(
            lambda a, t: clone.velocity(a, t, obs), lambda a: critic.min(obs, a), alpha
        )
        return solve(v, noise(obs, clone.act_dim, g), steps=steps, step=euler_step)

    return Policy(draw, 6 * steps, 6 * steps)


def classifier_free(clone: Clone, w: float, steps: int) -> Policy:
    """Of a clone with one label: past the good actions, away from all."""

    def draw(obs: Tensor, g: torch.Generator) -> Tensor:
        good = obs.new_ones(len(obs), 1)
        v = classifier_free_velocity(
            lambda a, t: clone.velocity(a, t, obs),
            lambda a, t: clone.velocity(a, t, obs, good),
            w,
        )
        return solve(v, noise(obs, clone.act_dim, g), steps=steps, step=euler_step)

    return Policy(draw, 2 * steps, steps)
