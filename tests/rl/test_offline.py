"""Cloning, guidance and the learnt prior, held against laws that are known exactly."""

import pytest
import torch

from som_lite.flow.boltzmann import BoxBoltzmann
from som_lite.flow.ode import solve
from som_lite.rl.critic import TwinQ
from som_lite.rl.offline import policies
from som_lite.rl.offline.clone import Clone, clone_loss
from som_lite.rl.offline.data import Data
from som_lite.rl.offline.diffusion_ql import DenoisingActor, diffusion_ql_loss
from som_lite.rl.offline.guidance import classifier_free_velocity, guided_velocity, labels
from som_lite.rl.offline.minimise import minimise
from som_lite.rl.offline.plans import closeness, crosses, end, positions, succeeds, windows
from som_lite.rl.offline.prior_guidance import (
    LatentCritic,
    Prior,
    kl_to_standard,
    latent_loss,
    prior_loss,
)
from som_lite.rl.offline.value import value_loss
from som_lite.rl.replay import Batch

MIDDLE, SPREAD = torch.tensor([0.3, -0.2]), torch.tensor([0.5, 0.2])
SLOPE, BEND = torch.tensor([0.4, -0.8]), 1.5
STATE = torch.zeros(512, 1)


def q(a):
    return a @ SLOPE - 0.5 * BEND * a.square().sum(-1)


def normal_map(obs, eps):
    """G for normal data: linear."""
    return MIDDLE + SPREAD * eps


def best_normal(alpha):
    """The exact tilted prior: precisions add up."""
    c2 = 1 / (1 + BEND * SPREAD**2 / alpha)
    return c2 * SPREAD * (SLOPE - BEND * MIDDLE) / alpha, c2.sqrt()


def normal_velocity(a, t):
    """Of the data N(MIDDLE, SPREAD^2): (a - m) / t."""
    gain = (1 - t) * SPREAD**2 / ((1 - t) ** 2 * SPREAD**2 + t**2)
    return (a - MIDDLE - gain * (a - (1 - t) * MIDDLE)) / t.clamp(min=1e-6)


@pytest.fixture
def learnt(generator):
    def learn(value, alpha, updates=400):
        torch.manual_seed(0)
        prior = Prior(STATE, 2, (16,))
        minimise(
            prior.parameters(),
            lambda: prior_loss(prior, value, STATE, alpha, generator),
            updates,
            3e-2,
        )
        b, c = prior(STATE[:1])
        return b[0].detach(), c[0].detach()

    return learn


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def test_kl_is_the_library_s():
    b, c = torch.randn(7, 3), torch.rand(7, 3) + 0.1
    one, other = torch.distributions.Normal(b, c), torch.distributions.Normal(0.0, 1.0)
    expected = torch.distributions.kl_divergence(one, other).sum(-1)
    torch.testing.assert_close(kl_to_standard(b, c), expected)  # float32 rounding


@pytest.mark.parametrize("alpha", [0.1, 1.0])
def test_normal_data_and_a_parabola_have_the_exact_prior(learnt, alpha):
    b, c = learnt(lambda obs, eps: q(normal_map(obs, eps)), alpha)
    wanted_b, wanted_c = best_normal(alpha)
    # 512 draws per step and a step size that falls to 0: hundredths remain
    torch.testing.assert_close(b, wanted_b, atol=0.05, rtol=0.05)
    torch.testing.assert_close(c, wanted_c, atol=0.05, rtol=0.05)
    # ... and its actions are the data times exp(Q / alpha), by quadrature on a wide box
    tilted = BoxBoltzmann(
        lambda a: alpha * (-((3 * a - MIDDLE) / SPREAD).square().sum(-1) / 2 + q(3 * a) / alpha),
        alpha,
        cells=401,
    )
    mean = (tilted.p[:, None] * 3 * tilted.grid).sum(0).float()
    torch.testing.assert_close(MIDDLE + SPREAD * b, mean, atol=0.03, rtol=0)


