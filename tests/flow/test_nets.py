"""Networks: shapes, values of the embedding, dependence on every input, gradients."""

import math

import pytest
import torch
from torch import nn

from som_lite.flow.densities import GaussianMixture
from som_lite.flow.nets import MLP, AverageVelocityNet, SkipVelocityNet, TimeEmbedding
from som_lite.flow.paths import Linear


def test_mlp_layers():
    net = MLP([3, 8, 5, 2], nn.Tanh)
    kinds = [type(layer) for layer in net]
    assert kinds == [nn.Linear, nn.Tanh, nn.Linear, nn.Tanh, nn.Linear]
    assert [(x.in_features, x.out_features) for x in net if isinstance(x, nn.Linear)] == [
        (3, 8), (8, 5), (5, 2),
    ]  # fmt: skip
    assert isinstance(MLP([1, 2, 3])[1], nn.SiLU)
    assert net(torch.zeros(4, 6, 3)).shape == (4, 6, 2)


def test_mlp_by_hand():
    """One hidden layer of two, all weights one, all biases zero: 2 tanh(x + y)."""
    net = MLP([2, 2, 1], nn.Tanh)
    with torch.no_grad():
        for name, p in net.named_parameters():
            p.fill_(0.0 if name.endswith("bias") else 1.0)
    out = net(torch.tensor([[0.3, 0.4]]))
    assert out.item() == pytest.approx(2 * math.tanh(0.7), rel=1e-6)


@pytest.mark.parametrize("octaves", [1, 3])
def test_embedding_values(octaves):
    """sin then cos of pi/2, pi, 2 pi ... times t; float32 rounding."""
    t = torch.tensor([[0.0], [0.25], [1.0]])
    embedding = TimeEmbedding(octaves)
    got = embedding(t)
    assert got.shape == (3, embedding.size) == (3, 2 * octaves)
    for i, x in enumerate((0.0, 0.25, 1.0)):
        angles = [math.pi / 2 * 2**k * x for k in range(octaves)]
        want = [math.sin(y) for y in angles] + [math.cos(y) for y in angles]
        assert got[i].tolist() == pytest.approx(want, abs=1e-6)


def test_one_octave_tells_all_times_apart_and_is_smooth():
    """On [0, 1] the sine rises throughout; the derivative in t never exceeds pi / 2."""
    t = torch.linspace(0, 1, 101)[:, None]
    e = TimeEmbedding(1)(t)
    assert (e[1:, 0] > e[:-1, 0]).all()
    assert ((e[1:] - e[:-1]).norm(dim=1) <= math.pi / 2 * 0.01 * 1.001).all()


def test_embedding_follows_the_module_but_not_its_checkpoints():
    """A buffer, so it moves with the module; a constant, so it is not saved."""
    embedding = TimeEmbedding(2).double()
    assert embedding.frequency.dtype == torch.float64
    assert not embedding.state_dict()


@pytest.mark.parametrize("batch", [(), (7,), (7, 4), (2, 3, 4)])
@pytest.mark.parametrize("cond_dim", [0, 5])
def test_shapes(batch, cond_dim):
    net = AverageVelocityNet(3, cond_dim, hidden=(16, 16))
    a, r, t = torch.zeros(*batch, 3), torch.zeros(*batch, 1), torch.ones(*batch, 1)
    cond = torch.zeros(*batch, cond_dim) if cond_dim else None
    assert net(a, r, t, cond).shape == (*batch, 3)
    assert net.mlp[0].in_features == 3 + 4 + cond_dim


def test_expanded_condition_acts_row_by_row(generator):
    """One condition for N candidates, expanded as the agents do: equal to calls one by one."""
    net = AverageVelocityNet(2, 3, hidden=(16,))
    a = torch.randn(4, 6, 2, generator=generator)
    cond = torch.randn(4, 3, generator=generator)
    r, t = torch.zeros(4, 6, 1), torch.ones(4, 6, 1)
    together = net(a, r, t, cond[:, None].expand(-1, 6, -1))
    for j in range(6):
        torch.testing.assert_close(together[:, j], net(a[:, j], r[:, j], t[:, j], cond))


def test_wrong_condition_is_refused():
    """A condition for a net without one, a missing one, and one of another batch."""
    a, r, t = torch.zeros(4, 2), torch.zeros(4, 1), torch.ones(4, 1)
    for net, cond in (
        (AverageVelocityNet(2), torch.zeros(4, 3)),
        (AverageVelocityNet(2, 3), None),
        (AverageVelocityNet(2, 3), torch.zeros(1, 3)),
    ):
        with pytest.raises(Exception, match=r"(?i)shape|size|type|dim"):
            net(a, r, t, cond)


