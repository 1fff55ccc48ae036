"""Wrong and right answers to the exercises of chapter 04."""


# %% 1 | wrong | mean in place of sum
def posterior_mean_estimate(q, a, t, path, alpha, K, generator, box=True):
    with torch.no_grad():
        a0 = (box_proposals if box else free_proposals)(a, t, path, K, generator)
        w = importance_weights(q(a0), alpha)
        m = (w[..., None] * a0).mean(-2)
        return Estimate(m, path.score_from_mean(m, a, t), effective_sample_size(w))


# %% 1 | wrong | without weights
def posterior_mean_estimate(q, a, t, path, alpha, K, generator, box=True):
    with torch.no_grad():
        a0 = (box_proposals if box else free_proposals)(a, t, path, K, generator)
        w = importance_weights(q(a0), alpha)
        m = a0.mean(-2)
        return Estimate(m, path.score_from_mean(m, a, t), effective_sample_size(w))


# %% 1 | wrong | forgets the temperature
def posterior_mean_estimate(q, a, t, path, alpha, K, generator, box=True):
    with torch.no_grad():
        a0 = (box_proposals if box else free_proposals)(a, t, path, K, generator)
        w = q(a0).softmax(-1)
        m = (w[..., None] * a0).sum(-2)
        return Estimate(m, path.score_from_mean(m, a, t), effective_sample_size(w))


# %% 1 | wrong | softmax over the points
def posterior_mean_estimate(q, a, t, path, alpha, K, generator, box=True):
    with torch.no_grad():
        a0 = (box_proposals if box else free_proposals)(a, t, path, K, generator)
        w = (q(a0) / alpha).softmax(0)
        m = (w[..., None] * a0).sum(-2)
        return Estimate(m, path.score_from_mean(m, a, t), effective_sample_size(w))


# %% 1 | wrong | always in the box
def posterior_mean_estimate(q, a, t, path, alpha, K, generator, box=True):
    with torch.no_grad():
        a0 = box_proposals(a, t, path, K, generator)
        w = importance_weights(q(a0), alpha)
        m = (w[..., None] * a0).sum(-2)
        return Estimate(m, path.score_from_mean(m, a, t), effective_sample_size(w))


# %% 1 | wrong | clips unbounded proposals
def posterior_mean_estimate(q, a, t, path, alpha, K, generator, box=True):
    with torch.no_grad():
        a0 = free_proposals(a, t, path, K, generator)
        a0 = a0.clamp(-1, 1) if box else a0
        w = importance_weights(q(a0), alpha)
        m = (w[..., None] * a0).sum(-2)
        return Estimate(m, path.score_from_mean(m, a, t), effective_sample_size(w))


# %% 1 | wrong | leaves the graph
def posterior_mean_estimate(q, a, t, path, alpha, K, generator, box=True):
    a0 = (box_proposals if box else free_proposals)(a, t, path, K, generator)
    w = importance_weights(q(a0), alpha)
    m = (w[..., None] * a0).sum(-2)
    return Estimate(m, path.score_from_mean(m, a, t), effective_sample_size(w))


# %% 1 | wrong | the point in place of the score
def posterior_mean_estimate(q, a, t, path, alpha, K, generator, box=True):
    with torch.no_grad():
        a0 = (box_proposals if box else free_proposals)(a, t, path, K, generator)
        w = importance_weights(q(a0), alpha)
        m = (w[..., None] * a0).sum(-2)
        return Estimate(m, m - a, effective_sample_size(w))


# %% 1 | wrong | counts the proposals
def posterior_mean_estimate(q, a, t, path, alpha, K, generator, box=True):
    with torch.no_grad():
        a0 = (box_proposals if box else free_proposals)(a, t, path, K, generator)
        w = importance_weights(q(a0), alpha)
        m = (w[..., None] * a0).sum(-2)
        return Estimate(m, path.score_from_mean(m, a, t), (w > 0).float().sum(-1))


# %% 1 | right | einsum, and detached at the end
def posterior_mean_estimate(q, a, t, path, alpha, K, generator, box=True):
    propose = box_proposals if box else free_proposals
    a0 = propose(a, t, path, K, generator)
    w = torch.softmax(q(a0).detach() / alpha, dim=-1)
    m = torch.einsum("...k,...kd->...d", w, a0)
    return m, path.score_from_mean(m, a, t), 1 / (w * w).sum(-1)


