"""Answers to the exercises of chapter 07; the form is in tests/book/test_exercises.py."""


# %% 1 | wrong | shapes are not looked at
def td_target(reward, terminated, next_q, gamma):
    return reward + gamma * (1 - terminated) * next_q


# %% 1 | wrong | the end is forgotten
def td_target(reward, terminated, next_q, gamma):
    if not reward.shape == terminated.shape == next_q.shape:
        raise ValueError("shapes differ")
    return reward + gamma * next_q


# %% 1 | wrong | the mask the wrong way round
def td_target(reward, terminated, next_q, gamma):
    if not reward.shape == terminated.shape == next_q.shape:
        raise ValueError("shapes differ")
    return reward + gamma * terminated * next_q


# %% 1 | wrong | the reward of the last step is masked too
def td_target(reward, terminated, next_q, gamma):
    if not reward.shape == terminated.shape == next_q.shape:
        raise ValueError("shapes differ")
    return (1 - terminated) * (reward + gamma * next_q)


# %% 1 | wrong | compares numbers of elements, not shapes
def td_target(reward, terminated, next_q, gamma):
    if not reward.numel() == terminated.numel() == next_q.numel():
        raise ValueError("shapes differ")
    return reward + gamma * (1 - terminated) * next_q


# %% 1 | wrong | looks at next_q only
def td_target(reward, terminated, next_q, gamma):
    if next_q.shape != terminated.shape:
        raise ValueError("shapes differ")
    return reward + gamma * (1 - terminated) * next_q


# %% 1 | wrong | the discount on the mask only
def td_target(reward, terminated, next_q, gamma):
    if not reward.shape == terminated.shape == next_q.shape:
        raise ValueError("shapes differ")
    return reward + (1 - gamma * terminated) * next_q


# %% 1 | right | where
def td_target(reward, terminated, next_q, gamma):
    if len({reward.shape, terminated.shape, next_q.shape}) > 1:
        raise ValueError("three tensors of one shape, please")
    return torch.where(terminated > 0, reward, reward + gamma * next_q)


# %% 1 | right | in place
def td_target(reward, terminated, next_q, gamma):
    for other in (terminated, next_q):
        if other.shape != reward.shape:
            raise ValueError(f"{tuple(other.shape)} is not the shape of the reward")
    y = gamma * next_q
    y[terminated == 1] = 0
    return y + reward


# %% 2 | wrong | the worst
def best_of_n(critic, obs, candidates):
    if candidates.shape[1] == 1:
        return candidates[:, 0]
    q = critic.min(obs[:, None], candidates)
    return candidates[torch.arange(len(q)), q.argmin(dim=1)]


# %% 2 | wrong | the mean of both critics
def best_of_n(critic, obs, candidates):
    if candidates.shape[1] == 1:
        return candidates[:, 0]
    critic.min(obs[:, None], candidates)
    q = critic(obs[:, None], candidates).mean(0)
    return candidates[torch.arange(len(q)), q.argmax(dim=1)]


# %% 2 | wrong | the greater of both critics
def best_of_n(critic, obs, candidates):
    if candidates.shape[1] == 1:
        return candidates[:, 0]
    q = critic(obs[:, None], candidates).amax(0)
    return candidates[torch.arange(len(q)), q.argmax(dim=1)]


# %% 2 | wrong | all candidates of all states, (B, B, act)
def best_of_n(critic, obs, candidates):
    if candidates.shape[1] == 1:
        return candidates[:, 0]
    q = critic.min(obs[:, None], candidates)
    return candidates[:, q.argmax(dim=1)]


# %% 2 | wrong | one call per candidate
def best_of_n(critic, obs, candidates):
    if candidates.shape[1] == 1:
        return candidates[:, 0]
    q = torch.stack([critic.min(obs, a) for a in candidates.unbind(1)], 1)
    return candidates[torch.arange(len(q)), q.argmax(dim=1)]


# %% 2 | wrong | the value in place of the action
def best_of_n(critic, obs, candidates):
    if candidates.shape[1] == 1:
        return candidates[:, 0]
    return critic.min(obs[:, None], candidates).amax(dim=1, keepdim=True)


# %% 2 | wrong | asks for a single candidate too
def best_of_n(critic, obs, candidates):
    q = critic.min(obs[:, None], candidates)
    return candidates[torch.arange(len(q)), q.argmax(dim=1)]


# %% 2 | wrong | one critic only
def best_of_n(critic, obs, candidates):
    if candidates.shape[1] == 1:
        return candidates[:, 0]
    q = critic.q1(obs[:, None], candidates)
    return candidates[torch.arange(len(q)), q.argmax(dim=1)]


