"""How many goals of MultiGoal-v0 can a tanh-Gaussian policy reach?  A search for the best one.

    python -m tests.benchmarks.tanh_gaussian [--seeds 3]

The policy is a = tanh(x), x normal with any mean and any covariance, both free functions of the
position. Only its values at the start matter here: there is time for two hops, so the first one
must land on the path of its goal and at most a stride from reaching it. The share of first hops
that do so bounds the share of episodes at that goal from above, *whatever the policy does next*.
This leaves five numbers, two means, two spreads and a correlation, which differential evolution
searches for the largest share of the k-th most frequent goal, k = 1 to 4. Every winner is then
played in the environment, with the best second hop.
"""

import argparse
from collections.abc import Callable

import numpy as np
from scipy.optimize import differential_evolution
from scipy.special import ndtri
from scipy.stats import qmc

from som_lite.rl.multigoal import GOALS, STRIDE, in_time, play

BOUNDS = [(-4.0, 4.0)] * 2 + [(np.log(0.005), np.log(100.0))] * 2 + [(-6.0, 6.0)]


def normal_points(power: int, seed: int) -> np.ndarray:
    """2^power points of a standard normal on the plane, evenly spread (Sobol)."""
    return ndtri(qmc.Sobol(2, rng=seed).random_base2(power).clip(1e-12, 1 - 1e-12))


def tanh_gaussian(parameters: np.ndarray, eps: np.ndarray) -> np.ndarray:
    """Actions (n, 2) from noise (n, 2): means, log spreads and artanh of the correlation."""
    spread, correlation = np.exp(parameters[2:4]), np.tanh(parameters[4])
    second = correlation * eps[:, 0] + np.sqrt(1 - correlation**2) * eps[:, 1]
    return np.tanh(parameters[:2] + spread * np.stack([eps[:, 0], second], axis=1))


def best(k: int, eps: np.ndarray, seed: int) -> np.ndarray:
    """The parameters with the largest share of the k-th most frequent goal."""

    def loss(parameters: np.ndarray) -> float:
        return -np.sort(in_time(tanh_gaussian(parameters, eps)).mean(0))[-k]

    search = differential_evolution(loss, BOUNDS, popsize=20, maxiter=150, rng=seed, polish=False)
    return search.x


def episodes(first: np.ndarray) -> np.ndarray:
    """Episodes (goals,) that reach each goal: from first actions (n, 2) and the best second hop."""

    def policy(positions: np.ndarray) -> np.ndarray:
        if not positions.any():  # all at the centre
            return first
        to_goals = GOALS - positions[:, None]
        nearest = np.linalg.norm(to_goals, axis=-1).argmin(axis=1)
        way = to_goals[np.arange(len(first)), nearest] / STRIDE
        return way / np.maximum(1, np.linalg.norm(way, axis=-1))[:, None]

    _, _, ends = play(policy, len(first))
    return np.bincount(ends[ends >= 0], minlength=len(GOALS))


def mixture(eps: np.ndarray) -> np.ndarray:
    """Four narrow humps, one a goal: what a policy needs that keeps all of them."""
    return GOALS[np.arange(len(eps)) % len(GOALS)] + 0.05 * eps


def line(name: str, draw: Callable[[np.ndarray], np.ndarray]) -> str:
    """What a policy does: its bound from 65 536 fresh points, and 2 000 episodes."""
    bound = in_time(draw(normal_points(16, seed=99))).mean(0)
    played = episodes(draw(normal_points(11, seed=98)[:2000])) / 2000
    cells = ["/".join(f"{100 * share:.1f}" for share in shares) for shares in (bound, played)]
    return f"{name:<46} {cells[0]:<22} {cells[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="searches for each k")
    options = parser.parse_args()
    eps = normal_points(12, seed=0)
    print(f"{'policy at the start':<46} {'first hops, %':<22} episodes, %")
    for k in range(1, len(GOALS) + 1):
        found = [best(k, eps, seed) for seed in range(options.seeds)]
        shares = [np.sort(in_time(tanh_gaussian(p, eps)).mean(0))[-k] for p in found]
        winner = found[int(np.argmax(shares))]
        spread, rho = np.exp(winner[2:4]), np.tanh(winner[4])
        print(
            line(
                f"k = {k}: mean {winner[0]:.2f} {winner[1]:.2f}, std {spread[0]:.2f} "
                f"{spread[1]:.2f}, corr {rho:.2f}",
                lambda e, winner=winner: tanh_gaussian(winner, e),
            ),
            "  k-th over seeds",
            " ".join(f"{100 * share:.1f}" for share in shares),
            flush=True,
        )
    corners = np.array([0.0, 0.0, np.log(3.0), np.log(3.0), 0.0])
    print(line("std 3: the corners of the box", lambda e: tanh_gaussian(corners, e)))
    print(line("four humps", mixture))


if __name__ == "__main__":
    main()