# %% 1 | right | exponentials by hand, less the largest
def posterior_mean_estimate(q, a, t, path, alpha, K, generator, box=True):
    with torch.no_grad():
        if box:
            a0 = box_proposals(a, t, path, K, generator)
        else:
            a0 = free_proposals(a, t, path, K, generator)
        logits = q(a0) / alpha
        e = (logits - logits.amax(-1, keepdim=True)).exp()
        total = e.sum(-1)
        m = (e.unsqueeze(-1) * a0).sum(-2) / total.unsqueeze(-1)
        ess = total**2 / e.pow(2).sum(-1)
        return Estimate(m, path.score_from_mean(m, a, t), ess)


# %% 2 | wrong | the other sign
def noise_target(q, a, t, path, alpha, K, generator):
    score = gradient_estimate(q, a, t, path, alpha, K, generator, box=False).score
    return path.sigma(t) * score


# %% 2 | wrong | the score itself
def noise_target(q, a, t, path, alpha, K, generator):
    return -gradient_estimate(q, a, t, path, alpha, K, generator, box=False).score


# %% 2 | wrong | divides by sigma
def noise_target(q, a, t, path, alpha, K, generator):
    score = gradient_estimate(q, a, t, path, alpha, K, generator, box=False).score
    return -score / path.sigma(t)


# %% 2 | wrong | sigma squared
def noise_target(q, a, t, path, alpha, K, generator):
    score = gradient_estimate(q, a, t, path, alpha, K, generator, box=False).score
    return -(path.sigma(t) ** 2) * score


# %% 2 | wrong | forgets mu
def noise_target(q, a, t, path, alpha, K, generator):
    m = gradient_estimate(q, a, t, path, alpha, K, generator, box=False).m
    return (a - m) / path.sigma(t)


# %% 2 | right | by the posterior mean of the gradient
def noise_target(q, a, t, path, alpha, K, generator):
    m = gradient_estimate(q, a, t, path, alpha, K, generator, box=False).m
    return (a - path.mu(t) * m) / path.sigma(t)


# %% 2 | right | the other estimator
def noise_target(q, a, t, path, alpha, K, generator):
    return -path.sigma(t) * posterior_mean_estimate(q, a, t, path, alpha, K, generator).score


# %% 3 | wrong | as it was
def ported_score(q, a, t, path, alpha, K, generator):
    xi = torch.randn(*a.shape[:-1], K, a.shape[-1], generator=generator)
    a0 = (a[..., None, :] + path.sigma(t) * xi).requires_grad_()
    value = q(a0) / alpha
    (grad,) = torch.autograd.grad(value.sum(), a0)
    w = value.detach().softmax(-1)
    return (w[..., None] * grad).mean(-2)


# %% 3 | wrong | the mean only
def ported_score(q, a, t, path, alpha, K, generator):
    xi = torch.randn(*a.shape[:-1], K, a.shape[-1], generator=generator)
    a0 = (a[..., None, :] + path.sigma(t) * xi).requires_grad_()
    value = q(a0) / alpha
    (grad,) = torch.autograd.grad(value.sum(), a0)
    w = value.detach().softmax(-1)
    return (w[..., None] * grad).sum(-2)


# %% 3 | wrong | mu in the proposals only
def ported_score(q, a, t, path, alpha, K, generator):
    xi = torch.randn(*a.shape[:-1], K, a.shape[-1], generator=generator)
    a0 = ((a[..., None, :] + path.sigma(t) * xi) / path.mu(t)).requires_grad_()
    value = q(a0) / alpha
    (grad,) = torch.autograd.grad(value.sum(), a0)
    w = value.detach().softmax(-1)
    return (w[..., None] * grad).sum(-2)


# %% 3 | wrong | mu in the score only
def ported_score(q, a, t, path, alpha, K, generator):
    xi = torch.randn(*a.shape[:-1], K, a.shape[-1], generator=generator)
    a0 = (a[..., None, :] + path.sigma(t) * xi).requires_grad_()
    value = q(a0) / alpha
    (grad,) = torch.autograd.grad(value.sum(), a0)
    w = value.detach().softmax(-1)
    return (w[..., None] * grad).sum(-2) / path.mu(t)


