# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 09 · SOM on MuJoCo: a policy that acts in one step
#
# **What you will do.** You join five ideas into one algorithm, SOM, and check each of them against exact numbers. You
# read the algorithm line by line in the package's own source. You train it live on a task with four right answers, and
# load runs that were recorded on three simulated robots. You compare it with SAC, the usual baseline, and measure what
# it costs. Then you break it in four ways.
#
# **What you will learn.** What a critic is, and how it becomes a density, a score, a velocity and at last an action.
# Why the end of an episode is not always an end. How to read every number that a training logs. What to write down
# beside a learning curve so that others can believe it.
#
# **What you need.** Calculus, probability, PyTorch, and [chapter 02](02_meanflow.ipynb) on MeanFlow. [Chapter
# 06](06_meanflow_from_q.ipynb) helps, since the actor here is its sampler with a state added. No reinforcement learning:
# half a page below holds all that is used.
#
# **Time and hardware.** ≈ 40 s on one CPU core, and never more than 90 s. No GPU. The recorded runs took longer; the
# chapter prints how long, and on what machine.
#
# Previous: [06 · MeanFlow from a Q-function](06_meanflow_from_q.ipynb). Next: [10 · Neighbours](10_neighbours.ipynb).

# %% [markdown]
# ## The idea in one picture
#
# ### Reinforcement learning on half a page
#
# **The loop.** A robot is in a *state* $s$, a vector of angles and speeds. It chooses an *action* $a$, a vector of $d$
# motor torques, each scaled to $[-1,1]$. All actions together form the *box* $[-1,1]^d$. The simulator answers with a
# number, the *reward* $R$, and with the next state $s'$. This repeats. One run from a start to an end is an *episode*,
# and the sum of its rewards is the *return*.
#
# **The policy.** A rule that draws an action for a state is a *policy*, $\pi(a\mid s)$. We want one with a high return.
# Nobody shows us good actions. All we have is what we tried and how it was rewarded.
#
# **The critic.** Call $Q(s,a)$ the expected sum of all later rewards if we take $a$ in $s$ and then follow the policy.
# A reward that comes $k$ steps later counts $\gamma^k$, with a *discount* $\gamma$ a little below 1; so the sum stays
# finite. A network that estimates $Q$ is a *critic*.
#
# **The TD target.** One step of the loop splits the sum into its first term and the rest. The rest is what the critic
# itself says about the next step:
#
# $$Q(s,a) = E\,\big[\,R+\gamma\,Q(s',a')\,\big],\qquad a'\sim\pi(\cdot\mid s').$$
#
# So regress $Q(s,a)$ on $y=R+\gamma\,Q(s',a')$, held constant. This $y$ is the *temporal-difference target*, TD target
# for short.
#
# **Two kinds of end.** An episode is *terminated* when the task is over: the robot fell, or reached its goal. Nothing
# follows, so $y=R$. It is *truncated* when only the clock ran out. The world would go on, so $y$ keeps its second term.
#
# **The replay buffer.** All tuples $(s,a,R,s',\text{terminated})$ go into a large memory, and training draws random
# batches from it. Old tuples stay useful, because the TD target asks the *present* policy for $a'$. Such a method is
# called *off-policy*.
#
# ### From a critic to an action
#
# Suppose we have a critic. Which policy should follow from it? Always taking the best action would explore nothing. SOM
# asks for more: good actions often, middling ones sometimes, bad ones hardly ever. That is the *Boltzmann density*
#
# $$p_0(a\mid s)\;\propto\;\exp\!\big(Q(s,a)/\alpha\big),\qquad a\in[-1,1]^d ,$$
#
# with a *temperature* $\alpha>0$. The smaller $\alpha$, the pickier the policy. To draw from such a density is the
# problem that chapter 02 solved for data: learn an average velocity, and go from noise to a sample in one step. But
# there the velocity came from samples of $p_0$. Here nobody has samples. There is only the function $Q$.
#
# SOM closes the gap with *score estimation*: from values of $Q$ alone it estimates where the noise should go. The
# picture shows the loop for an action with a single component. Everything in it is computed, not sketched.

# %%
import dataclasses
import hashlib
import inspect
import math
import re
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from IPython.display import display
from matplotlib.patches import FancyArrowPatch

from som_lite.flow.meanflow import sample
from som_lite.flow.ode import rk4_step, solve
from som_lite.flow.paths import VP, Linear
from som_lite.flow.scores import (
    box_proposals,
    effective_sample_size,
    free_proposals,
    importance_weights,
    posterior_mean_estimate,
)
from som_lite.rl.agents import SAC, SOM, SACConfig, SOMConfig, SOMPaper, SOMPaperConfig
from som_lite.rl.agents.common import derive
from som_lite.rl.config import TrainConfig
from som_lite.rl.critic import TwinQ, td_target
from som_lite.rl.envs import make_env
from som_lite.rl.evaluate import act, evaluate
from som_lite.rl.multigoal import GOALS, in_time
from som_lite.rl.replay import Batch, Replay
from som_lite.rl.runs import Run
from som_lite.rl.train import train
from som_lite.view import plots
from som_lite.view.dashboard import Dashboard
from som_lite.view.explorers import policy_explorer
from som_lite.view.notebook import check, listing, show
from som_lite.view.style import BLACK, COLOURS, GREEN, GREY, ORANGE, PURPLE, figure, freeze, plane

torch.set_num_threads(1)  # small nets: more threads cost more than they bring

path = Linear()  # a_t = (1 - t) a_0 + t eps
# the midpoints of 2000 cells of [-1, 1]
grid = (torch.arange(2000, dtype=torch.float64) + 0.5) / 1000 - 1


def exact_mean(q, alpha, a, t):
    """E[a_0 | a_t = a] for p_0 = exp(q / alpha) on [-1, 1], summed over the grid; a is (n, 1)."""
    log_weight = q(grid) / alpha - (a - (1 - t) * grid) ** 2 / (2 * t**2)
    return (log_weight.softmax(-1) * grid).sum(-1, keepdim=True)


def two_peaks(a):
    return torch.exp(-(((a - 0.55) / 0.25) ** 2)) + 0.8 * torch.exp(-(((a + 0.5) / 0.3) ** 2))


# %%
alpha = 0.2
draw = torch.Generator().manual_seed(2)
density = torch.exp(two_peaks(grid) / alpha)
density = density / density.mean() / 2
a_t, t = torch.tensor([[0.05]], dtype=torch.float64), 0.4
proposals = box_proposals(a_t, t, path, 16, draw)
weights = importance_weights(two_peaks(proposals[..., 0]), alpha)
estimate = (weights[..., None] * proposals).sum(-2).item()
noise = torch.special.ndtri((torch.arange(9, dtype=torch.float64) + 0.5) / 9)[:, None]


def two_peaks_field(a, t):
    return (a - exact_mean(two_peaks, alpha, a, t)) / t


lines = solve(two_peaks_field, noise, 1.0, 0.004, 60, rk4_step, trajectory=True)
actions = lines[-1]

fig, axes = figure(9.6, 6.6, ncols=3, nrows=2)
fig.get_layout_engine().set(w_pad=0.3, h_pad=0.3, wspace=0.12, hspace=0.16)
critic, boltzmann, score, act_now, one_step, flow = axes.flat
critic.plot(grid, two_peaks(grid), color=BLACK)
critic.set(title="1  critic $Q(s,a)$", xlabel="action $a$")
boltzmann.fill_between(grid, density, color=COLOURS["data"], alpha=0.35, linewidth=0)
boltzmann.plot(grid, density, color=COLOURS["data"])
boltzmann.set(title=r"2  density $\propto e^{Q/\alpha}$", xlabel="action $a$")
score.vlines(proposals.flatten(), 0, weights.flatten(), color=PURPLE, linewidth=1.2)
score.plot(proposals.flatten(), weights.flatten(), "v", color=PURPLE, markersize=5)
score.axvline(estimate, color=BLACK, linewidth=1.2)
score.plot([a_t.item()], [0], "o", color=GREY, markersize=9, clip_on=False)
score.annotate("$a_t$", (a_t.item(), 0), xytext=(-5, 10), textcoords="offset points")
score.annotate("$m$", (estimate, 0.2), xytext=(4, 0), textcoords="offset points")
score.set(title="3  proposals, weighted", xlabel="action $a$")
times = np.linspace(1, 0.004, 61)
for line in lines[..., 0].T:
    flow.plot(times, line, color=ORANGE, linestyle="--", linewidth=1.3)
    one_step.plot([1, 0], [line[0], line[-1]], color=GREEN, linewidth=1.3)
for ax in (flow, one_step):
    ax.plot(np.ones(9), noise, "o", color=GREY, markersize=5)
    ax.set(xlabel="time $t$", ylim=(-2, 2), yticks=(-1, 0, 1), xticks=(0, 0.5, 1))
one_step.plot(np.zeros(9), actions, "D", color=GREEN, markersize=5)
flow.set_title("4  velocity $v$")
one_step.set_title("5  one step of $u$")
act_now.plot(grid, two_peaks(grid), color=BLACK, linewidth=0.8)
act_now.plot(actions, two_peaks(actions), "D", color=GREEN, markersize=5)
best = actions[two_peaks(actions).argmax()]
act_now.plot(best, two_peaks(best), "D", color=GREEN, markersize=11, markeredgecolor=BLACK)
act_now.set(title="6  best of $N$ candidates", xlabel="action $a$")
for ax in (critic, boltzmann, score, act_now):
    ax.set(xlim=(-1.05, 1.05), xticks=(-1, 0, 1), yticks=[])
    ax.set_ylim(bottom=0)
freeze(fig)


def corner(ax, x, y):
    box = ax.get_position()
    return box.x0 + x * box.width, box.y0 + y * box.height


