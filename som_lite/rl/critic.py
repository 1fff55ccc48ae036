"""The critic: twin Q-networks, plain or batch-normalised, TD targets, best of N, slow targets."""

from itertools import pairwise
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from som_lite.flow.langevin import boltzmann_score
from som_lite.flow.nets import MLP, TimeEmbedding
from som_lite.flow.paths import Path
from som_lite.rl.replay import Batch

States = Float[Tensor, "*#batch obs"]
Actions = Float[Tensor, "*#batch act"]


class PlainQ(MLP):
    """Q(s, a): a ReLU network on [s; a]; its TD targets need a slow copy of it."""

    needs_target: ClassVar[bool] = True
    betas: ClassVar[tuple[float, float]] = (0.9, 0.999)  # of Adam

    def __init__(self, obs_dim: int, act_dim: int, hidden: tuple[int, ...]):
        super().__init__([obs_dim + act_dim, *hidden, 1], nn.ReLU)

    def forward(self, obs: States, a: Actions) -> Float[Tensor, "*batch"]:
        return self.layers(obs, a)[-1].squeeze(-1)

    def layers(self, obs: States, a: Actions) -> list[Tensor]:
        """The activations of every hidden layer, and the output."""
        linears: list[Any] = [layer for layer in self if isinstance(layer, nn.Linear)]
        return _layers([(x.weight, x.bias) for x in linears], obs, a)


class BatchNormQ(nn.Module):
    """Q(s, a) with batch normalisation of the input and after each activation (1902.05605).

    The scale of the features, and with it the effective step size, stays in hand, and the TD
    target needs no slow copy. `in_batch` normalises with the statistics of the rows it is given,
    and moves the running ones towards them; `forward` uses the running ones, so that a value
    never depends on the company in which it is computed.
    """

    needs_target: ClassVar[bool] = False
    betas: ClassVar[tuple[float, float]] = (0.5, 0.999)  # the paper's: a short memory of gradients
    momentum: ClassVar[float] = 0.01  # share of a batch in the running statistics
    eps: ClassVar[float] = 1e-3

    def __init__(self, obs_dim: int, act_dim: int, hidden: tuple[int, ...]):
        super().__init__()
        sizes = [obs_dim + act_dim, *hidden]
        self.linears = nn.ModuleList(nn.Linear(m, n) for m, n in pairwise([*sizes, 1]))
        self.norms = nn.ModuleList(nn.BatchNorm1d(n, self.eps, self.momentum) for n in sizes)

    def in_batch(
        self, obs: Float[Tensor, "B obs"], a: Float[Tensor, "B act"]
    ) -> Float[Tensor, "B"]:
        x = torch.cat([obs, a], dim=1)
        for norm, linear in zip(self.norms, self.linears, strict=True):
            x = linear(_normalise(norm, x))
            x = x.relu_() if linear is not self.linears[-1] else x
        return x.squeeze(-1)

    def forward(self, obs: States, a: Actions) -> Float[Tensor, "*batch"]:
        return self.layers(obs, a)[-1].squeeze(-1)

    def layers(self, obs: States, a: Actions) -> list[Tensor]:
        """The activations of every hidden layer, and the output, by the running statistics."""
        return _layers(
            [_folded(n, x) for n, x in zip(self.norms, self.linears, strict=True)], obs, a
        )


CRITICS: dict[str, type[PlainQ] | type[BatchNormQ]] = {"plain": PlainQ, "batch_norm": BatchNormQ}


