"""Answers to the exercises of chapter 02; the form is in tests/book/test_exercises.py."""


# %% 1 | wrong | the point does not move
def meanflow_target(u, a, r, t, v):
    tangents = (torch.zeros_like(v), torch.zeros_like(r), torch.ones_like(t))
    with torch.no_grad():
        return v - (t - r) * torch.func.jvp(u, (a, r, t), tangents)[1]


# %% 1 | wrong | r moves instead of t
def meanflow_target(u, a, r, t, v):
    tangents = (v, torch.ones_like(r), torch.zeros_like(t))
    with torch.no_grad():
        return v - (t - r) * torch.func.jvp(u, (a, r, t), tangents)[1]


# %% 1 | wrong | both times move
def meanflow_target(u, a, r, t, v):
    tangents = (v, torch.ones_like(r), torch.ones_like(t))
    with torch.no_grad():
        return v - (t - r) * torch.func.jvp(u, (a, r, t), tangents)[1]


# %% 1 | wrong | the sign of the derivative
def meanflow_target(u, a, r, t, v):
    tangents = (v, torch.zeros_like(r), torch.ones_like(t))
    with torch.no_grad():
        return v + (t - r) * torch.func.jvp(u, (a, r, t), tangents)[1]


# %% 1 | wrong | the factor t - r forgotten
def meanflow_target(u, a, r, t, v):
    tangents = (v, torch.zeros_like(r), torch.ones_like(t))
    with torch.no_grad():
        return v - torch.func.jvp(u, (a, r, t), tangents)[1]


# %% 1 | wrong | carries a gradient
def meanflow_target(u, a, r, t, v):
    tangents = (v, torch.zeros_like(r), torch.ones_like(t))
    return v - (t - r) * torch.func.jvp(u, (a, r, t), tangents)[1]


# %% 1 | wrong | the point moves at u
def meanflow_target(u, a, r, t, v):
    with torch.no_grad():
        tangents = (u(a, r, t), torch.zeros_like(r), torch.ones_like(t))
        return v - (t - r) * torch.func.jvp(u, (a, r, t), tangents)[1]


# %% 1 | wrong | returns u itself, which the true u would pass
def meanflow_target(u, a, r, t, v):
    return u(a, r, t).detach()


# %% 1 | right | detached at the end
def meanflow_target(u, a, r, t, v):
    _, du_dt = torch.func.jvp(u, (a, r, t), (v, 0 * r, 0 * t + 1))
    return (v - (t - r) * du_dt).detach()


# %% 1 | right | r left out of the JVP
def meanflow_target(u, a, r, t, v):
    with torch.no_grad():
        _, rate = torch.func.jvp(lambda a, t: u(a, r, t), (a, t), (v, torch.ones_like(t)))
    return v + (r - t) * rate


# %% 1 | right | transport term and time apart
@torch.no_grad()
def meanflow_target(u, a, r, t, v):
    transport_term = torch.func.jvp(lambda a: u(a, r, t), (a,), (v,))[1]
    in_time = torch.func.jvp(lambda t: u(a, r, t), (t,), (torch.ones_like(t),))[1]
    return v - (t - r) * (transport_term + in_time)


# %% 2 | wrong | the ratio of the variances, not of their roots
def gaussian_u(a, r, t, b, Sigma):
    variances, axes = torch.linalg.eigh(Sigma)
    V_r, V_t = ((1 - time) ** 2 * variances + time**2 for time in (r, t))
    end = (1 - r) * b + ((a - (1 - t) * b) @ axes * V_r / V_t) @ axes.T
    return (a - end) / (t - r)


# %% 2 | wrong | the instantaneous velocity
def gaussian_u(a, r, t, b, Sigma):
    return gaussian_velocity(a, t, b, Sigma)


# %% 2 | wrong | the mean does not move
def gaussian_u(a, r, t, b, Sigma):
    variances, axes = torch.linalg.eigh(Sigma)
    std_r, std_t = (((1 - time) ** 2 * variances + time**2).sqrt() for time in (r, t))
    return (a - b - ((a - b) @ axes * std_r / std_t) @ axes.T) / (t - r)


