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
# # 07 · The critic: learning what an action is worth
#
# **What you will do.** You put a walker on a line between two hills and a cliff, and compute exactly what every action is
# worth. Then you write the three functions that teach a network the same from experience: the target, the choice among
# candidates, the joint pass. You hold every result against the exact values, and break each part once.
#
# **What you will learn.** What a Bellman equation says, and whose values it gives. Why a maximum over estimates is too high
# and what a second critic does about it. Why a clock is no end. What batch normalisation does to a critic, why it needs one
# joint pass, and what two passes lose.
#
# **What you need.** Probability (conditional means), a little linear algebra and PyTorch. No reinforcement learning: it
# begins here.
#
# **Time and hardware.** ≈ 60 s on one CPU core, most of it for eight short trainings; allow an hour and a half for reading
# and an hour and a half for the exercises. No GPU.
#
# Previous: [06 · MeanFlow from a Q-function](06_meanflow_from_q.ipynb). Next:
# [08 · SOM, complete](08_som_complete.ipynb).

# %% [markdown]
# ## The idea in one picture
#
# Chapters 03 to 06 were handed a function $Q$, the critic, and made a policy from it. In reinforcement learning nobody hands
# it over. It has to be learnt from experience, while the policy that it judges keeps changing.
#
# **The loop.** A walker is in a *state* $s$. It takes an *action* $a\in[-1,1]$. The world answers with a number, the
# *reward* $R$, and the next state $s'$. A rule $\pi(a\mid s)$ that draws actions is a *policy*. One run from a start to
# an end is an *episode*.
#
# **The world.** The state is a place $x\in[-1,1]$ on a line with 41 places. The action moves the walker by $0.2\,a$, plus a
# wobble of at most two places; a landing between two places falls on one of them, the nearer one more often. Each step pays
# the height of the terrain where it starts, less the effort $0.1\,a^2$. A low hill stands on the left and a high one on the
# right, with a valley between them that pays next to nothing. On the left is a wall. Behind the high hill is a cliff: who
# steps over it earns nothing any more.
#
# There are 41 places and 33 actions, so every expectation is a finite sum. The functions of
# `som_lite/rl/small_world.py` compute these sums, and tests hold them against other solvers.

# %%
import copy
from dataclasses import replace

import numpy as np
import torch

from som_lite.rl import critic as package
from som_lite.rl.critic import BatchNormQ, PlainQ, TwinQ, polyak_
from som_lite.rl.replay import Batch
from som_lite.rl.small_world import (
    as_batch,
    best_of_n_policy,
    best_of_n_q,
    cliff_walk,
    policy_q,
    step,
    tabulate,
    visited,
)
from som_lite.view.explorers import value_landscape_explorer
from som_lite.view.notebook import check, listing, measured, show
from som_lite.view.style import BACKDROP, COLOURS, LINES, figure

torch.set_num_threads(1)  # small nets: more threads cost more than they bring

world = cliff_walk()
gamma = 0.95  # the discount, see step 1
S, A = world.reward.shape  # places, actions
uniform = torch.full((S, A), 1 / A, dtype=torch.float64)
VERY_MANY = 1000  # the best of 1000 candidates among 33 actions is the best
# What the best possible policy earns, and that policy. Step 3 says how.
optimal_q = best_of_n_q(world, VERY_MANY, gamma)
optimal = best_of_n_policy(optimal_q, VERY_MANY)


def place_of(x):
    """The index of the place nearest to x."""
    return (world.places - x).abs().argmin()


def walks(policy, place, steps, generator):
    """Places (steps, n) of walkers, NaN after an end, and the rewards (steps, n), 0 after it."""
    alive, seen, rewards = torch.ones(len(place), dtype=torch.float64), [], []
    for _ in range(steps):
        action = torch.multinomial(policy[place], 1, generator=generator).squeeze(1)
        seen.append(torch.where(alive > 0, world.places[place], torch.nan))
        rewards.append(alive * world.reward[place, action])
        place, ended = step(world, place, action, generator)
        alive = alive * (1 - ended)
    return torch.stack(seen), torch.stack(rewards)


generator = torch.Generator().manual_seed(0)
start = place_of(-0.4).repeat(2000)
paths, earned = {}, {}
for name, policy in (("any action", uniform), ("the best action", optimal)):
    paths[name], earned[name] = walks(policy, start, 30, generator)
    fell = paths[name][-1].isnan().double().mean()
    print(
        f"{name:<16} earns {earned[name].sum(0).mean():.3f} in 30 steps; share that fell {fell:.3f}"
    )
gain = earned["the best action"].sum(0).mean() - earned["any action"].sum(0).mean()
check("what the best actions earn more in 30 steps", gain, above=8)

