"""Where does the time of an update go, and which savings are real?  Ratios for chapter 11.

    python -m tests.benchmarks.compute

All are ratios of the processor's time in this process, medians over rounds in which the things
compared take turns; only "threads" is by the wall, on a machine as busy as the load average says.
Written to chapters/recorded/compute.json and as a table to compute.md beside this file.
"""

import json
import os
import time
from pathlib import Path

import torch
from torch import nn

from som_lite.flow.densities import three_modes
from som_lite.flow.dual import dual_meanflow_loss, value_and_rate
from som_lite.flow.intervals import interval_rows
from som_lite.flow.meanflow import meanflow_loss
from som_lite.flow.nets import MLP, AverageVelocityNet
from som_lite.flow.regressions import Plan, flow_matching, train_with_plan
from som_lite.rl.agents import SOM
from som_lite.rl.agents.som import PAIRS, STEPS
from som_lite.rl.critic import best_of_n
from som_lite.view.notebook import relative_times
from tests.benchmarks.agent_speed import ACT, OBS, batch

HERE = Path(__file__).parent
RECORD = HERE.parents[1] / "chapters" / "recorded" / "compute.json"


def parts_of_an_update() -> dict[str, float]:
    """Shares of SOM's update at HalfCheetah's sizes; the actor's update comes every third time."""
    som, data = SOM(OBS, ACT), batch(torch.Generator().manual_seed(0))
    c, g = som.config, torch.Generator().manual_seed(1)
    obs = data.obs[: c.actor_batch]
    t = 0.1 + 0.8 * torch.rand(len(obs), 1, generator=g)
    a_t = torch.randn(len(obs), ACT, generator=g)
    few = obs[: c.lines]

    def lines():
        with torch.no_grad():
            u = lambda a, r, t: som.actor_average(a, r, t, few)  # noqa: E731
            interval_rows(u, torch.randn(len(few), ACT, generator=g), STEPS, PAIRS, g)

    def proposals():
        with torch.no_grad():
            som.estimate(obs, a_t, t)

    times = relative_times(
        {
            "critic": lambda: som.critic_update(data),
            "actor": lambda: som.actor_update(data),
            "proposals": proposals,
            "lines": lines,
        },
        rounds=9,
    )
    every = c.actor_every
    total = times["critic"] + times["actor"] / every
    rest = times["actor"] - times["proposals"] - times["lines"]
    return {
        "critic": times["critic"] / total,
        "actor: Q at the proposals": times["proposals"] / every / total,
        "actor: flow lines": times["lines"] / every / total,
        "actor: gradient and step": rest / every / total,
    }


def ways_to_a_rate(hidden: tuple[int, ...], B: int) -> dict[str, dict[str, float]]:
    """Time over that of one forward pass, and error against double precision, of each way."""
    torch.manual_seed(0)
    net = AverageVelocityNet(2, hidden=hidden)
    a, v = torch.randn(2, B, 2)
    t = torch.rand(B, 1)
    r = t * torch.rand(B, 1)
    ways = rate_ways(net, a, r, t, v)
    exact = rate_ways(
        AverageVelocityNet(2, hidden=hidden).double(), *(x.double() for x in (a, r, t, v)), like=net
    )["torch.func.jvp"]().detach()
    errors = {k: float((f() - exact).norm() / exact.norm()) for k, f in ways.items()}

    def forward():
        with torch.no_grad():
            net(a, r, t)

    def update(loss):
        net.zero_grad()
        loss(net, a, r, t, v).backward()

    actions = {"forward": forward} | ways
    actions |= {
        "loss, jvp": lambda: update(meanflow_loss),
        "loss, dual": lambda: update(dual_meanflow_loss),
    }
    return {"time": relative_times(actions, rounds=7, repeats=8), "error": errors}


def rate_ways(net, a, r, t, v, like=None, h: float = 3e-3):
    if like is not None:
        net.load_state_dict(like.state_dict())
    one = torch.ones_like(t)

    def jvp():
        with torch.no_grad():
            return torch.func.jvp(net, (a, r, t), (v, torch.zeros_like(r), one))[1]

    def dual():
        with torch.no_grad():
            return value_and_rate(net, a, r, t, v)[1]

    def differences():
        with torch.no_grad():
            return (net(a + h * v, r, t + h) - net(a - h * v, r, t - h)) / (2 * h)

    def twice_reverse():
        """The gradient of a vector-Jacobian product in its vector is a Jacobian-vector product."""
        inputs = [x.clone().requires_grad_() for x in (a, t)]
        u = net(inputs[0], r, inputs[1])
        w = torch.zeros_like(u, requires_grad=True)
        back = torch.autograd.grad(u, inputs, w, create_graph=True)
        return torch.autograd.grad(back, w, (v, one))[0]

    return {
        "torch.func.jvp": jvp,
        "dual, by hand": dual,
        "differences": differences,
        "reverse twice": twice_reverse,
    }


