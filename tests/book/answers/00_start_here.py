"""Answers to the exercises of chapter 00: wrong ones, which its checks reject, and right ones."""


# %% 1 | wrong | forgets to divide by 1 - t
def clean_sample(a_t, eps, t):
    return a_t - t * eps


# %% 1 | wrong | time runs the other way
def clean_sample(a_t, eps, t):
    return (a_t - (1 - t) * eps) / t if t else a_t


# %% 1 | wrong | subtracts all of the noise
def clean_sample(a_t, eps, t):
    return (a_t - eps) / (1 - t)


# %% 1 | wrong | one step with the speed of the pair, with the wrong sign
def clean_sample(a_t, eps, t):
    return eps - (a_t - eps) / (1 - t)


# %% 1 | wrong | keeps the length instead of the mean
def clean_sample(a_t, eps, t):
    return (a_t - t * eps) / (1 - t**2) ** 0.5


# %% 1 | right | from the noise along the line
def clean_sample(a_t, eps, t):
    return eps + (a_t - eps) / (1 - t)


# %% 1 | right | from the point, by the odds of t
def clean_sample(a_t, eps, t):
    return a_t + t / (1 - t) * (a_t - eps)


# %% 2 | wrong | logarithm of the share and not of the odds
def temperature_for(gap, share):
    return -gap / np.log(share)


# %% 2 | wrong | logarithm to base 10
def temperature_for(gap, share):
    return gap / np.log10(share / (1 - share))


# %% 2 | wrong | upside down
def temperature_for(gap, share):
    return np.log(share / (1 - share)) / gap


# %% 2 | wrong | the odds of the worse action
def temperature_for(gap, share):
    return gap / np.log((1 - share) / share)


# %% 2 | right | difference of logarithms
def temperature_for(gap, share):
    return gap / (np.log(share) - np.log1p(-share))


# %% 2 | right | inverse of tanh
def temperature_for(gap, share):
    return gap / (2 * np.arctanh(2 * share - 1))


# %% 2 | right | a tensor
def temperature_for(gap, share):
    return gap / torch.logit(torch.tensor(share, dtype=torch.float64))


# %% 3 | wrong | both bugs
@torch.no_grad()
def one_call(noise, observations):
    zeros, ones = torch.zeros(len(noise), 1), torch.ones(len(noise), 1)
    return (noise + actor(noise, ones, zeros, observations)).clamp(-1, 1)


# %% 3 | wrong | the sign alone repaired
@torch.no_grad()
def one_call(noise, observations):
    zeros, ones = torch.zeros(len(noise), 1), torch.ones(len(noise), 1)
    return (noise - actor(noise, ones, zeros, observations)).clamp(-1, 1)


# %% 3 | wrong | the order alone repaired
@torch.no_grad()
def one_call(noise, observations):
    zeros, ones = torch.zeros(len(noise), 1), torch.ones(len(noise), 1)
    return (noise + actor(noise, zeros, ones, observations)).clamp(-1, 1)


# %% 3 | wrong | the velocity at t = 1 for the average
@torch.no_grad()
def one_call(noise, observations):
    ones = torch.ones(len(noise), 1)
    return (noise - actor(noise, ones, ones, observations)).clamp(-1, 1)


# %% 3 | wrong | forgets the box
@torch.no_grad()
def one_call(noise, observations):
    zeros, ones = torch.zeros(len(noise), 1), torch.ones(len(noise), 1)
    return noise - actor(noise, zeros, ones, observations)


# %% 3 | wrong | the network of the last update, not the average of many
@torch.no_grad()
def one_call(noise, observations):
    zeros, ones = torch.zeros(len(noise), 1), torch.ones(len(noise), 1)
    return (noise - agent.actor(noise, zeros, ones, observations)).clamp(-1, 1)


# %% 3 | right | with gradients
def one_call(noise, observations):
    zeros, ones = torch.zeros(len(noise), 1), torch.ones(len(noise), 1)
    return (noise - actor(noise, zeros, ones, observations)).clamp(-1, 1)


# %% 3 | right | through the package
def one_call(noise, observations):
    with torch.no_grad():
        return torch.clip(sample(lambda a, r, t: actor(a, r, t, observations), noise), -1, 1)


# %% 4 | wrong | narrow at one goal
def two_goals():
    return (3, 0), (0.1, 0.1), 0


# %% 4 | wrong | wide along both axes: the corners
def two_goals():
    return (0, 0), (100, 100), 0