# %% tags=["hide-input"]
fig, (left, right) = figure(8.4, 3.8, ncols=2)
left.fill_betweenx(world.places, world.reward[:, A // 2], color="#dddddd")
left.set(xlim=(1.2, 0), ylim=(-1, 1.15), xlabel="reward of a step", ylabel="place $x$")
left.axhline(1, color=COLOURS["error"], linestyle=LINES["error"])
left.text(1.15, 1.04, "cliff", color=COLOURS["error"])
left.text(0.62, 0.67, "high hill")
left.text(0.45, -0.53, "low hill")
for name, kind, width in (("any action", "noise", 0.9), ("the best action", "one-step", 1.2)):
    line = {"color": COLOURS[kind], "linestyle": LINES[kind], "linewidth": width}
    right.plot(paths[name][:, :5], **line)[0].set_label(name)
# A sixth walker: of those who act at random, the first who falls within 25 steps.
falling = paths["any action"][:, paths["any action"][25].isnan()][:, 0]
right.plot(falling, color=COLOURS["noise"], linestyle=LINES["noise"], linewidth=0.9)
last = int((~falling.isnan()).sum()) - 1
right.plot(last, falling[last], "X", color=COLOURS["error"], label="falls with the next step")
right.axhline(1, color=COLOURS["error"], linestyle=LINES["error"])
right.set(xlim=(0, 29), ylim=(-1, 1.15), xlabel="step", title="walks from -0.4")
fig.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
show(
    fig,
    "Left: the terrain turned on its side, a low wide hill at place -0.5, a high narrow one at 0.7, and a dotted line for "
    "the cliff at 1. Right: place against step. Dotted grey lines of random walkers wander about; one of them ends in a cross "
    "near the cliff. Solid green lines of the best policy climb from -0.4 to the high hill in a few steps and stay there.",
)

# %% [markdown]
# **What you should see.** On the left the terrain, turned so that both panels share the place. On the right eleven walks from
# $x=-0.4$. Grey walkers act at random; the sixth was picked because it falls.
# Green ones *leave the low hill*, cross the valley, where steps pay next to nothing, and stay on the high hill. To
# know that this pays, one must look ahead. That is what a critic is for.

# %% [markdown]
# ## Derivation
#
# ### Step 1: a value, and whose it is
#
# The rewards after a step are added up, each one step later counting a little less. With a *discount* $\gamma<1$ the **return**
# is $R_0+\gamma R_1+\gamma^2R_2+\dots$, up to an end. The value of an action is its mean return, *if the policy acts
# from then on*:
#
# $$Q^\pi(s,a)=E_\pi\Big[\sum_{k\ge0}\gamma^k R_k\;\Big|\;s_0=s,\;a_0=a\Big].$$
#
# (In this chapter the index counts steps: $a_0$ is the first action, no sample of a density.) Two words matter. *Markov*:
# rewards and next states depend on the present state and action alone, so it does not matter how the walker came here.
# *Whose*: every $Q$ belongs to a policy. The same action in the same place is worth little if a fool continues. We write
# $V^\pi(s)$ for the mean of $Q^\pi(s,a)$ over the policy's own actions.
#
# `policy_q` computes $Q^\pi$ exactly. Here it is held against 4000 walks of 150 steps ($0.95^{150}<0.001$).

# %%
here, right_step = place_of(-0.4), A - 1


def mean_return(policy, count):
    """Mean of returns that start with a full step to the right, and its standard error."""
    generator = torch.Generator().manual_seed(1)
    place, action = here.repeat(count), torch.full((count,), right_step)
    after, ended = step(world, place, action, generator)
    _, later = walks(policy, after, 150, generator)
    discounts = gamma ** torch.arange(1, 151, dtype=torch.float64)
    returns = world.reward[here, right_step] + (1 - ended) * (discounts @ later)
    return returns.mean(), returns.std() / count**0.5


for name, policy in (("any action", uniform), ("the best action", optimal)):
    exact = policy_q(world, policy, gamma)[here, right_step]
    mean, error = mean_return(policy, 4000)
    print(f"a full step right at -0.4, then {name:<16} Q = {exact:.5f}")
    check(
        f"then {name}: walks against policy_q, in standard errors",
        abs(mean - exact) / error,
        below=3.5,
    )

# %% [markdown]
# ### Step 2: the Bellman equation
#
# Write $d=1$ for a step that ends the task and $d=0$ for any other. Now split the sum after its first term. The rest is
# $\gamma$ times a return that starts at $s'$ with the policy's action $a'$, or nothing after an end:
#
# $$Q^\pi(s,a)=E\big[R+\gamma\,(1-d)\,Q^\pi(s',a')\big],\qquad a'\sim\pi(\cdot\mid s').$$
#
# This is the **Bellman equation**. It asks for no walk, only for one step. Read it as an assignment: put any function in on the
# right, and get a new one on the left. Two functions that differ by at most $\delta$ give results that differ by at most
# $\gamma\,\delta$, because the right side averages the difference and multiplies it by $\gamma$. So repetition converges to
# the one solution, from any start. Computing values in this way is *dynamic programming*. Doing it with sampled steps
# $(s,a,R,s',d)$, kept in a memory, is *temporal-difference* learning, TD for short.
#
# In the code `chance[s, a, s']` is the chance of going on at $s'$. What is missing to 1 is the chance of an end, so the
# factor $1-d$ is already in it.

# %%
q, errors = torch.zeros(S, A, dtype=torch.float64), []
truth = policy_q(world, uniform, gamma)
for _ in range(200):
    q = world.reward + gamma * world.chance @ (uniform * q).sum(1)
    errors.append((q - truth).abs().max())
check("step 2: 200 rounds against the linear solve", errors[-1], below=1e-3)
shrink = torch.stack(errors[1:]) / torch.stack(errors[:-1])
check(
    "step 2: largest factor of the error in a round, less gamma", shrink.max() - gamma, below=1e-9
)

# %% [markdown]
# ### Step 3: acting by a critic
#
# The use of a critic is to choose. SOM acts by **best of $N$**: the policy draws $N$ candidate actions, the critic picks
# the one it values highest. With candidates drawn independently and evenly from $A$ actions, the action of rank $k$ (1 the
# worst, $A$ the best) is picked with probability
#
# $$\Big(\frac kA\Big)^N-\Big(\frac{k-1}A\Big)^N ,$$
#
# since all $N$ candidates must have rank $k$ or less, and not all $k-1$ or less. $N=1$ is the uniform policy, a large $N$
# the *greedy* one, which takes the action of the highest value. Put this policy into the Bellman equation, and the critic judges the policy that it makes itself.
#
# Is the solution still unique? The weights grow with the rank. Of all ways to deal them out, the one that gives the
# greatest weight to the greatest value has the greatest mean. So the right side is now a *maximum of averages*. If two functions differ by at most
# $\delta$, so do their averages, and so do the maxima of these. The argument of step 2 goes through.

# %%
ranks = torch.arange(1, A + 1, dtype=torch.float64) / A
print("   N   (1 - gamma) V at -0.4   best action there")
per_step = {}
for n in (1, 2, 8, 32, VERY_MANY):
    weights = ranks**n - (ranks - 1 / A) ** n
    q = best_of_n_q(world, n, gamma)
    again = world.reward + gamma * world.chance @ (q.sort(1).values @ weights)
    check(f"step 3, N = {n}: residual of the Bellman equation", (again - q).abs().max(), below=1e-6)
    per_step[n] = (1 - gamma) * (q[here].sort().values @ weights)
    print(f"{n:4d} {per_step[n]:15.5f} {world.actions[q[here].argmax()]:20.5f}")
check("step 3: value of 8 candidates over that of one", per_step[8] / per_step[1], above=2)

# %% [markdown]
# $(1-\gamma)V$ is a mean reward per step, weighted by the discounts. With one or two candidates the
# best answer is to step back to the low hill, because a random walker would not make it across. With eight it is a full step to
# the right. A better policy changes what is worth doing: *whose* $Q$.
#
# ### Step 4: the best of the errors
#
# So far $Q$ was exact. Let an estimate be $\hat Q=Q+e$, with errors $e$ of mean zero. Is its maximum right on average?
#
# $$E\max_a\,\big(Q(a)+e(a)\big)\;\ge\;\max_a\,E\big[Q(a)+e(a)\big]=\max_a\,Q(a),$$
#
# because the maximum is at least the value at any fixed action. It is *greater* as soon as another action can win by luck. A
# maximum looks for what is good *and* for what is overrated. The remedy of Fujimoto and others is a pair of critics with
# independent errors, of which the **smaller** value counts: an action must now be overrated twice. Here are critics with
# normal errors of standard deviation one, and what they say of the candidate they pick, less its true value. (Networks
# taught by one memory err more alike.)


# %%
def optimism(critics, n, generator, worlds=300):
    """What the picked candidate is said to be worth, less what it is worth."""
    error = torch.randn(worlds, critics, S, A, generator=generator, dtype=torch.float64)
    judged = (optimal_q + error).amin(1)
    candidates = torch.randint(A, (worlds, S, n), generator=generator)
    said, which = judged.gather(2, candidates).max(2, keepdim=True)
    true = optimal_q.expand(worlds, S, A).gather(2, candidates.gather(2, which))
    return (said - true).mean()


generator = torch.Generator().manual_seed(2)
print("   N   one critic   smaller of two")
over = {}
for n in (1, 2, 8, 32):
    over[n] = [optimism(critics, n, generator) for critics in (1, 2)]
    print(f"{n:4d} {over[n][0]:+10.3f} {over[n][1]:+14.3f}")
check("step 4: optimism of one critic, N = 8", over[8][0], above=1.0)
check("step 4: optimism of two, N = 8, over that of one", over[8][1] / over[8][0], below=0.5)
check("step 4: two critics, N = 1: too low", over[1][1], below=-0.4)

# %% [markdown]
# The minimum is biased too: with one candidate too low (by $1/\sqrt\pi\approx0.56$), with many still too high, only less.
#
# Why care about a bias of one unit? Because the target of one state is made of the estimate of the next. A bias of $\Delta$ in
# every target adds up over all steps to come:
#
# $$\Delta+\gamma\Delta+\gamma^2\Delta+\dots=\frac\Delta{1-\gamma}.$$
#
# At $\gamma=0.95$ that is a factor of 20. To see it happen, let tables learn by TD: each round, every entry takes one sampled
# step, with noise of standard deviation one on the reward, and moves a tenth of the way to its target. Two tables see different
# samples. All start *at the exact values*, so that every drift is the method's own.

# %%
shifted = policy_q(replace(world, reward=world.reward + 0.1), optimal, gamma) - optimal_q
check("step 4: effect of a bias of 0.1", shifted.max(), above=1.9, below=2.001)

all_places, all_actions = torch.arange(S).repeat_interleave(A), torch.arange(A).repeat(S)


def drift(tables, rounds=300):
    """The mean error of the first table, round by round."""
    generator = torch.Generator().manual_seed(3)
    q, found = optimal_q.repeat(tables, 1, 1), []
    for _ in range(rounds):
        best = q.amin(0).amax(1)
        for i in range(tables):
            after, ended = step(world, all_places, all_actions, generator)
            noise = torch.randn(S * A, generator=generator, dtype=torch.float64)
            y = world.reward.flatten() + noise + gamma * (1 - ended) * best[after]
            q[i] += 0.1 * (y.view(S, A) - q[i])
        found.append((q[0] - optimal_q).mean().item())
    return found


drifts = {tables: drift(tables) for tables in (1, 2)}
check("step 4: drift of one table", drifts[1][-1], above=3)
check("step 4: drift of two tables over that of one", drifts[2][-1] / drifts[1][-1], below=0.6)

# %% tags=["hide-input"]
fig, ax = figure(5.6, 3.4)
ax.axhline(0, color=COLOURS["reference"], linewidth=1)
ax.plot(drifts[1], color=COLOURS["error"], linestyle=LINES["error"], label="one table")
ax.plot(drifts[2], color=COLOURS["target"], linestyle=LINES["target"], label="smaller of two")
ax.set(xlabel="rounds", ylabel="mean of learnt less exact", xlim=(0, 300))
ax.legend(frameon=False)
show(
    fig,
    "Mean error of learnt tables over 300 rounds, from zero. The dotted line of one table rises steeply and bends, to "
    "several units. The solid line of the smaller of two tables rises to a fraction of that.",
)

# %% [markdown]
# **What you should see.** Nothing but noise went in, and the values climb. Two tables climb far less. They are not exact
# either: how the two biases balance depends on the noise and on the number of actions.
#
# **Stop and think.** Would three critics, with the smallest value counting, be better still?
#
# <details><summary>Answer</summary>
#
# The optimism falls further and the pessimism grows: for a single candidate the smallest of three is too low by 0.85 standard
# deviations instead of 0.56. A critic that fears what it has seldom seen
# never tries it.
#
# </details>
#
# ### Step 5: two kinds of end
#
# Episodes are cut after some number of steps $T$, or training would never see a start again. This is no event of the world. The
# walker who stands on the hill when the clock runs out would have gone on earning. So there are two words: an episode is
# **terminated** when the task ended (the cliff), **truncated** when the clock did. Only the first means that nothing
# follows.
#
# What if a program stores both as $d=1$? When a share $\eta(s)$ of the steps from $s$ are last steps, the learnt values
# solve another equation:
#
# $$Q(s,a)=E\big[R+\gamma\,(1-\eta(s))(1-d)\,Q(s',a')\big].$$
#
# If the last steps are spread evenly over the places, $\eta=1/T$, and the discount has shrunk to $\gamma(1-1/T)$. A walker who gets
# reward 1 for ever is worth $1/(1-\gamma)=100$ at $\gamma=0.99$; with $T=10$ the critic learns 9.17. It is short-sighted, and
# acts like it.

# %%
T, far = 10, 0.99  # steps before the clock strikes; a far-sighted discount
found = {stop: best_of_n_q(world, VERY_MANY, far, stop) for stop in (0.0, 1 / T)}
shrunk = best_of_n_q(world, VERY_MANY, far * (1 - 1 / T))
check(
    "step 5: stored as ends against a smaller discount",
    (found[0.1] - shrunk).abs().max(),
    below=1e-8,
)
paid_for_ever = replace(world, reward=torch.ones(S, A, dtype=torch.float64))
for stop, answer in ((0.0, 100), (0.1, 9.17431)):
    worth = policy_q(paid_for_ever, optimal, far, stop)[0, 0]  # this policy does not fall
    print(f"reward 1 for ever, share of false ends {stop:.1f}: {answer:9.5f}")
    check(f"step 5, share {stop:g}: relative error", abs(worth / answer - 1), below=1e-3)
best = {stop: world.actions[q[here].argmax()] for stop, q in found.items()}
print(f"best action at -0.4: {best[0.0]:+.5f}; with false ends: {best[0.1]:+.5f}")
check("step 5: best action at -0.4, ends told apart", best[0.0], above=0.9)
check("step 5: best action at -0.4, clock stored as end", best[0.1], below=0)

# %% [markdown]
# Look at the last line: the *decision* has changed. The walker stays on the low hill for ever.
#
# **Stop and think.** The reader of a robot's log sees a return of 1000 in an episode of 1000 steps and says: "$\gamma=0.99$
# looks 100 steps ahead, the clock strikes after 1000. One false end in 1000 does no harm." Right?
#
# <details><summary>Answer</summary>
#
# Nearly, as far as the discount goes: $0.99\cdot0.999\approx0.989$ lowers a value of 100 to 91. But the place where the clock
# strikes is not random. If only good walkers live to see step 1000, all false ends fall on the states that only good
# walkers reach, and exactly these are said to lead nowhere.
#
# </details>
#
# ### Step 6: normalisation fixes the scale
#
# Now the question of the chapter: what makes a network learn $Q$ *sooner*? One answer is **batch normalisation**. In front
# of each linear layer, every number $h$ that enters it (a *feature*) is shifted and scaled by its mean and its variance over
# the batch of $B$ rows in which it is computed:
#
# $$\hat h=w\,\frac{h-\mathrm{mean}_B(h)}{\sqrt{\mathrm{var}_B(h)+10^{-3}}}+b ,$$
#
# with a learnt slope $w$ and shift $b$; the $10^{-3}$ guards against division by zero. In the critic `BatchNormQ` a hidden
# unit is $h=\mathrm{relu}(W\hat x+c)$, and its output is normalised next. Multiply the unit's weights $(W,c)$ by a number
# $\lambda>0$: $h$ grows by $\lambda$, and the normalisation takes it out again. The loss $L$ does not see the length of
# $(W,c)$. Two things follow. Differentiate $L(\lambda W,\lambda c)=L(W,c)$ by $\lambda$ at 1, and by $W$:
#
# $$\langle\nabla L,(W,c)\rangle=0,\qquad \nabla L(\lambda W,\lambda c)=\tfrac1\lambda\nabla L(W,c).$$
#
# Gradients are at right angles to the weights, so plain gradient steps can only *lengthen* them. And long weights have
# small gradients. What counts is the *angle* by which a step turns the weights, the step's length over the weights'
# length: the **effective step size**. It falls by itself where steps were too large. A plain network has no such brake. There
# a large step can make large features, larger gradients and a larger step. (Adam rescales every entry of a gradient: with it
# right angles and brake hold roughly.)

# %%
torch.manual_seed(0)
normed = BatchNormQ(1, 1, (16, 16)).double()
for norm in normed.norms:
    norm.eps = 1e-12  # in place of 1e-3: the statements are exact without it
rows, acts = torch.rand(64, 2, 1, dtype=torch.float64).mul(2).sub(1).unbind(1)
y = torch.sin(3 * rows[:, 0]) + acts[:, 0]
first = normed.linears[0]


def value_and_gradient():
    q = normed.in_batch(rows, acts)
    loss = (q - y).square().mean()
    found = torch.autograd.grad(loss, [first.weight, first.bias])
    return q.detach(), torch.cat([found[0], found[1][:, None]], 1)


q_before, gradient = value_and_gradient()
weights = torch.cat([first.weight, first.bias[:, None]], 1).detach()
cosines = (gradient * weights).sum(1) / (gradient.norm(dim=1) * weights.norm(dim=1) + 1e-12)
check(
    "step 6: largest cosine between a unit's gradient and its weights",
    cosines.abs().max(),
    below=1e-6,
)
with torch.no_grad():
    first.weight *= 10
    first.bias *= 10
q_after, smaller = value_and_gradient()
check(
    "step 6: change of Q when the layer is multiplied by 10",
    (q_after - q_before).abs().max(),
    below=1e-7,
)
check("step 6: gradient times 10 against before", (10 * smaller - gradient).abs().max(), below=1e-7)

# %% [markdown]
# ### Step 7: two passes are blind
#
# A TD update needs two kinds of rows: $Q(s,a)$ for pairs from memory, and $Q(s',a')$ with the policy's action. The obvious
# code passes them through the network one after the other. With it batch normalisation fails, and here is a reason. Each
# pass takes out the mean of *its own* rows. Suppose a policy that answers $a'=1$ everywhere. In its batch the action is a
# constant; normalised, it is zero. And so is the action $-1$. The critic gives both policies the same value: it cannot see
# the action, whatever its weights. In *one* batch of all rows, memory and policy together, the two differ. That is the
# remedy of Bhatt and others: one joint pass.

# %%
critic = BatchNormQ(1, 1, (16, 16)).double()
to_right, to_left = torch.ones_like(acts), -torch.ones_like(acts)


def in_company(next_action):
    """Q(s', a') when the pairs (s, a) are in the same batch."""
    return critic.in_batch(torch.cat([rows, rows]), torch.cat([acts, next_action]))[64:].detach()


alone = (critic.in_batch(rows, to_right) - critic.in_batch(rows, to_left)).detach()
together = in_company(to_right) - in_company(to_left)
check("step 7: two passes: Q of always right less Q of always left", alone.abs().max(), below=1e-9)
check("step 7: one pass: the same difference", together.abs().max(), above=0.01)

# %% [markdown]
# A constant action is the extreme case. Exercise 6 shows more: in a pass of its own *every* policy has the same mean value.

# %% [markdown]
# ## Code

# %% [markdown]
# ### 1. The target · ●○○ · 10 min
#
# Write $y=R+\gamma(1-d)\,Q(s',a')$ for a batch. `terminated` is 1 where the task ended and 0 elsewhere, also where the clock
# ran out. One trap: networks like to return shape (B, 1), buffers hold shape (B,). Their sum has shape (B, B), and no error
# tells you. So raise a `ValueError` unless all three shapes are equal.


# %% tags=["exercise", "raises-exception"]
def td_target(reward, terminated, next_q, gamma):
    raise NotImplementedError("your turn")


reward_3, ends_3, next_3 = torch.tensor([[1.0, 2.0, -1.0], [0.0, 1.0, 0.0], [10.0, 7.0, -4.0]])
off = td_target(reward_3, ends_3, next_3, 0.5) - torch.tensor([6.0, 2.0, -3.0])
check("exercise 1: error of three targets", off.abs().max(), below=1e-6)
refused = 0
for wrong in ((reward_3, ends_3, next_3[:, None]), (reward_3[:, None], ends_3, next_3)):
    try:
        td_target(*wrong, 0.5)
    except ValueError:
        refused += 1
check("exercise 1: refused shapes, of two", refused, above=1.5)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `reward.shape == terminated.shape == next_q.shape` is one expression.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def td_target(reward, terminated, next_q, gamma):
#     if not reward.shape == terminated.shape == next_q.shape:
#         shapes = ", ".join(str(tuple(x.shape)) for x in (reward, terminated, next_q))
#         raise ValueError(f"reward, terminated and next_q must have one shape, got {shapes}")
#     return reward + gamma * (1 - terminated) * next_q
# ```
#
# </details>

# %% [markdown]
# ### 2. The best of N · ●●○ · 15 min
#
# A twin critic has `critic.min(obs, a)`, the smaller of its two estimates. Leading dimensions broadcast: states of shape
# (B, 1, obs) meet candidates of shape (B, N, act) and give (B, N). Return for each state the candidate with the
# highest such value, shape (B, act), all of them from one call. A single candidate needs no critic at all: return it
# without a call.


# %% tags=["exercise", "raises-exception"]
def best_of_n(critic, obs, candidates):
    raise NotImplementedError("your turn")


torch.manual_seed(1)
twin = TwinQ(3, 2, (16,))
obs, candidates = torch.randn(50, 3), torch.rand(50, 6, 2) * 2 - 1
picked = best_of_n(twin, obs, candidates)
check(
    "exercise 2: rows and columns of the answer",
    abs(picked.shape[0] - 50) + abs(picked.shape[-1] - 2),
    below=0.5,
)
check(
    "exercise 2: against the package",
    (picked - package.best_of_n(twin, obs, candidates)).abs().max(),
    below=1e-6,
)
calls = []
twin.min = lambda obs, a: calls.append(1) or TwinQ.min(twin, obs, a)
best_of_n(twin, obs, candidates)
check("exercise 2: calls for six candidates", len(calls), below=1.5)
alone = best_of_n(twin, obs, candidates[:, :1])
check("exercise 2: a single candidate", (alone - candidates[:, 0]).abs().max(), below=1e-6)
check("exercise 2: calls after that", len(calls), below=1.5)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `obs[:, None]` has the shape (B, 1, obs). `candidates[torch.arange(B), index]` picks one candidate per row.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def best_of_n(critic, obs, candidates):
#     if candidates.shape[1] == 1:
#         return candidates[:, 0]
#     q = critic.min(obs[:, None], candidates)
#     return candidates[torch.arange(len(q), device=q.device), q.argmax(dim=1)]
# ```
#
# </details>

# %% [markdown]
# ### 3. The joint pass · ●●○ · 15 min
#
# The heart of the chapter. `net.in_batch(obs, a)` is $Q$ of a batch, normalised by the statistics of exactly those rows. The
# states and actions of memory are `batch.obs` and `batch.action`, the next states `batch.next_obs`. Return $Q(s,a)$ and
# $Q(s',a')$ from **one** pass of all $2B$ rows, each of shape (B,).


# %% tags=["exercise", "raises-exception"]
def joint_pass(net, batch, next_action):
    raise NotImplementedError("your turn")


torch.manual_seed(2)
twin = TwinQ(1, 1, (16, 16), BatchNormQ)
pairs = [torch.rand(32, 1) * 2 - 1 for _ in range(2)]
some = Batch(pairs[0], pairs[1], torch.zeros(32), pairs[0] + 0.2, torch.zeros(32))
answered = torch.rand(32, 1)  # this policy goes right
(q_1, q_2), (next_1, next_2) = twin.values(some, answered, None)
asked_net, passes = copy.deepcopy(twin.q1), []
asked_net.in_batch = lambda obs, a: (
    passes.append(len(obs)) or BatchNormQ.in_batch(asked_net, obs, a)
)
mine = joint_pass(asked_net, some, answered)
off = [(a - b).detach().abs().max() for a, b in zip(mine, (q_1, next_1), strict=True)]
check("exercise 3: Q(s, a) against the package", off[0], below=1e-5)
check("exercise 3: Q(s', a') against the package", off[1], below=1e-5)
check("exercise 3: passes", len(passes), below=1.5)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `torch.cat` before, slices after. Which half comes first is up to you, as long as states and actions agree.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def joint_pass(net, batch, next_action):
#     obs = torch.cat([batch.obs, batch.next_obs])
#     both = net.in_batch(obs, torch.cat([batch.action, next_action]))
#     return both[: len(next_action)], both[len(next_action) :]
# ```
#
# </details>

# %% [markdown]
# ### What the package has
#
# The pass through the normalised network, and the two ways to get both kinds of values. Where the critic is not normalised, a
# *target network* gives $Q(s',a')$: a slow copy, whose weights move a small share $\tau$ towards the critic's after each
# update (`polyak_`).

# %%
listing(
    BatchNormQ.in_batch,
    {
        "_normalise(norm, x)": "By the mean and variance of these rows. The running statistics move 1 % towards them; "
        "`forward` uses those, so that the value of an action never depends on its company.",
        "is not self.linears[-1]": "The last layer is linear: a value may have any sign.",
    },
)
listing(
    TwinQ.values,
    {
        "if target is not None": "The plain critic: the slow copy values (s', a').",
        "torch.cat([batch.obs, batch.next_obs])": "The joint pass: one batch of 2 B rows.",
        "both[:, : len(next_action)]": "Cut in two. The gradient flows through the first half only, because the loss "
        "detaches the second.",
    },
)

# %% [markdown]
# ### The update
#
# Here is the whole of TD learning. The memory holds 5000 steps from random places with random actions. The policy
# is the best of eight random candidates by the critic itself. The memory was *not* filled by this policy, and need not be: the
# target asks the present policy for $a'$. Such learning is called *off-policy*. The exact answer is `best_of_n_q` with
# $N=8$. `slow_share` is $\tau$; with $\tau=1$ the copy is not slow at all.
#
# We train five critics: plain ones with a slow copy, a less slow one, and none; normalised ones with one joint pass and with
# two passes. All see the same memory and the same batches. For all of them Adam has the short memory of gradients (`betas`)
# that the authors of the normalised critic advise.

# %%
N = 8
exact = best_of_n_q(world, N, gamma)
actions = world.actions.float()[:, None]


def experience(world, count, generator):
    place = torch.randint(S, (count,), generator=generator)
    action = torch.randint(A, (count,), generator=generator)
    return as_batch(world, place, action, *step(world, place, action, generator))


def rows_of(memory, count, generator):
    rows = torch.randint(len(memory.reward), (count,), generator=generator)
    return Batch(*(column[rows] for column in memory))


def update(critic, slow, optimizer, batch, generator):
    """One step of TD: the lines of `QAgent.critic_update`."""
    with torch.no_grad():
        candidates = actions[torch.randint(A, (len(batch.reward), N), generator=generator)]
        next_action = package.best_of_n(slow or critic, batch.next_obs, candidates)
    q, next_q = critic.values(batch, next_action, slow)
    y = package.td_target(batch.reward, batch.terminated, next_q.detach().amin(0), gamma)
    loss = (q - y).square().mean(dim=1).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def weights_of(critic):
    """All weight matrices as one long vector."""
    return torch.cat([p.detach().flatten() for p in critic.parameters() if p.ndim == 2])


def learn(critic, world, slow_share=None, updates=1500):
    """Train; every 50 updates note how good and how healthy the critic is."""
    generator = torch.Generator().manual_seed(4)
    memory = experience(world, 5000, generator)
    exact = best_of_n_q(world, N, gamma)
    slow = None if slow_share is None else copy.deepcopy(critic)
    optimizer = torch.optim.Adam(critic.parameters(), 1e-3, betas=(0.5, 0.999))
    log = {"update": [], "error": [], "greatest": [], "norm": [], "dead": [], "turn": []}
    for k in range(updates + 1):
        before = weights_of(critic)
        if k % 50 == 0:
            health, learnt = critic.health(*memory[:2]), tabulate(world, critic.min)
            log["update"].append(k)
            log["error"].append(((learnt - exact).square().mean().sqrt() / exact.std()).item())
            log["greatest"].append(learnt.abs().max().item())
            log["norm"].append(health["weight_norm"].item())
            log["dead"].append(health["dead_units"].item())
        update(critic, slow, optimizer, rows_of(memory, 128, generator), generator)
        if k % 50 == 0:  # length of this step over length of the weights
            log["turn"].append(((weights_of(critic) - before).norm() / before.norm()).item())
        if slow is not None:
            polyak_(slow, critic, slow_share)
    return {name: np.array(column) for name, column in log.items()}


class TwoPasses(TwinQ):
    """Batch normalisation as it fails: each kind of rows in a pass of its own."""

    def values(self, batch, next_action, target):
        nets = (self.q1, self.q2)
        return (
            torch.stack([net.in_batch(batch.obs, batch.action) for net in nets]),
            torch.stack([net.in_batch(batch.next_obs, next_action) for net in nets]),
        )


RECIPES = {
    "plain, slow copy 0.005": (TwinQ, PlainQ, 0.005),
    "plain, slow copy 0.05": (TwinQ, PlainQ, 0.05),
    "plain, no copy": (TwinQ, PlainQ, 1.0),
    "normalised, one pass": (TwinQ, BatchNormQ, None),
    "normalised, two passes": (TwoPasses, BatchNormQ, None),
}


def train_by(name, world, seed=0, updates=1500):
    """A critic by one of the recipes, and its log."""
    cls, kind, slow_share = RECIPES[name]
    torch.manual_seed(seed)
    critic = cls(1, 1, (64, 64), kind)
    return critic, learn(critic, world, slow_share, updates)


trained, logs = {}, {}
for name in RECIPES:
    trained[name], logs[name] = train_by(name, world)

# %% [markdown]
# ## Checks
#
# ### A network against dynamic programming
#
# Does TD with a network find the exact values? Here is the plain critic with its slow copy at $\tau=0.05$, after 1500
# updates, beside the exact values of the best of eight. The *error* is the root mean square of learnt less exact, in units of
# the spread of the exact values.

# %%
learnt = tabulate(world, trained["plain, slow copy 0.05"].min)
error = logs["plain, slow copy 0.05"]["error"]
check("plain critic, slow copy 0.05: error", error[-1], below=1.0)
check("the same before training", error[0], above=3)
best_actions = world.actions[learnt.argmax(1)]
valley = (world.places > -0.3) & (world.places < 0.3)
check("learnt: the least best action in the valley", best_actions[valley].min(), above=0.3)
check("learnt: best action at the last place before the cliff", best_actions[-1], below=-0.5)
in_place = exact[here]
lost = 100 * (1 - in_place[A // 2] / in_place.max())
check("exact: what standing still costs at -0.4, per cent of Q", lost, above=1, below=2)

# %% tags=["hide-input"]
fig, axes = figure(8.4, 4.2, ncols=2)
levels = np.arange(8, 18.1, 1)
for ax, q, title in zip(axes, (exact, learnt), ("exact", "learnt"), strict=True):
    filled = ax.contourf(world.places, world.actions, q.T, levels, cmap=BACKDROP, extend="both")
    ax.contour(world.places, world.actions, q.T, levels, colors="#5080a0", linewidths=0.5)
    best_actions = world.actions[q.argmax(1)]
    ax.plot(world.places, best_actions, color=COLOURS["one-step"], label="best action")
    ax.set(xlabel="place $x$", title=title, aspect="equal", xlim=(-1, 1), ylim=(-1, 1))
axes[0].set_ylabel("action $a$")
axes[0].legend(loc="lower left", frameon=False)
fig.colorbar(filled, ax=axes, label="$Q(x,a)$")
show(
    fig,
    "Two contour maps of Q over place and action, exact and learnt by the plain network. Both are high in most of the plane "
    "and fall off steeply in the upper right corner, where the walker falls over the cliff. The green line of the best "
    "action is at the top between the hills and falls to the bottom near the cliff, in both; around the low hill the learnt "
    "one has a deep notch.",
)

# %% [markdown]
# **What you should see.** The same landscape twice: it rises to the right and ends at a precipice, upper right, where a step
# leads over the cliff. The green lines, the best action for each place, agree where it matters: to the right in the valley,
# back before the cliff. The contours agree less well: the learnt values are still too low. Between actions of one place $Q$
# often differs by a few per cent only, and the policy hangs on these few per cent. That is why errors of a critic matter more
# than a loss suggests.
#
# ### Who learns sooner?
#
# Five critics, the same 1500 updates. `learn` looked at them every 50. Beside the error it noted the norm of all weights, the
# share of *dead* units (zero for every row in memory, so without gradient), and the effective step size, the length of one
# step of all weights over their norm.


# %%
def first_below(name, bound, logs=logs):
    """The first update at which the error is below the bound, or 9999."""
    log = logs[name]
    below = log["update"][log["error"] < bound]
    return below[0] if len(below) else 9999


one, two = logs["normalised, one pass"], logs["normalised, two passes"]
plain, slow_plain = logs["plain, slow copy 0.05"], logs["plain, slow copy 0.005"]
free = logs["plain, no copy"]
sooner = first_below("plain, slow copy 0.05", 1) / first_below("normalised, one pass", 1)
check("updates to an error of 1: plain with 0.05 over normalised", sooner, above=1.2)
check("error after 1500 updates: normalised, one pass", one["error"][-1], below=1)
check("error after 1500 updates: normalised, two passes", two["error"][-1], above=3)
check("error after 1500 updates: plain, slow copy 0.005", slow_plain["error"][-1], above=3)
rises = [
    train_by("plain, no copy", world, seed, 400)[1]["greatest"].max() / exact.max()
    for seed in (1, 2, 3)
]
rises.insert(0, free["greatest"].max() / exact.max())
shown = ", ".join(f"{rise:.1f}" for rise in rises)
measured("no copy: greatest value on the way over the greatest exact one, four starts", shown)
check("no copy: starts of four that overshoot it twofold", sum(r > 2 for r in rises), above=1.5)
rise = one["greatest"].max() / exact.max()
check("normalised, one pass: greatest value over the greatest exact one", rise, below=1.5)
check("norm of the weights, end over start: plain", plain["norm"][-1] / plain["norm"][0], above=1.6)
check("the same: no copy", free["norm"][-1] / free["norm"][0], above=3)
check("the same: normalised, one pass", one["norm"][-1] / one["norm"][0], below=1.4)
check("share of dead units at the end: plain", plain["dead"][-1], above=0.06)
check("the same: normalised, one pass", one["dead"][-1], below=0.05)
late_turns = one["turn"][15:].mean() / plain["turn"][15:].mean()
check("effective step size, second half: normalised over plain", late_turns, above=1.2)

# %% tags=["hide-input"]
kinds = ("noise", "sac", "error", "one-step", "score")
fig, axes = figure(8.4, 7.0, ncols=2, nrows=2)
panels = {
    "error": "error",
    "norm": "norm of the weights",
    "dead": "share of dead units",
    "turn": "effective step size",
}
for ax, (quantity, title) in zip(axes.flat, panels.items(), strict=True):
    for (name, log), kind in zip(logs.items(), kinds, strict=True):
        ax.plot(
            log["update"], log[quantity], color=COLOURS[kind], linestyle=LINES[kind], label=name
        )
    ax.set(xlabel="update", title=title, xlim=(0, 1500))
axes[0, 0].set(yscale="log", ylim=(0.3, 1000))
axes[1, 1].set(yscale="log")
fig.legend(
    *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False
)
show(
    fig,
    "Four panels against the number of updates, a line for each of five critics. Error on a logarithmic axis: the "
    "normalised critic in one pass falls first; the plain one with a slow copy of 0.05 follows; without a copy the error "
    "dips, jumps far up, then falls slowly; with a copy of 0.005 it falls hardly at all; the normalised one in two passes stays "
    "where it started. Weight norm: low for both normalised critics, higher for the plain ones, highest without a copy. "
    "Dead units: few for the normalised, a tenth and more for the plain ones. Effective step size on a logarithmic axis: "
    "ragged lines, highest for the normalised critics, lower for the plain ones, and sinking without a copy.",
)

# %% [markdown]
# **What you should see.** On the upper left, error against updates. The plain critic with the usual $\tau=0.005$ crawls: values
# travel through the slow copy, which needs hundreds of updates to follow, over and over. Without a copy (dotted orange) the
# error jumps up: a raised $Q(s,a)$ raises its own target $Q(s',a')$, since neighbours share weights, and the two
# chase each other upwards, from most starts (the cell above prints four), not from all. $\tau=0.05$ is the compromise. The normalised critic in one pass (green) needs no copy and is
# below error 1 first. In two passes the error hardly moves.
#
# The other panels show what goes with it. The chase of a plain network goes through its weights: the norm doubles, without a
# copy it grows several times over, and a share of the units dies. The normalised network keeps short weights and few dead
# units. Its features have scale one by construction; values can grow only through the last slopes, shifts and layer, which
# Adam moves by about one step size an update: a brake, and the slow copy is not missed. And since the weights stay short, the
# effective step stays somewhat longer (lower right). This is not enough: in two passes all three look as healthy, and the
# error stays.
#
# ### What two passes lose
#
# Is the critic of two passes worthless? What does the greedy policy by it *truly* earn? We ask twice,
# here and in the same world with a *rent* of 0.5 for every step. (Who falls pays no more rent.)


# %%
def greedy(critic):
    return best_of_n_policy(tabulate(world, critic.min), VERY_MANY)


def share_of_optimum(critic, world):
    """The true value of the greedy policy by this critic, over the greatest possible one."""
    policy = greedy(critic)
    earned = (policy * policy_q(world, policy, gamma)).sum(1).mean()
    return earned / best_of_n_q(world, VERY_MANY, gamma).amax(1).mean()


def share_that_falls(critic):
    """Of walkers who start on the high hill, those who go over the cliff within 30 steps."""
    generator = torch.Generator().manual_seed(6)
    seen, _ = walks(greedy(critic), place_of(0.7).repeat(500), 31, generator)
    return seen[-1].isnan().double().mean()


rented = replace(world, reward=world.reward - 0.5)
contenders = ("plain, slow copy 0.05", "normalised, one pass", "normalised, two passes")
with_rent = {name: train_by(name, rented) for name in contenders}
earns = {name: share_of_optimum(trained[name], world) for name in contenders[1:]}
for name, share in earns.items():
    check(f"{name}: earns, share of the optimum", share, above=0.8)
lead = earns["normalised, two passes"] / earns["normalised, one pass"]
check("without rent, two passes over one pass", lead, above=1)
one_rent, two_rent = (with_rent[name][0] for name in contenders[1:])
check("with rent, one pass: share of the optimum", share_of_optimum(one_rent, rented), above=0.7)
check("with rent, two passes: the same", share_of_optimum(two_rent, rented), below=0.3)
check("with rent, one pass: share of walkers that falls", share_that_falls(one_rent), below=0.1)
check("with rent, two passes: the same", share_that_falls(two_rent), above=0.9)
logs_rent = {name: log for name, (_, log) in with_rent.items()}
lead = first_below(contenders[0], 1, logs_rent) / first_below(contenders[1], 1, logs_rent)
check("with rent, updates to an error of 1: plain with 0.05 over normalised", lead, below=1.2)

# %% tags=["hide-input"]
fig, axes = figure(8.4, 3.9, ncols=2)
critics = (trained, {name: critic for name, (critic, _) in with_rent.items()})
for ax, place, found, title in zip(
    axes, (world, rented), critics, ("without rent", "with rent"), strict=True
):
    ax.axhline(0, color=COLOURS["error"], linestyle=LINES["error"], label="an end")
    truth_here = best_of_n_q(place, N, gamma).amax(1)
    ax.plot(place.places, truth_here, color=COLOURS["reference"], label="exact")
    for name, kind in zip(contenders[1:], ("one-step", "score"), strict=True):
        best = tabulate(place, found[name].min).amax(1)
        ax.plot(place.places, best, color=COLOURS[kind], linestyle=LINES[kind], label=name)
    ax.set(xlabel="place $x$", xlim=(-1, 1), ylim=(-10, 20), title=title)
    ax.set_xticks([-1, -0.5, 0, 0.5, 1])
axes[0].set_ylabel("$Q$ of the best action")
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
show(
    fig,
    "Two panels, the value of the best action against the place. Left, without rent: the exact black line lies near 15, the "
    "green one of the joint pass close below it; the dash-dotted purple one of two passes rises too, ten and more lower. "
    "Right, with rent: black rises from 2 to 8 and green from 0 to 6; purple lies below zero everywhere, where a dotted line "
    "marks an end, and is highest at the cliff.",
)

# %% [markdown]
# **What you should see.** On the left, the purple critic of two passes knows which places are better than which. It is their
# *level* that is wrong. In a choice between two actions a constant cancels, and its greedy policy does well, here even better
# than that of one pass. Such a bug can live for long. Why is the level not learnt? The mean of each pass is fixed by the network's last shifts, so better actions in the target cannot
# lift the mean of the target (exercise 6).
#
# On the right the same fault is fatal. One thing is compared with the level: an end, worth exactly 0. To the purple critic
# every place seems to cost more than it pays, least so at the cliff. The end is a relief, and the walker takes the way there.
# The critic of the joint pass keeps him on the hill.
#
# **What the small task shows, and what not.** It shows what two passes lose and why, that one pass learns, and that it needs no
# slow copy. It does *not* show that normalised critics always learn sooner: with rent, where values have a shorter way to
# go, the lead is gone (last check). The slow copy of 0.005 is a straw man in a world where 1500 updates are all there
# is; on robots with $10^5$ it is the usual choice. One world, one seed for most of it, one input that already lies in
# $[-1,1]$: no ratio from here carries over. The learning curves of robots, with both kinds of critics, are in
# [chapter 09](09_som_on_mujoco.ipynb).

# %% [markdown]
# ## Explorer
#
# The exact values of the best of $N$, for any discount. Left: in each place, which action is how good; the black line is
# the best. Right: the value of each place. *Clock stored as end* cuts one step in ten off, as in step 5.

# %%
value_landscape_explorer(world)

# %% [markdown]
# **What you should see.** At $\gamma=0.99$ and $N=1000$ the black line lies at the top from the wall to the foot of the high hill:
# go right. At $\gamma=0.85$ it falls through zero at the low hill: from all places around, go there and stay. The valley is
# too wide for a short sight. Back at 0.99, store the clock as an end: the same thing happens, and the green value falls far
# below the dotted one. Tell the ends apart again and lower $N$. Down to 4 little changes. At $N=1$, on the high hill, the best
# thing is a full step back: a walker who will act at random had better be far from the cliff.
#
# **Stop and think.** At $\gamma=0.5$ the two kinds of bookkeeping hardly differ. Why?
#
# <details><summary>Answer</summary>
#
# Because $0.5\cdot0.9=0.45$: a critic that looks two steps ahead loses little by a clock of ten. The damage is the ratio of
# $1-\gamma(1-1/T)$ to $1-\gamma$: here 1.1, at $\gamma=0.99$ it is 10.9.
#
# </details>

# %% [markdown]
# ## What can go wrong
#
# **One dimension too many.** Values of shape (B, 1) minus targets of shape (B,) make a (B, B) table. The squared mean of it is
# a loss, it has gradients, it even falls. What it fits is the *mean* of all targets.

# %%
y = torch.tensor([0.0, 1.0, 2.0, 3.0])
column = torch.zeros(4, 1, requires_grad=True)
for _ in range(200):
    (slope,) = torch.autograd.grad((column - y).square().mean(), column)
    column = (column - slope).detach().requires_grad_()
print("targets ", [f"{value:.5f}" for value in y.tolist()])
print("learnt  ", [f"{value:.5f}" for value in column.detach().flatten().tolist()])
check(
    "largest distance of what is learnt from the mean of the targets",
    (column - 1.5).detach().abs().max(),
    below=1e-3,
)
try:
    package.td_target(y, torch.zeros(4), column.detach(), gamma)
except ValueError as error:
    print(error)

# %% [markdown]
# **Acting in the batch mode.** `in_batch` values an action by the company of its batch. Acting with it makes the choice in one
# state depend on which other states are asked at the same time. So acting uses `forward`, with running statistics.

# %%
net = copy.deepcopy(trained["normalised, one pass"].q1)
x, a = torch.full((64, 1), 0.3), torch.linspace(-1, 1, 64)[:, None]
others = torch.linspace(-1, 1, 64)[:, None]
with torch.no_grad():
    in_mode = [net.in_batch(torch.cat([x, z]), torch.cat([a, 0 * a]))[:64] for z in (others, x)]
    steady = [net(torch.cat([x, z]), torch.cat([a, 0 * a]))[:64] for z in (others, x)]
check("in_batch: change of Q by the company", (in_mode[0] - in_mode[1]).abs().max(), above=0.3)
check("forward: the same", (steady[0] - steady[1]).abs().max(), below=1e-3)

# %% [markdown]
# **Gradient through the target.** Without `detach` the loss can also be lowered by moving the target towards the
# value. In a world with chance this has another solution: it prefers functions whose value differs little between $s$ and $s'$. The exact
# numbers for the uniform policy: minimise the mean squared TD error over all pairs, with and without.

# %%
between = torch.einsum("sat,tb->satb", world.chance, uniform).reshape(S * A, S * A)
reward, eye = world.reward.flatten(), torch.eye(S * A, dtype=torch.float64)
# E (q - R - gamma q')^2 = q.q - 2 q.(R + gamma P q) + 2 gamma R.P q + gamma^2 (share of q'^2) + const
share = torch.diag(between.sum(0))
hessian = eye - gamma * (between + between.T) + gamma**2 * share
through = torch.linalg.solve(hessian, reward - gamma * between.T @ reward).view(S, A)
detached = torch.linalg.solve(eye - gamma * between, reward).view(S, A)
check("detached: error", (detached - truth).abs().max(), below=1e-8)
check(
    "with the gradient through the target: error over spread",
    (through - truth).std() / truth.std(),
    above=0.3,
)

# %% [markdown]
# **The clock as an end** changed the decision in step 5, and **two passes** sent the walker over the cliff. Neither
# raises an error, and nobody sees them in the loss. Exact values on a small world find them. So do two
# numbers on a robot: the return of episodes against the value the critic gives to their starts, and the share of `terminated`
# in the memory.

# %% [markdown]
# ## Exercises
#
# Exercises 1 to 3 are in the section *Code*.

# %% [markdown]
# ### 4. How often the clock strikes where · ●●○ · 15 min
#
# Episodes start at random places and are cut after $T$ steps. `visited(world, policy, start, T)` returns the chance of being
# at each place after $0,1,\dots,T-1$ steps, shape (T, S); walkers who fell no longer count. Return $\eta(s)$ of step 5: among
# all steps that are ever made from $s$, the share that is the last of its episode by the clock.


# %% tags=["exercise", "raises-exception"]
def stop_share(chances):
    raise NotImplementedError


toy_chances = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.2, 0.6]]).double()
off = stop_share(toy_chances) - torch.tensor([0.2 / 1.7, 0.6 / 1.1]).double()
check("exercise 4: error on a table of two places", off.abs().max(), below=1e-6)
somewhere = torch.full((S,), 1 / S, dtype=torch.float64)
eta = stop_share(visited(world, uniform, somewhere, T))
wrong_q = policy_q(world, uniform, far, eta)
lost = 1 - wrong_q.mean() / policy_q(world, uniform, far).mean()
check("exercise 4: share of the value that is lost", lost, above=0.8, below=0.9)
seen, _ = walks(uniform, torch.arange(S).repeat(500), T, torch.Generator().manual_seed(5))
middle = world.places[20]
counted = (seen[-1] == middle).sum() / (seen == middle).sum()
check("exercise 4: share in the middle, against walkers", abs(eta[20] - counted), below=0.02)

# %% [markdown]
# <details><summary>Hint</summary>
#
# The last row over what? Steps from $s$ are made at every age.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def stop_share(chances):
#     return chances[-1] / chances.sum(dim=0)
# ```
#
# With $T=10$ and a random walker five sixths of the value are gone.
#
# </details>

# %% [markdown]
# ### 5. What the best of N is worth · ●●○ · 15 min
#
# Write the exact mean, per row, of the greatest of $n$ values drawn evenly and with replacement from the row of `q`, shape
# (S, A). The result has shape (S,). Step 3 has all that is needed.


# %% tags=["exercise", "raises-exception"]
def expected_best(q, n):
    raise NotImplementedError


dice = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [4.0, 6.0, 1.0, 3.0, 5.0, 2.0]]).double()
check(
    "exercise 5: the better of two dice",
    (expected_best(dice, 2) - 161 / 36).abs().max(),
    below=1e-9,
)
check("exercise 5: one die", (expected_best(dice, 1) - 3.5).abs().max(), below=1e-9)
tied = torch.tensor([[2.0, 2.0, 0.0, 2.0]]).double()
check("exercise 5: ties", (expected_best(tied, 3) - 2 * (1 - 1 / 64)).abs().max(), below=1e-9)
of_policy = (best_of_n_policy(exact, N) * exact).sum(1)
check(
    "exercise 5: against the policy's mean",
    (expected_best(exact, N) - of_policy).abs().max(),
    below=1e-9,
)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Sort each row. The value of rank $k$ has the weight of step 3.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def expected_best(q, n):
#     edges = torch.arange(q.shape[1] + 1, dtype=q.dtype) / q.shape[1]
#     return q.sort(dim=1).values @ (edges**n).diff()
# ```
#
# </details>

