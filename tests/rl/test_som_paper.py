"""What is the reading of the paper's own: unit norm, adaptive weight, replayed actions."""

import pytest
import torch

from som_lite.flow.paths import VP
from som_lite.rl.agents.som_paper import SOMPaper, SOMPaperConfig
from tests.rl.test_agents import make_batch


def test_unit_norm_velocity_is_equation_8():
    agent = SOMPaper(3, 2, SOMPaperConfig(hidden=(16,)))
    g = torch.Generator().manual_seed(0)
    a, s, t = (torch.randn(5, n, generator=g) for n in (2, 2, 1))
    t = t.sigmoid()
    beta = 0.1 + t * 19.9
    expected = -0.5 * beta * (a + 25 * s / s.norm(dim=1, keepdim=True))
    # 1e-6 beside |s|, in float32
    torch.testing.assert_close(agent.velocity(s, a, t), expected, rtol=1e-3, atol=1e-3)


def test_a_score_of_length_w_is_left_alone():
    agent = SOMPaper(3, 2, SOMPaperConfig(hidden=(16,), unit_norm=2.0))
    a, t = torch.zeros(1, 2), torch.full((1, 1), 0.5)
    s = torch.tensor([[1.2, 1.6]])
    torch.testing.assert_close(agent.velocity(s, a, t), VP().velocity_from_score(s, a, t))


def test_the_replayed_actions_are_noised():
    """Actions moved far away move the rows that are regressed on, and with them the loss."""
    agent = SOMPaper(3, 2, SOMPaperConfig(hidden=(16,), batch=32, K=4))
    losses, state = [], agent.generator.get_state()
    for size in (0.0, 1.0):
        agent.generator.set_state(state)
        batch = make_batch()
        losses.append(
            agent.actor_loss(batch._replace(action=torch.full((32, 2), size)))[1]["speed"]
        )
    assert losses[0] != losses[1]


def test_settings_are_checked():
    with pytest.raises(ValueError, match=r"^unit_norm must be above 0"):
        SOMPaperConfig(unit_norm=0.0)
