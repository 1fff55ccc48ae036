import numpy as np
import pytest
import torch

from som_lite.rl.finite import NotFinite, require_finite


@pytest.mark.parametrize(
    ("value", "step", "message"),
    [
        (float("nan"), None, "x is nan"),
        (-np.inf, 7, "x is -inf at step 7"),
        ([0, 1, np.inf], "2 of the episode", "x component 2 is inf at step 2 of the episode"),
        (torch.tensor([[0, 1], [torch.nan, 3]]), 9, "x component (1, 0) is nan at step 9"),
        (torch.tensor(torch.inf, dtype=torch.bfloat16, requires_grad=True), 1, "x is inf at"),
        (np.array([1e39]), 3, "x component 0 is 1e+39, too large for float32, at step 3"),
    ],
)
def test_what_is_not_finite_is_named(value, step, message):
    with pytest.raises(NotFinite) as error:
        require_finite("x", value, step)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)
    assert isinstance(error.value, ValueError)  # the command line makes one line of it


@pytest.mark.parametrize(
    "value", [0, True, 3.4e38, np.zeros((2, 0)), np.array([-(2**63)]), torch.ones(3), [1, 2]]
)
def test_finite_values_pass(value):
    require_finite("x", value)