for start, end in (
    (corner(critic, 1.02, 0.5), corner(boltzmann, -0.06, 0.5)),
    (corner(boltzmann, 1.02, 0.5), corner(score, -0.06, 0.5)),
    (corner(score, 0.5, -0.24), corner(flow, 0.5, 1.14)),
    (corner(flow, -0.13, 0.5), corner(one_step, 1.04, 0.5)),
    (corner(one_step, -0.13, 0.5), corner(act_now, 1.04, 0.5)),
    (corner(act_now, 0.1, 1.14), corner(critic, 0.1, -0.24)),
):
    look = {"arrowstyle": "simple,head_width=9,head_length=8,tail_width=2.5", "color": GREY}
    fig.add_artist(FancyArrowPatch(start, end, transform=fig.transFigure, **look))
middle = (corner(act_now, 0, 1)[1] + corner(critic, 0, 0)[1]) / 2
words = "robot, replay\nbuffer, TD target"
fig.text(corner(critic, 0.17, 0)[0], middle, words, va="center", fontsize=9)
show(
    fig,
    "Six panels joined by arrows into a ring. 1: a critic with two peaks over the action. 2: the Boltzmann density, "
    "high at the same two places. 3: sixteen proposals around a noised action, as stems whose heights are their "
    "weights; their mean m lies to the right of the noised action. 4: nine dashed flow lines from noise at t = 1 to "
    "actions at t = 0, which bend towards the two peaks. 5: nine straight lines between the same ends. 6: the nine "
    "actions on the critic's curve, the highest one large. From 6 an arrow leads back to 1: robot, replay buffer, TD "
    "target.",
)

# %% [markdown]
# **What you should see.** Follow the numbers.
#
# 1. The critic has two peaks, the right one a little higher.
# 2. The density has them too, and exaggerates the difference.
# 3. Some noise moved an action to $a_t$ (grey). Where did it come from? Sixteen proposals (stems) are weighted by
#    $e^{Q/\alpha}$. Their weighted mean is the posterior mean $m$
#    (black line).
# 4. The difference between $a_t$ and $m$ gives a velocity. Its flow lines lead from noise (right) to actions (left).
# 5. MeanFlow replaces each curve by one straight jump with the same ends.
# 6. The critic picks the best of a few jumps. The robot performs it, the buffer stores what happened, and the critic
#    learns from the buffer. Back to 1.

# %% [markdown]
# ## Derivation
#
# ### The algorithm on one card
#
# Networks: two critics $Q_1,Q_2$ and the actor $u_\theta(a,r,t\mid s)$, an average velocity as in chapter 02. Write
# $Q=\min(Q_1,Q_2)$. Times run from data, $t=0$, to noise, $t=1$. (The letter $r$ is a time, as in chapter 02. Rewards
# are $R$.)
#
# > **SOM.** Repeat for every step of the simulator:
# >
# > 1. **Act.** Make $N$ candidate actions from noise $\varepsilon_n$: $a_n=\varepsilon_n-u_\theta(\varepsilon_n,0,1\mid s)$.
# >    Perform the one with the largest $Q(s,a_n)$. Store $(s,a,R,s',\text{terminated})$.
# > 2. **Critic.** For a batch from the buffer, regress $Q_1$ and $Q_2$ on
# >    $y=R+\gamma\,(1-\text{terminated})\,Q(s',a')$, held constant, with $a'$ the best of one or a few actions made by the
# >    actor in $s'$. Both networks are batch-normalised, and $(s,a)$ and $(s',a')$ pass through them as one batch.
# > 3. **Score.** Noise one of the actor's actions along the path: $a_t=\mu_ta_0+\sigma_t\varepsilon$. Draw $K$ proposals
# >    $a_0^{(k)}$ and weight them: $w_k=\mathrm{softmax}_k\,Q(s,a_0^{(k)})/\alpha$. Set $m=\sum_kw_ka_0^{(k)}$.
# > 4. **Velocity.** $v=(a_t-m)/t$.
# > 5. **Actor.** Regress $u_\theta(a_t,t,t\mid s)$ on $v$. Over an interval, regress $u_\theta(a_t,r,t\mid s)$ on
# >    $(a_t-a_r)/(t-r)$, for two points of a flow line that the averaged actor draws.
# > 6. **Average.** Move the weights of an averaged actor a small way towards those of $u_\theta$. It learns nothing
# >    itself; it draws the flow lines, and it is the one to evaluate.
#
# Step 5 has a second form, MeanFlow's identity of chapter 02: regress on
# $v-(t-r)\,(v\cdot\partial_au_\theta+\partial_tu_\theta)$. It is the setting `teacher="identity"`.
#
# The minimum of two critics is a guard against optimism: a critic errs upwards somewhere, and a search for the best
# action finds that place. Two critics seldom err upwards at the same one. Another guard is older: *target networks*,
# slow copies of the critics that alone appear in $y$, so that the target does not chase itself. Step 2 does without.
# Batch normalisation keeps the size of the features in hand; but the two kinds of rows must be normalised
# *together*, or $Q(s,a)$ and $Q(s',a')$ would be values of two different functions. The setting `critic="plain"` has
# ordinary networks and slow copies of them.
#
# Now each step with a check. The test bench is an action with one component and $Q(a)=2a$, $\alpha=1$. Then $p_0\propto
# e^{2a}$ on $[-1,1]$, and everything can be computed exactly.
#
# ### Step 2: the TD target
#
# A robot earns 1 in every step, for ever. The discounted sum is $1+\gamma+\gamma^2+\dots=1/(1-\gamma)$: 100 for
# $\gamma=0.99$. Does the TD target find it? Start with $Q=0$ and set $Q\leftarrow y$ many times. In each round the
# error shrinks by $\gamma$, and $0.99^{2000}\approx2\cdot10^{-9}$, so after 2000 rounds the rest is 32-bit rounding,
# some $10^{-3}$ on a value of 100.
#
# (With one action the card's $y$ is that of the recap. If $a'$ is the best of a few actions, that is no contradiction: then
# the policy whose value we learn is the one that performs the best of a few.)

# %%
reward, never, gamma = torch.ones(1), torch.zeros(1), 0.99
value = torch.zeros(1)
for _ in range(2000):
    value = td_target(reward, never, value, gamma)
check(
    "step 2: error of the value of a reward of 1 for ever", abs(value - 1 / (1 - gamma)), below=0.01
)
at_the_end = td_target(reward, torch.ones(1), value, gamma)
check("step 2: error of the target at a terminal state, 1", abs(at_the_end - 1), below=1e-6)

# %% [markdown]
# ### Step 3: the score, from values of $Q$ alone
#
# Let $a_0$ be drawn from $p_0\propto e^{Q/\alpha}$ and noised to $a_t=\mu_ta_0+\sigma_t\varepsilon$. On the linear path
# $\mu_t=1-t$ and $\sigma_t=t$. We see $a_t=a$. What is the mean of the $a_0$ it came from? By Bayes' rule
#
# $$p(a_0\mid a_t=a)\;\propto\;\underbrace{\mathcal N(a;\,\mu_ta_0,\sigma_t^2)}_{\text{noise}}\;\underbrace{e^{Q(a_0)/\alpha}\,\mathbb 1[a_0\in\text{box}]}_{\text{prior}} .$$
#
# Read the first factor as a function of $a_0$: a normal with mean $a/\mu_t$ and standard deviation $\sigma_t/\mu_t$.
# Cut it off at the edges of the box, and draw $K$ *proposals* from it. It remains to weight them by the last factor:
#
# $$w_k=\frac{e^{Q(a_0^{(k)})/\alpha}}{\sum_j e^{Q(a_0^{(j)})/\alpha}},\qquad
#   m(a,t)=E[a_0\mid a_t=a]\;\approx\;\sum_{k=1}^K w_k\,a_0^{(k)} .$$
#
# That is importance sampling. It needs values of $Q$, no gradient, and no sample of $p_0$.
#
# The *score* $\nabla_a\log p_t(a)$ follows from $m$. The density of $a_t$ is an integral of normals over $a_0$.
# Differentiate it, and each normal brings down the factor $(\mu_ta_0-a)/\sigma_t^2$. Its mean is
#
# $$\nabla_a\log p_t(a)=\frac{\mu_t\,m(a,t)-a}{\sigma_t^2} ,$$
#
# known as Tweedie's formula. So $m$ and the score carry the same information. This is the "score-based" in the name of
# SOM.
#
# The check: $t=0.4$, so $\mu=0.6$ and $\sigma=0.4$, and $a=0.3$. The sum over the grid counts as exact. A single
# estimate is noisy, so we look at the mean of 4000 of them, for $K=16$ and $K=256$. The ratio of two sums is biased by
# a term of order $1/K$. With $K=256$ the mean is uncertain by less than 0.001.


# %%
def slope(a):
    return 2 * a


exact = exact_mean(slope, 1.0, torch.tensor([[0.3]], dtype=torch.float64), 0.4).item()
print(f"exact posterior mean  m = {exact:.6f}")
print(f"exact score             = {(0.6 * exact - 0.3) / 0.4**2:.6f}")

a = torch.full((4000, 1), 0.3)
g = torch.Generator().manual_seed(0)
q = lambda a0: slope(a0)[..., 0]  # noqa: E731 - the estimators take (..., K, d) to (..., K)
found = {K: posterior_mean_estimate(q, a, 0.4, path, 1.0, K, g) for K in (16, 256)}
check("step 3: bias of m with K = 256", abs(found[256].m.mean() - exact), below=0.004)
check("step 3: bias of m with K = 16", abs(found[16].m.mean() - exact), below=0.04)
check("step 3: spread of one m with K = 256", found[256].m.std(), below=0.03)
check("step 3: spread of one m with K = 16", found[16].m.std(), below=0.12, above=0.03)
check("step 3: effective number among 16 proposals", found[16].ess.mean(), above=8, below=16)

