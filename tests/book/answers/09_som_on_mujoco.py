"""Answers to the exercises of chapter 09; tests/book/test_exercises.py says how they are tried."""


# %% 1 | wrong | draws without replacement, which always gives the same mean
def interval(values, generator, draws=4000):
    chosen = [generator.permutation(len(values)) for _ in range(draws)]
    return np.percentile(values[np.array(chosen)].mean(1), [2.5, 97.5])


# %% 1 | wrong | the middle 90 %
def interval(values, generator, draws=4000):
    chosen = generator.integers(len(values), size=(draws, len(values)))
    return np.percentile(values[chosen].mean(1), [5, 95])


# %% 1 | wrong | where single seeds lie, not their mean
def interval(values, generator, draws=4000):
    return np.percentile(values[generator.integers(len(values), size=draws)], [2.5, 97.5])


# %% 1 | wrong | two standard deviations
def interval(values, generator, draws=4000):
    return values.mean() - 1.96 * values.std(ddof=1), values.mean() + 1.96 * values.std(ddof=1)


# %% 1 | wrong | a normal's interval around the mean
def interval(values, generator, draws=4000):
    half = 1.96 * values.std() / np.sqrt(len(values))
    return values.mean() - half, values.mean() + half


# %% 1 | wrong | draws one seed too few
def interval(values, generator, draws=4000):
    chosen = generator.integers(len(values), size=(draws, len(values) - 1))
    return np.percentile(values[chosen].mean(1), [2.5, 97.5])


# %% 1 | right | choice, in a loop, and quantiles
def interval(values, generator, draws=4000):
    means = [generator.choice(values, len(values)).mean() for _ in range(draws)]
    return tuple(np.quantile(means, [0.025, 0.975]))


# %% 1 | right | by sorting
def interval(values, generator, draws=4000):
    chosen = generator.integers(0, len(values), size=(len(values), draws))
    means = np.sort(np.mean(values[chosen], axis=0))
    return means[int(0.025 * draws)], means[int(0.975 * draws)]


# %% 2 | wrong | only the clip is mended
def collect(env, policy, replay, steps, noise):
    obs, _ = env.reset(seed=0)
    for _ in range(steps):
        action = np.clip(policy(obs) + noise(), -1, 1)
        next_obs, reward, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            next_obs, _ = env.reset()
        replay.add(obs, action, reward, next_obs, terminated or truncated)
        obs = next_obs


# %% 2 | wrong | stores a time limit as an end
def collect(env, policy, replay, steps, noise):
    obs, _ = env.reset(seed=0)
    for _ in range(steps):
        action = np.clip(policy(obs) + noise(), -1, 1)
        next_obs, reward, terminated, truncated, _ = env.step(action)
        replay.add(obs, action, reward, next_obs, terminated or truncated)
        obs = env.reset()[0] if terminated or truncated else next_obs


# %% 2 | wrong | never begins a new episode
def collect(env, policy, replay, steps, noise):
    obs, _ = env.reset(seed=0)
    for _ in range(steps):
        action = np.clip(policy(obs) + noise(), -1, 1)
        next_obs, reward, terminated, _, _ = env.step(action)
        replay.add(obs, action, reward, next_obs, terminated)
        obs = env.reset()[0] if terminated else next_obs


# %% 2 | wrong | stores the action before the noise
def collect(env, policy, replay, steps, noise):
    obs, _ = env.reset(seed=0)
    for _ in range(steps):
        action = policy(obs)
        done = np.clip(action + noise(), -1, 1)
        next_obs, reward, terminated, truncated, _ = env.step(done)
        replay.add(obs, action, reward, next_obs, terminated)
        obs = env.reset()[0] if terminated or truncated else next_obs


# %% 2 | wrong | nothing is ever an end
def collect(env, policy, replay, steps, noise):
    obs, _ = env.reset(seed=0)
    for _ in range(steps):
        action = np.clip(policy(obs) + noise(), -1, 1)
        next_obs, reward, terminated, truncated, _ = env.step(action)
        replay.add(obs, action, reward, next_obs, terminated and truncated)
        obs = env.reset()[0] if terminated or truncated else next_obs


# %% 2 | wrong | begins anew only where it is cut off
def collect(env, policy, replay, steps, noise):
    obs, _ = env.reset(seed=0)
    for _ in range(steps):
        action = np.clip(policy(obs) + noise(), -1, 1)
        next_obs, reward, terminated, truncated, _ = env.step(action)
        replay.add(obs, action, reward, next_obs, terminated)
        obs = env.reset()[0] if truncated else next_obs


