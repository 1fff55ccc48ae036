"""Better than the data, with the data alone: plans in a maze, actions of a robot.

    python tests/benchmarks/offline.py [--seeds 3] [--parts maze robot] [--scale 1]

One clone per seed, a one-step flow, is shared by all methods; Diffusion-QL trains its own network.
On the maze a plan is worth minus the squared distance of its end from the goal, which is known; on
the robot a critic learnt from the data judges. Columns:

    success      share of 256 tasks whose plan reaches the goal through free space
    crosses      share of plans with a piece through a wall: they have left the data
    return       of 4 episodes of 500 steps, times 2 (the data's have 1000)
    off data     distance of (s, a) to the nearest recorded one, in units of that of the clone
    work, depth  passes of a network per action, and those that must wait for one another

Methods with candidates or steps are given about the same work. Results are added to
chapters/recorded/offline.json as they come, a seed of a part at a time, and what is there is not
made again; the table is tests/benchmarks/offline.md. --scale shortens all trainings.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from som_lite.flow.ode import euler_step, solve  # noqa: E402
from som_lite.rl.agents.common import seeded  # noqa: E402
from som_lite.rl.evaluate import evaluate  # noqa: E402
from som_lite.rl.files import write_tensors  # noqa: E402
from som_lite.rl.maze import on_loop  # noqa: E402
from som_lite.rl.offline import policies  # noqa: E402
from som_lite.rl.offline.clone import Clone, clone_loss  # noqa: E402
from som_lite.rl.offline.data import Data, load_data  # noqa: E402
from som_lite.rl.offline.diffusion_ql import DenoisingActor, diffusion_ql_loss  # noqa: E402
from som_lite.rl.offline.guidance import (  # noqa: E402
    classifier_free_velocity,
    guided_velocity,
    labels,
)
from som_lite.rl.offline.minimise import minimise  # noqa: E402
from som_lite.rl.offline.plans import (  # noqa: E402
    closeness,
    crosses,
    end,
    from_the_left,
    succeeds,
    windows,
)
from som_lite.rl.offline.prior_guidance import Prior, prior_loss  # noqa: E402
from som_lite.rl.offline.value import learn_value  # noqa: E402
from som_lite.rl.summary import estimate  # noqa: E402

DATA = ROOT / "chapters/recorded/data"
RESULTS, TABLE = ROOT / "chapters/recorded/offline.json", ROOT / "tests/benchmarks/offline.md"
CLONE = ROOT / "chapters/recorded/maze_clone.safetensors"  # of seed 0, for the chapter's pictures
ALPHAS = {  # in units of the spread of the value over the clone's actions
    "maze": (0.3, 0.1, 0.03, 0.01, 0.001),
    "robot": (1.0, 0.3, 0.1, 0.03),
}
N, STEPS, W, HORIZON, B = 16, 5, 2.0, 50, 128
ENV = "HalfCheetah-v5"
Row = dict[str, float]


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# -- plans in the maze ---------------------------------------------------------------------------


def maze_tasks(n: int, starts: Tensor, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Recorded starts on the left; goals 0.7 to 1.9 sides further on the square, either way."""
    start = starts[torch.randint(len(starts), (n,), generator=g)]
    away = (0.7 + 1.2 * torch.rand(n, generator=g)) * (2 * (torch.rand(n, generator=g) < 0.5) - 1)
    return start, torch.from_numpy(on_loop(1.5 + away.numpy())).float()