# %% 2 | wrong | the displacement
def gaussian_u(a, r, t, b, Sigma):
    variances, axes = torch.linalg.eigh(Sigma)
    std_r, std_t = (((1 - time) ** 2 * variances + time**2).sqrt() for time in (r, t))
    return a - (1 - r) * b - ((a - (1 - t) * b) @ axes * std_r / std_t) @ axes.T


# %% 2 | wrong | the diagonal alone
def gaussian_u(a, r, t, b, Sigma):
    std_r, std_t = (((1 - time) ** 2 * Sigma.diagonal() + time**2).sqrt() for time in (r, t))
    return (a - (1 - r) * b - (a - (1 - t) * b) * std_r / std_t) / (t - r)


# %% 2 | wrong | one mean variance, as if it were round
def gaussian_u(a, r, t, b, Sigma):
    V_r, V_t = ((1 - time) ** 2 * Sigma.trace() / 2 + time**2 for time in (r, t))
    return (a - (1 - r) * b - (a - (1 - t) * b) * (V_r / V_t).sqrt()) / (t - r)


# %% 2 | wrong | Cholesky's triangular roots: the right crowd, but other lines
def gaussian_u(a, r, t, b, Sigma):
    eye = torch.eye(2, dtype=a.dtype)
    low, high = (
        torch.linalg.cholesky((1 - time[..., None]) ** 2 * Sigma + time[..., None] ** 2 * eye)
        for time in (r, t)
    )
    end = (low @ torch.linalg.solve(high, (a - (1 - t) * b)[..., None]))[..., 0]
    return (a - (1 - r) * b - end) / (t - r)


# %% 2 | wrong | does not turn back
def gaussian_u(a, r, t, b, Sigma):
    variances, axes = torch.linalg.eigh(Sigma)
    std_r, std_t = (((1 - time) ** 2 * variances + time**2).sqrt() for time in (r, t))
    return (a - (1 - r) * b - (a - (1 - t) * b) @ axes * std_r / std_t) / (t - r)


# %% 2 | right | symmetric roots of both matrices
def gaussian_u(a, r, t, b, Sigma):
    def root(time):
        time = time[..., None]
        values, axes = torch.linalg.eigh((1 - time) ** 2 * Sigma + time**2 * torch.eye(2).double())
        return axes * values.sqrt()[..., None, :] @ axes.mT

    eps = torch.linalg.solve(root(t), (a - (1 - t) * b)[..., None])
    return (a - (1 - r) * b - (root(r) @ eps)[..., 0]) / (t - r)


# %% 2 | right | from the growth of the standard deviations
def gaussian_u(a, r, t, b, Sigma):
    _, scale, axes = torch.linalg.svd(Sigma)

    def std(time):
        return torch.sqrt((1 - time) ** 2 * scale + time**2)

    delta = (a - (1 - t) * b) @ axes.T
    return -b + ((std(t) - std(r)) / (t - r) * delta / std(t)) @ axes


# %% 3 | wrong | the printed one
def repaired_sampler(u, eps, steps):
    a, ones = eps, torch.ones_like(eps[..., :1])
    for i in range(steps, 0, -1):
        t, r = ones * (i / steps), ones * ((i - 1) / steps)
        a = a - u(eps, r, t)
    return a


# %% 3 | wrong | only the factor repaired
def repaired_sampler(u, eps, steps):
    a, ones = eps, torch.ones_like(eps[..., :1])
    for i in range(steps, 0, -1):
        t, r = ones * (i / steps), ones * ((i - 1) / steps)
        a = a - (t - r) * u(eps, r, t)
    return a


# %% 3 | wrong | only the point repaired
def repaired_sampler(u, eps, steps):
    a, ones = eps, torch.ones_like(eps[..., :1])
    for i in range(steps, 0, -1):
        t, r = ones * (i / steps), ones * ((i - 1) / steps)
        a = a - u(a, r, t)
    return a


# %% 3 | wrong | ignores the number of steps
def repaired_sampler(u, eps, steps):
    ones = torch.ones_like(eps[..., :1])
    return eps - u(eps, 0 * ones, ones)


