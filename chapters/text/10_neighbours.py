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
# # 10 · Neighbours
#
# **What you will do.** You meet the relatives of SOM: sixteen agents from thirteen papers, which all turn a critic into a
# policy. You reduce nearly all of them to one loss, write the targets of three yourself, read the difference of two papers
# as the difference of two files, and train every agent on one and the same known $Q$.
#
# **What you will learn.** Which three choices make a method. Why some methods follow the Boltzmann density, some share
# equally between the hills of $Q$, and some end on one hill. What an action and an update cost. Which method to take when.
#
# **What you need.** Chapters 02 to 06, and from [chapter 07](07_the_critic.ipynb) what a critic is. What is used from them
# is recalled.
#
# **Time and hardware.** ≈ 60 s on one CPU core, nearly all of it for short trainings. Allow an hour for reading and two for
# the exercises. No GPU.
#
# Previous: [09 · SOM on MuJoCo](09_som_on_mujoco.ipynb). Next:
# [11 · Spending compute well](11_compute.ipynb).

# %% [markdown]
# ## The idea in one picture
#
# An agent of this book has a **critic** $Q$: a function that says how good an action is in a state. All methods of this
# chapter learn it in nearly the same way. They differ in what they make of it. SOM aims at the Boltzmann density
# $p_0\propto e^{Q/\alpha}$ with temperature $\alpha$, and so do some of its relatives; others do not, and their authors do
# not always say what they aim at instead.
#
# To see it we take the state and all learning of $Q$ away. One state, actions $a$ in the square $[-1,1]^2$, and a $Q$ that
# we know: four hills of *unequal* height. What does each method make of it? The exact Boltzmann density is known by
# quadrature (chapter 03), so no method can talk its way out.

# %%
import difflib
import inspect
import math
import time
from collections import Counter
from dataclasses import replace
from functools import partial

import ot
import torch

from som_lite.flow.boltzmann import BoxBoltzmann, Bumps
from som_lite.flow.denoising import ancestral_step, denoise
from som_lite.flow.langevin import boltzmann_score, langevin
from som_lite.flow.paths import VP
from som_lite.flow.scores import box_proposals, importance_weights, posterior_mean_estimate  # noqa: F401
from som_lite.rl import bandit
from som_lite.rl.agents import AGENTS
from som_lite.rl.agents.dpmd import DPMD
from som_lite.rl.agents.fpmd import FPMDM
from som_lite.rl.agents.sdac import IDEM, SDAC
from som_lite.view import plots
from som_lite.view.explorers import neighbours_explorer
from som_lite.view.notebook import check, listing, measured, relative_times, show
from som_lite.view.style import figure, plane

torch.set_num_threads(1)  # small nets: more threads cost more than they bring

ALPHA, path = 0.15, VP()
corners = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])
heights = torch.tensor([1.0, 0.9, 0.8, 0.7])
q = Bumps(0.55 * corners, torch.full((4,), 0.35), heights)
exact = BoxBoltzmann(q, ALPHA)


def rng(seed):
    return torch.Generator().manual_seed(seed)


def hill(a):
    """The number of the nearest hill, from 0, the highest, to 3."""
    return torch.cdist(a, q.centres).argmin(-1)


def hill_shares(a):
    return torch.bincount(hill(a), minlength=4).double() / len(a)


exact_shares = torch.bincount(hill(exact.grid), weights=exact.p)
print("exact shares of the hills", *(f"{share:.4f}" for share in exact_shares))
print(f"E[Q] of uniform actions {q(exact.grid).mean():.4f}, exact {exact.expectation(q):.4f}")

# %% tags=["hide-input"]
fig, (left, middle, right) = figure(8.6, 3.3, ncols=3)
level = 0.3
plots.density(plane(left, 1.6), exact.log_prob)
left.set_title("$\\exp(Q/\\alpha)$")
for ax, title, field in (
    (middle, "score, noised: SDAC, iDEM, SOM", lambda a: exact.noised_score(a, level, path)),
    (right, "$\\nabla Q/\\alpha$ at noisy $a$: QSM", lambda a: boltzmann_score(q, ALPHA, a)),
):
    plane(ax, 1.6)
    plots.backdrop(ax, lambda a: exact.noised_log_prob(a, level, path))
    plots.field(ax, field, 13, "score", width=0.008)
    ax.set_title(title, fontsize=11)
show(
    fig,
    "Three panels. Left: the Boltzmann density of Q, four bright spots of unequal brightness. Middle: over the noised "
    "density, a broad blob leaning to the upper right, purple arrows that all point towards one centre. Right: over the "
    "same blob, arrows that part in the middle and run to four separate hills.",
)

# %% [markdown]
# **What you should see.** Left, what we would like to sample: four spots, the top right one holding most. Middle and right,
# over the same noised density, what two methods teach their network there: the arrows in the middle have melted into one
# stream, those on the right still run to four separate hills, as if there were no noise. (Arrows of each panel have
# their own scale.) Both are called a score. Only one of them is that of the noised density.

# %% [markdown]
# ## Derivation
#
# ### A denoiser and its chain
#
# Most relatives of SOM come from *diffusion*. Their network is no velocity but a **denoiser** $\hat\varepsilon(a,t)$: it sees
# a noisy action $a$ at time $t$ and predicts the noise in it. Recall the noising path: $a_t=\mu_ta_0+\sigma_t\varepsilon$,
# from a clean action $a_0$ at $t=0$ to noise $\varepsilon$ at $t=1$, with the path's coefficients $\mu_t$ and $\sigma_t$.
# The best prediction is the mean $E[\varepsilon\mid a_t=a]$. Taking means on both sides of the path's formula gives the
# posterior mean $m=(a-\sigma_t\hat\varepsilon)/\mu_t$, and with it the score, $-\hat\varepsilon/\sigma_t$ (chapter 04). So a
# denoiser, a score and a velocity are one function in three costumes.
#
# An action is made by a **chain**. Begin with noise at $t=1$. Ask the network, form $m$ (moved into the box), and go to a
# slightly earlier time $r<t$ as if $m$ were the clean action: given $a_t$ and $a_0$, the point $a_r$ is normal, and Bayes' rule
# says where. With fresh noise $z$,
#
# $$a_r=\frac{\mu_t\sigma_r^2}{\mu_r\sigma_t^2}\,a_t+\mu_r\rho\,m+\sigma_r\sqrt\rho\;z,\qquad
# \rho=1-\frac{\mu_t^2\sigma_r^2}{\mu_r^2\sigma_t^2}.$$
#
# Twenty steps are twenty network calls, one after the other. The checks give the step the true $a_0$, where it must find the
# right law of $a_r$, and then a whole chain the exact $m$.

