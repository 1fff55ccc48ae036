"""Answers to the exercises of chapter 06; tests/book/test_exercises.py says how they are tried."""


# %% 1 | wrong | the points are all the model's own
def first_rows(q, alpha, own, K, generator):
    t = torch.rand(len(own), 1, generator=generator).square().clamp(min=T_MIN)
    a = path.noise(own, torch.randn(own.shape, generator=generator), t)
    m = posterior_mean_estimate(q, a, t, path, alpha, K, generator).m
    return Rows(a, t, t, (a - m) / t)


# %% 1 | wrong | the own samples are not noised
def first_rows(q, alpha, own, K, generator):
    n = len(own)
    uniform = 2 * torch.rand(n, 2, generator=generator) - 1
    a = torch.where(torch.arange(n)[:, None] % 2 == 0, own, uniform)
    t = torch.rand(n, 1, generator=generator).square().clamp(min=T_MIN)
    m = posterior_mean_estimate(q, a, t, path, alpha, K, generator).m
    return Rows(a, t, t, (a - m) / t)


# %% 1 | wrong | velocity of the pair, as with data
def first_rows(q, alpha, own, K, generator):
    n = len(own)
    uniform = 2 * torch.rand(n, 2, generator=generator) - 1
    a0 = torch.where(torch.arange(n)[:, None] % 2 == 0, own, uniform)
    t = torch.rand(n, 1, generator=generator).square().clamp(min=T_MIN)
    eps = torch.randn(n, 2, generator=generator)
    return Rows(path.noise(a0, eps, t), t, t, eps - a0)


# %% 1 | wrong | uniform times
def first_rows(q, alpha, own, K, generator):
    n = len(own)
    uniform = 2 * torch.rand(n, 2, generator=generator) - 1
    a0 = torch.where(torch.arange(n)[:, None] % 2 == 0, own, uniform)
    t = torch.rand(n, 1, generator=generator).clamp(min=T_MIN)
    a = path.noise(a0, torch.randn(n, 2, generator=generator), t)
    m = posterior_mean_estimate(q, a, t, path, alpha, K, generator).m
    return Rows(a, t, t, (a - m) / t)


# %% 1 | wrong | starts its intervals at 0
def first_rows(q, alpha, own, K, generator):
    n = len(own)
    uniform = 2 * torch.rand(n, 2, generator=generator) - 1
    a0 = torch.where(torch.arange(n)[:, None] % 2 == 0, own, uniform)
    t = torch.rand(n, 1, generator=generator).square().clamp(min=T_MIN)
    a = path.noise(a0, torch.randn(n, 2, generator=generator), t)
    m = posterior_mean_estimate(q, a, t, path, alpha, K, generator).m
    return Rows(a, 0 * t, t, (a - m) / t)


# %% 1 | wrong | the velocity with the wrong sign
def first_rows(q, alpha, own, K, generator):
    n = len(own)
    uniform = 2 * torch.rand(n, 2, generator=generator) - 1
    a0 = torch.where(torch.arange(n)[:, None] % 2 == 0, own, uniform)
    t = torch.rand(n, 1, generator=generator).square().clamp(min=T_MIN)
    a = path.noise(a0, torch.randn(n, 2, generator=generator), t)
    m = posterior_mean_estimate(q, a, t, path, alpha, K, generator).m
    return Rows(a, t, t, (m - a) / t)


# %% 1 | wrong | four times the proposals
def first_rows(q, alpha, own, K, generator):
    n = len(own)
    uniform = 2 * torch.rand(n, 2, generator=generator) - 1
    a0 = torch.where(torch.arange(n)[:, None] % 2 == 0, own, uniform)
    t = torch.rand(n, 1, generator=generator).square().clamp(min=T_MIN)
    a = path.noise(a0, torch.randn(n, 2, generator=generator), t)
    m = posterior_mean_estimate(q, a, t, path, alpha, 4 * K, generator).m
    return Rows(a, t, t, (a - m) / t)


