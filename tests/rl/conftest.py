from dataclasses import replace

import pytest

from som_lite.rl.agents import AGENTS
from tests.rl.toys import SMALL


@pytest.fixture(params=list(AGENTS))
def name(request):
    """Every agent in turn."""
    return request.param


@pytest.fixture
def make_agent(name):
    """The agent of the moment, small: make_agent(obs_dim, act_dim, seed=0, **settings)."""

    def make(obs_dim=3, act_dim=2, seed=0, **settings):
        return AGENTS[name][1](obs_dim, act_dim, replace(SMALL[name], **settings), seed=seed)

    return make