def maze(seed: int, scale: float) -> dict[str, Row]:
    g, data = rng(seed), load_data(DATA / "maze-mixed-v0")
    starts, plans = from_the_left(*windows(data))

    def batch(B: int = B) -> tuple[Tensor, Tensor]:
        rows = torch.randint(len(starts), (B,), generator=g)
        return starts[rows], plans[rows]

    with seeded(seed):
        clone = Clone(starts, plans.shape[1], label=3)
        priors = {x: Prior(torch.cat([starts, starts], 1), plans.shape[1]) for x in ALPHAS["maze"]}

    def cloning() -> Tensor:
        start, plan = batch()
        told = labels(torch.ones(len(plan)), g)  # 1: told where it leads; 0: not told
        return clone_loss(clone.average(start, told * torch.cat([end(plan), told], 1)), plan, g)

    minimise(clone.parameters(), cloning, int(2500 * scale), 4e-3)
    clone.requires_grad_(False)
    if seed == 0 and scale == 1:
        write_tensors(CLONE, {k: x.half() for k, x in clone.state_dict().items()}, {})
    start, goal = maze_tasks(256, starts, rng(100 + seed))
    drawn = clone.draw(start, N, g)
    value = closeness(goal[:, None], drawn)
    spread = float(value.std(1).mean())
    eps = torch.randn(len(start), plans.shape[1], generator=g)
    told = torch.cat([goal, torch.ones(len(goal), 1)], 1)

    def v_all(a: Tensor, t: Tensor) -> Tensor:
        return clone.velocity(a, t, start)

    bent = {
        "classifier guidance": guided_velocity(v_all, lambda x: closeness(goal, x), 0.3 * spread),
        f"classifier-free, w = {W:g}": classifier_free_velocity(
            v_all, lambda a, t: clone.velocity(a, t, start, told), W
        ),
    }
    nearest = torch.cdist(start, starts) + torch.cdist(goal, end(plans))
    share = torch.linspace(1 / 8, 1, 8)[:, None]
    line = (start[:, None] + share * (goal - start)[:, None]).flatten(1)
    found = {
        "straight line": (line, 0, 0),
        "nearest recorded plan": (plans[nearest.argmin(1)], 0, 0),
        "clone": (clone(start, eps), 1, 1),
        f"best of {N}": (drawn[torch.arange(len(start)), value.argmax(1)], N, 1),
        "classifier guidance": (
            solve(bent["classifier guidance"], eps, steps=STEPS, step=euler_step),
            4 * STEPS,  # the value costs no network
            4 * STEPS,
        ),
        f"classifier-free, w = {W:g}": (
            solve(bent[f"classifier-free, w = {W:g}"], eps, steps=8, step=euler_step),
            16,
            8,
        ),
    }
    for alpha, prior in priors.items():

        def tilting(prior: Prior = prior, alpha: float = alpha) -> Tensor:
            start, goal = maze_tasks(B, starts, g)
            obs = torch.cat([start, goal], 1)
            return prior_loss(
                prior,
                lambda obs, eps: closeness(obs[:, 2:], clone(obs[:, :2], eps)),
                obs,
                alpha * spread,
                g,
            )

        minimise(prior.parameters(), tilting, int(400 * scale))
        with torch.no_grad():
            noise = prior.draw(torch.cat([start, goal], 1), g)
            found[f"prior guidance, alpha = {alpha:g}"] = (clone(start, noise), 2, 2)
    return {
        name: {
            "success": float(succeeds(start, goal, plan).float().mean()),
            "crosses": float(crosses(start, plan).float().mean()),
            "work": work,
            "depth": depth,
        }
        for name, (plan, work, depth) in found.items()
    }


# -- actions of the robot ------------------------------------------------------------------------


def to_come(data: Data, horizon: int = HORIZON) -> Tensor:
    """The sum of the next rewards, to the end of the episode at most."""
    total = torch.zeros_like(data.batch.reward)
    for k in range(horizon):
        rows = torch.arange(len(total) - k)
        same = data.episode[rows] == data.episode[rows + k]
        total[rows] += same * data.batch.reward[rows + k]
    return total


def off_data(data: Data, policy: policies.Policy, g: torch.Generator) -> float:
    """Mean distance of (s, a) to the nearest of other recorded steps, in units of their spread."""
    rows = torch.randint(len(data.batch.obs), (400,), generator=g)
    with torch.no_grad():
        a = policy.draw(data.batch.obs[rows], g).clamp(-1, 1)
    unit = data.batch.obs.std(0), data.batch.action.std(0)
    known = torch.cat([data.batch.obs / unit[0], data.batch.action / unit[1]], 1)
    mine = torch.cat([data.batch.obs[rows] / unit[0], a / unit[1]], 1)
    distance = torch.cdist(mine, known)
    distance[torch.arange(400), rows] = torch.inf  # the state itself
    return float(distance.amin(1).mean())