# %% [markdown]
# ### 6. All policies look alike · ●●● · 25 min
#
# Show that in a pass of its own the mean of `in_batch` over the batch is the same number for *every* batch: for any states, any
# actions, any policy. Write `blind_mean(net)`, which returns that number from the network's parameters alone.
#
# Then draw the conclusion. A single network learns by TD in two passes, on a memory without ends and with mean reward $\bar R$.
# Where does the mean of its values settle, whatever the policy in the target? Write `settles_at(mean_reward, gamma)`.


# %% tags=["exercise", "raises-exception"]
def blind_mean(net):
    raise NotImplementedError


def settles_at(mean_reward, gamma):
    raise NotImplementedError


net = copy.deepcopy(trained["normalised, two passes"].q2)
torch.manual_seed(3)
for scale, shift in ((1.0, 0.0), (0.1, 0.7), (3.0, -2.0)):
    batch_mean = net.in_batch(
        scale * torch.randn(256, 1) + shift, torch.rand(256, 1) - shift
    ).mean()
    off = (batch_mean - torch.as_tensor(blind_mean(net)).squeeze()).detach().abs()
    check(f"exercise 6: error, batch of scale {scale:g}, shift {shift:g}", off, below=1e-3)
check("exercise 6: reward 1, gamma 0.95", abs(settles_at(1.0, 0.95) - 20), below=1e-6)
check("exercise 6: reward -0.3, gamma 0.5", abs(settles_at(-0.3, 0.5) + 0.6), below=1e-6)

