"""DIPO: diffusion policy by action gradient (Yang et al. 2023, arXiv 2305.13122).

Improve the data, then clone it: recorded actions climb the critic, and a denoiser learns where they
arrive. There is no temperature; the spread that is left is that of the data.

The paper writes the moved actions back into the buffer, where every visit moves them on. Here they
start from the recorded action each time, so that no old critic is baked into the data; its public
code does the same, because its write never reaches the buffer.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from som_lite.flow.denoising import denoising_loss
from som_lite.flow.langevin import boltzmann_score
from som_lite.rl.agents.base import Metrics
from som_lite.rl.agents.denoiser import PATH, DenoiserConfig, DenoisingActor
from som_lite.rl.replay import Batch


@dataclass(frozen=True)
class DIPOConfig(DenoiserConfig):
    """Settings of DIPO."""

    climbs: int = 5  # steps of an action up the gradient of Q
    eta: float = 0.1  # length of such a step
    relative: bool = True  # steps have this length; otherwise it multiplies the gradient

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least_one("climbs")
        self.positive("eta")


# Its code: 20 Adam steps of .03 each (40 on HalfCheetah).
PAPER = DIPOConfig(
    critic="plain", hidden=(256, 256, 256), critic_lr=3e-4, actor_lr=3e-4, actor_every=1,
    actor_batch=256, n_evaluate=1, steps=100, climbs=20, eta=0.03,
)  # fmt: skip


class DIPO(DenoisingActor):
    """A denoiser of recorded actions that have climbed the critic."""

    paper = PAPER
    config: DIPOConfig

    def actor_loss(self, batch: Batch) -> tuple[Float[Tensor, ""], Metrics]:
        """Denoise the improved actions, all with the same weight."""
        obs, action = self.rows(batch)
        a0 = self.climb(obs, action)
        _, eps, t = self.noised(a0)
        loss = denoising_loss(lambda a, t: self.actor(a, t, obs), a0, eps, t, PATH)
        return loss, {"moved": (a0 - action).norm(dim=-1).mean()}

    def climb(self, obs: Float[Tensor, "b obs"], a: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """a <- clip(a + eta grad Q(s, a)), ``climbs`` times; each row by its own gradient."""
        for _ in range(self.config.climbs):
            grad = boltzmann_score(lambda a: self.critic.min(obs, a), 1.0, a)
            if self.config.relative:
                grad = grad / grad.norm(dim=-1, keepdim=True).clamp(min=1e-8)
            a = (a + self.config.eta * grad).clamp(-1, 1)
        return a