# %% [markdown]
# The spread falls like $1/\sqrt K$: four times smaller for sixteen times the work. A regression averages over many
# batches, so $K=16$ noisy proposals are enough for a start, and we save time.
#
# The last line is the *effective sample size*, $1/\sum_kw_k^2$. It is $K$ when all weights are equal and 1 when a
# single proposal takes all. It tells whether $K$ and $\alpha$ fit each other. Every training below logs it as `ess`.
#
# ### Step 4: the velocity
#
# On the linear path $a_t=(1-t)\,a_0+t\,\varepsilon$, so $\varepsilon=\big(a_t-(1-t)a_0\big)/t$, and the velocity of one
# pair is $\varepsilon-a_0=(a_t-a_0)/t$. The marginal velocity of chapter 02 is its mean, given where we are:
#
# $$v(a,t)=E[\varepsilon-a_0\mid a_t=a]=\frac{a-m(a,t)}{t} .$$
#
# No score is even needed on this path. Other paths need one. The paper of SOM uses the *variance-preserving* path (VP),
# whose velocity is $v=-\tfrac12\beta_t\,(a+\text{score})$ with a given function $\beta_t$. `som_lite.flow.paths` knows
# both, and a check holds them together: from the same $m$, the formula with $m$ and the formula with the score must
# agree.

# %%
x, m = torch.tensor([[0.3], [-0.7], [1.2]]), torch.tensor([[0.5], [-0.2], [0.4]])
for each in (Linear(), VP()):
    by_mean = each.velocity_from_mean(m, x, 0.4)
    by_score = each.velocity_from_score(each.score_from_mean(m, x, 0.4), x, 0.4)
    error = (by_mean - by_score).abs().max()
    check(f"step 4: two ways to v, {type(each).__name__} path", error, below=1e-4)
print(f"v(0.3, 0.4) = (0.3 - m) / 0.4 = {(0.3 - exact) / 0.4:.5f}")

# %% [markdown]
# The velocity is negative here. It points from data to noise, and a sampler walks against it, towards larger $a$, where
# $Q$ is larger.
#
# ### Step 5: one jump
#
# In one dimension the answer is known before any training. Flow lines cannot cross. So they keep the order of the
# points: the noise point below which 30 % of the noise lies goes to the action below which 30 % of $p_0$ lies. With the
# distribution functions $\Phi$ of the noise and $F$ of the actions,
#
# $$\varepsilon\;\longmapsto\;F^{-1}\big(\Phi(\varepsilon)\big),\qquad
#   F^{-1}(p)=\tfrac12\log\!\big(e^{-2}+p\,(e^{2}-e^{-2})\big)\quad\text{for }p_0\propto e^{2a} .$$
#
# The one-step average velocity is therefore $u(\varepsilon,0,1)=\varepsilon-F^{-1}(\Phi(\varepsilon))$. Two checks.
# First, the exact velocity of steps 3 and 4, followed in many small steps, must do this. (It stops at $t=0.01$, since
# it divides by $t$; hence an error near 0.01.)
#
# Second, the actor. We take the package's own agent, put our known $Q$ in the place of its critic, and call its
# `actor_update` 1000 times. It sees one value of $Q$ per proposal and nothing else. Its *miss* is the mean distance of
# its action from the exact one. Three seeds gave 0.05 to 0.07; the bound leaves room for other machines.


# %%
def exact_action(eps):
    p = torch.special.ndtr(eps)
    return 0.5 * torch.log(math.exp(-2) + p * (math.exp(2) - math.exp(-2)))


def slope_field(a, t):
    return (a - exact_mean(slope, 1.0, a, t)) / t


levels = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
eps = torch.special.ndtri(levels)[:, None]  # 400 quantiles of the noise
by_flow = solve(slope_field, eps, 1.0, 0.01, 40, rk4_step)
check("step 5: miss of the exact flow", (by_flow - exact_action(eps)).abs().mean(), below=0.01)


class KnownQ(torch.nn.Module):
    """Stands in for the critic: Q(s, a) = 2 a, whatever the state."""

    def min(self, obs, a):
        return slope(a)[..., 0]


bench_config = SOMConfig(
    hidden=(64, 64), alpha=1.0, relative=False, actor_lr=1e-2, actor_tau=0.02, actor_batch=256
)
bench = SOM(obs_dim=1, act_dim=1, config=bench_config, seed=0)
bench.critic = KnownQ()
decay = torch.optim.lr_scheduler.CosineAnnealingLR(bench.actor_optimizer, 1000)
blank = torch.zeros(256, 1)
batch = Batch(obs=blank, action=blank, reward=blank[:, 0], next_obs=blank, terminated=blank[:, 0])


def jump(agent, obs, noise):
    """The actor's one step for chosen noise: (n, o), (n, d) -> (n, d)."""
    with torch.no_grad():
        return sample(lambda a, r, t: agent.actor(a, r, t, obs), noise).clamp(-1, 1)


before = jump(bench, torch.zeros(400, 1), eps.float())
for _ in range(1000):
    bench.actor_update(batch)
    decay.step()
after = jump(bench, torch.zeros(400, 1), eps.float())
check("step 5: miss of the untrained actor", (before - exact_action(eps)).abs().mean(), above=0.4)
check("step 5: miss after 1000 actor updates", (after - exact_action(eps)).abs().mean(), below=0.15)

# %%
fig, (left, right) = figure(8.4, 3.6, ncols=2)
left.plot(eps, exact_action(eps), color=BLACK, linewidth=3, alpha=0.3)
left.plot(eps, before, color=GREY, linestyle=":")
left.plot(eps, after, color=GREEN)
left.set(
    xlabel=r"noise $\varepsilon$",
    ylabel="action",
    title="the one-step map",
    xlim=(-3, 3),
    ylim=(-1.2, 1.2),
)
left.text(1.2, 1.05, "exact", color="#555555")
left.text(0.3, -0.12, "untrained", color="#555555")
left.text(0.9, 0.6, "trained", color=GREEN)
many = bench.generate(torch.zeros(1, 1), 4000)[0, :, 0]
right.hist(many, bins=30, range=(-1, 1), density=True, color=GREEN, alpha=0.5)
right.plot(grid, 2 * torch.exp(2 * grid) / (math.exp(2) - math.exp(-2)), color=COLOURS["data"])
right.set(xlabel="action", xticks=(-1, 0, 1), yticks=[], title="4000 actions in one step")
right.text(-0.05, 1.05, r"$p_0 \propto e^{2a}$", color=COLOURS["data"])
show(
    fig,
    "Left: action against noise. The exact map rises from -1 to 1 in an S; the trained actor follows it, the untrained "
    "one is a nearly flat line. Right: a histogram of 4000 one-step actions that rises to the right like the curve of "
    "the exact density.",
)

# %% [markdown]
# **What you should see.** Left, the trained map (green) lies along the exact one (wide grey); the untrained one is
# flat. Right, the histogram of one-step actions rises as the density does, though the actor never saw a sample of it.
# It stops short of the edge at 1. There the density falls from its largest value to nothing, and a smooth map with a
# small net is slow to learn such a cliff.
#
# This is the heart of SOM. It took a function $Q$, 16 proposals a row and 1000 regressions.
#
# ### Step 1: best of $N$
#
# Step 1 comes last, because it uses all the others. The density also holds middling actions. When the robot must act
# well, make $N$ candidates and perform the one that the critic likes best. In our example the best is the largest, so
# best-of-$N$ has the distribution function $F^N$, and its median is $F^{-1}\big(2^{-1/N}\big)$. We draw exact
# candidates and compare.

# %%
exact_draws = exact_action(torch.randn(20_000, 32, generator=g))
for N in (1, 8, 32):
    p = 0.5 ** (1 / N)
    median = 0.5 * math.log(math.exp(-2) + p * (math.exp(2) - math.exp(-2)))
    print(f"N = {N:2d}: median of the best action {median:.5f}")
    error = abs(exact_draws[:, :N].amax(1).median() - median)
    check(f"step 1: error of the median, N = {N}", error, below=0.02)

# %% [markdown]
# With $N=1$ the robot draws from the Boltzmann density itself. With a larger $N$ it draws from a narrower one. So a
# larger $N$ acts like a lower temperature, but it can be chosen after the training. While it explores and in its TD
# targets, SOM takes $N=1$ here: the policy itself. When it is evaluated, a large $N$.

# %% [markdown]
# ## Code
#
# The agent is one file, `som_lite/rl/agents/som.py`. Below are its methods, printed from the installed package. A
# number in a comment points to the note under the listing. (The cell fails if a note no longer fits its line.)
#
# ### Acting: card, step 1

# %%
listing(
    SOM.generate,
    {
        "actor =": "The actor, or the slow copy of step 6.",
        "eps =": "Fresh noise $\\varepsilon$ for each of the $n$ candidates.",
        "zero, one =": "The two times of the jump, $r=0$ and $t=1$.",
        "return (": "One jump $a=\\varepsilon-u_\\theta(\\varepsilon,0,1\\mid s)$, clipped to the box; every state is "
        "repeated $n$ times. This is the only place where SOM makes actions.",
    },
)
listing(
    SOM.act,
    {
        "default =": "One candidate to explore, many to evaluate.",
        "candidates =": "Candidates for evaluation come from the averaged actor.",
        "return best": "One batched call of the critic scores all candidates of all states.",
    },
)

# %% [markdown]
# ### The critic: card, step 2

# %%
listing(
    SOM.critic_update,
    {
        "next_action, bonus =": "An action of the *present* actor in $s'$. This makes SOM off-policy. The bonus is 0; "
        "other agents add an entropy here.",
        "q, next_q =": "$Q_1,Q_2$ at the action that was *performed* and at $a'$, each $(2,B)$; shown below.",
        "next_value =": "$\\min(Q_1,Q_2)(s',a')$, held constant as in chapter 02.",
        "y = td_target": "$y=R+\\gamma\\,(1-\\text{terminated})\\cdot$ that. Truncation does not appear.",
        "loss =": "Mean over the batch, sum over the two critics. They share no weights, so each is trained by its own part.",
    },
)
listing(
    TwinQ.values,
    {
        "target is not None": "A plain critic: $Q(s',a')$ by the slow copies.",
        "obs, a =": "A batch-normalised one: both kinds of rows, one under the other,",
        "both =": "normalised by the mean and the spread of *all* of them. The running averages of both are kept for "
        "everything else: scoring proposals, candidates, actions.",
    },
)

# %% [markdown]
# ### The actor: card, steps 3 to 6