# %% 3 | wrong | mu under the point only
def ported_score(q, a, t, path, alpha, K, generator):
    xi = torch.randn(*a.shape[:-1], K, a.shape[-1], generator=generator)
    a0 = (a[..., None, :] / path.mu(t) + path.sigma(t) * xi).requires_grad_()
    value = q(a0) / alpha
    (grad,) = torch.autograd.grad(value.sum(), a0)
    w = value.detach().softmax(-1)
    return (w[..., None] * grad).sum(-2) / path.mu(t)


# %% 3 | wrong | plain mean without weights
def ported_score(q, a, t, path, alpha, K, generator):
    xi = torch.randn(*a.shape[:-1], K, a.shape[-1], generator=generator)
    a0 = ((a[..., None, :] + path.sigma(t) * xi) / path.mu(t)).requires_grad_()
    value = q(a0) / alpha
    (grad,) = torch.autograd.grad(value.sum(), a0)
    return grad.mean(-2) / path.mu(t)


# %% 3 | wrong | the temperature twice
def ported_score(q, a, t, path, alpha, K, generator):
    xi = torch.randn(*a.shape[:-1], K, a.shape[-1], generator=generator)
    a0 = ((a[..., None, :] + path.sigma(t) * xi) / path.mu(t)).requires_grad_()
    value = q(a0) / alpha
    (grad,) = torch.autograd.grad(value.sum(), a0)
    w = value.detach().softmax(-1)
    return (w[..., None] * grad).sum(-2) / path.mu(t) / alpha


# %% 3 | right | through logsumexp
def ported_score(q, a, t, path, alpha, K, generator):
    a = a.clone().requires_grad_()
    xi = torch.randn(*a.shape[:-1], K, a.shape[-1], generator=generator)
    a0 = (a[..., None, :] + path.sigma(t) * xi) / path.mu(t)
    (score,) = torch.autograd.grad((q(a0) / alpha).logsumexp(-1).sum(), a)
    return score


# %% 3 | right | the functions of the chapter
def ported_score(q, a, t, path, alpha, K, generator):
    a0 = free_proposals(a, t, path, K, generator).requires_grad_()
    value = q(a0)
    (grad,) = torch.autograd.grad(value.sum(), a0)
    w = importance_weights(value.detach(), alpha)
    return torch.einsum("...k,...kd->...d", w, grad) / (path.mu(t) * alpha)


# %% 4 | wrong | as it was
def weighted_noise(q, a, t, path, alpha, K, generator):
    xi = torch.randn(*a.shape[:-1], K, a.shape[-1], generator=generator)
    a0 = ((a[..., None, :] - path.sigma(t) * xi) / path.mu(t)).clamp(-1, 1)
    w = importance_weights(q(a0), alpha)
    return (w[..., None] * xi).sum(-2)


# %% 4 | wrong | clipped, with the noise that belongs to the clipped points
def weighted_noise(q, a, t, path, alpha, K, generator):
    xi = torch.randn(*a.shape[:-1], K, a.shape[-1], generator=generator)
    a0 = ((a[..., None, :] - path.sigma(t) * xi) / path.mu(t)).clamp(-1, 1)
    w = importance_weights(q(a0), alpha)
    eps = (a[..., None, :] - path.mu(t) * a0) / path.sigma(t)
    return (w[..., None] * eps).sum(-2)


# %% 4 | wrong | the other sign
def weighted_noise(q, a, t, path, alpha, K, generator):
    a0 = box_proposals(a, t, path, K, generator)
    w = importance_weights(q(a0), alpha)
    eps = (path.mu(t) * a0 - a[..., None, :]) / path.sigma(t)
    return (w[..., None] * eps).sum(-2)


# %% 4 | wrong | the box ignored
def weighted_noise(q, a, t, path, alpha, K, generator):
    a0 = free_proposals(a, t, path, K, generator)
    w = importance_weights(q(a0), alpha)
    eps = (a[..., None, :] - path.mu(t) * a0) / path.sigma(t)
    return (w[..., None] * eps).sum(-2)


# %% 4 | wrong | new noise for the cut proposals
def weighted_noise(q, a, t, path, alpha, K, generator):
    a0 = box_proposals(a, t, path, K, generator)
    xi = torch.randn(a0.shape, generator=generator)
    w = importance_weights(q(a0), alpha)
    return (w[..., None] * xi).sum(-2)


