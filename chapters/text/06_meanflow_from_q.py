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
# # 06 · MeanFlow from a Q-function
#
# **What you will do.** From a function $Q$ alone you build a density, a velocity, a MeanFlow target, and a network that
# turns noise into samples of $\exp(Q/\alpha)$ in a single step. It never sees a sample of that density. You build it twice:
# first in the plain way, which is disappointing, and then piece by piece until it is sharp.
#
# **What you will learn.** Why the training points need not come from the target. How the MeanFlow identity magnifies noise.
# How to precondition a velocity network, and how to get average velocities without a derivative. How to tell a sampler that
# is too sharp, or has lost a mode, from one that is good. What a score of fixed length and a wrong critic do to it.
#
# **What you need.** Chapters 02 to 05. Each piece is recalled in a line.
#
# **Time and hardware.** ≈ 90 s on one CPU core, nearly all of it for short trainings; allow two hours for reading
# and two for the exercises. No GPU.
#
# Previous: [05 · The probability-flow ODE](05_probability_flow_ode.ipynb). Next:
# [07 · The critic](07_the_critic.ipynb).

# %% [markdown]
# ## The idea in one picture
#
# ### A recap on half a page
#
# **The critic.** $Q(a)$ says how good the action $a$ is. Here an action is a point of the square $[-1,1]^2$, and $Q$ is
# a landscape of three hills that we may evaluate wherever we like. (A robot's $Q$ also depends on its state.)
#
# **The policy we want** is the Boltzmann density of $Q$ on the square (chapter 03),
#
# $$p_0(a)\propto\exp\big(Q(a)/\alpha\big),$$
#
# with the *temperature* $\alpha>0$. **The path** is linear: $a_t=(1-t)\,a_0+t\,\varepsilon$ with $a_0\sim p_0$ and
# normal noise $\varepsilon$. Time $t=0$ is the action, $t=1$ is noise. $p_t$ is the density of $a_t$.
#
# **The posterior mean** $m(a,t)=E[a_0\mid a_t=a]$ is the best guess of the action behind a noised point. **The
# velocity** $v(a,t)=E[\varepsilon-a_0\mid a_t=a]$ carries $p_t$ along its flow lines. **The average velocity**
# $u(a,r,t)$ is the mean of $v$ along a flow line from time $t$ down to $r$, and one step along it is exact (chapter
# 02): $a_0=\varepsilon-u(\varepsilon,0,1)$.
#
# **The exact answers.** In two dimensions all integrals can be done by brute force: cut the square into small cells
# and add up. `BoxBoltzmann` does so. It judges everything in this chapter; nothing trained sees it, but for one reference.

# %%
import copy
import math
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import ot
import torch
from matplotlib.lines import Line2D

from som_lite.flow import sampler as package
from som_lite.flow import scores
from som_lite.flow.boltzmann import BoxBoltzmann, Bumps, four_bumps, three_bumps
from som_lite.flow.intervals import T_MIN, Rows, falling_times, interval_rows  # noqa: F401
from som_lite.flow.meanflow import average_velocity, meanflow_loss, sample, sample_times
from som_lite.flow.nets import AverageVelocityNet
from som_lite.flow.ode import euler_step, heun_step, solve
from som_lite.flow.paths import VP, Linear
from som_lite.flow.scores import box_proposals, posterior_mean_estimate
from som_lite.view import plots
from som_lite.view.explorers import one_step_explorer
from som_lite.view.notebook import check, listing, measured, show
from som_lite.view.style import COLOURS, MARKERS, figure, plane

torch.set_num_threads(1)  # small nets: more threads cost more than they bring

path, alpha = Linear(), 0.15
q = Bumps(three_bumps().centres, torch.tensor([0.3, 0.2, 0.2]), torch.tensor([1.0, 0.97, 0.93]))
exact = BoxBoltzmann(q, alpha)
exact_q = exact.expectation(q)


def rng(seed):
    return torch.Generator().manual_seed(seed)


def shares(points):
    """The share of the points that is nearest to each of the three hills."""
    return torch.bincount(torch.cdist(points, q.centres).argmin(-1), minlength=3) / len(points)


true_shares = torch.bincount(torch.cdist(exact.grid, q.centres).argmin(-1), weights=exact.p)
print(f"E[Q] of uniform actions {q(exact.grid).mean():.4f}, of the Boltzmann density {exact_q:.4f}")
print("shares of the three hills", *(f"{share:.4f}" for share in true_shares))

# %% [markdown]
# ### The picture
#
# The whole construction is one chain:
#
# $$Q\;\longrightarrow\;e^{Q/\alpha}\;\longrightarrow\;m(a,t)\;\longrightarrow\;v=\frac{a-m}{t}\;\longrightarrow\;u
# \;\longrightarrow\;a_0=\varepsilon-u(\varepsilon,0,1).$$
#
# For the picture each link is computed exactly; the last one follows the velocity in forty small steps, to $t=0.02$,
# and takes $m$ from there.

# %%
coarse = BoxBoltzmann(q, alpha, cells=101)  # faster, and fine enough above t = .02


def exact_flow(eps, steps=40):
    """Where the exact flow takes the noise."""
    a = solve(lambda a, t: coarse.velocity(a, t, path), eps, 1.0, 0.02, steps, heun_step)
    return coarse.posterior_mean(a, 0.02, path)


test_noise = torch.randn(4000, 2, generator=rng(1))
flown = exact_flow(test_noise[:1000])
off = 100 * abs(q(flown).mean() / exact_q - 1)
check("E[Q] along the exact flow, error in per cent", off, below=3)
check("error of the shares", (shares(flown) - true_shares).abs().max(), below=0.04)

# %% tags=["hide-input"]
fig, axes = figure(8.4, 8.6, ncols=2, nrows=2)
(top_left, top_right), (low_left, low_right) = axes
plots.density(plane(top_left, 1.0), lambda a: q(a).log())
top_left.set_title("1. the critic $Q$")
plots.density(plane(top_right, 1.0), exact.log_prob)
top_right.set_title("2. the density $\\exp(Q/\\alpha)$")
plane(low_left, 2.0)
plots.backdrop(low_left, lambda a: exact.noised_log_prob(a, 0.5, path))
plots.field(low_left, lambda a: -exact.velocity(a, 0.5, path), 13, "velocity", scale=0.14)
low_left.set_title("3. the velocity, $-v(a, t)$ at $t = 0.5$")
plots.backdrop(plane(low_right, 2.0), exact.log_prob)
inside = (test_noise[:1000].abs() < 1.9).all(-1)
tails, tips = test_noise[:1000][inside][:16], flown[inside][:16]
for tail, tip in zip(tails, tips, strict=True):
    plots.arrow(low_right, tail, tip - tail, "average", width=0.006)
plots.particles(low_right, tails, "noise", size=6, alpha=1.0)
low_right.set_title("4. one step, $-u(\\varepsilon, 0, 1)$")
show(
    fig,
    "Four panels. 1: the critic as an image, one broad hill lower left and two narrower ones, right and top. 2: the "
    "density exp(Q / alpha), three bright spots in the dark. 3: over the noised density, a single blurred blob, orange "
    "arrows that point inwards. 4: noise points, each with one green arrow, most of which end in one of the three spots.",
)

# %% [markdown]
# **What you should see.** Top: a hill of $Q$ becomes a spot of the density. Bottom left: at half noise the three spots
# have melted into one blob. Bottom right: the arrows of $-u$ know where each point will end. Nobody gives us those arrows.
# We may ask for $Q$ at points of our choice, and that is all.
#
# **Stop and think.** To which number does the exact $E[Q]$ tend as $\alpha\to\infty$, and to which as $\alpha\to0$?
# Which hill wins then?
#
# <details><summary>Answer</summary>
#
# To the uniform mean, printed above, and to the maximum 1, on hill 1, the highest.
#
# </details>

# %% [markdown]
# ## Derivation
#
# ### Step 1: from $Q$ to the velocity, by Monte Carlo
#
# By Bayes' rule the density of $a_0$ given $a_t=a$ is proportional to prior times likelihood:
#
# $$p(a_0\mid a_t=a)\;\propto\;e^{Q(a_0)/\alpha}\;\mathcal N\big(a;\,(1-t)\,a_0,\;t^2I\big),\qquad
# a_0\in[-1,1]^2 .$$
#
# Seen as a function of $a_0$, the second factor is a normal density with mean $a/(1-t)$ and standard deviation
# $t/(1-t)$, cut to the square. It is easy to sample. Draw $K$ *proposals* $a_0^{(k)}$ from it. The first factor
# remains as a weight, and the unknown normalisation cancels when the weights are made to add up to one:
#
# $$\hat m=\sum_{k=1}^K w_k\,a_0^{(k)},\qquad w_k=\mathrm{softmax}_k\big(Q(a_0^{(k)})/\alpha\big),\qquad
# \hat v=\frac{a-\hat m}{t}.$$
#
# The check is against quadrature: sixteen times the proposals should quarter the error.


# %%
def estimated_mean(a, t, K, generator):
    a0 = box_proposals(a, t, path, K, generator)  # (n, K, 2): no sample of p_0 anywhere
    w = torch.softmax(q(a0) / alpha, -1)
    return (w[..., None] * a0).sum(-2)


def rms(difference):
    """The root mean square length of the rows."""
    return difference.square().sum(-1).mean().sqrt()


