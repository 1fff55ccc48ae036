"""What does each agent make of a known Q?  One bandit with four modes, every agent of the package.

    python -m tests.benchmarks.bandit [--agents sdac qsm ...] [--updates 2000] [--out FILE]

Q is the sum of four hills of width .25 at (+-.6, +-.6); the temperature, where an agent has one, is
.2. Actors follow Q itself; agents without one learn it from rewards. Per agent: E[Q] of 4096
actions; modes kept (of four, those that are nearest to at least 5 % of the actions); the sliced
2-Wasserstein distance to the exact Boltzmann density, by quadrature (two exact sets: .02); and the
processor's time of an update as a multiple of that of SAC's, both measured in turns. The last is
for an update as the bandit needs it: of the actor, or of the critic where there is no actor.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from som_lite.flow.boltzmann import BoxBoltzmann, Bumps
from som_lite.rl.agents import AGENTS, SAC, SACConfig
from som_lite.rl.agents.base import ActorCritic
from tests.benchmarks.one_step import sliced_wasserstein
from tests.rl.bandit import KnownQ, actions, learn, transitions

ALPHA, WIDTH, N = 0.2, 0.25, 4096
CORNERS = torch.tensor([[0.6, 0.6], [0.6, -0.6], [-0.6, 0.6], [-0.6, -0.6]])
FOUR = Bumps(CORNERS, torch.full((4,), WIDTH), torch.ones(4))
COMMON = {"hidden": (128, 128), "batch": 256, "critic_lr": 2e-3}
ACTOR = {"actor_lr": 2e-3, "actor_every": 1, "actor_tau": 0.02}
OWN: dict[str, dict] = {  # by the field's table: 20 steps, 32 proposals, 16 own actions
    "som": {"alpha": ALPHA, "relative": False, "K": 32, "actor_batch": 256},
    "som_paper": {"alpha": ALPHA, "K": 32},
    "sac": {"alpha": ALPHA, "target_entropy": -2.0},
    "td3": {},
    "sdac": {"alpha": ALPHA, "relative": False, "K": 32, "actor_batch": 256, "steps": 20},
    "qsm": {"alpha": ALPHA, "relative": False, "actor_batch": 256, "steps": 20},
    "dpmd": {"alpha": 0.5, "relative": False, "K": 8, "actor_batch": 32, "steps": 20},
    "qvpo": {"K": 16, "actor_batch": 32, "steps": 20},
    "dipo": {"climbs": 1, "eta": 0.03, "relative": False, "actor_batch": 256, "steps": 20},
    "fpmd_r": {"alpha": 0.5, "relative": False, "K": 8, "actor_batch": 32},
    "lql": {"alpha": ALPHA, "relative": False, "steps": 20},
    "nc_lql": {"steps": 2},
    "dacer": {"steps": 20},
    "dacer2": {},
    "mfpo": {"alpha": ALPHA, "alpha_lr": 1e-6, "own": 16, "K": 32, "actor_batch": 256},
    "aca": {"steps": 20},
}
OWN |= {"idem": OWN["sdac"], "fpmd_m": OWN["fpmd_r"]}
HEAD = """\
| agent | E[Q] | modes kept | distance to Boltzmann | time / SAC |
|---|---|---|---|---|"""


def make(name: str):
    config, agent = AGENTS[name]
    settings = COMMON | (ACTOR if issubclass(agent, ActorCritic) else {}) | OWN[name]
    return agent(1, 2, replace(config(), **settings))


def one_update(agent) -> Callable[[], object]:
    """The update that `learn` makes."""
    batch = transitions(FOUR, 256, torch.Generator().manual_seed(0))
    if not isinstance(agent, ActorCritic):
        return lambda: agent.update(batch)
    agent.critic = KnownQ(FOUR)
    return lambda: agent.actor_update(batch)


def relative_time(agent, rounds: int = 7, repeats: int = 5) -> float:
    """Blocks of both agents' updates take turns; the median of their ratios."""
    sac = SAC(1, 2, replace(SACConfig(), **COMMON, **ACTOR))
    updates, ratios = [one_update(a) for a in (agent, sac)], []
    for _ in range(rounds):
        spent = []
        for update in updates:
            start = time.process_time()
            for _ in range(repeats):
                update()
            spent.append(time.process_time() - start)
        ratios.append(spent[0] / spent[1])
    return statistics.median(ratios[1:])


def line(name: str, updates: int, exact: torch.Tensor) -> str:
    """A row of the table."""
    ratio = relative_time(make(name))
    a = actions(learn(make(name), FOUR, updates, B=256), N)
    shares = torch.bincount(torch.cdist(a, CORNERS).argmin(1), minlength=4) / N
    cells = [name, f"{FOUR(a).mean():.3f}", f"{int((shares >= 0.05).sum())}"]
    cells += [f"{sliced_wasserstein(a, exact):.3f}", f"{ratio:.1f}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--agents", nargs="+", choices=AGENTS, default=list(AGENTS))
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--out", default="tests/benchmarks/bandit.md")
    args = parser.parse_args()
    torch.set_num_threads(1)
    density = BoxBoltzmann(FOUR, ALPHA)
    g = torch.Generator().manual_seed(1)
    exact = density.sample(N, g)
    uniform = 2 * torch.rand(N, 2, generator=g) - 1
    floor = sliced_wasserstein(density.sample(N, g), exact)
    chosen = "" if len(args.agents) == len(AGENTS) else f" --agents {' '.join(args.agents)}"
    rows = [
        f"`python -m tests.benchmarks.bandit{chosen} --updates {args.updates}`\n",
        f"{args.updates} updates of 256 rows an agent, one seed, {N} actions.\n",
        HEAD,
        f"| exact Boltzmann | {density.expectation(FOUR):.3f} | 4 | {floor:.3f} | |",
        f"| uniform actions | {FOUR(uniform).mean():.3f} | 4 "
        f"| {sliced_wasserstein(uniform, exact):.3f} | |",
    ]
    for name in args.agents:
        rows.append(line(name, args.updates, exact))
        print(rows[-1], flush=True)
        Path(args.out).write_text("\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