# %% 4 | wrong | forgets mu
def weighted_noise(q, a, t, path, alpha, K, generator):
    a0 = box_proposals(a, t, path, K, generator)
    w = importance_weights(q(a0), alpha)
    eps = (a[..., None, :] - a0) / path.sigma(t)
    return (w[..., None] * eps).sum(-2)


# %% 4 | right | from the posterior mean
def weighted_noise(q, a, t, path, alpha, K, generator):
    m = posterior_mean_estimate(q, a, t, path, alpha, K, generator).m
    return (a - path.mu(t) * m) / path.sigma(t)


# %% 4 | right | unbounded, and weight zero outside
def weighted_noise(q, a, t, path, alpha, K, generator):
    xi = torch.randn(*a.shape[:-1], K, a.shape[-1], generator=generator)
    a0 = (a[..., None, :] - path.sigma(t) * xi) / path.mu(t)
    outside = (a0.abs() > 1).any(-1)
    w = importance_weights(q(a0).masked_fill(outside, -math.inf), alpha)
    return (w[..., None] * xi).sum(-2)


# %% 5 | wrong | only the first
def best_mixture(h1, h2, t, path, c):
    return h1


# %% 5 | wrong | the factor the wrong way round
def best_mixture(h1, h2, t, path, c):
    mu, sigma = path.mu(t), path.sigma(t)
    mix = mu**2 * c**2 / (mu**2 * c**2 + sigma**2)
    return mix * h1 + (1 - mix) * h2


# %% 5 | wrong | forgets mu
def best_mixture(h1, h2, t, path, c):
    mix = c**2 / (c**2 + path.sigma(t) ** 2)
    return (1 - mix) * h1 + mix * h2


# %% 5 | wrong | the linear path
def best_mixture(h1, h2, t, path, c):
    mix = (1 - t) ** 2 * c**2 / ((1 - t) ** 2 * c**2 + t**2)
    return (1 - mix) * h1 + mix * h2


# %% 5 | wrong | one mean width for all coordinates
def best_mixture(h1, h2, t, path, c):
    mu, sigma, c = path.mu(t), path.sigma(t), c.mean()
    mix = mu**2 * c**2 / (mu**2 * c**2 + sigma**2)
    return (1 - mix) * h1 + mix * h2


# %% 5 | wrong | the mean of both
def best_mixture(h1, h2, t, path, c):
    return (h1 + h2) / 2


# %% 5 | right | weights by precision
def best_mixture(h1, h2, t, path, c):
    noise, data = path.mu(t) ** 2 / path.sigma(t) ** 2, 1 / c**2
    return (data * h1 + noise * h2) / (data + noise)


# %% 5 | right | the control variate
def best_mixture(h1, h2, t, path, c):
    ratio = (path.sigma(t) / (path.mu(t) * c)) ** 2
    return h1 + (h2 - h1) / (1 + ratio)


# %% 6 | wrong | no baseline
def score_with_baseline(q, a, t, path, alpha, K, generator):
    return posterior_mean_estimate(q, a, t, path, alpha, K, generator).score


# %% 6 | wrong | the mean is not added back
def score_with_baseline(q, a, t, path, alpha, K, generator):
    a0 = box_proposals(a, t, path, K, generator)
    w = importance_weights(q(a0), alpha)
    xi = (path.mu(t) * a0 - a[..., None, :]) / path.sigma(t)
    return ((w - 1 / K)[..., None] * xi).sum(-2) / path.sigma(t)


# %% 6 | wrong | unbounded proposals
def score_with_baseline(q, a, t, path, alpha, K, generator):
    a0 = free_proposals(a, t, path, K, generator)
    w = importance_weights(q(a0), alpha)
    xi = (path.mu(t) * a0 - a[..., None, :]) / path.sigma(t)
    return ((w - 1 / K)[..., None] * xi).sum(-2) / path.sigma(t)


