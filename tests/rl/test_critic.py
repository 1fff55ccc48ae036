import copy

import pytest
import torch
from torch import nn

from som_lite.rl.critic import (
    CRITICS,
    BatchNormQ,
    RunningScale,
    TwinQ,
    best_of_n,
    polyak_,
    td_target,
)
from som_lite.rl.replay import Batch

kinds = pytest.mark.parametrize("kind", CRITICS.values(), ids=CRITICS.keys())


def make(obs_dim=3, act_dim=2, kind=CRITICS["plain"], hidden=(16, 16)):
    """A twin critic whose running statistics, where it has any, are those of some other rows."""
    torch.manual_seed(0)
    critic = TwinQ(obs_dim, act_dim, hidden, kind)
    if kind is BatchNormQ:
        for q in (critic.q1, critic.q2):
            for _ in range(5):
                q.in_batch(3 * torch.randn(64, obs_dim) + 1, torch.rand(64, act_dim))
    return critic


def as_modules(q):
    """One network as the chain of torch modules that its class describes."""
    if not isinstance(q, BatchNormQ):
        return nn.Sequential(*q)
    pairs = [layer for pair in zip(q.norms, q.linears, strict=True) for layer in (*pair, nn.ReLU())]
    return nn.Sequential(*pairs[:-1])


def plain(critic, obs, a):
    """The two networks on concatenated inputs, as one would write them without broadcasting."""
    x = torch.cat([obs, a], -1)
    flat = x.reshape(-1, x.shape[-1])
    values = [as_modules(q).eval()(flat) for q in (critic.q1, critic.q2)]
    return torch.stack(values).reshape(2, *x.shape[:-1])


@kinds
def test_values_are_those_of_the_two_networks(kind):
    critic, obs, a = make(kind=kind), torch.randn(7, 3), torch.rand(7, 2)
    q = critic(obs, a)
    assert q.shape == (2, 7)
    # The split first layer adds in another order: float32 rounding of values of order 0.1.
    torch.testing.assert_close(q, plain(critic, obs, a), atol=1e-6, rtol=0)
    assert not torch.allclose(q[0], q[1])
    assert torch.equal(critic.min(obs, a), torch.minimum(q[0], q[1]))


@kinds
def test_states_broadcast_against_many_actions(kind):
    critic, obs, a = make(kind=kind), torch.randn(7, 3), torch.rand(7, 5, 2)
    q = critic(obs[:, None], a)
    assert q.shape == (2, 7, 5)
    expected = plain(critic, obs[:, None].expand(7, 5, 3), a)
    torch.testing.assert_close(q, expected, atol=1e-6, rtol=0)  # as above
    assert critic(obs[:, None, None], a[:, None].expand(7, 4, 5, 2)).shape == (2, 7, 4, 5)
    assert critic(obs[0], a[0, 0]).shape == (2,)


@kinds
def test_batch_of_one_and_one_action_dimension(kind):
    critic = make(act_dim=1, kind=kind)
    assert critic(torch.randn(1, 3), torch.rand(1, 1)).shape == (2, 1)
    assert critic.min(torch.randn(1, 1, 3), torch.rand(1, 4, 1)).shape == (1, 4)


def test_best_of_n_picks_per_row():
    critic, obs, candidates = make(), torch.randn(6, 3), torch.rand(6, 32, 2) * 2 - 1
    best = best_of_n(critic, obs, candidates)
    for i in range(6):  # one candidate at a time
        q = [critic.min(obs[i], candidates[i, j]).item() for j in range(32)]
        assert torch.equal(best[i], candidates[i, q.index(max(q))])


def test_best_of_one_is_that_one():
    candidates = torch.rand(6, 1, 2)
    assert torch.equal(best_of_n(make(), torch.randn(6, 3), candidates), candidates[:, 0])


def test_td_target_by_hand():
    y = td_target(
        reward=torch.tensor([1.0, 1.0, -2.0]),
        terminated=torch.tensor([0.0, 1.0, 0.0]),  # a truncated row arrives here as 0
        next_q=torch.tensor([10.0, 10.0, 4.0]),
        gamma=0.5,
    )
    assert y.tolist() == [6.0, 1.0, 0.0]


def test_polyak_moves_the_target_by_tau():
    online, target = make(), make()
    for p in online.parameters():
        p.data.add_(1)
    before = copy.deepcopy(target)
    polyak_(target, online, 0.25)
    for new, old, goal in zip(
        target.parameters(), before.parameters(), online.parameters(), strict=True
    ):
        torch.testing.assert_close(new, 0.75 * old + 0.25 * goal)  # default float32 tolerance