def robot(seed: int, scale: float) -> dict[str, Row]:
    g, data = rng(seed), load_data(DATA / "halfcheetah-mixed-v0")
    unit = data.batch.reward.std()
    data = data._replace(batch=data.batch._replace(reward=data.batch.reward / unit))
    obs, act = data.batch.obs, data.batch.action
    ahead = to_come(data)
    good = (ahead > ahead.median()).float()
    with seeded(seed):
        clone = Clone(obs, act.shape[1], label=1)
        priors = {x: Prior(obs, act.shape[1]) for x in ALPHAS["robot"]}
        denoisers = {x: DenoisingActor(obs, act.shape[1]) for x in (1.0,)}

    def cloning() -> Tensor:
        rows = torch.randint(len(obs), (B,), generator=g)
        told = labels(good[rows], g, hide=0.5)
        return clone_loss(clone.average(obs[rows], told), act[rows], g)

    minimise(clone.parameters(), cloning, int(2500 * scale))
    clone.requires_grad_(False)
    with seeded(seed + 1000):
        critic = learn_value(data, clone, g, updates=int(3000 * scale), B=B, hidden=(128, 128))
    critic.requires_grad_(False)
    some = obs[torch.randint(len(obs), (500,), generator=g)]
    spread = float(critic.min(some[:, None], clone.draw(some, N, g)).std(1).mean())
    mean = policies.Policy(lambda s, g: act.mean(0).expand(len(s), -1), 0, 0)
    uniform = policies.Policy(
        lambda s, g: 2 * torch.rand(len(s), act.shape[1], generator=g) - 1, 0, 0
    )
    found = {
        "random actions": uniform,
        "mean action": mean,
        "clone": policies.cloned(clone),
        f"best of {N}": policies.best_candidate(clone, critic, N),
        "classifier guidance": policies.classifier_guided(clone, critic, 0.3 * spread, STEPS),
        f"classifier-free, w = {W:g}": policies.classifier_free(clone, W, N),
    }
    for alpha, prior in priors.items():

        def tilting(prior: Prior = prior, alpha: float = alpha) -> Tensor:
            return prior_loss(
                prior,
                lambda s, eps: critic.min(s, clone(s, eps)),
                data.sample(B, g).obs,
                alpha * spread,
                g,
            )

        minimise(prior.parameters(), tilting, int(600 * scale))
        found[f"prior guidance, alpha = {alpha:g}"] = policies.prior_guided(clone, prior)
    for eta, actor in denoisers.items():

        def both(actor: DenoisingActor = actor, eta: float = eta) -> Tensor:
            batch = data.sample(B, g)
            return diffusion_ql_loss(actor, critic, batch.obs, batch.action, eta, g)

        minimise(actor.parameters(), both, int(1200 * scale))
        found[f"Diffusion-QL, eta = {eta:g}"] = policies.Policy(actor.draw, 5, 5)
    rows = {}
    for name, policy in found.items():
        returns = evaluate(policies.Acting(policy.draw), ENV, 4, seed, max_steps=500)
        rows[name] = {
            "return": 2 * float(returns.mean()),
            "off data": off_data(data, policy, rng(seed)),
            "work": policy.work,
            "depth": policy.depth,
        }
        print(f"  {name}: {rows[name]['return']:.0f}", flush=True)
    near = rows["clone"]["off data"]
    for row in rows.values():
        row["off data"] /= near
    totals = (data.returns() * unit).numpy()
    rows["mean of the data"] = {
        "return": float(totals.mean()),
        "off data": 1,
        "work": 0,
        "depth": 0,
    }
    rows["best episode of the data"] = {"return": float(totals.max())} | rows["mean action"] | {
        "return": float(totals.max()), "off data": 1
    }  # fmt: skip
    return rows


# -- the table -----------------------------------------------------------------------------------

PARTS = {"maze": maze, "robot": robot}
COLUMNS = {
    "maze": ("success", "crosses", "work", "depth"),
    "robot": ("return", "off data", "work", "depth"),
}


def table(part: str, seeds: dict[str, dict[str, Row]]) -> list[str]:
    """Mean over seeds with its 95 % bootstrap interval; work and depth are the same for all."""
    columns = COLUMNS[part]
    lines = [f"| {part} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    runs = list(seeds.values())
    for name in runs[0]:
        cells = [name]
        for column in columns:
            values = np.array([run[name][column] for run in runs], float)
            whole = column in ("work", "depth")
            cells.append(f"{values[0]:g}" if whole else str(estimate(values, _mean)))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _mean(x: np.ndarray) -> np.ndarray:
    return np.mean(x, axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--out", default=str(RESULTS))
    parser.add_argument("--table", default=str(TABLE))
    options = parser.parse_args()
    torch.set_num_threads(1)
    out = Path(options.out)
    kept = json.loads(out.read_text()) if out.exists() else {}
    if kept.get("scale", options.scale) != options.scale:
        raise SystemExit(f"{out} holds results of --scale {kept['scale']}: choose another --out")
    command = f"python tests/benchmarks/offline.py --seeds {options.seeds}"
    command += "" if options.scale == 1 else f" --scale {options.scale:g}"
    kept |= {"command": command, "scale": options.scale}
    for seed in range(options.seeds):
        for part in options.parts:
            runs = kept.setdefault(part, {})
            if str(seed) in runs:
                continue
            print(f"{part}, seed {seed}", flush=True)
            runs[str(seed)] = PARTS[part](seed, options.scale)
            half = out.with_suffix(".tmp")
            half.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
            os.replace(half, out)
    lines = [f"`{kept['command']}`, mean over seeds with 95 % bootstrap intervals.\n"]
    for part in PARTS:
        if kept.get(part):
            lines += [*table(part, kept[part]), f"\n{len(kept[part])} seeds.\n"]
    Path(options.table).write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
