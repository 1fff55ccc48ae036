"""Wrong and right answers to the exercises of chapter 03."""


# %% 1 | wrong | the whole step size with the score
def langevin_step(score, a, eta, generator, box=True):
    a = a + eta * score(a) + eta**0.5 * torch.randn(a.shape, generator=generator)
    return reflect(a) if box else a


# %% 1 | wrong | noise without the root
def langevin_step(score, a, eta, generator, box=True):
    a = a + eta / 2 * score(a) + eta * torch.randn(a.shape, generator=generator)
    return reflect(a) if box else a


# %% 1 | wrong | one random number for both coordinates
def langevin_step(score, a, eta, generator, box=True):
    xi = torch.randn(a.shape[:-1], generator=generator)[..., None]
    a = a + eta / 2 * score(a) + eta**0.5 * xi
    return reflect(a) if box else a


# %% 1 | wrong | one random number for all points
def langevin_step(score, a, eta, generator, box=True):
    xi = torch.randn(a.shape[-1], generator=generator)
    a = a + eta / 2 * score(a) + eta**0.5 * xi
    return reflect(a) if box else a


# %% 1 | wrong | clips
def langevin_step(score, a, eta, generator, box=True):
    a = a + eta / 2 * score(a) + eta**0.5 * torch.randn(a.shape, generator=generator)
    return a.clamp(-1, 1) if box else a


# %% 1 | wrong | always in the box
def langevin_step(score, a, eta, generator, box=True):
    return reflect(a + eta / 2 * score(a) + eta**0.5 * torch.randn(a.shape, generator=generator))


# %% 1 | wrong | the score where the noise has led
def langevin_step(score, a, eta, generator, box=True):
    a = a + eta**0.5 * torch.randn(a.shape, generator=generator)
    a = a + eta / 2 * score(a)
    return reflect(a) if box else a


# %% 1 | wrong | downhill
def langevin_step(score, a, eta, generator, box=True):
    a = a - eta / 2 * score(a) + eta**0.5 * torch.randn(a.shape, generator=generator)
    return reflect(a) if box else a


# %% 1 | wrong | random numbers of its own
def langevin_step(score, a, eta, generator, box=True):
    a = a + eta / 2 * score(a) + eta**0.5 * torch.randn_like(a)
    return reflect(a) if box else a


# %% 1 | right | a draw of the normal around the drifted point
def langevin_step(score, a, eta, generator, box=True):
    b = torch.normal(a + 0.5 * eta * score(a), math.sqrt(eta), generator=generator)
    if not box:
        return b
    return reflect(b)


# %% 1 | right | one coordinate after the other
def langevin_step(score, a, eta, generator, box=True):
    drift = score(a) * (eta / 2)
    columns = [
        a[..., i] + drift[..., i] + eta**0.5 * torch.randn(a.shape[:-1], generator=generator)
        for i in range(a.shape[-1])
    ]
    b = torch.stack(columns, -1)
    return torch.where(torch.tensor(box), reflect(b), b)


# %% 2 | wrong | tanh
def mean_action(k, alpha):
    return math.tanh(k / alpha)


# %% 2 | wrong | without the second term
def mean_action(k, alpha):
    return 1 / math.tanh(k / alpha)


# %% 2 | wrong | forgets the sign
def mean_action(k, alpha):
    x = abs(k) / alpha
    return 1 / math.tanh(x) - 1 / x


# %% 2 | wrong | multiplies by the temperature
def mean_action(k, alpha):
    x = k * alpha
    return 1 / math.tanh(x) - 1 / x


# %% 2 | wrong | the first term of the series
def mean_action(k, alpha):
    return k / alpha / 3


# %% 2 | wrong | the mean of Q
def mean_action(k, alpha):
    x = k / alpha
    return k / math.tanh(x) - alpha


# %% 2 | right | cosh over sinh
def mean_action(k, alpha):
    return math.cosh(k / alpha) / math.sinh(k / alpha) - alpha / k


# %% 2 | right | the two primitives
def mean_action(k, alpha):
    b = k / alpha
    up, down = math.exp(b), math.exp(-b)
    z = (up - down) / b
    return ((up + down) / b - (up - down) / b**2) / z