def test_td_target_names_shapes_that_would_broadcast():
    with pytest.raises(ValueError, match=r"one shape, got \(4,\), \(4,\), \(4, 1\)"):
        td_target.__wrapped__(torch.zeros(4), torch.zeros(4), torch.zeros(4, 1), 0.9)


def transitions(B, seed=0, shift=0.0):
    g = torch.Generator().manual_seed(seed)
    rows = [torch.randn(B, n, generator=g) for n in (3, 2, 3)]
    batch = Batch(rows[0], rows[1].tanh(), torch.zeros(B), rows[2] + shift, torch.zeros(B))
    return batch, torch.rand(B, 2, generator=g)


@kinds
def test_a_value_never_depends_on_its_company(kind):
    critic = make(kind=kind)
    batch, _ = transitions(64)
    alone = torch.cat([critic(batch.obs[i : i + 1], batch.action[i : i + 1]) for i in range(64)], 1)
    # another order of additions in float32, values of order 1
    torch.testing.assert_close(critic(batch.obs, batch.action), alone, atol=1e-5, rtol=1e-5)


def test_the_joint_pass_is_batch_normalisation_of_the_mixture():
    critic, (batch, next_action) = make(kind=BatchNormQ), transitions(32, shift=2.0)
    reference = make(kind=BatchNormQ)
    q, next_q = critic.values(batch, next_action, None)
    x = torch.cat(
        [torch.cat([batch.obs, batch.action], 1), torch.cat([batch.next_obs, next_action], 1)]
    )
    for i, net in enumerate((reference.q1, reference.q2)):
        expected = as_modules(net).train()(x)[:, 0]
        torch.testing.assert_close(torch.cat([q[i], next_q[i]]), expected)  # default for float32
    for name, x in critic.state_dict().items():  # the running statistics moved in the same way
        if "num_batches" not in name:
            torch.testing.assert_close(x, reference.state_dict()[name])


def test_two_separate_passes_see_two_different_functions():
    """What fails without the joint pass: each batch is centred by itself, so a shift vanishes.

    The critic of the first batch normalisations in reinforcement learning valued (s', a') by their
    own statistics, and so could not see that s' differs from s.
    """
    critic, (batch, _) = make(kind=BatchNormQ), transitions(256)
    away = batch._replace(next_obs=batch.obs + 5.0)  # the same rows, far away
    joint = critic.values(away, away.action, None)
    apart = [net.in_batch(away.next_obs, away.action) for net in (critic.q1, critic.q2)]
    own = [net.in_batch(away.obs, away.action) for net in (critic.q1, critic.q2)]
    difference = (joint[0] - joint[1]).abs().mean() / joint[0].std()
    blind = (torch.stack(apart) - torch.stack(own)).abs().mean() / joint[0].std()
    assert blind < 1e-3  # float32: the shift is subtracted with the mean
    assert difference > 0.3  # seen


def test_rows_of_the_target_carry_no_gradient_of_their_own():
    """The regression reaches the weights through Q(s, a) and the statistics, not through y."""
    critic, (batch, next_action) = make(kind=BatchNormQ), transitions(16)
    q, next_q = critic.values(batch, next_action, None)
    assert q.requires_grad and next_q.requires_grad  # the agent detaches next_q


@kinds
def test_health_counts_units_that_no_row_wakes(kind):
    critic, (batch, _) = make(kind=kind), transitions(64)
    healthy = critic.health(batch.obs, batch.action)
    for q in (critic.q1, critic.q2):
        linears = [m for m in q.modules() if isinstance(m, nn.Linear)]
        linears[1].bias.data.fill_(-1e3)
    sick = critic.health(batch.obs, batch.action)
    assert healthy["dead_units"] < 0.2 and sick["dead_units"] >= 0.5  # one hidden layer of two
    squares = [m.weight.square().sum() for m in critic.modules() if isinstance(m, nn.Linear)]
    torch.testing.assert_close(sick["weight_norm"], torch.stack(squares).sum().sqrt())


def test_the_scale_of_a_constant_q_stays_above_zero():
    scale = RunningScale("cpu")
    for _ in range(20_000):
        scale.update(torch.ones(4, 8))
    assert scale.clamped() > 0 and torch.tensor(1.0).div(scale.clamped()).isfinite()
