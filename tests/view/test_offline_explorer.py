"""What the explorer of offline methods shows, against clouds whose numbers are known."""

import pytest
import torch

from som_lite.flow.boltzmann import BoxBoltzmann
from som_lite.view.explorers import offline_explorer

NAMES = ("mild", "strong")
DATA = BoxBoltzmann(lambda a: -a.square().sum(-1), 0.2)
AT = {x: torch.tensor([[x, 0.0]]).expand(50, -1) for x in (0.0, 0.25, 0.5, 1.0)}


def outside(a):
    return float((a[:, 0] > 0.4).float().mean())


@pytest.fixture(scope="module")
def explorer():
    clouds = {"stays": [AT[0.0], AT[0.25]], "leaves": [AT[0.5], AT[1.0]]}
    return offline_explorer(clouds, DATA, lambda a: a[..., 0], outside, names=NAMES)


@pytest.mark.parametrize(
    ("method", "strength", "mean", "gone"),
    [("stays", "mild", 0.0, 0.0), ("stays", "strong", 0.25, 0.0), ("leaves", "strong", 1.0, 1.0)],
)
def test_the_mark_is_the_mean_against_the_share_outside(explorer, method, strength, mean, gone):
    explorer.set(method=method, strength=strength)
    lines = [a.get_xydata() for a in explorer.moving if hasattr(a, "get_xydata")]
    assert lines[-1].tolist() == [[gone, mean]]
    titles = [a.get_text() for a in explorer.moving if hasattr(a, "get_text")]
    assert titles == [f"{method}, {strength}", f"E[Q] = {mean:.3f}, outside {gone:.3f}"]


def test_every_position_draws_and_the_flip_book_is_small(explorer):
    pictures = set()
    for method in ("stays", "leaves"):
        for strength in NAMES:
            explorer.set(method=method, strength=strength)
            pictures.add(explorer.image.value)
    assert len(pictures) == 4
    assert len(explorer._repr_mimebundle_()["text/html"]) < 250_000


def test_a_strength_that_is_missing():
    with pytest.raises(ValueError, match="short needs 2 strengths, got 1"):
        offline_explorer({"short": [AT[0.0]]}, DATA, lambda a: a[..., 0], outside, names=NAMES)