# %% 3 | wrong | as it was
def repaired_weights(q, alpha):
    normalised = q - q.mean() / q.std()
    return (normalised / alpha).softmax(0)


# %% 3 | wrong | no division
def repaired_weights(q, alpha):
    return ((q - q.mean()) / alpha).softmax(0)


# %% 3 | wrong | divides by the variance
def repaired_weights(q, alpha):
    return ((q - q.mean()) / q.var() / alpha).softmax(0)


# %% 3 | wrong | divides by the greatest value
def repaired_weights(q, alpha):
    return (q / q.abs().max() / alpha).softmax(0)


# %% 3 | wrong | divides by the range
def repaired_weights(q, alpha):
    return ((q - q.min()) / (q.max() - q.min()) / alpha).softmax(0)


# %% 3 | wrong | forgets the temperature
def repaired_weights(q, alpha):
    return ((q - q.mean()) / q.std()).softmax(0)


# %% 3 | wrong | brackets in another wrong place
def repaired_weights(q, alpha):
    return ((q - q.mean()) / (q.std() / alpha)).softmax(0)


# %% 3 | right | guards the division
def repaired_weights(q, alpha):
    return ((q - q.mean()) / (q.std() + 1e-8) / alpha).softmax(0)


# %% 3 | right | leaves the mean, which drops out
def repaired_weights(q, alpha):
    return (q / (alpha * q.std())).softmax(0)


# %% 3 | right | the standard deviation with n, by hand
def repaired_weights(q, alpha):
    normalised = (q - q.mean()) / (q - q.mean()).square().mean().sqrt()
    weights = (normalised / alpha - (normalised / alpha).max()).exp()
    return weights / weights.sum()


# %% 4 | wrong | as on a line
def mean_distance(kappa):
    return 1 / kappa


# %% 4 | wrong | the root of the mean square
def mean_distance(kappa):
    return math.sqrt(6) / kappa


# %% 4 | wrong | a Gaussian's
def mean_distance(kappa):
    return math.sqrt(math.pi / 2) / math.sqrt(kappa)


# %% 4 | wrong | in space
def mean_distance(kappa):
    return 3 / kappa


# %% 4 | wrong | with a temperature
def mean_distance(kappa):
    return 2 * alpha / kappa


# %% 4 | right | the ratio of two gamma functions
def mean_distance(kappa):
    return math.gamma(3) / kappa**3 / (math.gamma(2) / kappa**2)


# %% 4 | right | by quadrature
def mean_distance(kappa):
    length = torch.linspace(0, 40 / kappa, 10_001)
    density = length * (-kappa * length).exp()
    return float((length * density).sum() / density.sum())


# %% 5 | wrong | without the densities of the moves
def metropolis_step(log_p, score, a, eta, generator):
    b = langevin_step(score, a, eta, generator, box=False)
    accept = torch.rand(a.shape[:-1], generator=generator).log() < log_p(b) - log_p(a)
    return torch.where(accept[..., None], b, a)


# %% 5 | wrong | the moves the wrong way round
def metropolis_step(log_p, score, a, eta, generator):
    def log_phi(b, a):
        return -(b - a - eta / 2 * score(a)).square().sum(-1) / (2 * eta)

    b = langevin_step(score, a, eta, generator, box=False)
    log_ratio = log_p(b) + log_phi(b, a) - log_p(a) - log_phi(a, b)
    accept = torch.rand(log_ratio.shape, generator=generator).log() < log_ratio
    return torch.where(accept[..., None], b, a)


# %% 5 | wrong | accepts everything
def metropolis_step(log_p, score, a, eta, generator):
    return langevin_step(score, a, eta, generator, box=False)


# %% 5 | wrong | one decision for all
def metropolis_step(log_p, score, a, eta, generator):
    def log_phi(b, a):
        return -(b - a - eta / 2 * score(a)).square().sum(-1) / (2 * eta)

    b = langevin_step(score, a, eta, generator, box=False)
    log_ratio = log_p(b) + log_phi(a, b) - log_p(a) - log_phi(b, a)
    return b if torch.rand(1, generator=generator).log() < log_ratio.mean() else a