# %% 2 | right | gather
def best_of_n(critic, obs, candidates):
    if candidates.shape[1] == 1:
        return candidates.squeeze(1)
    k = critic.min(obs.unsqueeze(1), candidates).argmax(1)
    index = k[:, None, None].expand(-1, 1, candidates.shape[-1])
    return candidates.gather(1, index).squeeze(1)


# %% 2 | right | copies of the states, a list of picks
def best_of_n(critic, obs, candidates):
    B, n, d = candidates.shape
    if n == 1:
        return candidates.reshape(B, d)
    q = critic.min(obs.repeat_interleave(n, 0), candidates.reshape(B * n, d)).view(B, n)
    return torch.stack([row[k] for row, k in zip(candidates, q.max(1).indices, strict=True)])


# %% 3 | wrong | two passes
def joint_pass(net, batch, next_action):
    q = net.in_batch(batch.obs, batch.action)
    return q, net.in_batch(batch.next_obs, next_action)


# %% 3 | wrong | running statistics
def joint_pass(net, batch, next_action):
    obs = torch.cat([batch.obs, batch.next_obs])
    both = net(obs, torch.cat([batch.action, next_action]))
    return both[: len(next_action)], both[len(next_action) :]


# %% 3 | wrong | the old actions twice
def joint_pass(net, batch, next_action):
    obs = torch.cat([batch.obs, batch.next_obs])
    both = net.in_batch(obs, torch.cat([batch.action, batch.action]))
    return both[: len(next_action)], both[len(next_action) :]


# %% 3 | wrong | the halves exchanged
def joint_pass(net, batch, next_action):
    obs = torch.cat([batch.next_obs, batch.obs])
    both = net.in_batch(obs, torch.cat([next_action, batch.action]))
    return both[: len(next_action)], both[len(next_action) :]


# %% 3 | wrong | states and actions in different order
def joint_pass(net, batch, next_action):
    obs = torch.cat([batch.obs, batch.next_obs])
    both = net.in_batch(obs, torch.cat([next_action, batch.action]))
    return both[: len(next_action)], both[len(next_action) :]


# %% 3 | wrong | the present state with the next action
def joint_pass(net, batch, next_action):
    obs = torch.cat([batch.obs, batch.obs])
    both = net.in_batch(obs, torch.cat([batch.action, next_action]))
    return both[: len(next_action)], both[len(next_action) :]


# %% 3 | wrong | the joint pass twice
def joint_pass(net, batch, next_action):
    obs = torch.cat([batch.obs, batch.next_obs])
    a = torch.cat([batch.action, next_action])
    n = len(next_action)
    return net.in_batch(obs, a)[:n], net.in_batch(obs, a)[n:]


# %% 3 | right | chunk
def joint_pass(net, batch, next_action):
    pairs = zip((batch.obs, batch.action), (batch.next_obs, next_action), strict=True)
    return net.in_batch(*(torch.cat(pair) for pair in pairs)).chunk(2)


# %% 3 | right | the policy's half first
def joint_pass(net, batch, next_action):
    n = len(next_action)
    both = net.in_batch(
        torch.vstack([batch.next_obs, batch.obs]), torch.vstack([next_action, batch.action])
    )
    return both[n:], both[:n]


# %% 3 | right | stacked, then made flat
def joint_pass(net, batch, next_action):
    obs = torch.stack([batch.obs, batch.next_obs]).flatten(0, 1)
    a = torch.stack([batch.action, next_action]).flatten(0, 1)
    return tuple(net.in_batch(obs, a).view(2, -1))


# %% 4 | wrong | the same share everywhere
def stop_share(chances):
    return torch.full_like(chances[0], 1 / len(chances))


# %% 4 | wrong | the chance of being there at the last step
def stop_share(chances):
    return chances[-1]


# %% 4 | wrong | normalised over places
def stop_share(chances):
    return chances[-1] / chances[-1].sum()


# %% 4 | wrong | the last step against the others
def stop_share(chances):
    return chances[-1] / chances[:-1].sum(dim=0)


# %% 4 | wrong | the sum over the wrong dimension
def stop_share(chances):
    return chances[-1] / chances.sum(dim=1)[-1]


# %% 4 | wrong | the first step
def stop_share(chances):
    return chances[0] / chances.sum(dim=0)


# %% 4 | wrong | over the mean, not the sum
def stop_share(chances):
    return chances[-1] / chances.mean(dim=0)


# %% 4 | right | normalised first
def stop_share(chances):
    return (chances / chances.sum(0, keepdim=True))[-1]


