"""Answers to the exercises of chapter 12; tests/book/test_exercises.py says how they are tried."""


# %% 1 | wrong | forgets the -1, so that N(0, I) costs something
def kl_to_standard(b, c):
    return 0.5 * (c.square() + b.square() - 2 * c.log()).sum(-1)


# %% 1 | wrong | the sum over states too
def kl_to_standard(b, c):
    return 0.5 * (c.square() + b.square() - 1 - 2 * c.log()).sum()


# %% 1 | wrong | the deviation where the variance belongs
def kl_to_standard(b, c):
    return 0.5 * (c + b.square() - 1 - c.log()).sum(-1)


# %% 1 | wrong | the divergence the other way round
def kl_to_standard(b, c):
    return 0.5 * ((1 + b.square()) / c.square() - 1 + 2 * c.log()).sum(-1)


# %% 1 | right | by the library
def kl_to_standard(b, c):
    one, other = torch.distributions.Normal(b, c), torch.distributions.Normal(0.0, 1.0)
    return torch.distributions.kl_divergence(one, other).sum(-1)


# %% 1 | right | with the logarithm of the variance
def kl_to_standard(b, c):
    variance = c**2
    return ((b**2 + variance - 1 - torch.log(variance)) / 2).sum(dim=-1)


# %% 2 | wrong | the sign of the value
def prior_loss(prior, value, obs, alpha, generator):
    b, c = prior(obs)
    eps = b + c * torch.randn(b.shape, generator=generator)
    return (kl_to_standard(b, c) + value(obs, eps) / alpha).mean()


# %% 2 | wrong | noise of the standard normal, which the prior does not reach
def prior_loss(prior, value, obs, alpha, generator):
    b, c = prior(obs)
    eps = torch.randn(b.shape, generator=generator)
    return (kl_to_standard(b, c) - value(obs, eps) / alpha).mean()


# %% 2 | wrong | the mean of the prior in place of a draw
def prior_loss(prior, value, obs, alpha, generator):
    b, c = prior(obs)
    return (kl_to_standard(b, c) - value(obs, b) / alpha).mean()


# %% 2 | wrong | the draw cut off from the gradient
def prior_loss(prior, value, obs, alpha, generator):
    b, c = prior(obs)
    eps = (b + c * torch.randn(b.shape, generator=generator)).detach()
    return (kl_to_standard(b, c) - value(obs, eps) / alpha).mean()


# %% 2 | wrong | alpha before the divergence, not under the value
def prior_loss(prior, value, obs, alpha, generator):
    b, c = prior(obs)
    eps = b + c * torch.randn(b.shape, generator=generator)
    return (alpha * kl_to_standard(b, c) - value(obs, eps)).mean()


# %% 2 | right | the objective, divided at the end
def prior_loss(prior, value, obs, alpha, generator):
    b, c = prior(obs)
    xi = torch.randn(b.shape, generator=generator)
    J = value(obs, torch.addcmul(b, c, xi)) - alpha * prior_guidance.kl_to_standard(b, c)
    return -J.mean() / alpha


# %% 2 | right | two means
def prior_loss(prior, value, obs, alpha, generator):
    b, c = prior(obs)
    noise = torch.randn(len(obs), b.shape[-1], generator=generator)
    price = 0.5 * (c**2 + b**2 - 1).sum(-1).mean() - c.log().sum(-1).mean()
    return price - value(obs, c * noise + b).mean() / alpha


# %% 3 | wrong | the sign: downhill
def guided_velocity(v, q, alpha):
    def guided(a, t):
        uphill = boltzmann_score(lambda a: q(a - t * v(a, t)), alpha, a)
        return v(a, t) + t / (1 - t).clamp(min=NEAREST) * uphill

    return guided


# %% 3 | wrong | the gradient of Q at the noisy action
def guided_velocity(v, q, alpha):
    def guided(a, t):
        return v(a, t) - t / (1 - t).clamp(min=NEAREST) * boltzmann_score(q, alpha, a)

    return guided


# %% 3 | wrong | the gradient of Q at the posterior mean, without the way through m
def guided_velocity(v, q, alpha):
    def guided(a, t):
        m = a - t * v(a, t)
        return v(a, t) - t / (1 - t).clamp(min=NEAREST) * boltzmann_score(q, alpha, m)

    return guided


# %% 3 | wrong | forgets the temperature
def guided_velocity(v, q, alpha):
    def guided(a, t):
        uphill = boltzmann_score(lambda a: q(a - t * v(a, t)), 1.0, a)
        return v(a, t) - t / (1 - t).clamp(min=NEAREST) * uphill

    return guided