# %% 1 | wrong | no least time
def first_rows(q, alpha, own, K, generator):
    n = len(own)
    uniform = 2 * torch.rand(n, 2, generator=generator) - 1
    a0 = torch.where(torch.arange(n)[:, None] % 2 == 0, own, uniform)
    t = torch.rand(n, 1, generator=generator).square()
    a = path.noise(a0, torch.randn(n, 2, generator=generator), t)
    m = posterior_mean_estimate(q, a, t, path, alpha, K, generator).m
    return Rows(a, t, t, (a - m) / t)


# %% 1 | wrong | cuts the times off before it squares them
def first_rows(q, alpha, own, K, generator):
    n = len(own)
    uniform = 2 * torch.rand(n, 2, generator=generator) - 1
    a0 = torch.where(torch.arange(n)[:, None] % 2 == 0, own, uniform)
    t = torch.rand(n, 1, generator=generator).clamp(min=T_MIN).square()
    a = path.noise(a0, torch.randn(n, 2, generator=generator), t)
    m = posterior_mean_estimate(q, a, t, path, alpha, K, generator).m
    return Rows(a, t, t, (a - m) / t)


# %% 1 | wrong | uniform points of a quarter of the box
def first_rows(q, alpha, own, K, generator):
    n = len(own)
    uniform = torch.rand(n, 2, generator=generator)
    a0 = torch.where(torch.arange(n)[:, None] % 2 == 0, own, uniform)
    t = torch.rand(n, 1, generator=generator).square().clamp(min=T_MIN)
    a = path.noise(a0, torch.randn(n, 2, generator=generator), t)
    m = posterior_mean_estimate(q, a, t, path, alpha, K, generator).m
    return Rows(a, t, t, (a - m) / t)


# %% 1 | wrong | the same noise for both coordinates
def first_rows(q, alpha, own, K, generator):
    n = len(own)
    uniform = 2 * torch.rand(n, 2, generator=generator) - 1
    a0 = torch.where(torch.arange(n)[:, None] % 2 == 0, own, uniform)
    t = torch.rand(n, 1, generator=generator).square().clamp(min=T_MIN)
    a = path.noise(a0, torch.randn(n, 1, generator=generator).expand(n, 2), t)
    m = posterior_mean_estimate(q, a, t, path, alpha, K, generator).m
    return Rows(a, t, t, (a - m) / t)


# %% 1 | wrong | own samples in the odd rows
def first_rows(q, alpha, own, K, generator):
    n = len(own)
    uniform = 2 * torch.rand(n, 2, generator=generator) - 1
    a0 = torch.where(torch.arange(n)[:, None] % 2 == 1, own, uniform)
    t = torch.rand(n, 1, generator=generator).square().clamp(min=T_MIN)
    a = path.noise(a0, torch.randn(n, 2, generator=generator), t)
    m = posterior_mean_estimate(q, a, t, path, alpha, K, generator).m
    return Rows(a, t, t, (a - m) / t)


# %% 1 | right | even and odd rows written one after the other, the path by hand
def first_rows(q, alpha, own, K, generator):
    a0 = 2 * torch.rand(own.shape, generator=generator) - 1
    a0[::2] = own[::2]
    t = torch.rand(len(own), 1, generator=generator) ** 2
    t = torch.maximum(t, torch.full_like(t, T_MIN))
    a = (1 - t) * a0 + t * torch.randn(own.shape, generator=generator)
    m = posterior_mean_estimate(q, a, t, path, alpha, K, generator).m
    return Rows(a=a, r=t, t=t, u=path.velocity_from_mean(m, a, t))


# %% 1 | right | its own softmax, and the velocity from the score
def first_rows(q, alpha, own, K, generator):
    even = (torch.arange(len(own)) % 2 == 0)[:, None]
    a0 = torch.where(even, own, torch.rand(own.shape, generator=generator) * 2 - 1)
    t = torch.rand(len(own), 1, generator=generator).square().clamp(min=T_MIN)
    a = path.noise(a0, torch.randn(own.shape, generator=generator), t)
    z = box_proposals(a, t, path, K, generator)
    m = (torch.softmax(q(z) / alpha, -1)[..., None] * z).sum(-2)
    return Rows(a, t.clone(), t, (a - m) / t)


# %% 2 | wrong | as it stands
def interval_loss(net, eps, generator):
    rows = interval_rows(net, eps, 8, 4, generator)
    return squared_error(net, rows)