# %%
coarse, noise = BoxBoltzmann(q, ALPHA, cells=81), torch.randn(1500, 2, generator=rng(11))
clean = exact.sample(100_000, rng(16))
eps, z = torch.randn(2, 100_000, 2, generator=rng(17))
now, before = torch.tensor(0.4), torch.tensor(0.3)
a_now = path.noise(clean, eps, now.expand(100_000, 1))
a_before = ancestral_step(clean, a_now, 0.4, 0.3, path, z)
rho = 1 - (path.mu(now) * path.sigma(before) / path.mu(before) / path.sigma(now)) ** 2
by_hand = (1 - rho) * path.mu(before) / path.mu(now) * a_now + path.mu(before) * rho * clean
by_hand = by_hand + path.sigma(before) * rho.sqrt() * z
check("formula of a step against the package's", (by_hand - a_before).abs().max(), below=1e-4)
left = a_before - path.mu(before) * clean
# 200 000 numbers give a standard deviation to 2e-3 of itself
check("noise left at r, over sigma_r", left.std() / path.sigma(before), above=0.99, below=1.01)
in_twenty = denoise(lambda a, t: coarse.posterior_mean(a, t, path), noise, path, 20, rng(18))
off = (hill_shares(in_twenty) - exact_shares).abs().max()
# shares of 1500 draws err by .013 themselves
check("chain of 20 steps with the exact m: largest error of a hill's share", off, below=0.05)

# %% [markdown]
# ### One loss for nearly all
#
# Denoiser or velocity, a network $f_\theta$ looks at a noisy action and is regressed on a target $y$, with a weight $w$:
#
# $$L(\theta)=E\big[\,w\,\|f_\theta(a_t,t)-y\|^2\,\big].$$
#
# (Every function also sees the state; we leave it out.) For fixed $(a,t)$ this is a weighted mean of squares. Its minimiser
# is the weighted mean of the targets,
#
# $$f^*(a,t)=\frac{E[\,w\,y\mid a_t=a\,]}{E[\,w\mid a_t=a\,]} .$$
#
# So a method is three choices: **which $a_0$ is noised, with which weight, towards which target.** The generator (how the
# trained network makes an action) is a fourth, which follows from the target.
#
# Here is the family. *Recorded* actions come from the replay buffer, *own* ones from the policy; a *row* is one noised action
# in the loss. $K$ is the number of proposals or own actions a state, $V$ the mean of $Q$ over the $K$ own actions, $s_t$ the
# score of the noised density $p_t$, $u$ an average velocity (chapter 02). A hat marks an estimate.
#
# | agent | $a_0$ | $w$ | target $y$ | asks $Q$, a row | network calls an action |
# |---|---|---|---|---|---|
# | QSM | recorded | 1 | noise $-\sigma_t\nabla Q(a_t)/\alpha$ | 1 gradient | chain, 5 |
# | iDEM | recorded | 1 | noise $-\sigma_t\hat s_t$, from gradients at $K$ proposals | $K$ gradients | chain, 20 |
# | SDAC | recorded | 1 | noise $-\sigma_t\hat s_t$, from values at $K$ proposals | $K$ values | chain, 20 |
# | DPMD | own, of a slow copy | $e^{Q(a_0)/\alpha}$ | the noise $\varepsilon$ | 1 value | chain, 20 |
# | QVPO | best of $K$ own; uniform | $Q-V$; a small share of it | the noise $\varepsilon$ | $K$ values | chain, 20 |
# | DIPO | recorded, moved along $\nabla Q$ | 1 | the noise $\varepsilon$ | gradients, 1 a step | chain, 100 |
# | FPMD-R | own | $e^{Q(a_0)/\alpha}$ | velocity $\varepsilon-a_0$ | 1 value | 1 |
# | FPMD-M | own | $e^{Q(a_0)/\alpha}$ | MeanFlow target of that velocity | 1 value | 1 |
# | MFPO | own | 1 | MeanFlow target of $\hat v$, and of its divergence | values at own and $K$ box proposals | 2 |
# | **SOM** | own | 1 | $\hat v$ at one time; $u$ over intervals | $K$ values | **1** |
# | SAC, TD3 | | | none: $\nabla_\theta Q(a_\theta)$ through the actor | 1 gradient | 1 |
# | DACER | | | none: the same through a whole chain | 1 gradient | chain, 20 |
# | DACER2 | recorded | 1 | as DACER; and score $\propto\nabla Q(a_t)/\Vert\nabla Q(a_t)\Vert$ | 2 gradients | chain, 5 |
# | LQL, NC-LQL, ACA | | | no actor: $\nabla Q$ moves the action itself | none | 20 *gradients* |
#
# Lengths of chains are those of the papers or their codes, printed below; the defaults here are shorter. LQL may walk as long
# as it likes. The next four subsections derive the rows that are not obvious. First the minimiser, by least squares: targets
# and weights that depend on chance and on where we are (here one of three places).

# %%
diffusers = ("qsm", "idem", "sdac", "dpmd", "qvpo", "dipo", "dacer", "dacer2", "aca")
print("steps", ", ".join(f"{name} {AGENTS[name][1].paper.steps}" for name in diffusers))
place = torch.randint(3, (4000,), generator=rng(20))
row_w = torch.rand(4000, generator=rng(21)) * (1 + place)
row_y = torch.randn(4000, 2, generator=rng(22)) + place[:, None] * row_w[:, None]
there = torch.nn.functional.one_hot(place, 3).float()
best = (there.T @ (row_w[:, None] * row_y)) / (there.T @ row_w)[:, None]  # E[w y] / E[w], per place
root = row_w.sqrt()[:, None]
by_solver = torch.linalg.lstsq(root * there, root * row_y).solution
check("minimiser of the weighted loss, error", (best - by_solver).abs().max(), below=1e-4)

# %% [markdown]
# ### A weight tilts the data
#
# Let $a_0$ come from any density $p$, let $w$ depend on $a_0$ alone, and let $y=\varepsilon$, as in DPMD and QVPO.
# Write the two expectations in $f^*$ as integrals over $a_0$. The factor $w(a_0)\,p(a_0)$ stands in both, so
#
# $$f^*(a,t)=\frac{\int \varepsilon\;w\,p\;\mathcal N(a;\mu_ta_0,\sigma_t^2I)\,da_0}
# {\int w\,p\;\mathcal N(a;\mu_ta_0,\sigma_t^2I)\,da_0},\qquad \varepsilon=\frac{a-\mu_ta_0}{\sigma_t}.$$
#
# That is the denoiser of the density $\propto w\,p$, as if its samples had been at hand. **Weights on rows are importance
# sampling.** The normalisation of $w$ does not matter.
#
# The check takes uniform actions with the weight $e^{Q/\alpha}$, at a few noisy points, against the score of the exact
# Boltzmann density: the noise to predict is $-\sigma_ts_t$.


# %%
def tilted_noise(a, t, draws=200_000):
    """The weighted mean of the noise at one noisy point a, by uniform actions."""
    a0 = 2 * torch.rand(draws, 2, generator=rng(0)) - 1
    eps = (a - path.mu(t) * a0) / path.sigma(t)
    w = torch.softmax(q(a0) / ALPHA - 0.5 * eps.square().sum(-1), 0)
    return w @ eps


points = 1.5 * torch.randn(20, 2, generator=rng(1))
for t in (0.2, 0.5):
    found = torch.stack([tilted_noise(a, t) for a in points])
    wanted = -path.sigma(t) * exact.noised_score(points, t, path)
    off = (found - wanted).norm(dim=-1).mean() / wanted.norm(dim=-1).mean()
    # by their effective sample size at least 17 000 of the 200 000 count
    check(f"noise of the tilted density, t = {t}: relative error", off, below=0.05)