# %%
listing(
    SOM.actor_loss,
    {
        "c, obs =": "The first 128 rows are enough for the actor, and halve its cost.",
        "r, t =": "Times stay away from 0 and 1, where a formula divides by $t$ or $1-t$. With flow lines $r=t$ on all of these rows.",
        "a_t =": "$a_t=\\mu_ta_0+\\sigma_t\\varepsilon$, where $a_0$ is an action of the actor itself: "
        "the field is learnt where the actor is.",
        "estimate =": "Step 3: proposals, weights, posterior mean $m$.",
        "v =": "Step 4: $v=(a_t-m)/t$.",
        "loss = meanflow_loss": "Step 5. Where $r=t$ the loss of chapter 02 is the squared error of $v$.",
        "loss = loss +": "Step 5 over intervals, shown below.",
    },
)
listing(
    SOM.interval_loss,
    {
        "rows =": "Flow lines from noise to actions by a few steps of the averaged actor's $u(a,t,t)$, and two intervals "
        "of each, of which one is $(0,1)$: the jump that acts (chapter 06).",
        "u =": "The present actor on these intervals.",
    },
)
listing(
    SOM.estimate,
    {
        "scored.append": "$Q=\\min(Q_1,Q_2)$ at $K$ proposals for each of the $B$ states of the batch, in one call: this line is most of an actor update's time.",
        "temperature =": "$\\alpha$ in units of the spread of $Q$ over the proposals of one state. So one $\\alpha$ means the same at the start, when $Q$ is near 0, and at the end, when it is in the hundreds.",
        "if n_own": "Half of the proposals are actions of the actor itself, blurred a little, with weights to match (chapter 06). "
        "Where random proposals seldom meet a narrow peak, the actor already knows the way.",
        "self.q_scale.update": "A running mean of that spread.",
    },
)

# %% [markdown]
# ### The settings
#
# All settings are in one dataclass. `SOMConfig()` is this book's advice. `SOMPaper` is an agent of its own, a literal
# reading of the paper, whose code and full settings are not public; so it is a reading, no more. The table is made from
# the source.

# %%
source = "".join(inspect.getsource(kind).split("def ")[0] for kind in SOMPaperConfig.__mro__[3::-1])
meaning = dict(re.findall(r"^    (\w+): .*?#\s*(.+)$", source, re.MULTILINE))
ours, papers = dataclasses.asdict(SOMConfig()), dataclasses.asdict(SOMPaperConfig())
print(f"{'field':<14}{'SOM':<14}{'SOMPaper':<16}meaning")
for name, value in papers.items():
    default = ours.get(name, "-")
    other = "" if value == default else value
    row = [str(x).replace(" ", "") for x in (default, other)]
    print(f"{name:<14}{row[0]:<14}{row[1]:<16}{meaning.get(name, '')}".rstrip())

# %% [markdown]
# An empty third column means "the same". Beside the settings the reading differs in kind, and
# `som_lite/rl/agents/som_paper.py` shows how in one page: the VP path instead of the linear one; an average of
# *gradients* of $Q$ over free normal proposals instead of an average of proposals in the box; a score of one fixed
# length, `unit_norm`, that no longer says how sure the critic is; replayed actions $a_0$ instead of the actor's own.
#
# Where do our defaults come from? From runs, not from theory. `tests/benchmarks/som_settings.md` keeps trials of
# three of them, the temperature, the step size of the critics and the averaged actor, with their commands; the ones that
# brought nothing too.
#
# Beside the two updates there is nothing but bookkeeping. `som_lite.rl.train.train` steps the simulator, stores,
# updates, evaluates every so often, writes a row of `curve.csv`, saves. It is also the command `som-lite train`.

# %% [markdown]
# ## Checks
#
# ### Live: four right answers
#
# The task is that of [chapter 00](00_start_here.ipynb). A point starts at the centre of a cross of four paths with water
# between them and a goal at the end of each. It has two hops. Reaching a goal pays 1 and falling into the water costs 1;
# both terminate. Each hop costs 0.3 times the distance that is left. From the centre, $Q$ has four equal peaks.
#
# What return is good? Two hops straight to a goal return about 0.87. Random actions end in the water. A policy above
# 0.6 has learned; nothing else gets there.
#
# SAC, *soft actor-critic*, is trained beside it. Its policy is one Gaussian per state, whose mean and spread a network
# computes, squashed into the box. It maximises the return plus $\alpha$ times the entropy of the policy, a measure of
# how spread out it is. So it too aims at $e^{Q/\alpha}$, but within a family of single bumps.


# %%
class Uniform:
    """A policy that does not learn."""

    def __init__(self, act_dim):
        self.act_dim, self.generator = act_dim, torch.Generator().manual_seed(0)

    def act(self, obs, explore):
        return 2 * torch.rand(len(obs), self.act_dim, generator=self.generator) - 1


def live_run(folder, env, config, on_row=None, **settings):
    """Train into a temporary folder; return the curve and the agent."""
    kind = "som" if isinstance(config, SOMConfig) else "sac"
    settings = {"seed": 0, "progress": False, **settings}
    settings |= {"env": env, "agent": kind, "config": config, "out": f"{folder}/{kind}"}
    run = Run(train(TrainConfig(**settings), on_row))
    return run.curve(), run.load_agent()


small = {"hidden": (64, 64), "batch": 128, "gamma": 0.95, "actor_lr": 2e-3, "critic_lr": 2e-3}
budget = {"steps": 1500, "start_steps": 500, "eval_every": 200, "eval_episodes": 10}
small |= {"actor_every": 1, "actor_tau": 0.02}  # a short run needs an average with a short memory
warm = {"alpha": 0.1, "relative": False}
goals = torch.from_numpy(GOALS)
with tempfile.TemporaryDirectory() as folder, Dashboard(torch.zeros(2), marks=goals) as dashboard:
    som_curve, som_agent = live_run(
        folder, "MultiGoal-v0", SOMConfig(**warm, **small), on_row=dashboard, **budget
    )

# %% [markdown]
# **What you should see.** While the cell runs, the six panels are drawn again and again; the last drawing stays. The
# *return* stumbles, and then it holds. The *actions* are those from the centre, the crosses the directions of the four
# goals. The *losses* do not fall, and need not: the table further down says why. The *mean of $Q$* sinks first, as the
# critic learns what wandering costs, and rises when it learns what a goal pays. The *effective sample size* falls, as
# the critic comes to prefer something. All this works with a training of your own: `train` calls `on_row` after each
# row of its curve.

# %%
with tempfile.TemporaryDirectory() as folder:
    sac_config = SACConfig(alpha=0.2, alpha_lr=2e-3, **small)
    sac_curve, sac_agent = live_run(folder, "MultiGoal-v0", sac_config, **budget)

idle = evaluate(Uniform(2), "MultiGoal-v0", episodes=50).mean()
check("return of random actions", idle, below=-0.5)
learnt = evaluate(som_agent, "MultiGoal-v0", episodes=20).mean()
check("return of SOM after 1500 steps", learnt, above=0.6)

# %%
centre = torch.zeros(1, 2)
with torch.no_grad():
    q_goals = som_agent.critic.min(centre, goals)
som_actions, sac_actions = (agent.generate(centre, 600)[0] for agent in (som_agent, sac_agent))
shares = torch.from_numpy(
    in_time(som_actions.numpy()).mean(0)
)  # of hops that keep a goal within reach

fig, (left, middle, right) = figure(10.2, 3.7, ncols=3)
for curve, kind, name, shift in ((som_curve, "som", "SOM", 6), (sac_curve, "sac", "SAC", -6)):
    plots.curve(left, curve["step"], curve["return_mean"], kind=kind, label=name, shift=shift)
left.axhline(idle, color=GREY, linestyle=":")
left.text(850, idle - 0.2, "random actions", color="#555555")
left.set(xlabel="steps", title="return", xlim=(0, 1800), ylim=(-2.2, 1.2), xticks=(0, 750, 1500))
for ax, agent, actions, kind, name in (
    (middle, som_agent, som_actions, "som", "SOM"),
    (right, sac_agent, sac_actions, "sac", "SAC"),
):
    plane(ax, 1.1)
    ax.set(title=f"{name}: actions from the centre", xlabel="$a_1$")
    ax.set(xticks=(-1, 0, 1), yticks=(-1, 0, 1))
    q_here = lambda x, agent=agent: agent.critic.min(torch.zeros(len(x), 2), x) / 0.15  # noqa: E731
    with torch.no_grad():
        plots.backdrop(ax, q_here)
    plots.particles(ax, actions, kind, size=3.5, alpha=0.6)
middle.set_ylabel("$a_2$")
show(
    fig,
    "Left: the returns of SOM and SAC against the steps; both rise from below -0.5 to about 0.8, far above random actions. "
    "Middle: 600 SOM actions from the centre, on shades of its critic, most of them on the darkest side. Right: the same for "
    "SAC, a single cloud.",
)
preference = q_goals[shares.argmax()] - q_goals.mean()
check("Q at the goal that SOM prefers, above the mean of the four", preference, above=0)
check("share of that goal among SOM's actions", shares.max(), above=0.25)

# %% [markdown]
# **What you should see.** Left: SOM learns within some hundred updates. Middle: actions from the same state, on the
# shades of SOM's own critic. They are dense where it is dark. This is what SOM promises: the policy follows the
# density of *its critic*. Right: SAC's cloud is a single bump on the shades of *its* critic. If there is a second dark
# place, the bump has to ignore it.
#
# But the task is symmetric, and the critic is not. Why? The goal that was found first was visited more often. So its
# $Q$ rose first, so the policy preferred it, so it was visited even more. The loop in the first picture feeds on
# itself. A policy that *can* hold four answers does not hold them by that alone: it needs a critic that does. [Chapter
# 00](00_start_here.ipynb) shows a run with settings that keep more goals alive, at some cost of return.
#
# ### One thousand steps of HalfCheetah
#
# MuJoCo is a physics simulator. HalfCheetah is a flat runner with $d=6$ motors and 17 numbers as state. It earns its
# forward speed, less a small cost of the torques, in each of 1000 steps. It cannot fall, so no episode ever terminates;
# each is truncated.
#
# A thousand steps are one episode. They teach nothing worth measuring, but they show the machine at work, with the
# book's own settings: 700 random actions, then 300 steps with one update each.