class TwinQ(nn.Module):
    """Two independent estimates of Q(s, a) (Fujimoto et al. 2018, arXiv 1802.09477).

    Their minimum is used wherever a value is acted upon: each network errs upwards at the actions
    that look best to it, and the two seldom err at the same action.
    """

    def __init__(
        self,
        obs_dim: int,
        act_dim: int,
        hidden: tuple[int, ...] = (256, 256),
        kind: type[PlainQ] | type[BatchNormQ] = PlainQ,
    ):
        super().__init__()
        self.q1, self.q2 = kind(obs_dim, act_dim, hidden), kind(obs_dim, act_dim, hidden)

    def forward(self, obs: States, a: Actions) -> Float[Tensor, "2 *batch"]:
        """Both estimates. Leading dimensions broadcast: obs (B, 1, o) meets actions (B, K, d)."""
        return torch.stack([self.q1(obs, a), self.q2(obs, a)])

    def min(self, obs: States, a: Actions) -> Float[Tensor, "*batch"]:
        """The smaller of the two estimates, row by row."""
        return torch.minimum(self.q1(obs, a), self.q2(obs, a))

    def values(
        self, batch: Batch, next_action: Float[Tensor, "B act"], target: "TwinQ | None"
    ) -> tuple[Float[Tensor, "2 B"], Float[Tensor, "2 B"]]:
        """Q(s, a), and the Q(s', a') that its target is made of.

        A target critic gives the latter. Without one, both kinds of rows go through the network
        as ONE batch, normalised by the statistics of their mixture: those of (s', a') alone are
        not those of (s, a), and two passes would never agree.
        """
        if target is not None:
            return self(batch.obs, batch.action), target(batch.next_obs, next_action)
        obs, a = torch.cat([batch.obs, batch.next_obs]), torch.cat([batch.action, next_action])
        nets: list[Any] = [self.q1, self.q2]
        both = torch.stack([q.in_batch(obs, a) for q in nets])
        return both[:, : len(next_action)], both[:, len(next_action) :]

    @torch.no_grad()
    def health(
        self, obs: Float[Tensor, "B obs"], a: Float[Tensor, "B act"]
    ) -> dict[str, Float[Tensor, ""]]:
        """The share of hidden units that no row of the batch wakes, and the norm of the weights."""
        hidden = [x for q in (self.q1, self.q2) for x in q.layers(obs, a)[:-1]]
        asleep = torch.cat([(x <= 0).all(dim=0) for x in hidden])
        squares = [p.square().sum() for p in self.parameters() if p.ndim == 2]
        return {
            "dead_units": asleep.float().mean(),
            "weight_norm": torch.stack(squares).sum().sqrt(),
        }


class NoisyTwinQ(TwinQ):
    """Q(s, a, t): what the clean actions are worth that look like a at the noise level t in [0, 1].

    The level joins the state; without one it is t = 0, the clean end, where TD is learnt.
    """

    def __init__(self, obs_dim: int, act_dim: int, hidden: tuple[int, ...], octaves: int = 2):
        time = TimeEmbedding(octaves)
        super().__init__(obs_dim + time.size, act_dim, hidden)
        self.time = time

    def forward(
        self, obs: States, a: Actions, t: Float[Tensor, "*#batch 1"] | None = None
    ) -> Float[Tensor, "2 *batch"]:
        return super().forward(self.joined(obs, t), a)

    def min(
        self, obs: States, a: Actions, t: Float[Tensor, "*#batch 1"] | None = None
    ) -> Float[Tensor, "*batch"]:
        return super().min(self.joined(obs, t), a)

    def health(
        self, obs: Float[Tensor, "B obs"], a: Float[Tensor, "B act"]
    ) -> dict[str, Float[Tensor, ""]]:
        return super().health(self.joined(obs, None), a)

    def uphill(self, obs: States, a: Actions, t: Float[Tensor, "*#batch 1"]) -> Actions:
        """The unit vector along the gradient of Q_1 + Q_2 in a."""
        grad = boltzmann_score(lambda a: self(obs, a, t).sum(0), 1.0, a)
        return grad / grad.norm(dim=-1, keepdim=True).clamp(min=1e-12)

    def joined(self, obs: States, t: Float[Tensor, "*#batch 1"] | None) -> Tensor:
        """[s; embedded t]."""
        time = self.time(obs.new_zeros(*obs.shape[:-1], 1) if t is None else t)
        batch = torch.broadcast_shapes(obs.shape[:-1], time.shape[:-1])
        return torch.cat([obs.expand(*batch, -1), time.expand(*batch, -1)], dim=-1)