draws = rng(2)  # a stream of random numbers for the checks
anywhere = 2 * torch.rand(2000, 2, generator=draws) - 1
some_t = 0.1 + 0.85 * torch.rand(2000, 1, generator=draws)
noised = path.noise(anywhere, torch.randn(2000, 2, generator=draws), some_t)
m, score = (f(noised, some_t, path) for f in (exact.posterior_mean, exact.noised_score))
v_from_score = -(noised + some_t * score) / (1 - some_t)
check("v from m against v from s", rms((noised - m) / some_t - v_from_score), below=1e-4)
few, many = (rms(estimated_mean(noised, some_t, K, draws) - m) for K in (64, 1024))
check("error of m with K = 64 over that with K = 1024", few / many, above=3, below=5)

# %% [markdown]
# ### Step 2: where do the training points come from?
#
# Did you notice the points in that cell? They were noised *uniform* points, not noised samples of $p_0$, of which we have
# none. *Surely a flow must be trained on its own path?*
#
# No. In chapter 02, with data, a row $(a_0,\varepsilon)$ had two jobs: it said *where* to train, at $a_t$, and *what*
# to learn there, $\varepsilon-a_0$. The second only works when $a_0$ comes from $p_0$. Here the jobs are apart. The
# target $\hat v(a,t)$ is made from $Q$ at the point $a$, whatever $a$ is. The law of the points only says where the
# network should be accurate.
#
# The check: the error of $\hat v$ is of the same size at noised uniform points as at noised samples of $p_0$.

# %%
half = torch.full((2000, 1), 0.5)
from_target = exact.sample(2000, draws)
v_errors = []
for a0 in (anywhere, from_target):
    at_half = path.noise(a0, torch.randn(2000, 2, generator=draws), half)
    truth = exact.posterior_mean(at_half, half, path)
    v_errors.append(rms(estimated_mean(at_half, half, 64, draws) - truth) / 0.5)
ratio = v_errors[0] / v_errors[1]
check("error of v, noised uniform points over noised samples", ratio, above=0.7, below=1.4)

# %% [markdown]
# ### Step 3: what the identity does to the noise of $\hat v$
#
# The MeanFlow identity (chapter 02) turns a velocity into a target for $u$:
#
# $$u_{\text{tgt}}=v-(t-r)\,\big(\partial_a u\;v+\partial_t u\big).$$
#
# It is linear in $v$, so zero-mean noise in $\hat v$ leaves the mean of the target alone. What about its size? Collect
# what multiplies $v$: it is the matrix $J=I-(t-r)\,\partial_a u$. Now recall the jump, $a_r=a-(t-r)\,u(a,r,t)$, and
# differentiate it in $a$:
#
# $$J=I-(t-r)\,\partial_a u=\frac{\partial a_r}{\partial a}.$$
#
# **The noise of the target is the noise of the velocity, carried by the flow from $t$ to $r$.** Where the flow map
# is gentle, nothing happens. On the border between two hills, neighbours part and end far from each other: there
# the map stretches, and the noise with it.
#
# We compute how much $J$ stretches a random direction at 400 noise points, for the exact $u$ from $t=1$ to $r=0.05$: by the
# JVP of $u$, and by moving the point a little.

# %%
noise64 = torch.randn(400, 2, generator=rng(3), dtype=torch.float64)
direction = torch.randn(400, 2, generator=rng(4), dtype=torch.float64)
direction = torch.nn.functional.normalize(direction, dim=-1)
ones64 = torch.ones(400, 1, dtype=torch.float64)


def stretched(target):
    """J times the direction, from the derivative of the exact u."""

    def u(a):
        field = lambda a, t: target.velocity(a, t, path)  # noqa: E731
        return average_velocity(field, a, 0.05 * ones64, ones64, steps=24)

    return direction - 0.95 * torch.func.jvp(u, (noise64,), (direction,))[1]


def follow(target, a):
    return solve(lambda a, t: target.velocity(a, t, path), a, 1.0, 0.05, 48, heun_step)


by_derivative = {x: stretched(BoxBoltzmann(q, x, cells=81)) for x in (0.6, 0.15, 0.05)}
warm_target, h = BoxBoltzmann(q, 0.6, cells=81), 1e-4
moved = follow(warm_target, noise64 + h * direction) - follow(warm_target, noise64 - h * direction)
# two solvers with some 1e-3 of error each; the stretch itself is about 1
off = rms(by_derivative[0.6] - moved / (2 * h))
check("J by the derivative against J by moving", off, below=0.02)
held = {}  # by the four largest of the 400 squares, as a share of all
for temperature, vectors in by_derivative.items():
    stretch = vectors.norm(dim=-1)
    held[temperature] = stretch.topk(4).values.square().sum() / stretch.square().sum()
    print(
        f"alpha = {temperature:<5g} stretch: mean {stretch.mean():.3f}, largest {stretch.max():5.2f}, "
        f"four rows hold {held[temperature]:.3f} of the squares"
    )
check("alpha = .6: what four rows hold", held[0.6], below=0.1)
check("alpha = .05: what four rows hold", held[0.05], above=0.7)

# %% [markdown]
# The *mean* is below one, since the flow presses a broad cloud of noise into small hills, and it falls with the
# temperature. Not so the *largest*. The loss squares these factors: in the cold four rows of 400, on the border, hold
# nine tenths of the sum. The noise of the target has a heavy tail.
#
# ### Step 4: the average velocity by its definition
#
# There is a more direct target. Follow the flow line from $a_t$ down to $a_r$ and divide:
#
# $$u(a_t,r,t)=\frac{a_t-a_r}{t-r}.$$
#
# Why train what you can compute? Because computing takes many steps and the trained network one. But whose flow line?
# Following $\hat v$ would need fresh proposals at every step. We follow the *network's own* velocity,
# $u_\theta(a,t,t)$, in which the Monte-Carlo noise has been averaged away by the regression at $r=t$. So the work is
# split: rows with $r=t$ bring in the truth from $Q$, and lines of the network carry it to longer intervals. No
# derivative, no magnified noise.
#
# **A bound that comes for free.** Along a flow line, differentiate $a_\tau/\tau$:
#
# $$\frac{d}{d\tau}\,\frac{a_\tau}{\tau}=\frac{\tau v-a_\tau}{\tau^2}=-\frac{m(a_\tau,\tau)}{\tau^2}.$$
#
# Integrate from $r>0$ to $t$, and solve for $a_t-t\,u$:
#
# $$a_t-t\,u(a_t,r,t)=\frac{\displaystyle\int_r^t m(a_\tau,\tau)\,\tau^{-2}\,d\tau}
# {\displaystyle\int_r^t\tau^{-2}\,d\tau}.$$
#
# So $a_t-t\,u$ is an *average of posterior means*. (For $r\to0$ both integrals diverge. Their weight gathers at
# $\tau=r$, so the quotient tends to $m(a_0,0)=a_0$, as it must: $u=(a_t-a_0)/t$.) Every posterior mean lies in the
# square, hence so does this average. Whatever a network says, we may move its $a-t\,u$ to the nearest point of the
# square and cannot make it worse. (`T_MIN`, which is 0.003, keeps the division finite.)


# %%
def in_box(u):
    def projected(a, r, t):
        return (a - (a - t * u(a, r, t)).clamp(-1, 1)) / t.clamp(min=T_MIN)

    return projected


# %% [markdown]
# A line is followed with Heun's steps (chapter 05). The last step, to $r=0$, is Euler's: it never asks for the velocity
# at 0, and it lands on $a-t\,v=m$, in the box.


# %%
def flow_line(velocity, eps, times):
    points, ones = [eps], torch.ones_like(eps[:, :1])
    for t, r in pairwise(times):
        step = heun_step if r > 0 else euler_step
        points.append(step(velocity, points[-1], t * ones, (r - t) * ones))
    return torch.stack(points)


# %% [markdown]
# The check of the average: on a grid of times that is even in $1/\tau$ the weight $\tau^{-2}d\tau$ is constant, so a plain
# mean will do.

# %%
line_times = 1 / torch.linspace(1, 20, 200)  # from 1 to .05, even in 1/tau
line = flow_line(lambda a, t: exact.velocity(a, t, path), test_noise[:100], line_times)
means = torch.stack(
    [exact.posterior_mean(a, float(tau), path) for a, tau in zip(line, line_times, strict=True)]
)
average = (means[1:] + means[:-1]).mean(0) / 2  # trapezoid rule: its error is of order 1 / 200^2
off = rms(test_noise[:100] - (line[0] - line[-1]) / 0.95 - average)
check("a - t u against the average of posterior means", off, below=2e-3)


