"""What does each agent make of a known Q?  One bandit with four modes, every agent of the package.

    python -m tests.benchmarks.bandit [--agents sdac qsm ...] [--updates 1000] [--out FILE]

Q is the sum of four hills of width .25 at (+-.6, +-.6); the temperature, where an agent has one, is
.2. Actors and LQL follow Q itself; NC-LQL and ACA learn it from rewards. Per agent: E[Q] of 4096
actions; modes kept (of four, those that are nearest to at least 5 % of the actions); the sliced
2-Wasserstein distance to the exact Boltzmann density, by quadrature; how often one action asks a
network; and the processor's time of an update as a multiple of that of SOM's, both measured in
turns. The last is for an update as the bandit needs it: of the actor, or of the critic where there
is no actor.

How to read it: after some hundred updates of small networks the denoisers (sdac, idem, dipo, aca)
are still blurred, some below uniform actions in E[Q]. One Euler step of FPMD-R ends on the mean of
its policy: where the old policy had four hills that is between them, and there it stays.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from som_lite.flow.boltzmann import BoxBoltzmann, Bumps
from som_lite.rl.agents import AGENTS
from som_lite.rl.agents.base import ActorCritic
from som_lite.rl.bandit import FixedQ, actions, learn_from, network_calls, transitions
from tests.benchmarks.one_step import sliced_wasserstein

ALPHA, WIDTH, N, B = 0.2, 0.25, 4096, 128
CORNERS = torch.tensor([[0.6, 0.6], [0.6, -0.6], [-0.6, 0.6], [-0.6, -0.6]])
FOUR = Bumps(CORNERS, torch.full((4,), WIDTH), torch.ones(4))
COMMON = {"hidden": (64, 64, 64), "batch": B, "critic_lr": 5e-3}
ACTOR = {"actor_lr": 1e-2, "actor_every": 1, "actor_tau": 0.05}
ONE = {"actor_batch": B, "octaves": 1}  # action a state
EIGHT = ONE | {"actor_batch": B // 8, "K": 8}
CHAIN = {"steps": 20}
TEMPERATURE = {"alpha": ALPHA, "relative": False}
OWN: dict[str, dict] = {
    "som": ONE | TEMPERATURE | {"K": 16},
    "som_paper": ONE | {"alpha": ALPHA, "K": 16},
    "sac": {"alpha": ALPHA, "alpha_lr": 1e-6},
    "td3": {},
    "sdac": ONE | CHAIN | TEMPERATURE | {"K": 16},
    "qsm": ONE | CHAIN | TEMPERATURE,
    "dpmd": EIGHT | CHAIN | TEMPERATURE,
    "qvpo": EIGHT | CHAIN,
    "dipo": ONE | CHAIN | {"climbs": 1, "eta": 0.03, "relative": False},
    "fpmd_r": EIGHT | TEMPERATURE,
    "lql": CHAIN | TEMPERATURE,
    "nc_lql": {"steps": 2},
    "dacer": ONE | CHAIN,
    "dacer2": ONE,
    "mfpo": ONE | {"alpha": ALPHA, "alpha_lr": 1e-6},
    "aca": CHAIN,
}
OWN |= {"idem": OWN["sdac"], "fpmd_m": OWN["fpmd_r"]}
HEAD = """\
| agent | E[Q] | modes kept | distance to Boltzmann | network calls | time / SOM |
|---|---|---|---|---|---|"""


def make(name: str):
    config, agent = AGENTS[name]
    settings = COMMON | (ACTOR if issubclass(agent, ActorCritic) else {}) | OWN[name]
    made = agent(1, 2, replace(config(), **settings))
    if name == "lql" or isinstance(made, ActorCritic):
        made.critic = FixedQ(FOUR)
    return made


def one_update(agent) -> Callable[[], object]:
    """The update that `learn_from` makes."""
    batch = transitions(FOUR, B, torch.Generator().manual_seed(0))
    if isinstance(agent, ActorCritic):
        return lambda: agent.actor_update(batch)
    agent.next_action = lambda obs: (torch.zeros(len(obs), 2), 0.0)
    return lambda: agent.critic_update(batch)


def relative_time(agent, rounds: int = 7, repeats: int = 5) -> float:
    """Blocks of both agents' updates take turns; the median of their ratios."""
    updates, ratios = [one_update(a) for a in (agent, make("som"))], []
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
    learns = name != "lql"  # on a known Q it has nothing to learn
    agent = learn_from(make(name), FOUR, updates, B, decay=True) if learns else make(name)
    a = actions(agent, N)
    shares = torch.bincount(torch.cdist(a, CORNERS).argmin(1), minlength=4) / N
    cells = [name, f"{FOUR(a).mean():.3f}", f"{int((shares >= 0.05).sum())}"]
    cells += [f"{sliced_wasserstein(a, exact):.3f}", f"{network_calls(agent)}"]
    cells += [f"{relative_time(make(name)):.2f}" if learns else "0"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--agents", nargs="+", choices=AGENTS, default=list(AGENTS))
    parser.add_argument("--updates", type=int, default=1000)
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
        f"{args.updates} updates of {B} actions an agent, one seed, {N} actions in the end.\n",
        HEAD,
        f"| exact Boltzmann | {density.expectation(FOUR):.3f} | 4 | {floor:.3f} | | |",
        f"| uniform actions | {FOUR(uniform).mean():.3f} | 4 "
        f"| {sliced_wasserstein(uniform, exact):.3f} | | |",
    ]
    for name in args.agents:
        rows.append(line(name, args.updates, exact))
        print(rows[-1], flush=True)
        Path(args.out).write_text("\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
