import copy

import torch

from som_lite.rl.critic import TwinQ, best_of_n, polyak_, td_target


def make(obs_dim=3, act_dim=2):
    torch.manual_seed(0)
    return TwinQ(obs_dim, act_dim, hidden=(16, 16))


def plain(critic, obs, a):
    """The two networks on concatenated inputs, as one would write them without broadcasting."""
    x = torch.cat([obs, a], -1)
    return torch.stack([critic.q1(x)[..., 0], critic.q2(x)[..., 0]])


def test_values_are_those_of_the_two_networks():
    critic, obs, a = make(), torch.randn(7, 3), torch.rand(7, 2)
    q = critic(obs, a)
    assert q.shape == (2, 7)
    # The split first layer adds in another order: float32 rounding of values of order 0.1.
    torch.testing.assert_close(q, plain(critic, obs, a), atol=1e-6, rtol=0)
    assert not torch.allclose(q[0], q[1])
    assert torch.equal(critic.min(obs, a), torch.minimum(q[0], q[1]))


def test_states_broadcast_against_many_actions():
    critic, obs, a = make(), torch.randn(7, 3), torch.rand(7, 5, 2)
    q = critic(obs[:, None], a)
    assert q.shape == (2, 7, 5)
    expected = plain(critic, obs[:, None].expand(7, 5, 3), a)
    torch.testing.assert_close(q, expected, atol=1e-6, rtol=0)  # as above
    assert critic(obs[:, None, None], a[:, None].expand(7, 4, 5, 2)).shape == (2, 7, 4, 5)
    assert critic(obs[0], a[0, 0]).shape == (2,)


def test_batch_of_one_and_one_action_dimension():
    critic = make(act_dim=1)
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