# %% [markdown]
# **DPMD** takes for $p$ its own policy $\pi_{\text{old}}$, of a slowly averaged copy, and $w=e^{Q/\alpha}$, and so learns
# $\pi_{\text{old}}\,e^{Q/\alpha}$. **QVPO** keeps the best of $K$ own actions and weighs it by how much better it is than
# their mean, $w=Q-V$; a few uniform actions, with 2 % of that weight, shall keep it from narrowing. **DIPO** moves the data
# instead of weighing them, and has $w=1$.
#
# ### From weights on rows to SDAC
#
# In the same formula choose $p$ uniform. Then the target is the Boltzmann density itself, and no old policy enters. But
# uniform actions hardly ever fall where the likelihood $\mathcal N(a;\mu_ta_0,\sigma_t^2I)$ is large. So draw $a_0$ from
# *that*, cut to the box: the likelihood goes into the proposals, and $e^{Q/\alpha}$ remains as the weight.
#
# $$-\sigma_t\,\hat s_t=\sum_{k=1}^K w_k\,\frac{a_t-\mu_ta_0^{(k)}}{\sigma_t},\qquad
# w_k=\mathrm{softmax}_k\,\frac{Q(a_0^{(k)})}{\alpha}.$$
#
# This is the estimate of chapter 04. $a_t$ came first and may be any point. SDAC's paper calls it reweighted score
# matching. **SOM**, as this book builds it, makes a velocity of the same estimate. **iDEM** averages gradients of $Q$ at the
# proposals with the same weights, the other estimate of chapter 04.

# %%
many = torch.full((20, 1), 0.5)
estimate = posterior_mean_estimate(q, points, many, path, ALPHA, 20_000, rng(2))
truth = exact.noised_score(points, many, path)
off = (estimate.score - truth).norm(dim=-1).mean() / truth.norm(dim=-1).mean()
check("SDAC's score with K = 20 000: relative error", off, below=0.05)

# %% [markdown]
# ### At the noisy action: QSM
#
# The score of $e^{Q/\alpha}$ is $\nabla Q/\alpha$. QSM teaches it *at the noisy action*, at every noise level. Is that the
# score $s_t$? Take the case where all is known: $Q/\alpha$ a parabola around $c$, so that $p_0$ is normal with standard
# deviation $\varsigma$. Noised, it is normal with mean $\mu_tc$ and variance $\mu_t^2\varsigma^2+\sigma_t^2$, hence
#
# $$s_t(a)=-\frac{a-\mu_tc}{\mu_t^2\varsigma^2+\sigma_t^2},\qquad\text{but QSM has}\qquad
# \frac{\nabla Q(a)}\alpha=-\frac{a-c}{\varsigma^2}.$$
#
# In general they agree at $t=0$ only. For a narrow hill, $\varsigma\ll\sigma_t$, QSM's is longer by about the factor
# $\sigma_t^2/\varsigma^2$. What is worse: the noised score knows how much *mass* each hill has, since the hills have
# melted together; a gradient at one point knows its own hill.

# %%
spread, centre = 0.2, torch.tensor([0.2, -0.1])
parabola = lambda a: -ALPHA * (a - centre).square().sum(-1) / (2 * spread**2)  # noqa: E731
normal = BoxBoltzmann(parabola, ALPHA)
near = points.clamp(-0.5, 0.5)  # further out the walls of the box begin to count
for t in (0.1, 0.4):
    mu, sigma = path.mu(t), path.sigma(t)
    variance = mu**2 * spread**2 + sigma**2
    closed = -(near - mu * centre) / variance
    # the box cuts less than 1e-3 of this density
    off = (normal.noised_score(near, t, path) - closed).abs().max()
    check(f"closed form of the noised score, t = {t}: error", off, below=5e-3)
    uphill = boltzmann_score(parabola, ALPHA, near)
    off = (uphill + (near - centre) / spread**2).abs().max()
    check(f"closed form of QSM's arrow, t = {t}: error", off, below=1e-3)
    longer = (uphill.norm(dim=-1) / closed.norm(dim=-1)).median()
    print(f"t = {t}: QSM's arrow is {longer:.2f} times as long as the score (median)")

# %% [markdown]
# **Stop and think.** Is there a $Q$ whose QSM target is right at all noise levels?
#
# <details><summary>Answer</summary>
#
# Yes, if we forget the walls of the box. On the VP path $\mu_t^2+\sigma_t^2=1$. With $c=0$ and $\varsigma=1$ the noised
# density is the density itself, and both formulas are $-a$. It is the only parabola: the variances agree at all times for
# $\varsigma=1$ alone, the centres for $c=0$.
#
# </details>

# %% [markdown]
# ### Tilting again and again
#
# DPMD and FPMD never see $e^{Q/\alpha}$ alone. Each round tilts the policy of the last one: a step of *mirror descent*.
# If every round is learnt perfectly,
#
# $$\pi_{n}\;\propto\;\pi_{n-1}\,e^{Q/\alpha}\;\propto\;\pi_0\,e^{nQ/\alpha}.$$
#
# After $n$ rounds the temperature is $\alpha/n$. The policy comes to rest nowhere but on the highest hill: $\alpha$ is no
# temperature, and $1/\alpha$ is a *step size*. On a grid we can do it exactly.

# %%
tilted = torch.full_like(exact.p, 1 / len(exact.p))
for n in range(1, 51):
    tilted = tilted * torch.exp(q(exact.grid).double() / ALPHA)
    tilted = tilted / tilted.sum()
    if n in (1, 4, 50):
        colder = BoxBoltzmann(q, ALPHA / n)
        gap = (tilted - colder.p).abs().sum()
        check(f"round {n} against the Boltzmann density at alpha / {n}", gap, below=1e-3)
        share = tilted[hill(exact.grid) == 0].sum()
        print(f"round {n:<3} share of the highest hill {share:.4f}")

# %% [markdown]
# ### Through the generator, and without an actor
#
# The last rows of the table have no target of this kind. **TD3** and **SAC** follow $\nabla_\theta Q(a_\theta)$ through one
# call of the actor, SAC with an entropy bonus; a Gaussian has one hill. **DACER** differentiates through a whole denoising
# chain. With no entropy term in the loss that is greedy, and noise of an adapted size is added to the action. **DACER2**
# shortens the chain and adds a second teacher: at every noise level the score shall point up $\nabla Q(a_t)$, as QSM's does,
# with a length that depends on $t$ alone. **LQL** walks on $Q$ by Langevin steps (chapter 03). **NC-LQL** and **ACA** first
# teach the critic to value *noisy* actions, and walk or denoise along its gradient, whose length they replace by a constant.

# %% [markdown]
# ## Code
#
# ### The targets, written by you
#
# Each file in `som_lite/rl/agents` holds what one paper is about; the critic, acting and the order of an update are in
# `base.py`. You write the heart of three files.