# %% [markdown]
# <details><summary>Hint</summary>
#
# What stands just before the last linear layer? What is the mean over the batch of a normalised feature, after its learnt slope
# and shift? And what does a linear layer do to a mean?
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# The features that enter the last layer are $w_j(h_j-\mathrm{mean}\,h_j)/\sqrt{\dots}+b_j$. Their mean over the batch is $b_j$.
# The last layer is linear, so the mean of its outputs is its output at the mean features: a function of $b$ and of the layer's
# own weights, and of nothing else. Call it $\bar Q$. TD moves the mean of $Q(s,a)$, which is $\bar Q$, to the mean of
# $R+\gamma Q(s',a')$, which is $\bar R+\gamma\bar Q$. So $\bar Q=\bar R/(1-\gamma)$. But $\bar R$ is the reward of the *memory*: the value
# that is learnt is that of whoever filled it, and no policy can raise it. With one pass only the mean of both halves
# together is $\bar Q$.
#
# ```python
# def blind_mean(net):
#     return net.linears[-1](net.norms[-1].bias)
#
#
# def settles_at(mean_reward, gamma):
#     return mean_reward / (1 - gamma)
# ```
#
# </details>

# %% [markdown]
# ## Summary
#
# * $Q^\pi(s,a)$ is the mean discounted return of an action *if $\pi$ continues*. The Bellman equation has it as its only
#   solution; TD solves that equation from samples, with $y=R+\gamma(1-d)\,Q(s',a')$ held constant.
# * A maximum over estimates is too high, and the target multiplies a bias by up to $1/(1-\gamma)$. The smaller of two critics is
#   less optimistic, and pessimistic where there is nothing to choose.
# * Best of $N$ runs from the policy itself to the greedy one; its critic judges the policy that it makes.
# * Only `terminated` ends a sum. A clock stored as an end shrinks the discount to $\gamma(1-1/T)$, and changes decisions.
# * Batch normalisation makes the loss blind to the length of a unit's weights: gradients stand at right angles, steps
#   brake themselves. In two passes it learns differences but not the level, and an end is compared with the level. One joint
#   pass cures that, and needs no slow copy.
# * How much sooner robots learn is measured in chapter 09.

# %% [markdown]
# ## References
#
# * Sutton, Barto: *Reinforcement Learning: An Introduction*, 2nd edition, MIT Press 2018. Returns, Bellman equations, dynamic
#   programming, TD (chapters 3 to 6); what can diverge (chapter 11).
# * Fujimoto, van Hoof, Meger: *Addressing Function Approximation Error in Actor-Critic Methods*,
#   [1802.09477](https://arxiv.org/abs/1802.09477). Overestimation, the smaller of two critics, slow copies.
# * Bhatt and others: *CrossQ: Batch Normalization in Deep Reinforcement Learning for Greater Sample Efficiency and Simplicity*,
#   [1902.05605](https://arxiv.org/abs/1902.05605). The joint pass, and no target network.
# * Pardo, Tavakoli, Levdik, Kormushev: *Time Limits in Reinforcement Learning*,
#   [1712.00378](https://arxiv.org/abs/1712.00378). Terminated and truncated.
#
# ---
#
# Previous: [06 · MeanFlow from a Q-function](06_meanflow_from_q.ipynb). Next:
# [08 · SOM, complete](08_som_complete.ipynb).
