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
# **What you will do.** You join the last four chapters. From a function $Q$ alone you build a density, its noised
# score, a velocity, a MeanFlow target, and at the end a network that turns noise into samples of $\exp(Q/\alpha)$
# in a single step. It never sees a sample of that density. You build it twice: first in the plain way, which is
# disappointing, and then piece by piece until it is sharp.
#
# **What you will learn.** Why the points at which a network is trained need not come from the target. Why the
# MeanFlow identity magnifies noise, and by how much. How to precondition a velocity network. How to get average
# velocities without any derivative. How to tell a sampler that is too sharp from one that is good. What a score of
# fixed length does to the density. What a sampler makes of a critic that is wrong.
#
# **What you need.** Chapter 02 (the average velocity and its identity), 03 (Boltzmann densities), 04 (the estimate
# of the posterior mean) and 05 (velocity from score). Each piece is recalled in a line.
#
# **Time and hardware.** ≈ 60 s on one CPU core, nearly all of it for fourteen short trainings. No GPU.
#
# Previous: [05 · The probability-flow ODE](05_probability_flow_ode.ipynb). Next:
# [09 · SOM on MuJoCo](09_som_on_mujoco.ipynb).

# %% [markdown]
# ## The idea in one picture
#
# ### A recap on half a page
#
# **The critic.** $Q(a)$ says how good the action $a$ is. In this chapter an action is a point of the square
# $[-1,1]^2$, and $Q$ is a landscape of three hills that we may evaluate wherever we like. (A robot's $Q$ also
# depends on its state $s$. That comes at the end of the chapter.)
#
# **The policy we want** is the Boltzmann density of $Q$ on the square (chapter 03),
#
# $$p_0(a)\propto\exp\big(Q(a)/\alpha\big),$$
#
# with the *temperature* $\alpha>0$. A low temperature keeps to the tops of the hills, a high one visits
# everything.
#
# **The path** is the linear one: $a_t=(1-t)\,a_0+t\,\varepsilon$ with $a_0\sim p_0$ and normal noise
# $\varepsilon$. Time $t=0$ is the action, $t=1$ is noise. $p_t$ is the density of $a_t$, and
# $s(a,t)=\nabla_a\log p_t(a)$ its score.
#
# **The posterior mean** $m(a,t)=E[a_0\mid a_t=a]$ is the best guess of the action behind a noised point (chapter
# 04). **The velocity** $v(a,t)=E[\varepsilon-a_0\mid a_t=a]$ carries $p_t$ along: its flow lines lead from noise
# to samples of $p_0$ (chapter 05). **The average velocity** $u(a,r,t)$ is the mean of $v$ along a flow line from
# time $t$ down to $r$, and one step along it is exact (chapter 02): $a_0=\varepsilon-u(\varepsilon,0,1)$.
#
# **The exact answers.** In two dimensions all integrals can be done by brute force: cut the square into small cells
# and add up. `BoxBoltzmann` does so. It will judge everything in this chapter, and nothing that is trained will
# see it.

# %%
import copy
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import ot
import torch
from IPython.display import display
from matplotlib.lines import Line2D

from som_lite.flow.boltzmann import BoxBoltzmann, Bumps, four_bumps, three_bumps
from som_lite.flow.intervals import T_MIN, Rows
from som_lite.flow.meanflow import average_velocity, meanflow_loss, sample, sample_times
from som_lite.flow.nets import AverageVelocityNet
from som_lite.flow.ode import heun_step, solve
from som_lite.flow.paths import VP, Linear
from som_lite.flow.scores import (
    box_proposals,
    posterior_mean_estimate,
    shared_posterior_mean_estimate,
)
from som_lite.view import plots
from som_lite.view.explorers import one_step_explorer
from som_lite.view.notebook import check, listing, show
from som_lite.view.style import COLOURS, MARKERS, figure, plane

torch.set_num_threads(1)  # small nets: more threads cost more than they bring

path, alpha = Linear(), 0.15
q = Bumps(three_bumps().centres, torch.tensor([0.3, 0.2, 0.2]), torch.tensor([1.0, 0.97, 0.93]))
exact = BoxBoltzmann(q, alpha)
nearest = torch.cdist(exact.grid, q.centres).argmin(-1)
true_shares = torch.bincount(nearest, weights=exact.p)


def shares(x):
    """The share of the points x that is nearest to each of the three hills."""
    return torch.bincount(torch.cdist(x, q.centres).argmin(-1), minlength=3) / len(x)


exact_q = exact.expectation(q)
print(f"E[Q] of uniform actions {q(exact.grid).mean():.4f}, of the Boltzmann density {exact_q:.4f}")
print("shares of the three hills", *(f"{x:.4f}" for x in true_shares))

# %% [markdown]
# ### The picture
#
# The whole construction is one chain:
#
# $$Q\;\longrightarrow\;e^{Q/\alpha}\;\longrightarrow\;m(a,t)\;\longrightarrow\;v=\frac{a-m}{t}\;\longrightarrow\;u
# \;\longrightarrow\;a_0=\varepsilon-u(\varepsilon,0,1).$$
#
# For the picture each link is computed exactly. The last one follows the velocity in forty small steps. (At $t=0$
# it would divide by zero, so it stops at $t=0.02$, where noise is no longer visible, and takes $m$ from there.)

# %%
coarse = BoxBoltzmann(q, alpha, cells=101)  # faster, and fine enough above t = .02


def exact_flow(eps, steps=40):
    """Where the exact flow takes the noise."""
    a = solve(lambda a, t: coarse.velocity(a, t, path), eps, 1.0, 0.02, steps, heun_step)
    return coarse.posterior_mean(a, 0.02, path)


test_noise = torch.randn(4000, 2, generator=torch.Generator().manual_seed(1))
flown = exact_flow(test_noise[:1000])
check(
    "E[Q] along the exact flow, error in per cent",
    100 * abs(q(flown).mean() / exact_q - 1),
    below=3,
)
check("error of the shares", (shares(flown) - true_shares).abs().max(), below=0.04)

# %%
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
# **What you should see.** Top: a hill of $Q$ becomes a spot of the density, and the slopes between hills become
# nearly empty. Bottom left: at half noise the three spots have melted into one blob, and the arrows of $-v$ lead
# into its middle first. Bottom right: the arrows of $-u$ know where each point will end, one spot or another.
#
# The difficulty of this chapter is panel 4. Nobody gives us those arrows. We may ask for $Q$ at points of our
# choice, and that is all.

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
# This is the estimate of chapter 04. The velocity follows because on the linear path
# $\varepsilon-a_0=(a_t-a_0)/t$. The score, which other paths need, is $s=\big((1-t)\,m-a\big)/t^2$, and
# $v=-(a+t\,s)/(1-t)$ is the same thing (chapter 05).
#
# We check both forms of $v$ against each other, the score against differences of $\log p_t$, and the estimate
# against quadrature: sixteen times the proposals should quarter its error.


# %%
def estimated_mean(a, t, K, generator):
    a0 = box_proposals(a, t, path, K, generator)  # (n, K, 2): no sample of p_0 anywhere
    w = torch.softmax(q(a0) / alpha, -1)
    return (w[..., None] * a0).sum(-2)


def rms(difference):
    """The root mean square length of the rows."""
    return difference.square().sum(-1).mean().sqrt()


generator = torch.Generator().manual_seed(2)
anywhere = 2 * torch.rand(2000, 2, generator=generator) - 1
t = 0.1 + 0.85 * torch.rand(2000, 1, generator=generator)
a = path.noise(anywhere, torch.randn(2000, 2, generator=generator), t)
m, score = exact.posterior_mean(a, t, path), exact.noised_score(a, t, path)

check("v from m against v from s", rms((a - m) / t + (a + t * score) / (1 - t)), below=1e-4)
wide, h = a[:50].double(), torch.tensor([1e-4, 0.0])
ahead, behind = (exact.noised_log_prob(wide + d, t[:50].double(), path) for d in (h, -h))
# the difference quotient is off by h^2, about 1e-8, times a third derivative of up to 1e4
check(
    "score against differences", (score[:50, 0] - (ahead - behind) / 2e-4).abs().max(), below=1e-2
)
few, many = (rms(estimated_mean(a, t, K, generator) - m) for K in (64, 1024))
check("error of m with K = 64 over that with K = 1024", few / many, above=3, below=5)

# %% [markdown]
# ### Step 2: where do the training points come from?
#
# Did you notice the points in that cell? They were not noised samples of $p_0$, of which we have none. They were
# noised *uniform* points of the square. This is allowed, and it is the step that people stumble over: *surely a
# flow must be trained on its own path?*
#
# No. In chapter 02, with data, a row $(a_0,\varepsilon)$ had two jobs: it said *where* to train, at
# $a_t$, and *what* to learn there, $\varepsilon-a_0$. The second only works when $a_0$ comes from $p_0$. Here the
# jobs are apart. The target $\hat v(a,t)$ is made from $Q$ at the point $a$, whatever $a$ is. The law of the
# points only says where the network should be accurate. It should cover the places that the sampler visits, and
# that is all.
#
# The check: take places from two laws, noised uniform points and noised samples of $p_0$. The error of
# $\hat v$ is of the same size for both.