# %% 5 | wrong | a decision for each coordinate
def metropolis_step(log_p, score, a, eta, generator):
    def log_phi(b, a):
        return -(b - a - eta / 2 * score(a)).square().sum(-1) / (2 * eta)

    b = langevin_step(score, a, eta, generator, box=False)
    log_ratio = (log_p(b) + log_phi(a, b) - log_p(a) - log_phi(b, a))[..., None]
    accept = torch.rand(a.shape, generator=generator).log() < log_ratio
    return torch.where(accept, b, a)


# %% 5 | wrong | forgets the axis of the coordinates
def metropolis_step(log_p, score, a, eta, generator):
    def log_phi(b, a):
        return -(b - a - eta / 2 * score(a)).square().sum(-1) / (2 * eta)

    b = langevin_step(score, a, eta, generator, box=False)
    log_ratio = log_p(b) + log_phi(a, b) - log_p(a) - log_phi(b, a)
    accept = torch.rand(log_ratio.shape, generator=generator).log() < log_ratio
    return torch.where(accept, b, a)


# %% 5 | wrong | accepts where it should refuse
def metropolis_step(log_p, score, a, eta, generator):
    def log_phi(b, a):
        return -(b - a - eta / 2 * score(a)).square().sum(-1) / (2 * eta)

    b = langevin_step(score, a, eta, generator, box=False)
    log_ratio = log_p(b) + log_phi(a, b) - log_p(a) - log_phi(b, a)
    accept = torch.rand(log_ratio.shape, generator=generator).log() > log_ratio
    return torch.where(accept[..., None], b, a)


# %% 5 | wrong | eta in place of two eta
def metropolis_step(log_p, score, a, eta, generator):
    def log_phi(b, a):
        return -(b - a - eta / 2 * score(a)).square().sum(-1) / eta

    b = langevin_step(score, a, eta, generator, box=False)
    log_ratio = log_p(b) + log_phi(a, b) - log_p(a) - log_phi(b, a)
    accept = torch.rand(log_ratio.shape, generator=generator).log() < log_ratio
    return torch.where(accept[..., None], b, a)


# %% 5 | right | a probability, and the right points taken by a mask
def metropolis_step(log_p, score, a, eta, generator):
    forth = a + eta / 2 * score(a)
    b = forth + eta**0.5 * torch.randn(a.shape, generator=generator)
    back = b + eta / 2 * score(b)
    log_ratio = log_p(b) - log_p(a)
    log_ratio = (
        log_ratio - (a - back).pow(2).sum(-1) / (2 * eta) + (b - forth).pow(2).sum(-1) / (2 * eta)
    )
    probability = log_ratio.clamp(max=0).exp()
    new = a.clone()
    yes = torch.bernoulli(probability, generator=generator).bool()
    new[yes] = b[yes]
    return new


# %% 5 | right | torch's normal distribution
def metropolis_step(log_p, score, a, eta, generator):
    def move(a):
        return torch.distributions.Normal(a + eta / 2 * score(a), eta**0.5)

    b = langevin_step(score, a, eta, generator, box=False)
    ratio = log_p(b) + move(b).log_prob(a).sum(-1) - log_p(a) - move(a).log_prob(b).sum(-1)
    yes = torch.rand(ratio.shape, generator=generator) < ratio.exp()
    return torch.where(yes.unsqueeze(-1), b, a)


# %% 6 | wrong | the plain step
def remembering_step(score, a, xi, eta, generator):
    new = torch.randn(a.shape, generator=generator)
    return a + eta / 2 * score(a) + eta**0.5 * new, new


# %% 6 | wrong | only the old noise
def remembering_step(score, a, xi, eta, generator):
    new = torch.randn(a.shape, generator=generator)
    return a + eta / 2 * score(a) + eta**0.5 * xi, new


# %% 6 | wrong | weights whose squares sum to one
def remembering_step(score, a, xi, eta, generator):
    new = torch.randn(a.shape, generator=generator)
    return a + eta / 2 * score(a) + eta**0.5 * (xi + new) / 2**0.5, new


# %% 6 | wrong | another split
def remembering_step(score, a, xi, eta, generator):
    new = torch.randn(a.shape, generator=generator)
    return a + eta / 2 * score(a) + eta**0.5 * (xi + 3 * new) / 4, new


