"""Is our SAC a fair opponent? The same task, steps and protocol with stable-baselines3's SAC.

    python tests/benchmarks/sac_against_sb3.py --env HalfCheetah-v5 --steps 100000 --seeds 0

Both use 256-256 ReLU networks, batches of 256, one update a step after `--start-steps` random
ones, and are evaluated on their mean action over ten episodes. Each run writes its curve below
`--out` and is not repeated when the curve is there; ours is read from `chapters/recorded/plain`
where a recorded run has these settings and this seed. Prints the returns, and steps per second.
"""

import argparse
import csv
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from som_lite.rl.agents.common import derive
from som_lite.rl.envs import make_env
from som_lite.rl.evaluate import start_seed
from som_lite.rl.runs import Run
from som_lite.rl.train import train

RECORDED = Path(__file__).parents[2] / "chapters/recorded/plain"
Curve = list[tuple[int, float, float]]  # step, seconds, return


def ours(args: argparse.Namespace, seed: int) -> Curve:
    """The curve of our SAC: recorded, or trained by the same command as any run."""
    recorded = RECORDED / f"sac/{args.env}/seed{seed}"
    asked = (args.steps, args.start_steps, args.every)
    if recorded.exists():
        config = Run(recorded).config()
        if (config.steps, config.start_steps, config.eval_every) == asked:
            return read(Run(recorded))
    usual = Run(RECORDED / "sac/HalfCheetah-v5/seed0").config()  # plain critic, steps of 3e-4
    config = replace(
        usual,
        env=args.env,
        steps=args.steps,
        seed=seed,
        start_steps=args.start_steps,
        eval_every=args.every,
        out=str(args.out / f"sac/{args.env}/seed{seed}"),
        progress=False,
    )
    return read(Run(train(config)))


def read(run: Run) -> Curve:
    curve = run.curve()
    return list(zip(curve["step"], curve["wall_s"], curve["return_mean"], strict=True))


def theirs(args: argparse.Namespace, seed: int) -> Curve:
    """The curve of stable-baselines3's SAC, read from its file when it has run before."""
    path = args.out / f"sb3-sac/{args.env}/seed{seed}/curve.csv"
    if not path.exists():
        rows = list(train_theirs(args, seed))
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([("step", "wall_s", "return_mean"), *rows])
    with path.open(newline="", encoding="utf-8") as file:
        table = np.array(list(csv.reader(file))[1:], dtype=float)
    return [tuple(row) for row in table]


def train_theirs(args: argparse.Namespace, seed: int):
    """Yields a row at every evaluation."""
    from stable_baselines3 import SAC

    model = SAC(
        "MlpPolicy", make_env(args.env), learning_starts=args.start_steps, seed=seed, device="cpu"
    )
    began = time.monotonic()
    for step in range(args.every, args.steps + 1, args.every):
        model.learn(args.every, reset_num_timesteps=step == args.every)
        returns = evaluate_theirs(model, args.env, derive(seed, 3, step))
        yield step, round(time.monotonic() - began, 2), returns.mean()


def evaluate_theirs(model, env_id: str, seed: int, episodes: int = 10) -> np.ndarray:
    """Returns of whole episodes on the mean action."""
    env, returns = make_env(env_id), np.zeros(episodes)
    for i in range(episodes):
        obs, _ = env.reset(seed=start_seed(seed, i))
        done = False
        while not done:
            action = model.predict(obs, deterministic=True)[0]
            obs, reward, terminated, truncated, _ = env.step(action)
            returns[i] += float(reward)
            done = terminated or truncated
    return returns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="HalfCheetah-v5")
    parser.add_argument("--steps", type=int, default=30_000)
    parser.add_argument("--start-steps", type=int, default=5_000)
    parser.add_argument("--every", type=int, default=5_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--out", type=Path, default=Path("runs"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    for seed in args.seeds:
        for name, run in (("ours", ours), ("stable-baselines3", theirs)):
            curve = run(args, seed)
            returns = "  ".join(f"{step / 1000:g}k {value:.0f}" for step, _, value in curve)
            rate = args.steps / curve[-1][1]
            print(f"{args.env} seed {seed} {name:18} {returns}   {rate:.0f} steps/s", flush=True)


if __name__ == "__main__":
    main()
