"""Does a one-step actor reach the density of a critic that is known exactly?  Two updates, a table.

    python -m tests.benchmarks.actor_known_q [--target normal ...] [--updates 2000] [--seed 0]

``identity``: MeanFlow's identity at 128 noised actions, each with 8 box proposals and 8 blurred
actions of its own. ``lines``: 32 states, each with 4 noised actions that share 4 * 4 box proposals
and 16 blurred actions, and one flow line of the averaged actor. Both ask the critic at most 2048
times an update; the step size of Adam is constant. Figures as in `tests/rl/known_q.py`, of the
averaged actor, wanted within .10, 1 +- .10, 1 +- .10 and .08; `actor_known_q.md` has a run.
"""

import argparse
import copy
from collections.abc import Callable

import torch
from torch import Tensor

from som_lite.flow.intervals import interval_rows
from som_lite.flow.meanflow import AverageVelocity, meanflow_loss, sample_times
from som_lite.flow.nets import SkipVelocityNet
from som_lite.flow.paths import Linear
from som_lite.flow.sampler import instant_rows, squared_error
from som_lite.flow.scores import shared_posterior_mean_estimate
from som_lite.rl.critic import polyak_
from tests.rl.known_q import KNOWN, Figures, KnownQ, judge

PATH = Linear()
STEPS, PAIRS = 6, 2
INTERVAL_WEIGHT = 2.0


def given(net: SkipVelocityNet, obs: Tensor) -> AverageVelocity:
    return lambda a, r, t: net(a, r, t, obs)


@torch.no_grad()
def generate(net: SkipVelocityNet, obs: Tensor, shape: tuple[int, int], generator) -> Tensor:
    """``shape = (n, d)``: n one-step actions of d coordinates for each state."""
    eps = torch.randn(len(obs), *shape, generator=generator)
    one = torch.ones(len(obs), shape[0], 1)
    return (eps - net(eps, 0 * one, one, obs[:, None].expand(-1, shape[0], -1))).clamp(-1, 1)


def identity(target: KnownQ, net, average, generator: torch.Generator) -> Tensor:
    obs = target.states(128, generator)
    r, t = sample_times(len(obs), generator, t_min=0.02, t_max=0.999)
    a0 = generate(net, obs, (1, target.act_dim), generator)[:, 0]
    a = PATH.noise(a0, torch.randn(a0.shape, generator=generator), t)
    own = generate(net, obs, (8, target.act_dim), generator)
    m = shared_posterior_mean_estimate(
        lambda z: target.min(obs[:, None], z), a, t, PATH, target.alpha, 8, generator, own
    ).m
    return meanflow_loss(given(net, obs), a, r, t, PATH.velocity_from_mean(m, a, t))


def lines(target: KnownQ, net, average, generator: torch.Generator) -> Tensor:
    obs = target.states(32, generator)
    own = generate(average, obs, (16, target.act_dim), generator)
    with torch.no_grad():
        instant = instant_rows(
            lambda z: target.min(obs[:, None], z), target.alpha, own, 4, 4, generator
        )
        eps = torch.randn(len(obs), target.act_dim, generator=generator)
        interval = interval_rows(given(average, obs), eps, STEPS, PAIRS, generator)
    return squared_error(
        given(net, obs.repeat_interleave(4, 0)), instant
    ) + INTERVAL_WEIGHT * squared_error(given(net, obs.repeat(PAIRS, 1)), interval)


UPDATES: dict[str, Callable[..., Tensor]] = {"identity": identity, "lines": lines}


def train(
    target: KnownQ,
    loss: Callable[..., Tensor],
    updates: int,
    seed: int,
    hidden: tuple[int, ...] = (128, 128),
    rate: float = 1e-3,
    tau: float = 0.005,
) -> Figures:
    """Figures of the averaged actor after so many updates."""
    generator = torch.Generator().manual_seed(seed + 1)
    torch.manual_seed(seed)
    net = SkipVelocityNet(target.act_dim, target.obs_dim, hidden)
    average = copy.deepcopy(net).requires_grad_(False)
    optimizer = torch.optim.Adam(net.parameters(), rate, fused=True)
    for _ in range(updates):
        error = loss(target, net, average, generator)
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        polyak_(average, net, tau)
    return judge(target, lambda obs, n: generate(average, obs, (n, target.act_dim), generator))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--target", nargs="+", choices=KNOWN, default=list(KNOWN))
    parser.add_argument("--update", nargs="+", choices=UPDATES, default=list(UPDATES))
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| target | update | mean | std | gap | mass |\n|---|---|---|---|---|---|")
    for name in args.target:
        for update in args.update:
            found = train(KNOWN[name](), UPDATES[update], args.updates, args.seed)
            cells = " | ".join(f"{x:.3f}" for x in found)
            print(f"| {name} | {update} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