# %% 6 | wrong | hands on the old noise
def remembering_step(score, a, xi, eta, generator):
    new = torch.randn(a.shape, generator=generator)
    return a + eta / 2 * score(a) + eta**0.5 * (xi + new) / 2, xi


# %% 6 | wrong | hands on the mixture
def remembering_step(score, a, xi, eta, generator):
    mixed = (xi + torch.randn(a.shape, generator=generator)) / 2
    return a + eta / 2 * score(a) + eta**0.5 * mixed, mixed


# %% 6 | right | the score at a, a draw around the mean of both
def remembering_step(score, a, xi, eta, generator):
    new = torch.normal(torch.zeros_like(a), 1.0, generator=generator)
    mean = torch.stack([xi, new]).mean(0)
    return a + score(a) * (eta / 2) + mean * math.sqrt(eta), new


# %% 6 | right | two half steps of noise
def remembering_step(score, a, xi, eta, generator):
    half = 0.5 * eta**0.5
    b = a + half * xi + eta * score(a) / 2
    fresh = torch.randn(b.shape, generator=generator)
    return b + half * fresh, fresh


# %% 1 | wrong | the step of another convention
def langevin_step(score, a, eta, generator, box=True):
    a = a + eta * score(a) + (2 * eta) ** 0.5 * torch.randn(a.shape, generator=generator)
    return reflect(a) if box else a


# %% 1 | wrong | folds before the noise
def langevin_step(score, a, eta, generator, box=True):
    a = a + eta / 2 * score(a)
    a = reflect(a) if box else a
    return a + eta**0.5 * torch.randn(a.shape, generator=generator)


# %% 1 | wrong | draws anew until inside
def langevin_step(score, a, eta, generator, box=True):
    drifted = a + eta / 2 * score(a)
    b = drifted + eta**0.5 * torch.randn(a.shape, generator=generator)
    while box and (b.abs() > 1).any():
        again = drifted + eta**0.5 * torch.randn(a.shape, generator=generator)
        b = torch.where(b.abs() > 1, again, b)
    return b


# %% 1 | wrong | stays where it was when the step leads out
def langevin_step(score, a, eta, generator, box=True):
    b = a + eta / 2 * score(a) + eta**0.5 * torch.randn(a.shape, generator=generator)
    return torch.where((b.abs() > 1).any(-1, keepdim=True), a, b) if box else b


# %% 1 | right | noise filled in place, mirrors one after the other
def langevin_step(score, a, eta, generator, box=True):
    xi = torch.empty_like(a).normal_(generator=generator)
    a = torch.add(a, score(a), alpha=eta / 2) + xi * eta**0.5
    if box:
        a = torch.where(a > 1, 2 - a, a)
        a = torch.where(a < -1, -2 - a, a)
    return a


# %% 2 | wrong | x in place of 1 / x
def mean_action(k, alpha):
    x = k / alpha
    return 1 / math.tanh(x) - x


# %% 2 | wrong | the limit of low temperature
def mean_action(k, alpha):
    return math.copysign(1 - alpha / abs(k), k)


# %% 2 | wrong | the box as long as one
def mean_action(k, alpha):
    x = k / alpha
    return 1 / math.tanh(x / 2) - 2 / x


# %% 2 | right | the derivative of log Z by autograd
def mean_action(k, alpha):
    x = torch.tensor(k / alpha, dtype=torch.float64, requires_grad=True)
    (2 * x.sinh() / x).log().backward()
    return float(x.grad)


# %% 3 | wrong | the temperature inside what is normalised
def repaired_weights(q, alpha):
    q = q / alpha
    return ((q - q.mean()) / q.std()).softmax(0)


# %% 3 | wrong | the mean distance from the mean
def repaired_weights(q, alpha):
    normalised = q - q.mean()
    return (normalised / normalised.abs().mean() / alpha).softmax(0)


# %% 3 | wrong | ranks
def repaired_weights(q, alpha):
    rank = q.argsort().argsort().to(q.dtype)
    return ((rank - rank.mean()) / rank.std() / alpha).softmax(0)


# %% 3 | right | another centre, which drops out too
def repaired_weights(q, alpha):
    return ((q - q.max()) / q.std() / alpha).softmax(0)


# %% 4 | wrong | the median on a line
def mean_distance(kappa):
    return math.log(2) / kappa


