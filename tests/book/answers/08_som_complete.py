"""Answers to the exercises of chapter 08; tests/book/test_exercises.py says how they are tried."""


# %% 1 | wrong | uniform actions instead of the actor's own
def instant_loss(net, q, obs, d, alpha, K, generator):
    B = len(obs)
    a0 = 2 * torch.rand(B, d, generator=generator) - 1
    t = sample_times(B, generator, share_equal=1.0, t_min=0.02, t_max=0.999)[1]
    a_t = path.noise(a0, torch.randn(B, d, generator=generator), t)
    proposals = box_proposals(a_t, t, path, K, generator)
    w = torch.softmax(q(obs[:, None], proposals) / alpha, -1)
    m = (w[..., None] * proposals).sum(-2)
    return (net(a_t, t, t, obs) - (a_t - m) / t).square().sum(-1).mean()


# %% 1 | wrong | does not clip the own action
def instant_loss(net, q, obs, d, alpha, K, generator):
    B = len(obs)
    with torch.no_grad():
        eps, one = torch.randn(B, d, generator=generator), torch.ones(B, 1)
        a0 = eps - net(eps, 0 * one, one, obs)
    t = sample_times(B, generator, share_equal=1.0, t_min=0.02, t_max=0.999)[1]
    a_t = path.noise(a0, torch.randn(B, d, generator=generator), t)
    proposals = box_proposals(a_t, t, path, K, generator)
    w = torch.softmax(q(obs[:, None], proposals) / alpha, -1)
    m = (w[..., None] * proposals).sum(-2)
    return (net(a_t, t, t, obs) - (a_t - m) / t).square().sum(-1).mean()


# %% 1 | wrong | the own action is not noised
def instant_loss(net, q, obs, d, alpha, K, generator):
    B = len(obs)
    with torch.no_grad():
        eps, one = torch.randn(B, d, generator=generator), torch.ones(B, 1)
        a_t = (eps - net(eps, 0 * one, one, obs)).clamp(-1, 1)
    t = sample_times(B, generator, share_equal=1.0, t_min=0.02, t_max=0.999)[1]
    proposals = box_proposals(a_t, t, path, K, generator)
    w = torch.softmax(q(obs[:, None], proposals) / alpha, -1)
    m = (w[..., None] * proposals).sum(-2)
    return (net(a_t, t, t, obs) - (a_t - m) / t).square().sum(-1).mean()


# %% 1 | wrong | forgets the temperature
def instant_loss(net, q, obs, d, alpha, K, generator):
    B = len(obs)
    with torch.no_grad():
        eps, one = torch.randn(B, d, generator=generator), torch.ones(B, 1)
        a0 = (eps - net(eps, 0 * one, one, obs)).clamp(-1, 1)
    t = sample_times(B, generator, share_equal=1.0, t_min=0.02, t_max=0.999)[1]
    a_t = path.noise(a0, torch.randn(B, d, generator=generator), t)
    proposals = box_proposals(a_t, t, path, K, generator)
    w = torch.softmax(q(obs[:, None], proposals), -1)
    m = (w[..., None] * proposals).sum(-2)
    return (net(a_t, t, t, obs) - (a_t - m) / t).square().sum(-1).mean()


# %% 1 | wrong | the velocity with the wrong sign
def instant_loss(net, q, obs, d, alpha, K, generator):
    B = len(obs)
    with torch.no_grad():
        eps, one = torch.randn(B, d, generator=generator), torch.ones(B, 1)
        a0 = (eps - net(eps, 0 * one, one, obs)).clamp(-1, 1)
    t = sample_times(B, generator, share_equal=1.0, t_min=0.02, t_max=0.999)[1]
    a_t = path.noise(a0, torch.randn(B, d, generator=generator), t)
    proposals = box_proposals(a_t, t, path, K, generator)
    w = torch.softmax(q(obs[:, None], proposals) / alpha, -1)
    m = (w[..., None] * proposals).sum(-2)
    return (net(a_t, t, t, obs) - (m - a_t) / t).square().sum(-1).mean()


# %% 1 | wrong | the mean over components, not the sum
def instant_loss(net, q, obs, d, alpha, K, generator):
    B = len(obs)
    with torch.no_grad():
        eps, one = torch.randn(B, d, generator=generator), torch.ones(B, 1)
        a0 = (eps - net(eps, 0 * one, one, obs)).clamp(-1, 1)
    t = sample_times(B, generator, share_equal=1.0, t_min=0.02, t_max=0.999)[1]
    a_t = path.noise(a0, torch.randn(B, d, generator=generator), t)
    proposals = box_proposals(a_t, t, path, K, generator)
    w = torch.softmax(q(obs[:, None], proposals) / alpha, -1)
    m = (w[..., None] * proposals).sum(-2)
    return (net(a_t, t, t, obs) - (a_t - m) / t).square().mean()


