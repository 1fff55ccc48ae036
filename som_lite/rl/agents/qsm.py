"""QSM: Q-score matching (Psenka et al. 2023, arXiv 2312.11752).

The score of exp(Q / alpha) is grad Q / alpha. QSM teaches the denoiser this score at every noise
level: the gradient of Q *at the noisy action*. It is the cheapest target of the family, one
gradient per row, but not the score of the noised density, and it reads Q at actions outside the
box, where no transition ever taught it.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from som_lite.flow.denoising import weighted_error
from som_lite.flow.langevin import boltzmann_score
from som_lite.rl.agents.base import Metrics
from som_lite.rl.agents.denoiser import PATH, DenoiserConfig, DenoisingActor
from som_lite.rl.replay import Batch


@dataclass(frozen=True)
class QSMConfig(DenoiserConfig):
    """Settings of QSM."""

    alpha: float = 0.1  # temperature; the paper's M_q is its inverse
    relative: bool = True  # divide the gradients of a batch by their mean length

    def __post_init__(self) -> None:
        super().__post_init__()
        self.positive("alpha")


# M_q = 50; its code leaves out the factor sigma_t.
PAPER = QSMConfig(
    critic="plain", hidden=(512, 512), critic_lr=3e-4, actor_lr=3e-4, actor_every=1,
    actor_batch=256, n_evaluate=1, steps=5, alpha=1 / 50, relative=False,
)  # fmt: skip


class QSM(DenoisingActor):
    """A denoiser whose score is the critic's gradient."""

    paper = PAPER
    config: QSMConfig

    def actor_loss(self, batch: Batch) -> tuple[Float[Tensor, ""], Metrics]:
        """eps(a_t, t | s) = -sigma_t grad Q(s, a_t) / alpha, of the mean of both critics."""
        obs, action = self.rows(batch)
        a_t, _, t = self.noised(action)
        score = boltzmann_score(lambda a: self.critic(obs, a).mean(0), self.config.alpha, a_t)
        length = score.norm(dim=-1).mean()
        if self.config.relative:
            score = score / (self.config.alpha * length).clamp(min=1e-6)
        loss = weighted_error(self.actor(a_t, t, obs), -PATH.sigma(t) * score)
        return loss, {"slope": self.config.alpha * length}