# %% 4 | wrong | the most frequent point's curvature
def mean_distance(kappa):
    return 2 / kappa**2


# %% 4 | wrong | the density of the length without its factor, in the square
def mean_distance(kappa):
    return math.sqrt(2) / kappa


# %% 4 | right | drawn: a sum of two exponentials
def mean_distance(kappa):
    draws = torch.rand(2, 200_000, generator=torch.Generator().manual_seed(0))
    return float(-draws.log().sum(0).mean() / kappa)


# %% 5 | wrong | forgets the logarithm of the random number
def metropolis_step(log_p, score, a, eta, generator):
    def log_phi(b, a):
        return -(b - a - eta / 2 * score(a)).square().sum(-1) / (2 * eta)

    b = langevin_step(score, a, eta, generator, box=False)
    log_ratio = log_p(b) + log_phi(a, b) - log_p(a) - log_phi(b, a)
    accept = torch.rand(log_ratio.shape, generator=generator) < log_ratio
    return torch.where(accept[..., None], b, a)


# %% 5 | wrong | the score at a for the way back as well
def metropolis_step(log_p, score, a, eta, generator):
    drift = eta / 2 * score(a)
    b = langevin_step(score, a, eta, generator, box=False)
    back, forth = (-(x - drift).square().sum(-1) / (2 * eta) for x in (a - b, b - a))
    log_ratio = log_p(b) + back - log_p(a) - forth
    accept = torch.rand(log_ratio.shape, generator=generator).log() < log_ratio
    return torch.where(accept[..., None], b, a)


# %% 5 | wrong | proposes without the drift
def metropolis_step(log_p, score, a, eta, generator):
    def log_phi(b, a):
        return -(b - a - eta / 2 * score(a)).square().sum(-1) / (2 * eta)

    b = a + eta**0.5 * torch.randn(a.shape, generator=generator)
    log_ratio = log_p(b) + log_phi(a, b) - log_p(a) - log_phi(b, a)
    accept = torch.rand(log_ratio.shape, generator=generator).log() < log_ratio
    return torch.where(accept[..., None], b, a)


# %% 5 | wrong | proposes without the drift, and corrects rightly for that
def metropolis_step(log_p, score, a, eta, generator):
    b = a + eta**0.5 * torch.randn(a.shape, generator=generator)
    accept = torch.rand(a.shape[:-1], generator=generator).log() < log_p(b) - log_p(a)
    return torch.where(accept[..., None], b, a)


# %% 5 | right | the density of torch's multivariate normal
def metropolis_step(log_p, score, a, eta, generator):
    def log_joint(x, y):
        step = torch.distributions.MultivariateNormal(
            x + eta / 2 * score(x), eta * torch.eye(x.shape[-1])
        )
        return log_p(x) + step.log_prob(y)

    b = langevin_step(score, a, eta, generator, box=False)
    gain = (log_joint(b, a) - log_joint(a, b)).clamp(max=0)
    refuse = torch.rand(gain.shape, generator=generator) >= gain.exp()
    return b + refuse[..., None] * (a - b)


# %% 6 | wrong | the sum of both
def remembering_step(score, a, xi, eta, generator):
    new = torch.randn(a.shape, generator=generator)
    return a + eta / 2 * score(a) + eta**0.5 * (xi + new), new


# %% 6 | wrong | their difference
def remembering_step(score, a, xi, eta, generator):
    new = torch.randn(a.shape, generator=generator)
    return a + eta / 2 * score(a) + eta**0.5 * (new - xi) / 2, new


# %% 6 | wrong | no half on the drift
def remembering_step(score, a, xi, eta, generator):
    new = torch.randn(a.shape, generator=generator)
    return a + eta * score(a) + eta**0.5 * (xi + new) / 2, new


# %% 6 | wrong | the score where the old noise has led
def remembering_step(score, a, xi, eta, generator):
    new = torch.randn(a.shape, generator=generator)
    b = a + eta**0.5 * xi / 2
    return b + eta / 2 * score(b) + eta**0.5 * new / 2, new


# %% 6 | right | both noises with the other sign
def remembering_step(score, a, xi, eta, generator):
    new = torch.randn(a.shape, generator=generator)
    return a + eta / 2 * score(a) - eta**0.5 * (xi + new) / 2, new