# %% 6 | wrong | the mean with the wrong sign
def score_with_baseline(q, a, t, path, alpha, K, generator):
    mu, sigma = path.mu(t), path.sigma(t)
    a0 = box_proposals(a, t, path, K, generator)
    w = importance_weights(q(a0), alpha)
    xi = (mu * a0 - a[..., None, :]) / sigma
    low, high = (-mu - a) / sigma, (mu - a) / sigma
    normal = torch.distributions.Normal(0.0, 1.0)
    mean = (normal.log_prob(high).exp() - normal.log_prob(low).exp()) / (
        normal.cdf(high) - normal.cdf(low)
    )
    return (((w - 1 / K)[..., None] * xi).sum(-2) + mean) / sigma


# %% 6 | wrong | forgets to divide by the mass
def score_with_baseline(q, a, t, path, alpha, K, generator):
    mu, sigma = path.mu(t), path.sigma(t)
    a0 = box_proposals(a, t, path, K, generator)
    w = importance_weights(q(a0), alpha)
    xi = (mu * a0 - a[..., None, :]) / sigma
    low, high = (-mu - a) / sigma, (mu - a) / sigma
    normal = torch.distributions.Normal(0.0, 1.0)
    mean = normal.log_prob(low).exp() - normal.log_prob(high).exp()
    return (((w - 1 / K)[..., None] * xi).sum(-2) + mean) / sigma


# %% 6 | wrong | sixteen times the proposals
def score_with_baseline(q, a, t, path, alpha, K, generator):
    return posterior_mean_estimate(q, a, t, path, alpha, 16 * K, generator).score


# %% 6 | wrong | the gradient
def score_with_baseline(q, a, t, path, alpha, K, generator):
    return gradient_estimate(q, a, t, path, alpha, K, generator).score


# %% 6 | wrong | calls q twice
def score_with_baseline(q, a, t, path, alpha, K, generator):
    mu, sigma, scores = path.mu(t), path.sigma(t), []
    low, high = (-mu - a) / sigma, (mu - a) / sigma
    normal = torch.distributions.Normal(0.0, 1.0)
    mean = (normal.log_prob(low).exp() - normal.log_prob(high).exp()) / (
        normal.cdf(high) - normal.cdf(low)
    )
    for _ in range(2):
        a0 = box_proposals(a, t, path, K, generator)
        w = importance_weights(q(a0), alpha)
        xi = (mu * a0 - a[..., None, :]) / sigma
        scores.append((((w - 1 / K)[..., None] * xi).sum(-2) + mean) / sigma)
    return sum(scores) / 2


# %% 6 | right | scipy's mean of the cut normal
def score_with_baseline(q, a, t, path, alpha, K, generator):
    mu, sigma = path.mu(t), path.sigma(t)
    a0 = box_proposals(a, t, path, K, generator)
    w = importance_weights(q(a0), alpha)
    xi = (mu * a0 - a[..., None, :]) / sigma
    mean = stats.truncnorm(((-mu - a) / sigma).numpy(), ((mu - a) / sigma).numpy()).mean()
    return (((w - 1 / K)[..., None] * xi).sum(-2) + torch.from_numpy(mean).to(a)) / sigma


# %% 6 | right | a baseline for the posterior mean, with erf
def score_with_baseline(q, a, t, path, alpha, K, generator):
    mu, sigma = path.mu(t), path.sigma(t)
    low, high = (-mu - a) / sigma, (mu - a) / sigma
    phi = lambda z: torch.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    mass = (torch.erf(high / math.sqrt(2)) - torch.erf(low / math.sqrt(2))) / 2
    expected = (a + sigma * (phi(low) - phi(high)) / mass) / mu
    a0 = box_proposals(a, t, path, K, generator)
    w = importance_weights(q(a0), alpha)
    m = expected + (w[..., None] * a0).sum(-2) - a0.mean(-2)
    return path.score_from_mean(m, a, t)


# %% 1 | wrong | the best of K
def posterior_mean_estimate(q, a, t, path, alpha, K, generator, box=True):
    with torch.no_grad():
        a0 = (box_proposals if box else free_proposals)(a, t, path, K, generator)
        value = q(a0)
        m = a0.gather(-2, value.argmax(-1)[..., None, None].expand(*a.shape[:-1], 1, a.shape[-1]))
        w = importance_weights(value, alpha)
        m = m.squeeze(-2)
        return Estimate(m, path.score_from_mean(m, a, t), effective_sample_size(w))