# %% 4 | right | odds
def stop_share(chances):
    *before, last = chances
    return last / (last + sum(before))


# %% 5 | wrong | the maximum
def expected_best(q, n):
    return q.max(dim=1).values


# %% 5 | wrong | not sorted
def expected_best(q, n):
    edges = torch.arange(q.shape[1] + 1, dtype=q.dtype) / q.shape[1]
    return q @ (edges**n).diff()


# %% 5 | wrong | the best of n without replacement
def expected_best(q, n):
    import math

    A = q.shape[1]
    ways = [math.comb(k, n - 1) for k in range(A)]
    return q.sort(dim=1).values @ torch.tensor(ways, dtype=q.dtype) / math.comb(A, n)


# %% 5 | wrong | the worst of n
def expected_best(q, n):
    edges = torch.arange(q.shape[1] + 1, dtype=q.dtype) / q.shape[1]
    return q.sort(dim=1, descending=True).values @ (edges**n).diff()


# %% 5 | wrong | a thousand draws
def expected_best(q, n):
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(q.shape[1], (1000, n), generator=generator)
    return q[:, drawn].amax(2).mean(1)


# %% 5 | wrong | ranks from 0
def expected_best(q, n):
    edges = (torch.arange(q.shape[1], dtype=q.dtype)) / q.shape[1]
    weights = torch.cat([edges[:1] ** n, (edges**n).diff()])
    return q.sort(dim=1).values @ weights


# %% 5 | wrong | equal values counted once
def expected_best(q, n):
    found = []
    for row in q:
        values = row.unique()
        edges = torch.arange(len(values) + 1, dtype=q.dtype) / len(values)
        found.append(values @ (edges**n).diff())
    return torch.stack(found)


# %% 5 | right | the sum by parts
def expected_best(q, n):
    A = q.shape[1]
    values = q.sort(dim=1).values
    below = (torch.arange(1, A, dtype=q.dtype) / A) ** n
    return values[:, -1] - (values.diff(dim=1) * below).sum(1)


# %% 5 | right | a loop over ranks
def expected_best(q, n):
    A, total = q.shape[1], 0
    for k, column in enumerate(q.sort(dim=1).values.unbind(1), start=1):
        total = total + ((k / A) ** n - ((k - 1) / A) ** n) * column
    return total


# %% 5 | right | from the distribution function
def expected_best(q, n):
    values = q.sort(dim=1).values
    below = (values[:, :, None] >= values[:, None, :]).double().mean(2) ** n
    jumps = torch.diff(below, dim=1, prepend=torch.zeros(len(q), 1, dtype=q.dtype))
    return (values * jumps).sum(1)


# %% 6 | wrong | the last bias alone
def blind_mean(net):
    return net.linears[-1].bias


def settles_at(mean_reward, gamma):
    return mean_reward / (1 - gamma)


# %% 6 | wrong | features of mean zero, the slopes in place of the shifts
def blind_mean(net):
    return net.linears[-1](net.norms[-1].weight)


def settles_at(mean_reward, gamma):
    return mean_reward / (1 - gamma)


# %% 6 | wrong | running statistics at one input
def blind_mean(net):
    return net(torch.zeros(1), torch.zeros(1))


def settles_at(mean_reward, gamma):
    return mean_reward / (1 - gamma)


# %% 6 | wrong | no feedback of the value
def blind_mean(net):
    return net.linears[-1](net.norms[-1].bias)


def settles_at(mean_reward, gamma):
    return mean_reward


# %% 6 | wrong | one step ahead only
def blind_mean(net):
    return net.linears[-1](net.norms[-1].bias)


def settles_at(mean_reward, gamma):
    return mean_reward * (1 + gamma)


# %% 6 | wrong | a discount too many
def blind_mean(net):
    return net.linears[-1](net.norms[-1].bias)


def settles_at(mean_reward, gamma):
    return gamma * mean_reward / (1 - gamma)


# %% 6 | right | written as a sum
def blind_mean(net):
    last, shift = net.linears[-1], net.norms[-1].bias
    return (last.weight[0] * shift).sum() + last.bias[0]


def settles_at(mean_reward, gamma):
    return -mean_reward / (gamma - 1)


# %% 6 | right | measured with one batch, a fixed point by repetition
def blind_mean(net):
    probe = copy.deepcopy(net)
    x = torch.linspace(-1, 1, 101)[:, None]
    return probe.in_batch(x, x.square()).mean().item()


def settles_at(mean_reward, gamma):
    c = 0.0
    for _ in range(2000):
        c = mean_reward + gamma * c
    return c
