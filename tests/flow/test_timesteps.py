"""Laws of t, against quadrature, closed forms and planted answers."""

import copy
import math
from itertools import pairwise

import pytest
import torch
from scipy import integrate, stats

from som_lite.flow.timesteps import (
    BinLaw,
    Likelihood,
    LogitNormal,
    Power,
    adam_sizes,
    mixed_masses,
    trial_decreases,
    weights,
)

N = 20_000
KS = 1.95 / math.sqrt(N)  # p = .001, fixed seed


def learnt(base, bins=8):
    law = BinLaw(base, bins, share=0.3, memory=0.0)
    law.learn(torch.arange(bins).float())
    return law


LAWS = {
    "uniform": (Power(), 0.0),
    "larger of two": (Power(2.0), 0.0),
    "logit-normal": (LogitNormal(0.3, 0.8), 0.0),
    "likelihood": (Likelihood(), 1e-3),
    "learnt": (learnt(Power(2.0)), 0.0),
    "learnt likelihood": (learnt(Likelihood(0.01)), 0.01),
}
every_law = pytest.mark.parametrize(("law", "low"), LAWS.values(), ids=LAWS.keys())


def density(law, t):
    return float(law.density(torch.tensor([t], dtype=torch.float64)))


@every_law
def test_density_integrates_to_its_cdf_and_to_one(law, low):
    edges = [float(law.quantile(torch.tensor([u]))) for u in (0.15, 0.6, 0.9)]
    # Bins make the density jump; quad is told where. It errs by less than 1e-6 between jumps.
    learnt_law = isinstance(law, BinLaw)
    jumps = law.base.quantile(torch.arange(1, 8) / 8).tolist() if learnt_law else []
    for edge in edges:
        points = [x for x in jumps if x < edge]
        mass = integrate.quad(lambda t: density(law, t), low, edge, points=points or None)
        # quantiles and cdf in single precision, the quantile of `Likelihood` from a table
        assert mass[0] == pytest.approx(float(law.cdf(torch.tensor([edge]))), abs=1e-4)
    whole = integrate.quad(lambda t: density(law, t), low or 1e-12, 1 - 1e-12, points=jumps or None)
    assert whole[0] == pytest.approx(1, abs=1e-5)


@every_law
def test_quantile_inverts_cdf(law, low):
    u = torch.linspace(0.001, 0.999, 99)
    torch.testing.assert_close(law.cdf(law.quantile(u)), u, atol=1e-4, rtol=0)


@every_law
def test_draws_have_the_law(law, low, generator):
    cdf = lambda t: law.cdf(torch.as_tensor(t)).numpy()  # noqa: E731
    for draw in (law.sample, law.spread):
        t = draw(N, generator)
        assert t.shape == (N, 1)
        assert stats.kstest(t[:, 0].numpy(), cdf).statistic < KS


def test_spread_times_are_one_from_each_slice(generator):
    t = Power(2.0).spread(50, generator)[:, 0]
    slices = (Power(2.0).cdf(t) * 50).floor()
    assert slices.tolist() == list(range(50))


def test_spread_times_average_better(generator):
    """A mean of sin(3 t) over 64 times: slices of width h leave a deviation of order h^1.5."""
    means = {
        name: torch.stack([torch.sin(3 * draw(64, generator)).mean() for _ in range(300)]).std()
        for name, draw in {"sample": Power().sample, "spread": Power().spread}.items()
    }
    assert means["spread"] < 0.1 * means["sample"]


@every_law
def test_weights_make_the_mean_that_of_the_objective(law, low, generator):
    """E[w h(t)] = int f h, for f(t) = 2 t cut to where the law lives; the plain mean is another."""
    if isinstance(law, LogitNormal):
        pytest.skip("the weights have no variance; see the test below")
    objective = Power(2.0)
    t = law.sample(200_000, generator)
    value = torch.cos(2 * t[:, 0]) * (t[:, 0] > 0.05)
    exact = integrate.quad(lambda x: 2 * x * math.cos(2 * x), 0.05, 1)[0]
    terms = weights(t, objective, law) * value
    error = 4 * float(terms.std()) / math.sqrt(len(t))  # four standard errors
    assert float(terms.mean()) == pytest.approx(exact, abs=error + 1e-4)
    assert error < 0.05
    if not (isinstance(law, Power) and law.k == 2):
        assert abs(float(value.mean()) - exact) > 0.02


def test_weights_of_the_logit_normal_have_no_variance(generator):
    """E[w^2] = int f^2 / p diverges: each decade towards 0 adds more than the one before."""
    law = LogitNormal(0.0)
    parts = [
        integrate.quad(lambda t: 1 / density(law, t), 10.0 ** -(k + 1), 10.0**-k)[0]
        for k in range(4, 9)
    ]
    assert all(late > early for early, late in pairwise(parts))


