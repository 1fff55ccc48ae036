"""How long does a slider's move take in the kernel, from new value to finished picture?

    python tests/benchmarks/explorer_latency.py [--rounds 3]

A line gives, for one slider: moves, median and greatest milliseconds on the wall clock, median
milliseconds of the processor, and the latter as a ratio to a full drawing by savefig. On a busy
machine the last two are what to look at.
"""

import argparse
import io
import json
import statistics
import time
from pathlib import Path

import torch

from som_lite.flow.boltzmann import BoxBoltzmann, four_bumps
from som_lite.flow.densities import three_modes
from som_lite.flow.paths import Linear
from som_lite.view.explorer import Explorer
from som_lite.view.explorers import (
    average_velocity_explorer,
    boltzmann_explorer,
    flow_field_explorer,
    law_of_t_explorer,
    one_step_explorer,
    policy_explorer,
    schedule_explorer,
    score_estimate_explorer,
    soft_greedy_explorer,
)

torch.set_num_threads(1)
RECORD = Path(__file__).parents[2] / "chapters" / "recorded" / "timesteps.json"


def explorers() -> list[Explorer]:
    """All explorers of the book, on exact fields where a chapter may show a trained one."""
    target, q = three_modes(), four_bumps()
    noise = torch.randn(150, 2, generator=torch.Generator().manual_seed(0))

    def velocity(a, t):
        return target.velocity(a, t, Linear())

    return [
        flow_field_explorer(velocity, target.log_prob),
        average_velocity_explorer(velocity, log_prob=target.log_prob),
        boltzmann_explorer(q),
        score_estimate_explorer(BoxBoltzmann(q, 0.2), q, 0.2),
        schedule_explorer(),
        one_step_explorer(lambda eps, alpha, n: torch.tanh(eps), q, alphas=[0.1, 0.2, 0.5]),
        soft_greedy_explorer(lambda eps, alpha, K: torch.tanh(eps), q, alphas=[0.1, 0.2, 0.5]),
        law_of_t_explorer(json.loads(RECORD.read_text())["parts"]),
        policy_explorer(lambda eps, s: torch.tanh(2 * eps + s), noise, torch.zeros(1)),
    ]


def milliseconds(action) -> tuple[float, float]:
    """Of the clock on the wall and of the processor."""
    wall, processor = time.perf_counter(), time.process_time()
    action()
    return 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - processor)


def moves(explorer: Explorer, key: str, rounds: int) -> list[tuple[float, float]]:
    slider, times = explorer.sliders[key], []
    for value in explorer.controls[key].positions * rounds:
        if value != slider.value:
            times.append(milliseconds(lambda value=value: setattr(slider, "value", value)))
    return times


def full_drawings(explorer: Explorer, repeats: int = 9) -> list[tuple[float, float]]:
    for artist in explorer.moving:
        artist.set_animated(False)
    times = [
        milliseconds(lambda: explorer.fig.savefig(io.BytesIO(), format="png"))
        for _ in range(repeats)
    ]
    for artist in explorer.moving:
        artist.set_animated(True)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    print(f"{'':50} {'slider':12} {'n':>3} {'median':>7} {'max':>7} {'processor':>10} {'ratio':>6}")
    for explorer in explorers():
        full = full_drawings(explorer)
        lines = {key: moves(explorer, key, rounds) for key in explorer.controls}
        for key, times in {**lines, "(savefig)": full}.items():
            wall, processor = zip(*times, strict=True)
            ratio = statistics.median(processor) / statistics.median(t for _, t in full)
            print(
                f"{explorer.name:50} {key:12} {len(times):3} {statistics.median(wall):7.1f} "
                f"{max(wall):7.1f} {statistics.median(processor):10.1f} {ratio:6.2f}"
            )


if __name__ == "__main__":
    main()