# %% 2 | wrong | detaches the target alone
def interval_loss(net, eps, generator):
    rows = interval_rows(net, eps, 8, 4, generator)
    return squared_error(net, rows._replace(u=rows.u.detach()))


# %% 2 | wrong | detaches the points alone
def interval_loss(net, eps, generator):
    rows = interval_rows(net, eps, 8, 4, generator)
    return squared_error(net, rows._replace(a=rows.a.detach()))


# %% 2 | wrong | switches the gradient of the loss off as well
def interval_loss(net, eps, generator):
    with torch.no_grad():
        rows = interval_rows(net, eps, 8, 4, generator)
        return squared_error(net, rows)


# %% 2 | wrong | detaches the noise
def interval_loss(net, eps, generator):
    rows = interval_rows(net, eps.detach(), 8, 4, generator)
    return squared_error(net, rows)


# %% 2 | wrong | compares with the network moved into the box
def interval_loss(net, eps, generator):
    with torch.no_grad():
        rows = interval_rows(net, eps, 8, 4, generator)
    return squared_error(in_box(net), rows)


# %% 2 | wrong | the mean over the dimensions
def interval_loss(net, eps, generator):
    with torch.no_grad():
        rows = interval_rows(net, eps, 8, 4, generator)
    return (net(rows.a, rows.r, rows.t) - rows.u).square().mean()


# %% 2 | right | detaches all columns
def interval_loss(net, eps, generator):
    rows = Rows(*(x.detach() for x in interval_rows(net, eps, 8, 4, generator)))
    return squared_error(net, rows)


# %% 2 | right | freezes the network while lines are drawn
def interval_loss(net, eps, generator):
    net.requires_grad_(False)
    rows = interval_rows(net, eps, 8, 4, generator)
    net.requires_grad_(True)
    return squared_error(net, rows)


# %% 2 | right | a frozen copy draws the lines
def interval_loss(net, eps, generator):
    frozen = copy.deepcopy(net).requires_grad_(False)
    return squared_error(net, interval_rows(frozen, eps, 8, 4, generator))


# %% 3 | wrong | forgets the likelihood
def mean_from_uniform(a, t, K, generator):
    z = 2 * torch.rand(len(a), K, 2, generator=generator) - 1
    w = torch.softmax(q(z) / alpha, -1)
    return (w[..., None] * z).sum(-2), w


# %% 3 | wrong | forgets the 1/2
def mean_from_uniform(a, t, K, generator):
    z = 2 * torch.rand(len(a), K, 2, generator=generator) - 1
    square = (a[:, None] - (1 - t[:, None]) * z).square().sum(-1)
    w = torch.softmax(q(z) / alpha - square / t**2, -1)
    return (w[..., None] * z).sum(-2), w


# %% 3 | wrong | 1/4 in the place of 1/2
def mean_from_uniform(a, t, K, generator):
    z = 2 * torch.rand(len(a), K, 2, generator=generator) - 1
    square = (a[:, None] - (1 - t[:, None]) * z).square().sum(-1)
    w = torch.softmax(q(z) / alpha - square / (4 * t**2), -1)
    return (w[..., None] * z).sum(-2), w


# %% 3 | wrong | forgets that the path shrinks the action
def mean_from_uniform(a, t, K, generator):
    z = 2 * torch.rand(len(a), K, 2, generator=generator) - 1
    w = torch.softmax(q(z) / alpha - (a[:, None] - z).square().sum(-1) / (2 * t**2), -1)
    return (w[..., None] * z).sum(-2), w


# %% 3 | wrong | forgets Q
def mean_from_uniform(a, t, K, generator):
    z = 2 * torch.rand(len(a), K, 2, generator=generator) - 1
    square = (a[:, None] - (1 - t[:, None]) * z).square().sum(-1)
    w = torch.softmax(-square / (2 * t**2), -1)
    return (w[..., None] * z).sum(-2), w


# %% 3 | wrong | proposals of step 1 after all
def mean_from_uniform(a, t, K, generator):
    z = box_proposals(a, t, path, K, generator)
    w = torch.softmax(q(z) / alpha, -1)
    return (w[..., None] * z).sum(-2), w