def test_a_large_weight_of_the_kl_is_the_clone_and_a_small_one_the_argmax(learnt):
    def value(obs, eps):
        return q(normal_map(obs, eps))

    b, c = learnt(value, 100.0, 100)
    assert b.abs().max() < 0.05 and (c - 1).abs().max() < 0.05  # best_normal: .004 and .002 off
    b, c = learnt(value, 1e-4, 1500)
    torch.testing.assert_close(normal_map(None, b), SLOPE / BEND, atol=0.03, rtol=0)
    assert (SPREAD * c).max() < 0.05  # best_normal: .008


def test_a_prior_begins_where_the_clone_began():
    b, c = Prior(torch.randn(50, 3), 4)(torch.randn(5, 3))
    assert (b == 0).all() and (c == 1).all()


def test_latent_critic_learns_the_value_of_the_noise(generator):
    torch.manual_seed(0)
    latent, eps = LatentCritic(1, 2, (32,)), torch.randn(512, 2, generator=generator)

    def value(obs, eps):
        return q(normal_map(obs, eps))

    def loss():
        eps = torch.randn(512, 2, generator=generator)
        return latent_loss(latent, value, STATE, eps)

    minimise(latent.parameters(), loss, 500, 1e-2)
    error = latent(STATE, eps) - value(STATE, eps)
    assert error.square().mean() < 0.02 * value(STATE, eps).var()


def test_linear_guidance_of_normal_data_moves_them_by_variance_times_slope(generator):
    eps = torch.randn(4000, 2, generator=generator)
    bent = guided_velocity(normal_velocity, lambda a: a @ SLOPE, 0.5)
    a = solve(bent, eps, 1.0, 1e-3, steps=200)
    # 4000 draws: .01; the cap near t = 1 takes about .01 more
    torch.testing.assert_close(a.mean(0), MIDDLE + SPREAD**2 * SLOPE / 0.5, atol=0.03, rtol=0)
    torch.testing.assert_close(a.std(0), SPREAD, atol=0.02, rtol=0)


def test_without_a_classifier_w_goes_from_all_to_good_and_on():
    def moved(by):
        return lambda a, t: 0 * a + by

    a, t = torch.zeros(3, 2), torch.ones(3, 1)
    for w, expected in ((0.0, 1.0), (1.0, 3.0), (2.0, 5.0)):
        assert (classifier_free_velocity(moved(1.0), moved(3.0), w)(a, t) == expected).all()


def test_labels_hide_a_share(generator):
    good = (torch.rand(10_000, generator=generator) < 0.5).float()
    told = labels(good, generator, hide=0.3)[:, 0]
    assert (told == 0).float().mean() == pytest.approx(0.3, abs=0.02)  # four standard errors
    assert (told[told != 0] == (2 * good - 1)[told != 0]).all()


@pytest.mark.slow
def test_a_clone_draws_the_data_by_one_call_and_a_hidden_label_is_no_label(generator):
    torch.manual_seed(0)
    states = torch.randint(2, (4000, 1), generator=generator).float()
    a0 = 0.5 * (2 * states - 1) + 0.3 * torch.randn(4000, 2, generator=generator)
    clone = Clone(states, 2, (64, 64), label=1)

    def loss():
        rows = torch.randint(4000, (256,), generator=generator)
        return clone_loss(clone.average(states[rows]), a0[rows], generator)

    minimise(clone.parameters(), loss, 900, 4e-3)
    for state in (0.0, 1.0):
        obs = torch.full((2000, 1), state)
        a = clone.draw(obs, 1, generator)[:, 0].detach()
        wanted = torch.full((2,), state - 0.5)
        # a short training of one step comes out narrow; a clone that mixes the states has its mean
        # off by .5 and a spread above .5
        torch.testing.assert_close(a.mean(0), wanted, atol=0.15, rtol=0)
        torch.testing.assert_close(a.std(0), torch.full((2,), 0.3), atol=0.17, rtol=0)
    eps, one = torch.randn(5, 2), torch.ones(5, 1)
    given = clone.average(one, torch.zeros(5, 1))(eps, 0 * one, one)
    assert (eps - given == clone(one, eps)).all()


