"""Answers to the exercises of chapter 11; tests/book/test_exercises.py says how they are tried."""


# %% 1 | wrong | leaves the parameters where the last step put them
def trial_decreases(parameters, sizes, bin_loss, whole_loss, bins):
    parameters, falls = list(parameters), []
    for b in range(bins):
        with torch.no_grad():
            start = whole_loss()
        slopes = torch.autograd.grad(bin_loss(b), parameters)
        with torch.no_grad():
            for p, size, slope in zip(parameters, sizes, slopes):
                p -= size * slope
            falls.append(start - whole_loss())
    return torch.stack(falls)


# %% 1 | wrong | puts the parameters back after the last bin only
def trial_decreases(parameters, sizes, bin_loss, whole_loss, bins):
    parameters = list(parameters)
    old = [p.detach().clone() for p in parameters]
    falls, start = [], whole_loss().detach()
    for b in range(bins):
        slopes = torch.autograd.grad(bin_loss(b), parameters)
        with torch.no_grad():
            for p, size, slope in zip(parameters, sizes, slopes):
                p -= size * slope
            falls.append(start - whole_loss())
    with torch.no_grad():
        for p, before in zip(parameters, old):
            p.copy_(before)
    return torch.stack(falls)


# %% 1 | wrong | measures the loss of the bin, not the whole
def trial_decreases(parameters, sizes, bin_loss, whole_loss, bins):
    parameters = list(parameters)
    old = [p.detach().clone() for p in parameters]
    falls = []
    for b in range(bins):
        start = bin_loss(b)
        slopes = torch.autograd.grad(start, parameters)
        with torch.no_grad():
            for p, size, slope in zip(parameters, sizes, slopes):
                p -= size * slope
            falls.append(start.detach() - bin_loss(b))
            for p, before in zip(parameters, old):
                p.copy_(before)
    return torch.stack(falls)


# %% 1 | wrong | the loss after the step, not its decrease
def trial_decreases(parameters, sizes, bin_loss, whole_loss, bins):
    parameters = list(parameters)
    old = [p.detach().clone() for p in parameters]
    after = []
    for b in range(bins):
        slopes = torch.autograd.grad(bin_loss(b), parameters)
        with torch.no_grad():
            for p, size, slope in zip(parameters, sizes, slopes):
                p -= size * slope
            after.append(whole_loss())
            for p, before in zip(parameters, old):
                p.copy_(before)
    return torch.stack(after)


# %% 1 | wrong | to first order: the slope of the whole times the step
def trial_decreases(parameters, sizes, bin_loss, whole_loss, bins):
    parameters, sizes = list(parameters), list(sizes)
    whole = torch.autograd.grad(whole_loss(), parameters)
    falls = []
    for b in range(bins):
        slopes = torch.autograd.grad(bin_loss(b), parameters)
        falls.append(sum((w * s * g).sum() for w, s, g in zip(whole, sizes, slopes)))
    return torch.stack(falls)


# %% 1 | wrong | undoes the step by adding it again, which rounds
def trial_decreases(parameters, sizes, bin_loss, whole_loss, bins):
    parameters, falls = list(parameters), []
    start = whole_loss().detach()
    for b in range(bins):
        slopes = torch.autograd.grad(bin_loss(b), parameters)
        with torch.no_grad():
            for p, size, slope in zip(parameters, sizes, slopes):
                p -= size * slope
            falls.append(start - whole_loss())
            for p, size, slope in zip(parameters, sizes, slopes):
                p += size * slope * (1 + 1e-6)
    return torch.stack(falls)


# %% 1 | right | by backward and the data of the parameters
def trial_decreases(parameters, sizes, bin_loss, whole_loss, bins):
    parameters, sizes = list(parameters), list(sizes)
    falls = []
    for b in range(bins):
        for p in parameters:
            p.grad = None
        start = whole_loss().item()
        bin_loss(b).backward()
        old = [p.data for p in parameters]
        for p, size in zip(parameters, sizes):
            p.data = p.data - size * p.grad
        falls.append(start - whole_loss().item())
        for p, before in zip(parameters, old):
            p.data, p.grad = before, None
    return torch.tensor(falls)


# %% 1 | right | a function for one bin
def trial_decreases(parameters, sizes, bin_loss, whole_loss, bins):
    parameters, sizes = list(parameters), list(sizes)
    old = [p.detach().clone() for p in parameters]

    def fall(b):
        slopes = torch.autograd.grad(bin_loss(b), parameters)
        with torch.no_grad():
            start = whole_loss()
            torch._foreach_sub_(parameters, torch._foreach_mul(sizes, list(slopes)))
            end = whole_loss()
            torch._foreach_copy_(parameters, old)
        return start - end

    return torch.stack([fall(b) for b in range(bins)])


# %% 2 | wrong | forgets that t - r moves too
def value_and_rate(net, a, r, t, v):
    z = torch.cat([a, net.time(t), net.time(t - r)], -1)
    dz = torch.cat([v, time_rate(net.time, t), 0 * time_rate(net.time, t - r)], -1)
    for layer in net.mlp:
        if isinstance(layer, nn.Linear):
            dz = dz @ layer.weight.detach().T
        else:
            s = torch.sigmoid(z.detach())
            dz = dz * s * (1 + z.detach() * (1 - s))
        z = layer(z)
    return z, dz