# %% 3 | wrong | divides by t, not by its square
def mean_from_uniform(a, t, K, generator):
    z = 2 * torch.rand(len(a), K, 2, generator=generator) - 1
    square = (a[:, None] - (1 - t[:, None]) * z).square().sum(-1)
    w = torch.softmax(q(z) / alpha - square / (2 * t), -1)
    return (w[..., None] * z).sum(-2), w


# %% 3 | right | around a / (1 - t)
def mean_from_uniform(a, t, K, generator):
    z = torch.empty(len(a), K, 2).uniform_(-1, 1, generator=generator)
    std = t / (1 - t)
    log_likelihood = -0.5 * (((a / (1 - t))[:, None] - z) / std[:, None]).square().sum(-1)
    w = (q(z) / alpha + log_likelihood).softmax(-1)
    return torch.einsum("nk,nkd->nd", w, z), w


# %% 3 | right | with torch's normal density
def mean_from_uniform(a, t, K, generator):
    z = 2 * torch.rand(len(a), K, 2, generator=generator) - 1
    normal = torch.distributions.Normal((1 - t)[:, None] * z, t[:, None])
    log_w = q(z) / alpha + normal.log_prob(a[:, None]).sum(-1)
    w = (log_w - log_w.logsumexp(-1, keepdim=True)).exp()
    return (w[..., None] * z).sum(1), w


# %% 4 | wrong | the mean
def expected_best(values, p, N):
    return float(p @ values)


# %% 4 | wrong | the maximum
def expected_best(values, p, N):
    return float(values.max())


# %% 4 | wrong | the masses to the power N, normalised
def expected_best(values, p, N):
    mass = p**N / (p**N).sum()
    return float(mass @ values)


# %% 4 | wrong | does not sort the masses
def expected_best(values, p, N):
    below = p.cumsum(0) ** N
    mass = torch.diff(below, prepend=torch.zeros(1, dtype=p.dtype))
    return float(mass @ values.sort().values)


# %% 4 | wrong | the worst of N
def expected_best(values, p, N):
    order = values.argsort(descending=True)
    mass = torch.diff(p[order].cumsum(0) ** N, prepend=torch.zeros(1, dtype=p.dtype))
    return float(mass @ values[order])


# %% 4 | wrong | the mean over the best 1/N of the mass
def expected_best(values, p, N):
    order = values.argsort(descending=True)
    mass = p[order].clone()
    before = mass.cumsum(0) - mass
    keep = (1 / N - before).clamp(min=0)
    mass = torch.minimum(mass, keep)
    return float(mass @ values[order] * N)


# %% 4 | wrong | the density of the best, which sums to one only for fine cells
def expected_best(values, p, N):
    order = values.argsort()
    mass = N * p[order] * p[order].cumsum(0) ** (N - 1)
    return float(mass @ values[order])


