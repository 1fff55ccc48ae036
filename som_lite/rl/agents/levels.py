"""What agents without an actor share that judge noisy actions: a critic with a noise level.

TD is learnt at the clean end, t = 0. At the other levels Q(s, a_t, t) follows Q(s, a_0, 0); the
gradient there leads a noisy action to clean ones. A sibling gives `path`, `levels` and `generate`.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from som_lite.flow.paths import Path
from som_lite.rl.agents.base import Config, Metrics, QAgent
from som_lite.rl.agents.common import require
from som_lite.rl.critic import NoisyTwinQ, level_loss
from som_lite.rl.replay import Batch


@dataclass(frozen=True)
class LevelConfig(Config):
    """Settings of every agent whose critic has a noise level."""

    critic: str = "plain"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.critic == "plain", "critic", self.critic, "plain: levels share no statistics")


class LevelAgent(QAgent):
    """The critic's gradient at noisy actions makes the actions."""

    path: Path
    critic: NoisyTwinQ

    def make_critic(self) -> NoisyTwinQ:
        return NoisyTwinQ(self.obs_dim, self.act_dim, self.config.hidden)

    def critic_loss(self, batch: Batch) -> tuple[Float[Tensor, ""], Metrics]:
        """TD at the clean end; Q(s, a_t, t) follows Q(s, a_0, 0) at the levels of the generator."""
        loss, metrics = super().critic_loss(batch)
        t = self.levels(len(batch.obs))
        noisy = level_loss(self.critic, batch, self.randn(*batch.action.shape), t, self.path)
        return loss + noisy, metrics | {"level_loss": noisy.detach()}

    def levels(self, n: int) -> Float[Tensor, "n 1"]:
        """n noise levels, drawn from those where `generate` asks the critic."""
        raise NotImplementedError