# %% [markdown]
# ### 1. QSM · ●○○ · 10 min
#
# Return the noise that QSM's network shall predict at the noisy actions `a_t` (n, 2), times `t` (n, 1). `path` is global.


# %% tags=["exercise", "raises-exception"]
def qsm_noise(q, a_t, t, alpha):
    raise NotImplementedError


times = 0.05 + 0.9 * torch.rand(500, 1, generator=rng(3))
noisy = path.noise(exact.sample(500, rng(4)), torch.randn(500, 2, generator=rng(5)), times)
mine = qsm_noise(q, noisy, times, ALPHA)
difference = (q(noisy + 1e-2 * corners[0]) - q(noisy - 1e-2 * corners[0])) / 2e-2
along = -(mine @ corners[0]) * ALPHA / path.sigma(times)[:, 0]
# central differences with steps of .01 and third derivatives below 100
check(
    "exercise 1: slope of Q along a diagonal, error", (along - difference).abs().max(), below=0.02
)
bowl = qsm_noise(lambda a: -a.square().sum(-1) / 2, noisy, times, 0.5)
off = (bowl - 2 * path.sigma(times) * noisy).abs().max()
check("exercise 1: a parabola at temperature .5, error", off, below=1e-4)

# %% [markdown]
# <details><summary>Hint</summary>
#
# A denoiser that predicts $\hat\varepsilon$ has the score $-\hat\varepsilon/\sigma_t$. `boltzmann_score(q, alpha, a)` is
# $\nabla Q/\alpha$.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def qsm_noise(q, a_t, t, alpha):
#     return -path.sigma(t) * boltzmann_score(q, alpha, a_t)
# ```
#
# </details>

# %% [markdown]
# ### 2. Two ways to weigh: DPMD and SDAC · ●●○ · 25 min
#
# `mirror_weights`: each state has $K$ own actions, `own` (B, K, 2). Return weights (B, K) proportional to $e^{Q/\alpha}$
# within each state, with mean 1 over its $K$. `sdac_noise`: the target for `a_t` (n, 2) at times `t` (n, 1), from $K$
# proposals a row, `box_proposals(a_t, t, path, K, generator)` of shape (n, K, 2).


# %% tags=["exercise", "raises-exception"]
def mirror_weights(q, own, alpha):
    raise NotImplementedError


def sdac_noise(q, a_t, t, alpha, K, generator):
    raise NotImplementedError


own = exact.sample(64 * 8, rng(6)).view(64, 8, 2)
w = mirror_weights(q, own, ALPHA)
check(
    "exercise 2: error of the weights",
    (w - 8 * importance_weights(q(own), ALPHA)).abs().max(),
    below=1e-4,
)
off = (mirror_weights(q, torch.cat([own, own - 0.01]), ALPHA)[:64] - w).abs().max()
check("exercise 2: influence of other states on the weights", off, below=1e-4)
shifted = mirror_weights(lambda a: q(a) + 1000, own, ALPHA)
check("exercise 2: influence of a constant in Q", (shifted - w).abs().max(), below=0.02)
mine = sdac_noise(q, noisy, times, ALPHA, 32, rng(7))
package = posterior_mean_estimate(q, noisy, times, path, ALPHA, 32, rng(7))
off = (mine + path.sigma(times) * package.score).abs().max()
check("exercise 2: your noise against the package's, error", off, below=1e-3)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `softmax` over the last axis, of the right thing. For the noise: which $\varepsilon$ leads from the proposal to $a_t$?
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def mirror_weights(q, own, alpha):
#     return own.shape[1] * torch.softmax(q(own) / alpha, -1)
#
#
# def sdac_noise(q, a_t, t, alpha, K, generator):
#     a0 = box_proposals(a_t, t, path, K, generator)
#     w = torch.softmax(q(a0) / alpha, -1)
#     mean = (w[..., None] * a0).sum(-2)
#     return (a_t - path.mu(t) * mean) / path.sigma(t)
# ```
#
# The mean over the proposals is taken before the noise is formed: the noise is linear in $a_0$.
#
# </details>

# %% [markdown]
# ### 3. DIPO moves the data · ●○○ · 10 min
#
# Return where the actions `a` (n, 2) are after `climbs` steps of $a\leftarrow\mathrm{clip}(a+\eta\,\nabla Q(a))$, the clip
# to $[-1,1]$ after *every* step.


# %% tags=["exercise", "raises-exception"]
def climbed(q, a, eta, climbs):
    raise NotImplementedError


dipo = AGENTS["dipo"][1](1, 2, replace(AGENTS["dipo"][0](), eta=0.05, climbs=6, relative=False))
dipo.critic = bandit.FixedQ(q)
start = 2 * torch.rand(400, 2, generator=rng(8)) - 1
theirs = dipo.climb(torch.zeros(400, 1), start)
off = (climbed(q, start, 0.05, 6) - theirs).abs().max()
check("exercise 3: your actions against DIPO's, error", off, below=1e-4)
alone = climbed(q, start[:1], 0.05, 6)
check("exercise 3: influence of the other rows", (alone - theirs[:1]).abs().max(), below=1e-4)
dipo.critic = bandit.FixedQ(lambda a: 3 * a[..., 0] - 6 * (a[..., 0] - 1.1).clamp(min=0))
dipo.config = replace(dipo.config, eta=0.2)
outside = climbed(dipo.critic.q1.q, start, 0.2, 6)
off = (outside - dipo.climb(torch.zeros(400, 1), start)).abs().max()
check("exercise 3: a slope against a wall, error", off, below=1e-4)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `boltzmann_score(q, 1.0, a)` is $\nabla Q$, row by row.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def climbed(q, a, eta, climbs):
#     for _ in range(climbs):
#         a = (a + eta * boltzmann_score(q, 1.0, a)).clamp(-1, 1)
#     return a
# ```
#
# </details>

# %% [markdown]
# ### The difference of two papers
#
# All files keep the same names in the same order; a test holds them to it. So the difference of two files is the difference
# of two papers. SDAC against DPMD, both from *one* paper (2502.00361):


# %%
def difference_of(old, new):
    """The lines of two classes that differ."""
    before, after = (inspect.getsource(kind).splitlines() for kind in (old, new))
    lines = difflib.unified_diff(before, after, old.__name__, new.__name__, n=1, lineterm="")
    return "\n".join(lines)


print(difference_of(SDAC, DPMD))

# %% [markdown]
# Read it from the loss. SDAC (lines with `-`) noises recorded actions, asks $Q$ around the *noisy* action, and regresses on
# an estimate. DPMD (`+`) generates $K$ actions with the slow copy (`averaged=True`), asks $Q$ at the *clean* action, and
# turns it into a weight. Critic, network, chain and acting are the same.
#
# iDEM differs from SDAC in one method, which calls the other estimator and cuts long scores. FPMD differs from DPMD in
# network and generator; its loss is the same weighted loss with a velocity in place of the noise. And SOM against SDAC? It
# noises own actions, and half of its proposals are own actions too. The estimate becomes a velocity, the denoiser an average
# velocity $u$, and twenty calls become one.

