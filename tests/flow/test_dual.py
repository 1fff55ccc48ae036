"""The dual pass, against the library's JVP and central differences."""

import pytest
import torch

from som_lite.flow.dual import dual_meanflow_loss, value_and_rate
from som_lite.flow.meanflow import meanflow_loss
from som_lite.flow.nets import AverageVelocityNet, SkipVelocityNet


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def case(request, generator):
    torch.manual_seed(0)
    net = AverageVelocityNet(3, hidden=(32, 16), octaves=2).to(request.param)
    a, v = torch.randn(2, 40, 3, generator=generator, dtype=request.param)
    t = torch.rand(40, 1, generator=generator, dtype=request.param)
    r = t * torch.rand(40, 1, generator=generator, dtype=request.param)
    return net, a, r, t, v


def test_value_is_the_networks_and_rate_the_jvp(case):
    net, a, r, t, v = case
    value, rate = value_and_rate(net, a, r, t, v)
    assert torch.equal(value, net(a, r, t)) and value.requires_grad and not rate.requires_grad
    tangents = (v, torch.zeros_like(r), torch.ones_like(t))
    with torch.no_grad():
        jvp = torch.func.jvp(net, (a, r, t), tangents)[1]
    few = 40 * torch.finfo(a.dtype).eps  # both round some dozen operations, in different order
    torch.testing.assert_close(rate, jvp, rtol=few, atol=few * float(jvp.abs().max()))


def test_rate_is_the_central_difference(case):
    net, a, r, t, v = case
    if a.dtype == torch.float32:
        pytest.skip("differences keep three digits in single precision")
    h = 1e-5
    difference = (net(a + h * v, r, t + h) - net(a - h * v, r, t - h)) / (2 * h)
    rate = value_and_rate(net, a, r, t, v)[1]
    torch.testing.assert_close(rate, difference.detach(), rtol=1e-7, atol=1e-8)  # O(h^2)


def test_loss_and_gradient_are_those_of_the_jvp(case):
    net, *rows = case
    losses, gradients = [], []
    for loss in (meanflow_loss, dual_meanflow_loss):
        losses.append(loss(net, *rows))
        gradients.append(torch.autograd.grad(losses[-1], list(net.parameters())))
    few = 200 * torch.finfo(rows[0].dtype).eps
    torch.testing.assert_close(losses[0], losses[1], rtol=few, atol=0)
    deep = dual_meanflow_loss(net, *(x[None] for x in rows))  # one more axis, the same rows
    torch.testing.assert_close(deep, losses[1], rtol=few, atol=0)
    for jvp, dual in zip(*gradients, strict=True):
        torch.testing.assert_close(jvp, dual, rtol=few, atol=few * float(jvp.abs().max()))


def test_other_networks_are_refused(case):
    _, a, r, t, v = case
    with pytest.raises(TypeError, match="AverageVelocityNet, got SkipVelocityNet"):
        value_and_rate(SkipVelocityNet(3), a, r, t, v)