def test_value_loss_is_td_on_the_given_action(generator):
    torch.manual_seed(0)
    critic, target = TwinQ(2, 1, (8,)), TwinQ(2, 1, (8,))
    batch = Batch(
        torch.randn(6, 2), torch.randn(6, 1), torch.randn(6), torch.randn(6, 2), torch.ones(6)
    )
    expected = (critic(batch.obs, batch.action) - batch.reward).square().mean(1).sum()
    loss = value_loss(critic, target, batch, torch.randn(6, 1), 0.9)
    torch.testing.assert_close(loss, expected)  # all terminated: nothing follows
    batch = batch._replace(terminated=torch.zeros(6))
    nxt = torch.randn(6, 1)
    y = batch.reward + 0.9 * target.min(batch.next_obs, nxt)
    expected = (critic(batch.obs, batch.action) - y).square().mean(1).sum()
    torch.testing.assert_close(value_loss(critic, target, batch, nxt, 0.9), expected)


def test_diffusion_ql_without_eta_only_clones_and_with_it_climbs():
    torch.manual_seed(0)
    actor, critic = DenoisingActor(STATE, 2, (16,)), TwinQ(1, 2, (8,))
    a0 = torch.rand(512, 2) - 0.5
    same = [torch.Generator().manual_seed(3) for _ in range(3)]
    alone = diffusion_ql_loss(actor, critic, STATE, a0, 0.0, same[0])
    both = diffusion_ql_loss(actor, critic, STATE, a0, 2.0, same[1])
    diffusion_ql_loss(actor, critic, STATE, a0, 0.0, same[2])
    drawn = critic.min(STATE, actor.draw(STATE, same[2]))
    torch.testing.assert_close(both, alone - 2 * drawn.mean() / drawn.abs().mean())
    (slope,) = torch.autograd.grad(both, [next(actor.net.mlp.parameters())])
    assert slope.abs().max() > 0 and torch.isfinite(slope).all()


def test_policies_act_in_the_box_and_cost_what_they_say(generator):
    torch.manual_seed(0)
    obs = torch.randn(5, 3)
    clone, critic = Clone(torch.randn(50, 3), 2, (8,), label=1), TwinQ(3, 2, (8,))
    calls = []
    clone.u.register_forward_hook(lambda *_: calls.append(1))
    prior = Prior(torch.randn(50, 3), 2, (8,))
    for policy, asked in (
        (policies.cloned(clone), 1),
        (policies.best_candidate(clone, critic, 7), 1),  # all candidates in one call
        (policies.prior_guided(clone, prior), 1),
        (policies.classifier_guided(clone, critic, 1.0, 3), 2 * 3),
        (policies.classifier_free(clone, 2.0, 4), 2 * 4),
    ):
        calls.clear()
        acting = policies.Acting(policy.draw)
        a = acting.act(obs, explore=False)
        assert a.shape == (5, 2) and a.abs().max() <= 1 and len(calls) == asked
        assert policy.depth <= policy.work


def test_fit_leaves_other_networks_alone_and_ends_at_step_size_zero():
    one, other = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
    losses = minimise([one], lambda: (one * other).square().sum(), 50, 0.1)
    assert losses[0] == 3 and losses[-1] < 0.1 and (other == 1).all() and other.grad is None
    with pytest.raises(ValueError, match=r"updates must be at least 1, got 0"):
        minimise([one], lambda: one.sum(), 0)


def test_windows_stay_in_their_episode():
    position = torch.arange(10.0)[:, None].expand(-1, 2)
    batch = Batch(position, position, position[:, 0], position + 1, torch.zeros(10))
    data = Data(batch, torch.tensor([0.0] * 6 + [1.0] * 4), ["", ""], {})
    starts, plans = windows(data, steps=4, every=2)
    assert starts[:, 0].tolist() == [0, 1, 2, 6]
    assert (positions(starts, plans)[:, :, 0] == starts[:, :1] + torch.tensor([0.0, 2, 4])).all()


def test_plans_through_the_block_do_not_count():
    start, goal = torch.tensor([[-0.7, 0.0]]), torch.tensor([[0.7, 0.0]])
    straight = torch.tensor([[0.0, 0.0, 0.7, 0.0]])
    round_it = torch.tensor([[-0.7, 0.7, 0.7, 0.7, 0.7, 0.0]])
    assert crosses(start, straight).all() and not crosses(start, round_it).any()
    assert not succeeds(start, goal, straight).any() and succeeds(start, goal, round_it).all()
    assert (end(straight) == goal).all() and closeness(goal, straight) == 0