# %%
own_methods = {}
for kind in (IDEM, FPMDM):
    parent = kind.__mro__[1]
    names = [name for name, value in vars(kind).items() if inspect.isfunction(value)]
    own_methods[kind] = len(names)
    print(f"{kind.__name__} is {parent.__name__} with its own {' and '.join(names)}")
check("iDEM: methods of its own", own_methods[IDEM], below=2)

# %% [markdown]
# ### The bandit, live
#
# `learn_from` puts the known $Q$ where the agent has its critic, and makes updates of the actor alone. The two agents with a
# noise-level critic must learn that critic, from rewards. LQL has nothing to learn: it walks on $Q$.

# %%
listing(
    bandit.learn_from,
    {
        "agent.critic, optimizer, update": "The critic's place is taken by $Q$ itself.",
        "agent.next_action = lambda": "No next state, so the target of the TD loss is the reward.",
        "update(transitions(": "Uniform actions stand for the replay buffer.",
    },
)

# %% [markdown]
# Nets, step size, batch and updates are the same for all, as far as they have them (exceptions are said where they are made);
# the rest are the settings for one core. (`presets("sdac")["paper"]` are those of a paper; `som-lite train --agent sdac
# --preset paper` trains with them.) All chains have 20 steps, but DACER2's has 5.


# %%
ONE = {"actor_batch": 128, "octaves": 1}  # one action a state
EIGHT = {"actor_batch": 16, "octaves": 1, "K": 8}  # eight own actions a state
OWN = {
    "som": ONE | {"lines": 32},
    "sdac": ONE | {"steps": 20},
    "idem": ONE | {"steps": 20},
    "qsm": ONE | {"steps": 20},
    "mfpo": {"actor_batch": 64, "alpha_lr": 1e-6},
    "dpmd": EIGHT | {"steps": 20},
    "fpmd_r": EIGHT,
    "fpmd_m": EIGHT,
    "qvpo": EIGHT | {"steps": 20},
    "dipo": ONE | {"steps": 20, "climbs": 10, "eta": 0.05, "relative": False},
    "sac": {"alpha_lr": 1e-6},  # the temperature stays where it is
    "td3": {},
    "dacer": ONE | {"steps": 20},
    "dacer2": ONE,
    "lql": {"steps": 20},
    "nc_lql": {"steps": 2},
    "aca": {"steps": 20},
}
COMMON = {"hidden": (64, 64, 64), "batch": 128, "critic_lr": 5e-3}
ACTOR = {"actor_lr": 1e-2, "actor_every": 1, "actor_tau": 0.05}
SAME_TEMPERATURE = ("som", "sdac", "idem", "qsm", "dpmd", "fpmd_r", "fpmd_m", "lql")


def made(name, alpha=ALPHA):
    """An agent of that name for the bandit."""
    config, kind = AGENTS[name]
    settings = COMMON | OWN[name] | (ACTOR if hasattr(kind, "actor_loss") else {})
    if name in SAME_TEMPERATURE:
        settings |= {"alpha": alpha, "relative": False}
    elif name in ("sac", "mfpo"):
        settings |= {"alpha": alpha}
    return kind(1, 2, replace(config(), **settings))


def trained(name, alpha=ALPHA, updates=400):
    agent = made(name, alpha)
    if name == "lql":
        agent.critic = bandit.FixedQ(q)
        return agent
    return bandit.learn_from(agent, q, updates, B=128, decay=True)


agents, clouds, calls, learning = {}, {}, {}, {}


def keep(name, updates=400):
    """Train the agent of that name; keep it, 2000 of its actions, and what they and it cost."""
    begin = time.process_time()
    agents[name] = trained(name, updates=updates)
    learning[name] = (time.process_time() - begin) / updates
    clouds[name] = bandit.actions(agents[name], 2000)
    calls[name] = bandit.network_calls(agents[name])


# %% [markdown]
# First those that learn the noised density, by its score or its velocity, and QSM, which says it does; and DIPO, which
# clones.

# %%
for name in ("som", "sdac", "idem", "qsm", "dipo"):
    keep(name)
check("SOM: network calls an action", calls["som"], below=1.5)
check("SDAC: network calls an action", calls["sdac"], above=19.5, below=20.5)

# %% [markdown]
# Then those that weigh their own actions.

# %%
for name in ("dpmd", "qvpo", "fpmd_r", "fpmd_m"):
    keep(name)
check("FPMD-M: network calls an action", calls["fpmd_m"], below=1.5)

# %% [markdown]
# Then MFPO, and those whose loss is $Q$ itself, through the generator. Twenty steps of back-propagation are slow, so DACER
# gets half of the updates.

# %%
for name in ("sac", "td3", "mfpo", "dacer2"):
    keep(name)
keep("dacer", updates=200)
check("MFPO: network calls an action", calls["mfpo"], above=1.5, below=2.5)

# %% [markdown]
# Last, those without an actor.

# %%
keep("lql")
learning["lql"] = 0.0
keep("nc_lql", updates=600)
keep("aca")
check("LQL: gradients of Q an action", calls["lql"], above=19.5, below=20.5)

# %% [markdown]
# ## Checks
#
# ### Side by side

# %% tags=["hide-input"]
GROUPS = {
    "Boltzmann": ("som", "sdac", "idem", "mfpo", "sac", "lql"),
    "equal": ("qsm", "dipo", "aca", "nc_lql"),
    "greedy": ("dpmd", "fpmd_r", "fpmd_m", "qvpo", "td3", "dacer", "dacer2"),
}
order = [name for names in GROUPS.values() for name in names]
fig, axes = figure(8.6, 4.9, ncols=6, nrows=3)
panels = {"exact": exact.sample(2000, rng(9))} | {name: clouds[name] for name in order}
for ax, (name, a) in zip(axes.flat, panels.items(), strict=True):
    plots.backdrop(plane(ax, 1.05), exact.log_prob)
    kind = {"exact": "data"}.get(name, "error" if name in GROUPS["greedy"] else "one-step")
    plots.particles(ax, a[:500], kind, size=2.2 if kind != "error" else 4, alpha=0.6)
    ax.set_title(name if name == "exact" else f"{name}, {calls[name]}", fontsize=10)
    ax.set_xticks([])
    ax.set_yticks([])
show(
    fig,
    "Eighteen small panels of actions over the density of four hills. Exact: four clouds, the upper ones fuller. SOM, SDAC, "
    "MFPO and SAC: one broad cloud, fuller at the top, with hardly a gap between the hills. iDEM and ACA: diffuse, with points "
    "on the faces of the square. LQL and QSM: four clouds of about the same size. DIPO: a blur over the middle. NC-LQL: small "
    "dense spots on all four hills. DPMD, FPMD, QVPO, TD3, DACER, DACER2: nearly all actions on one hill.",
)

# %% [markdown]
# **What you should see.** The number behind a name is the number of network calls an action. SOM, SDAC, MFPO and SAC: full
# at the top, thin at the bottom, as it should be, but the valleys are filled: the first three had a short training, and SAC's
# Gaussian cannot do better. LQL and QSM: four clouds of nearly *equal* share. DIPO and ACA: such shares too, in a blur. NC-LQL
# climbs: to the tops of hills, and shows nothing of their width. Red crosses: those that end on one hill. TD3's is not the best.
#
# The eye needs a table beside it, and the table a stupid answer: *uniform* actions, which learnt nothing. *learn* and *act* are
# the times of one update and of one action, as multiples of SOM's.


