import re
import sys
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import pytest

from som_lite.rl.agents import AGENTS
from som_lite.rl.agents.base import ActorCritic
from tests.rl.toys import SMALL

ACTORS = [name for name, (_, agent) in AGENTS.items() if issubclass(agent, ActorCritic)]


@pytest.fixture(params=list(AGENTS))
def name(request):
    """Every agent in turn."""
    return request.param


@pytest.fixture
def make_agent(name):
    """The agent of the moment, small: make_agent(obs_dim, act_dim, seed=0, **settings)."""
    return maker(name)


@pytest.fixture(params=ACTORS)
def make_actor_critic(request):
    """The same for the agents with an actor."""
    return maker(request.param)


def maker(name):
    def make(obs_dim=3, act_dim=2, seed=0, **settings):
        return AGENTS[name][1](obs_dim, act_dim, replace(SMALL[name], **settings), seed=seed)

    return make


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """The README's module of a task of one's own, as a file that can be imported: its name."""
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (code,) = [block for block in blocks if "gym.register" in block]
    (tmp_path / "tasks.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield "tasks"
    sys.modules.pop("tasks", None)
    gym.registry.pop("Thermostat-v0", None)
