"""Answers to the exercises of chapter 05; tests/book/test_exercises.py says how they are tried."""


# %% 1 | wrong | forgets the one half of g^2 / 2
def velocity_from_score(path, s, a, t):
    return drift_rate(path, t) * a - noise_rate(path, t) * s


def score_from_velocity(path, v, a, t):
    gamma = path.mu(t) * path.sigma_dsigma(t) - path.dmu(t) * path.sigma(t) ** 2
    return (path.dmu(t) * a - path.mu(t) * v) / gamma


# %% 1 | wrong | the score with the wrong sign
def velocity_from_score(path, s, a, t):
    return drift_rate(path, t) * a + noise_rate(path, t) / 2 * s


def score_from_velocity(path, v, a, t):
    gamma = path.mu(t) * path.sigma_dsigma(t) - path.dmu(t) * path.sigma(t) ** 2
    return (path.mu(t) * v - path.dmu(t) * a) / gamma


# %% 1 | wrong | uses dsigma, which is infinite on VP at t = 0
def velocity_from_score(path, s, a, t):
    m = (a + path.sigma(t) ** 2 * s) / path.mu(t)
    return path.dmu(t) * m - path.dsigma(t) * path.sigma(t) * s


def score_from_velocity(path, v, a, t):
    gamma = path.mu(t) * path.sigma_dsigma(t) - path.dmu(t) * path.sigma(t) ** 2
    return (path.dmu(t) * a - path.mu(t) * v) / gamma


# %% 1 | wrong | divides by mu on the way back, 0/0 at t = 1 on the linear path
def velocity_from_score(path, s, a, t):
    return drift_rate(path, t) * a - noise_rate(path, t) / 2 * s


def score_from_velocity(path, v, a, t):
    return (drift_rate(path, t) * a - v) / (noise_rate(path, t) / 2)


# %% 1 | wrong | the formula of the linear path for all
def velocity_from_score(path, s, a, t):
    return -(a + t * s) / (1 - t)


def score_from_velocity(path, v, a, t):
    return -(a + (1 - t) * v) / t


# %% 1 | wrong | hides the 0/0 with nan_to_num
def velocity_from_score(path, s, a, t):
    m = (a + path.sigma(t) ** 2 * s) / path.mu(t)
    return torch.nan_to_num(path.dmu(t) * m - path.dsigma(t) * path.sigma(t) * s)


def score_from_velocity(path, v, a, t):
    return torch.nan_to_num((drift_rate(path, t) * a - v) / (noise_rate(path, t) / 2))


# %% 1 | right | by way of the posterior mean
def velocity_from_score(path, s, a, t):
    m = (a + path.sigma(t) ** 2 * s) / path.mu(t)
    return path.dmu(t) * m - path.sigma_dsigma(t) * s


def score_from_velocity(path, v, a, t):
    return (path.mu(t) * v - path.dmu(t) * a) / (
        path.dmu(t) * path.sigma(t) ** 2 - path.mu(t) * path.sigma_dsigma(t)
    )


# %% 1 | right | step 2's formula, and a solution of two linear equations
def velocity_from_score(path, s, a, t):
    return drift_rate(path, t) * a - noise_rate(path, t) / 2 * s


def score_from_velocity(path, v, a, t):
    # a = mu m - sigma^2 s and v = mu' m - sigma sigma' s
    determinant = path.dmu(t) * path.sigma(t) ** 2 - path.mu(t) * path.sigma_dsigma(t)
    return (path.mu(t) * v - path.dmu(t) * a) / determinant


# %% 2 | wrong | looks at the old time again
def heun_solve(velocity, a, times):
    for t, r in pairwise(times):
        v0 = velocity(a, column(a, t.item()))
        v1 = velocity(a + (r - t) * v0, column(a, t.item())) if r > 0 else v0
        a = a + (r - t) * (v0 + v1) / 2
    return a


# %% 2 | wrong | looks at the old place again
def heun_solve(velocity, a, times):
    for t, r in pairwise(times):
        v0 = velocity(a, column(a, t.item()))
        v1 = velocity(a, column(a, r.item())) if r > 0 else v0
        a = a + (r - t) * (v0 + v1) / 2
    return a


