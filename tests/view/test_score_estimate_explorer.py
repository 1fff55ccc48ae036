import numpy as np
import pytest
import torch

from som_lite.flow.boltzmann import BoxBoltzmann
from som_lite.flow.densities import GaussianMixture
from som_lite.flow.paths import Linear
from som_lite.flow.scores import box_proposals, free_proposals
from som_lite.view.score_estimate import score_estimate_explorer

TARGET = GaussianMixture(
    torch.tensor([[0.6, 0.6], [-0.6, 0.4], [0.0, -0.7]]),
    torch.full((3,), 0.12),
    torch.tensor([0.5, 0.3, 0.2]),
)


@pytest.fixture(scope="module")
def explorer():
    return score_estimate_explorer(TARGET, TARGET.log_prob, samples=60)


def arrows(explorer):
    """Where the arrows stand, the exact ones and the estimated ones."""
    exact, guess = (a for a in explorer.moving if type(a).__name__ == "Quiver")
    where = torch.as_tensor(exact.get_offsets(), dtype=torch.float32)
    return where, np.stack([exact.U, exact.V], -1), np.stack([guess.U, guess.V], -1)


def cut(v):
    """The contract of the picture: no arrow is longer than 2."""
    length = v.norm(dim=-1, keepdim=True)
    return (v * (2 / length).clamp(max=1)).numpy()


def shown(explorer):
    """error, ESS and K of the title."""
    title = next(a for a in explorer.moving if "ESS" in getattr(a, "get_text", str)())
    words = title.get_text().replace(",", "").split()
    return float(words[1]), float(words[3]), int(words[5])


def test_exact_arrows_are_minus_the_velocity(explorer):
    for t in (0.05, 0.4, 0.95):
        explorer.set(t=t)
        where, exact, _ = arrows(explorer)
        # The arrows' places pass through double precision and back.
        np.testing.assert_allclose(exact, cut(-TARGET.velocity(where, t, Linear())), atol=1e-5)


def test_arrows_follow_the_formulas_of_the_estimators(explorer):
    """Both estimators written out anew, from proposals of the same generator.

    The explorer draws for the grid and the samples together: the grid comes first.
    """
    draws = torch.Generator().manual_seed(0)
    a0, eps = TARGET.sample(60, draws), torch.randn(60, 2, generator=draws)
    for t, K, estimator, proposals in (
        (0.4, 16, "posterior mean", "in the box"),
        (0.4, 4, "gradient", "unbounded"),
        (0.8, 256, "gradient", "in the box"),
    ):
        explorer.set(t=t, K=K, estimator=estimator, proposals=proposals)
        where, _, guess = arrows(explorer)
        a = torch.cat([where, (1 - t) * a0 + t * eps])
        propose = box_proposals if proposals == "in the box" else free_proposals
        x = propose(a, t, Linear(), K, torch.Generator().manual_seed(1)).requires_grad_()
        q = TARGET.log_prob(x)
        (slope,) = torch.autograd.grad(q.sum(), x)
        w = (q - q.logsumexp(-1, keepdim=True)).exp()[..., None]
        if estimator == "gradient":
            v = -(a + t * (w * slope).sum(1) / (1 - t)) / (1 - t)
        else:
            v = (a - (w * x).sum(1)) / t
        v = v.detach()
        # Single precision, a sum of 256 terms and a division by 1 - t.
        np.testing.assert_allclose(guess, cut(-v[: len(where)]), atol=1e-3)
        truth = TARGET.velocity(a, t, Linear())
        error = (v - truth)[len(where) :].square().sum(-1).mean().sqrt().item()
        ess = (1 / w.square().sum((1, 2)))[len(where) :].mean().item()
        assert shown(explorer) == (
            pytest.approx(error, rel=0.06),  # the title shows two digits
            pytest.approx(ess, abs=0.06),
            K,
        )


def test_what_the_chapter_says_of_the_estimators(explorer):
    """At high noise only the posterior mean in the box is usable; at low noise all are."""
    errors = {}
    for t in (0.05, 0.95):
        for estimator in explorer.controls["estimator"].positions:
            for proposals in explorer.controls["proposals"].positions:
                explorer.set(t=t, K=256, estimator=estimator, proposals=proposals)
                errors[t, estimator, proposals] = shown(explorer)[0]
    assert max(error for (t, *_), error in errors.items() if t == 0.05) < 0.5
    assert errors.pop((0.95, "posterior mean", "in the box")) < 0.3
    assert min(error for (t, *_), error in errors.items() if t == 0.95) > 1


def test_every_position_of_every_control_draws(explorer):
    for key, control in explorer.controls.items():
        explorer.set(t=0.4, K=16, estimator="posterior mean", proposals="in the box")
        pictures = set()
        for value in control.positions:
            explorer.set(**{key: value})
            pictures.add(explorer.image.value)
        assert len(pictures) == len(control.positions)


def test_extreme_settings_stay_on_the_picture(explorer):
    """Fixed limits hold everything: the curves of error and of ESS / K at every setting."""
    axis = next(a for a in explorer.moving if type(a).__name__ == "Line2D").axes
    low, high = axis.get_ylim()
    for K in explorer.controls["K"].positions:
        for estimator in explorer.controls["estimator"].positions:
            for proposals in explorer.controls["proposals"].positions:
                explorer.set(t=0.95, K=K, estimator=estimator, proposals=proposals)
                for line in axis.lines:
                    assert low < min(line.get_ydata()) and max(line.get_ydata()) < high


def test_an_error_beyond_the_picture_is_cut_and_the_title_has_it(explorer):
    explorer.set(t=0.95, K=16, estimator="gradient", proposals="unbounded")
    axis = next(a for a in explorer.moving if type(a).__name__ == "Line2D").axes
    assert shown(explorer)[0] > 1e4
    assert max(max(line.get_ydata()) for line in axis.lines) == pytest.approx(30)


def test_takes_a_box_density_and_a_temperature():
    """A slope on the box with its exact answer by quadrature; alpha reaches the estimator."""

    def slope(a):
        return a[..., 0]

    exact = BoxBoltzmann(slope, 0.1, cells=61)
    errors = []
    for alpha in (0.1, 1.0):
        explorer = score_estimate_explorer(exact, slope, alpha, samples=40)
        explorer.set(t=0.6, K=256)
        errors.append(shown(explorer)[0])
    # At the right temperature p_0 is .1 wide and some proposals hit it: far below .2. The wrong
    # density spreads over the square, and the mean of a_0 differs by some tenths, over t = .6.
    assert errors[0] < 0.2 and errors[1] > 0.6


def test_flip_book_stays_small(explorer):
    assert len(explorer._repr_mimebundle_()["text/html"]) < 450_000
