"""The critic: twin Q-networks, temporal-difference targets, best of N, slow targets."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from som_lite.flow.nets import MLP


class TwinQ(nn.Module):
    """Two independent estimates of Q(s, a) (Fujimoto et al. 2018, arXiv 1802.09477).

    Their minimum is used wherever a value is acted upon: each network errs upwards at the actions
    that look best to it, and the two seldom err at the same action.
    """

    def __init__(self, obs_dim: int, act_dim: int, hidden: tuple[int, ...] = (256, 256)):
        super().__init__()
        self.q1 = MLP([obs_dim + act_dim, *hidden, 1], nn.ReLU)
        self.q2 = MLP([obs_dim + act_dim, *hidden, 1], nn.ReLU)

    def forward(
        self, obs: Float[Tensor, "*#batch obs"], a: Float[Tensor, "*#batch act"]
    ) -> Float[Tensor, "2 *batch"]:
        """Both estimates. Leading dimensions broadcast: obs (B, 1, o) meets actions (B, K, d)."""
        return torch.stack([_value(self.q1, obs, a), _value(self.q2, obs, a)])

    def min(
        self, obs: Float[Tensor, "*#batch obs"], a: Float[Tensor, "*#batch act"]
    ) -> Float[Tensor, "*batch"]:
        """The smaller of the two estimates, row by row."""
        return self(obs, a).amin(dim=0)


def _value(
    q: nn.Sequential, obs: Float[Tensor, "*#batch obs"], a: Float[Tensor, "*#batch act"]
) -> Float[Tensor, "*batch"]:
    """q([obs; a]), the first layer written as W [obs; a] = W_obs obs + W_act a.

    A state that meets K actions is then neither copied nor multiplied K times, which halves the
    cost where observations are long (Humanoid).
    """
    layers: list[Any] = list(q)
    first, rest = layers[0], layers[1:]
    w_obs, w_act = first.weight.split([obs.shape[-1], a.shape[-1]], dim=1)
    x = F.linear(obs, w_obs, first.bias) + F.linear(a, w_act)
    for layer in rest:
        x = layer(x)
    return x.squeeze(-1)


def best_of_n(
    critic: TwinQ, obs: Float[Tensor, "B obs"], candidates: Float[Tensor, "B N act"]
) -> Float[Tensor, "B act"]:
    """For each state the candidate with the highest min-Q, all scored in one forward pass."""
    if candidates.shape[1] == 1:
        return candidates[:, 0]
    q = critic.min(obs[:, None], candidates)
    return candidates[torch.arange(len(q), device=q.device), q.argmax(dim=1)]


def td_target(
    reward: Float[Tensor, "B"],
    terminated: Float[Tensor, "B"],
    next_q: Float[Tensor, "B"],
    gamma: float,
) -> Float[Tensor, "B"]:
    """y = r + gamma (1 - terminated) Q(s', a'): nothing follows a terminal state."""
    return reward + gamma * (1 - terminated) * next_q


@torch.no_grad()
def polyak_(target: nn.Module, online: nn.Module, tau: float) -> None:
    """target <- (1 - tau) target + tau online, in place, in one fused call."""
    torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
        tuple(target.parameters()), tuple(online.parameters()), tau
    )