# %% 2 | wrong | adds the bias to the rate
def value_and_rate(net, a, r, t, v):
    z = torch.cat([a, net.time(t), net.time(t - r)], -1)
    dz = torch.cat([v, time_rate(net.time, t), time_rate(net.time, t - r)], -1)
    for layer in net.mlp:
        if isinstance(layer, nn.Linear):
            dz = dz @ layer.weight.detach().T + layer.bias.detach()
        else:
            s = torch.sigmoid(z.detach())
            dz = dz * s * (1 + z.detach() * (1 - s))
        z = layer(z)
    return z, dz


# %% 2 | wrong | takes the slope behind the activation
def value_and_rate(net, a, r, t, v):
    z = torch.cat([a, net.time(t), net.time(t - r)], -1)
    dz = torch.cat([v, time_rate(net.time, t), time_rate(net.time, t - r)], -1)
    for layer in net.mlp:
        z = layer(z)
        if isinstance(layer, nn.Linear):
            dz = dz @ layer.weight.detach().T
        else:
            s = torch.sigmoid(z.detach())
            dz = dz * s * (1 + z.detach() * (1 - s))
    return z, dz


# %% 2 | wrong | the rate carries gradient
def value_and_rate(net, a, r, t, v):
    z = torch.cat([a, net.time(t), net.time(t - r)], -1)
    dz = torch.cat([v, time_rate(net.time, t), time_rate(net.time, t - r)], -1)
    for layer in net.mlp:
        if isinstance(layer, nn.Linear):
            dz = dz @ layer.weight.T
        else:
            s = torch.sigmoid(z)
            dz = dz * s * (1 + z * (1 - s))
        z = layer(z)
    return z, dz


# %% 2 | wrong | asks the network twice
def value_and_rate(net, a, r, t, v):
    with torch.no_grad():
        moved = (v, torch.zeros_like(r), torch.ones_like(t))
        rate = torch.func.jvp(net, (a, r, t), moved)[1]
    return net(a, r, t), rate


# %% 2 | wrong | neither of the two carries gradient
def value_and_rate(net, a, r, t, v):
    with torch.no_grad():
        return torch.func.jvp(net, (a, r, t), (v, torch.zeros_like(r), torch.ones_like(t)))


# %% 2 | wrong | the gradient stops at every layer
def value_and_rate(net, a, r, t, v):
    z = torch.cat([a, net.time(t), net.time(t - r)], -1)
    dz = torch.cat([v, time_rate(net.time, t), time_rate(net.time, t - r)], -1)
    for layer in net.mlp:
        z = z.detach()
        if isinstance(layer, nn.Linear):
            dz = dz @ layer.weight.detach().T
        else:
            s = torch.sigmoid(z)
            dz = dz * s * (1 + z * (1 - s))
        z = layer(z)
    return z, dz


# %% 2 | right | layers in pairs, SiLU by its formula
def value_and_rate(net, a, r, t, v):
    linear, last = list(net.mlp)[:-1:2], net.mlp[-1]
    z = torch.cat([a, net.time(t), net.time(t - r)], -1)
    dz = torch.cat([v, time_rate(net.time, t), time_rate(net.time, t - r)], -1)
    for layer in linear:
        z, dz = layer(z), nn.functional.linear(dz, layer.weight.detach())
        s = torch.sigmoid(z)
        z, dz = z * s, dz * (s + z * s * (1 - s)).detach()
    return last(z), dz @ last.weight.detach().T


# %% 2 | right | the rate under no_grad
def value_and_rate(net, a, r, t, v):
    z = torch.cat([a, net.time(t), net.time(t - r)], -1)
    with torch.no_grad():
        dz = torch.cat([v, time_rate(net.time, t), time_rate(net.time, t - r)], -1)
    for layer in net.mlp:
        with torch.no_grad():
            if isinstance(layer, nn.Linear):
                dz = dz @ layer.weight.T
            else:
                e = torch.exp(-z)
                dz = dz * (1 + e + z * e) / (1 + e) ** 2
        z = layer(z)
    return z, dz


# %% 3 | wrong | t uniform in its slices
def spread_pairs(n, generator):
    t = Power(1.0).spread(n, generator)
    return t * torch.rand(n, 1, generator=generator), t


# %% 3 | wrong | no slices
def spread_pairs(n, generator):
    t = Power(2.0).sample(n, generator)
    return t * torch.rand(n, 1, generator=generator), t


# %% 3 | wrong | r uniform on the whole interval, then cut
def spread_pairs(n, generator):
    t = Power(2.0).spread(n, generator)
    return torch.minimum(t, torch.rand(n, 1, generator=generator)), t


# %% 3 | wrong | r in rising slices as well: t and r go together
def spread_pairs(n, generator):
    t = Power(2.0).spread(n, generator)
    return t * Power(1.0).spread(n, generator), t