# %% [markdown]
# ### Step 5: a network that knows the trivial part
#
# At $t=1$ the velocity is $a$ minus a constant (chapter 05, step 6). On the way down its slope in $a$ grows, until the noise
# is as small as the hill is wide. At $t=0$ it is $-a$. A plain MLP has to learn all this besides $Q$.
#
# Take the simplest data: a normal density $\mathcal N(0,\varsigma^2I)$. Then $a_t$ is normal with variance
# $V=(1-t)^2\varsigma^2+t^2$ in each coordinate, and its velocity is linear:
#
# $$v_G(a,t)=\frac{\dot V}{2V}\,a=\frac{t-(1-t)\,\varsigma^2}{V}\,a .$$
#
# What is left over for a pair $(a_0,\varepsilon)$ is $\varepsilon-a_0-v_G$. $v_G$ is the conditional mean, so the
# variances subtract:
#
# $$\mathrm{Var}[\varepsilon-a_0]-\mathrm{Var}[v_G]=(1+\varsigma^2)-\frac{\big(t-(1-t)\,\varsigma^2\big)^2}{V}
# =\frac{\varsigma^2}{V}.$$
#
# (Multiply out: everything but $\varsigma^2$ cancels in the numerator.) So let the MLP $F$ see an input of unit size
# and give an answer of unit size:
#
# $$u_\theta(a,r,t)=v_G(a,t)+\frac{\varsigma}{\sqrt V}\,F_\theta\Big(\frac a{\sqrt V},\,r,\,t\Big).$$
#
# This is the preconditioning that Karras and others (2206.00364) worked out for denoisers, for a velocity. We take
# $\varsigma=\tfrac12$, roughly the spread of actions in a box.


# %%
def size_of_what_is_left(a0, t, generator):
    """The root mean square of F's target at time t."""
    eps = torch.randn(len(a0), 2, generator=generator)
    variance = ((1 - t) * 0.5) ** 2 + t**2
    v_gauss = (t - (1 - t) * 0.5**2) / variance * path.noise(a0, eps, t)
    return ((eps - a0 - v_gauss) * variance**0.5 / 0.5).square().mean().sqrt().item()


normal_data, hill_data = 0.5 * torch.randn(20_000, 2, generator=draws), exact.sample(20_000, draws)
of_normal, of_hills = (
    np.array([size_of_what_is_left(a0, t, draws) for t in (0.05, 0.3, 0.6, 0.95)])
    for a0 in (normal_data, hill_data)
)
# normal data: 40 000 numbers with mean square 1, standard error .004
check("size of F's target, normal data, from 1", np.abs(of_normal - 1).max(), below=0.02)
check("size of F's target, the hills, from 1", np.abs(of_hills - 1).max(), below=0.3)


# %%
class SkipVelocityNet(AverageVelocityNet):
    def __init__(self, dim, cond_dim=0, hidden=(128, 128, 128), octaves=1, spread=0.5):
        super().__init__(dim, cond_dim, hidden, octaves)
        self.spread = spread

    def forward(self, a, r, t, cond=None):
        data = (1 - t) * self.spread
        scale = (data.square() + t.square()).rsqrt()
        y = a * scale
        c = t - self.spread * data
        return scale * (c * y + self.spread * super().forward(y, r, t, cond))


# %% [markdown]
# **Stop and think.** Before training $F\approx0$, so $u_\theta=v_G$. Where does *one* step then land, and where do many
# steps?
#
# <details><summary>Answer</summary>
#
# $v_G(\varepsilon,1)=\varepsilon$, so one step lands at 0, on the mean, like Euler's step in chapter 01. Many steps
# draw $\mathcal N(0,\varsigma^2I)$.
#
# </details>

# %% [markdown]
# ## Code
#
# ### A judge
#
# Before we train anything, we fix how it will be judged. `judge` takes an average velocity $u$ and draws 4000
# points from it in 1, 2 and 20 steps. It returns, for each,
#
# * the sliced Wasserstein distance to exact samples, which comes first. Two sets of exact samples are not at distance
#   zero either: theirs is the *floor*. (Chapters 01 to 05 average the distances of sorted points, $W_1$. Here it is the
#   root of their mean square, $W_2$, to which a few points far from any hill matter more.)
# * $E[Q]$ in per cent off the exact value: negative is too blurred, positive too sharp;
# * the largest error of the three shares (4000 draws: standard deviation 0.008).

# %%
truths = [exact.sample(4000, rng(10 + k)) for k in range(4)]
COUNTS = (1, 2, 20)


def distance(x, y):
    return ot.sliced_wasserstein_distance(x.numpy(), y.numpy(), n_projections=64, seed=0, p=2)


def to_truth(points):
    return np.mean([distance(points, truth) for truth in truths])


floor = np.mean([distance(x, y) for x, y in pairwise(truths)])


@torch.no_grad()
def judge(u):
    """Rows for 1, 2, 20 steps: E[Q] in per cent off, largest error of a share, distance."""
    rows = []
    for steps in COUNTS:
        points = sample(u, test_noise, steps)
        off = 100 * (q(points).mean() / exact_q - 1)
        rows.append([off, (shares(points) - true_shares).abs().max(), to_truth(points)])
    return np.array(rows)


for name, temperature in (
    ("half the temperature", alpha / 2),
    ("right", alpha),
    ("twice", 2 * alpha),
):
    other = BoxBoltzmann(q, temperature)
    off = 100 * (other.expectation(q) / exact_q - 1)
    floors = to_truth(other.sample(4000, rng(20))) / floor
    print(f"{name:<22} E[Q] off by {off:+6.2f} %, distance {floors:4.1f} times the floor")

times = (torch.arange(8, -1, -1) / 8).square()  # eight steps, dense near the data
eight = flow_line(lambda a, t: coarse.velocity(a, t, path), test_noise, times)[-1]
off, floors = 100 * (q(eight).mean() / exact_q - 1), to_truth(eight) / floor
print(
    f"{'exact line, 8 steps':<22} E[Q] off by {off:+6.2f} %, distance {floors:4.1f} times the floor"
)


# %% [markdown]
# The first three samplers are *exact*, but at another temperature. Someone who only looks at $E[Q]$ would call half the
# temperature an improvement. **Too sharp is as wrong as too blurred,** and the distance says so.
#
# The last line follows the exact velocity in eight steps of Heun, as the training below does: so much a solver may cost.
#
# ### The plain version
#
# Now the construction as it stands after step 3: uniform points, noise, the posterior mean from $K$ proposals,
# $\hat v=(a-\hat m)/t$, and the MeanFlow loss with its JVP. This is SOM's recipe: the velocity comes from $Q$, and
# MeanFlow does the rest. `dense` squares both times, so that more of them are near the data. `data` replaces the
# velocity from $Q$ by that of a pair $(a_0,\varepsilon)$ with exact samples $a_0$: ordinary MeanFlow, our reference.