# %% 2 | wrong | Euler
def heun_solve(velocity, a, times):
    for t, r in pairwise(times):
        a = a + (r - t) * velocity(a, column(a, t.item()))
    return a


# %% 2 | wrong | looks at t = 0 in the last step
def heun_solve(velocity, a, times):
    return walk(velocity, a, times, heun_step)


# %% 2 | wrong | walks away from the data
def heun_solve(velocity, a, times):
    for t, r in pairwise(times):
        v0 = velocity(a, column(a, t.item()))
        v1 = velocity(a - (r - t) * v0, column(a, r.item())) if r > 0 else v0
        a = a - (r - t) * (v0 + v1) / 2
    return a


# %% 2 | wrong | the midpoint method, of order 2 as well, but not Heun's
def heun_solve(velocity, a, times):
    for t, r in pairwise(times):
        v0 = velocity(a, column(a, t.item()))
        if r > 0:
            v0 = velocity(a + (r - t) / 2 * v0, column(a, ((t + r) / 2).item()))
        a = a + (r - t) * v0
    return a


# %% 2 | wrong | takes the first step's length for all
def heun_solve(velocity, a, times):
    h = times[1] - times[0]
    for k in range(len(times) - 2):
        a = heun_step(velocity, a, column(a, times[k].item()), column(a, h.item()))
    return euler_step(velocity, a, column(a, times[-2].item()), column(a, h.item()))


# %% 2 | wrong | saves a call: the second look serves as the next step's first
def heun_solve(velocity, a, times):
    v0 = velocity(a, column(a, times[0].item()))
    for t, r in pairwise(times):
        if r > 0:
            v1 = velocity(a + (r - t) * v0, column(a, r.item()))
            a, v0 = a + (r - t) * (v0 + v1) / 2, v1
        else:
            a = a + (r - t) * v0
    return a


# %% 2 | right | the package's steps, and Euler's for the rest
def heun_solve(velocity, a, times):
    a = walk(velocity, a, times[:-1], heun_step)
    return walk(velocity, a, times[-2:], euler_step)


# %% 2 | right | corrects the trial point
def heun_solve(velocity, a, times):
    for k in range(len(times) - 1):
        dt = times[k + 1] - times[k]
        before = velocity(a, times[k].expand_as(a[..., :1]))
        a = a + dt * before
        if k + 2 < len(times):
            a = a + dt / 2 * (velocity(a, times[k + 1].expand_as(a[..., :1])) - before)
    return a


# %% 3 | wrong | as it stands
def entropy_of_samples(velocity, count, generator):
    eps = 0.5 * torch.randn(count, 2, generator=generator, dtype=torch.float64)
    a = solve(velocity, eps, steps=20, step=rk4_step)
    div = partial(hutchinson_divergence, probe=eps)
    return -log_likelihood(velocity, normal(1.0).log_prob, a, steps=20, div=div).mean()


# %% 3 | wrong | only the density of the noise repaired
def entropy_of_samples(velocity, count, generator):
    eps = 0.5 * torch.randn(count, 2, generator=generator, dtype=torch.float64)
    a = solve(velocity, eps, steps=20, step=rk4_step)
    div = partial(hutchinson_divergence, probe=eps)
    return -log_likelihood(velocity, normal(0.5).log_prob, a, steps=20, div=div).mean()


# %% 3 | wrong | only the probe repaired
def entropy_of_samples(velocity, count, generator):
    eps = 0.5 * torch.randn(count, 2, generator=generator, dtype=torch.float64)
    a = solve(velocity, eps, steps=20, step=rk4_step)
    probe = torch.randn(count, 2, generator=generator, dtype=torch.float64)
    div = partial(hutchinson_divergence, probe=probe)
    return -log_likelihood(velocity, normal(1.0).log_prob, a, steps=20, div=div).mean()


# %% 3 | wrong | a probe of the right size that is still the noise
def entropy_of_samples(velocity, count, generator):
    eps = 0.5 * torch.randn(count, 2, generator=generator, dtype=torch.float64)
    a = solve(velocity, eps, steps=20, step=rk4_step)
    div = partial(hutchinson_divergence, probe=eps / 0.5)
    return -log_likelihood(velocity, normal(0.5).log_prob, a, steps=20, div=div).mean()