# %%
def far(a, b):
    """The sliced Wasserstein distance, as in chapter 06."""
    return ot.sliced_wasserstein_distance(a.numpy(), b.numpy(), n_projections=64, seed=0, p=2)


truth = exact.sample(2000, rng(10))
acting = relative_times(
    {name: partial(bandit.actions, agents[name], 1) for name in order}, rounds=3
)
flat_actions = 2 * torch.rand(2000, 2, generator=rng(19)) - 1
table = [f"{'':9}{'E[Q]':>6}{'distance':>9}{'hills':>6}{'calls':>6}{'learn':>7}{'act':>7}   shares"]
for name, a in ({"uniform": flat_actions} | panels).items():
    share = hill_shares(a)
    row = f"{name:9}{q(a).mean():6.3f}{far(a, truth):9.3f}{int((share >= 0.05).sum()):6}"
    if name in calls:
        row += f"{calls[name]:6}{learning[name] / learning['som']:7.2f}{acting[name]:7.1f}"
    table.append(f"{row:50}   " + " ".join(f"{x:.2f}" for x in share))
measured("E[Q], distance, hills, calls, times and shares, agent by agent", "\n".join(table))

# %% [markdown]
# `hills` counts those with at least 5 % of the actions; uniform actions have all four. **$E[Q]$ is no measure of a sampler**:
# the greedy ones have the highest, higher than the exact density. The distance orders them otherwise, and is merciless to
# short trainings: some of those that should follow the density, or share it equally, are hardly nearer to it than uniform
# actions. After 400 updates of small nets no denoiser is converged, so read the table for kinds, not for ranks.
#
# The last two columns say who pays when: SOM when it learns, SDAC when it acts, DACER both times.

# %%
shares_of = {name: hill_shares(a) for name, a in clouds.items()}
for name in ("som", "sdac"):
    off = (shares_of[name] - exact_shares).abs().max()
    check(f"{name}: largest error of a share", off, below=0.13)
for name in ("qsm", "dipo"):
    check(f"{name}: share of the highest hill (exact .46)", shares_of[name][0], below=0.38)
for name in GROUPS["greedy"]:
    check(f"{name}: largest share of a hill", shares_of[name].max(), above=0.8)
nearer = max(far(clouds[name], truth) for name in ("som", "sdac"))
check(
    "distance of the worse of SOM and SDAC over DPMD's",
    nearer / far(clouds["dpmd"], truth),
    below=0.5,
)
check("the same over that of uniform actions", nearer / far(flat_actions, truth), below=0.9)
check("SDAC's action over SOM's, time", acting["sdac"], above=4)
check("SDAC's update over SOM's, time", learning["sdac"] / learning["som"], below=1)
check("DACER's update over SOM's, time", learning["dacer"] / learning["som"], above=1)
check("DACER's action over SOM's, time", acting["dacer"], above=4)

# %% [markdown]
# **Stop and think.** DIPO's shares are all near a quarter. Where does that number come from?
#
# <details><summary>Answer</summary>
#
# From the data. Every recorded action climbs the hill that it stands on, and a quarter of the uniform actions stands on
# each. With another buffer there would be other shares: DIPO has no temperature, and no opinion about hills.
#
# </details>
#
# The benchmark `tests/benchmarks/bandit.py` repeats this with four *equal*, narrower hills (table in
# `tests/benchmarks/bandit.md`). There FPMD-R fails: one straight step ends on the mean (chapter 01), and the mean of four equal
# hills lies in the valley between them. Here the highest hill has won before that matters.
#
# A bandit is no robot. How the whole family fares on robots is not compared in this book: its recorded runs are those of SOM
# and SAC (chapter 09). The paper of flow-rl (2603.27450) compares many of them there.

# %% [markdown]
# ## Explorer
#
# Four agents are trained again at two more temperatures; LQL needs no training. Those without a temperature stay as they
# are.

# %%
ALPHAS = (0.08, ALPHA, 0.4)
by_temperature = {
    name: {None: clouds[name]} for name in ("td3", "dpmd", "qvpo", "dipo", "dacer", "nc_lql")
}
for name in ("som", "sdac", "qsm", "sac", "lql"):
    by_temperature[name] = {
        x: clouds[name] if x == ALPHA else bandit.actions(trained(name, x, 300), 2000)
        for x in ALPHAS
    }
chosen = ("som", "sdac", "sac", "lql", "qsm", "dipo", "nc_lql", "dpmd", "qvpo", "dacer", "td3")
neighbours_explorer({name: by_temperature[name] for name in chosen}, q, alphas=ALPHAS)

# %% [markdown]
# **What you should see.** Choose *som* and move the temperature: at 0.4 the cloud fills the square and the crosses come
# together; at 0.08 the highest hill takes most of it. *qsm* sharpens its clouds as the temperature falls, but its diamonds stay
# near a quarter each. From *dipo* on nothing moves but the crosses. (`dpmd` has a number called temperature. You know what it
# is.)

# %% [markdown]
# ## What can go wrong
#
# A trained network may fail for many reasons. So here each weakness is shown without one, with exact fields.
#
# ### QSM forgets the weights of the hills
#
# Two chains of 60 steps from the same noise. One is told the exact posterior mean, the other the one that belongs to QSM's
# score, $m=(a+\sigma_t^2\,\nabla Q(a)/\alpha)/\mu_t$.


# %%
def qsm_mean(a, t):
    return (a + path.sigma(t) ** 2 * boltzmann_score(q, ALPHA, a)) / path.mu(t)


chains = {
    "exact": denoise(lambda a, t: coarse.posterior_mean(a, t, path), noise, path, 60, rng(12)),
    "QSM": denoise(qsm_mean, noise, path, 60, rng(12)),
}
errors = {name: (hill_shares(a) - exact_shares).abs().max() for name, a in chains.items()}
check("exact chain: largest error of a share", errors["exact"], below=0.05)
check("QSM's chain: largest error of a share", errors["QSM"], above=0.1)
check(
    "QSM's chain: share of the highest hill (exact .46)", hill_shares(chains["QSM"])[0], below=0.36
)

# %% [markdown]
# ### LQL's walks stay on their hill
#
# Twenty steps bring most walks up the hill on which they began, and no further. A hundred times as many repair it, and nobody
# can pay for them at every action of a robot.

# %%
begin = 2 * torch.rand(1500, 2, generator=rng(13)) - 1
walk = lambda steps: langevin(  # noqa: E731
    lambda a: boltzmann_score(q, ALPHA, a), begin, 0.03, steps, rng(14)
)
short, long = walk(20), walk(2000)
off_short, off_long = ((hill_shares(a) - exact_shares).abs().max() for a in (short, long))
check("20 steps: largest error of a share", off_short, above=0.06)
check("2000 steps: the same", off_long, below=0.06)

