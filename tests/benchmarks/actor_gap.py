"""How far is a policy's one step from the density that its critic asks for?

    python tests/benchmarks/actor_gap.py RUN [RUN ...] [--states 64] [--seed 0]

For states of the policy's own episodes, all in units of the temperature T = alpha * spread of Q,
above the mean Q of one draw of the last actor: one draw of the averaged actor; 20 steps of the
same network; the target exp(Q / T) by importance sampling (with its effective sample size, out of
2048 proposals); the best of 32 draws; and gradient ascent on Q from a draw. ``gain`` is the
averaged draw's share of what the target gains over uniform actions.
"""

import argparse
import math

import numpy as np
import torch

from som_lite.flow.meanflow import sample
from som_lite.flow.scores import Energy, _blur, _log_kernel_density, effective_sample_size
from som_lite.rl.agents import SOM
from som_lite.rl.envs import make_env
from som_lite.rl.evaluate import act
from som_lite.rl.runs import Run

COLUMNS = ("uniform", "averaged", "20 steps", "target", "ESS", "best of 32", "ascent", "gain")


def visited_states(agent: SOM, env_id: str, n: int, seed: int) -> torch.Tensor:
    """n states (n, obs) evenly spread over episodes of the policy."""
    env, states = make_env(env_id), []
    obs, _ = env.reset(seed=seed)
    for _ in range(1000):
        states.append(obs)
        obs, _, terminated, truncated, _ = env.step(act(agent, obs[None])[0])
        if terminated or truncated:
            obs, _ = env.reset()
    rows = np.linspace(0, len(states) - 1, n).round().astype(int)
    return torch.from_numpy(np.stack(states)[rows])


def ascent(agent: SOM, obs: torch.Tensor, a: torch.Tensor, steps: int = 100) -> torch.Tensor:
    """min Q after Adam steps of .03 on the actions, kept in the box."""
    a = a.clone().requires_grad_()
    adam = torch.optim.Adam([a], 0.03)
    for _ in range(steps):
        adam.zero_grad()
        (-agent.critic.min(obs, a).sum()).backward(inputs=[a])
        adam.step()
        a.data.clamp_(-1, 1)
    return agent.critic.min(obs, a).detach()


def boltzmann_value(
    q: Energy, own: torch.Tensor, generator: torch.Generator, width: float = 0.15
) -> tuple[torch.Tensor, torch.Tensor]:
    """E[q] under exp(q) on the box and the effective sample size, for every state.

    Proposals: as many uniform actions as blurred ones of the policy, by the balance heuristic.
    """
    uniform = 2 * torch.rand(own.shape, generator=generator) - 1
    z = torch.cat([uniform, _blur(own, width, generator)], 1)
    log_uniform = torch.full(z.shape[:2], -own.shape[-1] * math.log(2))
    value = q(z)
    w = (value - torch.logaddexp(log_uniform, _log_kernel_density(z, own, width))).softmax(-1)
    return (w * value).sum(1), effective_sample_size(w)


@torch.no_grad()
def gaps(agent: SOM, obs: torch.Tensor) -> dict[str, float]:
    """The columns for one agent."""
    temperature = agent.temperature()
    eps = agent.randn(len(obs), agent.act_dim)

    def q(a: torch.Tensor) -> torch.Tensor:  # of (B, n, d), per state in units of T
        return agent.critic.min(obs[:, None], a) / temperature

    def velocity(a: torch.Tensor, r: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return agent.actor_average(a, t, t, obs)

    base = q(agent.generate(obs, 32)).mean(1)
    averaged = agent.generate(obs, 32, averaged=True)
    target, ess = boltzmann_value(q, agent.generate(obs, 1024, averaged=True), agent.generator)
    uniform = 2 * torch.rand(len(obs), 256, agent.act_dim, generator=agent.generator) - 1
    with torch.enable_grad():
        climbed = ascent(agent, obs, averaged[:, 0]) / temperature
    row = {
        "uniform": q(uniform).mean(1),
        "averaged": q(averaged).mean(1),
        "20 steps": q(sample(velocity, eps, 20).clamp(-1, 1)[:, None])[:, 0],
        "target": target,
        "best of 32": q(averaged).amax(1),
        "ascent": climbed,
    }
    result = {name: float((value - base).mean()) for name, value in row.items()}
    gain = (result["averaged"] - result["uniform"]) / (result["target"] - result["uniform"])
    return result | {"ESS": float(ess.mean()), "gain": gain}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--states", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"{'run':40}" + "".join(f"{name:>12}" for name in COLUMNS))
    for folder in options.runs:
        run = Run(folder)
        agent = run.load_agent()
        agent.q_scale.value.fill_(run.curve()["q_scale"][-1])  # what the temperature is measured in
        agent.generator.manual_seed(options.seed)
        obs = visited_states(agent, run.config().env, options.states, options.seed)
        values = gaps(agent, obs)
        print(
            f"{folder[-40:]:40}" + "".join(f"{values[name]:12.2f}" for name in COLUMNS), flush=True
        )


if __name__ == "__main__":
    main()
