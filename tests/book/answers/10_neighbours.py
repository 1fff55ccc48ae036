"""Answers to the exercises of chapter 10; tests/book/test_exercises.py says how they are tried."""


# %% 1 | wrong | downhill: the noise points along the score
def qsm_noise(q, a_t, t, alpha):
    return path.sigma(t) * boltzmann_score(q, alpha, a_t)


# %% 1 | wrong | the score instead of the noise
def qsm_noise(q, a_t, t, alpha):
    return -boltzmann_score(q, alpha, a_t)


# %% 1 | wrong | forgets the temperature
def qsm_noise(q, a_t, t, alpha):
    return -path.sigma(t) * boltzmann_score(q, 1.0, a_t)


# %% 1 | wrong | divides by sigma
def qsm_noise(q, a_t, t, alpha):
    return -boltzmann_score(q, alpha, a_t) / path.sigma(t)


# %% 1 | wrong | the gradient at the point that was shrunk, not at the noisy one
def qsm_noise(q, a_t, t, alpha):
    return -path.sigma(t) * boltzmann_score(q, alpha, path.mu(t) * a_t)


# %% 1 | right | by autograd
def qsm_noise(q, a_t, t, alpha):
    a = a_t.detach().clone().requires_grad_()
    (grad,) = torch.autograd.grad(q(a).sum() / alpha, a)
    return -path.sigma(t) * grad


# %% 1 | right | by torch.func
def qsm_noise(q, a_t, t, alpha):
    return -path.sigma(t) / alpha * torch.func.vmap(torch.func.grad(q))(a_t)


# %% 2 | wrong | weights over the whole batch
def mirror_weights(q, own, alpha):
    w = torch.softmax((q(own) / alpha).flatten(), 0)
    return (own.shape[0] * own.shape[1] * w).view(own.shape[:2])


def sdac_noise(q, a_t, t, alpha, K, generator):
    a0 = box_proposals(a_t, t, path, K, generator)
    w = torch.softmax(q(a0) / alpha, -1)
    return (a_t - path.mu(t) * (w[..., None] * a0).sum(-2)) / path.sigma(t)


# %% 2 | wrong | weights that sum to 1
def mirror_weights(q, own, alpha):
    return torch.softmax(q(own) / alpha, -1)


def sdac_noise(q, a_t, t, alpha, K, generator):
    a0 = box_proposals(a_t, t, path, K, generator)
    w = torch.softmax(q(a0) / alpha, -1)
    return (a_t - path.mu(t) * (w[..., None] * a0).sum(-2)) / path.sigma(t)


# %% 2 | wrong | exp before the mean, which overflows
def mirror_weights(q, own, alpha):
    w = torch.exp(q(own) / alpha)
    return w / w.mean(-1, keepdim=True)


def sdac_noise(q, a_t, t, alpha, K, generator):
    a0 = box_proposals(a_t, t, path, K, generator)
    w = torch.softmax(q(a0) / alpha, -1)
    return (a_t - path.mu(t) * (w[..., None] * a0).sum(-2)) / path.sigma(t)


# %% 2 | wrong | the mean over the proposals taken twice, as in a loss averaged over K
def mirror_weights(q, own, alpha):
    return own.shape[1] * torch.softmax(q(own) / alpha, -1)


def sdac_noise(q, a_t, t, alpha, K, generator):
    a0 = box_proposals(a_t, t, path, K, generator)
    w = torch.softmax(q(a0) / alpha, -1)
    eps = (a_t[:, None] - path.mu(t)[:, None] * a0) / path.sigma(t)[:, None]
    return (w[..., None] * eps).mean(-2)


# %% 2 | wrong | the noise of the proposals: sign
def mirror_weights(q, own, alpha):
    return own.shape[1] * torch.softmax(q(own) / alpha, -1)


def sdac_noise(q, a_t, t, alpha, K, generator):
    a0 = box_proposals(a_t, t, path, K, generator)
    w = torch.softmax(q(a0) / alpha, -1)
    return (path.mu(t) * (w[..., None] * a0).sum(-2) - a_t) / path.sigma(t)


# %% 2 | wrong | Q at the noisy action
def mirror_weights(q, own, alpha):
    return own.shape[1] * torch.softmax(q(own) / alpha, -1)