# %% tags=["timing"]
with tempfile.TemporaryDirectory() as folder:
    start = time.perf_counter()
    few = {"steps": 1000, "start_steps": 700, "eval_every": 1000, "eval_episodes": 1}
    real_curve, _ = live_run(folder, "HalfCheetah-v5", SOMConfig(), **few)
    took = time.perf_counter() - start
print(f"columns of curve.csv: {', '.join(real_curve)}")
check("seconds for 1000 steps of HalfCheetah", took, below=200)
K = SOMConfig().K
check(f"ess, of {K} proposals", real_curve["ess"][-1], above=1, below=K)
finite = np.mean([np.isfinite(x).all() for x in real_curve.values()])
check("share of columns without a NaN", finite, above=0.99)

# %% [markdown]
# What the columns mean, and how they look in a healthy run:
#
# | column | meaning | healthy |
# |---|---|---|
# | `return_mean`, `return_std` | mean and spread over the evaluation episodes | rises, in jumps |
# | `critic_loss` | squared TD error, both critics | **may rise**: it grows with the square of $Q$ |
# | `q_mean` | mean of $Q$ on the batch | of the order of the discounted return, and not far above it |
# | `actor_loss` | MeanFlow loss | **need not fall**: it contains the noise of the estimated $v$ |
# | `ess` | effective number of proposals | 1.2 to $K/2$, steady. Near $K$: $\alpha$ is too large. Near 1: too small |
# | `speed` | mean length of $v$ | 1 to 4, and steady. Growth without end is a warning |
# | `q_scale` | spread of $Q$ over proposals | grows with $Q$ |
#
# ### Recorded runs
#
# Learning to run takes tens of thousands of steps, more than a chapter may. So the next runs are *recorded*: each
# folder holds its settings, its curve and its policy, and a fingerprint of both files. Two tasks come new: Hopper, one
# leg with $d=3$ motors, and Walker2d, two legs with $d=6$. Both earn 1 for every step that they do not fall, and their
# speed. Both *terminate* when they fall.
#
# First a set of runs with *plain* critics and MeanFlow's identity: three tasks, SOM and SAC, three seeds each. They were
# recorded by an earlier version of this package, whose commit stands in each `config.json`; that version scored SOM's
# proposals in a shorter number format, which today's commands do not. Then a run with batch-normalised critics.

# %%
TASKS = ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5")
runs = {
    (task, kind): [
        Run(folder) for folder in sorted(Path(f"recorded/plain/{kind}/{task}").glob("seed*"))
    ]
    for task in TASKS
    for kind in ("som", "sac")
}


def intact(run):
    """Do the files still have the fingerprints (SHA-256) that config.json gives them?"""
    files = run.info()["sha256"]
    return all(hashlib.sha256((run.folder / f).read_bytes()).hexdigest() == files[f] for f in files)


for found in runs.values():
    print(found[0].info()["command"])
    for run in found:
        info, last = run.info(), run.curve()
        name = (
            f"    seed {run.config().seed}: {last['step'][-1]:.0f} steps in {info['wall_s']:.0f} s,"
        )
        end = f"{last['return_mean'][-1]:.1f} ± {last['return_std'][-1]:.1f}"
        print(f"{name} last return {end}, files as recorded: {intact(run)}")
print("with", ", ".join(f"{name} {info['packages'][name]}" for name in ("torch", "mujoco")))

# %% [markdown]
# (The wall time is that of a real machine, with whatever else it did meanwhile. ± is the spread over ten episodes.)
#
# Each line that begins with `som-lite` is the command; for another seed only the number after `--seed` changes. With the
# same versions of everything, this package included, it makes the same run again on the same machine. A later version
# or another processor alters last digits, and in reinforcement learning last digits grow: the curve will be another one
# of the same kind.

# %%
fig, axes = figure(10.2, 3.7, ncols=3)
for ax, task in zip(axes, TASKS, strict=True):
    sizes = make_env(task).action_space.shape
    floor = evaluate(Uniform(*sizes), task, episodes=5).mean()
    ax.axhline(floor, color=GREY, linestyle=":")
    curves = {kind: [run.curve() for run in runs[task, kind]] for kind in ("sac", "som")}
    steps = curves["som"][0]["step"]
    returns = {kind: np.array([x["return_mean"] for x in found]) for kind, found in curves.items()}
    ends = {kind: x[:, -1] for kind, x in returns.items()}
    best = max(ends, key=lambda kind: ends[kind].mean())
    for kind, lines in returns.items():
        for line in lines:
            ax.plot(steps, line, color=COLOURS[kind], linewidth=0.8, alpha=0.5)
        shift = 6 if kind == best else -6  # keeps labels apart
        plots.curve(ax, steps, lines.mean(0), kind=kind, label=kind.upper(), shift=shift)
        name = f"{task}, {kind.upper()}: least last return above random actions"
        check(name, ends[kind].min() - floor, above=100)
    ax.set(title=task, xlabel="environment steps", xlim=(0, 1.2e5), xticks=(0, 5e4, 1e5))
    words = (
        f"{kind.upper()} {x.mean():.1f} ± {x.std():.1f} (seeds: {len(x)})"
        for kind, x in ends.items()
    )
    ratio = ends["som"].mean() / ends["sac"].mean()
    print(f"{task}: {', '.join(words)}, SOM / SAC {ratio:.2f}")
    if task == "HalfCheetah-v5":
        half_way = [x[:, steps == 50_000].mean() for x in (returns["som"], returns["sac"])]
        check(f"{task}, after 50 000 steps: SOM over SAC", half_way[0] / half_way[1], above=1.2)
    late = [x[:, steps > 50_000].mean() for x in (returns["som"], returns["sac"])]
    check(f"{task}, all rows of the second half: SOM over SAC", late[0] / late[1], above=1)
axes[0].set_ylabel("return")
show(
    fig,
    "Return against environment steps in three panels, HalfCheetah, Hopper and Walker2d: thin lines are single seeds of "
    "SOM (green) and SAC (blue, dashed mean), thick lines their means. All start at the dotted line of random actions "
    "and rise above it.",
)

# %% [markdown]
# **What you should see.** Solid green is SOM, dashed blue is SAC. Thin lines are single seeds, thick lines their means.
# On HalfCheetah all lines rise far above random actions, and SOM is there sooner: half way its mean is well above SAC's,
# and at the end still above. On Hopper and Walker2d the lines are ragged. An episode ends with the first fall, so a
# small change of the policy may halve the return of an evaluation, and the last row is no better a summary than the
# row before it. That is why the last check counts the whole second half. With the same settings one seed finds a gait
# that another does not find. A hundred thousand steps are few; published curves on these tasks go to a million.
#
# Lines of the same colour differ by nothing but the seed. Before you say that one method beats another, compare the gap
# between the colours with the gap between lines of one colour. On HalfCheetah it passes that test for most of the way; on
# Walker2d it does not.
#
# And ask who was tuned. SOM's settings were chosen on these tasks, SAC's are the ones in common use. One of them is easy to
# make equal: SOM's critics take steps of $10^{-3}$, SAC's of $3\cdot10^{-4}$. Here is one more recorded run, SAC with the
# critic steps of SOM.


# %%
def last_return(run):
    return run.curve()["return_mean"][-1]


same_step = Run("recorded/plain/same_step/sac/HalfCheetah-v5/seed0")
print(same_step.info()["command"])
larger, usual = last_return(same_step), last_return(runs["HalfCheetah-v5", "sac"][0])
som_mean = np.mean([last_return(run) for run in runs["HalfCheetah-v5", "som"]])
print(
    f"SAC's last return {larger:.1f}, with the usual step {usual:.1f}; mean of SOM {som_mean:.1f}"
)
check("HalfCheetah, seed 0: SAC with the larger step over usual SAC", larger / usual, above=1.1)
check("HalfCheetah: SOM over SAC with the larger step", som_mean / larger, below=1)

# %% [markdown]
# SOM's lead is gone: when its critics take the larger step, SAC ends above the mean of SOM's seeds. So the panels above
# compare step sizes as much as methods. It is one run on one task, but enough to forbid the sentence "SOM beats SAC". What
# can be said is: at this budget SOM learns to run, hop and walk about as well as a strong method does.
#
# It pays with computing time: an update of SOM takes longer than one of SAC (*What it costs*, below). Single-bump policies
# run well on these tasks. Where several answers are good and a policy should keep them all, as in chapter 00, the shape counts.
#
# ### The same robot, another critic
#
# Now the card's own critic: batch-normalised, both kinds of rows in one pass, no slow copies (Bhatt and others,
# [1902.05605](https://arxiv.org/abs/1902.05605)). Everything else in the budget is the same: steps, updates, one thread.

# %%
walker = [Run(folder) for folder in sorted(Path("recorded/som/Walker2d-v5").glob("seed*"))]
for run in walker:
    log = run.curve()
    print(run.info()["command"])
    end = f"{log['return_mean'][-1]:.1f} ± {log['return_std'][-1]:.1f}"
    print(f"    {run.info()['wall_s']:.0f} s, last return {end}, files as recorded: {intact(run)}")
plain_walker = [run.curve() for run in runs["Walker2d-v5", "som"]]
late = [x["return_mean"][x["step"] > 75_000].mean() for x in plain_walker]
found = walker[0].curve()
ratio = found["return_mean"][found["step"] > 75_000].mean() / max(late)
check("Walker2d, last quarter: over the best of three plain seeds", ratio, above=1.3)

# %% tags=["hide-input"]
fig, ax = figure(6.4, 3.6)
for curve in plain_walker:
    ax.plot(curve["step"], curve["return_mean"], color=GREY, linewidth=1)
for run in walker:
    plots.curve(ax, run.curve()["step"], run.curve()["return_mean"], kind="som")