# %% 3 | wrong | asks from 0 to t in every step
def repaired_sampler(u, eps, steps):
    a, ones = eps, torch.ones_like(eps[..., :1])
    for i in range(steps, 0, -1):
        a = a - u(a, 0 * ones, ones * (i / steps)) / steps
    return a


# %% 3 | right | divided by the number of steps
def repaired_sampler(u, eps, steps):
    a = eps.clone()
    for i in reversed(range(steps)):
        r = torch.full_like(a[:, :1], i / steps)
        a = a - u(a, r, r + 1 / steps) / steps
    return a


# %% 3 | right | times from linspace
def repaired_sampler(u, eps, steps):
    times = torch.linspace(1, 0, steps + 1, dtype=eps.dtype)
    for t, r in zip(times[:-1], times[1:], strict=True):
        t, r = (time.repeat(len(eps), 1) for time in (t, r))
        eps = eps + (r - t) * u(eps, r, t)
    return eps


# %% 4 | wrong | asks for the answer
def split_target(u, a, r, q, t):
    return u(a, r, t)


# %% 4 | wrong | the second half starts at the first point
def split_target(u, a, r, q, t):
    return ((t - q) * u(a, q, t) + (q - r) * u(a, r, q)) / (t - r)


# %% 4 | wrong | the mean of both, whatever their lengths
def split_target(u, a, r, q, t):
    return (u(a, q, t) + u(a - (t - q) * u(a, q, t), r, q)) / 2


# %% 4 | wrong | walks the wrong way
def split_target(u, a, r, q, t):
    late = (t - q) * u(a, q, t)
    return (late + (q - r) * u(a + late, r, q)) / (t - r)


# %% 4 | wrong | the displacement
def split_target(u, a, r, q, t):
    late = (t - q) * u(a, q, t)
    return late + (q - r) * u(a - late, r, q)


# %% 4 | wrong | the weights exchanged
def split_target(u, a, r, q, t):
    late = u(a, q, t)
    return ((q - r) * late + (t - q) * u(a - (t - q) * late, r, q)) / (t - r)


# %% 4 | wrong | splits in the middle, wherever q is
def split_target(u, a, r, q, t):
    q = (r + t) / 2
    first = u(a, q, t)
    return (first + u(a - (t - q) * first, r, q)) / 2


# %% 4 | right | two jumps, one displacement
def split_target(u, a, r, q, t):
    middle = a - (t - q) * u(a, q, t)
    end = middle - (q - r) * u(middle, r, q)
    return (a - end) / (t - r)


# %% 4 | right | weights that sum to one
def split_target(u, a, r, q, t):
    share = (t - q) / (t - r)
    first = u(a, q, t)
    return torch.lerp(u(a + (q - t) * first, r, q), first, share)


# %% 5 | wrong | the bias in the rate
def mlp_jvp(mlp, z, dz):
    for layer in mlp:
        if isinstance(layer, nn.Linear):
            z, dz = layer(z), layer(dz)
        else:
            s = torch.sigmoid(z)
            z, dz = z * s, dz * s * (1 + z * (1 - s))
    return z, dz


# %% 5 | wrong | the activation applied to the rate
def mlp_jvp(mlp, z, dz):
    for layer in mlp:
        if isinstance(layer, nn.Linear):
            z, dz = layer(z), dz @ layer.weight.T
        else:
            z, dz = layer(z), layer(dz)
    return z, dz


# %% 5 | wrong | the derivative of the sigmoid alone
def mlp_jvp(mlp, z, dz):
    for layer in mlp:
        if isinstance(layer, nn.Linear):
            z, dz = layer(z), dz @ layer.weight.T
        else:
            s = torch.sigmoid(z)
            z, dz = z * s, dz * s * (1 - s)
    return z, dz


# %% 5 | wrong | the product rule by half
def mlp_jvp(mlp, z, dz):
    for layer in mlp:
        if isinstance(layer, nn.Linear):
            z, dz = layer(z), dz @ layer.weight.T
        else:
            s = torch.sigmoid(z)
            z, dz = z * s, dz * s
    return z, dz