# %%
def fresh(kind, **settings):
    """A network with seeded initial weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind(2, **settings)


def fit_identity(net, *, power=0.0, dense=False, share_equal=0.25, K=64, data=None, updates=600):
    """Train u by the MeanFlow identity, with the velocity from q (or, with data, from pairs)."""
    generator = rng(0)
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3, fused=True)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    for _ in range(updates):
        t_min = T_MIN**0.5 if dense else 0.02
        r, t = sample_times(128, generator, share_equal=share_equal, t_min=t_min)
        r, t = (r.square(), t.square()) if dense else (r, t)
        a0 = 2 * torch.rand(128, 2, generator=generator) - 1
        eps = torch.randn(128, 2, generator=generator)
        if data is None:
            a = path.noise(a0, eps, t)
            m = posterior_mean_estimate(q, a, t, path, alpha, K, generator).m
            v = path.velocity_from_mean(m, a, t)
        else:
            a0 = data.sample(128, generator)
            a, v = path.noise(a0, eps, t), eps - a0
        loss = meanflow_loss(net, a, r, t, v, power, 0.01)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    return net


# %% [markdown]
# Image generation brings two settings: sines and cosines of *several octaves* to embed the time, and the loss weight
# $1/(\text{error}+0.01)$, a *power* of 1. We train with both, with either, and with neither.

# %%
results = {
    "4 octaves, power 1": judge(fit_identity(fresh(AverageVelocityNet, octaves=4), power=1.0)),
    "4 octaves": judge(fit_identity(fresh(AverageVelocityNet, octaves=4))),
    "power 1": judge(fit_identity(fresh(AverageVelocityNet), power=1.0)),
    "neither": judge(fit_identity(fresh(AverageVelocityNet))),
}
lag = {name: result[0, 2] / result[1, 2] for name, result in results.items()}
check("4 octaves: distance of one step over that of two", lag["4 octaves"], above=1.25)
check("neither: the same", lag["neither"], below=1.2)
blur = results["power 1"][2, 2] / results["neither"][2, 2]
lines = [f"one step over two steps, {name}: {value:.2f}" for name, value in lag.items()]
measured(
    "distances by octaves and power, as ratios",
    "\n".join([*lines, f"power 1 over neither, distance of 20 steps: {blur:.2f}"]),
)


# %% [markdown]
# With four octaves one step is much further from the truth than two steps of the *same* network. **The one-step map
# lags behind.** The truth enters at $r=t$ and has to travel to the longest interval, $(0,1)$, where the correction is
# as large as the answer and consists of the network's own derivatives. A fast time feature spoils them: the derivative
# of $\sin4\pi t$ reaches $4\pi$, and the target contains $\partial_tu_\theta$. The power alone hardly lags; it is
# further from the truth at *any* number of steps. Velocities from $Q$ are nearly exact in easy regions, so the weight of those
# rows is huge, and the rows that matter get none.
#
# So: one octave, no power. Next the preconditioned network of step 5, and then, with it, times that are
# denser near the data.

# %%
results["preconditioned net"] = judge(fit_identity(fresh(SkipVelocityNet)))
results["times near the data"] = judge(fit_identity(fresh(SkipVelocityNet), dense=True))


def rows_error(rows):
    """The error of the velocity, times t: that of the posterior mean."""
    wanted = exact.posterior_mean(rows.a, rows.t, path)
    return rms(rows.a - rows.t * rows.u - wanted)


# %% [markdown]
# ### The rows with $r=t$, written by you
#
# From here on two networks are at work. `net` is trained. `slow` is the running mean of its weights; it draws the training
# points and the flow lines, and is what we keep in the end. `Rows` is a tuple of four columns: points `a` and times `r`, `t`
# to train at, and the wanted average velocity `u`.

# %% [markdown]
# ### 1. An instant row · ●●○ · 25 min
#
# Write the rows of one update, in their simple form. Half of the clean points (the even rows) are the model's own
# samples `own`, shape `(n, 2)`; the others are uniform, so that no hill is forgotten. Times are squares of uniform ones, at
# least `T_MIN`. Noise the points, estimate $m$ from `K` proposals (`posterior_mean_estimate(q, a, t, path, alpha, K,
# generator).m`), and return `Rows`.


# %% tags=["exercise", "raises-exception"]
def first_rows(q, alpha, own, K, generator):
    raise NotImplementedError


asked = []
spy = lambda a: asked.append(a) or q(a)  # noqa: E731
own_points = q.centres[1] + 0.01 * torch.randn(4000, 2, generator=rng(5))
mine = first_rows(spy, alpha, own_points, 64, rng(6))
theirs = package.instant_rows(q, alpha, own_points.view(-1, 16, 2), 16, 63, rng(6), 0.5)
check("exercise 1: r - t", (mine.r - mine.t).abs().max(), below=1e-9)
check("exercise 1: the smallest time over T_MIN", mine.t.min() / T_MIN, above=0.999)
check(
    "exercise 1: share of times below 1/4, minus 1/2",
    abs((mine.t < 0.25).double().mean() - 0.5),
    below=0.03,
)
check(
    "exercise 1: values of q asked for, per row, minus 64",
    abs(sum(a[..., 0].numel() for a in asked) / 4000 - 64),
    below=0.5,
)
early = (mine.t < 0.05)[:, 0]
on_hill = (mine.a - q.centres[1]).norm(dim=-1) < 0.2
even_row = torch.arange(4000) % 2 == 0
check(
    "exercise 1: share of the early even rows at the own samples",
    on_hill[early & even_row].double().mean(),
    above=0.95,
)
check(
    "exercise 1: share of the early odd rows there",
    on_hill[early & ~even_row].double().mean(),
    below=0.1,
)
far_spread = mine.a[early & ~even_row].std()  # uniform on [-1, 1]: .577
check("exercise 1: spread of the early odd rows", far_spread, above=0.5, below=0.66)
late_spread = mine.a[(mine.t > 0.9)[:, 0] & even_row].std()
check("exercise 1: spread of the late even rows", late_spread, above=0.8, below=1.1)
tied = torch.corrcoef(mine.a[(mine.t > 0.5)[:, 0] & even_row].T)[0, 1].abs()
check("exercise 1: correlation of their two coordinates", tied, below=0.25)
check("exercise 1: error of m", rows_error(mine), below=0.2)
print(f"error of m: yours {rows_error(mine):.4f}, the package's {rows_error(theirs):.4f}")

# %% [markdown]
# <details><summary>Hint</summary>
#
# `torch.where` with `torch.arange(n)[:, None] % 2 == 0` picks the clean points. The velocity is that of step 1.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def first_rows(q, alpha, own, K, generator):
#     n = len(own)
#     uniform = 2 * torch.rand(n, 2, generator=generator) - 1
#     a0 = torch.where(torch.arange(n)[:, None] % 2 == 0, own, uniform)
#     t = torch.rand(n, 1, generator=generator).square().clamp(min=T_MIN)
#     a = path.noise(a0, torch.randn(n, 2, generator=generator), t)
#     m = posterior_mean_estimate(q, a, t, path, alpha, K, generator).m
#     return Rows(a, t, t, (a - m) / t)
# ```
#
# The package's error is smaller, since 16 rows share their proposals: next section.
#
# </details>

# %% [markdown]
# ### Proposals that are shared, and the model's own
#
# Near $t=1$ box proposals spread over the whole square. In two dimensions 64 of them hit every hill; in six they hardly ever
# do. But the model, once it has begun to learn, knows where the hills are. So some proposals are the model's own samples,
# each blurred a little. And noised points share their proposals, 32 at a time. Each $z$ then comes from a mixture, of the box density
# $h_j$ of the $j$-th point, $K$ draws each, and the density $h_{\text{own}}$ of $C$ blurred samples. Its weight is target
# over mixture, the *balance heuristic*:
#
# $$w(z)\;\propto\;\frac{e^{Q(z)/\alpha}\;\mathcal N\big(a;\,(1-t)\,z,\,t^2I\big)}
# {\sum_jK\,h_j(z)+C\,h_{\text{own}}(z)} .$$
#
# Here it is as installed, the rows with $r=t$ that the package makes of it, and the helpers it calls.

# %%
listing(
    scores.proposal_pool,
    {
        "near = box_proposals": "$K$ proposals for every noised point, from the normal density cut to the box.",
        "log_near = ": "The log of their mixture, $\\sum_jKh_j(z)$ …",
        "log_own = ": "… and that of the blurred samples, a sum of small normal densities.",
        "log_target = ": "The part of the weight that does not depend on the noised point.",
        "return Pool": "The rest of it does. The softmax makes the weights of a point add up to one.",
    },
)
listing(
    package.instant_rows,
    {
        "a0 = torch.where": "Mostly own samples, a quarter uniform points.",
        "t = ((torch.arange(M": "Times are squares of an *even* spread: one in each of $M$ slots.",
        "m = pool_mean": "The posterior means of all rows, from shared proposals. With few proposals a mean leans "
        "towards where they are; the sampler asks for weights that take the first order of this out, `sharpened`.",
    },
)
for helper in (
    scores._blur,
    scores._log_kernel_density,
    scores._log_box_integral,
    scores.sharpened,
):
    listing(helper, {})

# %% [markdown]
# As the number of proposals grows the limit is right *whatever* the model proposes. With few it is not. Here all own
# samples sit on one hill, at $t=0.9$: with 256 box proposals beside them the estimate does not lean; with 4 it does.


# %%
def bias_towards_own(K, rows=2000):
    """The length of the mean error, when all 32 own samples sit on one hill."""
    t = torch.full((rows, 1), 0.9)
    a = path.noise(exact.sample(rows, rng(7)), torch.randn(rows, 2, generator=rng(8)), t)
    own = (q.centres[1] + 0.05 * torch.randn(rows, 32, 2, generator=rng(9))).clamp(-1, 1)
    estimate = scores.shared_posterior_mean_estimate(q, a, t, path, alpha, K, rng(10), own)
    return (estimate.m - exact.posterior_mean(a, t, path)).mean(0).norm()


# the mean over 2000 rows: their standard error is .003
check("bias towards the hill of the own samples, K = 256", bias_towards_own(256), below=0.015)
check("the same with K = 4, over that", bias_towards_own(4) / bias_towards_own(256), above=4)

# %% [markdown]
# In ten dimensions that is the normal case: a model that has lost a hill proposes nothing there, and the box hardly helps.
# So training begins *warm*, at a temperature as high as $Q$ is rough, where all hills hang together, and cools down to
# $\alpha$; and at the end the sampler *doubts itself*, below.
#
# ### Flow lines instead of the identity
#
# A line runs from noise to data in `steps` solver steps. Any two of its points give a row
# $\big(a_t,\,r,\,t,\,(a_t-a_r)/(t-r)\big)$. One of them is always the longest, from 1 to 0: the one we want in the end.
# The times are shifted at random, so that no time is special.

# %%
listing(falling_times, {})
listing(interval_rows, {"start[0], end[0] = 0, steps": "The first block of rows: from 1 to 0."})

# %% [markdown]
# A test before any training: hand it the *exact* velocity. For the rows from 1 to 0 a jump must end where the exact flow
# ends, up to the error of eight solver steps.

# %%
exact_rows = interval_rows(
    lambda a, r, t: exact.velocity(a, t.clamp(min=0.01), path), test_noise[:500], 8, 4, draws
)
jumped = exact_rows.a[:500] - exact_rows.u[:500]  # the first 500 rows: from 1 to 0
check("jump from 1 to 0 against the exact flow", rms(jumped - flown[:500]), below=0.1)
most = (exact_rows.a - exact_rows.t * exact_rows.u).abs().max()
check("largest coordinate of any a - t u", most, below=1.0001)
nothing = interval_rows(lambda a, r, t: a / t.clamp(min=T_MIN), test_noise[:100], 8, 4, draws)
sent = (nothing.a - nothing.u)[:100].abs().max()
check("lines of a field that knows nothing: largest end", sent, below=1e-4)

# %% [markdown]
# The last check is a warning. A field with $m=0$ everywhere is its own perfect teacher: with flow lines the rows with
# $r=t$ are the *only* place where $Q$ enters.
#
# ### The sampler


# %%
def squared_error(u, rows):
    return (u(rows.a, rows.r, rows.t) - rows.u).square().sum(-1).mean()


listing(
    package.fit_one_step_sampler,
    {
        "magnify_inputs(net.mlp": "A fresh network learns smooth functions first. A first layer three times larger "
        "gives it finer features from the start, for narrow hills.",
        "own = sample(in_box(slow), torch.randn(batch": "Own samples, in one step of the slow copy.",
        "now = ": "The temperature, on its way down.",
        "instant = ": "The truth, from $Q$.",
        "interval = ": "Flow lines of the slow copy.",
        "loss = ": "The plain squared error. A row over an interval counts `interval_weight` times; the ablation "
        "script tries other weights.",
        "clip_grad_norm_": "One wild row, a proposal that takes all the weight, moves the network no further than "
        "a usual one.",
        "betas=": "Adam's memory of squared gradients is a hundred updates instead of the usual thousand, so that "
        "it follows the falling temperature.",
        "schedule.step()": "The step size falls along a half cosine to zero, so that the noise of the estimates is "
        "averaged out in the end.",
    },
)

# %% [markdown]
# Its defaults train for 4000 updates. Here we train for a fifth of that, with half the batch.

# %%
short = {"batch": 128, "lines": 64, "memory": 0.98}
sampler = package.fit_one_step_sampler(q, 2, alpha, updates=800, **short)
results["flow lines"] = judge(in_box(sampler.net))
off, share, far = results["flow lines"].T
check("flow lines, E[Q] of one step, per cent off", abs(off[0]), below=20)
check("flow lines, error of the shares, one step", share[0], below=0.08)

# %% [markdown]
# ### One network for all temperatures
#
# A robot's policy must answer in every state. The network then takes the state as a further input, `cond`. We rehearse
# that with something simpler in the place of the state: the temperature. An update draws 8 temperatures, 16 noised
# points for each, and tells the network their logarithm. (In `interval_rows` the four rows of a line come in four
# blocks, hence `repeat`.)


# %%
def at(u, alpha):
    """u at the temperatures alpha (n, 1), one for each row."""
    return lambda a, r, t: u(a, r, t, alpha.log())


def fit_temperatures(q, low, high, updates=1000, states=8, M=16, C=16, K=6, lines=32):
    """One sampler for all temperatures from low to high."""
    generator = rng(0)
    net = fresh(SkipVelocityNet, cond_dim=1)
    slow = copy.deepcopy(net).requires_grad_(False)
    optimizer = torch.optim.Adam(net.parameters(), 8e-3, betas=(0.9, 0.99), fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    for _ in range(updates):
        with torch.no_grad():
            alpha = low * (high / low) ** torch.rand(states, 1, generator=generator)
            eps = torch.randn(states * C, 2, generator=generator)
            own = sample(in_box(at(slow, alpha.repeat_interleave(C, 0))), eps).view(states, C, 2)
            instant = package.instant_rows(q, alpha, own, M, K, generator)
            line_alpha = low * (high / low) ** torch.rand(lines, 1, generator=generator)
            eps = torch.randn(lines, 2, generator=generator)
            interval = interval_rows(at(slow, line_alpha), eps, 8, 4, generator)
        loss = squared_error(at(net, alpha.repeat_interleave(M, 0)), instant)
        loss = loss + 2 * squared_error(at(net, line_alpha.repeat(4, 1)), interval)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        for old, new in zip(slow.parameters(), net.parameters(), strict=True):
            old.lerp_(new.detach(), 0.02)
    return slow


any_alpha = fit_temperatures(q, 0.08, 0.6)


@torch.no_grad()
def generate(eps, alpha, steps=1):
    """Samples at the temperature alpha, from noise."""
    return sample(in_box(at(any_alpha, torch.full_like(eps[:, :1], alpha))), eps, steps)


# %% [markdown]
# Put a state in the place of $\log\alpha$ and a learnt critic in that of $q$: this is the actor of a robot. Exercise 6 does
# the first half.

# %% [markdown]
# ## Checks
#
# ### One step, two steps, many
#
# Where has each change brought us? Every row of the picture is one training of this chapter: 600 updates for those with
# the identity, 800 for the last two.

# %%
pairs_net = fit_identity(fresh(SkipVelocityNet), dense=True, data=exact, updates=800)
results["from samples"] = judge(pairs_net)
one_step = {name: result[0, 2] for name, result in results.items()}
both = one_step["times near the data"] / one_step["neither"]
check("one step, distance: both remedies over neither", both, below=0.7)
no_samples = one_step["flow lines"] / one_step["from samples"]
check("one step, distance: flow lines over samples of the target", no_samples, below=1.6)

# %% tags=["hide-input"]
STEPS = {1: ("one-step", "full", 7), 2: ("one-step", "none", 12), 20: ("flow", "full", 8)}


def dots(ax, values, column, title):
    """A line for each training: the value for 1, 2 and 20 steps."""
    for row, result in enumerate(values.values()):
        for (kind, fill, size), value in zip(STEPS.values(), result[:, column], strict=True):
            ax.plot(value, row, MARKERS[kind], color=COLOURS[kind], fillstyle=fill, markersize=size)
    ax.set_yticks(range(len(values)), list(values))
    ax.set(title=title, ylim=(len(values) - 0.5, -0.5))
    ax.grid(axis="y", color="#e0e0e0")
    ax.set_axisbelow(True)


def dots_key(fig):
    marks = [
        Line2D([], [], color=COLOURS[kind], marker=MARKERS[kind], fillstyle=fill, ms=size, ls="")
        for kind, fill, size in STEPS.values()
    ]
    words = ["1 step", "2 steps", "20 steps"]
    fig.legend(marks, words, loc="outside lower center", ncols=3, frameon=False)


fig, (left, right) = figure(8.4, 4.3, ncols=2)
dots(left, results, 2, "distance to exact samples")
left.axvline(floor, color="black", linewidth=1)
left.text(floor + 0.006, len(results) - 3.4, "floor", va="center")
left.set_xlim(0, 0.3)
dots(right, results, 0, "$E[Q]$, per cent off")
right.axvline(0, color="black", linewidth=1)
right.set_xlim(-70, 12)
right.set_yticklabels([])
dots_key(fig)
show(
    fig,
    "Two panels with one line for each training. Left, the distance to exact samples: with four octaves one step stands "
    "alone, far to the right of two and twenty; the later trainings fall towards the floor near 0.015. Right, E[Q] in per "
    "cent off the exact value: far below zero for the first four, then nearer and nearer to it.",
)


# %% [markdown]
# **What you should see.** In the first two lines the filled diamond, one step, is far out on the left panel: the lag.
# From the fourth line down the dots move towards the floor. The last line is MeanFlow trained on *samples of the
# target*, which no other line has seen: we have lost little by having none.
#
# ### Which change bought what
#
# The benchmark `tests/benchmarks/one_step_ablation.py` changes *one* thing, gives each change the better of two step
# sizes on a seed of its own, and trains three more seeds. Lines are from the smallest to the largest of these.

# %%
table = Path("../tests/benchmarks/one_step_ablation.md").read_text(encoding="utf-8")
cells = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")][1:]


def numbers(cell):
    """Mean, smallest and largest of '0.033 (0.029 to 0.038)'."""
    return [float(x) for x in re.findall(r"\d+\.\d+", cell)]


ablation = {}
for target, changed, _, one_step_far, many_far, its_floor, *_ in cells:
    ablation.setdefault(target, {})[changed] = (
        numbers(one_step_far),
        numbers(many_far),
        float(its_floor),
    )
print(" ".join(re.search("`(.+?)`", table, re.DOTALL)[1].split()))

# %% tags=["hide-input"]
fig, axes = figure(
    4.0 + 4.0 * len(ablation), 1.6 + 0.32 * max(map(len, ablation.values())), ncols=len(ablation)
)
for ax, (target, changes) in zip(np.atleast_1d(axes), ablation.items(), strict=True):
    for place, (one_step_far, many_far, _) in enumerate(changes.values()):
        for (kind, fill, size), (mean, low, high) in (
            (STEPS[20], many_far),
            (STEPS[1], one_step_far),
        ):
            ax.plot([low, high], [place, place], color=COLOURS[kind], linewidth=2)
            ax.plot(
                mean, place, MARKERS[kind], color=COLOURS[kind], fillstyle=fill, markersize=size
            )
    its_floor = next(iter(changes.values()))[2]
    ax.axvline(its_floor, color="black", linewidth=1)
    ax.text(its_floor, -0.75, " floor", va="center")
    ax.set_yticks(range(len(changes)), list(changes))
    ax.set(title=target, xlabel="distance to exact samples", ylim=(len(changes) - 0.5, -1.1))
    ax.grid(axis="y", color="#e0e0e0")
    ax.set_axisbelow(True)
fig.legend(
    [
        Line2D([], [], color=COLOURS[kind], marker=MARKERS[kind], ms=size, ls="-")
        for kind, fill, size in (STEPS[1], STEPS[20])
    ],
    ["1 step", "20 steps"],
    loc="outside lower center",
    ncols=2,
    frameon=False,
)
show(
    fig,
    "Distances to exact samples on the four bumps, for one step and twenty, one row a change, each with its spread over "
    "three seeds and a vertical line at the floor. In one step the identity lies a little nearer to the floor than flow "
    "lines, in twenty farther from it.",
)

# %% [markdown]
# **What you should see.** A short training, 600 updates, on four narrow bumps. In one step the identity of the live network
# is a little nearer, 0.065 against 0.072, and its $E[Q]$ is 7 % off instead of 20 %, though the seeds overlap; in twenty steps
# flow lines reach the floor, 0.057 against 0.075. So step 3 is a warning and no verdict. What the identity has for itself is
# that $\hat v$ enters *every* one of its targets, also those over intervals (for which it asks $Q$ three times as often).
# Flow lines know of $Q$ only what the network has learnt at $r=t$, and a map that copies them comes later than they do.
# The first layer matters most: at its usual size, 0.094.
#
# What flow lines have for themselves: no derivative, and a target in the box. On the wide hills above their one step is
# within a hundredth of that of the identity. Choose by *your* number of updates and by what a call of $Q$ costs, and judge
# by distance. The script can change more; the picture has what was run.
#
# And at full size, 4000 updates? Five targets, three seeds each, by `tests/benchmarks/one_step.py`:

# %%
full = Path("../tests/benchmarks/one_step.md").read_text(encoding="utf-8")
runs = {}
for text in full.splitlines():
    if re.match(r"\| [a-zA-Z0-9- ]+ \| \d+ \|", text):
        name, _, _, _, one_off, *_, far, _ = [cell.strip() for cell in text.strip("| ").split("|")]
        *far, its_floor = numbers(far)
        runs.setdefault(name, []).append(
            [float(one_off.rstrip(" %")), far[0] / its_floor, far[2] / its_floor]
        )
print("means over seeds   E[Q] off, one step   distance in floors: one step   20 steps")
for name, rows in runs.items():
    off, one_far, many_far = np.mean(rows, 0)
    print(f"{name:<14}{off:20.1f} % {one_far:31.1f} {many_far:10.1f}")
worst = max(np.mean(rows, 0)[1] for rows in runs.values())
check("one step, the worst target's distance in floors", worst, below=2)

# %% [markdown]
# On four targets in the plane one step ends within 1.3 floors; in six dimensions it is farther, and too blurred.
#
# ### Does it find every hill?
#
# *Mode coverage* is the reason to sample at all instead of climbing.

# %%
with torch.no_grad():
    one, two, many = (sample(in_box(sampler.net), test_noise, n) for n in COUNTS)
check("smallest share in one step, over the true one", (shares(one) / true_shares).min(), above=0.6)

# %% tags=["hide-input"]
fig, axes = figure(8.4, 3.4, ncols=3)
clouds = {"1 step": one, "20 steps": many, "exact samples": truths[0]}
for ax, (title, points) in zip(axes, clouds.items(), strict=True):
    plots.backdrop(plane(ax, 1.05), exact.log_prob)
    kind, size = {"1 step": ("one-step", 2.2), "20 steps": ("flow", 2.6)}.get(title, ("data", 1.8))
    plots.particles(ax, points[:1200], kind, size=size, alpha=0.6)
    ax.set_title(title)
    ax.set_xlabel("shares " + ", ".join(f"{share:.2f}" for share in shares(points)))
show(
    fig,
    "Three panels of 1200 points over the pale blue density: one step, twenty steps, exact samples. All three fill the three "
    "hills in about the same proportions. With one step there are dense threads in the hills and more points between them.",
)

# %% [markdown]
# **What you should see.** Three hills in every panel, with shares that agree within a few hundredths. The one-step cloud
# has dense threads in the hills and a haze between them: a smooth network must put the noise near a border somewhere.
#
# And when no exact answer is at hand? The sampler's `diagnosis` asks its own proposals: how many count at each noise level,
# how often the heaviest is a box proposal, and which share of the target's mass, as 20 000 uniform points see it, lies where
# the model hardly samples. If too few count or too much is missed, training ends with one warning.

# %%
told = [
    "t                 " + "".join(f"{t:8.3f}" for t in sampler.diagnosis.t),
    "proposals count   " + "".join(f"{n:8.1f}" for n in sampler.diagnosis.ess),
    "a box proposal won" + "".join(f"{share:8.2f}" for share in sampler.diagnosis.box_wins),
]
measured("the sampler's diagnosis, by time", "\n".join(told))
check("share of the mass that the sampler misses", sampler.diagnosis.missed, below=0.1)
lost = one[torch.cdist(one, q.centres).argmin(-1) != 1][:1024]  # as if it had lost hill 2
doubts = package.diagnose(q, alpha, lost, rng(11))
check("the same without hill 2", doubts.missed, above=0.1)
measured("what the diagnosis says without hill 2", doubts.doubts.split(";")[-1])

# %% [markdown]
# ### Boltzmann or greedy? A score of fixed length
#
# SOM's paper, as far as it is known in public, does one more thing. On the VP path (chapter 05) it scales every score to
# *length one* and multiplies it by a constant $\ell=25$:
#
# $$v_\ell(a,t)=-\tfrac12\,\beta_t\Big(a+\ell\,\frac{s(a,t)}{\|s(a,t)\|}\Big).$$
#
# The estimated score $s(a,t)$ can have a wild length, and this tames it. But what does that flow sample? We take the
# *exact* score, so that no estimate is to blame, and follow $v_\ell$ from noise in 300 Euler steps.

# %%
vp = VP()


def follow_vp(target, length=None, steps=300, last=0.004):
    """The end of the VP flow with the exact score, or with one of fixed length."""
    a = test_noise[:400]
    for t, r in pairwise(torch.linspace(1, last, steps + 1)):
        s = target.noised_score(a, float(t), vp)
        s = s if length is None else length * torch.nn.functional.normalize(s, dim=-1)
        a = a + (r - t) * vp.velocity_from_score(s, a, float(t))  # Euler
    return a


warm = BoxBoltzmann(q, 0.6, cells=101)
ends_of = {length: follow_vp(coarse, length) for length in (None, 2, 25)}
off = 100 * abs(q(ends_of[None]).mean() / exact_q - 1)
check("exact score: E[Q], per cent off", off, below=6)
check("length 25: E[Q] at alpha = .15", q(ends_of[25]).mean(), above=0.99)
check("length 25: E[Q] at alpha = .6", q(follow_vp(warm, 25)).mean(), above=0.99)
check("length 25: share of the first hill", shares(ends_of[25])[0], above=0.99)
far_out = (ends_of[2].abs() > 1.5).any(-1).float().mean()
check("length 2: share of points beyond 1.5", far_out, above=0.05)
low_and_broad = Bumps(q.centres[:2], torch.tensor([0.3, 0.12]), torch.tensor([0.8, 1.0]))
for temperature, low, high in ((0.15, 0.99, 1.01), (0.05, -0.01, 0.01)):
    climbed = follow_vp(BoxBoltzmann(low_and_broad, temperature, cells=101), 25)
    on_broad = shares(climbed)[0]
    check(f"alpha = {temperature}: share of the low broad hill", on_broad, above=low, below=high)
print(f"exact E[Q]: {exact_q:.4f} at alpha = .15, {warm.expectation(q):.4f} at alpha = .6")

# %% tags=["hide-input"]
four = BoxBoltzmann(four_bumps(), 0.1, cells=101)
fig, axes = figure(8.4, 2.9, ncols=4)
panels = {
    "the exact score": (ends_of[None], exact),
    "length 2": (ends_of[2], exact),
    "length 25": (ends_of[25], exact),
    "length 25, equal hills": (follow_vp(four, 25), four),
}
for ax, (title, (points, target)) in zip(axes, panels.items(), strict=True):
    plots.backdrop(plane(ax, 2.0), target.log_prob)
    kind, size = ("data", 2.5) if title == "the exact score" else ("error", 8)
    plots.particles(ax, points, kind, size=size, alpha=0.6)
    ax.set_title(title, fontsize=11)
    ax.set_xlabel(f"{100 * (points.abs() > 2).any(-1).float().mean():.0f} % out of sight")
show(
    fig,
    "Four panels of end points over the density. Exact score: three filled hills. Length 2: nearly all points on the top of "
    "the first hill, some far outside the picture. Length 25: all points on the top of the first hill. Length 25 with four "
    "equal hills: a dot on each of the four tops.",
)

# %% [markdown]
# **What you should see.** With length 25 a single dot: every point on the top of the *first* hill, at $\alpha=0.15$ and
# at $\alpha=0.6$ alike: the temperature no longer spreads anything. Four hills of the same height keep all four, each
# reduced to its top. With length 2 some points escape: backwards in time the term $-\tfrac12\beta_ta$ pushes outwards,
# and a pull of length two cannot hold a point that is further out.
#
# **Why.** With $\ell>\|a\|$ every point runs up the slope of $\log p_t$ to its maximum, and then follows that maximum as
# $t$ falls. At high noise there is only *one* maximum, since all hills are blurred into one. Where the score is zero,
# Tweedie's formula says $a=\mu_t\,m(a,t)$, with the path's coefficient $\mu_t$ (chapter 05). We follow that point down.

# %%
crest = torch.zeros(1, 2)
for t in np.linspace(1, 0.01, 100):
    for _ in range(20):
        crest = float(vp.mu(t)) * coarse.posterior_mean(crest, t, vp)
off = (crest - q.centres[0]).norm()
check("the followed maximum: distance to the top of the first hill", off, below=0.03)

# %% [markdown]
# It leads to where length 25 took everyone. Such a flow is a *climber*: it finds one maximum and forgets the rest. Not
# always the highest: the one with the most mass wins. Beside a narrow hill of height 1, a broad one of 0.8 took all points
# at $\alpha=0.15$ and none at 0.05 (checked above). For a robot that may be welcome; exploration must then come from
# elsewhere.
# Our $\hat m$ is an average of points of the box, so it cannot run wild.

# %% [markdown]
# ## Explorer
#
# The network for all temperatures, at eight of them. On the right, the black line is the exact $E[Q]$, and the diamonds are
# that of the samples.

# %%
alphas = (0.08, 0.1, 0.13, 0.17, 0.23, 0.32, 0.44, 0.6)
one_step_explorer(generate, q, alphas=alphas, steps=COUNTS)

# %% [markdown]
# **What you should see.** From right to left the density contracts from a broad cloud to three spots, and the diamonds
# climb with the black line: one network, any temperature. But they stay below it, up to a sixth in the cold, where the
# borders between hills are sharpest; twenty steps come closer.

# %%
for temperature in (0.1, 0.17, 0.44):
    there = BoxBoltzmann(q, temperature).expectation(q)
    off = [100 * abs(q(generate(test_noise, temperature, n)).mean() / there - 1) for n in (1, 20)]
    check(f"one network, one step, alpha = {temperature}: E[Q] off, per cent", off[0], below=24)
    check(f"one network, 20 steps, alpha = {temperature}: E[Q] off, per cent", off[1], below=18)

# %% [markdown]
# ## What can go wrong
#
# ### Few proposals
#
# We take the best training with the identity and give it four proposals instead of 64. It blurs everything, and no
# training can cure it. The softmax of few proposals is biased: $\hat m$ is pulled towards the mean of the proposals. More
# updates average the noise away, never the bias.

# %%
starved = judge(fit_identity(fresh(SkipVelocityNet), dense=True, K=4))
worse = starved[0, 2] / one_step["times near the data"]
check("K = 4: distance in one step over that with 64", worse, above=1.3)


def bias(K, rows=20, repeats=200):
    """At t = 0.9: the error of the mean of many estimates, for each of 20 points."""
    t = torch.full((rows, 1), 0.9)
    a = path.noise(exact.sample(rows, rng(12)), torch.randn(rows, 2, generator=rng(13)), t)
    found = estimated_mean(a.repeat(repeats, 1), t.repeat(repeats, 1), K, rng(14))
    return rms(found.view(repeats, rows, 2).mean(0) - exact.posterior_mean(a, t, path))


def coin_bias(K, weigh):
    """Exactly, for z = 0 or 1 with equal chance, and W = 1 or 4."""
    heads = torch.arange(K + 1).double()[:, None]
    z = (torch.arange(K) < heads).double()
    W = 1 + 3 * z
    log_chance = math.lgamma(K + 1) - torch.lgamma(heads + 1) - torch.lgamma(K - heads + 1)
    chance = (log_chance[:, 0] - K * math.log(2)).exp()
    return (chance @ (weigh(W / W.sum(-1, keepdim=True)) * z).sum(-1) - 0.8).abs()


check("bias of m with K = 4, at t = 0.9", bias(4), above=0.05)
check("bias with K = 4 over that with K = 64", bias(4) / bias(64), above=3)

# %% [markdown]
# ### A critic that is wrong
#
# A learnt critic is wrong somewhere. We spoil ours in two ways: a needle, high and thin, in a corner where nothing is to be
# gained, and ripples all over. Three policies of different greed: the exact Boltzmann density of the wrong $Q$, the best of
# 32 draws from it, and its very maximum.

# %%
needle = torch.tensor([0.7, -0.75])
frequency, phase = (
    14 * torch.randn(40, 2, generator=rng(15)),
    6.28 * torch.rand(40, generator=rng(16)),
)


def wrong_q(a):
    ripples = 0.015 * torch.cos(a @ frequency.T + phase).sum(-1)
    return q(a) + ripples + 1.3 * torch.exp(-(a - needle).square().sum(-1) / (2 * 0.05**2))


def near_needle(a):
    return ((a - needle).norm(dim=-1) < 0.15).double()


def best_of(points, N, value):
    """The best of every N rows, by the given value."""
    groups = points[: len(points) // N * N].view(-1, N, 2)
    return groups[torch.arange(len(groups)), value(groups).argmax(-1)]


wrong = BoxBoltzmann(wrong_q, alpha, cells=401)  # the needle needs finer cells
fooled = wrong.sample(32_000, rng(6))
top = wrong.grid[wrong_q(wrong.grid).argmax()][None]
greed = {"Boltzmann": fooled, "best of 32": best_of(fooled, 32, wrong_q), "maximum": top}
for name, points in greed.items():
    claimed, true, share = wrong_q(points).mean(), q(points).mean(), near_needle(points).mean()
    print(f"{name:<11} claimed {claimed:.3f}, true {true:.3f}, share at the needle {share:.2f}")

# %% [markdown]
# The Boltzmann density promises 0.87 and holds 0.75, against 0.78 with the right $Q$: a thin needle has little mass,
# however high. The greedier the policy, the more of it ends on the needle, with the greatest promise and the least value.
# A temperature is also a protection against one's own critic.

# %% [markdown]
# ## Exercises
#
# Exercise 1 stands in the code section. ✓ lines say that you are done.

# %% [markdown]
# ### 2. Find the bug: a loss that helps itself · ●●○ · 15 min
#
# A training without a slow copy takes the lines of the network itself. Its loss falls faster than it should, and the
# samples get worse. Repair it; the check compares the gradient with that of fixed rows.
#
# ```python
# def interval_loss(net, eps, generator):
#     rows = interval_rows(net, eps, 8, 4, generator)
#     return squared_error(net, rows)
# ```


# %% tags=["exercise", "raises-exception"]
def interval_loss(net, eps, generator):
    raise NotImplementedError


probe_net, probe_noise = fresh(SkipVelocityNet), test_noise[:200]
torch.nn.init.normal_(probe_net.mlp[-1].weight, std=0.3, generator=rng(17))
with torch.no_grad():
    fixed = interval_rows(probe_net, probe_noise, 8, 4, rng(18))
weights = list(probe_net.parameters())
wanted = torch.autograd.grad(squared_error(probe_net, fixed), weights)
loss = interval_loss(probe_net, probe_noise, rng(18))
check("exercise 2: error of the loss", abs(loss - squared_error(probe_net, fixed)), below=1e-5)
found = torch.autograd.grad(loss, weights)
off = max((x - y).abs().max() / y.abs().max() for x, y in zip(found, wanted, strict=True))
check("exercise 2: error of the gradient", off, below=1e-3)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Which tensors of `rows` depend on the weights of `net`? What will Adam do with that?
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# Target and points carry a gradient, so the loss can also fall by moving the *target* towards the network, for example
# to the field that knows nothing. Everything that makes rows belongs under `no_grad`.
#
# ```python
# def interval_loss(net, eps, generator):
#     with torch.no_grad():
#         rows = interval_rows(net, eps, 8, 4, generator)
#     return squared_error(net, rows)
# ```
#
# </details>

# %% [markdown]
# ### 3. Other proposals, other weights · ●●○ · 15 min
#
# Estimate $m(a,t)$ from $K$ proposals that are *uniform* on the square. What is the weight now? The check asks for
# $t=0.9$, where this works well, and counts at $t=0.1$ how many of 1024 proposals still matter (the effective sample
# size $1/\sum_kw_k^2$). Return $\hat m$ of shape `(n, 2)` and the weights `(n, K)`.


# %% tags=["exercise", "raises-exception"]
def mean_from_uniform(a, t, K, generator):
    raise NotImplementedError


for t, most, fewest, highest in ((0.9, 0.056, 100, 500), (0.1, 0.05, 19, 27)):
    times = torch.full((2000, 1), t)
    a = path.noise(from_target, torch.randn(2000, 2, generator=rng(19)), times)
    m_hat, w = mean_from_uniform(a, times, 1024, rng(20))
    check(
        f"exercise 3: error of m at t = {t}",
        rms(m_hat - exact.posterior_mean(a, times, path)),
        below=most,
    )
    size = (1 / w.square().sum(-1)).mean()
    check(f"exercise 3: effective sample size at t = {t}", size, above=fewest, below=highest)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Target over proposal density, as in step 1. Which factor of the target cancelled there, and why does it stay now?
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# The likelihood no longer cancels. At small $t$ it is a narrow peak around $a/(1-t)$, which few uniform points hit. So
# each sort of proposals has its end of the path. The normal ones, cut to the box, become uniform by themselves at
# $t=1$.
#
# ```python
# def mean_from_uniform(a, t, K, generator):
#     z = 2 * torch.rand(len(a), K, 2, generator=generator) - 1
#     square = (a[:, None] - (1 - t[:, None]) * z).square().sum(-1)
#     w = torch.softmax(q(z) / alpha - square / (2 * t**2), -1)
#     return (w[..., None] * z).sum(-2), w
# ```
#
# </details>

# %% [markdown]
# ### 4. How greedy is best-of-N? · ●●○ · 20 min
#
# In chapter 09 the robot draws $N$ candidates and takes the best by $Q$. Compute the exact $E[Q]$ of the best of $N$
# draws from a `BoxBoltzmann` density, from the cell masses `p` and the values of $Q$ in the cells. No sampling.


# %% tags=["exercise", "raises-exception"]
def expected_best(values, p, N):
    raise NotImplementedError


grid_values = q(exact.grid).double()
off = abs(expected_best(grid_values, exact.p, 1) - exact_q)
check("exercise 4: N = 1 is E[Q]; error", off, below=1e-6)
many_draws = exact.sample(64_000, rng(8))
for N in (2, 8, 32):
    off = abs(expected_best(grid_values, exact.p, N) - q(best_of(many_draws, N, q)).mean())
    # 2000 groups or more; their standard error is below .003
    check(f"exercise 4: error for N = {N}", off, below=0.01)
off = abs(
    expected_best(torch.tensor([3.0, 0.0, 1.0]).double(), torch.tensor([0.5, 0.2, 0.3]).double(), 2)
    - 2.46
)
check("exercise 4: error for three cells, N = 2", off, below=1e-6)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Sort the cells by value. The best of $N$ is at most a given value when all $N$ are.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# If the cells of lower or equal value hold the mass $P_k$, the best of $N$ is among them with probability $P_k^N$, and
# it is cell $k$ with $P_k^N-P_{k-1}^N$. (Three cells: $P=0.2,\,0.5,\,1$; squares $0.04,\,0.25,\,1$; so
# $0.21\cdot1+0.75\cdot3=2.46$.) Taking the best is another way of lowering the temperature.
#
# ```python
# def expected_best(values, p, N):
#     order = values.argsort()
#     below = p[order].cumsum(0) ** N
#     mass = torch.diff(below, prepend=torch.zeros(1, dtype=p.dtype))
#     return float(mass @ values[order])
# ```
#
# </details>

# %% [markdown]
# ### 5. The bias, and a cure · ●●● · 40 min
#
# Write $\hat m=\sum_kW_kz_k/\sum_kW_k$ with independent unnormalised weights of mean 1, $W_k=Kw_k$ nearly. Derive the
# leading term of $E[\hat m]-m$ for large $K$. Estimate it from the same proposals, subtract it, and bring the result into
# the form $\sum_kw'_kz_k$. Return the new weights $w'$ from $w$, both `(n, K)`. The
# check has a case in which every expectation is a finite sum: $z=0$ or 1 with equal chance, $W\propto1$ or 4.


# %% tags=["exercise", "raises-exception"]
def without_bias(w):
    raise NotImplementedError


some_w = torch.softmax(3 * torch.randn(500, 16, generator=rng(21)), -1)
off = (without_bias(some_w).sum(-1) - 1).abs().max()
check("exercise 5: sum of the weights, minus 1", off, below=1e-4)


for K in (16, 64):
    left = coin_bias(K, without_bias) / coin_bias(K, lambda w: w)
    check(f"exercise 5: what is left of the bias, K = {K}", left, below=4 / K)

# %% [markdown]
# <details><summary>Hint</summary>
#
# $\hat m-m=\sum_kW_k(z_k-m)/\sum_kW_k$. The numerator has mean 0. Expand
# $1/\sum_kW_k\approx\frac1K\big(1-\frac1K\sum_j(W_j-1)\big)$, and ask which pairs $j,k$ are correlated.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# Only $j=k$: $E[\hat m]-m\approx-\frac1KE[W^2(z-m)]$, estimated by $-\sum_kw_k^2(z_k-\hat m)$. So
# $\hat m+\sum_kw_k^2(z_k-\hat m)=\sum_kw_k\big(1+w_k-\sum_jw_j^2\big)z_k$: heavy weights were not heavy enough. The new
# weights add up to 1 and stay positive, so the mean stays in the box.
#
# ```python
# def without_bias(w):
#     return w * (1 + w - w.square().sum(-1, keepdim=True))
# ```
#
# </details>

# %% [markdown]
# ### 6. An actor that looks at the state · ●●○ · 40 min
#
# Let the critic depend on a state. Here the state is a direction $s=(\cos\phi,\sin\phi)$, and the hill of $Q(s,a)$
# lies at $0.6\,s$. Train *one* network for all directions, at $\alpha=0.2$, and return a function of noise `(n, 2)` and
# states `(n, 2)` that gives actions in one step. 600 updates are enough.


# %% tags=["exercise", "raises-exception"]
def critic(state, a):
    return torch.exp(-(a - 0.6 * state).square().sum(-1) / (2 * 0.25**2))


def fit_states():
    raise NotImplementedError


policy = fit_states()
for phi in (0.3, 2.0, 4.5):
    state = torch.tensor([math.cos(phi), math.sin(phi)])
    there = BoxBoltzmann(lambda a, s=state: critic(s, a), 0.2)
    with torch.no_grad():
        actions = policy(test_noise, state.expand(4000, 2))
    off = 100 * abs(critic(state, actions).mean() / there.expectation(there.q) - 1)
    check(f"exercise 6: E[Q] in direction {phi}, per cent off", off, below=15)
    far = distance(actions, there.sample(4000, rng(22)))
    check(f"exercise 6: distance in direction {phi}", far, below=0.12)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Start from `fit_temperatures`. The state takes the place of `alpha.log()`. `instant_rows` calls $q$ with points of shape
# `(states, P, 2)`, so every state needs an axis for its $P$ proposals.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# Three lines differ from `fit_temperatures`: what is drawn, what the network is told, and which $Q$ is asked. For a
# robot, the states come from a replay buffer and the critic is learnt beside the actor.
#
# ```python
# def critic(state, a):
#     return torch.exp(-(a - 0.6 * state).square().sum(-1) / (2 * 0.25**2))
#
#
# def some_directions(count, generator):
#     phi = 2 * math.pi * torch.rand(count, 1, generator=generator)
#     return torch.cat([phi.cos(), phi.sin()], -1)
#
#
# def fit_states(updates=600, states=8, M=16, C=16, K=6, lines=32):
#     generator = rng(0)
#     net = fresh(SkipVelocityNet, cond_dim=2)
#     slow = copy.deepcopy(net).requires_grad_(False)
#     optimizer = torch.optim.Adam(net.parameters(), 8e-3, betas=(0.9, 0.99), fused=True)
#     schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
#
#     def given(u, state):
#         return lambda a, r, t: u(a, r, t, state)
#
#     for _ in range(updates):
#         with torch.no_grad():
#             state, other = some_directions(states, generator), some_directions(lines, generator)
#             eps = torch.randn(states * C, 2, generator=generator)
#             own = sample(in_box(given(slow, state.repeat_interleave(C, 0))), eps)
#             own = own.view(states, C, 2)
#             here = lambda z: critic(state[:, None], z)
#             instant = package.instant_rows(here, 0.2, own, M, K, generator)
#             eps = torch.randn(lines, 2, generator=generator)
#             interval = interval_rows(given(slow, other), eps, 8, 4, generator)
#         loss = squared_error(given(net, state.repeat_interleave(M, 0)), instant)
#         loss = loss + 2 * squared_error(given(net, other.repeat(4, 1)), interval)
#         optimizer.zero_grad()
#         loss.backward()
#         torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
#         optimizer.step()
#         schedule.step()
#         for old, new in zip(slow.parameters(), net.parameters(), strict=True):
#             old.lerp_(new.detach(), 0.02)
#     return lambda eps, state: sample(in_box(given(slow, state)), eps)
# ```
#
# </details>

# %% [markdown]
# ## Summary
#
# * $Q\to e^{Q/\alpha}\to\hat m\to\hat v=(a-\hat m)/t\to u\to a_0=\varepsilon-u(\varepsilon,0,1)$: a one-step sampler of
#   the Boltzmann density, from values of $Q$ alone.
# * The target of a row is right at *any* point $a$. The law of the points decides where the network is accurate, not what
#   it learns.
# * The identity carries the noise of $\hat v$ through the Jacobian of the flow map: small on average, with a heavy tail at
#   low temperatures.
# * Flow lines of a slow copy give the average velocity by its definition. $a-t\,u$ is an average of posterior means and
#   stays in the box.
# * A fast time embedding makes one step lag, the power 1 starves the rows that matter, few proposals blur.
# * Judge a sampler by the distance to the exact density and its floor; without an exact density, by its diagnosis.
# * A score of fixed length makes a climber. A temperature protects against thin errors of $Q$; greed seeks them.

# %% [markdown]
# ## References
#
# * Kim, Ki, Ahn, Lee: *Score-Based One-step MeanFlow Policy Optimization*,
#   [2605.23365](https://arxiv.org/abs/2605.23365). SOM: MeanFlow fed from $Q$ through a score.
# * Geng, Deng, Bai, Kolter, He: *Mean Flows for One-step Generative Modeling*,
#   [2505.13447](https://arxiv.org/abs/2505.13447). The identity.
# * Guo and others: *SplitMeanFlow*, [2507.16884](https://arxiv.org/abs/2507.16884).
# * Karras, Aittala, Aila, Laine: *Elucidating the Design Space of Diffusion-Based Generative Models*,
#   [2206.00364](https://arxiv.org/abs/2206.00364). Preconditioning.
# * Ma and others: *Efficient Online Reinforcement Learning for Diffusion Policy*,
#   [2502.00361](https://arxiv.org/abs/2502.00361). SDAC: the posterior-mean estimate in an actor.
# * Akhound-Sadegh and others: *Iterated Denoising Energy Matching for Sampling from Boltzmann Densities*,
#   [2402.06121](https://arxiv.org/abs/2402.06121).
# * MFPO, [2604.14698](https://arxiv.org/abs/2604.14698). The nearest relative of SOM.
# * Veach, Guibas: *Optimally Combining Sampling Techniques for Monte Carlo Rendering*, SIGGRAPH 1995. The balance
#   heuristic.
#
# ---
#
# Previous: [05 · The probability-flow ODE](05_probability_flow_ode.ipynb). Next:
# [07 · The critic](07_the_critic.ipynb).