# %% 3 | wrong | changes the noise instead of the density
def entropy_of_samples(velocity, count, generator):
    eps = torch.randn(count, 2, generator=generator, dtype=torch.float64)
    a = solve(velocity, eps, steps=20, step=rk4_step)
    return -log_likelihood(velocity, normal(1.0).log_prob, a, steps=20).mean()


# %% 3 | wrong | signs of the noise as probes
def entropy_of_samples(velocity, count, generator):
    eps = 0.5 * torch.randn(count, 2, generator=generator, dtype=torch.float64)
    a = solve(velocity, eps, steps=20, step=rk4_step)
    div = partial(hutchinson_divergence, probe=eps.sign())
    return -log_likelihood(velocity, normal(0.5).log_prob, a, steps=20, div=div).mean()


# %% 3 | wrong | the same probe, (1, 1), for all rows
def entropy_of_samples(velocity, count, generator):
    eps = 0.5 * normals(count, 2, generator)
    a = solve(velocity, eps, steps=20, step=rk4_step)
    div = partial(hutchinson_divergence, probe=torch.ones_like(eps))
    return -log_likelihood(velocity, normal(0.5).log_prob, a, steps=20, div=div).mean()


# %% 3 | right | the exact divergence
def entropy_of_samples(velocity, count, generator):
    eps = 0.5 * torch.randn(count, 2, generator=generator, dtype=torch.float64)
    a = solve(velocity, eps, steps=20, step=rk4_step)
    return -log_likelihood(velocity, normal(0.5).log_prob, a, steps=20).mean()


# %% 3 | right | the noise of the row above, which is independent
def entropy_of_samples(velocity, count, generator):
    eps = 0.5 * normals(count, 2, generator)
    a = solve(velocity, eps, steps=20, step=rk4_step)
    div = partial(hutchinson_divergence, probe=2 * eps.roll(1, 0))
    return -log_likelihood(velocity, normal(0.5).log_prob, a, steps=20, div=div).mean()


# %% 3 | right | normal probes
def entropy_of_samples(velocity, count, generator):
    eps = 0.5 * normals(count, 2, generator)
    a = solve(velocity, eps, steps=20, step=rk4_step)
    div = partial(hutchinson_divergence, probe=normals(count, 2, generator))
    return -log_likelihood(velocity, normal(0.5).log_prob, a, steps=20, div=div).mean()


# %% 4 | wrong | one step too few for Euler on VE
def prediction():
    return 1, 6, 4


# %% 4 | wrong | Heun stretches no distance, but its factor is above 1
def prediction():
    return 1, 7, 3


# %% 4 | wrong | Euler and Heun taken for the same
def prediction():
    return 1, 7, 7


# %% 4 | wrong | the linear path needs many steps, as for the blobs
def prediction():
    return 8, 7, 4


# %% 4 | right | from the rate
def prediction():
    rate = math.log(1000)
    return 1, math.ceil(rate), math.ceil(rate / 2)


# %% 4 | right | as floats
def prediction():
    return 1.0, 7.0, 4.0


# %% 5 | wrong | the noise of the new time
def ddim_solve(path, posterior_mean, a, times):
    for t, r in pairwise(times):
        m = posterior_mean(a, column(a, t.item()))
        eps = (a - path.mu(r) * m) / path.sigma(t)
        a = path.mu(r) * m + path.sigma(r) * eps
    return a


# %% 5 | wrong | forgets mu in the noise
def ddim_solve(path, posterior_mean, a, times):
    for t, r in pairwise(times):
        m = posterior_mean(a, column(a, t.item()))
        eps = (a - m) / path.sigma(t)
        a = path.mu(r) * m + path.sigma(r) * eps
    return a


# %% 5 | wrong | the linear path's step on every path
def ddim_solve(path, posterior_mean, a, times):
    for t, r in pairwise(times):
        m = posterior_mean(a, column(a, t.item()))
        a = a + (r - t) * (a - m) / t
    return a


# %% 5 | wrong | Euler along the path's own velocity
def ddim_solve(path, posterior_mean, a, times):
    def velocity(a, t):
        return path.velocity_from_mean(posterior_mean(a, t), a, t)

    return walk(velocity, a, times, euler_step)