# %% 1 | wrong | multiplies by the temperature
def posterior_mean_estimate(q, a, t, path, alpha, K, generator, box=True):
    with torch.no_grad():
        a0 = (box_proposals if box else free_proposals)(a, t, path, K, generator)
        w = importance_weights(q(a0), 1 / alpha)
        m = (w[..., None] * a0).sum(-2)
        return Estimate(m, path.score_from_mean(m, a, t), effective_sample_size(w))


# %% 1 | wrong | the likelihood a second time
def posterior_mean_estimate(q, a, t, path, alpha, K, generator, box=True):
    with torch.no_grad():
        a0 = (box_proposals if box else free_proposals)(a, t, path, K, generator)
        square = (a[..., None, :] - path.mu(t) * a0[..., :, :]).square().sum(-1)
        w = (q(a0) / alpha - square / (2 * path.sigma(t) ** 2)).softmax(-1)
        m = (w[..., None] * a0).sum(-2)
        return Estimate(m, path.score_from_mean(m, a, t), effective_sample_size(w))


# %% 1 | wrong | the score without mu
def posterior_mean_estimate(q, a, t, path, alpha, K, generator, box=True):
    with torch.no_grad():
        a0 = (box_proposals if box else free_proposals)(a, t, path, K, generator)
        w = importance_weights(q(a0), alpha)
        m = (w[..., None] * a0).sum(-2)
        return Estimate(m, (m - a) / path.sigma(t) ** 2, effective_sample_size(w))


# %% 1 | wrong | box and unbounded exchanged
def posterior_mean_estimate(q, a, t, path, alpha, K, generator, box=True):
    with torch.no_grad():
        a0 = (free_proposals if box else box_proposals)(a, t, path, K, generator)
        w = importance_weights(q(a0), alpha)
        m = (w[..., None] * a0).sum(-2)
        return Estimate(m, path.score_from_mean(m, a, t), effective_sample_size(w))


# %% 1 | wrong | one over the largest weight
def posterior_mean_estimate(q, a, t, path, alpha, K, generator, box=True):
    with torch.no_grad():
        a0 = (box_proposals if box else free_proposals)(a, t, path, K, generator)
        w = importance_weights(q(a0), alpha)
        m = (w[..., None] * a0).sum(-2)
        return Estimate(m, path.score_from_mean(m, a, t), 1 / w.amax(-1))


# %% 1 | right | a product of matrices
def posterior_mean_estimate(q, a, t, path, alpha, K, generator, box=True):
    propose = {True: box_proposals, False: free_proposals}[box]
    with torch.no_grad():
        a0 = propose(a, t, path, K, generator)
        w = (q(a0) / alpha).log_softmax(-1).exp()
        m = (w.unsqueeze(-2) @ a0).squeeze(-2)
    ess = w.sum(-1).square() / w.square().sum(-1)
    return Estimate(m=m, score=path.score_from_mean(m, a, t), ess=ess)


# %% 2 | wrong | the temperature once more
def noise_target(q, a, t, path, alpha, K, generator):
    score = gradient_estimate(q, a, t, path, alpha, K, generator, box=False).score
    return -path.sigma(t) * score / alpha


# %% 2 | wrong | the posterior mean's distance
def noise_target(q, a, t, path, alpha, K, generator):
    return gradient_estimate(q, a, t, path, alpha, K, generator, box=False).m - a


# %% 2 | wrong | the gradient at the noisy point
def noise_target(q, a, t, path, alpha, K, generator):
    a = a.clone().requires_grad_()
    (grad,) = torch.autograd.grad(q(a).sum(), a)
    return -path.sigma(t) * grad / alpha


# %% 2 | right | the temperature in Q
def noise_target(q, a, t, path, alpha, K, generator):
    cooled = lambda a0: q(a0) / alpha  # noqa: E731
    score = gradient_estimate(cooled, a, t, path, 1.0, K, generator, box=False).score
    return score * -path.sigma(t)


# %% 3 | wrong | forgets the temperature of the gradient
def ported_score(q, a, t, path, alpha, K, generator):
    xi = torch.randn(*a.shape[:-1], K, a.shape[-1], generator=generator)
    a0 = ((a[..., None, :] + path.sigma(t) * xi) / path.mu(t)).requires_grad_()
    value = q(a0)
    (grad,) = torch.autograd.grad(value.sum(), a0)
    w = (value.detach() / alpha).softmax(-1)
    return (w[..., None] * grad).sum(-2) / path.mu(t)


