"""The options of a training as a reader sees them: in groups, and found under other names."""

import difflib
import inspect
import re
from dataclasses import fields
from typing import Any

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
    "logger": "log",
    "tensorboard": "log",
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
    owners = {name: near for name in AGENTS if (near := _near(option, known(name)))}
    if owners:
        found = "; ".join(f"{' and '.join(o)} of --agent {name}" for name, o in owners.items())
        return f"{text} with --agent {agent}; there is {found}"
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


GROUPS = {
    "what is learnt": ("env", "agent", "steps", "seed"),
    "how it is learnt": ("start_steps", "utd", "capacity"),
    "what is written": ("out", "restart", "eval_every", "eval_episodes", "checkpoint_every", "log"),
    "on this machine": ("device", "threads", "progress"),
}


def train_help(agent: str, about: str) -> str:
    """The options of a training of `agent`, grouped by what they are for, with their defaults."""
    lines = ["usage: som-lite train [options]", "", about]
    told = explained(TrainConfig)
    for title, names in GROUPS.items():
        lines += ["", f"{title}:", *(_line(name, *told.pop(name)) for name in names)]
    told.pop("config")
    assert not told, f"options without a group: {', '.join(told)}"
    lines += ["", f"settings of agent {agent}:"]
    lines += [_line(f"config.{n}", *x) for n, x in explained(AGENTS[agent][0]).items()]
    return "\n".join(lines)


def explained(kind: type) -> dict[str, tuple[Any, str]]:
    """name -> (default, the comment behind it in the source) of a dataclass's fields."""
    comments = {}
    for owner in reversed(kind.__mro__[:-1]):
        found = re.findall(r"^    (\w+):[^#\n]*=[^#\n]*#\s*(.*)$", inspect.getsource(owner), re.M)
        comments |= dict(found)
    return {f.name: (f.default, comments.get(f.name, "")) for f in fields(kind)}


def _line(name: str, default: Any, comment: str) -> str:
    flag = name.replace("_", "-")
    shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
    if isinstance(default, bool):
        head, dot, last = flag.rpartition(".")
        flag, shown = f"{head}{dot}[no-]{last}", "on" if default else "off"
    text = f"  {f'--{flag}':28} {comment}"
    return text if shown == "" else f"{text} ({shown})"