def test_output_depends_on_every_input_and_gradients_reach_all(generator):
    net = AverageVelocityNet(2, 3, hidden=(16, 16), octaves=2)
    a, cond = torch.randn(5, 2, generator=generator), torch.randn(5, 3, generator=generator)
    r, t = torch.full((5, 1), 0.2), torch.full((5, 1), 0.7)
    inputs = [x.requires_grad_() for x in (a, r, t, cond)]
    net(*inputs).square().sum().backward()
    for x in (*inputs, *net.parameters()):
        assert x.grad is not None and x.grad.isfinite().all() and (x.grad != 0).any()


def test_times_enter_as_t_and_t_minus_r():
    """With the part that reads t cut off, only t - r is left; with the other cut off, only t."""
    a = torch.zeros(1, 2)
    at = lambda net, r, t: net(a, torch.tensor([[r]]), torch.tensor([[t]]))  # noqa: E731
    net = AverageVelocityNet(2, hidden=(16,))
    with torch.no_grad():
        net.mlp[0].weight[:, 2:4] = 0  # columns: a (2), embedding of t (2), embedding of t - r (2)
    torch.testing.assert_close(at(net, 0.1, 0.4), at(net, 0.5, 0.8))
    assert not torch.allclose(at(net, 0.1, 0.4), at(net, 0.1, 0.8))
    net = AverageVelocityNet(2, hidden=(16,))
    with torch.no_grad():
        net.mlp[0].weight[:, 4:6] = 0
    torch.testing.assert_close(at(net, 0.1, 0.4), at(net, 0.3, 0.4))
    assert not torch.allclose(at(net, 0.1, 0.4), at(net, 0.1, 0.8))


def test_forward_derivatives_agree_with_reverse(generator):
    """MeanFlow's JVP against autograd's full Jacobian, contracted with its tangent (float64)."""
    net = AverageVelocityNet(2, hidden=(16, 16), octaves=2).double()
    a, v = torch.randn(2, 1, 2, dtype=torch.float64, generator=generator)
    r, t = torch.full((1, 1), 0.2).double(), torch.full((1, 1), 0.7).double()
    _, forward = torch.func.jvp(net, (a, r, t), (v, torch.zeros_like(r), torch.ones_like(t)))
    d_a, _, d_t = torch.autograd.functional.jacobian(net, (a, r, t))
    reverse = torch.einsum("bibj,bj->bi", d_a, v) + d_t.reshape(1, 2)
    torch.testing.assert_close(forward, reverse, rtol=1e-10, atol=1e-12)


def test_state_dict_restores_the_function(generator):
    one, two = AverageVelocityNet(2, hidden=(8,)), AverageVelocityNet(2, hidden=(8,))
    two.load_state_dict(one.state_dict())
    a = torch.randn(3, 2, generator=generator)
    r, t = torch.zeros(3, 1), torch.ones(3, 1)
    assert torch.equal(one(a, r, t), two(a, r, t))


def test_skip_net_starts_from_the_velocity_of_a_gaussian(generator):
    """With its last layer at zero: the closed form for N(0, s^2 I), at both ends of time too."""
    net = SkipVelocityNet(2, 3, hidden=(8,), spread=0.6).double()
    with torch.no_grad():
        for p in net.mlp[-1].parameters():
            p.zero_()
    ones = torch.ones(1, dtype=torch.float64)
    normal = GaussianMixture(torch.zeros(1, 2, dtype=torch.float64), 0.6 * ones, ones)
    a, cond = (
        torch.randn(5, 2, dtype=torch.float64, generator=generator),
        torch.zeros(5, 3).double(),
    )
    t = torch.tensor([[0.0], [0.1], [0.5], [0.9], [1.0]], dtype=torch.float64)
    got = net(a, 0.3 * t, t, cond)
    torch.testing.assert_close(got, normal.velocity(a, t, Linear()), rtol=1e-12, atol=1e-14)


def test_skip_net_adds_a_rescaled_network(generator):
    """The rest is s / sqrt(V) F(a / sqrt(V), r, t), F being the plain net with the same weights."""
    net, plain = SkipVelocityNet(2, hidden=(8,), spread=0.6), AverageVelocityNet(2, hidden=(8,))
    plain.load_state_dict(net.state_dict())
    a = torch.randn(5, 2, generator=generator)
    r, t = torch.full((5, 1), 0.2), torch.full((5, 1), 0.7)
    size = math.sqrt((0.3 * 0.6) ** 2 + 0.7**2)  # the standard deviation of a_t
    gaussian = (0.7 - 0.3 * 0.36) / size**2 * a
    want = gaussian + 0.6 / size * plain(a / size, r, t)
    torch.testing.assert_close(net(a, r, t), want)