# %%
t_half = torch.full((2000, 1), 0.5)
from_target = exact.sample(2000, generator)
errors = []
for a0 in (anywhere, from_target):
    a_half = path.noise(a0, torch.randn(2000, 2, generator=generator), t_half)
    estimate = estimated_mean(a_half, t_half, 64, generator)
    errors.append(rms(estimate - exact.posterior_mean(a_half, t_half, path)) / 0.5)
check(
    "error of v, noised uniform points over noised samples",
    errors[0] / errors[1],
    above=0.7,
    below=1.4,
)

# %% [markdown]
# ### Step 3: what the identity does to the noise of $\hat v$
#
# The MeanFlow identity (chapter 02) turns a velocity into a target for $u$:
#
# $$u_{\text{tgt}}=v-(t-r)\,\big(v\cdot\partial_a u+\partial_t u\big).$$
#
# It is linear in $v$, so zero-mean noise in $\hat v$ leaves the mean of the target alone. But what happens to its
# size? Collect what multiplies $v$: it is the matrix $J=I-(t-r)\,\partial_a u$. Now recall the jump,
# $a_r=a-(t-r)\,u(a,r,t)$, and differentiate it in $a$:
#
# $$J=I-(t-r)\,\partial_a u=\frac{\partial a_r}{\partial a}.$$
#
# **The noise of the target is the noise of the velocity, carried by the flow from $t$ to $r$.** Where the flow map
# is gentle, nothing happens. On the border between two hills, neighbours part and end far from each other: there
# the map stretches, and the noise with it. The lower the temperature, the sharper the border.
#
# We compute $J$ for the exact $u$, from noise to $r=0.05$, along a random direction at each of 400 noise points.
# First by the JVP of $u$, and then by moving the point a little and following both flow lines. The stretch of a
# direction is the length of $J$ times a unit vector.

# %%
g = torch.Generator().manual_seed(3)
noise64 = torch.randn(400, 2, generator=g, dtype=torch.float64)
direction = torch.nn.functional.normalize(
    torch.randn(400, 2, generator=g, dtype=torch.float64), dim=-1
)
t1 = torch.ones(400, 1, dtype=torch.float64)
r1 = 0.05 * t1


def stretch(target):
    """J times the direction, from the derivative of the exact u."""

    def u(a):
        return average_velocity(lambda a, t: target.velocity(a, t, path), a, r1, t1, steps=24)

    return direction - 0.95 * torch.func.jvp(u, (noise64,), (direction,))[1]


def follow(target, a):
    return solve(lambda a, t: target.velocity(a, t, path), a, 1.0, 0.05, 48, heun_step)


stretched = {x: stretch(BoxBoltzmann(q, x, cells=81)).norm(dim=-1) for x in (0.6, 0.15, 0.05)}
target = BoxBoltzmann(q, 0.6, cells=81)
moved = (
    follow(target, noise64 + 1e-4 * direction) - follow(target, noise64 - 1e-4 * direction)
) / 2e-4
# two solvers with some 1e-3 of error each; the stretch itself is about 1
check("J by the derivative against J by moving", rms(stretch(target) - moved), below=0.02)
for x, lengths in stretched.items():
    mean, largest = lengths.mean(), lengths.max()
    print(
        f"alpha = {x:<5g} stretch: mean {mean:.3f}, largest {largest:5.2f}, ratio {largest / mean:4.1f}"
    )

# %% [markdown]
# The *mean* is harmless: it is below one, since the flow presses a broad cloud of noise into small hills, and it falls
# with the temperature. The *largest* does the opposite. At $\alpha=0.6$ it is about twice the mean, at $\alpha=0.05$
# over forty times. The loss squares these factors. So the noise of the target has a heavy tail: a few rows, on the
# border, hold most of it. And this is the derivative of the *exact* $u$. In training it is that of a half-trained
# network. The identity is a good target for a gentle flow. It becomes a lottery as the hills get steeper.
#
# ### Step 4: the average velocity by its definition
#
# There is a more direct target. Chapter 02 used it only as a yardstick. Follow the flow line from $a_t$ down to $a_r$
# and divide:
#
# $$u(a_t,r,t)=\frac{a_t-a_r}{t-r}.$$
#
# In chapter 02 that seemed pointless: why train what you can compute? Because computing takes many steps and the
# trained network one. But whose flow line? Following $\hat v$ would need fresh proposals at every step. We follow
# the *network's own* velocity, $u_\theta(a,t,t)$. In it the Monte-Carlo noise has been averaged away by the
# regression at $r=t$. So the work is split: rows with $r=t$ bring in the truth from $Q$, and lines of the network
# carry it to longer intervals. No derivative, no magnified noise.
#
# **A bound that comes for free.** Along a flow line, differentiate $a_\tau/\tau$:
#
# $$\frac{d}{d\tau}\,\frac{a_\tau}{\tau}=\frac{\tau v-a_\tau}{\tau^2}=-\frac{m(a_\tau,\tau)}{\tau^2}.$$
#
# Integrate from $r$ to $t$, and solve for $a_t-t\,u$:
#
# $$a_t-t\,u(a_t,r,t)=\frac{\displaystyle\int_r^t m(a_\tau,\tau)\,\tau^{-2}\,d\tau}
# {\displaystyle\int_r^t\tau^{-2}\,d\tau}.$$
#
# So $a_t-t\,u$ is an *average of posterior means*. Every posterior mean lies in the square, hence so does this
# average. Whatever a network says, we may move its $a-t\,u$ to the nearest point of the square and cannot make it
# worse.


# %%
def in_box(u):
    def projected(a, r, t):
        return (a - (a - t * u(a, r, t)).clamp(-1, 1)) / t.clamp(min=T_MIN)

    return projected


# %% [markdown]
# (`T_MIN`, which is 0.003, keeps the division finite; noise of this size blurs nothing.)
#
# **A step that respects the bound.** The same equation tells how to take a good solver step. If $m$ does not change between $t$ and $r$,
# then exactly $a_r=\frac rt\,a_t+\big(1-\frac rt\big)\,m$. So average the *posterior means* at both ends of a
# trial step, not the velocities:
#
# $$a_r=\tfrac rt\,a_t+\big(1-\tfrac rt\big)\,\tfrac12\,(m_t+m_r).$$
#
# With $m=a-t\,v$ this becomes the function below. A step to $r=0$ is an Euler step and lands on $m$.


# %%
def mean_heun_step(velocity, a, t, r):
    v0 = velocity(a, t)
    v1 = velocity(a - (t - r) * v0, r)
    late = r / (2 * t)
    return a - (t - r) * ((1 - late) * v0 + late * v1)


def flow_line(velocity, eps, times):
    points, ones = [eps], torch.ones_like(eps[:, :1])
    for t, r in pairwise(times):
        points.append(mean_heun_step(velocity, points[-1], t * ones, r * ones))
    return torch.stack(points)


# %% [markdown]
# Two checks with the exact velocity. First the average of posterior means: on a grid of times that is even in
# $1/\tau$ the weight $\tau^{-2}d\tau$ is constant, so that a plain mean will do.

# %%
start = test_noise[:1000]
line_times = 1 / torch.linspace(1, 20, 200)  # from 1 to .05, even in 1/tau
line = flow_line(lambda a, t: exact.velocity(a, t, path), start[:100], line_times)
means = torch.stack(
    [exact.posterior_mean(x, float(tau), path) for x, tau in zip(line, line_times, strict=True)]
)
average = (means[1:] + means[:-1]).mean(0) / 2  # trapezoid rule: its error is of order 1 / 200^2
u_line = (line[0] - line[-1]) / 0.95
check(
    "a - t u against the average of posterior means",
    rms(start[:100] - u_line - average),
    below=2e-3,
)

# %% [markdown]
# Then the solver. In the training below a line has eight steps, at the squares of an even grid: dense near the data,
# where flow lines bend. How good is it with so few? We compare with the textbook Heun step, which averages
# velocities, and look at two things: how far the ends are from the true ends, and what $E[Q]$ they have.


# %%
def textbook_heun_step(velocity, a, t, r):
    v0 = velocity(a, t)
    return a - (t - r) / 2 * (v0 + velocity(a - (t - r) * v0, r))


def ends(step, steps):
    times = (torch.arange(steps, 0, -1) / steps).square()
    a, one = start, torch.ones(len(start), 1)
    for t, r in pairwise(times):
        a = step(lambda a, t: exact.velocity(a, t, path), a, t * one, r * one)
    return exact.posterior_mean(a, times[-1] * one, path)  # the last step, to r = 0


fine, ours, textbook = (
    ends(mean_heun_step, 40),
    ends(mean_heun_step, 8),
    ends(textbook_heun_step, 8),
)
for name, x in (("mean-Heun", ours), ("textbook Heun", textbook)):
    off = 100 * (q(x).mean() / q(fine).mean() - 1)
    print(f"{name:<14} ends off by {rms(x - fine):.4f}, E[Q] off by {off:+.2f} %")