# %% 1 | wrong | trains the interval from 0 to t
def instant_loss(net, q, obs, d, alpha, K, generator):
    B = len(obs)
    with torch.no_grad():
        eps, one = torch.randn(B, d, generator=generator), torch.ones(B, 1)
        a0 = (eps - net(eps, 0 * one, one, obs)).clamp(-1, 1)
    t = sample_times(B, generator, share_equal=1.0, t_min=0.02, t_max=0.999)[1]
    a_t = path.noise(a0, torch.randn(B, d, generator=generator), t)
    proposals = box_proposals(a_t, t, path, K, generator)
    w = torch.softmax(q(obs[:, None], proposals) / alpha, -1)
    m = (w[..., None] * proposals).sum(-2)
    return (net(a_t, 0 * t, t, obs) - (a_t - m) / t).square().sum(-1).mean()


# %% 1 | wrong | the gradient flows through the own action
def instant_loss(net, q, obs, d, alpha, K, generator):
    B = len(obs)
    eps, one = torch.randn(B, d, generator=generator), torch.ones(B, 1)
    a0 = (eps - net(eps, 0 * one, one, obs)).clamp(-1, 1)
    t = sample_times(B, generator, share_equal=1.0, t_min=0.02, t_max=0.999)[1]
    a_t = path.noise(a0, torch.randn(B, d, generator=generator), t)
    with torch.no_grad():
        proposals = box_proposals(a_t, t, path, K, generator)
        w = torch.softmax(q(obs[:, None], proposals) / alpha, -1)
        m = (w[..., None] * proposals).sum(-2)
    return (net(a_t, t, t, obs) - (a_t - m) / t).square().sum(-1).mean()


# %% 1 | wrong | free proposals
def instant_loss(net, q, obs, d, alpha, K, generator):
    B = len(obs)
    with torch.no_grad():
        eps, one = torch.randn(B, d, generator=generator), torch.ones(B, 1)
        a0 = (eps - net(eps, 0 * one, one, obs)).clamp(-1, 1)
    t = sample_times(B, generator, share_equal=1.0, t_min=0.02, t_max=0.999)[1]
    a_t = path.noise(a0, torch.randn(B, d, generator=generator), t)
    proposals = free_proposals(a_t, t, path, K, generator)
    w = torch.softmax(q(obs[:, None], proposals) / alpha, -1)
    m = (w[..., None] * proposals).sum(-2)
    return (net(a_t, t, t, obs) - (a_t - m) / t).square().sum(-1).mean()


# %% 1 | wrong | noises with the noise of the jump
def instant_loss(net, q, obs, d, alpha, K, generator):
    B = len(obs)
    with torch.no_grad():
        eps, one = torch.randn(B, d, generator=generator), torch.ones(B, 1)
        a0 = (eps - net(eps, 0 * one, one, obs)).clamp(-1, 1)
        t = sample_times(B, generator, share_equal=1.0, t_min=0.02, t_max=0.999)[1]
        a_t = path.noise(a0, eps, t)
        proposals = box_proposals(a_t, t, path, K, generator)
        w = torch.softmax(q(obs[:, None], proposals) / alpha, -1)
        v = (a_t - (w[..., None] * proposals).sum(-2)) / t
    return (net(a_t, t, t, obs) - v).square().sum(-1).mean()


# %% 1 | wrong | the best proposal in place of their mean
def instant_loss(net, q, obs, d, alpha, K, generator):
    B = len(obs)
    with torch.no_grad():
        eps, one = torch.randn(B, d, generator=generator), torch.ones(B, 1)
        a0 = (eps - net(eps, 0 * one, one, obs)).clamp(-1, 1)
        t = sample_times(B, generator, share_equal=1.0, t_min=0.02, t_max=0.999)[1]
        a_t = path.noise(a0, torch.randn(B, d, generator=generator), t)
        proposals = box_proposals(a_t, t, path, K, generator)
        best = q(obs[:, None], proposals).argmax(1)
        v = (a_t - proposals[torch.arange(B), best]) / t
    return (net(a_t, t, t, obs) - v).square().sum(-1).mean()