# %% [markdown]
# ### Mirror descent cannot bring back what it has lost
#
# A weight multiplies what is there. If the first policy has nothing on a hill, no number of rounds puts anything there. And
# if its samples are few, chance decides: we tilt a *set* of 16 own actions again and again (resample by weight, blur a
# little), from 60 different starts.

# %%
winners = Counter()
for seed in range(60):
    g = rng(100 + seed)
    a = 2 * torch.rand(16, 2, generator=g) - 1
    for _ in range(60):
        chosen_rows = torch.multinomial(torch.softmax(q(a) / ALPHA, 0), 16, True, generator=g)
        a = (a[chosen_rows] + 0.05 * torch.randn(16, 2, generator=g)).clamp(-1, 1)
    winners[int(hill_shares(a).argmax())] += 1
    assert hill_shares(a).max() > 0.9  # every time one hill
measured(
    "how many of 60 runs ended on each hill",
    "\n".join(f"hill of height {heights[k]:g}: {n} runs" for k, n in sorted(winners.items())),
)
check("runs that did not end on the highest hill", 60 - winners[0], above=2.5)

# %% [markdown]
# **Every** run ends on one hill, and not always on the highest. The remedies in the papers are uniform rows (QVPO; with their
# small weight they did not save it above), noise on actions (DPMD), or a step of mirror descent with an entropy term: exercise
# 5.
#
# ### The slope that you climb may be the wrong hill's
#
# TD3 is one action, pushed uphill. Which hill it is depends on where it began.

# %%
ends = set()
for seed in range(5):
    config, kind = AGENTS["td3"]
    agent = kind(1, 2, replace(config(), **COMMON | ACTOR), seed=seed)
    bandit.learn_from(agent, q, 150, B=128, decay=True)
    ends.add(int(hill_shares(bandit.actions(agent, 500)).argmax()))
check("TD3: hills reached by five seeds", len(ends), above=1.5)

# %% [markdown]
# ### Which to choose when
#
# | you need | take | because |
# |---|---|---|
# | a first baseline | SAC | a cheap update, one call, few settings; one hill is often enough |
# | the best single action, fast | TD3, or SAC's mode | nothing else to sample |
# | several good actions in their proportion | SDAC | its target is the noised Boltzmann density, by values of $Q$ |
# | the same, in few calls | SOM (1), MFPO (2) | MFPO when you need $\log\pi$ and an entropy to hold |
# | no gradient of $Q$ (a simulator, a table) | SDAC, DPMD, SOM | they ask values only |
# | to keep what data show, a little better | DIPO | it moves recorded actions a short way |
# | steady greed without gradients | FPMD-M, DPMD, QVPO | they prefer the best of their own actions; add noise to explore |
# | no second network to train | LQL, NC-LQL, ACA | the price is 20 critic gradients an action |
#
# The table rests on targets and on a bandit, not on robots.
#
# **Stop and think.** Your robot must act 500 times a second, a network call takes 0.5 ms on its processor, and in some states
# two very different actions are equally good. Which agents remain?
#
# <details><summary>Answer</summary>
#
# There is time for four calls: SOM, MFPO, FPMD, SAC, TD3. Two hills at once: of these SOM and MFPO. If *any* good action will
# do, FPMD, SAC and TD3 are as good: a policy that drops one of two equal hills loses exploration, not return.
#
# </details>

# %% [markdown]
# ## Exercises
#
# Exercises 1 to 3 stand in the code section. Each stub raises `NotImplementedError`; ✓ lines say that you are done.

# %% [markdown]
# ### 4. Two values of a noisy action · ●●○ · 25 min
#
# NC-LQL and ACA teach a critic $E[Q(a_0)\mid a_t]$ and walk along its gradient. The score wants another value,
# $\alpha\log E[e^{Q(a_0)/\alpha}\mid a_t]$. Compute both at one noisy point `a` (2,) and time `t`, for a *uniform* density of
# $a_0$ on the square, by summing over the cells `exact.grid` (n, 2). Return the pair (mean value, soft value), as floats
# or tensors.


# %% tags=["exercise", "raises-exception"]
def two_values(q, a, t, alpha):
    raise NotImplementedError


flat = BoxBoltzmann(lambda a: 0 * a[..., 0], 1.0)
some = 1.2 * torch.randn(12, 2, generator=rng(15))
for t in (0.15, 0.4):
    pairs = torch.tensor([[float(x) for x in two_values(q, a, t, ALPHA)] for a in some])
    log_ratio = exact.noised_log_prob(some, t, path) - flat.noised_log_prob(some, t, path)
    free = ALPHA * (log_ratio + exact.log_z - math.log(4))
    check(
        f"exercise 4: soft value against log densities, t = {t}",
        (pairs[:, 1] - free).abs().max(),
        below=2e-3,
    )
    check(
        f"exercise 4: mean above soft value, t = {t}", (pairs[:, 0] - pairs[:, 1]).max(), below=1e-4
    )
hot = torch.tensor([[float(x) for x in two_values(q, a, 0.4, 300.0)] for a in some])
check("exercise 4: they agree when alpha is large", (hot[:, 0] - hot[:, 1]).abs().max(), below=2e-3)
level = torch.tensor(
    [float(x) for x in two_values(lambda a: 0 * a[..., 0] + 0.7, some[0], 0.4, ALPHA)]
)
check("exercise 4: a constant Q of .7 has this value, error", (level - 0.7).abs().max(), below=1e-3)
slope = torch.tensor([float(two_values(lambda a: a[..., 0], a, 0.15, ALPHA)[0]) for a in some])
off = (slope - flat.posterior_mean(some, 0.15, path)[:, 0]).abs().max()
check("exercise 4: mean value of the first component of a_0, error", off, below=1e-3)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Given $a_t$, a cell has the weight $\mathcal N(a_t;\mu_t\,\text{cell},\sigma_t^2I)$, normalised over the cells: a softmax.
# For the soft value `logsumexp`.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# By Jensen's inequality the soft value is the larger one. A rare, very good $a_0$ raises it, and hardly moves the mean: so
# the gradient of the mean does not point there. The check's identity is
# $p_t(a)\propto p^{\text{flat}}_t(a)\,E[e^{Q/\alpha}\mid a_t=a]$: with a buffer that is not uniform, both values change,
# and so does the policy.
#
# ```python
# def two_values(q, a, t, alpha):
#     square = (a - path.mu(t) * exact.grid).square().sum(-1)
#     log_w = torch.log_softmax(-square.double() / (2 * path.sigma(t).double() ** 2), 0)
#     value = q(exact.grid).double()
#     return log_w.exp() @ value, alpha * torch.logsumexp(log_w + value / alpha, 0)
# ```
#
# </details>

# %% [markdown]
# ### 5. Mirror descent that comes to rest · ●●● · 45 min
#
# A round of mirror descent maximises $E_\pi[Q]-\alpha\,\mathrm{KL}(\pi\,\|\,\pi_{\text{old}})$ over densities $\pi$. Add an
# entropy bonus $\tau H(\pi)$, $\tau\ge0$. Derive the new $\pi$; show that repeated rounds converge to a density that depends
# neither on $\pi_0$ nor on $\alpha$; and find by which factor the distance to it (in $\log\pi$, up to a constant) shrinks in
# a round. Then write `rounds`: cell masses `p0` (n,), values `value` (n,), and `n` rounds. Return the masses. The check
# has starts with masses down to $10^{-300}$.