# %% 4 | wrong | round
def two_goals():
    return (0, 0), (0.6, 0.6), 0


# %% 4 | wrong | along the other axis
def two_goals():
    return (0, 0), (0.01, 100), 0


# %% 4 | wrong | as wide as the box and no wider
def two_goals():
    return (0, 0), (0.3, 0.01), 0


# %% 4 | wrong | off the middle
def two_goals():
    return (30, 0), (100, 0.01), 0


# %% 4 | right | arrays, and a spread that is just wide enough
def two_goals():
    return np.array([0.0, 0.0]), np.array([10.0, 0.1]), 0.0


# %% 4 | right | correlated, with next to no spread across
def two_goals():
    return [0.0, 0.01], [50.0, 0.001], 0.9


# %% 5 | wrong | the worst
def favourite(observation, candidates):
    grades = agent.critic.min(observation.expand(len(candidates), -1), candidates)
    return candidates[grades.argmin()]


# %% 5 | wrong | looks from the centre, whatever the state
def favourite(observation, candidates):
    grades = agent.critic.min(torch.zeros(len(candidates), 2), candidates)
    return candidates[grades.argmax()]


# %% 5 | wrong | the candidate that points best at a goal
def favourite(observation, candidates):
    return candidates[(candidates @ good.T).amax(dim=1).argmax()]


# %% 5 | wrong | the first candidate
def favourite(observation, candidates):
    return candidates[0]


# %% 5 | wrong | the mean of the candidates, weighted by their grades
def favourite(observation, candidates):
    grades = agent.critic.min(observation.expand(len(candidates), -1), candidates)
    return (torch.softmax(grades, dim=0)[:, None] * candidates).sum(0)


# %% 5 | wrong | believes the more hopeful of the two critics
def favourite(observation, candidates):
    grades = agent.critic(observation.expand(len(candidates), -1), candidates).max(0).values
    return candidates[grades.argmax()]


# %% 5 | wrong | asks one of the two critics
def favourite(observation, candidates):
    grades = agent.critic(observation.expand(len(candidates), -1), candidates)[0]
    return candidates[grades.argmax()]


# %% 5 | wrong | the mean of the two critics
def favourite(observation, candidates):
    grades = agent.critic(observation.expand(len(candidates), -1), candidates).mean(0)
    return candidates[grades.argmax()]


# %% 5 | right | repeated rows and a sort
def favourite(observation, candidates):
    grades = agent.critic.min(observation[None].repeat(len(candidates), 1), candidates)
    return candidates[torch.argsort(grades)[-1]]


# %% 5 | right | one candidate after the other
def favourite(observation, candidates):
    return max(candidates, key=lambda a: agent.critic.min(observation[None], a[None]).item())


# %% 6 | wrong | forgets to divide by the time
def u_of_one_hump(a, r, t, w):
    def S(t):
        return ((1 - t) ** 2 * w**2 + t**2) ** 0.5

    return a * (1 - S(r) / S(t))


# %% 6 | wrong | variances for standard deviations
def u_of_one_hump(a, r, t, w):
    def S(t):
        return (1 - t) ** 2 * w**2 + t**2

    return a * (1 - S(r) / S(t)) / (t - r)


# %% 6 | wrong | standard deviations added
def u_of_one_hump(a, r, t, w):
    def S(t):
        return (1 - t) * w + t

    return a * (1 - S(r) / S(t)) / (t - r)


# %% 6 | wrong | points towards the data
def u_of_one_hump(a, r, t, w):
    def S(t):
        return ((1 - t) ** 2 * w**2 + t**2) ** 0.5

    return a * (S(r) / S(t) - 1) / (t - r)


# %% 6 | wrong | the velocity at t
def u_of_one_hump(a, r, t, w):
    return a * (t - (1 - t) * w**2) / ((1 - t) ** 2 * w**2 + t**2)


# %% 6 | wrong | the point is taken as noise at t = 1
def u_of_one_hump(a, r, t, w):
    return a * (1 - w)


# %% 6 | right | through the point at r
def u_of_one_hump(a, r, t, w):
    ratio = torch.hypot((1 - r) * w, r) / torch.hypot((1 - t) * w, t)
    return (a - ratio * a) / (t - r)


# %% 6 | right | as one fraction
def u_of_one_hump(a, r, t, w):
    at_r, at_t = (torch.sqrt(torch.square((1 - x) * w) + x * x) for x in (r, t))
    return a * (at_t - at_r) / (at_t * (t - r))
