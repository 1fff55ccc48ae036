"""Answers to the exercises of chapter 01; the form is in tests/book/test_exercises.py."""


# %% 1 | wrong | shows the network the clean point
def flow_matching_loss(v, a0, eps, t, path):
    a_t = path.noise(a0, eps, t)
    error = v(a0, t) - path.conditional_velocity(a0, eps, t)
    return error.square().sum(-1).mean()


# %% 1 | wrong | velocity from noise to data
def flow_matching_loss(v, a0, eps, t, path):
    error = v(path.noise(a0, eps, t), t) - (a0 - eps)
    return error.square().sum(-1).mean()


# %% 1 | wrong | averages over the coordinates as well
def flow_matching_loss(v, a0, eps, t, path):
    error = v(path.noise(a0, eps, t), t) - path.conditional_velocity(a0, eps, t)
    return error.square().mean()


# %% 1 | wrong | sums over the pairs
def flow_matching_loss(v, a0, eps, t, path):
    error = v(path.noise(a0, eps, t), t) - path.conditional_velocity(a0, eps, t)
    return error.square().sum()


# %% 1 | wrong | lengths that are not squared
def flow_matching_loss(v, a0, eps, t, path):
    error = v(path.noise(a0, eps, t), t) - path.conditional_velocity(a0, eps, t)
    return error.norm(dim=-1).mean()


# %% 1 | wrong | only the straight path
def flow_matching_loss(v, a0, eps, t, path):
    a_t = (1 - t) * a0 + t * eps
    return (v(a_t, t) - (eps - a0)).square().sum(-1).mean()


# %% 1 | wrong | data and noise exchanged
def flow_matching_loss(v, a0, eps, t, path):
    error = v(path.noise(eps, a0, t), t) - path.conditional_velocity(eps, a0, t)
    return error.square().sum(-1).mean()


# %% 1 | right | squared norms
def flow_matching_loss(v, a0, eps, t, path):
    difference = path.conditional_velocity(a0, eps, t) - v(path.noise(a0, eps, t), t)
    return (difference.norm(dim=1) ** 2).mean()


# %% 1 | right | by einsum, divided by the number of pairs
def flow_matching_loss(v, a0, eps, t, path):
    error = v(path.noise(a0, eps, t), t) - path.conditional_velocity(a0, eps, t)
    return torch.einsum("ij,ij->", error, error) / len(error)


# %% 1 | right | the path's coefficients by hand
def flow_matching_loss(v, a0, eps, t, path):
    prediction = v(path.mu(t) * a0 + path.sigma(t) * eps, t)
    target = path.dmu(t) * a0 + path.dsigma(t) * eps
    return ((prediction - target) ** 2).mean() * a0.shape[1]


# %% 2 | wrong | with the velocity, away from the data
def euler_samples(v, eps, steps):
    a, ones = eps, torch.ones_like(eps[:, :1])
    for i in range(steps, 0, -1):
        a = a + v(a, ones * (i / steps)) / steps
    return a


# %% 2 | wrong | looks at the time when the step ends
def euler_samples(v, eps, steps):
    a, ones = eps, torch.ones_like(eps[:, :1])
    for i in range(steps, 0, -1):
        a = a - v(a, ones * ((i - 1) / steps)) / steps
    return a


# %% 2 | wrong | the clock runs from 0 to 1
def euler_samples(v, eps, steps):
    a, ones = eps, torch.ones_like(eps[:, :1])
    for i in range(steps):
        a = a - v(a, ones * (i / steps)) / steps
    return a


# %% 2 | wrong | forgets the length of the step
def euler_samples(v, eps, steps):
    a, ones = eps, torch.ones_like(eps[:, :1])
    for i in range(steps, 0, -1):
        a = a - v(a, ones * (i / steps))
    return a


# %% 2 | wrong | one step whatever is asked
def euler_samples(v, eps, steps):
    return eps - v(eps, torch.ones_like(eps[:, :1]))


# %% 2 | wrong | times from linspace with both ends, one step too many
def euler_samples(v, eps, steps):
    a = eps
    for time in torch.linspace(1, 0, steps + 1, dtype=eps.dtype):
        a = a - v(a, time.expand(len(a), 1)) / steps
    return a


# %% 2 | wrong | linspace with steps points: the steps are too far apart
def euler_samples(v, eps, steps):
    a = eps
    for time in torch.linspace(1, 0, steps, dtype=eps.dtype):
        a = a - v(a, time.expand(len(a), 1)) / steps
    return a


# %% 2 | wrong | Heun's step: twice as many calls
def euler_samples(v, eps, steps):
    a, ones = eps, torch.ones_like(eps[:, :1])
    for i in range(steps, 0, -1):
        one = v(a, ones * (i / steps))
        two = v(a - one / steps, ones * ((i - 1) / steps))
        a = a - (one + two) / (2 * steps)
    return a