def sdac_noise(q, a_t, t, alpha, K, generator):
    a0 = box_proposals(a_t, t, path, K, generator)
    w = torch.softmax(q(a_t)[:, None].expand(-1, K) / alpha, -1)
    return (a_t - path.mu(t) * (w[..., None] * a0).sum(-2)) / path.sigma(t)


# %% 2 | right | by the package
def mirror_weights(q, own, alpha):
    w = importance_weights(q(own), alpha)
    return w / w.mean(-1, keepdim=True)


def sdac_noise(q, a_t, t, alpha, K, generator):
    estimate = posterior_mean_estimate(q, a_t, t, path, alpha, K, generator)
    return -path.sigma(t) * estimate.score


# %% 2 | right | noise of every proposal, with weights
def mirror_weights(q, own, alpha):
    value = q(own) / alpha
    w = torch.exp(value - value.amax(-1, keepdim=True))
    return w / w.mean(-1, keepdim=True)


def sdac_noise(q, a_t, t, alpha, K, generator):
    a0 = box_proposals(a_t, t, path, K, generator)
    value = q(a0) / alpha
    w = torch.exp(value - value.logsumexp(-1, keepdim=True))
    eps = (a_t[:, None] - path.mu(t)[:, None] * a0) / path.sigma(t)[:, None]
    return torch.einsum("nk,nkd->nd", w, eps)


# %% 3 | wrong | downhill
def climbed(q, a, eta, climbs):
    for _ in range(climbs):
        a = (a - eta * boltzmann_score(q, 1.0, a)).clamp(-1, 1)
    return a


# %% 3 | wrong | clips at the end only
def climbed(q, a, eta, climbs):
    for _ in range(climbs):
        a = a + eta * boltzmann_score(q, 1.0, a)
    return a.clamp(-1, 1)


# %% 3 | wrong | one large step
def climbed(q, a, eta, climbs):
    return (a + climbs * eta * boltzmann_score(q, 1.0, a)).clamp(-1, 1)


# %% 3 | wrong | the gradient of the mean over the batch
def climbed(q, a, eta, climbs):
    for _ in range(climbs):
        a = (a + eta * boltzmann_score(lambda a: q(a) / len(a), 1.0, a)).clamp(-1, 1)
    return a


# %% 3 | wrong | always the gradient at the start
def climbed(q, a, eta, climbs):
    grad = boltzmann_score(q, 1.0, a)
    for _ in range(climbs):
        a = (a + eta * grad).clamp(-1, 1)
    return a


# %% 3 | right | by recursion
def climbed(q, a, eta, climbs):
    if climbs == 0:
        return a
    a = torch.clamp(a + eta * boltzmann_score(q, 1.0, a), min=-1, max=1)
    return climbed(q, a, eta, climbs - 1)


# %% 3 | right | by autograd
def climbed(q, a, eta, climbs):
    for _ in range(climbs):
        a = a.detach().requires_grad_()
        (grad,) = torch.autograd.grad(q(a).sum(), a)
        a = (a.detach() + eta * grad).clamp(-1, 1)
    return a


# %% 4 | wrong | the two in the other order
def two_values(q, a, t, alpha):
    square = (a - path.mu(t) * exact.grid).square().sum(-1).double()
    log_w = torch.log_softmax(-square / (2 * path.sigma(t).double() ** 2), 0)
    value = q(exact.grid).double()
    return alpha * torch.logsumexp(log_w + value / alpha, 0), log_w.exp() @ value


# %% 4 | wrong | the sum over cells is not normalised
def two_values(q, a, t, alpha):
    square = (a - path.mu(t) * exact.grid).square().sum(-1).double()
    log_w = -square / (2 * path.sigma(t).double() ** 2)
    value = q(exact.grid).double()
    return log_w.exp() @ value, alpha * torch.logsumexp(log_w + value / alpha, 0)


# %% 4 | wrong | forgets mu
def two_values(q, a, t, alpha):
    square = (a - exact.grid).square().sum(-1).double()
    log_w = torch.log_softmax(-square / (2 * path.sigma(t).double() ** 2), 0)
    value = q(exact.grid).double()
    return log_w.exp() @ value, alpha * torch.logsumexp(log_w + value / alpha, 0)


