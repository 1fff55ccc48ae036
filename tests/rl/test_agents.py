"""What holds for every agent; most of these tests answer a bug found in public code."""

import copy

import pytest
import torch

from som_lite.rl.agents.common import flatten, unflatten
from som_lite.rl.replay import Batch


def make_batch(obs_dim=3, act_dim=2, B=32, seed=0):
    g = torch.Generator().manual_seed(seed)
    rand = lambda *shape: torch.rand(shape, generator=g)  # noqa: E731
    terminated = (rand(B) < 0.2).float()
    return Batch(rand(B, obs_dim), 2 * rand(B, act_dim) - 1, rand(B), rand(B, obs_dim), terminated)


def weights(agent):
    return {k: x.clone() for k, x in agent.state_dict().items()}


def targets(agent):
    """The slow copies, where the agent has any."""
    return [agent.critic_target] if hasattr(agent, "critic_target") else []


def until_the_actor_moved(agent):
    """How many updates that takes; one where there is no actor."""
    return getattr(agent.config, "actor_every", 1)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(x, b[k]) for k, x in a.items())


def test_actions_are_in_the_box_for_one_candidate_and_many(make_agent):
    agent, obs = make_agent(), torch.randn(5, 3)
    for p in getattr(agent, "actor", agent.critic).parameters():
        p.data.mul_(20)  # one that wants to leave the box
    for n in (1, 32):
        a = agent.generate(obs, n)
        assert a.shape == (5, n, 2) and a.abs().max() <= 1
    for explore in (True, False):
        a = agent.act(obs, explore)
        assert a.shape == (5, 2) and a.abs().max() <= 1 and not a.requires_grad


def test_one_observation_gives_one_action(make_agent):
    agent, obs = make_agent(), torch.randn(3)
    state = agent.generator.get_state()
    batch = agent.act(obs[None], explore=True)
    agent.generator.set_state(state)
    assert torch.equal(agent.act(obs, explore=True), batch[0])


def test_candidates_differ_from_each_other_and_between_calls(make_agent):
    agent, obs = make_agent(), torch.zeros(2, 3)
    a, b = agent.generate(obs, 16), agent.generate(obs, 16)
    # ACA moves some to the same corner of the box
    assert a.flatten(0, 1).unique(dim=0).shape[0] > (16 if "ACA" in type(agent).__name__ else 31)
    assert not torch.equal(a, b)


@pytest.mark.parametrize(("B", "obs_dim", "act_dim"), [(1, 3, 2), (4, 1, 1), (1, 1, 1)])
def test_a_batch_of_one_and_one_action_dimension(make_agent, B, obs_dim, act_dim):
    agent = make_agent(obs_dim, act_dim)
    metrics = {}
    for _ in range(until_the_actor_moved(agent)):
        metrics |= agent.update(make_batch(obs_dim, act_dim, B))
    assert ("actor_loss" in metrics) == hasattr(agent, "actor") and "dead_units" in metrics
    assert all(torch.is_tensor(m) and m.shape == () and m.isfinite() for m in metrics.values())
    assert agent.act(torch.zeros(B, obs_dim), explore=False).shape == (B, act_dim)


def test_metrics_carry_no_graph(make_agent):
    agent = make_agent()
    for _ in range(until_the_actor_moved(agent)):
        assert not any(m.requires_grad for m in agent.update(make_batch()).values())


def test_the_actor_update_leaves_the_critics_alone(make_actor_critic):
    agent, batch = make_actor_critic(), make_batch()
    agent.critic_update(batch)
    critics = [agent.critic, *targets(agent)]
    before = [copy.deepcopy(c.state_dict()) for c in critics]
    grads = [None if p.grad is None else p.grad.clone() for p in agent.critic.parameters()]
    actor = copy.deepcopy(agent.actor.state_dict())
    agent.actor_update(batch)
    assert not same(actor, agent.actor.state_dict())
    assert all(same(b, c.state_dict()) for b, c in zip(before, critics, strict=True))
    for p, g in zip(agent.critic.parameters(), grads, strict=True):
        assert torch.equal(p.grad, g)


def test_the_critic_update_leaves_the_actor_and_the_targets_alone(make_actor_critic):
    agent, batch = make_actor_critic(), make_batch()
    agent.update(batch)
    kept = [agent.actor, *targets(agent)]
    before = [copy.deepcopy(m.state_dict()) for m in kept]
    grads = [None if p.grad is None else p.grad.clone() for p in agent.actor.parameters()]
    agent.critic_update(batch)
    assert all(same(b, m.state_dict()) for b, m in zip(before, kept, strict=True))
    for p, g in zip(agent.actor.parameters(), grads, strict=True):
        assert (p.grad is None and g is None) or torch.equal(p.grad, g)