# %% 3 | wrong | multiplies by mu at the end
def ported_score(q, a, t, path, alpha, K, generator):
    xi = torch.randn(*a.shape[:-1], K, a.shape[-1], generator=generator)
    a0 = ((a[..., None, :] + path.sigma(t) * xi) / path.mu(t)).requires_grad_()
    value = q(a0) / alpha
    (grad,) = torch.autograd.grad(value.sum(), a0)
    w = value.detach().softmax(-1)
    return (w[..., None] * grad).sum(-2) * path.mu(t)


# %% 3 | wrong | all but the mean
def ported_score(q, a, t, path, alpha, K, generator):
    xi = torch.randn(*a.shape[:-1], K, a.shape[-1], generator=generator)
    a0 = ((a[..., None, :] + path.sigma(t) * xi) / path.mu(t)).requires_grad_()
    value = q(a0) / alpha
    (grad,) = torch.autograd.grad(value.sum(), a0)
    w = value.detach().softmax(-1)
    return (w[..., None] * grad).mean(-2) / path.mu(t)


# %% 3 | right | in units of the point: mu in the argument of q
def ported_score(q, a, t, path, alpha, K, generator):
    xi = torch.randn(*a.shape[:-1], K, a.shape[-1], generator=generator)
    scaled = (a[..., None, :] + path.sigma(t) * xi).requires_grad_()
    value = q(scaled / path.mu(t)) / alpha
    (grad,) = torch.autograd.grad(value.sum(), scaled)
    return (value.detach().softmax(-1).unsqueeze(-1) * grad).sum(-2)


# %% 4 | wrong | clipped proposals counted out, their noise cut instead
def weighted_noise(q, a, t, path, alpha, K, generator):
    xi = torch.randn(*a.shape[:-1], K, a.shape[-1], generator=generator).clamp(-1, 1)
    a0 = (a[..., None, :] - path.sigma(t) * xi) / path.mu(t)
    w = importance_weights(q(a0), alpha)
    return (w[..., None] * xi).sum(-2)


# %% 4 | wrong | the mean in place of the sum
def weighted_noise(q, a, t, path, alpha, K, generator):
    a0 = box_proposals(a, t, path, K, generator)
    w = importance_weights(q(a0), alpha)
    eps = (a[..., None, :] - path.mu(t) * a0) / path.sigma(t)
    return (w[..., None] * eps).mean(-2)


# %% 4 | wrong | folded into the box
def weighted_noise(q, a, t, path, alpha, K, generator):
    xi = torch.randn(*a.shape[:-1], K, a.shape[-1], generator=generator)
    a0 = (a[..., None, :] - path.sigma(t) * xi) / path.mu(t)
    a0 = 1 - ((a0 + 1) % 4 - 2).abs()
    w = importance_weights(q(a0), alpha)
    eps = (a[..., None, :] - path.mu(t) * a0) / path.sigma(t)
    return (w[..., None] * eps).sum(-2)


# %% 4 | wrong | uniform proposals with the same weights
def weighted_noise(q, a, t, path, alpha, K, generator):
    a0 = 2 * torch.rand(*a.shape[:-1], K, a.shape[-1], generator=generator) - 1
    w = importance_weights(q(a0), alpha)
    eps = (a[..., None, :] - path.mu(t) * a0) / path.sigma(t)
    return (w[..., None] * eps).sum(-2)


# %% 4 | right | uniform proposals, with the likelihood in the weights
def weighted_noise(q, a, t, path, alpha, K, generator):
    a0 = 2 * torch.rand(*a.shape[:-1], K, a.shape[-1], generator=generator) - 1
    eps = (a[..., None, :] - path.mu(t) * a0) / path.sigma(t)
    w = (q(a0) / alpha - eps.square().sum(-1) / 2).softmax(-1)
    return (w[..., None] * eps).sum(-2)


# %% 5 | wrong | widths without their squares
def best_mixture(h1, h2, t, path, c):
    mu, sigma = path.mu(t), path.sigma(t)
    mix = mu * c / (mu * c + sigma)
    return (1 - mix) * h1 + mix * h2


# %% 5 | wrong | the sum of both
def best_mixture(h1, h2, t, path, c):
    return h1 + h2


