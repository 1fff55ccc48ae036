"""How fast do SOM and SAC learn and act, at HalfCheetah's sizes on one core?

    python tests/benchmarks/agent_speed.py [--rounds 15]

Blocks of both agents' updates alternate, so that a change of the machine's pace meets both; all
times are milliseconds of the processor, medians over the rounds. Below: one action from one
observation; where an update's time goes; and the time that its matrix products alone would take at
the pace of one large product (the matrix-multiply limit).
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from som_lite.flow.meanflow import sample
from som_lite.rl.agents import SAC, SOM, SACConfig, SOMConfig
from som_lite.rl.replay import Batch

OBS, ACT, ROWS = 17, 6, 256


def batch(generator: torch.Generator) -> Batch:
    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    action = 2 * torch.rand(ROWS, ACT, generator=generator) - 1
    return Batch(normal(ROWS, OBS), action, normal(ROWS), normal(ROWS, OBS), torch.zeros(ROWS))


def milliseconds(action: Callable[[], object], repeats: int) -> float:
    """Of the processor, for one of ``repeats`` calls."""
    start = time.process_time()
    for _ in range(repeats):
        action()
    return 1e3 * (time.process_time() - start) / repeats


def medians(
    actions: Mapping[str, Callable[[], object]], rounds: int, repeats: int
) -> dict[str, float]:
    """The actions take turns; the first round warms up."""
    times = [{k: milliseconds(f, repeats) for k, f in actions.items()} for _ in range(rounds + 1)]
    return {k: statistics.median(row[k] for row in times[1:]) for k in actions}


def table(title: str, times: dict[str, float], reference: str) -> None:
    print(f"\n{title:44}{'ms':>9}{'per s':>9}{'time / ' + reference:>20}")
    for name, ms in times.items():
        print(f"{name:44}{ms:9.3f}{1e3 / ms:9.1f}{ms / times[reference]:20.2f}")


def product_rate(dtype: torch.dtype, n: int = 1024) -> float:
    """Multiply-adds times two, per millisecond, of one large product."""
    a = torch.randn(n, n).to(dtype)
    return 2 * n**3 / medians({"": lambda: a @ a}, 5, 5)[""]


def shares(action: Callable[[], object], repeats: int = 20) -> list[tuple[str, float]]:
    """The operators by their share of the processor's time, greatest first."""
    action()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(repeats):
            action()
    events = profiler.key_averages()
    total = sum(e.self_cpu_time_total for e in events)
    parts = [(str(e.key), e.self_cpu_time_total / total) for e in events]
    return sorted(parts, key=lambda part: -part[1])[:12]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    data = batch(torch.Generator().manual_seed(0))
    sac, som = SAC(OBS, ACT), SOM(OBS, ACT)
    plain = SAC(OBS, ACT, SACConfig(critic="plain")), SOM(OBS, ACT, SOMConfig(critic="plain"))

    updates = {
        "SAC": lambda: sac.update(data),
        "SOM": lambda: som.update(data),
        "SAC, plain critic": lambda: plain[0].update(data),
        "SOM, plain critic": lambda: plain[1].update(data),
    }
    table("one update", medians(updates, rounds, 20), "SAC")
    parts = {
        "critic": lambda: som.critic_update(data),
        f"SOM's actor (every {som.config.actor_every})": lambda: som.actor_update(data),
        f"SAC's actor (every {sac.config.actor_every})": lambda: sac.actor_update(data),
    }
    table("its parts", medians(parts, rounds, 20), "critic")

    obs = data.obs[:1]
    eps = torch.randn(1, ACT, generator=torch.Generator().manual_seed(1))

    @torch.no_grad()
    def many_steps() -> torch.Tensor:
        return sample(lambda a, r, t: som.actor(a, t, t, obs), eps, 20)

    acting = {
        "SAC, a draw": lambda: sac.generate(obs, 1),
        "SOM, N = 1": lambda: som.generate(obs, 1),
        "SOM, N = 32, the best by the critic": lambda: som.act(obs, explore=False),
        "20 Euler steps of the same network": many_steps,
    }
    table("one action", medians(acting, rounds, 200), "SAC, a draw")

    print("\nwhere an update's time goes (SOM)")
    for name, share in shares(updates["SOM"]):
        print(f"{name:44}{100 * share:8.1f} %")
    every = som.config.actor_every
    with FlopCounterMode(display=False) as count:
        for _ in range(every):
            som.update(data)
    flops = count.get_total_flops() / every
    rates = {name: product_rate(getattr(torch, name)) for name in ("float32", "bfloat16")}
    print(
        f"\nan update's products, {flops / 1e6:.0f} million operations, as a large one would take"
    )
    for name, rate in rates.items():
        print(f"{'all in ' + name:44}{flops / rate:9.3f} ms at {rate / 1e6:.0f} GFLOP/s")


if __name__ == "__main__":
    main()