# %% 3 | wrong | adds the slope to the velocity as if it were a score
def guided_velocity(v, q, alpha):
    def guided(a, t):
        return v(a, t) - boltzmann_score(lambda a: q(a - t * v(a, t)), alpha, a)

    return guided


# %% 3 | right | by autograd
def guided_velocity(v, q, alpha):
    def guided(a, t):
        with torch.enable_grad():
            x = a.detach().requires_grad_()
            (slope,) = torch.autograd.grad(q(x - t * v(x, t)).sum(), x)
        return v(a, t) - t * slope / (alpha * (1 - t).clamp(min=NEAREST))

    return guided


# %% 3 | right | by way of the score
def guided_velocity(v, q, alpha):
    def guided(a, t):
        left = torch.clamp(1 - t, min=NEAREST)
        score = -(a + (1 - t) * v(a, t)) / t
        added = boltzmann_score(lambda x: q(x - t * v(x, t)) / alpha, 1.0, a)
        return (
            torch.where(t < 1, -(a + t * score) / (1 - t).clamp(min=1e-6), v(a, t))
            - t * added / left
        )

    return guided


# %% 4 | wrong | the probability that a cell is drawn at all
def winner(p, value, N):
    return 1 - (1 - p) ** N


# %% 4 | wrong | the worst of N
def winner(p, value, N):
    order = value.argsort(descending=True)
    below = p[order].cumsum(0).clamp(max=1) ** N
    mass = torch.empty_like(p)
    mass[order] = below.diff(prepend=below.new_zeros(1))
    return mass


# %% 4 | wrong | the cells are not put back into their order
def winner(p, value, N):
    order = value.argsort()
    below = p[order].cumsum(0).clamp(max=1) ** N
    return below.diff(prepend=below.new_zeros(1))


# %% 4 | wrong | the density formula, not normalised for cells
def winner(p, value, N):
    order = value.argsort()
    below = p[order].cumsum(0).clamp(max=1)
    mass = torch.empty_like(p)
    mass[order] = N * below ** (N - 1) * p[order]
    return mass


# %% 4 | right | two cumulated powers
def winner(p, value, N):
    order = torch.argsort(value)
    upto = p[order].cumsum(0).clamp(max=1)
    before = torch.cat([upto.new_zeros(1), upto[:-1]])
    return (upto**N - before**N)[torch.argsort(order)]


# %% 4 | right | in numpy
def winner(p, value, N):
    import numpy as np

    order = np.argsort(value.numpy())
    upto = np.minimum(np.cumsum(p.numpy()[order]), 1) ** N
    mass = np.zeros(len(order))
    mass[order] = np.diff(upto, prepend=0.0)
    return torch.from_numpy(mass)


# %% 5 | wrong | forgets that the curvature meets the mean of the data
def best_normal_prior(middle, S, g, h, alpha):
    c2 = 1 / (1 + h * S**2 / alpha)
    return c2 * S * g / alpha, c2.sqrt()


# %% 5 | wrong | the variance for the deviation
def best_normal_prior(middle, S, g, h, alpha):
    c2 = 1 / (1 + h * S**2 / alpha)
    return c2 * S * (g - h * middle) / alpha, c2


# %% 5 | wrong | moves the mean and leaves the width
def best_normal_prior(middle, S, g, h, alpha):
    return S * (g - h * middle) / alpha, torch.ones_like(S)


# %% 5 | wrong | the mean and deviation of the actions, not of the noise
def best_normal_prior(middle, S, g, h, alpha):
    c2 = 1 / (1 + h * S**2 / alpha)
    return middle + S * c2 * S * (g - h * middle) / alpha, S * c2.sqrt()


# %% 5 | wrong | S where its square belongs
def best_normal_prior(middle, S, g, h, alpha):
    c2 = 1 / (1 + h * S / alpha)
    return c2 * S * (g - h * middle) / alpha, c2.sqrt()


# %% 5 | right | from the product of the two densities of actions
def best_normal_prior(middle, S, g, h, alpha):
    precision = 1 / S**2 + h / alpha
    mean = (middle / S**2 + g / alpha) / precision
    return (mean - middle) / S, (1 / precision).sqrt() / S


# %% 5 | right | multiplied through by alpha
def best_normal_prior(middle, S, g, h, alpha):
    whole = alpha + h * S * S
    return S * (g - h * middle) / whole, (alpha / whole).sqrt()