def level_loss(
    critic: NoisyTwinQ,
    batch: Batch,
    eps: Float[Tensor, "B act"],
    t: Float[Tensor, "B 1"],
    path: Path,
) -> Float[Tensor, ""]:
    """Regress both Q(s, a_t, t) on the mean of both Q(s, a_0, 0); E[Q(s, a_0) | a_t] is the best.

    That is not alpha log E[exp(Q / alpha) | a_t], whose gradient is the score of the noised
    Boltzmann density; they agree where Q varies by less than alpha among the a_0.
    """
    with torch.no_grad():
        clean = critic(batch.obs, batch.action).mean(dim=0)
    a_t = path.noise(batch.action, eps, t)
    return (critic(batch.obs, a_t, t) - clean).square().mean(dim=1).sum()


class RunningScale:
    """A running mean of the spread of Q over the actions of a state: the unit of temperatures."""

    has_parts = True

    def __init__(self, device: str, memory: float = 0.99):  # about the last hundred updates
        self.memory, self.value = memory, torch.ones((), device=device)

    def update(self, q: Float[Tensor, "B K"]) -> None:
        self.value.lerp_(q.std(dim=-1).mean(), 1 - self.memory)

    def clamped(self) -> Tensor:
        """The scale, kept away from 0 for a Q that is constant over actions."""
        return self.value.clamp(min=1e-6)


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
    """y = r + gamma (1 - terminated) Q(s', a'): nothing follows a terminal state.

    Raises ValueError unless the three have one shape: (B,) beside (B, 1) would make (B, B).
    """
    if not reward.shape == terminated.shape == next_q.shape:
        shapes = ", ".join(str(tuple(x.shape)) for x in (reward, terminated, next_q))
        raise ValueError(f"reward, terminated and next_q must have one shape, got {shapes}")
    return reward + gamma * (1 - terminated) * next_q


@torch.no_grad()
def polyak_(target: nn.Module, online: nn.Module, tau: float) -> None:
    """target <- (1 - tau) target + tau online, in place, in one fused call."""
    torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
        tuple(target.parameters()), tuple(online.parameters()), tau
    )


def _normalise(norm: Any, x: Float[Tensor, "B n"]) -> Float[Tensor, "B n"]:
    """Batch normalisation by the rows' own statistics; the running ones follow."""
    return F.batch_norm(
        x,
        norm.running_mean,
        norm.running_var,
        norm.weight,
        norm.bias,
        True,
        norm.momentum,
        norm.eps,
    )


def _folded(norm: Any, linear: Any) -> tuple[Tensor, Tensor]:
    """Weight and bias of linear(norm(x)): with running statistics both are one linear map."""
    slope = norm.weight * (norm.running_var + norm.eps).rsqrt()
    shift = norm.bias - slope * norm.running_mean
    return linear.weight * slope, linear.bias + linear.weight @ shift


def _layers(maps: list[tuple[Tensor, Tensor]], obs: States, a: Actions) -> list[Tensor]:
    """ReLU network on [obs; a], the first layer written as W [obs; a] = W_obs obs + W_act a.

    A state that meets K actions is then neither copied nor multiplied K times, which halves the
    cost where observations are long (Humanoid).
    """
    weight, bias = maps[0]
    w_obs, w_act = weight.split([obs.shape[-1], a.shape[-1]], dim=1)
    outputs = [F.linear(obs, w_obs, bias) + F.linear(a, w_act)]
    for weight, bias in maps[1:]:
        outputs[-1].relu_()
        outputs.append(F.linear(outputs[-1], weight, bias))
    return outputs