# %% [markdown]
# A surprise worth a pause. Point by point the textbook step is the *better* solver: its ends are nearer. But its
# errors pull together, down from the hilltops, and cost two per cent of $E[Q]$. Those of the mean-Heun step are larger,
# and yet they move $E[Q]$ by less than half of that. We want a sampler, so we care for the cloud and not for the point.
# (With more steps both errors vanish.)
#
# ### Step 5: a network that knows the trivial part
#
# Last, the network. Along the path the velocity changes its nature. At $t=1$ it is $a$ minus a constant (chapter 05,
# step 6). On the way down its slope in $a$ grows, around a hill about like $1/t$, until the noise is as small as the
# hill is wide. At $t=0$ it is $-a$. A plain MLP has to learn all this besides $Q$. Better to build the trivial part in.
#
# Take the simplest data: a normal density $\mathcal N(0,\varsigma^2I)$. Then $a_t$ is normal with variance
# $V=(1-t)^2\varsigma^2+t^2$ in each coordinate, and its velocity is linear (chapter 02, exercise 1):
#
# $$v_G(a,t)=\frac{\dot V}{2V}\,a=\frac{t-(1-t)\,\varsigma^2}{V}\,a .$$
#
# What is left over for a pair $(a_0,\varepsilon)$ is $\varepsilon-a_0-v_G$. How large is that? $v_G$ is the
# conditional mean, so the variances subtract:
#
# $$\mathrm{Var}[\varepsilon-a_0]-\mathrm{Var}[v_G]=(1+\varsigma^2)-\frac{\big(t-(1-t)\,\varsigma^2\big)^2}{V}
# =\frac{\varsigma^2}{V}.$$
#
# (Multiply out: everything but $\varsigma^2$ cancels in the numerator.) So let the MLP $F$ see an input of unit size
# and give an answer of unit size:
#
# $$u_\theta(a,r,t)=v_G(a,t)+\frac{\varsigma}{\sqrt V}\,F_\theta\Big(\frac a{\sqrt V},\,r,\,t\Big).$$
#
# In code the same with the factors collected: $y=a/\sqrt V$, $c=t-(1-t)\,\varsigma^2$, and
# $u_\theta=(c\,y+\varsigma F_\theta(y,r,t))/\sqrt V$.
#
# This is the preconditioning that Karras and others (2206.00364) worked out for denoisers, for a velocity. At the
# start of the training $F\approx0$, and $u$ is the velocity of a normal density; $F$ learns the difference. (Many steps
# draw that normal density already. One step does not: $v_G(\varepsilon,1)=\varepsilon$, so it lands at 0, on the mean,
# like Euler's step in chapter 02.) We take $\varsigma=\tfrac12$, roughly the spread of actions in a box. It need not be
# exact.

# %%
g = torch.Generator().manual_seed(4)
sizes = {"normal data": [], "the three hills": []}
for name, a0 in (
    ("normal data", 0.5 * torch.randn(20_000, 2, generator=g)),
    ("the three hills", exact.sample(20_000, g)),
):
    for tau in (0.05, 0.3, 0.6, 0.95):
        eps = torch.randn(20_000, 2, generator=g)
        variance = ((1 - tau) * 0.5) ** 2 + tau**2
        v_gauss = (tau - (1 - tau) * 0.5**2) / variance * path.noise(a0, eps, tau)
        left_over = (eps - a0 - v_gauss) * variance**0.5 / 0.5
        sizes[name].append(left_over.square().mean().sqrt().item())
# normal data: 40 000 numbers with mean square 1, standard error .004
check(
    "size of F's target, normal data, from 1",
    np.abs(np.array(sizes["normal data"]) - 1).max(),
    below=0.02,
)
check("size of F's target, the hills, smallest", min(sizes["the three hills"]), above=0.7)
check("size of F's target, the hills, largest", max(sizes["the three hills"]), below=1.3)


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
# ## Code
#
# ### A judge
#
# Before we train anything, we fix how it will be judged. `judge` takes an average velocity $u$ and draws 4000
# points from it in 1, 2 and 20 steps. It returns, for each,
#
# * $E[Q]$ in per cent off the exact value: negative is too blurred, positive is too sharp;
# * the largest error of the three shares (4000 draws: standard deviation 0.008);
# * the sliced Wasserstein distance to exact samples. Two sets of exact samples are not at distance zero either.
#   Their distance is the *floor*.

# %%
truths = [exact.sample(4000, torch.Generator().manual_seed(10 + k)) for k in range(4)]
COUNTS = (1, 2, 20)


def distance(x, y):
    return ot.sliced_wasserstein_distance(x.numpy(), y.numpy(), n_projections=64, seed=0, p=2)


def to_truth(x):
    return np.mean([distance(x, y) for y in truths])


floor = np.mean([distance(x, y) for x, y in pairwise(truths)])


@torch.no_grad()
def judge(u):
    """Rows for 1, 2, 20 steps: E[Q] in per cent off, largest error of a share, distance."""
    rows = []
    for steps in COUNTS:
        x = sample(u, test_noise, steps)
        off = 100 * (q(x).mean() / exact_q - 1)
        rows.append([off, (shares(x) - true_shares).abs().max(), to_truth(x)])
    return np.array(rows)


# %% [markdown]
# Would $E[Q]$ alone be judge enough? Let us try samplers that are *exact*, but at a wrong temperature. Half the
# temperature gives a higher $E[Q]$ than the right one. Someone who only looks at $E[Q]$ would call it an improvement.

# %%
for name, x in (("half the temperature", alpha / 2), ("right", alpha), ("twice", 2 * alpha)):
    other = BoxBoltzmann(q, x)
    off = 100 * (other.expectation(q) / exact_q - 1)
    x = other.sample(4000, torch.Generator().manual_seed(20))
    ratio = to_truth(x) / floor
    print(f"{name:<22} E[Q] off by {off:+6.2f} %, distance {ratio:4.1f} times the floor")

# %% [markdown]
# **Too sharp is as wrong as too blurred.** The distance says so, with nearly the same penalty for both. Keep these
# three lines as a yardstick for what follows.
#
# ### The plain version
#
# Now the construction as it stands after step 3, from parts that you know: uniform points, noise, the posterior
# mean from $K$ proposals, $\hat v=(a-\hat m)/t$, and the MeanFlow loss with its JVP. This is the recipe of SOM: the
# velocity comes from $Q$, and MeanFlow does the rest. (The paper's variants, another path, the gradient estimator
# and a score of fixed length, are the subject of chapters 04, 05 and the end of our Checks.)
#
# The arguments are what we will vary. `dense` squares both times, so that more of them are near the data, where
# the velocity changes fastest. `data` replaces the velocity from $Q$ by that of a pair $(a_0,\varepsilon)$ with
# exact samples $a_0$: ordinary MeanFlow, our reference.


# %%
def fresh(kind, **settings):
    """A network with seeded initial weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind(2, **settings)


def fit_identity(
    net, alpha=alpha, *, p=0.0, dense=False, share_equal=0.25, K=64, data=None, updates=600
):
    """Train u by the MeanFlow identity, with the velocity from q (or, with data, from pairs)."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3, fused=True)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    for _ in range(updates):
        t_min = T_MIN**0.5 if dense else 0.02
        r, t = sample_times(128, generator, share_equal=share_equal, t_min=t_min)
        r, t = (r.square(), t.square()) if dense else (r, t)
        a0, eps = (
            2 * torch.rand(128, 2, generator=generator) - 1,
            torch.randn(128, 2, generator=generator),
        )
        if data is None:
            a = path.noise(a0, eps, t)
            m = posterior_mean_estimate(q, a, t, path, alpha, K, generator).m
            v = path.velocity_from_mean(m, a, t)
        else:
            a0 = data.sample(128, generator)
            a, v = path.noise(a0, eps, t), eps - a0
        loss = meanflow_loss(net, a, r, t, v, p, 0.01)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    return net


# %% [markdown]
# With which settings? A reader who comes from image generation brings two: sines and cosines of *several octaves*
# to embed the time, and the loss weight $1/(\text{error}+c)^p$ with $p=1$. We start there.

# %%
results = {}
image_net = fit_identity(fresh(AverageVelocityNet, octaves=4), p=1.0)
results["as for images"] = judge(image_net)
off, share, far = results["as for images"].T
check("E[Q] of one step, per cent off", off[0], below=-20)
check("distance of one step over that of two", far[0] / far[1], above=1.3)

# %% [markdown]
# $E[Q]$ is far too low. And something else shows: one step is much further from the truth than two steps of the
# *same* network. **The one-step map lags behind.** Why?
#
# Look at the order in which things are learnt. At $r=t$ the target is $\hat v$, the truth. Over a short interval it
# is $\hat v$ plus a small correction. Over the longest interval, $(0,1)$, the correction is as large as the answer,
# and it consists of the network's own derivatives. So the truth enters at $r=t$ and has to travel to $(0,1)$, and
# whatever spoils the derivatives spoils $(0,1)$ first. Two things do:
#
# * a fast time feature. The derivative of $\sin4\pi t$ reaches $4\pi$; the target contains $\partial_tu_\theta$
#   (chapter 02, exercise 5);
# * the weight with $p=1$. Velocities from $Q$ are nearly exact in easy regions. Errors there are tiny, so the
#   weight of those rows is huge, and the rows that matter get none.
#
# So: one octave, and the plain squared error.

