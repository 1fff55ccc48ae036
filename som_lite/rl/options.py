"""The options of a training as a reader sees them: in groups, and found under other names."""

import difflib
from dataclasses import fields

from som_lite.rl.agents import AGENTS
from som_lite.rl.config import TrainConfig

# What other programs and papers call an option -> the last word of ours.
WORDS = {
    "learning-rate": "lr",
    "step-size": "lr",
    "q-lr": "critic-lr",
    "policy-lr": "actor-lr",
    "pi-lr": "actor-lr",
    "batch-size": "batch",
    "minibatch-size": "batch",
    "hidden-sizes": "hidden",
    "hidden-dim": "hidden",
    "hidden-size": "hidden",
    "net-arch": "hidden",
    "discount": "gamma",
    "polyak": "tau",
    "temperature": "alpha",
    "ent-coef": "alpha",
    "candidates": "n-evaluate",
    "proposals": "K",
    "samples": "K",
    "schedule": "path",
    "gpu": "device",
    "cuda": "device",
    "cpu": "device",
    "num-threads": "threads",
    "cores": "threads",
    "timesteps": "steps",
    "total-timesteps": "steps",
    "total-steps": "steps",
    "num-steps": "steps",
    "max-steps": "steps",
    "buffer-size": "capacity",
    "replay-size": "capacity",
    "learning-starts": "start-steps",
    "warmup": "start-steps",
    "random-steps": "start-steps",
    "updates-per-step": "utd",
    "utd-ratio": "utd",
    "gradient-steps": "utd",
    "eval-freq": "eval-every",
    "eval-interval": "eval-every",
    "n-eval-episodes": "eval-episodes",
    "save-freq": "checkpoint-every",
    "save-every": "checkpoint-every",
    "algo": "agent",
    "algorithm": "agent",
    "env-id": "env",
    "env-name": "env",
    "environment": "env",
    "task": "env",
    "output": "out",
    "log-dir": "out",
    "save-dir": "out",
    "folder": "out",
    "overwrite": "restart",
    "force": "restart",
    "quiet": "no-progress",
    "silent": "no-progress",
}


def known(agent: str) -> list[str]:
    """Every option of a training of `agent`, as it is written on the command line."""
    names = [field.name for field in fields(TrainConfig) if field.name != "config"]
    inner = [f"config.{field.name}" for field in fields(AGENTS[agent][0])]
    return ["--no-progress", *(f"--{name.replace('_', '-')}" for name in (*names, *inner))]


def unknown_option(option: str, agent: str) -> str:
    """What to tell about an option that a training of `agent` does not have."""
    text = f"unknown option {option}"
    if near := _near(option, known(agent)):
        return f"{text}: did you mean {' or '.join(near)}?"
    owners = [name for name in AGENTS if option.replace("_", "-") in known(name)]
    if owners:
        return f"{text}: it belongs to --agent {' and '.join(owners)}, not to {agent}"
    return f"{text}: som-lite train --agent {agent} --help lists them"


def _near(option: str, options: list[str]) -> list[str]:
    word = option.replace("_", "-").lstrip("-").rpartition(".")[2]
    word = WORDS.get(word, word)
    last = {o: o.lstrip("-").rpartition(".")[2] for o in options}
    if same := [o for o, name in last.items() if name == word or o.lstrip("-") == word]:
        return same
    if ends := [o for o, name in last.items() if name.endswith(f"-{word}")]:
        return ends
    close = difflib.get_close_matches(word, last.values(), n=2, cutoff=0.75)
    return [o for o, name in last.items() if name in close]