ax.text(8e4, 2000, "batch-normalised", color=COLOURS["som"], ha="right")
ax.text(1e5, 100, "plain, three seeds", color="#555555", ha="right")
ax.set(xlabel="environment steps", ylabel="return", title="Walker2d-v5, SOM", xticks=(0, 5e4, 1e5))
show(
    fig,
    "Return of SOM on Walker2d against environment steps. Three thin grey lines with plain critics stay mostly below a "
    "thousand. The green line with batch-normalised critics stays with them for two thirds of the way and then rises far "
    "above them.",
)

# %% [markdown]
# **What you should see.** For two thirds of the way nothing sets the green line apart. Then it finds a gait, and its last
# quarter lies above what any of the three plain seeds reached. It is one seed, so it is an example and no comparison of
# means. It also changes two things at once: flow lines teach the actor in place of the identity. And the critics' step of
# $10^{-3}$ is the same as in the plain runs. On SAC the same exchange can be tried with one setting,
# `--config.critic batch_norm`.
#
# One more recorded task is easy: InvertedPendulum, a pole on a cart, whose best return is 1000. How many steps does SOM
# need there?

# %%
for folder in sorted(Path("recorded/som/InvertedPendulum-v5").glob("seed*")):
    log = Run(folder).curve()
    reached = log["step"][log["return_mean"] >= 950][0]
    check(f"InvertedPendulum, {folder.name}: steps until the return is 950", reached, below=50_000)

# %% [markdown]
# A return counts for more when the logged numbers behave. Here are three of them for the first SOM run on
# HalfCheetah.

# %%
run = runs["HalfCheetah-v5", "som"][0]
log = run.curve()
fig, axes = figure(9.6, 3.2, ncols=3)
panels = {"critic_loss": "critic loss", "actor_loss": "actor loss", "ess": "ess, of 16 proposals"}
for ax, (column, title) in zip(axes, panels.items(), strict=True):
    ax.plot(log["step"] / 1000, log[column], color=GREEN)
    ax.set(
        title=title,
        xlabel="thousand steps",
        xlim=(0, None),
        ylim=(0, 1.15 * np.nanmax(log[column])),
    )
show(
    fig,
    "Three logged numbers of a recorded SOM run against the steps. The critic loss rises severalfold and then sinks a "
    "little, the actor loss falls slowly from two to below one, and the effective sample size stays between one and "
    "two and a half of sixteen.",
)
critic_loss, actor_loss = (log[k][np.isfinite(log[k])] for k in ("critic_loss", "actor_loss"))
check("critic loss, last row over second row", critic_loss[-1] / critic_loss[1], above=2)
check("actor loss, last row over second row", actor_loss[-1] / actor_loss[1], above=0.3, below=3)
ess = log["ess"][np.isfinite(log["ess"])]
check("ess, least row", ess.min(), above=1.2)
check("ess, largest row", ess.max(), below=2.5)

# %% [markdown]
# **What you should see.** Just what the table called healthy, and what often alarms: the critic loss grew while the
# robot learned to run, for $Q$ grew with it. The actor loss lost a little more than half while the return went from
# tens to thousands: most of what is left is the noise of its target. An effective sample size of about 1.3 to 2.1 says that
# $\alpha=0.03$ is picky. Judge none of them alone; judge returns.
#
# Beside every learning curve there should stand: the version of the task, steps *and* updates, seeds, episodes per
# evaluation, $N$ in evaluation, and whether the last or the best checkpoint counts. Here: v5, one update a step after
# the random ones, the seeds printed above, and the last checkpoint. The commands above say the rest.
#
# ### Evaluate a recorded policy
#
# A curve is a claim. The policy is beside it, so let us test the claim: run it for five episodes and compare with the
# last rows of its curve.
#
# How close should we come? The same policy starts in other states, and one episode differs from the next. The bound
# asks for two thirds of the recorded return.

# %%
run = runs["HalfCheetah-v5", "som"][0]
agent, config, curve = run.load_agent(), run.config(), run.curve()
again = evaluate(agent, config.env, episodes=5, seed=derive(config.seed, 3, config.steps))
ratio = again.mean() / curve["return_mean"][-1]
print(f"{config.env}, {len(again)} episodes, N = {agent.config.n_evaluate}")
check("return now over return in the last row of the curve", ratio, above=0.67, below=1.5)

first, second = (evaluate(agent, config.env, episodes=1, seed=7) for _ in range(2))
check("the same seed twice: difference", np.abs(first - second).max(), below=1e-9)

# %% [markdown]
# (`seed=` here decides start states and noise, and the seed derived here is the one of the last row. The recorded
# weights are kept in half precision, so the numbers differ a little all the same.)
#
# To see it run, type `som-lite evaluate chapters/recorded/plain/som/HalfCheetah-v5/seed0 --video cheetah.mp4` in a terminal.
#
# ### What it costs
#
# Time on a machine depends on the machine. So the tests of this book compare the names in the table below and the
# ratios under it; the milliseconds are those of the last run. They are processor time of one thread, the median of
# several calls, with HalfCheetah's sizes and the settings of the book.


# %% tags=["timing"]
def milliseconds(call, repeats):
    call()
    spent = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        spent.append(1000 * (time.process_time() - start))
    return statistics.median(spent)


def som_with(**changes):
    return SOM(17, 6, dataclasses.replace(SOMConfig(), **changes))


obs = torch.randn(256, 17, generator=g)
batch = Batch(obs, 2 * torch.rand(256, 6, generator=g) - 1, obs[:, 0], obs, torch.zeros(256))
one, plain, sac = obs[:1], som_with(), SAC(17, 6)
reading = SOMPaper(17, 6, SOMPaperConfig(actor_batch=128, hidden=(256, 256)))


def twenty_steps():
    cond = one[:, None].expand(-1, 32, -1)
    eps = torch.randn(1, 32, 6, generator=g)
    with torch.no_grad():
        return sample(lambda a, r, t: plain.actor(a, r, t, cond), eps, steps=20)


calls = {
    "SOM, critic update": (partial(plain.critic_update, batch), 9),
    "SOM, actor update, K = 16": (partial(som_with(K=16).actor_update, batch), 9),
    "SOM, actor update, K = 100": (partial(som_with(K=100).actor_update, batch), 3),
    "the paper's reading, actor update, K = 100": (partial(reading.actor_update, batch), 3),
    "SAC, whole update": (partial(sac.update, batch), 9),
    "SOM, one action, N = 1": (partial(som_with(n_evaluate=1).act, one, explore=False), 101),
    "SOM, one action, N = 32": (partial(som_with(n_evaluate=32).act, one, explore=False), 101),
    "32 candidates in 20 steps": (twenty_steps, 21),
    "SAC, one action": (partial(sac.act, one, explore=False), 101),
}
cost = {name: milliseconds(*call) for name, call in calls.items()}
rows = "".join(f"<tr><td>{name}</td><td>{value:.3g}</td></tr>" for name, value in cost.items())
table = f"<table><tr><th>what</th><th>milliseconds</th></tr>{rows}</table>"
display({"text/html": table, "text/plain": f"Table: milliseconds of {'; '.join(cost)}"}, raw=True)

# %% tags=["timing"]
update = cost["SOM, critic update"] + cost["SOM, actor update, K = 16"] / SOMConfig().actor_every
check("SOM: updates per second", 1000 / update, above=1)
check("SAC: updates per second", 1000 / cost["SAC, whole update"], above=1)
by_K = cost["SOM, actor update, K = 100"] / cost["SOM, actor update, K = 16"]
check("actor update: K = 100 over K = 16", by_K, above=1.5)
by_gradient = (
    cost["the paper's reading, actor update, K = 100"] / cost["SOM, actor update, K = 100"]
)
check("K = 100: gradient over posterior mean", by_gradient, above=1.1)
by_N = cost["SOM, one action, N = 32"] / cost["SOM, one action, N = 1"]
check("one action: N = 32 over N = 1", by_N, below=8)
by_steps = cost["32 candidates in 20 steps"] / cost["SOM, one action, N = 32"]
check("32 candidates: 20 steps over one", by_steps, above=2)

# %% [markdown]
# Three things to take away.
#
# * **The proposals are the cost.** An actor update evaluates both critics at $K$ actions for each of $B$ states.
#   $K=100$ with gradients, the paper's reading, costs many times $K=16$ without.
# * **Candidates are cheap, steps are dear.** Thirty-two candidates go through the network as one batch. Twenty steps go
#   through it one after the other. This is what one-step generation buys.
# * **SAC is cheaper.** Its update has one action per state. SOM pays for a richer policy with computing time.

# %% [markdown]
# ## Explorer
#
# The recorded policy, in a state of its own life: the one after 100 steps of an episode. Each point on the left is a
# noise vector with six components, of which two are shown. On the right is the action that the policy makes of it: the
# torques of the back thigh and the back shin. The second slider changes what the policy sees: the tilt of the trunk, in
# radians.

# %%
env = make_env("HalfCheetah-v5")
observation, _ = env.reset(seed=1)
for _ in range(100):
    observation, *_ = env.step(act(agent, observation[None])[0])
env.close()
state = torch.from_numpy(observation)
state[1] = state[1].clamp(-0.5, 0.5)

tilt = policy_explorer(
    lambda noise, obs: jump(agent, obs, noise),
    torch.randn(150, 6, generator=torch.Generator().manual_seed(0)),
    state,
    coordinate=1,
    span=(-0.6, 0.6),
    label="tilt",
    marks=lambda s: agent.act(s[None], explore=False),
)
tilt

# %% [markdown]
# **What you should see.** Move *progress* from 0 to 1: grey noise travels along straight lines, one network call, to
# the policy's actions. Points that start close together may end apart, because four more components of their noise are
# not shown. At progress 1 all points are in the dashed box, many of them on its edge: a runner likes full torque. The
# cross is what the robot would perform: the best of 32 by the critic. Move *tilt*: the cloud moves, for a runner that
# leans needs another push. Where the cloud is wide, the critic sees little difference between actions.

# %%
least, most = state.clone(), state.clone()
least[1], most[1] = -0.6, 0.6
same_noise = torch.randn(500, 6, generator=torch.Generator().manual_seed(3))
low, high = (jump(agent, s.expand(500, -1), same_noise) for s in (least, most))
change = (low - high).norm(dim=-1).mean()
check("mean change of the action from the least tilt to the largest", change, above=0.1)
check("largest component of any action", torch.stack([low, high]).abs().max(), below=1.0001)

