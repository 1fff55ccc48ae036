"""SOM read literally from public accounts of the paper (Kim et al. 2026, arXiv 2605.23365).

VP path, the gradient estimator with free proposals (eq. 5), a score of unit norm times w (eq. 8),
the identity with the adaptive weight of MeanFlow, replayed actions as a_0. What the paper does
about the networks, the source of a_0 and N is not public; those are choices made here.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from som_lite.flow.meanflow import meanflow_loss, sample_times
from som_lite.flow.nets import AverageVelocityNet
from som_lite.flow.paths import VP
from som_lite.flow.scores import gradient_estimate
from som_lite.rl.agents.base import Metrics
from som_lite.rl.agents.som import SOM, SOMConfig
from som_lite.rl.replay import Batch

PATH = VP()


@dataclass(frozen=True)
class SOMPaperConfig(SOMConfig):
    """Settings of the reading; `alpha` is absolute, after Q is normalised over the batch."""

    critic: str = "plain"
    hidden: tuple[int, ...] = (256, 256, 256)
    critic_lr: float = 3e-4
    actor_lr: float = 3e-4
    actor_every: int = 1
    actor_tau: float = 1.0
    actor_batch: int = 256
    n_explore: int = 32
    K: int = 100
    own: float = 0.0
    alpha: float = 1.0
    unit_norm: float = 25.0  # w: the length of the score
    t_min: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        self.positive("unit_norm")


ONE_CORE = SOMPaperConfig(
    critic="batch_norm", hidden=(256, 256), critic_lr=1e-3, actor_lr=1e-3, actor_every=3,
    actor_batch=128, n_explore=1, K=16,
)  # fmt: skip


class SOMPaper(SOM):
    """The paper's target velocity, of unit-norm scores, in place of the book's."""

    paper, one_core = SOMPaperConfig(), ONE_CORE
    config: SOMPaperConfig

    def make_actor(self) -> nn.Module:
        return AverageVelocityNet(
            self.act_dim, self.obs_dim, self.config.hidden, self.config.octaves
        )

    def actor_loss(self, batch: Batch) -> tuple[Float[Tensor, ""], Metrics]:
        """Eq. 5 and 8, then MeanFlow's identity with weight 1 / (error + c)."""
        c, obs = self.config, batch.obs[: self.config.actor_batch]
        r, t = sample_times(
            len(obs), self.generator, share_equal=c.share_equal, t_min=c.t_min, t_max=0.999
        )
        a0 = batch.action[: len(obs)]
        a_t = PATH.noise(a0, self.randn(*a0.shape), t)

        def normalised_q(a: Float[Tensor, "B K d"]) -> Float[Tensor, "B K"]:
            q = self.critic.min(obs[:, None], a)
            return (q - q.mean()) / (q.std() + 1e-6)

        estimate = gradient_estimate(
            normalised_q, a_t, t, PATH, c.alpha, c.K, self.generator, box=False
        )
        v = self.velocity(estimate.score, a_t, t)
        loss = meanflow_loss(lambda a, r, t: self.actor(a, r, t, obs), a_t, r, t, v, p=1.0)
        return loss, {"ess": estimate.ess.mean(), "speed": v.norm(dim=-1).mean()}

    def velocity(
        self, score: Float[Tensor, "B d"], a_t: Float[Tensor, "B d"], t: Float[Tensor, "B 1"]
    ) -> Float[Tensor, "B d"]:
        """Eq. 8: v = -beta/2 (a + w s / (|s| + 1e-6)): of the score only its direction counts."""
        unit = score / (score.norm(dim=-1, keepdim=True) + 1e-6)
        return PATH.velocity_from_score(self.config.unit_norm * unit, a_t, t)