# %% 5 | wrong | the derivative at the new value
def mlp_jvp(mlp, z, dz):
    for layer in mlp:
        if isinstance(layer, nn.Linear):
            z, dz = layer(z), dz @ layer.weight.T
        else:
            z = layer(z)
            s = torch.sigmoid(z)
            dz = dz * s * (1 + z * (1 - s))
    return z, dz


# %% 5 | wrong | finite differences in 32 bits
def mlp_jvp(mlp, z, dz):
    h = 3e-3
    return mlp(z), (mlp(z + h * dz) - mlp(z - h * dz)) / (2 * h)


# %% 5 | wrong | asks torch for it
def mlp_jvp(mlp, z, dz):
    return torch.func.jvp(mlp, (z,), (dz,))


# %% 5 | right | with the functions of torch
def mlp_jvp(mlp, z, dz):
    for layer in mlp:
        if hasattr(layer, "weight"):
            dz = torch.nn.functional.linear(dz, layer.weight)
        else:
            dz = dz * (torch.sigmoid(z) + layer(z) * (1 - torch.sigmoid(z)))
        z = layer(z)
    return z, dz


# %% 5 | right | recursive
def mlp_jvp(mlp, z, dz):
    if not len(mlp):
        return z, dz
    layer, *rest = mlp
    if isinstance(layer, nn.SiLU):
        s = (1 + (z / 2).tanh()) / 2
        slope = s + z * s * (1 - s)
        return mlp_jvp(rest, z * s, slope * dz)
    return mlp_jvp(rest, z @ layer.weight.T + layer.bias, dz @ layer.weight.T)


# %% 6 | wrong | asks for the answer
def lower_target(u, v, a, r, t):
    return u(a, r, t)


# %% 6 | wrong | the target of exercise 1
def lower_target(u, v, a, r, t):
    return meanflow_target(u, a, r, t, v(a, t))


# %% 6 | wrong | v at the place where the jump starts
def lower_target(u, v, a, r, t):
    d_r = torch.func.jvp(lambda r: u(a, r, t), (r,), (torch.ones_like(r),))[1]
    return v(a, r) + (t - r) * d_r


# %% 6 | wrong | v at the time when the jump starts
def lower_target(u, v, a, r, t):
    d_r = torch.func.jvp(lambda r: u(a, r, t), (r,), (torch.ones_like(r),))[1]
    return v(a - (t - r) * u(a, r, t), t) + (t - r) * d_r


# %% 6 | wrong | the sign of the derivative
def lower_target(u, v, a, r, t):
    d_r = torch.func.jvp(lambda r: u(a, r, t), (r,), (torch.ones_like(r),))[1]
    return v(a - (t - r) * u(a, r, t), r) - (t - r) * d_r


# %% 6 | wrong | no derivative
def lower_target(u, v, a, r, t):
    return v(a - (t - r) * u(a, r, t), r)


# %% 6 | wrong | the split target, split at the middle
def lower_target(u, v, a, r, t):
    q = (r + t) / 2
    late = (t - q) * u(a, q, t)
    return (late + (q - r) * u(a - late, r, q)) / (t - r)


# %% 6 | wrong | v where the flow line ends, found by a solver
def lower_target(u, v, a, r, t):
    end = solve(v, a, t, r, 64, rk4_step)
    return (
        v(end, r) + (t - r) * torch.func.jvp(lambda x: u(a, x, t), (r,), (torch.ones_like(r),))[1]
    )


# %% 6 | right | one JVP gives value and rate
def lower_target(u, v, a, r, t):
    zero = torch.zeros_like(a), torch.ones_like(r), torch.zeros_like(t)
    average, rate = torch.func.jvp(u, (a, r, t), zero)
    return v(a + (r - t) * average, r) + (t - r) * rate


# %% 6 | right | the rate of the displacement
def lower_target(u, v, a, r, t):
    def end(r):
        return a - (t - r) * u(a, r, t)

    here, speed = torch.func.jvp(end, (r,), (torch.ones_like(r),))
    # end' = u - (t - r) d_r u, which should be v there.
    return u(a, r, t) - speed + v(here, r)