# %% 1 | right | with the package's estimator and loss
def instant_loss(net, q, obs, d, alpha, K, generator):
    eps, one = torch.randn(len(obs), d, generator=generator), torch.ones(len(obs), 1)
    a0 = (eps - net(eps, torch.zeros_like(one), one, obs)).detach().clamp(-1, 1)
    t = sample_times(len(obs), generator, share_equal=1.0, t_min=0.02, t_max=0.999)[1]
    a_t = path.noise(a0, torch.randn(len(obs), d, generator=generator), t)
    found = posterior_mean_estimate(lambda a: q(obs[:, None], a), a_t, t, path, alpha, K, generator)
    v = path.velocity_from_mean(found.m, a_t, t)
    return ((net(a_t, t, t, obs) - v) ** 2).sum(1).mean()


# %% 1 | right | weights by exponentials, mean as an einsum
def instant_loss(net, q, obs, d, alpha, K, generator):
    n = obs.shape[0]
    eps = torch.randn((n, d), generator=generator)
    start, end = eps.new_ones(n, 1), eps.new_zeros(n, 1)
    own = torch.clip(eps - net(eps, end, start, obs), -1, 1).detach()
    _, t = sample_times(n, generator, share_equal=1.0, t_min=0.02, t_max=0.999)
    noised = (1 - t) * own + t * torch.randn((n, d), generator=generator)
    z = box_proposals(noised, t, path, K, generator)
    values = q(obs.unsqueeze(1), z) / alpha
    w = (values - values.amax(1, keepdim=True)).exp()
    m = torch.einsum("bk,bkd->bd", w, z) / w.sum(1, keepdim=True)
    error = net(noised, t, t, obs) - (noised - m) / t
    return torch.einsum("bd,bd->", error, error) / n


# %% 2 | wrong | takes the hot one for the cold one
def diagnosis():
    return {
        "A": "critic_lr too small",
        "B": "alpha too small",
        "C": "octaves too large",
        "D": "critic_lr too large",
        "E": "alpha too large",
    }


# %% 2 | wrong | blames the proposals for an ess of 1
def diagnosis():
    return {
        "A": "critic_lr too small",
        "B": "alpha too large",
        "C": "octaves too large",
        "D": "critic_lr too large",
        "E": "K too small",
    }


# %% 2 | wrong | takes a critic that sleeps for a discount
def diagnosis():
    return {
        "A": "gamma too small",
        "B": "alpha too large",
        "C": "octaves too large",
        "D": "critic_lr too large",
        "E": "alpha too small",
    }


# %% 2 | wrong | leaves one out
def diagnosis():
    return {
        "A": "critic_lr too small",
        "B": "alpha too large",
        "D": "critic_lr too large",
        "E": "alpha too small",
    }


# %% 2 | right | built from pairs
def diagnosis():
    sizes = {"A": "critic_lr small", "B": "alpha large", "C": "octaves large"}
    sizes |= {"D": "critic_lr large", "E": "alpha small"}
    return {letter: words.replace(" ", " too ") for letter, words in sizes.items()}


# %% 2 | right | read off the columns
def diagnosis():
    found, norm = {}, final_of("healthy", "weight_norm")
    for letter in "ABCDE":
        if final_of(letter, "weight_norm") > 5 * norm:
            found[letter] = "critic_lr too large"
        elif final_of(letter, "actor_loss") > 10 * final_of("healthy", "actor_loss"):
            found[letter] = "octaves too large"
        elif final_of(letter, "ess") < 1.25:
            found[letter] = "alpha too small"
        elif final_of(letter, "critic_loss") > 2 * final_of("healthy", "critic_loss"):
            found[letter] = "critic_lr too small"
        else:
            found[letter] = "alpha too large"
    return found


def final_of(name, column):
    return runs[name][0][column][-1]


# %% 3 | wrong | the bug itself
def normalise(q):
    return q - q.mean() / q.std()


# %% 3 | wrong | divides by the variance
def normalise(q):
    return (q - q.mean()) / q.var()


# %% 3 | wrong | only scales
def normalise(q):
    return q / q.std()


# %% 3 | wrong | only shifts
def normalise(q):
    return q - q.mean()


# %% 3 | wrong | by the mean distance
def normalise(q):
    return (q - q.mean()) / (q - q.mean()).abs().mean()


# %% 3 | right | scales first
def normalise(q):
    return q / q.std() - q.mean() / q.std()


# %% 3 | right | by hand
def normalise(q):
    centred = q - q.sum() / q.numel()
    return centred / (centred.square().sum() / (q.numel() - 1)).sqrt()


