import dataclasses

import pytest
import torch
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

from som_lite.rl.agents.sac import SAC, SACConfig, squash
from som_lite.rl.agents.temperature import Temperature
from som_lite.rl.replay import Batch


def test_log_prob_against_torch_distributions():
    g = torch.Generator().manual_seed(0)
    mean, log_std, eps = (torch.randn(100, 3, generator=g, dtype=torch.float64) for _ in range(3))
    action, log_pi = squash(mean, log_std, eps)
    normal = Independent(Normal(mean, log_std.exp()), 1)
    reference = TransformedDistribution(normal, TanhTransform(cache_size=1))
    x = mean + log_std.exp() * eps
    torch.testing.assert_close(action, x.tanh())
    # The reference inverts the action, which loses digits where tanh is flat; |x| < 6 keeps 1e-8.
    inside = (x.abs() < 6).all(-1)
    assert inside.sum() > 80
    expected = reference.log_prob(action)
    torch.testing.assert_close(log_pi[inside], expected[inside], atol=1e-8, rtol=1e-8)


def test_log_prob_stays_finite_where_tanh_is_flat():
    mean = torch.tensor([[30.0], [-30.0]])
    _, log_pi = squash(mean, torch.zeros(2, 1), torch.zeros(2, 1))
    # log(1 - tanh(30)^2) = log 4 - 60 up to exp(-60): in float32 1 - tanh^2 itself is 0.
    expected = -0.9189385 - (1.3862944 - 60)
    torch.testing.assert_close(log_pi, torch.full((2,), expected), rtol=1e-6, atol=0)


def test_one_step_of_the_critic_and_the_entropy_term():
    """The target of a SAC critic contains -alpha log pi, seen by freezing everything else."""
    config = SACConfig(hidden=(8,), batch=1, gamma=0.5, alpha=3.0, critic="plain")
    agent = SAC(1, 1, config)
    for q in (agent.critic_target.q1, agent.critic_target.q2):
        for p in q.parameters():
            p.data.zero_()
    batch = Batch(*(torch.zeros(1, 1),) * 2, torch.ones(1), torch.zeros(1, 1), torch.zeros(1))
    state = agent.generator.get_state()
    _, log_pi = agent.policy(batch.next_obs)
    agent.generator.set_state(state)
    y = 1 + 0.5 * (0 - 3.0 * log_pi)
    q = agent.critic(batch.obs, batch.action)
    expected = (q - y).square().sum()
    loss = agent.critic_update(batch)["critic_loss"]
    torch.testing.assert_close(loss, expected.detach())


def test_the_temperature_moves_towards_the_target_entropy():
    for entropy, direction in ((-3.0, 1), (-1.0, -1)):  # too little, too much; -2 is wanted
        temperature = Temperature(1.0, -2.0, 1e-2, "cpu")
        before = temperature.update(torch.tensor(entropy))
        # Adam's first step has the length of its step size whatever the gradient: exp(.01) - 1
        assert float(temperature.alpha() / before - 1) == pytest.approx(direction * 0.01, rel=0.02)


def test_more_entropy_than_uniform_actions_have_is_refused():
    with pytest.raises(ValueError, match=r"target_entropy must be below log 2 = 0.693"):
        SACConfig(target_entropy=1.0)


def test_evaluation_uses_the_mean_or_the_best_of_n():
    agent, obs = SAC(3, 2, SACConfig(hidden=(8,))), torch.randn(64, 3)
    mean = agent.actor(obs).chunk(2, dim=-1)[0].tanh()
    assert torch.equal(agent.act(obs, explore=False), mean)
    best = agent.act(obs, explore=False, n=32)
    gain = agent.critic.min(obs, best) - agent.critic.min(obs, mean)
    assert not torch.equal(best, mean) and gain.mean() > 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("gamma", 1.5),
        ("tau", 0.0),
        ("batch", 0),
        ("hidden", ()),
        ("actor_lr", -1.0),
        ("alpha", 0.0),
    ],
)
def test_settings_are_checked(field, value):
    with pytest.raises(ValueError, match=f"{field} must be"):
        dataclasses.replace(SACConfig(), **{field: value})
