"""Diffusion-QL (2208.06193), the usual reference: one network that clones and climbs at once.

    loss = denoising loss of the recorded actions - eta E[Q(s, a)] / E|Q|,    a from the whole chain

Gradients of Q pass through every step of the chain. The paper takes five steps on a
variance-preserving path; eta plays the part of 1 / alpha, in units of the size of Q.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from som_lite.flow.denoising import NoiseNet, denoise, denoising_loss, mean_from_noise
from som_lite.flow.paths import VP
from som_lite.rl.critic import TwinQ
from som_lite.rl.offline.units import Units

PATH = VP()


class DenoisingActor(nn.Module):
    """A chain of few steps, conditioned on the state."""

    def __init__(
        self,
        obs: Float[Tensor, "n obs"],
        dim: int,
        hidden: Sequence[int] = (128, 128),
        steps: int = 5,
    ) -> None:
        super().__init__()
        self.units = Units(obs)
        self.net = NoiseNet(dim, obs.shape[-1], hidden, path=PATH)
        self.dim, self.steps = dim, steps

    def noise(
        self, a: Float[Tensor, "B d"], t: Float[Tensor, "B 1"], obs: Float[Tensor, "B obs"]
    ) -> Float[Tensor, "B d"]:
        """The noise in a."""
        return self.net(a, t, self.units(obs))

    def draw(self, obs: Float[Tensor, "B obs"], generator: torch.Generator) -> Float[Tensor, "B d"]:
        """An action per state, in the box, with its gradient through all steps."""

        def mean(a: Float[Tensor, "B d"], t: Float[Tensor, "B 1"]) -> Float[Tensor, "B d"]:
            return mean_from_noise(self.noise(a, t, obs), a, t, PATH)

        eps = torch.randn(len(obs), self.dim, generator=generator)
        return denoise(mean, eps, PATH, self.steps, generator)


def diffusion_ql_loss(
    actor: DenoisingActor,
    critic: TwinQ,
    obs: Float[Tensor, "B obs"],
    a0: Float[Tensor, "B d"],
    eta: float,
    generator: torch.Generator,
) -> Float[Tensor, ""]:
    """Clone, minus eta times the value of own actions in units of its mean size."""
    t = torch.randint(1, actor.steps + 1, (len(a0), 1), generator=generator) / actor.steps
    eps = torch.randn(a0.shape, generator=generator)
    cloned = denoising_loss(lambda a, t: actor.noise(a, t, obs), a0, eps, t, PATH)
    if eta == 0:
        return cloned
    q = critic.min(obs, actor.draw(obs, generator))
    return cloned - eta * q.mean() / q.detach().abs().mean()