# %% 5 | wrong | asks for m at the new time
def ddim_solve(path, posterior_mean, a, times):
    for t, r in pairwise(times):
        m = posterior_mean(a, column(a, r.item()))
        eps = (a - path.mu(t) * m) / path.sigma(t)
        a = path.mu(r) * m + path.sigma(r) * eps
    return a


# %% 5 | right | as one line
def ddim_solve(path, posterior_mean, a, times):
    for t, r in pairwise(times):
        keep = path.sigma(r) / path.sigma(t)
        m = posterior_mean(a, t.expand_as(a[..., :1]))
        a = keep * a + (path.mu(r) - keep * path.mu(t)) * m
    return a


# %% 5 | right | Euler's step in b and rho
def ddim_solve(path, posterior_mean, a, times):
    for t, r in pairwise(times):
        m = posterior_mean(a, column(a, t.item()))
        b, noise = a / path.mu(t).clamp(min=1e-12), (a - path.mu(t) * m) / path.sigma(t)
        later = b + (ratio(path, r) - ratio(path, t)) * noise if path.mu(t) > 0 else m
        a = path.mu(r) * (later if path.mu(t) > 0 else m + ratio(path, r) * noise)
    return a


# %% 6 | wrong | the mean log density, which the task rules out
def entropy_by_divergence(velocity, a0, generator):
    return -blobs.log_prob(a0).mean()


# %% 6 | wrong | adds the growth
def entropy_by_divergence(velocity, a0, generator):
    t = torch.rand(len(a0), 1, generator=generator).double()
    eps = normals(len(a0), 2, generator)
    growth = divergence(velocity, linear.noise(a0, eps, t), t).mean()
    return math.log(2 * math.pi * math.e) + growth


# %% 6 | wrong | forgets the entropy of the noise
def entropy_by_divergence(velocity, a0, generator):
    t = torch.rand(len(a0), 1, generator=generator).double()
    eps = normals(len(a0), 2, generator)
    return -divergence(velocity, linear.noise(a0, eps, t), t).mean()


# %% 6 | wrong | the divergence at the data alone
def entropy_by_divergence(velocity, a0, generator):
    t = torch.rand(len(a0), 1, generator=generator).double()
    return math.log(2 * math.pi * math.e) - divergence(velocity, a0, t).mean()


# %% 6 | wrong | the entropy of one dimension
def entropy_by_divergence(velocity, a0, generator):
    t = (torch.arange(len(a0)) + 0.5).double()[:, None] / len(a0)
    eps = normals(len(a0), 2, generator)
    growth = divergence(velocity, linear.noise(a0, eps, t), t).mean()
    return 0.5 * math.log(2 * math.pi * math.e) - growth


# %% 6 | wrong | the noise itself as the probe
def entropy_by_divergence(velocity, a0, generator):
    n = len(a0)
    t = (torch.arange(n) + 0.5).double()[:, None] / n
    eps = normals(n, 2, generator)
    growth = hutchinson_divergence(velocity, linear.noise(a0, eps, t), t, eps).mean()
    return math.log(2 * math.pi * math.e) - growth


# %% 6 | wrong | a likelihood along the lines of the given velocity
def entropy_by_divergence(velocity, a0, generator):
    return -log_likelihood(velocity, normal(1.0).log_prob, a0[:500], steps=20).mean()


# %% 6 | right | Hutchinson's estimate with normal probes, middles of the slots
def entropy_by_divergence(velocity, a0, generator):
    t = (torch.arange(len(a0)) + 0.5).double()[:, None] / len(a0)
    a = linear.noise(a0, normals(len(a0), 2, generator), t)
    signs = 2.0 * torch.randint(0, 2, a.shape, generator=generator).double() - 1
    growth = torch.stack(
        [hutchinson_divergence(velocity, a, t, probe) for probe in (signs, signs * doubles(1, -1))]
    )
    return math.log(2 * math.pi) + 1 - growth.mean()


# %% 6 | right | time by time
def entropy_by_divergence(velocity, a0, generator):
    total = 0.0
    for t in (torch.arange(100) + 0.5).double() / 100:
        some = a0[torch.randint(len(a0), (200,), generator=generator)]
        a = (1 - t) * some + t * normals(200, 2, generator)
        total = total + divergence(velocity, a, column(a, t.item())).mean() / 100
    return math.log(2 * math.pi * math.e) - total