# %%
smooth_net = fit_identity(fresh(AverageVelocityNet))
results["smooth, squared error"] = judge(smooth_net)
check(
    "distance of one step over that of two",
    results["smooth, squared error"][0, 2] / results["smooth, squared error"][1, 2],
    below=1.2,
)

# %% [markdown]
# One step has caught up with two. What is left is blur, in all three: the velocity itself is not good enough. Next
# the preconditioned network of step 5. Then, with it, times that are denser near the data: there the density has its
# fine detail.

# %%
skip_net = fit_identity(fresh(SkipVelocityNet))
results["preconditioned net"] = judge(skip_net)
dense_net = fit_identity(fresh(SkipVelocityNet), dense=True)
results["times near the data"] = judge(dense_net)


# %% [markdown]
# ### Flow lines instead of the identity
#
# From here on two networks are at work. `net` is trained. `slow` is the running mean of its weights over the last
# updates: a calmer copy. It draws flow lines (step 4), and it is what we keep in the end.
#
# A line runs from noise to data in `steps` solver steps. Any two of its points give a row
# $\big(a_t,\,r,\,t,\,(a_t-a_r)/(t-r)\big)$. One line thus yields many rows. One of them is always the longest, from
# 1 to 0: the one we want in the end. The times are shifted at random, so that no time is special. `Rows` is a
# tuple of the four columns `a`, `r`, `t`, `u`.


# %%
def falling_times(steps, generator):
    shift = torch.rand((), generator=generator) - 0.5
    inner = ((torch.arange(steps - 1, 0, -1) + shift) / steps).square()
    return torch.cat([torch.ones(1), inner, torch.zeros(1)])


def interval_rows(u, eps, steps, pairs, generator):
    times = falling_times(steps, generator)
    line = flow_line(lambda a, t: in_box(u)(a, t, t), eps, times)
    start = torch.randint(steps, (pairs, len(eps)), generator=generator)
    length = 1 + (torch.rand(pairs, len(eps), generator=generator) * (steps - start)).long()
    end = start + length
    start[0], end[0] = 0, steps
    which = torch.arange(len(eps))
    a, a_r = line[start, which].flatten(0, 1), line[end, which].flatten(0, 1)
    t, r = times[start].reshape(-1, 1), times[end].reshape(-1, 1)
    return Rows(a, r, t, (a - a_r) / (t - r))


# %% [markdown]
# A test before any training: hand it the *exact* velocity. Its rows must hold the exact average velocity, up to the
# error of eight solver steps. And as in chapter 02, a fixed-point test: for the row from 1 to 0 a jump must end where
# the exact flow ends.

# %%
rows = interval_rows(
    lambda a, r, t: exact.velocity(a, t.clamp(min=0.01), path), test_noise[:500], 8, 4, generator
)
jumped = rows.a[:500] - rows.u[:500]  # the first 500 rows: from 1 to 0
check("jump from 1 to 0 against the exact flow", rms(jumped - flown[:500]), below=0.1)
check("largest coordinate of any a - t u", (rows.a - rows.t * rows.u).abs().max(), below=1.0001)

# %% [markdown]
# ### Rows with $r=t$, and the model's own samples as proposals
#
# These rows bring in the truth: $u=\hat v=(a-\hat m)/t$. Two refinements.
#
# *Where to train.* Half the points come from noising uniform points, half from noising the model's own samples. The
# first half makes sure that no hill is forgotten, the second spends effort where the sampler lives. Times are squares
# of uniform ones, dense near the data, as before.
#
# *What to propose.* Near $t=1$ a point $a$ says little about $a_0$, and the proposals spread over the whole square.
# In two dimensions 64 of them still hit every hill. In six dimensions they hardly ever do. But the model, once it has
# begun to learn, knows where the hills are. So half of the proposals are the model's own samples, each blurred a
# little (end of chapter 04). A proposal $z$ is now drawn from a mixture of two densities, and its weight is target over
# mixture, the *balance heuristic*:
#
# $$w(z)\;\propto\;\frac{e^{Q(z)/\alpha}\;\mathcal N\big(a;\,(1-t)\,z,\,t^2I\big)}
# {K\,q_{\text{box}}(z)+C\,q_{\text{own}}(z)} .$$
#
# With these weights the limit is right *whatever* the model proposes. A bad model wastes its proposals; it cannot
# bend the answer. Here is the function as installed:

# %%
listing(
    shared_posterior_mean_estimate,
    {
        "[box_proposals(a, t, path, K, generator)": "Two sorts of candidates: $K$ from the normal "
        "density cut to the box, and the $C$ own samples, blurred.",
        "log_own = ": "The density of the blurred samples is a sum of small normal densities, one around each.",
        "log_proposal = ": "The mixture, in logarithms: $\\log(K q_{\\text{box}}+C q_{\\text{own}})$.",
        "w = (q(z) / alpha": "Target over mixture. The softmax makes the weights add up to one.",
    },
)

# %% [markdown]
# The check is malicious: all own samples sit on one hill. The estimate must not lean towards it.

# %%
t_late = torch.full((2000, 1), 0.9)
a_late = path.noise(from_target, torch.randn(2000, 2, generator=generator), t_late)
partial_view = (q.centres[1] + 0.05 * torch.randn(2000, 32, 2, generator=generator)).clamp(-1, 1)
leaning = shared_posterior_mean_estimate(
    q, a_late, t_late, path, alpha, 256, generator, partial_view
)
truth = exact.posterior_mean(a_late, t_late, path)
# the mean over 2000 rows: their standard error is .003, the bias of 256 proposals of the same order
check("bias towards the hill of the own samples", (leaning.m - truth).mean(0).norm(), below=0.015)