def test_only_terminated_rows_ignore_what_follows(make_agent):
    """With a next value far from 0, the TD error tells which rows were bootstrapped."""
    batch = make_batch()._replace(reward=torch.zeros(32))
    losses = []
    for terminated in (0.0, 1.0):
        agent = make_agent()
        values = agent.critic.values  # the next value is 100 more than the critics say
        agent.critic.values = lambda *x, values=values: (values(*x)[0], values(*x)[1] + 100)
        metrics = agent.critic_update(batch._replace(terminated=torch.full((32,), terminated)))
        losses.append(float(metrics["critic_loss"]))
    # Two critics, each about (0.99 * 100)^2 away; the rest of either loss is of order 1.
    assert losses[0] == pytest.approx(2 * 99**2, rel=0.2) and losses[1] < 20


def test_same_seed_same_weights_other_seed_other_weights(make_agent):
    def trained(seed):
        agent = make_agent(seed=seed)
        torch.manual_seed(torch.seed())  # the global generator must not matter
        for i in range(10):
            agent.update(make_batch(seed=i))
        return weights(agent)

    a, b, c = trained(0), trained(0), trained(1)
    assert same(a, b)
    net = "actor." if "actor" in make_agent().policy_parts else "critic."
    matrices = [k for k, x in a.items() if k.startswith(net) and x.ndim == 2]
    assert matrices and not any(torch.equal(a[k], c[k]) for k in matrices)


def test_agents_of_other_seeds_draw_other_noise(make_agent):
    agent, other = make_agent(seed=0), make_agent(seed=1)
    for name in {"actor", "critic"} & set(agent.policy_parts):
        getattr(other, name).load_state_dict(getattr(agent, name).state_dict())
    obs = torch.zeros(4, 3)
    assert not torch.equal(agent.generate(obs, 2), other.generate(obs, 2))


def test_the_target_critic_follows_by_tau(make_agent):
    agent = make_agent(critic="plain")
    before = copy.deepcopy(agent.critic_target)
    agent.update(make_batch())
    tau = agent.config.tau
    for new, old, online in zip(
        *(m.parameters() for m in (agent.critic_target, before, agent.critic)), strict=True
    ):
        torch.testing.assert_close(new, (1 - tau) * old + tau * online)  # default for float32


def test_a_batch_normalised_critic_has_no_target(make_actor_critic):
    assert not hasattr(make_actor_critic(critic="batch_norm"), "critic_target")


def test_every_module_optimiser_and_tensor_is_a_part(make_agent):
    """What a state forgets, a resumed run lacks."""
    agent, seen = make_agent(), set()
    kinds = (torch.nn.Module, torch.optim.Optimizer, torch.Generator, torch.Tensor)

    def look(values):
        for value in values.values():
            if isinstance(value, kinds):
                seen.add(id(value))
            elif hasattr(value, "__dict__") and not callable(value):
                look(vars(value))

    look(vars(agent))
    assert seen == {id(part) for part in agent.parts().values()}


def test_making_and_updating_leave_the_global_generator_alone(make_agent):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    agent = make_agent()
    for _ in range(until_the_actor_moved(agent)):
        agent.update(make_batch())
    agent.act(torch.zeros(1, 3), explore=True)
    assert torch.equal(torch.rand(3), expected)


def test_state_round_trip_is_exact(make_agent):
    agent, other = make_agent(seed=0), make_agent(seed=1)
    for i in range(3):
        agent.update(make_batch(seed=i))
    other.load_state_dict(agent.state_dict())
    for i in range(3, 6):
        agent.update(make_batch(seed=i))
        other.update(make_batch(seed=i))
    assert same(weights(agent), weights(other))


def test_the_policy_parts_are_enough_to_act(make_agent):
    agent, other = make_agent(seed=0), make_agent(seed=1)
    for i in range(3):
        agent.update(make_batch(seed=i))
    policy = {k: v for k, v in agent.parts().items() if k in agent.policy_parts}
    unflatten(flatten(policy), {k: other.parts()[k] for k in policy})
    other.generator.set_state(agent.generator.get_state())
    obs = torch.randn(4, 3)
    for explore in (True, False):
        assert torch.equal(agent.act(obs, explore), other.act(obs, explore))


def test_a_first_state_without_optimiser_moments_can_be_loaded(make_agent):
    agent, other = make_agent(seed=0), make_agent(seed=1)
    other.load_state_dict(agent.state_dict())
    assert same(weights(agent), weights(other))