# %% 3 | right | torch's layer norm over everything
def normalise(q):
    return torch.nn.functional.layer_norm(q, q.shape)


# %% 4 | wrong | forgets the box
def closed_form_mean(b, a, t):
    return a / (1 - t) + b * (t / (1 - t)) ** 2


# %% 4 | wrong | forgets the tilt
def closed_form_mean(b, a, t):
    from scipy.stats import truncnorm

    c, middle = t / (1 - t), a / (1 - t)
    return truncnorm.mean((-1 - middle) / c, (1 - middle) / c, middle, c)


# %% 4 | wrong | shifts by the deviation, not the variance
def closed_form_mean(b, a, t):
    from scipy.stats import truncnorm

    c = t / (1 - t)
    middle = a / (1 - t) + b * c
    return truncnorm.mean((-1 - middle) / c, (1 - middle) / c, middle, c)


# %% 4 | wrong | clips the mean instead of cutting the density
def closed_form_mean(b, a, t):
    return min(1.0, max(-1.0, a / (1 - t) + b * (t / (1 - t)) ** 2))


# %% 4 | wrong | a sum over a grid
def closed_form_mean(b, a, t):
    return exact_mean(lambda x: b * x, 1.0, torch.tensor([[a]]).double(), t).item()


# %% 4 | right | scipy's truncated normal
def closed_form_mean(b, a, t):
    from scipy.stats import truncnorm

    c = t / (1 - t)
    middle = a / (1 - t) + b * c**2
    return truncnorm.mean((-1 - middle) / c, (1 - middle) / c, middle, c)


# %% 4 | right | the standard library's normal
def closed_form_mean(b, a, t):
    from statistics import NormalDist

    width = t / (1 - t)
    shifted = NormalDist(a / (1 - t) + b * width**2, width)
    mass = shifted.cdf(1) - shifted.cdf(-1)
    return shifted.mean + width**2 * (shifted.pdf(-1) - shifted.pdf(1)) / mass


# %% 5 | wrong | forgets that components multiply
def expected_share(d, rho, ell, D):
    one, two = ell**2 + rho**2, ell**2 + 2 * rho**2
    return ell * two**0.5 / one * math.exp(-(D**2) * rho**2 / (one * two))


# %% 5 | wrong | the proposals sit on the hill
def expected_share(d, rho, ell, D):
    one, two = ell**2 + rho**2, ell**2 + 2 * rho**2
    return (ell * two**0.5 / one) ** d


# %% 5 | wrong | the square of a hill is twice as wide
def expected_share(d, rho, ell, D):
    one, two = ell**2 + rho**2, 2 * ell**2 + rho**2
    mean = (ell**2 / one) ** (d / 2) * math.exp(-(D**2) / (2 * one))
    square = (2 * ell**2 / two) ** (d / 2) * math.exp(-(D**2) / (2 * two))
    return mean**2 / square


# %% 5 | wrong | the mean weight alone
def expected_share(d, rho, ell, D):
    one = ell**2 + rho**2
    return (ell**2 / one) ** (d / 2) * math.exp(-(D**2) / (2 * one))


# %% 5 | wrong | the distance in every component
def expected_share(d, rho, ell, D):
    one, two = ell**2 + rho**2, ell**2 + 2 * rho**2
    return (ell * two**0.5 / one * math.exp(-(D**2) * rho**2 / (one * two))) ** d


# %% 5 | right | both means, then the quotient
def expected_share(d, rho, ell, D):
    def mean_of_hill(variance):
        total = variance + rho**2
        return (variance / total) ** (d / 2) * math.exp(-(D**2) / (2 * total))

    return mean_of_hill(ell**2) ** 2 / mean_of_hill(ell**2 / 2)


# %% 5 | right | one quadrature for each kind of component
def expected_share(d, rho, ell, D):
    x = torch.linspace(-12, 12, 20001, dtype=torch.float64) * rho
    p = torch.exp(-((x / rho) ** 2) / 2)
    p = p / p.sum()

    def share(shift):
        w = torch.exp(-((x - shift) ** 2) / (2 * ell**2))
        return float((p @ w) ** 2 / (p @ w**2))

    return share(0.0) ** (d - 1) * share(D)


# %% 5 | right | by logarithms
def expected_share(d, rho, ell, D):
    x = (rho / ell) ** 2
    log = d * (0.5 * math.log1p(2 * x) - math.log1p(x))
    return math.exp(log - (D / ell) ** 2 * x / ((1 + x) * (1 + 2 * x)))