# %%
def instant_rows(q, alpha, own, K, generator):
    n, path = len(own), Linear()
    uniform = 2 * torch.rand(own.shape, generator=generator) - 1
    a0 = torch.where(torch.arange(n)[:, None] % 2 == 0, own, uniform)
    t = torch.rand(n, 1, generator=generator).square().clamp(min=T_MIN)
    a = path.noise(a0, torch.randn(own.shape, generator=generator), t)
    some = own[torch.randint(n, (n, K // 2), generator=generator)]
    m = shared_posterior_mean_estimate(q, a, t, path, alpha, K - K // 2, generator, some).m
    return Rows(a, t, t, path.velocity_from_mean(m, a, t))


# %% [markdown]
# ### The sampler
#
# Now everything is on the table. One update:
#
# 1. the slow copy makes own samples, in one step;
# 2. `instant_rows` around them, and around uniform points: the truth, from $Q$;
# 3. `interval_rows`: flow lines of the slow copy;
# 4. the plain squared error on both, one step of Adam, and the slow copy follows.
#
# The step size falls along a half cosine to zero. So the noise of the estimates is averaged out in the end.


# %%
def squared_error(u, rows):
    return (u(rows.a, rows.r, rows.t) - rows.u).square().sum(-1).mean()


class OneStepSampler:
    def __init__(self, net, dim, seed=0):
        self.net, self.dim = net, dim
        self.generator = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def sample(self, n, steps=1):
        eps = torch.randn(n, self.dim, generator=self.generator)
        return sample(in_box(self.net), eps, steps)


def fit_one_step_sampler(
    q,
    dim,
    alpha,
    seed=0,
    *,
    updates=4000,
    batch=256,
    K=64,
    lines=64,
    steps=8,
    pairs=4,
    interval_weight=2.0,
    learning_rate=5e-3,
    memory=0.99,
    hidden=(128, 128, 128),
):
    for name, value, least in (("dim", dim, 1), ("K", K, 2), ("updates", updates, 1)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if alpha <= 0:
        raise ValueError(f"alpha, the temperature, must be above 0, got {alpha}")
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = SkipVelocityNet(dim, hidden=hidden)
    slow = copy.deepcopy(net).requires_grad_(False)
    optimizer = torch.optim.Adam(net.parameters(), learning_rate, betas=(0.9, 0.99), fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    for _ in range(updates):
        with torch.no_grad():
            own = sample(in_box(slow), torch.randn(batch, dim, generator=generator))
            instant = instant_rows(q, alpha, own, K, generator)
            eps = torch.randn(lines, dim, generator=generator)
            interval = interval_rows(slow, eps, steps, pairs, generator)
        loss = squared_error(net, instant) + interval_weight * squared_error(net, interval)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        for old, new in zip(slow.parameters(), net.parameters(), strict=True):
            old.lerp_(new.detach(), 1 - memory)
    return OneStepSampler(slow, dim, seed)


# %% [markdown]
# Its defaults, 4000 updates with batches of 256, take about half a minute. Here we train for a fifth of that, with
# half the batch, a larger step and a shorter memory. The full size comes in a table below.

# %%
short = {"batch": 128, "lines": 32, "learning_rate": 8e-3, "memory": 0.98}
sampler = fit_one_step_sampler(q, 2, alpha, updates=800, **short)
results["flow lines"] = judge(in_box(sampler.net))
off, share, far = results["flow lines"].T
check("flow lines, E[Q] of one step, per cent off", abs(off[0]), below=18)
check("flow lines, error of the shares, one step", share[0], below=0.08)

# %% [markdown]
# ### One network for all temperatures
#
# A robot's critic depends on a state, and the policy must answer in every state. The network then takes the state as
# a further input, `cond`. We can rehearse that here with something simpler in the place of the state: the
# temperature. Draw another $\alpha$ for every row, and tell the network its logarithm. Nothing else changes.
# (In `interval_rows` the four rows of a line come in four blocks, hence `repeat`.)


# %%
def at(u, alpha):
    """u at the temperatures alpha (n, 1), one for each row."""
    return lambda a, r, t: u(a, r, t, alpha.log())


def fit_temperatures(q, low, high, updates=1000, batch=96, K=64, lines=32):
    """One sampler for all temperatures from low to high."""
    generator = torch.Generator().manual_seed(0)
    net = fresh(SkipVelocityNet, cond_dim=1)
    slow = copy.deepcopy(net).requires_grad_(False)
    optimizer = torch.optim.Adam(net.parameters(), 8e-3, betas=(0.9, 0.99), fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    for _ in range(updates):
        with torch.no_grad():
            alpha = low * (high / low) ** torch.rand(batch, 1, generator=generator)
            eps = torch.randn(batch, 2, generator=generator)
            instant = instant_rows(q, alpha, sample(in_box(at(slow, alpha)), eps), K, generator)
            eps, line_alpha = torch.randn(lines, 2, generator=generator), alpha[:lines]
            interval = interval_rows(at(slow, line_alpha), eps, 8, 4, generator)
        loss = squared_error(at(net, alpha), instant)
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
# Put a state where $\log\alpha$ stands and a learnt critic where $q$ stands, and this is the actor of a robot. Exercise 6
# does the first half. (The agent of chapter 09 stays closer to the paper: its intervals are taught by the identity.)

# %% [markdown]
# ## Checks
#
# ### One step, two steps, many
#
# Where has each change brought us? Every row of the picture is one training of this chapter: 600 updates for the
# first four, 800 for the last two.

# %%
pairs_net = fit_identity(fresh(SkipVelocityNet), dense=True, data=exact, updates=800)
results["from samples"] = judge(pairs_net)

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
    fig.legend(
        marks, ["1 step", "2 steps", "20 steps"], loc="outside lower center", ncols=3, frameon=False
    )


fig, (left, right) = figure(8.4, 3.9, ncols=2)
dots(left, results, 0, "$E[Q]$, per cent off")
left.axvline(0, color="black", linewidth=1)
left.set_xlim(-60, 12)
dots(right, results, 2, "distance to exact samples")
right.axvline(floor, color="black", linewidth=1)
right.text(floor + 0.006, len(results) - 1.5, "floor", va="center")
right.set_yticklabels([])
right.set_xlim(0, 0.27)
dots_key(fig)
show(
    fig,
    "Two panels with one line for each training. Left, E[Q] in per cent off the exact value: between minus forty and minus "
    "fifty for the first two, then nearer and nearer to zero. Right, the distance to exact samples: one step of the first "
    "training stands alone at 0.25; the later ones fall to about 0.05, the floor being near 0.015.",
)

# %% [markdown]
# **What you should see.** From top to bottom the dots of the left panel move to the right, and those of the right panel
# to the left. In the first line the filled diamond (one step) is far out on the right, all alone: the lag. Smoothness
# brings it back to the others. The preconditioned network and the dense times make all three sharp. Flow lines bring
# $E[Q]$ nearer still. The last line is MeanFlow trained on *samples of the target*, which no other line has seen: 128
# fresh ones in each of its 800 updates, with the same network. It ends where the trainings from $Q$ alone end. So we
# have lost little by having no samples. None of these short trainings reaches the floor. They are still a little
# blurred.
#
# Be fair to the identity: on this gentle target its line ("times near the data") is at least as near to the truth in
# one step, and flow lines lead only in $E[Q]$. Step 3 told us to expect that. It also told us where things should turn
# round: at a low temperature.

# %%
dense_off, _, dense_far = results["times near the data"].T
lines_off, _, lines_far = results["flow lines"].T
smooth_far = results["smooth, squared error"][:, 2]
sampled_far = results["from samples"][:, 2]
check("one step, distance: both remedies over smooth", dense_far[0] / smooth_far[0], below=0.7)
check("one step, distance: identity over flow lines", dense_far[0] / lines_far[0], below=1.2)
check("mean gap in E[Q]: flow lines over identity", lines_off.mean() / dense_off.mean(), below=0.9)
check("one step, distance: flow lines over samples", lines_far[0] / sampled_far[0], below=1.6)

# %%
cold = BoxBoltzmann(q, 0.04)
cold_identity = fit_identity(fresh(SkipVelocityNet), alpha=0.04, dense=True)
cold_lines = fit_one_step_sampler(q, 2, 0.04, updates=600, **short)
with torch.no_grad():
    missing = [
        [1 - float(q(sample(u, test_noise, n)).mean()) / cold.expectation(q) for n in COUNTS]
        for u in (cold_identity, in_box(cold_lines.net))
    ]
check(
    "alpha = .04: what is missing in E[Q], flow lines over identity",
    np.mean(missing[1]) / np.mean(missing[0]),
    below=0.8,
)

# %% [markdown]
# At $\alpha=0.04$, with 600 updates each, the two trainings part: averaged over 1, 2 and 20 steps, less of $E[Q]$ is
# missing with flow lines than with the identity.
#
# ### Which change bought what
#
# The full-size answer is a benchmark. It takes the sampler with its own settings, changes *one* thing, and trains for
# 2000 updates with batches of 256, on the narrower "four bumps" at $\alpha=0.1$ and on a mixture in six dimensions.
# The script `tests/benchmarks/one_step_ablation.py` makes this table (the columns are those of `judge`):

# %%
table = Path("../tests/benchmarks/one_step_ablation.md").read_text(encoding="utf-8")
display({"text/markdown": table, "text/plain": table}, raw=True)

# %% [markdown]
# How to read it, from the largest effect to the smallest.
#
# * **The identity** in the place of flow lines collapses at the step size that suits the flow lines. On narrow bumps
#   the heavy tail of step 3 wins, and at the end no hill is left. With a step ten times smaller (the row below it) it
#   finds every hill: on the four bumps its one step stays far behind, in six dimensions it comes close to the flow
#   lines. On the wide hills of this chapter it did well too. It is *fragile*, not wrong.
# * **One split** of the interval instead of a whole line (SplitMeanFlow, chapter 02, exercise 4) is stable but lags:
#   truth travels one halving at a time.
# * **$K=16$** blurs everything, for one step and for twenty alike: a biased velocity (see below).
# * **No skip connection**, the plain network instead of the preconditioned one, costs twenty steps even more than one.
#   It is the velocity that suffers.
# * **The row from 1 to 0 only by chance**: one step suffers most. That row is what one step is made of.
# * **Box proposals only** cost about five per cent of $E[Q]$ in one step, and in six dimensions, where hills are hard to
#   find, they double the error of the masses as well.
# * **Plain Heun steps**: a few per cent of $E[Q]$, in every column. That is the bias of step 4.
# * **A constant step size** and **no slow copy** look as good as the default in $E[Q]$. The distance in one step
#   is what they cost.
#
# All this is one seed and two thousand updates. Differences of a few per cent may be chance.
#
# ### Does it find every hill?
#
# *Mode coverage* is the reason to sample at all instead of climbing. We count: the shares of the three hills, for one
# step of the sampler, beside the exact ones.

# %%
with torch.no_grad():
    one, two, many = (sample(in_box(sampler.net), test_noise, n) for n in COUNTS)
fig, axes = figure(8.4, 3.4, ncols=3)
for ax, (title, points) in zip(
    axes, {"1 step": one, "20 steps": many, "exact samples": truths[0]}.items(), strict=True
):
    plots.backdrop(plane(ax, 1.05), exact.log_prob)
    kind, size = {"1 step": ("one-step", 2.2), "20 steps": ("flow", 2.6)}.get(title, ("data", 1.8))
    plots.particles(ax, points[:1200], kind, size=size, alpha=0.6)
    ax.set_title(title)
    ax.set_xlabel("shares " + ", ".join(f"{x:.2f}" for x in shares(points)))
show(
    fig,
    "Three panels of 1200 points over the pale blue density: one step, twenty steps, exact samples. All three fill the three "
    "hills in about the same proportions. With one step some points lie on threads between the hills.",
)
check("smallest share in one step, over the true one", (shares(one) / true_shares).min(), above=0.6)

# %% [markdown]
# **What you should see.** Three hills in every panel, with shares, under the panels, that agree within a few
# hundredths. The one-step cloud has threads between hills and creases in them, as in chapter 02: a smooth network must
# put the noise points near the border somewhere. Twenty steps have far fewer.
#
# ### Boltzmann or greedy? The weight $w$ of the paper
#
# SOM's paper, as far as it is known in public, does one more thing. It works on the variance-preserving path (VP,
# chapter 05), whose velocity is $v=-\tfrac12\beta_t\,(a+s)$. It scales every score to *length one* and multiplies it by
# a constant, $w=25$:
#
# $$v_w(a,t)=-\tfrac12\,\beta_t\Big(a+w\,\frac{s(a,t)}{\|s(a,t)\|}\Big).$$
#
# The estimated score can have a wild length, and this tames it. But what does that flow sample? No training is needed
# to find out. We take the *exact* score, so that no estimate is to blame, and follow $v_w$ from noise in 300 Euler
# steps.

# %%
vp = VP()


def follow_vp(target, w=None, steps=300, last=0.004):
    """The end of the VP flow with the exact score, or with one of fixed length w."""
    a = test_noise[:400]
    times = torch.linspace(1, last, steps + 1)
    for t, r in pairwise(times):
        s = target.noised_score(a, float(t), vp)
        s = s if w is None else w * torch.nn.functional.normalize(s, dim=-1)
        a = a + (r - t) * vp.velocity_from_score(s, a, float(t))  # Euler
    return a


warm = BoxBoltzmann(q, 0.6, cells=101)
ends_of = {None: follow_vp(coarse), 2: follow_vp(coarse, 2), 25: follow_vp(coarse, 25)}
warm_25 = follow_vp(warm, 25)
check("exact score: E[Q], per cent off", 100 * abs(q(ends_of[None]).mean() / exact_q - 1), below=6)
check("w = 25: E[Q] at alpha = .15", q(ends_of[25]).mean(), above=0.99)
check("w = 25: E[Q] at alpha = .6", q(warm_25).mean(), above=0.99)
check("w = 25: share of the first hill", shares(ends_of[25])[0], above=0.99)
check(
    "w = 2: share of points beyond 1.5", (ends_of[2].abs() > 1.5).any(-1).float().mean(), above=0.05
)
print(f"exact E[Q]: {exact_q:.4f} at alpha = .15, {warm.expectation(q):.4f} at alpha = .6")

# %%
four = BoxBoltzmann(four_bumps(), 0.1, cells=101)
four_25 = follow_vp(four, 25)
fig, axes = figure(8.4, 2.9, ncols=4)
panels = {
    "the exact score": (ends_of[None], exact),
    "$w = 2$": (ends_of[2], exact),
    "$w = 25$": (ends_of[25], exact),
    "$w = 25$, equal hills": (four_25, four),
}
for ax, (title, (points, target)) in zip(axes, panels.items(), strict=True):
    plots.backdrop(plane(ax, 2.0), target.log_prob)
    kind, size = ("data", 2.5) if title == "the exact score" else ("error", 8)
    plots.particles(ax, points, kind, size=size, alpha=0.6)
    ax.set_title(title, fontsize=11)
    ax.set_xlabel(f"{100 * (points.abs() > 2).any(-1).float().mean():.0f} % out of sight")
show(
    fig,
    "Four panels of end points over the density. Exact score: three filled hills. w = 2: nearly all points on the top of the "
    "first hill, some far outside the picture. w = 25: all points on the top of the first hill. w = 25 with four equal "
    "hills: a dot on each of the four tops.",
)

# %% [markdown]
# **What you should see.** With the exact score three filled hills. With $w=25$ a single dot: every point on the top of
# the *first* hill, at $\alpha=0.15$ and at $\alpha=0.6$ alike. The temperature has no effect any more. Four hills of
# the same height keep all four, and each is again reduced to its top. With $w=2$ some points escape: backwards in time
# the term $-\tfrac12\beta_ta$ pushes outwards, and a pull of length two cannot hold a point that is further out than
# two.
#
# **Why.** With $w$ larger than $\|a\|$ the pull always wins. Every point runs up the slope of $\log p_t$ at full speed
# to its maximum, and then follows that maximum as $t$ falls. At high noise there is only *one* maximum, since
# all hills are blurred into one. So all points gather there, and end together on one top. Where the score
# is zero, Tweedie's formula says $a=\mu_t\,m(a,t)$, with the path's coefficient $\mu_t$ (chapter 05). Let us follow
# that point down and see where it leads.

# %%
crest = torch.zeros(1, 2)
for tau in np.linspace(1, 0.01, 100):
    for _ in range(20):
        crest = float(vp.mu(tau)) * coarse.posterior_mean(crest, tau, vp)
check(
    "the followed maximum: distance to the top of the first hill",
    (crest - q.centres[0]).norm(),
    below=0.03,
)

# %% [markdown]
# It leads to where $w=25$ took everyone. So the flow with a score of fixed length is no sampler of $\exp(Q/\alpha)$. It
# is a *climber*: it finds one maximum, here the best, and forgets the rest. (The blurred hill with the most mass wins.
# Here the highest hill is also the broadest.) For a robot that may be welcome, and
# the paper reports good returns with it. But exploration must then come from somewhere else, and "Boltzmann policy"
# is no longer the right name. Our estimate needs no such rule: $\hat m$ is an average of points of the box, so it cannot
# run wild.

# %% [markdown]
# ## Explorer
#
# The network for all temperatures, at eight of them. `alpha` sets the temperature and `steps` how often the network is
# called. On the right, the black line is the exact $E[Q]$ at every temperature, and the diamonds are that of the
# samples. Do exercise 1 before you move anything.

# %%
alphas = (0.08, 0.1, 0.13, 0.17, 0.23, 0.32, 0.44, 0.6)
one_step_explorer(generate, q, alphas=alphas, steps=COUNTS)

# %% [markdown]
# **What you should see.** From right to left the density contracts from a broad cloud to three spots, and the diamonds
# climb along the black line: one network, any temperature. At the cold end one step stays below the line, and twenty
# steps are closer to it: the border between hills is sharpest there, and a single smooth map has most trouble with it.
# At the hot end the samples are a little too sharp. This is a quick training; the network shares its effort among all
# temperatures.

# %%
for x, bound in ((0.1, 18), (0.17, 18), (0.44, 18)):
    there = BoxBoltzmann(q, x).expectation(q)
    off = 100 * abs(q(generate(test_noise, x)).mean() / there - 1)
    check(f"one network, one step, alpha = {x}: E[Q] off, per cent", off, below=bound)
    off_20 = 100 * abs(q(generate(test_noise, x, 20)).mean() / there - 1)
    check(f"alpha = {x}: twenty steps over one", off_20 / off, below=0.85)

# %% [markdown]
# ## What can go wrong
#
# ### Four mistakes in the training
#
# We take the best training with the identity (preconditioned, dense times) and put one mistake back at a time: a time
# embedding of four octaves; the image weight $p=1$; four proposals instead of 64; no row with $r=t$.

# %%
mistakes = {"none": results["times near the data"]}
mistakes["4 octaves"] = judge(fit_identity(fresh(SkipVelocityNet, octaves=4), dense=True))
mistakes["weight $p = 1$"] = judge(fit_identity(fresh(SkipVelocityNet), dense=True, p=1.0))
mistakes["$K = 4$"] = judge(fit_identity(fresh(SkipVelocityNet), dense=True, K=4))
mistakes["no rows $r = t$"] = judge(
    fit_identity(fresh(SkipVelocityNet), dense=True, share_equal=0.0)
)
for name in ("4 octaves", "weight $p = 1$", "$K = 4$"):
    words = name.replace("$", "")
    check(
        f"{words}: distance in one step over that without",
        mistakes[name][0, 2] / mistakes["none"][0, 2],
        above=1.3,
    )
without = mistakes["no rows $r = t$"][:, 2] / mistakes["none"][:, 2]
check("no rows r = t: distance in one step over that without", without[0], below=1.5)
check("no rows r = t: distance in 20 steps over that without", without[2], above=1.15)

# %%
fig, (left, right) = figure(8.4, 3.4, ncols=2)
dots(left, mistakes, 0, "$E[Q]$, per cent off")
left.axvline(0, color="black", linewidth=1)
left.set_xlim(-80, 12)
dots(right, mistakes, 2, "distance to exact samples")
right.axvline(floor, color="black", linewidth=1)
right.set_yticklabels([])
right.text(floor + 0.006, len(mistakes) - 1.5, "floor", va="center")
right.set_xlim(0, 0.35)
dots_key(fig)
show(
    fig,
    "Two panels with five lines: no mistake, four octaves, weight p = 1, K = 4, no rows with r = t. Four octaves: by far the "
    "largest distance, largest in one step. p = 1 and K = 4: about twice to three times the distance of no mistake, for "
    "all numbers of steps. No rows with r = t: like no mistake in one step, worse in twenty.",
)

# %% [markdown]
# **What you should see.** *Four octaves* ruin the one-step map first: the derivative in the target. *The weight* blurs
# everything. *$K=4$* blurs everything too, but for another reason, which no training can cure. The softmax of few
# proposals is biased, so $\hat m$ is pulled towards the mean of the proposals. More updates average the noise away,
# never the bias:

# %%
repeats = 200
a_few, t_few = a_late[:20].repeat(repeats, 1), t_late[:20].repeat(repeats, 1)
truth_few = exact.posterior_mean(a_late[:20], t_late[:20], path)
bias = {}
for K in (4, 16, 64):
    estimate = posterior_mean_estimate(q, a_few, t_few, path, alpha, K, generator).m
    bias[K] = rms(estimate.view(repeats, 20, 2).mean(0) - truth_few)
check("bias of m with K = 4, at t = 0.9", bias[4], above=0.05)
check("bias with K = 4 over that with K = 64", bias[4] / bias[64], above=3)

# %% [markdown]
# *No rows with $r=t$* is the surprise: one step hardly notices. The identity has $\hat v$ in *every* target, also over
# short intervals, so the truth still gets in. What suffers is many-step sampling, which reads the network at $r=t$,
# where it was never trained. Do not conclude that such rows are a luxury. With flow lines they are the *only* place
# where $Q$ enters. Without them a field of zeros is its own perfect teacher:

# %%
nothing = interval_rows(lambda a, r, t: a / t.clamp(min=T_MIN), test_noise[:100], 8, 4, generator)
sent = nothing.a[:100] - nothing.u[:100]  # from 1 to 0, in a field that knows only m = 0
check("interval rows of a field that knows nothing: largest end", sent.abs().max(), below=1e-4)

# %% [markdown]
# (That field has $m=0$ everywhere. Its rows say: go to zero. They agree with it perfectly, and no row objects.)
#
# ### A critic that is wrong
#
# A learnt critic is wrong somewhere. We spoil ours in two ways: a needle, high and thin, in a corner where nothing is to
# be gained, and ripples all over. A policy only sees the wrong $Q$; we judge it by the right one. Three policies of
# different greed: the Boltzmann density of the wrong $Q$ (exact), the best of 32 draws from it, and its very maximum.

# %%
needle = torch.tensor([0.7, -0.75])
g = torch.Generator().manual_seed(5)
frequency, phase = 14 * torch.randn(40, 2, generator=g), 2 * math.pi * torch.rand(40, generator=g)


def wrong_q(a):
    ripples = 0.015 * torch.cos(a @ frequency.T + phase).sum(-1)
    return q(a) + ripples + 1.3 * torch.exp(-(a - needle).square().sum(-1) / (2 * 0.05**2))


def near_needle(a):
    return ((a - needle).norm(dim=-1) < 0.15).double()


def best_of(x, N, value):
    """The best of every N rows of x, by the given value."""
    groups = x[: len(x) // N * N].view(-1, N, 2)
    return groups[torch.arange(len(groups)), value(groups).argmax(-1)]


wrong = BoxBoltzmann(wrong_q, alpha, cells=401)  # the needle needs finer cells
draws = wrong.sample(32_000, torch.Generator().manual_seed(6))
top = wrong.grid[wrong_q(wrong.grid).argmax()][None]
for name, x in (
    ("Boltzmann", draws),
    ("best of 32", best_of(draws, 32, wrong_q)),
    ("maximum", top),
):
    claimed, true, share = wrong_q(x).mean(), q(x).mean(), near_needle(x).mean()
    print(f"{name:<11} claimed {claimed:.3f}, true {true:.3f}, share at the needle {share:.2f}")

# %% [markdown]
# The Boltzmann density loses about a tenth: a thin needle holds little mass, however high. The greedier the policy, the more of
# it ends on the needle, with the greatest promise and the least value. A temperature is also a protection against one's
# own critic. And what does the trained sampler make of it?

# %%
fooled = fit_one_step_sampler(wrong_q, 2, alpha, updates=800, **short)
x = fooled.sample(16_000)
check(
    "share at the needle: sampler over exact",
    near_needle(x).mean() / near_needle(draws).mean(),
    below=0.6,
)
check("true E[Q] of the sampler", q(x).mean(), above=0.5)

fig, (left, right) = figure(8.0, 4.6, ncols=2)
for ax, points, kind, title in (
    (left, draws, "target", "exact samples of $\\exp(Q_{wrong}/\\alpha)$"),
    (right, x, "one-step", "one step of the sampler"),
):
    plots.backdrop(plane(ax, 1.05), exact.log_prob)
    plots.particles(ax, points[:1500], kind, size=2.5, alpha=0.6)
    plots.particles(ax, needle[None], "error", size=9, alpha=1.0)
    ax.set_title(title, fontsize=11)
plots.key(left, {"the needle": ("error", "points")})
show(
    fig,
    "Two panels over the density of the right critic in pale blue, with the needle in the lower right corner marked by a red "
    "cross. Left, exact samples for the wrong critic: speckled hills and a tight cluster at the needle. Right, one step of "
    "the sampler: the three hills, smoother, and hardly a point at the needle.",
)

# %% [markdown]
# **What you should see.** Pale blue is the density of the *right* $Q$. The exact samples for the wrong one show the
# ripples as speckles, and a tight cluster at the needle. The sampler has smoothed the ripples and missed most of the
# needle. Is it robust, then? Do not be too pleased. It overlooks the needle because 64 proposals rarely hit it and a
# small network cannot draw it. It would overlook a thin *good* hill as well. And when a proposal does hit the needle, it
# takes nearly all the weight, and that row gets a wild target. More proposals and longer training would find more of
# the needle: the density of the wrong $Q$ is what we asked for.

# %% [markdown]
# ## Exercises
#
# Each stub raises `NotImplementedError`. Replace its body and run the cell: ✓ lines say that you are done.

# %% [markdown]
# ### 1. Predict, then move the slider · ●○○ · 10 min
#
# Answer before you touch the explorer.
#
# 1. To which number does the exact $E[Q]$ tend as $\alpha$ grows without bound? (A cell near the top of the chapter
#    prints it.)
# 2. And as $\alpha$ falls to zero?
# 3. Which hill gains in share as $\alpha$ falls: 1 (lower left), 2 (right) or 3 (top)?
#
# Return the three numbers.


# %% tags=["exercise", "raises-exception"]
def prediction():
    raise NotImplementedError


hot_limit, cold_limit, winner = prediction()
hot, freezing = BoxBoltzmann(q, 1000.0), BoxBoltzmann(q, 0.004, cells=401)
check("exercise 1: error of the hot limit", abs(hot_limit - hot.expectation(q)), below=0.01)
check("exercise 1: error of the cold limit", abs(cold_limit - freezing.expectation(q)), below=0.02)
best_hill = torch.cdist(freezing.grid[freezing.p.argmax()][None], q.centres).argmin() + 1
check("exercise 1: error of the hill", abs(winner - best_hill), below=0.5)

# %% [markdown]
# <details><summary>Hint</summary>
#
# What is $e^{Q/\alpha}$ when $Q/\alpha$ is nearly zero everywhere? And who wins when differences of $Q$ are divided by
# a tiny number?
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# Hot: the density becomes uniform, and $E[Q]$ the mean of $Q$ over the square. Cold: everything gathers at the
# maximum, here 1, on hill 1, the highest. (A hill that is lower by 0.03 loses a factor $e^{0.03/\alpha}$: little at
# $\alpha=0.15$, everything at $\alpha=0.004$.)
#
# ```python
# def prediction():
#     return 0.2492, 1.0, 1
# ```
#
# </details>

# %% [markdown]
# ### 2. Find the bug: the temperature that was not · ●○○ · 10 min
#
# A reward in cents is a hundred times a reward in euros, and so is $Q$. To make one temperature fit both, one
# normalises $Q$ over a batch to mean 0 and standard deviation 1 before the softmax. This line is modelled on
# published code:
#
# ```python
# def normalised(values):
#     return values - values.mean() / values.std()
# ```
#
# It trains without complaint, and with $Q$ in euros it even works. Why does no error show? Write it correctly. The
# check compares the weights for $Q$ and for $100\,Q+7$.


# %% tags=["exercise", "raises-exception"]
def normalised(values):
    raise NotImplementedError


values = q(truths[0][:64]).double()
in_euros, in_cents = (torch.softmax(normalised(x) / 0.5, -1) for x in (values, 100 * values + 7))
check("exercise 2: difference of the weights", (in_euros - in_cents).abs().max(), below=1e-4)
check("exercise 2: mean of the normalised values", abs(normalised(values).mean()), below=1e-6)
# whoever divides by n instead of n - 1, or adds a small number to the deviation, is right as well
check("exercise 2: their deviation, from 1", abs(normalised(values).std() - 1), below=0.02)

# %% [markdown]
# <details><summary>Hint</summary>
#
# What does a softmax do with a constant that is subtracted from all its arguments?
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# Brackets are missing: only the *mean* is divided by the standard deviation. What is subtracted is a constant, and a
# softmax does not notice constants. So the line does nothing at all, and the temperature still depends on the currency.
# In cents one proposal takes all the weight.
#
# ```python
# def normalised(values):
#     return (values - values.mean()) / values.std()
# ```
#
# </details>

# %% [markdown]
# ### 3. Find the bug: noise that does not average out · ●●○ · 10 min
#
# Training averages the noise of $\hat m$ over many updates. Here is that average for fixed points. However many
# repeats one allows, the result gets no better than with one. (In published code the same mistake sits in an evaluation,
# which draws the same noise every time.) Repair it.
#
# ```python
# def averaged_mean(a, t, repeats):
#     total = torch.zeros_like(a)
#     for _ in range(repeats):
#         generator = torch.Generator().manual_seed(0)
#         total += estimated_mean(a, t, 64, generator)
#     return total / repeats
# ```


# %% tags=["exercise", "raises-exception"]
def averaged_mean(a, t, repeats):
    raise NotImplementedError


once, often = (
    rms(averaged_mean(a_half, t_half, n) - exact.posterior_mean(a_half, t_half, path))
    for n in (1, 40)
)
# forty repeats divide the noise by 6.3; the bias of 64 proposals remains
check("exercise 3: error of 40 repeats over that of one", often / once, below=0.35)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Print the first proposal of every repeat.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# The generator is made anew, with the same seed, in every repeat. All repeats draw the same proposals and make the same
# error. A generator is made once and handed down, and never seeded inside an update.
#
# ```python
# def averaged_mean(a, t, repeats):
#     generator = torch.Generator().manual_seed(0)
#     total = torch.zeros_like(a)
#     for _ in range(repeats):
#         total += estimated_mean(a, t, 64, generator)
#     return total / repeats
# ```
#
# </details>

# %% [markdown]
# ### 4. Other proposals, other weights · ●●○ · 15 min
#
# Estimate $m(a,t)$ from $K$ proposals that are *uniform* on the square. What is the weight now? The check asks for
# $t=0.9$, where this works well, and counts at $t=0.1$ how many of 1024 proposals still matter (the effective sample
# size $1/\sum_kw_k^2$). Return $\hat m$ of shape `(n, 2)` and the weights `(n, K)`.


# %% tags=["exercise", "raises-exception"]
def mean_from_uniform(a, t, K, generator):
    raise NotImplementedError


estimate, _ = mean_from_uniform(a_late, t_late, 1024, generator)
check("exercise 4: error of m at t = 0.9", rms(estimate - truth), below=0.06)
early = torch.full((2000, 1), 0.1)
a_early = path.noise(from_target, torch.randn(2000, 2, generator=generator), early)
_, w = mean_from_uniform(a_early, early, 1024, generator)
check(
    "exercise 4: effective sample size at t = 0.1",
    (1 / w.square().sum(-1)).mean(),
    above=5,
    below=60,
)

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
# ### 5. How greedy is best-of-N? · ●●○ · 20 min
#
# In chapter 09 the robot draws $N$ candidates and takes the best by $Q$. Compute the exact $E[Q]$ of the best of $N$
# draws from a `BoxBoltzmann` density, from the cell masses `p` and the values of $Q$ in the cells. No sampling.


# %% tags=["exercise", "raises-exception"]
def expected_best(values, p, N):
    raise NotImplementedError


grid_values = q(exact.grid).double()
check(
    "exercise 5: N = 1 is E[Q]; error",
    abs(expected_best(grid_values, exact.p, 1) - exact_q),
    below=1e-6,
)
many_draws = exact.sample(64_000, torch.Generator().manual_seed(8))
for N in (2, 8, 32):
    by_drawing = q(best_of(many_draws, N, q)).mean()
    # 2000 groups or more with a standard deviation below .15: standard error .003
    check(
        f"exercise 5: error for N = {N}",
        abs(expected_best(grid_values, exact.p, N) - by_drawing),
        below=0.01,
    )

# %% [markdown]
# <details><summary>Hint</summary>
#
# Sort the cells by value. The best of $N$ is at most $x$ when all $N$ are: with probability $F(x)^N$.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# The distribution function of the best is $F^N$, so a cell with masses below it summing to $F_{k-1}$ has the
# probability $F_k^N-F_{k-1}^N$. Plot the result against $N$, beside $E[Q]$ against $1/\alpha$: taking the best is
# another way of lowering the temperature.
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
# ### 6. An actor that looks at the state · ●●● · 40 min
#
# Let the critic depend on a state. Here the state is a direction $s=(\cos\phi,\sin\phi)$, and the hill of $Q(s,a)$
# lies at $0.6\,s$. Train *one* network for all directions, at $\alpha=0.2$, and return a function of noise `(n, 2)` and
# states `(n, 2)` that gives actions in one step. 600 updates of 96 rows are enough. The check tries three directions.


# %% tags=["exercise", "raises-exception"]
def critic(state, a):
    return torch.exp(-(a - 0.6 * state).square().sum(-1) / (2 * 0.25**2))


def fit_states():
    raise NotImplementedError


policy = fit_states()
for phi in (0.3, 2.0, 4.5):
    state = torch.tensor([math.cos(phi), math.sin(phi)])
    right = BoxBoltzmann(lambda a, s=state: critic(s, a), 0.2).expectation(
        lambda a, s=state: critic(s, a)
    )
    with torch.no_grad():
        actions = policy(test_noise, state.expand(4000, 2))
    off = 100 * abs(critic(state, actions).mean() / right - 1)
    check(f"exercise 6: E[Q] in direction {phi}, per cent off", off, below=15)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Start from `fit_temperatures`. The state takes the place of `alpha.log()`. In `instant_rows`, $q$ is called with points
# of shape `(n, K, 2)`, so every row's state needs an axis for its $K$ proposals.
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
# def fit_states(updates=600, batch=96, lines=32):
#     generator = torch.Generator().manual_seed(0)
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
#             phi = 2 * math.pi * torch.rand(batch, 1, generator=generator)
#             state = torch.cat([phi.cos(), phi.sin()], -1)
#             eps = torch.randn(batch, 2, generator=generator)
#             own = sample(in_box(given(slow, state)), eps)
#             instant = instant_rows(lambda z: critic(state[:, None], z), 0.2, own, 64, generator)
#             eps, some = torch.randn(lines, 2, generator=generator), state[:lines]
#             interval = interval_rows(given(slow, some), eps, 8, 4, generator)
#         loss = squared_error(given(net, state), instant)
#         loss = loss + 2 * squared_error(given(net, some.repeat(4, 1)), interval)
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
# * The target of a row is right at *any* point $a$. So the training points may come from the model or from nowhere in
#   particular. They decide where the network is accurate, not what it learns.
# * The identity carries the noise of $\hat v$ through the Jacobian of the flow map. Small on average, it has a heavy
#   tail at low temperatures, on the borders between hills.
# * Flow lines of a slow copy give the average velocity by its definition, without a derivative. $a-t\,u$ is an average
#   of posterior means and stays in the box.
# * What bought sharpness: a smooth time embedding and the plain squared error, a network that knows the flow of a
#   normal density, times dense near the data, flow lines, enough proposals.
# * Judge a sampler by the distance to the exact density and its floor, not by $E[Q]$: too sharp is as wrong as too
#   blurred.
# * A score of fixed length $w$ makes a climber, not a Boltzmann sampler. The temperature drops out.
# * The sampler believes its critic. A temperature protects against thin errors of $Q$; greed seeks them.

# %% [markdown]
# ## References
#
# * Kim, Ki, Ahn, Lee: *Score-Based One-step MeanFlow Policy Optimization*,
#   [2605.23365](https://arxiv.org/abs/2605.23365). SOM: the idea that MeanFlow can be fed from $Q$ through a score.
# * Geng, Deng, Bai, Kolter, He: *Mean Flows for One-step Generative Modeling*,
#   [2505.13447](https://arxiv.org/abs/2505.13447). The identity and the loss of the plain version.
# * Guo and others: *SplitMeanFlow*, [2507.16884](https://arxiv.org/abs/2507.16884). Average velocities by consistency;
#   our flow lines are its limit of many splits at once.
# * Karras, Aittala, Aila, Laine: *Elucidating the Design Space of Diffusion-Based Generative Models*,
#   [2206.00364](https://arxiv.org/abs/2206.00364). Preconditioning, derived for denoisers (their section 5).
# * Ma and others: *Efficient Online Reinforcement Learning for Diffusion Policy*,
#   [2502.00361](https://arxiv.org/abs/2502.00361). SDAC: the posterior-mean estimate in an actor.
# * Akhound-Sadegh and others: *Iterated Denoising Energy Matching for Sampling from Boltzmann Densities*,
#   [2402.06121](https://arxiv.org/abs/2402.06121). A Boltzmann sampler trained from its energy, in many steps.
# * MFPO, [2604.14698](https://arxiv.org/abs/2604.14698). The nearest relative of SOM: a posterior
#   mean from two sorts of proposals, plain squared error, two steps.
# * Veach, Guibas: *Optimally Combining Sampling Techniques for Monte Carlo Rendering*, SIGGRAPH 1995. The balance
#   heuristic.
# * Kim and others: *Understanding, Accelerating, and Improving MeanFlow Training*,
#   [2511.19065](https://arxiv.org/abs/2511.19065). First the instantaneous velocity, then short intervals, then long
#   ones: the lag of the one-step map.
#
# ---
#
# Previous: [05 · The probability-flow ODE](05_probability_flow_ode.ipynb). Next:
# [09 · SOM on MuJoCo](09_som_on_mujoco.ipynb).