# %% [markdown]
# ## What can go wrong
#
# Four mistakes, each run on purpose. The first two were found in published code, more than once.
#
# ### A time limit taken for an end
#
# The robot that earns 1 in every step, again. The task has no end, but episodes are cut after $T$ steps. The mistake:
# store `terminated or truncated`. Then one tuple in $T$ claims that nothing follows. What does the critic learn?

# %%
for T, task in ((1000, "HalfCheetah"), (200, "Pendulum"), (50, "Reacher")):
    ends_wrongly = torch.zeros(T)
    ends_wrongly[-1] = 1
    value = torch.zeros(())
    for _ in range(3000):
        value = td_target(torch.ones(T), ends_wrongly, value.expand(T), gamma).mean()
    print(f"T = {T:4d} ({task}): value {value.item():.5f} instead of {1 / (1 - gamma):.5f}")
    error = abs(value - 1 / (1 - gamma * (1 - 1 / T)))
    check(f"T = {T}: difference from the formula below", error, below=0.01)

# %% [markdown]
# The critic sees no clock, so it spreads the false end over all states: the value becomes
# $1/\big(1-\gamma(1-\tfrac1T)\big)$. The shorter the limit, the worse. Nothing crashes; the robot just plans for a
# world that ends at random.
#
# ### Noise after the clip
#
# Some codes add exploration noise to an action that was already clipped. The simulator clips once more, silently. The
# buffer stores what the simulator never did. How often? We take actions of the recorded policy and add noise of
# standard deviation 0.1.

# %%
states = []
env = make_env("HalfCheetah-v5")
observation, _ = env.reset(seed=2)
for _ in range(200):
    states.append(observation)
    observation, *_ = env.step(act(agent, observation[None])[0])
states = torch.from_numpy(np.array(states))

clipped = agent.act(states, explore=True)
noisy = clipped + 0.1 * torch.randn(clipped.shape, generator=g)
outside = (noisy.abs() > 1).any(-1)
with torch.no_grad():
    q_stored, q_done = (agent.critic.min(states, z)[outside] for z in (noisy, noisy.clamp(-1, 1)))
check("share of noisy actions that leave the box", outside.float().mean(), above=0.05)
difference = (q_stored - q_done).abs().mean()
check("mean difference of Q between the stored and the performed action", difference, above=1e-4)

env.reset(seed=0)
one_way = env.step(np.full(6, 1.3, np.float32))[0]
env.reset(seed=0)
other_way = env.step(np.ones(6, np.float32))[0]
env.close()
check("difference between doing 1.3 and doing 1", np.abs(one_way - other_way).max(), below=1e-9)

# %% [markdown]
# The simulator sees no difference; the critic does. It is trained on actions that do not exist, and learns what cannot
# be checked. The cure is one line: clip after the noise. SOM needs no such noise: its actions are random already.
#
# ### One candidate in evaluation
#
# $N$ is a setting of the *evaluation* too. Here is one recorded policy, the same networks, with $N=1$, $4$ and $32$ on
# the same start states. First how much better the critic thinks the best of 32 is; then what they return.

# %%
with torch.no_grad():
    fan = agent.generate(states, 32)
    q_fan = agent.critic.min(states[:, None], fan)
gain = (q_fan.amax(1) - q_fan.mean(1)).mean() / q_fan.std(dim=1).mean()
check("critic: best of 32 above the mean of 32, in spreads of Q", gain, above=1, below=2.5)
returns = {}
for N in (1, 4, 32):
    agent.config = dataclasses.replace(config.config, n_evaluate=N)
    returns[N] = evaluate(agent, config.env, episodes=4, seed=5).mean()
    check(f"return with N = {N}", returns[N], above=0)
agent.config = config.config
check("return with N = 32 over return with N = 1", returns[32] / returns[1], above=1.02)

# %% [markdown]
# The first number has a yardstick: the best of 32 draws from a normal lies 2.07 standard deviations above the mean. $Q$
# over the candidates has a long lower tail and a blunt top, which gives less.
#
# The returns are the lesson. Nothing was trained between the lines. A single draw also performs the middling actions
# that the Boltzmann density holds on purpose; the best of 32 leaves them out. (SAC does something similar: in
# evaluation it performs the middle of its Gaussian and draws nothing.) So a return without its $N$ means little. Report
# $N$, and compare methods only when each is evaluated as it is meant to be.
#
# The gain rests on the critic. If it errs upwards at strange actions, many candidates find just those, and more of them
# may do harm.
#
# ### The last weights
#
# With a constant step size the weights never come to rest: every minibatch pulls them somewhere else. Their average over
# the last updates is steadier, and that is the averaged actor of the card. Its memory is short, $1/0.002=500$ actor
# updates. Here is the recorded policy once with the average, once with the last weights.

# %%
last = run.load_agent()
last.actor_average = last.actor
print(f"average over the last {1 / last.config.actor_tau:.0f} actor updates")
returns_last = evaluate(last, config.env, episodes=4, seed=5).mean()
check(
    "return of the averaged actor over that of its last weights",
    returns[32] / returns_last,
    above=1,
)

# %% [markdown]
# One policy at the end of one run proves little. But in this run, whose teacher was the identity, the averaged actor made
# no action for the buffer and no target. So the training is the same with it and without it, bit for bit, and whole
# curves can be compared.
# `tests/benchmarks/som_settings.md` does it for six runs: the worst evaluation of the second half is better in all of
# them, the mean better in three and worse in three.
#
# ### Proposals outside the box
#
# Let the proposals be free normals instead of truncated ones. Our example $Q=2a$, $\alpha=1$ can again be computed.
# Without the box, $e^{2a}$ times a normal with mean $0.5$ and standard deviation $\tfrac23$ is a normal with mean
# $0.5+2\cdot(\tfrac23)^2=1.38889$: a posterior mean that *no action has*.

# %%
free = posterior_mean_estimate(q, a, 0.4, path, 1.0, 256, g, box=False)
print(f"in the box {exact:.5f}, free {0.5 + 2 * (2 / 3) ** 2:.5f}")
check("free proposals: mean estimate", free.m.mean(), above=1.3, below=1.45)

at = path.noise(agent.generate(states, 1)[:, 0], torch.randn(200, 6, generator=g), 0.5)
apart = free_proposals(at, 0.5, path, 100, g)
within = box_proposals(at, 0.5, path, 100, g)
with torch.no_grad():
    q_free, q_box = (agent.critic.min(states[:, None], z) for z in (apart, within))
share = (apart.abs() > 1).any(-1).float().mean()
check("HalfCheetah, t = 0.5: share of free proposals outside the box", share, above=0.8)
wider = q_free.std(1).mean() / q_box.std(1).mean()
check("spread of Q over free proposals over that in the box", wider, above=1.05)

# %% [markdown]
# In six dimensions nearly every free proposal is outside. There the critic has never seen an action, and extrapolates.
# The softmax then looks for the *largest* of these inventions. Truncated proposals cannot ask such questions.

# %% [markdown]
# ## Exercises
#
# Each stub raises `NotImplementedError`. Replace its body and run the cell: a ✓ line says that you are done. The next
# cell holds what the checks need.


# %%
def mean_ess(values):
    return effective_sample_size(importance_weights(values, 1.0)).mean()