# %% 4 | wrong | samples
def expected_best(values, p, N):
    draws = torch.multinomial(p, 64000 // N * N, replacement=True)
    return float(values[draws].view(-1, N).max(-1).values.mean())


# %% 4 | right | from the top: not all N are below
def expected_best(values, p, N):
    order = values.argsort(descending=True)
    above = 1 - (1 - p[order].cumsum(0)).clamp(min=0) ** N
    mass = above - torch.cat([torch.zeros(1, dtype=p.dtype), above[:-1]])
    return (mass * values[order]).sum().item()


# %% 4 | right | as an integral over the distribution function
def expected_best(values, p, N):
    v, order = values.sort()
    F = p[order].cumsum(0)
    return float(v[-1] - (F[:-1] ** N * v.diff()).sum())


# %% 5 | wrong | nothing
def without_bias(w):
    return w


# %% 5 | wrong | the wrong sign
def without_bias(w):
    return w * (1 - w + w.square().sum(-1, keepdim=True))


# %% 5 | wrong | twice the correction
def without_bias(w):
    return w * (1 + 2 * (w - w.square().sum(-1, keepdim=True)))


# %% 5 | wrong | half the correction
def without_bias(w):
    return w * (1 + (w - w.square().sum(-1, keepdim=True)) / 2)


# %% 5 | wrong | squares of the weights
def without_bias(w):
    return w.square() / w.square().sum(-1, keepdim=True)


# %% 5 | wrong | does not sum to one
def without_bias(w):
    return w * (1 + w)


# %% 5 | wrong | subtracts the mean square from every weight
def without_bias(w):
    return w + w.square() - w.square().mean(-1, keepdim=True)


# %% 5 | wrong | 1/K in the place of the sum of squares
def without_bias(w):
    return w * (1 + w - 1 / w.shape[-1])


# %% 5 | right | normalised once more, the same to this order
def without_bias(w):
    return w * (1 + w) / (w * (1 + w)).sum(-1, keepdim=True)


# %% 5 | right | the jackknife
def without_bias(w):
    K = w.shape[-1]
    out = 1 / (1 - w)
    return K * w - (K - 1) / K * w * (out.sum(-1, keepdim=True) - out)


# %% 5 | right | the subtraction written out
def without_bias(w):
    mean_w = (w * w).sum(-1, keepdim=True)
    return w + w**2 - mean_w * w


# %% 6 | wrong | an untrained guess that has E[Q] about right
def critic(state, a):
    return torch.exp(-(a - 0.6 * state).square().sum(-1) / (2 * 0.25**2))


def fit_states():
    return lambda eps, state: (0.6 * state + 0.2 * eps).clamp(-1, 1)


# %% 6 | wrong | the top of the hill
def critic(state, a):
    return torch.exp(-(a - 0.6 * state).square().sum(-1) / (2 * 0.25**2))


def fit_states():
    return lambda eps, state: 0.6 * state


# %% 6 | wrong | uniform actions
def critic(state, a):
    return torch.exp(-(a - 0.6 * state).square().sum(-1) / (2 * 0.25**2))


def fit_states():
    return lambda eps, state: torch.erf(eps / 2**0.5)


# %% 6 | wrong | a normal about as wide as the hill
def critic(state, a):
    return torch.exp(-(a - 0.6 * state).square().sum(-1) / (2 * 0.25**2))


def fit_states():
    return lambda eps, state: (0.6 * state + 0.25 * eps).clamp(-1, 1)


# %% 6 | right | directions at equal angles, samples of the exact shape turned by hand
def critic(state, a):
    return torch.exp(-(a - 0.6 * state).square().sum(-1) / (2 * 0.25**2))


def fit_states():
    def policy(eps, state):
        there = BoxBoltzmann(lambda a: critic(state[0], a), 0.2)
        return there.sample(len(eps), rng(23))

    return policy


# %% 6 | right | twice the states, half the rows a state
def critic(state, a):
    return torch.exp(-(a - 0.6 * state).square().sum(-1) / (2 * 0.25**2))


def fit_states(updates=600, states=16, M=8, lines=32):
    generator, betas = rng(1), (0.9, 0.99)
    net = fresh(SkipVelocityNet, cond_dim=2)
    slow = copy.deepcopy(net).requires_grad_(False)
    adam = torch.optim.Adam(net.parameters(), 8e-3, betas=betas, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, updates)

    def told(u, state):
        return in_box(lambda a, r, t: u(a, r, t, state))

    for _ in range(updates):
        with torch.no_grad():
            angle = 2 * math.pi * torch.rand(states + lines, 1, generator=generator)
            every = torch.cat([angle.cos(), angle.sin()], -1)
            s, other = every[:states], every[states:]
            eps = torch.randn(states * 16, 2, generator=generator)
            own = sample(told(slow, s.repeat_interleave(16, 0)), eps).view(states, 16, 2)
            first = package.instant_rows(
                lambda z: critic(s[:, None], z),  # noqa: B023
                0.2,
                own,
                M,
                8,
                generator,
            )
            eps = torch.randn(lines, 2, generator=generator)
            second = interval_rows(told(slow, other), eps, 8, 4, generator)
        s, other = s.repeat_interleave(M, 0), other.repeat(4, 1)
        loss = (net(first.a, first.r, first.t, s) - first.u).square().sum(-1).mean()
        wrong = (net(second.a, second.r, second.t, other) - second.u).square().sum(-1).mean()
        adam.zero_grad()
        (loss + 2 * wrong).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        adam.step()
        schedule.step()
        for old, new in zip(slow.parameters(), net.parameters(), strict=True):
            old.lerp_(new.detach(), 0.02)
    return lambda eps, state: sample(told(slow, state), eps)