# %% 4 | wrong | forgets the alpha in front
def two_values(q, a, t, alpha):
    square = (a - path.mu(t) * exact.grid).square().sum(-1).double()
    log_w = torch.log_softmax(-square / (2 * path.sigma(t).double() ** 2), 0)
    value = q(exact.grid).double()
    return log_w.exp() @ value, torch.logsumexp(log_w + value / alpha, 0)


# %% 4 | wrong | under the Boltzmann density in place of the uniform one
def two_values(q, a, t, alpha):
    square = (a - path.mu(t) * exact.grid).square().sum(-1).double()
    log_w = torch.log_softmax(exact.p.log() - square / (2 * path.sigma(t).double() ** 2), 0)
    value = q(exact.grid).double()
    return log_w.exp() @ value, alpha * torch.logsumexp(log_w + value / alpha, 0)


# %% 4 | wrong | the mean value with the wrong width of the noise
def two_values(q, a, t, alpha):
    square = (a - path.mu(t) * exact.grid).square().sum(-1).double()
    sigma, value = path.sigma(t).double(), q(exact.grid).double()
    mean = torch.softmax(-square / (2 * sigma), 0) @ value
    log_w = torch.log_softmax(-square / (2 * sigma**2), 0)
    return mean, alpha * torch.logsumexp(log_w + value / alpha, 0)


# %% 4 | wrong | Q at the posterior mean
def two_values(q, a, t, alpha):
    square = (a - path.mu(t) * exact.grid).square().sum(-1).double()
    log_w = torch.log_softmax(-square / (2 * path.sigma(t).double() ** 2), 0)
    value = q(exact.grid).double()
    mean = q(log_w.exp() @ exact.grid.double())
    return mean, alpha * torch.logsumexp(log_w + value / alpha, 0)


# %% 4 | right | plain sums in double precision
def two_values(q, a, t, alpha):
    square = (a - path.mu(t) * exact.grid).square().sum(-1).double()
    w = torch.exp(-(square - square.min()) / (2 * path.sigma(t).double() ** 2))
    w = w / w.sum()
    value = q(exact.grid).double()
    return float((w * value).sum()), float(alpha * torch.log((w * torch.exp(value / alpha)).sum()))


# %% 4 | right | the two coordinates apart
def two_values(q, a, t, alpha):
    z = (a[:, None].double() - path.mu(t).double() * exact.axis) / path.sigma(t).double()
    one, two = torch.softmax(-0.5 * z**2, -1)
    w = torch.outer(one, two).flatten()
    value = q(exact.grid).double()
    return w @ value, alpha * ((w + 1e-300).log() + value / alpha).logsumexp(0)


# %% 5 | wrong | plain mirror descent
def rounds(p0, value, alpha, tau, n):
    return torch.softmax(p0.log() + n * value / alpha, 0)


# %% 5 | wrong | flattens without the step of Q
def rounds(p0, value, alpha, tau, n):
    log_p = p0.log()
    for _ in range(n):
        log_p = torch.log_softmax(alpha / (alpha + tau) * log_p + value / alpha, 0)
    return log_p.exp()


# %% 5 | wrong | jumps to the fixed point
def rounds(p0, value, alpha, tau, n):
    return torch.softmax(value / (tau if tau > 0 else alpha / n), 0)


# %% 5 | wrong | the powers of alpha and tau exchanged
def rounds(p0, value, alpha, tau, n):
    log_p = p0.log()
    for _ in range(n):
        log_p = torch.log_softmax((tau * log_p + value) / (alpha + tau), 0)
    return log_p.exp()


# %% 5 | right | closed form
def rounds(p0, value, alpha, tau, n):
    if tau == 0:
        return torch.softmax(p0.log() + n * value / alpha, 0)
    shrink = (alpha / (alpha + tau)) ** n
    return torch.softmax(value / tau + shrink * (p0.log() - value / tau), 0)


# %% 5 | right | normalises once, at the end
def rounds(p0, value, alpha, tau, n):
    log_p = p0.log()
    for _ in range(n):
        log_p = log_p * (alpha / (alpha + tau)) + value / (alpha + tau)
    return (log_p - log_p.logsumexp(0)).exp()
