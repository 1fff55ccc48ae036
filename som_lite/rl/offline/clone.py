"""Behaviour cloning by a one-step flow: MeanFlow (2505.13447) of the recorded actions.

    a_0 = G(s, eps) = eps - u(eps, 0, 1 | s),        eps ~ N(0, I)

No Q, no reward: pairs of a recorded action and fresh noise teach the average velocity u. An action
may be a whole plan, and s whatever the plan depends on.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from som_lite.flow.meanflow import AverageVelocity, meanflow_loss, sample_times
from som_lite.flow.nets import SkipVelocityNet
from som_lite.flow.paths import Linear
from som_lite.rl.offline.units import Units

PATH = Linear()


class Clone(nn.Module):
    """u(a, r, t | s), with states in units of their spread in the data.

    ``label`` more numbers may follow the state, for guidance without a classifier; where they are
    not given they are 0, which means: not told.
    """

    def __init__(
        self,
        obs: Float[Tensor, "n obs"],
        act_dim: int,
        hidden: Sequence[int] = (128, 128),
        label: int = 0,
    ) -> None:
        super().__init__()
        self.units = Units(obs)
        self.act_dim, self.label = act_dim, label
        self.u = SkipVelocityNet(act_dim, obs.shape[-1] + label, hidden)

    def average(
        self, obs: Float[Tensor, "*B obs"], label: Float[Tensor, "*B l"] | None = None
    ) -> AverageVelocity:
        """u(a, r, t) in the given states."""
        told = obs.new_zeros(*obs.shape[:-1], self.label) if label is None else label
        cond = torch.cat([self.units(obs), told], -1)
        return lambda a, r, t: self.u(a, r, t, cond.expand(*a.shape[:-1], -1))

    def velocity(
        self,
        a: Float[Tensor, "*B d"],
        t: Float[Tensor, "*B 1"],
        obs: Float[Tensor, "*B obs"],
        label: Float[Tensor, "*B l"] | None = None,
    ) -> Float[Tensor, "*B d"]:
        """v(a, t) = u(a, t, t): what guidance bends."""
        return self.average(obs, label)(a, t, t)

    def forward(
        self, obs: Float[Tensor, "*B obs"], eps: Float[Tensor, "*B d"]
    ) -> Float[Tensor, "*B d"]:
        """G(s, eps), one network call, with its gradient; it may lie outside the box a little."""
        one = torch.ones_like(eps[..., :1])
        return eps - self.average(obs)(eps, 0 * one, one)

    def draw(
        self, obs: Float[Tensor, "B obs"], n: int, generator: torch.Generator
    ) -> Float[Tensor, "B {n} d"]:
        """n actions per state."""
        eps = torch.randn(len(obs), n, self.act_dim, generator=generator)
        return self(obs[:, None].expand(-1, n, -1), eps).clamp(-1, 1)


def clone_loss(
    u: AverageVelocity, a0: Float[Tensor, "B d"], generator: torch.Generator
) -> Float[Tensor, ""]:
    """MeanFlow's loss where the velocity is that of a pair: eps - a_0."""
    eps = torch.randn(a0.shape, generator=generator)
    r, t = sample_times(len(a0), generator, share_equal=0.5)
    a_t, v = PATH.noise(a0, eps, t), PATH.conditional_velocity(a0, eps, t)
    return meanflow_loss(u, a_t, r, t, v)
