"""A critic of recorded transitions, which is asked only about actions that the data might show.

    y = r + gamma (1 - terminated) Q(s', a'),    a' the best of N actions of the clone at s'

N = 1 values the recorded behaviour; a larger N values the best of N of it (2007.11091). A maximum
over *all* actions would find those that the critic overrates because nobody ever tried them.
"""

import copy

import torch
from jaxtyping import Float
from torch import Tensor

from som_lite.rl.critic import TwinQ, best_of_n, polyak_, td_target
from som_lite.rl.offline.clone import Clone
from som_lite.rl.offline.data import Data
from som_lite.rl.offline.minimise import minimise
from som_lite.rl.replay import Batch


def value_loss(
    critic: TwinQ, target: TwinQ, batch: Batch, next_action: Float[Tensor, "B act"], gamma: float
) -> Float[Tensor, ""]:
    """Both critics on y, which carries no gradient."""
    q, next_q = critic.values(batch, next_action, target)
    y = td_target(batch.reward, batch.terminated, next_q.detach().amin(0), gamma)
    return (q - y).square().mean(1).sum()


def learn_value(
    data: Data,
    clone: Clone,
    generator: torch.Generator,
    *,
    updates: int,
    gamma: float = 0.99,
    N: int = 4,
    B: int = 256,
    hidden: tuple[int, ...] = (256, 256),
    lr: float = 1e-3,
    tau: float = 0.01,
) -> TwinQ:
    """A critic of the best of N actions of the clone. The rewards are taken as they are."""
    critic = TwinQ(data.batch.obs.shape[1], data.batch.action.shape[1], hidden)
    target = copy.deepcopy(critic).requires_grad_(False)

    def loss() -> Tensor:
        batch = data.sample(B, generator)
        with torch.no_grad():
            candidates = clone.draw(batch.next_obs, N, generator)
            next_action = best_of_n(target, batch.next_obs, candidates)
        return value_loss(critic, target, batch, next_action, gamma)

    minimise(critic.parameters(), loss, updates, lr, after=lambda: polyak_(target, critic, tau))
    return critic