# %% 5 | wrong | forgets the square of mu
def best_mixture(h1, h2, t, path, c):
    mu, sigma = path.mu(t), path.sigma(t)
    mix = mu * c**2 / (mu * c**2 + sigma**2)
    return (1 - mix) * h1 + mix * h2


# %% 5 | right | a loop over the coordinates
def best_mixture(h1, h2, t, path, c):
    columns = []
    for i, width in enumerate(c.tolist()):
        signal, noise = (path.mu(t) * width) ** 2, path.sigma(t) ** 2
        columns.append((noise * h1[:, i] + signal * h2[:, i]) / (signal + noise))
    return torch.stack(columns, -1)


# %% 6 | wrong | subtracts the mean of the normal itself
def score_with_baseline(q, a, t, path, alpha, K, generator):
    mu, sigma = path.mu(t), path.sigma(t)
    a0 = box_proposals(a, t, path, K, generator)
    w = importance_weights(q(a0), alpha)
    xi = (mu * a0 - a[..., None, :]) / sigma
    low, high = (-mu - a) / sigma, (mu - a) / sigma
    normal = torch.distributions.Normal(0.0, 1.0)
    mass = normal.cdf(high) - normal.cdf(low)
    mean = (normal.log_prob(low).exp() - normal.log_prob(high).exp()) / mass
    return ((w[..., None] * (xi - mean[..., None, :])).sum(-2) + mean) / sigma


# %% 6 | wrong | the box of the actions in place of the noise
def score_with_baseline(q, a, t, path, alpha, K, generator):
    mu, sigma = path.mu(t), path.sigma(t)
    a0 = box_proposals(a, t, path, K, generator)
    w = importance_weights(q(a0), alpha)
    xi = (mu * a0 - a[..., None, :]) / sigma
    low, high = (-1 - a) / sigma, (1 - a) / sigma
    normal = torch.distributions.Normal(0.0, 1.0)
    mass = normal.cdf(high) - normal.cdf(low)
    mean = (normal.log_prob(low).exp() - normal.log_prob(high).exp()) / mass
    return (((w - 1 / K)[..., None] * xi).sum(-2) + mean) / sigma


# %% 6 | wrong | twice the proposals
def score_with_baseline(q, a, t, path, alpha, K, generator):
    mu, sigma, K = path.mu(t), path.sigma(t), 2 * K
    a0 = box_proposals(a, t, path, K, generator)
    w = importance_weights(q(a0), alpha)
    xi = (mu * a0 - a[..., None, :]) / sigma
    low, high = (-mu - a) / sigma, (mu - a) / sigma
    normal = torch.distributions.Normal(0.0, 1.0)
    mass = normal.cdf(high) - normal.cdf(low)
    mean = (normal.log_prob(low).exp() - normal.log_prob(high).exp()) / mass
    return (((w - 1 / K)[..., None] * xi).sum(-2) + mean) / sigma


# %% 6 | wrong | forgets to divide by sigma
def score_with_baseline(q, a, t, path, alpha, K, generator):
    mu, sigma = path.mu(t), path.sigma(t)
    a0 = box_proposals(a, t, path, K, generator)
    w = importance_weights(q(a0), alpha)
    xi = (mu * a0 - a[..., None, :]) / sigma
    low, high = (-mu - a) / sigma, (mu - a) / sigma
    normal = torch.distributions.Normal(0.0, 1.0)
    mass = normal.cdf(high) - normal.cdf(low)
    mean = (normal.log_prob(low).exp() - normal.log_prob(high).exp()) / mass
    return ((w - 1 / K)[..., None] * xi).sum(-2) + mean


# %% 6 | right | the mean by quadrature, the mean weight as the baseline
def score_with_baseline(q, a, t, path, alpha, K, generator):
    mu, sigma = path.mu(t), path.sigma(t)
    a0 = box_proposals(a, t, path, K, generator)
    w = torch.softmax(q(a0) / alpha, -1)
    xi = (mu * a0 - a[..., None, :]) / sigma
    places = (mu * torch.linspace(-1, 1, 8001).double() - a[..., None]) / sigma
    expected = ((-0.5 * places**2).softmax(-1) * places).sum(-1).to(a)
    return (((w - w.mean(-1, keepdim=True))[..., None] * xi).sum(-2) + expected) / sigma
