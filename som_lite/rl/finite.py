"""Numbers that stopped being numbers are named where they appear, not found in the last curve."""

import numpy as np
import torch
from torch import Tensor

LARGEST = float(np.finfo(np.float32).max)  # all networks and the replay buffer are float32


class NotFinite(ValueError):
    """A value is NaN, infinite, or too large for float32."""


def not_finite(tensors: dict[str, Tensor]) -> list[str]:
    """The names of the tensors that hold a NaN or an infinity: weights and moments, by the dozen,
    on whatever device they are."""
    return [name for name, x in tensors.items() if not torch.isfinite(x).all()]


def require_finite(name: str, value: object, step: object = None) -> None:
    """Raise NotFinite if a component of `value`, an array, tensor or number, is not finite.

    The message names the value, its first bad component and, if given, the step: a number, or
    words such as "150 of the episode".
    """
    if isinstance(value, Tensor):
        value = value.detach().double().cpu().numpy()
    x = np.asarray(value)
    if x.dtype == np.float16:
        x = x.astype(np.float64)  # LARGEST would be infinite in float16
    good = np.abs(x) <= LARGEST  # False for NaN
    if good.all():
        return
    index = tuple(int(i) for i in np.argwhere(~good)[0])
    bad = float(x[index])
    component = f" component {index[0] if len(index) == 1 else index}" if index else ""
    excess = ", too large for float32," if np.isfinite(bad) else ""
    where = "" if step is None else f" at step {step}"
    raise NotFinite(f"{name}{component} is {bad:g}{excess}{where}")
