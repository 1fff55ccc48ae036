import math

import pytest
import torch

from som_lite.flow.mixtures import mixture_entropy

NORMAL = 0.5 * math.log(2 * math.pi * math.e)  # entropy of a standard normal number


def test_the_entropy_of_normals_and_of_two_heaps():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, 2000, 2, generator=g) @ torch.tensor([[0.3, 0.0], [0.2, 0.1]])
    x[1] = 0.01 * torch.randn(2000, 2, generator=g) + torch.where(
        torch.rand(2000, 1, generator=g) < 0.5, 0.5, -0.5
    )
    correlated, heaps = mixture_entropy(x, generator=g).tolist()
    # log |det| = log .03; three components on one normal overlap, which the bound counts as
    # up to log 3 - the overlap: it may be above, by less than log 3
    exact = 2 * NORMAL + math.log(0.03)
    assert exact - 0.1 < correlated < exact + math.log(3)
    # two heaps far apart add log 2; a third component splits one of them: at most log(2)/2 more
    exact = 2 * NORMAL + 2 * math.log(0.01) + math.log(2)
    assert exact - 0.1 < heaps < exact + math.log(2)


def test_one_component_is_the_normal_itself():
    g = torch.Generator().manual_seed(1)
    x = 0.2 * torch.randn(1, 5000, 3, generator=g)
    entropy = mixture_entropy(x, components=1, generator=g).item()
    # the standard error of a log variance of 5000 draws is .02, three of them halved: .017
    assert entropy == pytest.approx(3 * (NORMAL + math.log(0.2)), abs=0.06)