# %% 2 | wrong | always looks where it began
def euler_samples(v, eps, steps):
    a, ones = eps, torch.ones_like(eps[:, :1])
    for i in range(steps, 0, -1):
        a = a - v(eps, ones * (i / steps)) / steps
    return a


# %% 2 | right | times in pairs
def euler_samples(v, eps, steps):
    times = torch.linspace(1, 0, steps + 1, dtype=eps.dtype)
    a = eps.clone()
    for now, then in pairwise(times):
        a += (then - now) * v(a, now.repeat(len(a), 1))
    return a


# %% 2 | right | a running clock
def euler_samples(v, eps, steps):
    a, t, dt = eps, torch.ones(len(eps), 1, dtype=eps.dtype), 1 / steps
    for _ in range(steps):
        a = a - dt * v(a, t)
        t = t - dt
    return a


# %% 2 | right | by the package's step
def euler_samples(v, eps, steps):
    a = eps
    for i in range(steps):
        t = torch.full((len(a), 1), 1 - i / steps, dtype=a.dtype)
        a = euler_step(v, a, t, torch.full_like(t, -1 / steps))
    return a


# %% 3 | wrong | all learn v
def learnt(a, t, m):
    v = (a - m(a, t)) / t
    return v, v, v


# %% 3 | wrong | the second learns v as well: noise averages out
def learnt(a, t, m):
    return -a, (a - m(a, t)) / t, (m(a, 1 - t) - a) / (1 - t)


# %% 3 | wrong | the third is told the right time
def learnt(a, t, m):
    return -a, -m(a, t), (m(a, t) - a) / t


# %% 3 | wrong | the third without its sign
def learnt(a, t, m):
    return -a, -m(a, t), (a - m(a, 1 - t)) / (1 - t)


# %% 3 | wrong | the third divides by t
def learnt(a, t, m):
    return -a, -m(a, t), (m(a, 1 - t) - a) / t


# %% 3 | wrong | the first as if it saw the noisy point
def learnt(a, t, m):
    return -m(a, t), -m(a, t), (m(a, 1 - t) - a) / (1 - t)


# %% 3 | wrong | the signs of the first two
def learnt(a, t, m):
    return a, m(a, t), (m(a, 1 - t) - a) / (1 - t)


# %% 3 | right | through v
def learnt(a, t, m):
    def v(a, t):
        return (a - m(a, t)) / t

    return [0 * a - a, t * v(a, t) - a, -v(a, 1 - t)]


# %% 3 | right | the other clock by name
def learnt(a, t, m):
    s = 1 - t
    guess = m(a, s)
    eps = (a - (1 - s) * guess) / s
    return torch.neg(a), torch.neg(m(a, t)), guess - eps


# %% 4 | wrong | softmax of -d2 / t2
def velocity_of_points(a, t, points):
    d2 = (a[:, None] - (1 - t)[..., None] * points).square().sum(-1)
    return (a - (-d2 / t**2).softmax(-1) @ points) / t


# %% 4 | wrong | softmax of -d2 / 2t
def velocity_of_points(a, t, points):
    d2 = (a[:, None] - (1 - t)[..., None] * points).square().sum(-1)
    return (a - (-d2 / (2 * t)).softmax(-1) @ points) / t


# %% 4 | wrong | softmax of -d / t
def velocity_of_points(a, t, points):
    d2 = (a[:, None] - (1 - t)[..., None] * points).square().sum(-1)
    return (a - (-d2.sqrt() / t).softmax(-1) @ points) / t


# %% 4 | wrong | softmax of -(1 - t) d2 / 2 t2
def velocity_of_points(a, t, points):
    d2 = (a[:, None] - points).square().sum(-1)
    return (a - (-(1 - t) * d2 / (2 * t**2)).softmax(-1) @ points) / t


# %% 4 | wrong | nearest point
def velocity_of_points(a, t, points):
    d2 = (a[:, None] - (1 - t)[..., None] * points).square().sum(-1)
    return (a - points[d2.argmin(-1)]) / t


# %% 4 | wrong | the points do not shrink with 1 - t
def velocity_of_points(a, t, points):
    d2 = (a[:, None] - points).square().sum(-1)
    return (a - (-d2 / (2 * t**2)).softmax(-1) @ points) / t


# %% 4 | wrong | each point as likely, wherever one is
def velocity_of_points(a, t, points):
    return (a - points.mean(0)) / t


# %% 4 | wrong | the sign of v
def velocity_of_points(a, t, points):
    d2 = (a[:, None] - (1 - t)[..., None] * points).square().sum(-1)
    return ((-d2 / (2 * t**2)).softmax(-1) @ points - a) / t


# %% 4 | right | the package's mixture, thin blobs
def velocity_of_points(a, t, points):
    n = len(points)
    blobs = torch.full((n,), 1e-6, dtype=points.dtype), torch.full_like(points[:, 0], 1 / n)
    return GaussianMixture(points, *blobs).velocity(a, t, path)