def test_likelihood_weight_is_that_of_the_score():
    """g^2 / 2 |ds|^2 over |dv|^2, from s = -(a + (1 - t) v) / t, by which s differs if v does."""
    t = torch.tensor([0.02, 0.3, 0.8], dtype=torch.float64)
    score = lambda v: -(0.7 + (1 - t) * v) / t  # noqa: E731
    ds = (score(torch.tensor(0.4)) - score(torch.tensor(0.3))) / 0.1
    # The path scales a_0 by 1 - t and has the standard deviation t:
    # g^2 = d(t^2)/dt - 2 (d log(1 - t)/dt) t^2
    g_squared = 2 * t + 2 * t**2 / (1 - t)
    wanted = g_squared / 2 * ds**2
    shown = Likelihood().density(t)
    torch.testing.assert_close(shown / shown[0], wanted / wanted[0])


def test_a_planted_bin_is_found(generator):
    law = BinLaw(Power(2.0), bins=10, share=0.2)
    hard = lambda t: ((t[:, 0] ** 2 * 10).long() == 6).float()  # noqa: E731  bin 6, by t^2
    for _ in range(60):
        t = law.sample(128, generator)
        law.observe(t, hard(t))
    expected = torch.full((10,), 0.02)
    expected[6] += 0.8
    torch.testing.assert_close(law.mass, expected, atol=1e-6, rtol=0)
    t = law.sample(20_000, generator)
    assert float(hard(t).mean()) == pytest.approx(0.82, abs=0.011)  # four standard errors
    assert float(weights(t, Power(2.0), law).max()) <= 1 / 0.2 + 1e-4


def test_scores_are_running_means_and_unseen_bins_keep_theirs():
    law = BinLaw(Power(), bins=2, power=0.5, share=0.5, memory=0.75)
    law.learn(torch.tensor([4.0, 16.0]))
    assert law.mass.tolist() == pytest.approx([0.25 + 0.5 * 2 / 6, 0.25 + 0.5 * 4 / 6])
    law.learn(torch.tensor([8.0, torch.nan]))
    assert law.score is not None and law.score.tolist() == pytest.approx([5.0, 16.0])


def test_a_bin_unseen_at_first_counts_as_the_others():
    law = BinLaw(Power(), bins=3, share=0.1)
    law.learn(torch.tensor([1.0, torch.nan, 3.0]))
    assert law.score is not None and law.score.tolist() == [1.0, 2.0, 3.0]


def test_masses_without_any_score_are_even():
    assert mixed_masses(torch.zeros(4), 0.2).tolist() == [0.25] * 4


def test_a_copy_does_not_follow():
    law = BinLaw(Power(), bins=2)
    before = copy.copy(law)
    law.learn(torch.tensor([0.0, 1.0]))
    assert before.mass.tolist() == [0.5, 0.5]


def test_trial_steps_measure_and_leave_no_trace():
    """L = x^2 / 2 + 5 y^2, one bin a coordinate: closed form of a step of size h."""
    z, scale = torch.tensor([0.3, -0.7], requires_grad=True), torch.tensor([1.0, 10.0])
    before = z.detach().clone()

    def bin_loss(b):
        return scale[b] * z[b] ** 2 / 2

    def whole_loss():
        return bin_loss(0) + bin_loss(1)

    falls = trial_decreases([z], [torch.full((2,), 0.05)], bin_loss, whole_loss, 2)
    exact = scale * before**2 / 2 * (1 - (1 - 0.05 * scale) ** 2)
    torch.testing.assert_close(falls, exact)
    assert torch.equal(z.detach(), before) and z.grad is None
    assert falls.argmax() == 1


def test_a_step_that_is_too_long_has_a_negative_decrease():
    z = torch.tensor([1.0], requires_grad=True)
    loss = lambda: 5 * z[0] ** 2  # noqa: E731
    assert float(trial_decreases([z], [torch.tensor([0.3])], lambda b: loss(), loss, 2)[0]) < 0


def test_adam_sizes_are_those_of_its_next_step_without_memory_of_direction():
    z = torch.nn.Parameter(torch.tensor([2.0, -1.0]))
    adam = torch.optim.Adam([z], 0.1, betas=(0.0, 0.9))
    for _ in range(3):
        adam.zero_grad()
        (z[0] * 3 + z[1] * 0.5).backward()  # a constant gradient
        adam.step()
    before, gradient = z.detach().clone(), torch.tensor([3.0, 0.5])
    step = adam_sizes(adam)[0] * gradient
    adam.step()  # the same gradient once more: its running square does not change
    torch.testing.assert_close(before - z.detach(), step, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Power(0.0), "k"),
        (lambda: LogitNormal(0.0, 0.0), "std"),
        (lambda: Likelihood(0.0), "low"),
        (lambda: BinLaw(Power(), bins=1), "bins"),
        (lambda: BinLaw(Power(), share=0.0), "share"),
        (lambda: BinLaw(Power(), memory=1.0), "memory"),
    ],
)
def test_bad_numbers_are_named(make, name):
    with pytest.raises(ValueError, match=rf"^{name} must"):
        make()