# %% 2 | wrong | leaves out the noise
def collect(env, policy, replay, steps, noise):
    obs, _ = env.reset(seed=0)
    for _ in range(steps):
        action = np.clip(policy(obs), -1, 1)
        next_obs, reward, terminated, truncated, _ = env.step(action)
        replay.add(obs, action, reward, next_obs, terminated)
        obs = env.reset()[0] if terminated or truncated else next_obs


# %% 2 | right | an episode a turn of an outer loop
def collect(env, policy, replay, steps, noise):
    stored = 0
    while stored < steps:
        obs, over = env.reset(seed=stored)[0], False
        while not over and stored < steps:
            action = np.minimum(1, np.maximum(-1, policy(obs) + noise()))
            after, reward, terminated, truncated, _ = env.step(action)
            replay.add(obs, action, reward, after, terminated)
            obs, over, stored = after, terminated or truncated, stored + 1


# %% 2 | right | resets at the top of the next turn
def collect(env, policy, replay, steps, noise):
    done = True
    for _ in range(steps):
        if done:
            obs, _ = env.reset()
        action = (policy(obs) + noise()).clip(-1, 1)
        next_obs, reward, terminated, truncated, _ = env.step(action)
        replay.add(obs, action, reward, next_obs, terminated)
        obs, done = next_obs, terminated or truncated


# %% 3 | wrong | half the temperature, so four candidates
def smallest_n():
    return 4


# %% 3 | wrong | one candidate is the policy itself
def smallest_n():
    return 1


# %% 3 | wrong | compares medians with the mean, from N = 2 on
def smallest_n():
    wanted, N = 1 / math.tanh(4) - 1 / 4, 2
    while 1 - 2 * torch.sigmoid(2 * grid).pow(N).mean() < wanted:
        N += 1
    return N


# %% 3 | right | by simulation
def smallest_n():
    wanted = boltzmann_draws(4, (200_000,)).mean()
    return next(n for n in range(1, 50) if boltzmann_draws(2, (200_000, n)).amax(1).mean() > wanted)


# %% 3 | right | by the density of the best
def smallest_n():
    weight = torch.exp(2 * grid)
    weight = weight / weight.sum()
    below, goal = weight.cumsum(0), 1 / math.tanh(4) - 0.25
    for n in range(1, 100):
        best = torch.diff(below**n, prepend=torch.zeros(1, dtype=torch.float64))
        if (best * grid).sum() >= goal:
            return n


# %% 4 | wrong | the median of the best, not its mean
def expected_excess(m, sigma):
    return sigma * torch.special.ndtri(torch.tensor(0.5 ** (1 / m), dtype=torch.float64)).item()


# %% 4 | wrong | the usual bound for many rows
def expected_excess(m, sigma):
    return sigma * math.sqrt(2 * math.log(m))


# %% 4 | wrong | forgets the factor m
def expected_excess(m, sigma):
    x = torch.linspace(-8, 8, 16001, dtype=torch.float64)
    density = torch.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    return sigma * torch.trapezoid(x * torch.special.ndtr(x) ** (m - 1) * density, x).item()


# %% 4 | wrong | the spread does not enter
def expected_excess(m, sigma):
    x = torch.linspace(-8, 8, 16001, dtype=torch.float64)
    density = torch.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    return torch.trapezoid(x * m * torch.special.ndtr(x) ** (m - 1) * density, x).item()


# %% 4 | right | from the distribution function alone
def expected_excess(m, sigma):
    x = torch.linspace(0, 8, 8001, dtype=torch.float64)
    above = 1 - torch.special.ndtr(x) ** m
    below = torch.special.ndtr(-x) ** m
    return sigma * torch.trapezoid(above - below, x).item()


# %% 4 | right | mean of quantiles
def expected_excess(m, sigma):
    p = (np.arange(400_000) + 0.5) / 400_000
    return sigma * torch.special.ndtri(torch.from_numpy(p ** (1 / m))).mean().item()


# %% 5 | wrong | the seed is left as it was
def extended(config):
    return dataclasses.replace(config, steps=2 * config.steps)


# %% 5 | wrong | twice the steps by twice the updates
def extended(config):
    return dataclasses.replace(config, seed=100, utd=2 * config.utd)


# %% 5 | wrong | only the seed
def extended(config):
    return dataclasses.replace(config, seed=100)


# %% 5 | wrong | evaluates half as often as well
def extended(config):
    return dataclasses.replace(
        config, seed=100, steps=2 * config.steps, eval_every=2 * config.eval_every
    )


# %% 5 | right | by way of a dictionary
def extended(config):
    settings = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    return type(config)(**{**settings, "seed": 100, "steps": config.steps * 2})


# %% 5 | right | in two steps
def extended(config):
    other = dataclasses.replace(config, seed=100)
    return dataclasses.replace(other, steps=config.steps + config.steps)