class Cart(gym.Env):
    """State: (steps taken, position). Never terminates."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = np.zeros(2, np.float32)
        return self.state.copy(), {}

    def step(self, action):
        self.state = self.state + np.array([1, np.clip(action, -1, 1)[0]], np.float32)
        return self.state.copy(), 1.0, False, False, {}


def boltzmann_draws(b, shape):
    p = torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return torch.log(math.exp(-b) + p * (math.exp(b) - math.exp(-b))) / b


# %% [markdown]
# ### 1. Find the bug: a missing bracket · ●○○ · 5 min
#
# Published code brings $Q$ to mean 0 and standard deviation 1 before the softmax, so that $\alpha$ means the same for
# every task. It says
#
# ```python
# def normalise(q):
#     return q - q.mean() / q.std()
# ```
#
# Write it correctly. Before you run the check: the softmax ignores a constant that is added to all values. So what did
# the wrong line do to the weights?


# %% tags=["exercise", "raises-exception"]
def normalise(q):
    raise NotImplementedError


raw = 300 + 40 * torch.randn(64, 16, generator=torch.Generator().manual_seed(0))


check("exercise 1: mean", normalise(raw).mean().abs(), below=1e-3)
check("exercise 1: standard deviation", normalise(raw).std(), above=0.999, below=1.001)
change = abs(mean_ess(normalise(raw)) - mean_ess(normalise(10 * raw)))
check("exercise 1: change of ess when Q is ten times larger", change, below=1e-3)
check("exercise 1: ess with the bug, of 16", mean_ess(raw - raw.mean() / raw.std()), below=1.5)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Division binds more strongly than subtraction. Which number is subtracted from every $q$?
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# The wrong line subtracts one constant, which the softmax ignores. So it did *nothing*: the normalisation was switched
# off, and the temperature was 1 in raw units of $Q$. With a spread of 40 a single proposal takes all the weight. No
# error, no warning, and the method still learns something: only a test on the scale finds it.
#
# ```python
# def normalise(q):
#     return (q - q.mean()) / q.std()
# ```
#
# </details>

# %% [markdown]
# ### 2. Find the bugs: a collecting loop · ●●○ · 15 min
#
# This loop fills a replay buffer. It runs, the agent even learns a little, and it has three mistakes. Write it
# correctly.
#
# ```python
# def collect(env, policy, replay, steps, noise):
#     obs, _ = env.reset(seed=0)
#     for _ in range(steps):
#         action = np.clip(policy(obs), -1, 1) + noise()
#         next_obs, reward, terminated, truncated, _ = env.step(action)
#         if terminated or truncated:
#             next_obs, _ = env.reset()
#         replay.add(obs, action, reward, next_obs, terminated or truncated)
#         obs = next_obs
# ```
#
# The check runs it on a cart that is moved by the action, never terminates and is cut off after 10 steps; its state
# counts the steps of the episode.


# %% tags=["exercise", "raises-exception"]
def collect(env, policy, replay, steps, noise):
    raise NotImplementedError


cart, memory = gym.wrappers.TimeLimit(Cart(), 10), Replay(100, 2, 1)
rng = np.random.default_rng(0)
collect(cart, lambda obs: np.array([0.9]), memory, 50, lambda: 0.3 * rng.standard_normal(1))
check("exercise 2: tuples stored", len(memory), above=49.5, below=50.5)
check("exercise 2: largest stored action", memory.data.action[:50].abs().max(), below=1.0001)
moved = memory.data.next_obs[:50, 1:] - memory.data.obs[:50, 1:]
error = (moved - memory.data.action[:50]).abs().max()
check("exercise 2: stored action against the way moved", error, below=1e-5)
check("exercise 2: tuples marked as terminal", memory.data.terminated.sum(), below=0.5)
check("exercise 2: episodes begun", (memory.data.obs[:50, 0] == 0).sum(), above=4.5, below=5.5)

# %% [markdown]
# <details><summary>Hint</summary>
#
# One mistake is in what is performed, one in which state follows, one in what counts as an end. The new episode may
# begin only after the old step is stored.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# The clip must come after the noise. The reset must not overwrite `next_obs` before it is stored: otherwise the critic
# learns that the last state leads to the start. Only `terminated` may be stored.
#
# ```python
# def collect(env, policy, replay, steps, noise):
#     obs, _ = env.reset(seed=0)
#     for _ in range(steps):
#         action = np.clip(policy(obs) + noise(), -1, 1)
#         next_obs, reward, terminated, truncated, _ = env.step(action)
#         replay.add(obs, action, reward, next_obs, terminated)
#         obs = next_obs
#         if terminated or truncated:
#             obs, _ = env.reset()
# ```
#
# </details>

# %% [markdown]
# ### 3. The posterior mean in closed form · ●●○ · 20 min
#
# For $Q(a)=b\,a$ on $[-1,1]$ and $\alpha=1$, find $m(a,t)$ on the linear path without any sum or sample. The check
# compares it with the quadrature, for several $b$, $a$ and $t$.


# %% tags=["exercise", "raises-exception"]
def closed_form_mean(b, a, t):
    raise NotImplementedError


for b, point, when in ((2.0, 0.3, 0.4), (-1.0, 0.8, 0.6), (4.0, -0.5, 0.3)):
    truth = exact_mean(lambda x, b=b: b * x, 1.0, torch.tensor([[point]]).double(), when)
    error = abs(closed_form_mean(b, point, when) - truth.item())
    check(f"exercise 3: error for b = {b:g}", error, below=1e-5)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Complete the square: $e^{b\,a_0}$ times a normal density in $a_0$ is again a normal density, with the same spread and
# a shifted mean. The box cuts it off. The mean of a truncated normal is in every table, or in `scipy.stats.truncnorm`.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# The normal has mean $a/\mu$ and standard deviation $c=\sigma/\mu$. The factor $e^{b\,a_0}$ shifts its mean by
# $b\,c^2$. Let $l$ be the shifted mean, and $z_\pm=(\pm1-l)/c$ the edges of the box in units of $c$. With the normal
# density $\varphi$ and its distribution function $\Phi$,
# $m=l+c\,\dfrac{\varphi(z_-)-\varphi(z_+)}{\Phi(z_+)-\Phi(z_-)}$.
#
# ```python
# def closed_form_mean(b, a, t):
#     mu, sigma = 1 - t, t
#     c = sigma / mu
#     middle = a / mu + b * c**2
#     low, high = (-1 - middle) / c, (1 - middle) / c
#     density = lambda z: math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
#     below = lambda z: 0.5 * math.erfc(-z / math.sqrt(2))
#     return middle + c * (density(low) - density(high)) / (below(high) - below(low))
# ```
#
# </details>

# %% [markdown]
# ### 4. How many candidates replace a temperature? · ●●○ · 15 min
#
# Take again $p_0\propto e^{2a}$ on $[-1,1]$ and best-of-$N$. Someone suggests to train with half the temperature
# instead, $p_0\propto e^{4a}$, and a single draw. Which is the smallest $N$ whose *mean* action is at least as large as
# that of one draw from $e^{4a}$? Guess first. Then write a function that returns $N$; the check simulates it.


# %% tags=["exercise", "raises-exception"]
def smallest_n():
    raise NotImplementedError


N = smallest_n()
wanted = 1 / math.tanh(4) - 1 / 4  # the mean of p_0 = e^{4a}
enough, short = (boltzmann_draws(2, (100_000, n)).amax(1).mean() for n in (N, N - 1))
check("exercise 4: mean of best-of-N less that of the cooler density", enough - wanted, above=0)
check("exercise 4: the same for N - 1", short - wanted, below=0)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Best-of-$N$ has the distribution function $F^N$. A variable on $[-1,1]$ has the mean $1-\int_{-1}^1F(x)\,dx$. The sum
# over `grid` is good enough.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# $F(x)=(e^{2x}-e^{-2})/(e^2-e^{-2})$, and the mean of best-of-$N$ is $1-\int F^N$. One draw from $e^{2a}$ has the mean
# $\coth2-\tfrac12=0.537$, one from $e^{4a}$ has $\coth4-\tfrac14=0.751$; two candidates reach 0.759, so $N=2$. One more
# candidate does as much as half the temperature. In $d=6$ dimensions it does less: a candidate would have to be good in
# all components at once.
#
# ```python
# def smallest_n():
#     F = (torch.exp(2 * grid) - math.exp(-2)) / (math.exp(2) - math.exp(-2))
#     wanted = 1 / math.tanh(4) - 1 / 4
#     N = 1
#     while 1 - 2 * (F**N).mean() < wanted:
#         N += 1
#     return N
# ```
#
# </details>

# %% [markdown]
# ### 5. Extend the recorded run · ●○○ · 10 min
#
# One seed is an anecdote. Add another, and go twice as far. Write a function that returns the `TrainConfig` of the
# recorded SOM run with a seed that is not recorded yet (take 100) and twice the steps, everything else unchanged. The
# check compares the two and prints the command that you then run in a terminal. It takes more than twice as long as the
# recorded run above. Ctrl-C stops it, and the same command continues.


# %% tags=["exercise", "raises-exception"]
def extended(config):
    raise NotImplementedError


longer = extended(config)
print(longer.command())
check("exercise 5: steps", longer.steps / config.steps, above=1.99, below=2.01)
check(
    "exercise 5: other settings that differ", len(config.differences(longer)), above=0.5, below=1.5
)
check("exercise 5: your seed", longer.seed, above=99.5, below=100.5)

# %% [markdown]
# <details><summary>Hint</summary>
#
# A `TrainConfig` is a frozen dataclass. `dataclasses.replace` makes a changed copy.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# The run goes to `runs/som/HalfCheetah-v5/seed100`. `Run("../runs/som/HalfCheetah-v5/seed100").curve()` reads its
# curve, also while it is training. Append it to `runs["HalfCheetah-v5", "som"]` and draw the figure of *Recorded runs* again.
#
# ```python
# def extended(config):
#     return dataclasses.replace(config, seed=100, steps=2 * config.steps)
# ```
#
# </details>

# %% [markdown]
# ## Summary
#
# * SOM turns a critic into a one-step sampler: $Q\to e^{Q/\alpha}\to$ posterior mean by weighted proposals $\to$
#   velocity $(a-m)/t\to$ MeanFlow $\to a=\varepsilon-u_\theta(\varepsilon,0,1\mid s)$.
# * The estimator needs values of $Q$ only. Keep its proposals in the box: outside, the critic invents.
# * The policy can have several modes where its critic has them. A Gaussian cannot.
# * Best-of-$N$ sharpens the policy without training. It belongs to the method, so report $N$.
# * Store `terminated`, not `terminated or truncated`. Clip after the noise. Store the true next state.
# * Measure $\alpha$ in units of the spread of $Q$, and watch `ess`.
# * An update costs what its $B\times K$ evaluations of the critic cost. Candidates are cheap, steps are dear.
# * A curve without command, seed, versions and $N$ is a rumour.

# %% [markdown]
# ## References
#
# * Kim, Ki, Ahn, Lee: *SOM*, score-based one-step MeanFlow policy optimization,
#   [2605.23365](https://arxiv.org/abs/2605.23365). The method of this chapter.
# * Geng, Deng, Bai, Kolter, He: *Mean Flows for One-step Generative Modeling*,
#   [2505.13447](https://arxiv.org/abs/2505.13447). The actor's loss.
# * Ma and others: *Efficient Online Reinforcement Learning for Diffusion Policy* (SDAC),
#   [2502.00361](https://arxiv.org/abs/2502.00361). The posterior mean by weighted proposals, without samples of the
#   target.
# * Akhound-Sadegh and others: *Iterated Denoising Energy Matching* (iDEM),
#   [2402.06121](https://arxiv.org/abs/2402.06121). The gradient estimator that the paper of SOM, as it is read, uses.
# * Haarnoja and others: *Soft Actor-Critic Algorithms and Applications*,
#   [1812.05905](https://arxiv.org/abs/1812.05905). The baseline, and the Boltzmann view of policies.
# * Fujimoto, van Hoof, Meger: *Addressing Function Approximation Error in Actor-Critic Methods*,
#   [1802.09477](https://arxiv.org/abs/1802.09477). Why two critics and slow targets.
# * Pardo, Tavakoli, Levdik, Kormushev: *Time Limits in Reinforcement Learning*,
#   [1712.00378](https://arxiv.org/abs/1712.00378). Terminated or truncated, in depth.
# * Towers and others: *Gymnasium*, [2407.17032](https://arxiv.org/abs/2407.17032). The interface of all tasks here.
#
# ---
#
# Previous: [06 · MeanFlow from a Q-function](06_meanflow_from_q.ipynb). Planned between them: 07 · The critic and
# 08 · SOM, complete. Next: [10 · Neighbours](10_neighbours.ipynb).