# %% tags=["exercise", "raises-exception"]
def rounds(p0, value, alpha, tau, n):
    raise NotImplementedError


value = q(exact.grid).double()
skewed = torch.softmax(6 * exact.grid[:, 0].double(), 0)
uniform_p = torch.full_like(skewed, 1 / len(skewed))
off = (
    (rounds(skewed, value, 0.5, 0.0, 3) - torch.softmax(skewed.log() + 3 * value / 0.5, 0))
    .abs()
    .sum()
)
check("exercise 5: tau = 0, three rounds, error", off, below=1e-6)
for alpha in (0.5, 0.1):
    rest = rounds(skewed, value, alpha, ALPHA, 200)
    check(
        f"exercise 5: after 200 rounds of step size {alpha}, error",
        (rest - exact.p).abs().sum(),
        below=1e-6,
    )
one, two = (rounds(skewed, value, 0.5, ALPHA, n).log() - exact.p.log() for n in (1, 2))
factor = (two - two.mean()).norm() / (one - one.mean()).norm()
check("exercise 5: factor of a round, error", abs(factor - 0.5 / (0.5 + ALPHA)), below=1e-4)
needle = torch.ones_like(skewed)
needle[::2] = 1e-300
rest = rounds(needle / needle.sum(), value, 0.5, ALPHA, 200)
check(
    "exercise 5: from a start that has nearly nothing, error",
    (rest - exact.p).abs().sum(),
    below=1e-6,
)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Write KL and entropy with $\log\pi$ and set the derivative in $\pi(a)$ equal to a constant (the multiplier of
# $\int\pi=1$). For the fixed point put $\pi=\pi_{\text{old}}$. Work with logarithms.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# The derivative is $Q-\alpha(\log\pi-\log\pi_{\text{old}}+1)-\tau(\log\pi+1)=\text{const}$, so
# $\log\pi=\frac{\alpha\log\pi_{\text{old}}+Q}{\alpha+\tau}+\text{const}$. The fixed point has $\tau\log\pi=Q+\text{const}$:
# the Boltzmann density at temperature $\tau$. With $\ell=\log\pi-Q/\tau$ a round is $\ell=\frac\alpha{\alpha+\tau}\,
# \ell_{\text{old}}$ up to a constant: that is the factor, below 1 for $\tau>0$. The power
# $\pi_{\text{old}}^{\alpha/(\alpha+\tau)}$ *flattens* the old policy, and that is what plain mirror descent lacks. To flatten
# one needs the density of the old policy: SAC has it, a denoiser does not; MFPO learns it.
#
# ```python
# def rounds(p0, value, alpha, tau, n):
#     log_p = p0.log()
#     for _ in range(n):
#         log_p = torch.log_softmax((alpha * log_p + value) / (alpha + tau), 0)
#     return log_p.exp()
# ```
#
# </details>

# %% [markdown]
# ## Summary
#
# * One loss, three choices: which $a_0$ is noised, with which weight, towards which target.
# * A weight on rows tilts the density of the data. Weights and proposals around the noisy action give SDAC, and SOM's
#   velocity.
# * The gradient at the noisy action is not the noised score: QSM finds hills and forgets their weights.
# * Mirror descent has a step size and no temperature: after $n$ rounds it is at $\alpha/n$, and soon on one hill. An entropy
#   term brings it to rest at the Boltzmann density.
# * Chains cost calls when acting, SOM and MFPO when learning, methods without an actor cost gradients when acting.
# * $E[Q]$ rewards greed. Compare shares, measure a distance, and put uniform actions into the table.
#
# ### The map: what the book does not build
#
# **Diffusion-QL** (2208.06193) is offline: a denoiser of the data plus $-Q$ through the chain, DACER with an anchor.
#
# **DiffCPS** (2310.05333) is offline too. It keeps a divergence to the data below a bound, which it estimates by the
# denoising loss, and adapts the multiplier.
#
# **SWFP** (2510.15388) cuts a pre-trained flow into small blocks and moves each a short way in the Wasserstein sense: mirror
# descent with another distance.
#
# **Decision Flow** (2505.20350) treats the steps of a flow as decisions of their own, with values for unfinished actions.
#
# **Contractive diffusion policies** (2601.01003) add a penalty on the largest eigenvalue of the score's Jacobian, so that
# neighbouring chains approach each other and errors die out; made for little data.
#
# **Diffusion samplers** draw from a given energy, in physics and statistics. iDEM is one of them. Here the energy is $Q$,
# changes with every update, and comes in a family over states.
#
# **SMFP** (2605.21282): a stochastic MeanFlow with entropic mirror descent, in one step.
#
# **SAC-Flow** (2509.25756): SAC through a flow of a few steps, whose velocity network is built like a recurrent cell or a transformer, so
# that gradients pass through.
#
# **ReinFlow** (2505.22094) adds learnt noise to each step of a pre-trained flow. The chain then has a likelihood, and PPO, a
# policy gradient that needs likelihoods and no critic of actions, can improve it.
#
# **FPO** (2507.21053) stays on-policy and replaces PPO's ratio of likelihoods by the exponential of a difference of two
# flow-matching losses.
#
# **flow-rl** (2603.27450) is a library, in JAX: most of this family side by side, at full size and on robots.

# %% [markdown]
# ## References
#
# * Haarnoja and others: SAC, [1812.05905](https://arxiv.org/abs/1812.05905). Fujimoto and others: TD3,
#   [1802.09477](https://arxiv.org/abs/1802.09477).
# * Psenka and others: QSM, [2312.11752](https://arxiv.org/abs/2312.11752). The gradient at the noisy action.
# * Akhound-Sadegh and others: iDEM, [2402.06121](https://arxiv.org/abs/2402.06121).
# * Ma and others: SDAC and DPMD, [2502.00361](https://arxiv.org/abs/2502.00361).
# * Ding and others: QVPO, [2405.16173](https://arxiv.org/abs/2405.16173).
# * Yang and others: DIPO, [2305.13122](https://arxiv.org/abs/2305.13122).
# * Wang and others: DACER, [2405.15177](https://arxiv.org/abs/2405.15177); DACER2,
#   [2505.23426](https://arxiv.org/abs/2505.23426).
# * Chen and others: FPMD, [2507.23675](https://arxiv.org/abs/2507.23675).
# * Dong and others: MFPO, [2604.14698](https://arxiv.org/abs/2604.14698).
# * Ki and others: ACA, [2509.21022](https://arxiv.org/abs/2509.21022); LQL and NC-LQL,
#   [2602.07873](https://arxiv.org/abs/2602.07873).
# * Kim and others: SOM, [2605.23365](https://arxiv.org/abs/2605.23365).
#
# ---
#
# Previous: [09 · SOM on MuJoCo](09_som_on_mujoco.ipynb). Next:
# [11 · Spending compute well](11_compute.ipynb).