# %% 3 | wrong | a fixed grid, without chance
def spread_pairs(n, generator):
    t = ((torch.arange(n)[:, None] + 0.5) / n).sqrt()
    return t * torch.rand(n, 1, generator=generator), t


# %% 3 | wrong | the lower time keeps away from both ends
def spread_pairs(n, generator):
    t = Power(2.0).spread(n, generator)
    return t * (0.25 + 0.5 * torch.rand(n, 1, generator=generator)), t


# %% 3 | right | by the root
def spread_pairs(n, generator):
    u = (torch.arange(n)[:, None] + torch.rand(n, 1, generator=generator)) / n
    return u.sqrt() * torch.rand(n, 1, generator=generator), u.sqrt()


# %% 3 | right | slices in another order, r by a law
def spread_pairs(n, generator):
    order = torch.randperm(n, generator=generator)
    t = Power(2.0).spread(n, generator)[order]
    return t * Power(1.0).sample(n, generator), t


# %% 4 | wrong | one call, but the graph through the critic stays
def fast_loss(actor, critic, obs, a_t, t, a0, alpha):
    w = torch.softmax(critic.min(obs[:, None], a0) / alpha, 1)
    v = (a_t - (w[..., None] * a0).sum(1)) / t
    return (actor(a_t, t, t, obs) - v).square().sum(-1).mean()


# %% 4 | wrong | no graph, but the loop stays
def fast_loss(actor, critic, obs, a_t, t, a0, alpha):
    with torch.no_grad():
        values = [critic.min(obs, a0[:, k]) for k in range(a0.shape[1])]
        w = torch.softmax(torch.stack(values, 1) / alpha, 1)
        v = (a_t - (w[..., None] * a0).sum(1)) / t
    return (actor(a_t, t, t, obs) - v).square().sum(-1).mean()


# %% 4 | wrong | asks one of the two critics
def fast_loss(actor, critic, obs, a_t, t, a0, alpha):
    with torch.no_grad():
        w = torch.softmax(critic.q1(obs[:, None], a0) / alpha, 1)
        v = (a_t - (w[..., None] * a0).sum(1)) / t
    return (actor(a_t, t, t, obs) - v).square().sum(-1).mean()


# %% 4 | wrong | weights over the states instead of the proposals
def fast_loss(actor, critic, obs, a_t, t, a0, alpha):
    with torch.no_grad():
        w = torch.softmax(critic.min(obs[:, None], a0) / alpha, 0)
        v = (a_t - (w[..., None] * a0).sum(1)) / t
    return (actor(a_t, t, t, obs) - v).square().sum(-1).mean()


# %% 4 | wrong | fewer proposals
def fast_loss(actor, critic, obs, a_t, t, a0, alpha):
    a0 = a0[:, :4]
    with torch.no_grad():
        w = torch.softmax(critic.min(obs[:, None], a0) / alpha, 1)
        v = (a_t - (w[..., None] * a0).sum(1)) / t
    return (actor(a_t, t, t, obs) - v).square().sum(-1).mean()


# %% 4 | right | the rows laid flat
def fast_loss(actor, critic, obs, a_t, t, a0, alpha):
    B, K, d = a0.shape
    with torch.no_grad():
        many = obs.repeat_interleave(K, 0)
        q = critic(many, a0.reshape(B * K, d)).amin(0).view(B, K)
        m = torch.einsum("bk,bkd->bd", torch.softmax(q / alpha, 1), a0)
    return (actor(a_t, t, t, obs) - (a_t - m) / t).square().sum(-1).mean()


# %% 4 | right | both critics, then detached values
def fast_loss(actor, critic, obs, a_t, t, a0, alpha):
    with torch.inference_mode():
        q = torch.minimum(critic.q1(obs[:, None], a0), critic.q2(obs[:, None], a0))
    w = torch.softmax(q.clone() / alpha, 1)
    v = (a_t - torch.bmm(w[:, None], a0)[:, 0]) / t
    return ((actor(a_t, t, t, obs) - v) ** 2).sum() / len(obs)


# %% 5 | wrong | in proportion to the second moment
def best_masses(f, second, price):
    p = f * second / price
    return p / p.sum()


# %% 5 | wrong | forgets the root of the price
def best_masses(f, second, price):
    p = f * second.sqrt() / price
    return p / p.sum()


# %% 5 | wrong | dear times are drawn more often
def best_masses(f, second, price):
    p = f * (second * price).sqrt()
    return p / p.sum()


# %% 5 | wrong | forgets the objective
def best_masses(f, second, price):
    p = (second / price).sqrt()
    return p / p.sum()


# %% 5 | wrong | a density where masses are asked for
def best_masses(f, second, price):
    p = f * (second / price).sqrt()
    return p / p.mean()


# %% 5 | right | with logarithms
def best_masses(f, second, price):
    return torch.softmax(f.log() + (second.log() - price.log()) / 2, 0)


# %% 5 | right | the second moment of the weighted gradient, at its price
def best_masses(f, second, price):
    p = torch.sqrt(f**2 * second / price)
    return p / torch.linalg.vector_norm(p, 1)