def candidates(N: int = 32) -> float:
    """Best of N, one candidate after the other, over all in one call."""
    som, obs = SOM(OBS, ACT), torch.randn(1, OBS)

    def loop():
        with torch.no_grad():
            made = [som.generate(obs, 1) for _ in range(N)]
            q = torch.stack([som.critic.min(obs[:, None], a) for a in made])
            return made[int(q.argmax())]

    def one_call():
        with torch.no_grad():
            return best_of_n(som.critic, obs, som.generate(obs, N))

    return relative_times({"one call": one_call, "loop": loop})["loop"]


def activations() -> dict[str, dict[str, float]]:
    """Time of forward and backward over SiLU's; error after 300 updates, mean of 3 seeds."""
    kinds = {"SiLU": nn.SiLU, "ReLU": nn.ReLU, "Mish": nn.Mish}
    x = torch.randn(256, 24)
    nets = {name: MLP([24, 256, 256, 6], kind) for name, kind in kinds.items()}
    actions = {k: lambda net=net: net(x).square().sum().backward() for k, net in nets.items()}
    task, errors = flow_matching(three_modes()), {}
    for name, kind in kinds.items():

        def make(kind=kind):
            net = AverageVelocityNet(2, hidden=(64, 64))
            for at in (1, 3):
                net.mlp[at] = kind()
            return net

        changed = type(task)(task.rows, task.objective, task.error, make)
        runs = [
            train_with_plan(changed, Plan(), 300, seed, looks=[300])[1][0].error
            for seed in range(3)
        ]
        errors[name] = sum(runs) / 3
    return {"time": relative_times(actions), "error": errors}


def precision(n: int = 768) -> dict[str, float | bool | str]:
    """A large product in bfloat16 over one in float32, and its rounding error."""
    a, b = torch.randn(2, n, n)
    half = a.bfloat16(), b.bfloat16()
    ratio = relative_times({"f": lambda: a @ b, "b": lambda: half[0] @ half[1]}, 5, 2)["b"]
    error = float(((half[0] @ half[1]).float() - a @ b).norm() / (a @ b).norm())
    native = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return {"ratio": ratio, "error": error, "native": native}


def threads(seconds: float = 4.0) -> dict[str, float]:
    """One process with two threads over one with one thread: wall time of an update."""
    som, data = SOM(OBS, ACT), batch(torch.Generator().manual_seed(0))
    spent = {1: [0.0, 0], 2: [0.0, 0]}
    som.update(data)
    while min(x[0] for x in spent.values()) < seconds:
        for count, total in spent.items():
            torch.set_num_threads(count)
            som.update(data)
            start = time.perf_counter()
            for _ in range(4):
                som.update(data)
            total[0] += time.perf_counter() - start
            total[1] += 4
    torch.set_num_threads(1)
    pace = {count: total[0] / total[1] for count, total in spent.items()}
    return {"two over one": pace[2] / pace[1], "load": os.getloadavg()[0], "cores": os.cpu_count()}


def rounded(x):
    if isinstance(x, dict):
        return {k: rounded(y) for k, y in x.items()}
    return float(f"{x:.3g}") if isinstance(x, float) else x


def table(record: dict) -> str:
    lines = [f"`{record['command']}` (torch {record['torch']}, load {record['threads']['load']})\n"]
    lines += ["```"]
    for name, value in record.items():
        if name in ("command", "torch"):
            continue
        lines.append(name)
        pairs = value.items() if isinstance(value, dict) else [("", value)]
        lines += [f"    {k:28}{v}" for k, v in pairs]
    return "\n".join([*lines, "```", ""])


def main() -> None:
    torch.set_num_threads(1)
    record = rounded(
        {
            "command": "python -m tests.benchmarks.compute",
            "torch": torch.__version__,
            "parts of an update": parts_of_an_update(),
            "rates, 64-64, 128 rows": ways_to_a_rate((64, 64), 128),
            "rates, 256-256, 256 rows": ways_to_a_rate((256, 256), 256),
            "loop over one call": candidates(),
            "activations": activations(),
            "bfloat16": precision(),
            "threads": threads(),
        }
    )
    RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (HERE / "compute.md").write_text(table(record), encoding="utf-8")
    print(table(record))


if __name__ == "__main__":
    main()