# %% 4 | right | weights by hand, largest exponent taken off
def velocity_of_points(a, t, points):
    exponents = torch.stack([-(a - (1 - t) * x).square().sum(-1) / 2 for x in points], 1) / t**2
    weights = (exponents - exponents.max(1, keepdim=True).values).exp()
    guess = weights @ points / weights.sum(1, keepdim=True)
    return (a - guess) / t


# %% 4 | right | cdist
def velocity_of_points(a, t, points):
    gamma = torch.softmax(
        -((torch.cdist(a / (1 - t + 1e-300), points)) ** 2) * ((1 - t) / t) ** 2 / 2, 1
    )
    gamma = torch.where(t < 1, gamma, torch.full_like(gamma, 0.2))
    return (a - gamma @ points) / t


# %% 5 | wrong | sorts both sides by x
def pair_up(a0, eps):
    paired = torch.empty_like(eps)
    paired[a0[:, 0].argsort()] = eps[eps[:, 0].argsort()]
    return paired


# %% 5 | wrong | leaves the pairs as they are
def pair_up(a0, eps):
    return eps


# %% 5 | wrong | the nearest noise for each, some twice
def pair_up(a0, eps):
    return eps[torch.cdist(a0, eps).argmin(1)]


# %% 5 | wrong | greedy: each takes the nearest that is left
def pair_up(a0, eps):
    costs, paired = torch.cdist(a0, eps), torch.empty_like(eps)
    for i in range(len(a0)):
        j = costs[i].argmin()
        paired[i] = eps[j]
        costs[:, j] = torch.inf
    return paired


# %% 5 | wrong | the permutation the wrong way round
def pair_up(a0, eps):
    from scipy.optimize import linear_sum_assignment

    _, partner = linear_sum_assignment(torch.cdist(a0, eps).square().numpy())
    return eps[torch.from_numpy(partner).argsort()]


# %% 5 | wrong | the worst pairs
def pair_up(a0, eps):
    from scipy.optimize import linear_sum_assignment

    _, partner = linear_sum_assignment(torch.cdist(a0, eps).square().numpy(), maximize=True)
    return eps[torch.from_numpy(partner)]


# %% 5 | wrong | distances instead of their squares
def pair_up(a0, eps):
    from scipy.optimize import linear_sum_assignment

    _, partner = linear_sum_assignment(torch.cdist(a0, eps).numpy())
    return eps[torch.from_numpy(partner)]


# %% 5 | wrong | sorts both sides by x + y
def pair_up(a0, eps):
    paired = torch.empty_like(eps)
    paired[a0.sum(1).argsort()] = eps[eps.sum(1).argsort()]
    return paired


# %% 5 | wrong | sorts both sides by their angle
def pair_up(a0, eps):
    angles = [torch.atan2(side[:, 1], side[:, 0]) for side in (a0, eps)]
    paired = torch.empty_like(eps)
    paired[angles[0].argsort()] = eps[angles[1].argsort()]
    return paired


# %% 5 | right | greatest inner products
def pair_up(a0, eps):
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment((a0 @ eps.T).numpy(), maximize=True)
    return eps[columns]


# %% 5 | right | rows are the noise
def pair_up(a0, eps):
    from scipy.optimize import linear_sum_assignment

    cost = (eps[:, None] - a0[None]).square().sum(-1)
    rows, columns = linear_sum_assignment(cost.numpy())
    paired = torch.empty_like(eps)
    paired[torch.as_tensor(columns)] = eps[torch.as_tensor(rows)]
    return paired


# %% 6 | wrong | the factor 1 - t forgotten
def constant_from_divergence(divergence, t, d):
    return d - t * divergence


# %% 6 | wrong | t forgotten
def constant_from_divergence(divergence, t, d):
    return (d - divergence) / (1 - t)


# %% 6 | wrong | one dimension
def constant_from_divergence(divergence, t, d):
    return (1 - t * divergence) / (1 - t)


# %% 6 | wrong | the variance of a_0, not of the velocity
def constant_from_divergence(divergence, t, d):
    return t**2 * (d - t * divergence) / (1 - t)


# %% 6 | wrong | divided by 1 - t twice
def constant_from_divergence(divergence, t, d):
    return (d - t * divergence) / (1 - t) ** 2


# %% 6 | wrong | the sign of the divergence
def constant_from_divergence(divergence, t, d):
    return (d + t * divergence) / (1 - t)


# %% 6 | wrong | two dimensions, whatever d
def constant_from_divergence(divergence, t, d):
    return (2 - t * divergence) / (1 - t)


# %% 6 | right | in two steps
def constant_from_divergence(divergence, t, d):
    variance = (d / t - divergence) * t**3 / (1 - t)
    return variance / t**2


# %% 6 | right | from the divergence of m
def constant_from_divergence(divergence, t, d):
    of_m = d - t * divergence
    return of_m / (1 - t)
