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
# # 01 · Flow matching on the plane
#
# **What you will do.** You turn random points into samples of a density, by letting them drift along a velocity
# field. First you find that field with pencil and paper, for a case where it has a formula. Then you train a
# network to imitate it from nothing but pairs of data and noise, and compare the two, point by point. At the end
# you break it in seven ways, and learn to tell which one it was.
#
# **What you will learn.** The difference between the velocity of one pair and the velocity of a *place*. Why a
# network that is shown only the first learns the second. Why its loss stops falling long before it stops
# learning. Why many small steps work, and one big step lands on the mean.
#
# **What you need.** Calculus, a little probability (conditional expectation, Bayes' rule) and PyTorch. Nothing
# about flows, diffusion or robots.
#
# **Time and hardware.** ≈ 30 s on one CPU core, most of it for five short trainings; allow two to three hours for
# reading and exercises. No GPU.
#
# Previous: [00 · Start here](00_start_here.ipynb). Next: [02 · MeanFlow](02_meanflow.ipynb).

# %% [markdown]
# ## The idea in one picture
#
# ### Noise is easy, data is hard
#
# We have examples of something: pictures, sentences, good actions of a robot. They were drawn from some density
# $p_0$, and we would like more of them. Drawing from $p_0$ itself is hard, for its formula is unknown or
# unwieldy. Drawing from the standard normal density is easy: `torch.randn`.
#
# So we look for a machine that moves normal points until they are distributed as $p_0$. This chapter builds one.
#
# ### Pairs and lines
#
# Take a *data point* $a_0$, drawn from $p_0$, and a *noise point* $\varepsilon$, drawn from the standard normal
# density, independently of each other. Join them by a straight line:
#
# $$a_t=(1-t)\,a_0+t\,\varepsilon,\qquad 0\le t\le1 .$$
#
# The letter $t$ is the *path time*. **Time $t=0$ is data and time $t=1$ is noise**, in the whole book. (The letter
# $a$ is for *action*. For now an action is just a point.) The distribution of $a_t$ is called $p_t$. So $p_1$ is
# the standard normal density, and between 1 and 0 it changes gradually into the data's.
#
# If only the noise points knew their partners, each could walk along its line and arrive at data. They do not: the
# partners were drawn at random, and at sampling time there are none. All that a moving point knows is **where it
# is and what time it is**. At one place and time many lines meet, and they point in different directions. What
# should a point do there?
#
# The answer of flow matching: follow the *mean* of their velocities.

# %%
import math
from itertools import pairwise

import numpy as np
import ot
import torch
from torch import Tensor, nn

from som_lite.flow.densities import GaussianMixture, three_modes
from som_lite.flow.ode import euler_step, rk4_step, solve
from som_lite.flow.paths import Linear, Path
from som_lite.view import plots
from som_lite.view.explorers import flow_field_explorer
from som_lite.view.notebook import check, listing, show
from som_lite.view.style import BACKDROP, COLOURS, figure, plane

torch.set_num_threads(1)  # small nets: more threads cost more than they bring
double = {"dtype": torch.float64}
path = Linear()

# %% [markdown]
# For a first picture the data are plain numbers, drawn from two blobs around $-1.5$ and $1.5$. Then the second axis is
# free for the time. `blob_velocity` is the mean velocity, by a formula that we derive below, and `solve` follows it in
# 100 small steps.

# %%
blobs = GaussianMixture(
    torch.tensor([[-1.5], [1.5]], **double),
    torch.tensor([0.3, 0.3], **double),
    torch.tensor([0.6, 0.4], **double),
)
g = torch.Generator().manual_seed(0)
a0, eps = blobs.sample(4000, g), torch.randn(4000, 1, generator=g, **double)


def blob_velocity(a, t):
    return blobs.velocity(a, t, path)


flow = solve(blob_velocity, eps, steps=100, step=rk4_step, trajectory=True)  # t = 1, .99, …, 0
times = torch.linspace(1, 0, 101, **double)
places = torch.tensor([[0.75, 0.7], [0.5, -0.25], [0.3, 0.2]], **double)  # (t, a)
drifts = blob_velocity(places[:, 1:], places[:, :1])[:, 0]

height = torch.linspace(-3, 3, 121, **double)[:, None]
p_t = torch.stack([blobs.noised(path, t).log_prob(height).exp() for t in times], dim=1)
fig, (left, right) = figure(8.4, 4.2, ncols=2)
for ax in (left, right):
    levels = np.linspace(0.03, float(p_t.max()) ** 0.5, 8) ** 2
    ax.contourf(times, height[:, 0], p_t, levels=levels, cmap=BACKDROP, zorder=0)
    ax.set(xlim=(1, 0), ylim=(-3, 3), xlabel="time $t$: from noise to data", yticks=[-3, 0, 3])
left.plot([1, 0], torch.cat([eps, a0], 1)[:70].T, color=COLOURS["data"], linewidth=0.7, alpha=0.55)
right.plot(times, flow[:, :70, 0], color=COLOURS["reference"], linewidth=0.7, alpha=0.7)
for ax in (left, right):
    for place, v in zip(places, drifts, strict=True):
        plots.arrow(ax, place, [-0.17, -0.17 * v], "velocity", width=0.014)
left.set(ylabel="$a_t$", title="straight lines of 70 pairs")
right.set(title="70 points that follow the mean velocity")
show(
    fig,
    "Time from noise at the left to data at the right, position upwards, over shades of a density that splits from one blob "
    "into two. Left: 70 straight blue lines join noise to data and cross everywhere. Right: 70 black curves from the same "
    "noise points fan out into the same two blobs and never cross. Three orange arrows lie along the curves.",
)

# %% [markdown]
# **What you should see.** Noise ($t=1$) is on the left and data ($t=0$) on the right: you read the picture in the
# direction in which a sampler walks. Left panel: the lines of 70 pairs. They cross everywhere. The three orange arrows show the mean velocity at three places;
# few lines agree with them. Right panel: from the same 70 starts, points that follow the mean velocity at every moment.
# Their *flow lines* bend, and never cross.
#
# The shades behind are the density $p_t$, the same in both pictures. That is the surprise: **as a crowd, the
# points on the right cannot be told from those on the left, at any time.** Only who goes where has changed.
#
# Two claims, two checks. In one dimension lines that do not cross keep their order. For independent pairs the
# orders at both ends have nothing to do with each other, so half of all pairs of lines cross. And for the crowd we
# measure the greatest gap between the distribution function of the points and that of $p_t$.


# %%
def share_that_cross(start, end):
    """Of all pairs of lines, the share whose order at the start is not that at the end."""
    swapped = (start - start.T) * (end - end.T) < 0
    return swapped.sum() / (len(start) * (len(start) - 1))


check("share of straight lines that cross", share_that_cross(eps, a0), below=0.53, above=0.47)
check("share of flow lines that cross", share_that_cross(eps, flow[-1]), below=1e-9)


def distance_from_law(points, t):
    """The greatest gap between the distribution function of the points and that of p_t."""
    law = blobs.noised(path, t)
    x = points.sort(dim=0).values
    exact = torch.special.ndtr((x - law.means.T) / law.stds) @ law.weights
    ranks = torch.arange(len(x) + 1, **double) / len(x)
    return torch.maximum((exact - ranks[:-1]).abs().max(), (exact - ranks[1:]).abs().max())


# 4000 true draws exceed 1.95 / sqrt(4000) = 0.031 once in a thousand times (Kolmogorov).
for row, t in ((50, 0.5), (75, 0.25), (100, 0.0)):
    on_lines = path.noise(a0, eps, t)
    check(f"straight lines, gap to p_t at t = {t}", distance_from_law(on_lines, t), below=0.031)
    check(f"flow lines, gap to p_t at t = {t}", distance_from_law(flow[row], t), below=0.031)

# %% [markdown]
# (The gap of the flow lines is the same at all times: nobody overtakes, so every point keeps its rank.)
#
# That a crowd which follows the mean velocity keeps the density $p_t$ is a theorem. Chapter 05 proves it, by the
# continuity equation. Here we have tested it, and will again.
#
# Why can flow lines never cross? At a crossing two lines would leave one place at one time in two directions. But
# the mean velocity there is one vector, not two. Nor can they merge: $v$ is smooth, and then the equation of motion has
# a single solution through each place and time. (On the plane, the curves that you draw may cross: two points
# that visit the same place at *different* times. That is no contradiction.)
#
# The rest of the chapter asks three questions. What is the mean velocity, as a formula? How does a network learn
# it from pairs? And how well does a crowd that follows the network do?

# %% [markdown]
# ## Derivation
#
# From here on the data live on the plane: three blobs that hold 50, 30 and 20 % of the mass. Every step is checked
# in the cell that follows it. The checks compute in 64-bit numbers, at 200 random points of the path.

# %%
toy = three_modes()
fine = GaussianMixture(toy.means.double(), toy.stds.double(), toy.weights.double())  # 64 bits
mean = fine.weights @ fine.means  # E[a_0]

g = torch.Generator().manual_seed(1)
a0, eps = fine.sample(200, g), torch.randn(200, 2, generator=g, **double)
t = 0.2 + 0.8 * torch.rand(200, 1, generator=g, **double)  # in [.2, 1]
a = (1 - t) * a0 + t * eps


def largest(difference):
    """The greatest length among the rows."""
    return difference.norm(dim=-1).max()


# %% [markdown]
# ### Step 1: the velocity of a pair
#
# Keep the pair fixed and let the time run. The point moves on its line at the constant velocity
#
# $$w=\frac{d}{dt}\big[(1-t)\,a_0+t\,\varepsilon\big]=\varepsilon-a_0 .$$
#
# It is called the **conditional velocity**, since it is what you know *given* the pair. Mind its direction: it
# points from data to noise, because that is the way in which $t$ grows. A sampler goes the other way, against it.

# %%
h = 0.01
ahead, behind = ((1 - s) * a0 + s * eps for s in (t + h, t - h))
check("step 1: speed of the pair", largest((ahead - behind) / (2 * h) - (eps - a0)), below=1e-12)

# %% [markdown]
# ### Step 2: the velocity of a place
#
# Now fix a place $a$ and a time $t$, and look at all pairs whose line passes there at that time. The mean of their
# velocities is the **marginal velocity**
#
# $$v(a,t)=E\,[\,\varepsilon-a_0\mid a_t=a\,].$$
#
# A conditional expectation sounds abstract. So take it literally: draw two million pairs, keep those that pass
# close to $a$, and average.

# %%
half = 0.5
places = torch.tensor([[0.1, 0.35], [-1.3, -0.4], [1.1, -0.9]])
g = torch.Generator().manual_seed(2)
many_a0, many_eps = toy.sample(2_000_000, g), torch.randn(2_000_000, 2, generator=g)
many_a = (1 - half) * many_a0 + half * many_eps
close = [(many_a - place).norm(dim=-1) < 0.05 for place in places]
met = [(many_eps - many_a0)[rows] for rows in close]  # velocities of the pairs that pass by

fig, ax = figure(5.2, 5.2)
plane(ax)
plots.backdrop(ax, toy.log_prob)
for place, w in zip(places, met, strict=True):
    for one in w[:30]:
        plots.arrow(ax, place, -0.4 * one, "data", width=0.0025)
    plots.arrow(ax, place, -0.4 * w.mean(0), "velocity", width=0.016)
plots.particles(ax, places, "noise", size=7, alpha=1.0)
plots.key(
    ax,
    {
        "of 30 pairs": ("data", "arrow"),
        "mean of all": ("velocity", "arrow"),
        "place": ("noise", "points"),
    },
    ncols=3,
)
ax.set_title("velocities at $t = 0.5$, drawn backwards")
show(
    fig,
    "Three places on the plane over the three pale blobs. From each place 30 thin blue arrows fan out, and a thick orange one shows "
    "the mean. From the place in the middle the blue arrows lead to all three blobs, and the mean is short.",
)

# %% [markdown]
# **What you should see.** At each of three places, the velocities of 30 pairs that pass by (blue) and the mean over
# all pairs that pass by (orange). As always in this book, velocities are drawn *backwards*, as $-v$, the way a sampler
# walks; here they are shortened as well. At the place in the middle the blue arrows disagree wildly: the pairs are bound for three
# different blobs. The orange arrow is short, and it is nobody's. Yet it is the one that counts.
#
# The formula that we want exists already in the package, as `fine.velocity`. Do our averages agree with it? Hundreds
# of pairs pass by each place, and in each coordinate their velocities scatter by at most two units. So a mean is
# uncertain by about 0.1 or less. We allow twice that.

# %%
exact = fine.velocity(places.double(), half, path)
for k, w in enumerate(met):
    check(f"step 2: pairs that pass by place {k + 1}", len(w), above=300)
    difference = (w.mean(0) - exact[k]).norm()
    check(f"step 2: their mean against v at place {k + 1}", difference, below=0.2)

# %% [markdown]
# ### Step 3: one unknown is enough
#
# Given $a_t=a$, the two ends of a line are not independent: for $0<t<1$, know one and you know the other. Solve the path
# for the noise, $\varepsilon=(a-(1-t)\,a_0)/t$, and insert:
#
# $$\varepsilon-a_0=\frac{a-a_0}{t},\qquad\text{hence}\qquad
# v(a,t)=\frac{a-m(a,t)}{t},\qquad m(a,t)=E\,[\,a_0\mid a_t=a\,].$$
#
# The function $m$ is the **posterior mean**: the best guess of the data point, given the noisy one. Read the
# formula as a sentence: *the velocity leads away from the best guess, as fast as is needed to get here in the time
# $t$.*
#
# For a density that we can evaluate, Bayes' rule gives $m$ as a ratio of two integrals. Given $a_0$, the point
# $a_t$ is normal with mean $(1-t)\,a_0$ and standard deviation $t$. So
#
# $$m(a,t)=\frac{\int a_0\;p_0(a_0)\;e^{-|a-(1-t)a_0|^2/2t^2}\,da_0}{\int p_0(a_0)\;e^{-|a-(1-t)a_0|^2/2t^2}\,da_0}.$$
#
# On the plane a grid can do these integrals. They are our independent witness: no formula for mixtures in them.

# %%
ticks = torch.arange(-4.5, 4.5, 0.06, **double) + 0.03
cells = torch.cartesian_prod(ticks, ticks)  # 150 x 150 midpoints


def posterior_mean_by_grid(a, t):
    """Bayes' rule at points a (n, 2) that share one time t (n, 1)."""
    likelihood = -torch.cdist(a, (1 - t[:1]) * cells).square() / (2 * t[:1] ** 2)
    return (fine.log_prob(cells) + likelihood).softmax(-1) @ cells


for time in (0.25, 0.6, 1.0):
    same = torch.full_like(t, time)
    point = (1 - time) * a0 + time * eps
    by_grid = (point - posterior_mean_by_grid(point, same)) / time
    difference = largest(by_grid - fine.velocity(point, same, path))
    check(f"step 3: (a - m) / t by Bayes' rule, t = {time}", difference, below=1e-4)

# %% [markdown]
# The factor $1/t$ looks dangerous at $t=0$, but the numerator vanishes there too. There $a_t$ *is* the data point,
# and about the noise one knows nothing: $v(a,0)=E[\varepsilon]-a=-a$. At the other end $a_t$ is the noise, and
# about the data one knows nothing: $v(a,1)=a-E[a_0]$.

# %%
check("step 3: v(a, 0) against -a", largest(fine.velocity(a, 0.0, path) + a), below=1e-12)
# The weights of the blobs are 32-bit numbers and sum to one up to 1e-8; hence the second bound.
difference = largest(fine.velocity(a, 1.0, path) - (a - mean))
check("step 3: v(a, 1) against a - E[a_0]", difference, below=1e-7)

# %% [markdown]
# ### Step 4: one Gaussian
#
# Let the data be a single blob, normal with mean $m_0$ and standard deviation $c$. Then $a_0$ and $a_t$ are jointly
# normal, and the best guess of one from the other is a straight line, as in linear regression: mean plus slope
# times deviation, where slope is covariance over variance. The covariance of $a_0$ and $(1-t)\,a_0+t\,\varepsilon$
# is $(1-t)\,c^2$ in each coordinate, and the variance of $a_t$ is $V_t=(1-t)^2c^2+t^2$. So
#
# $$m(a,t)=m_0+\frac{(1-t)\,c^2}{V_t}\,\big(a-(1-t)\,m_0\big).$$
#
# The check draws a million pairs and fits the regression line. Its slope is uncertain by about 0.001.

# %%
m0, c, time = 0.7, 0.4, 0.6
g = torch.Generator().manual_seed(3)
x0 = m0 + c * torch.randn(1_000_000, generator=g, **double)
x = (1 - time) * x0 + time * torch.randn(1_000_000, generator=g, **double)
covariance = torch.cov(torch.stack([x0, x]))
V = (1 - time) ** 2 * c**2 + time**2
slope = covariance[0, 1] / covariance[1, 1]
print(f"slope by formula {(1 - time) * c**2 / V:.5f}, by regression {slope:.5f}")
check("step 4: difference of the slopes", abs(slope - (1 - time) * c**2 / V), below=0.004)
check("step 4: difference of the variances", abs(covariance[1, 1] - V), below=0.004)

# %% [markdown]
# ### Step 5: a mixture of Gaussians
#
# Our data have three blobs: centres $b_k$, standard deviations $c_k$, weights $w_k$. To draw a point, draw a blob and
# then a point of it. If somebody told us that it was blob $k$, step 4 would give the best guess; call it $m_k(a,t)$.
# Nobody does, but Bayes' rule says how likely each blob is, given where we are:
#
# $$g_k(a,t)=\frac{w_k\,\mathcal N\big(a;\,(1-t)\,b_k,\,V_{k}I\big)}{\sum_j w_j\,\mathcal N\big(a;\,(1-t)\,b_j,\,V_{j}I\big)},
# \qquad V_k=(1-t)^2c_k^2+t^2 .$$
#
# Here $\mathcal N(a;\,b,VI)$ is the density at $a$ of a normal with mean $b$ and variance $V$ in each coordinate. The
# $g_k$ are called *responsibilities*. They are the weights with which to average the three guesses:
#
# $$m(a,t)=\sum_k g_k(a,t)\,m_k(a,t),\qquad v(a,t)=\frac{a-m(a,t)}t .$$
#
# Here it is in five lines. A softmax of logarithms is Bayes' rule without overflow.


# %%
def mixture_velocity(a, t, means, stds, weights):
    V = (1 - t) ** 2 * stds**2 + t**2  # (n, 3)
    apart = a[:, None] - (1 - t)[..., None] * means  # (n, 3, 2): from the centre of each blob
    # On the plane the normal density is exp(-|apart|^2 / 2V) / (2 pi V).
    g = (weights.log() - V.log() - apart.square().sum(-1) / (2 * V)).softmax(-1)  # (n, 3)
    guesses = means + ((1 - t) * stds**2 / V)[..., None] * apart  # (n, 3, 2): step 4
    return (a - (g[..., None] * guesses).sum(1)) / t


ours = mixture_velocity(a, t, fine.means, fine.stds, fine.weights)
difference = largest(ours - fine.velocity(a, t, path))
check("step 5: our formula against the package", difference, below=1e-12)

# %% [markdown]
# That is the **truth** of this chapter: an exact marginal velocity, to hold a network against. (The package writes
# the same sum without the division by $t$, so that it is finite at $t=0$ too.)
#
# ### Step 6: learn the mean by looking at the parts
#
# Outside textbooks there is no formula for $v$. There are data points, and noise can be made. Suppose that a function
# $f(a,t)$ is to imitate $v$. From here on $E$ is the mean over pairs *and* over a time $t$, drawn uniformly from
# $[0,1]$. The loss that we *want* to minimise is
#
# $$\mathcal L_{\text{place}}(f)=E\,\big\|f(a_t,t)-v(a_t,t)\big\|^2 .$$
#
# It needs $v$, which we do not have. The loss that we *can* compute puts the pair's velocity in its place:
#
# $$\mathcal L_{\text{pair}}(f)=E\,\big\|f(a_t,t)-(\varepsilon-a_0)\big\|^2 .$$
#
# This is the loss of flow matching. It asks $f$ to predict what cannot be predicted from $(a,t)$ alone. Yet the two
# losses differ by a constant. Write $w=\varepsilon-a_0$, split $f-w=(f-v)+(v-w)$ and expand the square:
#
# $$\|f-w\|^2=\|f-v\|^2+2\,(f-v)\cdot(v-w)+\|v-w\|^2 .$$
#
# The middle term has mean zero, and here is why. First take the mean over all pairs that pass through one $(a,t)$.
# There $f-v$ is a fixed vector, and the mean of $w$ is $v$ by definition. So the product has mean zero at every
# place, hence altogether: that is the **law of total expectation**, $E[X]=E\,[\,E[X\mid a_t,t]\,]$. What is left is
#
# $$\boxed{\;\mathcal L_{\text{pair}}(f)=\mathcal L_{\text{place}}(f)+C,\qquad C=E\,\|\varepsilon-a_0-v(a_t,t)\|^2\;}$$
#
# and $C$ does not contain $f$. The same function minimises both, and the gradients are equal. Least squares finds
# conditional means; this is all there is to it.
#
# We try it with four functions that have nothing in common, on the same 200 000 pairs. A difference from $C$ is the
# mean of the middle term, and so it should be within four of its own standard errors of zero.

# %%
g = torch.Generator().manual_seed(4)
n = 200_000
a0, eps = fine.sample(n, g), torch.randn(n, 2, generator=g, **double)
t = torch.rand(n, 1, generator=g, **double)
a_t = path.noise(a0, eps, t)
w, v = eps - a0, fine.velocity(a_t, t, path)


def mean_square(x):
    return x.square().sum(-1).mean()


C = mean_square(w - v)
candidates = {
    "zero": torch.zeros_like(v),
    "the mean of w": -mean + 0 * v,
    "v turned by 90°": torch.stack([-v[:, 1], v[:, 0]], -1),
    "a wave": torch.sin(3 * a_t) + t,
}
print(f"{'f':<18}{'pair':>10}{'place':>10}{'pair - place':>15}")
for name, f in {**candidates, "v itself": v}.items():
    pair, place = mean_square(f - w), mean_square(f - v)
    print(f"{name:<18}{pair:10.5f}{place:10.5f}{pair - place:15.5f}")
for name, f in candidates.items():
    middle = 2 * ((f - v) * (v - w)).sum(-1)
    errors = abs(middle.mean()) / (middle.std() / n**0.5)
    check(f"step 6: {name}, distance from C in standard errors", errors, below=4)

# %% [markdown]
# The columns "pair" and "place" vary widely, their difference does not. Note the last row: even the perfect $v$ has a
# loss of about 3.2. **The loss of flow matching does not go to zero.** It goes to $C$.
#
# What is $C$ made of? Let $C(t)$ be the same mean at one fixed time, so that $C$ is the average of $C(t)$ over $t$. The
# total $E\|w\|^2=2+E\|a_0\|^2$ does not depend on $t$, and by Pythagoras
#
# $$E\,\|w\|^2=E\,\|v(a_t,t)\|^2+C(t),$$
#
# the part that place and time tell plus the part that they do not. (It is the boxed formula for $f=0$, at one time.)
# We know both ends. At $t=0$ nothing is known of the noise: $C(0)=E\|\varepsilon\|^2=2$. At $t=1$ nothing is
# known of the data: $C(1)=E\|a_0-E[a_0]\|^2$.

# %%
grid_t = torch.linspace(0, 1, 41, **double)
told, untold = [], []
for time in grid_t:
    now = fine.velocity(path.noise(a0, eps, time.item())[:20_000], time.item(), path)
    told.append(mean_square(now))
    untold.append(mean_square(w[:20_000] - now))
told, untold = torch.stack(told), torch.stack(untold)

# Exact, from the blobs: E|a_0|^2 and the spread around the mean.
square = (fine.weights * (fine.means.square().sum(-1) + 2 * fine.stds**2)).sum()
total, spread = 2 + square, square - mean @ mean

fig, ax = figure(6.4, 3.9)
ax.fill_between(grid_t, 0, untold, color=COLOURS["data"], alpha=0.25, linewidth=0)
ax.fill_between(grid_t, untold, untold + told, color=COLOURS["velocity"], alpha=0.25, linewidth=0)
ax.plot(grid_t, untold, color=COLOURS["data"], linewidth=1.8)
ax.axhline(total, color=COLOURS["reference"], linewidth=1.2)
ax.text(0.97, 1.6, "$C(t)$: what no network can predict", ha="right")
ax.text(0.03, 3.9, r"$E\,\|v(a_t, t)\|^2$: what place and time tell")
ax.text(0.03, total + 0.15, r"$E\,\|\varepsilon - a_0\|^2$")
ax.set(xlim=(0, 1), ylim=(0, 6.5), xlabel="time $t$ (0 data, 1 noise)", ylabel="mean square")
show(
    fig,
    "The mean square of the pairs' velocities against time, a horizontal black line near 5.4, split into two areas. The lower, blue "
    "one, C(t), stays near 2 up to t = 0.4, rises to almost 5 at t = 0.7 and ends near 3.3. The upper, orange one is the rest.",
)
# 20 000 pairs: the standard error of these means is about 0.02 to 0.03.
check("step 6: both parts against the total", (told + untold - total).abs().max(), below=0.15)
check("step 6: mean of C(t) against C", abs(torch.trapezoid(untold, grid_t) - C), below=0.1)
check("step 6: C(0) against 2", abs(untold[0] - 2), below=0.08)
check("step 6: C(1) against the spread of the data", abs(untold[-1] - spread), below=0.12)

# %% [markdown]
# **What you should see.** The black line is the mean square of what the network is shown. Only the orange part can be
# learnt. The blue part is noise to the network. It is largest around $t=0.7$, where a point may still be bound for any
# blob and its noise is hidden as well. Near the data the blob is plain to see, and about 2 remains, the variance of
# the noise. The average over $t$ is $C$.

# %% [markdown]
# ## Code
#
# ### The path
#
# In the package the straight line is one *path* among others, $a_t=\mu_t\,a_0+\sigma_t\,\varepsilon$, with
# coefficients $\mu_t=1-t$ and $\sigma_t=t$. A dot denotes the derivative in $t$: $\dot\mu_t=-1$, $\dot\sigma_t=1$.
# Here is the class, as installed. Chapter 05 fills in other coefficients.

# %%
listing(
    Linear,
    {
        "return 1 - _tensor(t)": "$\\mu_t=1-t$: how much data is left. `_tensor` only makes a number a "
        "tensor.",
        "return -torch.ones_like": "$\\dot\\mu_t=-1$.",
        "def sigma(": "$\\sigma_t=t$: how much noise there is.",
        "def sigma_dsigma": "$\\sigma_t\\dot\\sigma_t$, the growth of half the variance. Chapter 05 needs it.",
        "return torch.ones_like": "$\\dot\\sigma_t=1$.",
    },
)

# %%
listing(
    Path.noise,
    {"self.sigma(t) * eps": "A point of the path: $\\mu_t\\,a_0+\\sigma_t\\,\\varepsilon$."},
)

# %%
listing(
    Path.conditional_velocity,
    {
        "return": "The velocity of a pair, $\\dot\\mu_t\\,a_0+\\dot\\sigma_t\\,\\varepsilon$: "
        "on this path $\\varepsilon-a_0$."
    },
)

# %%
w_of_path = path.conditional_velocity(a0, eps, t)
check("the package's velocity of a pair against eps - a0", largest(w_of_path - w), below=1e-12)

# %% [markdown]
# ### The network
#
# It takes a point and a time and returns a velocity: a plain multilayer perceptron.


# %%
class MLP(nn.Sequential):
    def __init__(self, sizes, activation=nn.SiLU):
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(sizes):
            layers += [nn.Linear(fan_in, fan_out), activation()]
        super().__init__(*layers[:-1])


# %% [markdown]
# Time is one number among others, and a network may find it hard to hear. An *embedding* makes it louder: the
# network is given $\sin$ and $\cos$ of $\frac\pi2 2^kt$ for $k=0,1,\dots$ We say that it has so many *octaves*. One
# octave, the default, is a quarter turn of a circle as $t$ goes from 0 to 1: smooth, and different at each time.


# %%
class TimeEmbedding(nn.Module):
    frequency: Tensor

    def __init__(self, octaves=1):
        super().__init__()
        self.size = 2 * octaves
        self.register_buffer(
            "frequency", math.pi / 2 * 2.0 ** torch.arange(octaves), persistent=False
        )

    def forward(self, t):
        angle = t * self.frequency
        return torch.cat([angle.sin(), angle.cos()], -1)


class VelocityNet(nn.Module):
    def __init__(self, dim, hidden=(128, 128, 128), octaves=1):
        super().__init__()
        self.time = TimeEmbedding(octaves)
        self.mlp = MLP([dim + self.time.size, *hidden, dim])

    def forward(self, a, t):
        return self.mlp(torch.cat([a, self.time(t)], -1))


# %% [markdown]
# ### The loss
#
# Step 6 in three lines. Note what is *not* here: no $v$, no density, no solver.


# %%
def flow_matching_loss(v, a0, eps, t, path):
    a_t = path.noise(a0, eps, t)
    error = v(a_t, t) - path.conditional_velocity(a0, eps, t)
    return error.square().sum(-1).mean()


# %% [markdown]
# Step 6 says that its gradient is, on average, that of the loss we cannot compute. Here is the test, with an untrained
# network and two numbers of pairs. The difference of the two gradients is a mean of noise without bias; so ten times as
# many pairs should make it about $\sqrt{10}\approx3$ times smaller. (Both gaps are random, so we ask for 1.5 times.)


# %%
def gradient(loss, net):
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, net.parameters())])


def gap_of_gradients(pairs):
    """The difference of the gradients of both losses, relative to their length."""
    rows = [x[:pairs].float() for x in (a0, eps, t, a_t, v)]
    of_pair = gradient(flow_matching_loss(fresh, *rows[:3], path), fresh)
    of_place = gradient((fresh(rows[3], rows[2]) - rows[4]).square().sum(-1).mean(), fresh)
    return (of_pair - of_place).norm() / of_place.norm()


with torch.random.fork_rng(devices=[]):
    torch.manual_seed(0)
    fresh = VelocityNet(2)
few, many = gap_of_gradients(10_000), gap_of_gradients(100_000)
check("gap of the gradients with 100 000 pairs", many, below=0.05)
check("gap with 10 000 pairs over that with 100 000", few / many, above=1.5)

# %% [markdown]
# ### The training
#
# Draw data, noise and a time for each pair; take a gradient step; repeat. The learning rate decays to zero along a
# cosine. Because we know the truth, we can also watch the root mean square error (RMSE) against it, at 4000 points
# of the path. In real life nobody has that curve.

# %%
g = torch.Generator().manual_seed(5)
test_t = torch.rand(4000, 1, generator=g)
test_a = path.noise(toy.sample(4000, g), torch.randn(4000, 2, generator=g), test_t)


def velocity(a, t):
    return toy.velocity(a, t, path)


@torch.no_grad()
def rmse(v, a, t):
    return (v(a, t) - velocity(a, t)).square().sum(-1).mean().sqrt().item()


def any_time(n, generator):
    return torch.rand(n, 1, generator=generator)


def as_drawn(a0, eps):
    """Independent pairs: each data point takes the noise that comes along."""
    return eps


def fit(*, times=any_time, pairing=as_drawn, octaves=1, steps=2500, batch=512, seed=0):
    """Train v from pairs; return it, its losses, and its RMSE after every 50 steps."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # the initial weights
        net = VelocityNet(2, octaves=octaves)
    adam = torch.optim.Adam(net.parameters(), lr=5e-3, fused=True)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    losses, errors = [], []
    for step in range(steps):
        a0 = toy.sample(batch, generator)
        eps = pairing(a0, torch.randn(batch, 2, generator=generator))
        loss = flow_matching_loss(net, a0, eps, times(batch, generator), path)
        adam.zero_grad()
        loss.backward()
        adam.step()
        decay.step()
        losses.append(loss.item())
        if step % 50 == 49:
            errors.append(rmse(net, test_a, test_t))
    return net, losses, errors


net, losses, errors = fit()
check("RMSE of the trained field", errors[-1], below=0.2)

# %%
progress = 50 * np.arange(1, len(errors) + 1)
fig, (left, right) = figure(8.4, 3.6, ncols=2)
left.plot(progress, np.reshape(losses, (-1, 50)).mean(1), color=COLOURS["data"], linewidth=1.8)
left.axhline(C, color=COLOURS["reference"], linewidth=1.2)
left.text(1250, C - 0.12, "$C$, the loss of the exact $v$", ha="center", va="top")
left.set(ylim=(2.6, 4.6), title="loss (mean of 50 steps)")
right.plot(progress, errors, color=COLOURS["error"], linewidth=1.8)
right.set(yscale="log", ylim=(0.08, 2), title="RMSE against the exact $v$")
right.set_yticks([0.1, 0.2, 0.5, 1, 2], ["0.1", "0.2", "0.5", "1", "2"])
right.minorticks_off()
for ax in (left, right):
    ax.set(xlabel="training steps", xlim=(0, 2500))
show(
    fig,
    "Two panels over 2500 training steps. Left, the loss drops within 400 steps close to a horizontal line near 3.2 and then jitters "
    "just above it. Right, on a logarithmic axis, the RMSE against the exact velocity keeps falling, from 0.6 to below 0.1.",
)
last, early = np.mean(losses[-500:]), np.mean(losses[300:800])
check("loss of the last 500 steps over C", last / C, below=1.02, above=0.98)
check("loss of steps 300 to 800 over C", early / C, below=1.06)
check("scatter of the last losses, one standard deviation", np.std(losses[-500:]), above=0.09)
progress_made = errors[-1] / np.mean(errors[6:16])
check("final RMSE over the mean RMSE of steps 300 to 800", progress_made, below=0.6)

# %% [markdown]
# **What you should see.** On the left the loss hits the floor $C$ early and then seems to do nothing. On the right
# the error against the truth goes on falling for the whole training. Both are right. The loss is $C$ plus the
# *square* of the error: a fall of the RMSE from 0.3 to 0.1 changes the loss from $C+0.09$ to $C+0.01$, and from one
# batch to the next the loss jitters by more than that. People stop trainings because "the loss has converged". It has; the
# network has not.
#
# ### The sampler
#
# To sample, start at noise and walk from $t=1$ to $t=0$ along the *flow*, the differential equation
#
# $$\frac{da_t}{dt}=v(a_t,t).$$
#
# The simplest solver is Euler's: pretend that $v$ stays what it is for a short time, and walk straight. `solve`
# repeats such a step. Again as installed:

# %%
listing(
    euler_step,
    {
        "return": "Velocity times time is displacement. `dt` is negative when we go from noise to data: that sign "
        "is all that *against the velocity* means."
    },
)

# %%
listing(
    solve,
    {
        "t0: float": "By default from noise to data.",
        "step: Step": "A better step than Euler's, for chapter 05. Here we always say which one we want.",
        "torch.as_tensor(t": "Times become a column, one for each point: points of one batch may travel "
        "between different times.",
        "dt = (end": "All steps are equally long: $-1/n$ from 1 to 0.",
        "points.append": "One step after the other, each from where the last one ended.",
    },
)

# %% [markdown]
# For one Gaussian with $m_0=0$ the flow can be solved by hand: every point keeps its place in units of the standard
# deviation, $a_t=\sqrt{V_t}\,\varepsilon$, so noise $\varepsilon$ ends at $c\,\varepsilon$. (Chapter 02, exercise 1,
# derives it.) Euler should come close, and twice as close with twice the steps.

# %%
one_blob = GaussianMixture(
    torch.zeros(1, 2, **double), torch.full((1,), c, **double), torch.ones(1, **double)
)
start = torch.randn(500, 2, generator=torch.Generator().manual_seed(6), **double)


def euler_error(steps):
    end = solve(lambda a, t: one_blob.velocity(a, t, path), start, steps=steps, step=euler_step)
    return (end - c * start).norm(dim=-1).mean()


check("one Gaussian: mean error of 200 Euler steps", euler_error(200), below=0.01)
check(
    "error of 100 steps over that of 200", euler_error(100) / euler_error(200), below=2.1, above=1.9
)

# %% [markdown]
# ## Checks
#
# ### The field, as a number
#
# The RMSE of the whole field is one number. Where does it come from? We look at 4000 points of the path at each of
# 21 times, and, at one of these times, at the points one by one.

# %%
g = torch.Generator().manual_seed(7)
data, noise = toy.sample(4000, g), torch.randn(4000, 2, generator=g)
grid_t = torch.linspace(0, 1, 21)


def at_times(measure):
    """measure(points of the path, times), at each of the 21 times."""
    return np.array([measure(path.noise(data, noise, t.item()), t.expand(4000, 1)) for t in grid_t])


def speed(a, t):
    return velocity(a, t).square().sum(-1).mean().sqrt().item()


speeds, net_errors = at_times(speed), at_times(lambda a, t: rmse(net, a, t))
for k in (0, 6, 14, 20):
    print(f"t = {grid_t[k]:.2f}   size of the exact v (root mean square): {speeds[k]:.5f}")

late_a, late_t = path.noise(data, noise, 0.3), torch.full((4000, 1), 0.3)
with torch.no_grad():
    miss_at = (net(late_a, late_t) - velocity(late_a, late_t)).norm(dim=-1)

fig, (left, right) = figure(8.4, 4.4, ncols=2)
left.plot(grid_t, speeds, color=COLOURS["velocity"], marker="^", linestyle="--", markersize=5)
left.plot(grid_t, net_errors, color=COLOURS["error"], marker="X", markersize=5)
left.text(0.32, 2.0, "size of $v$", color="#a06f00")
left.text(0.42, 0.24, "RMSE of the net", color=COLOURS["error"])
left.set(xlabel="time $t$ (0 data, 1 noise)", xlim=(0, 1), ylim=(0, 2.6), box_aspect=1)
plane(right)
order = miss_at.argsort()
dots = right.scatter(*late_a[order].T, c=miss_at[order], s=5, cmap="viridis", vmin=0, vmax=0.5)
fig.colorbar(dots, ax=right, shrink=0.75, label="length of the error", extend="max")
right.set_title("points of the path at $t = 0.3$")
show(
    fig,
    "Left, against time: the size of the exact velocity, between 0.8 and 1.9, and far below it the RMSE of the net, near 0.1, a "
    "little more at t = 0 and around t = 0.3. Right: points at t = 0.3 in three clouds, coloured by the length of the error: dark inside the "
    "clouds, bright in the gaps between them.",
)
check(
    "mean RMSE over the times, relative to the size of v",
    net_errors.mean() / speeds.mean(),
    below=0.1,
)
check("largest of them, relative", (net_errors / speeds).max(), below=0.25)

# %% [markdown]
# **What you should see.** Left: the error is a few percent of the velocity, and largest at the end $t=0$ and around
# $t=0.3$, where the three clouds part. Right: at that time it is not spread evenly. Inside the clouds the net is right.
# The bright points are those in the gaps, where the best guess $m$ tips from one blob to another within a short
# distance: the field has a crease, and the net irons it. Few points lie there, so the net saw few examples.
#
# ### The samples
#
# A field is a means. Let 4000 noise points follow it, in 64 Euler steps, and compare the crowd with true samples. We
# use the *sliced Wasserstein distance*: project both crowds on many lines, sort, and average how far apart the sorted
# points are. Two crowds drawn from the *same* density are not at distance zero. Their distance is the *floor*; a
# perfect sampler scores 1 in units of it. We also count the shares of the blobs, which are uncertain by 0.008.

# %%
test_noise = torch.randn(4000, 2, generator=torch.Generator().manual_seed(8))
g = torch.Generator().manual_seed(9)
truths = [toy.sample(4000, g) for _ in range(8)]


def distance(x, y):
    return ot.sliced_wasserstein_distance(x.numpy(), y.numpy(), n_projections=64, seed=0, p=1)


floor = np.mean([distance(x, y) for x, y in zip(truths[::2], truths[1::2], strict=True)])


def in_floors(x):
    """The mean distance of x from true samples, in units of the floor."""
    return np.mean([distance(x, y) for y in truths]) / floor


def shares(x):
    """The share of the points x that is nearest to each of the three centres."""
    return torch.bincount(torch.cdist(x, toy.means).argmin(-1), minlength=3) / len(x)


@torch.no_grad()
def samples(v, steps=64, start=test_noise):
    return solve(v, start, steps=steps, step=euler_step)


exact_samples, net_samples = samples(velocity), samples(net)
check("exact field, 64 steps: distance in floors", in_floors(exact_samples), below=2)
check("trained field, 64 steps: distance in floors", in_floors(net_samples), below=2)
check("error of the three shares", (shares(net_samples) - toy.weights).abs().max(), below=0.04)

# %% [markdown]
# ### One step lands on the mean
#
# Sixty-four steps are many. What do fewer steps do? The last formula of step 3 knows. One Euler step from any place
# and time to the end gives
#
# $$a-t\,v(a,t)=m(a,t):$$
#
# it jumps to the best guess. A best guess in the sense of least squares is a mean, and the mean of two good answers
# need not be a good answer. At $t=1$ the guess is the same for all, $E[a_0]$, since noise tells nothing about the
# data. All points land on one spot, and no better network could help: it is what the *exact* field does.

# %%
point, late = a_t[:200], torch.full((200, 1), 0.6, **double)
jump = point - late * fine.velocity(point, late, path)
difference = largest(jump - posterior_mean_by_grid(point, late))
check("one Euler step against the best guess", difference, below=1e-4)
one = samples(velocity, steps=1)
check(
    "exact field: distance of the landings from the mean", largest(one - mean.float()), below=1e-5
)
one_of_net = (samples(net, steps=1) - mean.float()).norm(dim=-1).mean()
check("trained field: mean distance of the landings from the mean", one_of_net, below=0.25)

# %%
fig, axes = figure(7.6, 8.0, ncols=2, nrows=2)
for ax, steps in zip(axes.flat, (1, 2, 4, 64), strict=True):
    plane(ax)
    plots.backdrop(ax, toy.log_prob)
    plots.particles(ax, samples(net, steps)[:1500], "flow", size=2.2, alpha=0.7)
    ax.set_title(f"{steps} Euler step{'s' * (steps > 1)} of the trained field")
show(
    fig,
    "Four panels of 1500 samples over the three pale blobs. One step: a small smear between the blobs. Two steps: a triangle with "
    "its corners in the blobs, filled with points. Four steps: three blobs joined by bands of points. 64 steps: three "
    "clean blobs.",
)

# %% [markdown]
# **What you should see.** One step: a smear around the mean, where there are hardly any data. (The exact field would
# make it a single spot.) Two steps: the points fill the triangle between the blobs, as averages of three answers do.
# Four steps: blobs, but still joined. Sixty-four steps: three blobs.
#
# ### The error against the number of steps
#
# How fast does the error fall? We compare each point with the end of its exact flow line (64 steps of the much more
# accurate Runge-Kutta method). An Euler step of length $1/n$ errs in proportion to $1/n^2$, and there are $n$ of them. So the error should fall like $1/n$: twice the steps, half the error.

# %%
exact_end = solve(velocity, test_noise, steps=64, step=rk4_step)
counts = [1, 2, 4, 8, 16, 32, 64, 128]


def miss(x):
    """The mean distance of the points x from the ends of their exact flow lines."""
    return (x - exact_end).norm(dim=-1).mean().item()


misses = [miss(samples(velocity, n)) for n in counts]
net_misses = [miss(samples(net, n)) for n in counts]
for steps, value in zip(counts, misses, strict=True):
    print(f"{steps:>3} Euler steps of the exact v: miss {value:.5f}")
check(
    "exact field: miss of 64 steps over that of 128", misses[-2] / misses[-1], below=2.2, above=1.8
)
check(
    "trained field: miss of 64 steps over that of 128", net_misses[-2] / net_misses[-1], below=1.7
)

fig, ax = figure(6.0, 3.9)
ax.plot(counts, misses, color=COLOURS["reference"], marker="x")
ax.plot(counts, net_misses, color=COLOURS["velocity"], marker="^", linestyle="--")
ax.plot([8, 128], [1.6 / 8, 1.6 / 128], color=COLOURS["noise"], linestyle=":")
ax.set(xscale="log", yscale="log", xlabel="Euler steps", ylabel="miss", ylim=(0.008, 3))
ax.set_xticks(counts, counts)
ax.minorticks_off()
ax.text(40, 0.018, "exact $v$", ha="right")
ax.text(70, 0.07, "trained $v$", color="#a06f00")
ax.text(9, 0.1, "slope of $1/n$", color="#606060", ha="right")
show(
    fig,
    "The miss against the number of Euler steps from 1 to 128, both axes logarithmic. For the exact field it falls from 1.8 and "
    "settles to the slope of 1/n. For the trained field it follows the same curve and then flattens near 0.03.",
)

# %% [markdown]
# **What you should see.** With few steps both curves agree: the error is the solver's, and a better network would not
# help. With many steps they part: the exact field goes on improving like $1/n$, the trained one meets a floor, the
# error of the *network*. More steps would not help there. It pays to know on which side you are.
#
# Sixteen steps mean sixteen calls of the network for one sample. A robot that acts a hundred times a second minds.
# Chapter 02 makes it one.

# %% [markdown]
# ## Explorer
#
# The trained field. On the left, arrows of $-v(a,t)$ and particles that follow it, with the lines that some of them
# left behind. On the right, a promise: where $n$ Euler steps would take each particle from where it is now. Press
# play, or move $t$ from 1 down to 0. Exercise 3 asks you to predict what you will see: do it first.

# %%
flow_field_explorer(net, toy.log_prob)

# %% [markdown]
# **What you should see.** At $t=1$ all arrows point at one spot, the mean, and with $n=1$ all promises lie there. As
# $t$ falls, the arrows begin to disagree, and the promises leave the mean and run to the blobs, along the lines
# between them: each is the best guess $m(a,t)$, and it becomes surer. Near $t=0$ promise and end agree. With larger
# $n$ they agree much earlier.

# %% [markdown]
# ## What can go wrong
#
# ### The clock and the sign
#
# Half of the literature has noise at $t=0$ and data at $t=1$, with the velocity $a_0-\varepsilon$. That is the same
# method with another clock. Mixing both is easily done, by copying the training from one place and the sampler from
# another, and nothing raises an error. There are two things to get right, the clock and the sign, hence four ways to combine them, of which one works. (Somebody who
# turns both has not come back to the start: the clock still tells the network the wrong time.)

# %%
wrong_sign = samples(lambda a, t: -net(a, t))
wrong_clock = samples(lambda a, t: net(a, 1 - t))
both_wrong = samples(lambda a, t: -net(a, 1 - t))
check("sign turned: distance in floors", in_floors(wrong_sign), above=20)
check("clock turned: distance in floors", in_floors(wrong_clock), above=5)
check("both turned: distance in floors", in_floors(both_wrong), above=20)

# %% [markdown]
# A cheap test, before any training: run the sampler with the *exact* field of a toy, as we did above. If that fails,
# no network can save it.
#
# ### Times from one end only
#
# The error of a network is small where it was trained. What if training times come from one end, say because "near
# the data is where it matters" or through a slip in the units of $t$?

# %%
low_net, low_losses, _ = fit(times=lambda n, g: 0.2 * any_time(n, g), steps=800)
high_net, high_losses, _ = fit(times=lambda n, g: 0.8 + 0.2 * any_time(n, g), steps=800)
low_errors, high_errors = (at_times(lambda a, t, v=v: rmse(v, a, t)) for v in (low_net, high_net))
low_samples, high_samples = samples(low_net), samples(high_net)
check("times below 0.2: distance in floors", in_floors(low_samples), above=5)
check("times above 0.8: distance in floors", in_floors(high_samples), above=3)
check("times below 0.2: last losses over C", np.mean(low_losses[-100:]) / C, below=0.8)

fig, ax = figure(6.2, 3.8)
ax.plot(grid_t, net_errors, color=COLOURS["reference"], linewidth=1.6)
ax.plot(grid_t, low_errors, color=COLOURS["error"], marker="X", markersize=5)
ax.plot(grid_t, high_errors, color=COLOURS["error"], marker="v", markersize=5, linestyle="--")
ax.set(
    yscale="log", ylim=(0.03, 5), xlim=(0, 1), xlabel="time $t$ (0 data, 1 noise)", ylabel="RMSE"
)
ax.text(0.1, 0.045, "all times")
ax.text(0.98, 3.1, "times below 0.2", color=COLOURS["error"], ha="right")
ax.text(0.02, 2.9, "times above 0.8", color=COLOURS["error"])
show(
    fig,
    "RMSE against time on a logarithmic axis for three trainings. With all times: near 0.1 throughout. With times below 0.2: about "
    "0.1 at t = 0.1, then rising to over 2. With times above 0.8: as good from 0.85 on, and rising to about 2 towards the data.",
)

# %% [markdown]
# **What you should see.** Each network is good within the times of its training, and useless far from them. And look at
# the third check: the network trained near the data has a *lower* loss than the right one, because $C(t)$ is lower there (the
# figure of step 6). Losses under different laws of $t$ cannot be compared.
#
# ### Noise of another kind
#
# The flow carries $p_1$ to $p_0$, and $p_1$ is the standard normal density. Start from something else and you end at
# something else. In one public repository a sampler started from `torch.rand`, uniform numbers between 0 and 1, where
# the training had used `torch.randn`. One letter.

# %%
uniform_start = samples(net, start=torch.rand(4000, 2, generator=torch.Generator().manual_seed(10)))
check("uniform start: distance in floors", in_floors(uniform_start), above=5)
check("uniform start: share of the largest blob", shares(uniform_start)[0], below=0.2)

fig, axes = figure(8.4, 6.1, ncols=3, nrows=2)
panels = {
    "sign turned": wrong_sign,
    "clock turned": wrong_clock,
    "both turned": both_wrong,
    "times below 0.2 only": low_samples,
    "times above 0.8 only": high_samples,
    "started from torch.rand": uniform_start,
}
for ax, (title, points) in zip(axes.flat, panels.items(), strict=True):
    plane(ax, 4.0)
    plots.backdrop(ax, toy.log_prob)
    plots.particles(ax, points[:1000], "error", size=2.5, alpha=0.7)
    ax.set_title(title)
show(
    fig,
    "Samples of six broken samplers over the three pale blobs. Sign turned and both turned: a star whose three rays run between the "
    "blobs, and points scattered far outside. Clock turned: three heaps, too small and too near the middle. Times below 0.2: "
    "three torn heaps, thrown outwards. Times above 0.8: one heap in the middle. Uniform start: two sharp-edged patches "
    "and a few points in the largest blob.",
)

# %% [markdown]
# **What you should see.** Six failures; in the first three and the last the network is perfectly good. Learn to know
# the faces. A *star*: the sign is wrong, points flee the data and pile up on the borders between blobs. *Small heaps
# drawn to the middle*: the clock is wrong. That is the treacherous one, for at a glance it looks right. *Torn heaps* or
# *one big heap*: a part of the time was never learnt, the early part of the walk or the late one. *Sharp edges and wrong
# shares*: look at the start.
#
# ### A nervous clock
#
# More octaves in the time embedding give the network more to work with. Does it hurt? We train with ten, and compare
# two things: the field, and its derivative in $t$.


# %%
def rate_in_time(v, a, t):
    """d_t v at a fixed place, by automatic differentiation (chapter 02 explains how)."""
    return torch.func.jvp(lambda s: v(a, s), (t,), (torch.ones_like(t),))[1]


nervous_net, _, nervous_errors = fit(octaves=10, steps=1200)
calm_net, _, calm_errors = fit(steps=1200)
true_rate = rate_in_time(velocity, test_a, test_t)
nervous_rate, calm_rate = (
    (rate_in_time(v, test_a, test_t) - true_rate).square().sum(-1).mean().sqrt().item()
    for v in (nervous_net, calm_net)
)
print(f"size of the exact d_t v (root mean square): {mean_square(true_rate).sqrt():.5f}")
check("RMSE of v, ten octaves over one", nervous_errors[-1] / calm_errors[-1], below=1.2)
check("RMSE of d_t v, ten octaves over one", nervous_rate / calm_rate, above=5)
check("ten octaves, 64 steps: distance in floors", in_floors(samples(nervous_net)), below=2)

here = torch.tensor([[1.1, 0.2]]).expand(400, 2)
clock = torch.linspace(0.1, 0.9, 400)[:, None]
looks = {
    nervous_net: {"color": COLOURS["error"], "linewidth": 0.9, "label": "ten octaves"},
    velocity: {"color": COLOURS["reference"], "linewidth": 2.4, "label": "exact"},
    calm_net: {"color": COLOURS["velocity"], "linestyle": "--", "label": "one octave"},
}
fig, (left, right) = figure(8.4, 3.8, ncols=2)
with torch.no_grad():
    for v, look in looks.items():
        left.plot(clock, v(here, clock)[:, 0], **look)
        right.plot(clock, rate_in_time(v, here, clock)[:, 0], **look)
left.set(title="first component of $v$ at (1.1, 0.2)", xlabel="time $t$", xlim=(0.1, 0.9))
right.set(title="its derivative in $t$", xlabel="time $t$", xlim=(0.1, 0.9), ylim=(-30, 30))
left.legend(frameon=False)
show(
    fig,
    "Against time from 0.1 to 0.9 at one place. Left, the first component of the velocity: the exact curve and both nets are close, the "
    "one with ten octaves with a fine tremor. Right, its derivative: exact and one octave are smooth curves between -3 and 8, ten "
    "octaves a band of wild swings around them.",
)

# %% [markdown]
# **What you should see.** One place, as time goes by. Left: the exact $v$ (black), the network with one octave (orange)
# and that with ten (vermilion). The nervous one is as good as the calm one, with a fine tremor. For flow matching that
# is harmless: the solver averages the tremor away, and the samples are as good as any (the third check). Right: the derivatives. A tremor that is small and fast has a large
# derivative, and this one drowns the truth. Chapter 02 trains on such a derivative. That is why one octave is the
# default of this book.

# %% [markdown]
# ## Exercises
#
# Each stub raises `NotImplementedError`. Replace its body and run the cell: a ✓ line says that you are done.

# %% [markdown]
# ### 1. A network with the other clock · ●○○ · 10 min
#
# A library gives you a trained network $f(x,s)$ with the other convention: $s=0$ is noise, $s=1$ is data,
# $x_s=s\,a_0+(1-s)\,\varepsilon$, and $f$ was regressed on $a_0-\varepsilon$. Turn it into a velocity $v(a,t)$ of
# this book. (Above, "both turned" failed. Here both have to be turned. What is the difference?)


# %% tags=["exercise", "raises-exception"]
def from_other_clock(f):
    raise NotImplementedError


ours = from_other_clock(lambda x, s: (posterior_mean_by_grid(x, 1 - s) - x) / (1 - s))
difference = largest(ours(point, late) - fine.velocity(point, late, path))
check("exercise 1: error of the converted velocity", difference, below=1e-4)

# %% [markdown]
# <details><summary>Hint</summary>
#
# The same point, $x_s=a_t$: which $s$ belongs to $t$? Then use the chain rule, $\frac{d}{dt}=\frac{ds}{dt}\frac{d}{ds}$.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# $s=1-t$, so $ds/dt=-1$ and $v(a,t)=-f(a,1-t)$. Above we turned the clock and the sign of a network that had been
# trained with *our* clock. Here they are turned because the network was trained with the other one. Conventions
# belong to a network as much as its weights.
#
# ```python
# def from_other_clock(f):
#     return lambda a, t: -f(a, 1 - t)
# ```
#
# </details>

# %% [markdown]
# ### 2. Find the bug · ●○○ · 10 min
#
# A user of a well-known flow-matching library asked why his model would not train properly. In our letters his loss
# was this one. It runs, its shapes are right, and it falls quickly, even below the floor $C$. Find the mistake and write
# the loss correctly. Before you open the solution: what does the network learn with the wrong loss, and what is the
# least value of that loss?
#
# ```python
# def users_loss(v, a0, eps, t):
#     a_t = (1 - t) * a0 + t * eps
#     target = eps - a0
#     return (v(a0, t) - target).square().sum(-1).mean()
# ```


# %% tags=["exercise", "raises-exception"]
def repaired_loss(v, a0, eps, t):
    raise NotImplementedError


truth = repaired_loss(lambda a, t: fine.velocity(a, t, path), a0, eps, t)
wrong = repaired_loss(lambda a, t: -a, a0, eps, t)
check("exercise 2: loss of the exact v, over C", truth / C, below=1 + 1e-9, above=1 - 1e-9)
check("exercise 2: loss of what the user's network learnt, over C", wrong / C, above=1.5)

# %% [markdown]
# <details><summary>Hint</summary>
#
# A loss below $C$ is too good to be true: the network must be told something that a sampler does not know. Trace what
# goes into `v`.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# The network is given the clean point $a_0$ instead of the noisy $a_t$. Then the best it can do is
# $E[\varepsilon-a_0\mid a_0]=-a_0$, and what remains is $E\|\varepsilon\|^2=2$, well below $C$: predicting is easier if
# you may look at the answer. At sampling time nobody shows it a clean point. A linter that warns of unused variables
# would have found this one.
#
# ```python
# def repaired_loss(v, a0, eps, t):
#     a_t = (1 - t) * a0 + t * eps
#     target = eps - a0
#     return (v(a_t, t) - target).square().sum(-1).mean()
# ```
#
# </details>

# %% [markdown]
# ### 3. Predict, then move the slider · ●○○ · 10 min
#
# Answer before you touch the explorer. Then move its sliders, and then run the cell. The check uses the exact field and
# the 4000 points of `test_noise`; the trained field of the explorer is close to it.
#
# 1. Follow the flow to the time $t$ and take *one* Euler step from there. Which is the first of
#    $t=0.9,\,0.8,\dots,0.1$ at which the step ends, on average, less than 0.25 from the true end?
# 2. At $t=1$, in which direction does the arrow at the place $E[a_0]$ point? Answer with its length.
# 3. By which factor does the miss fall from 16 Euler steps to 128, roughly?
#
# Return the three numbers.


# %% tags=["exercise", "raises-exception"]
def prediction():
    raise NotImplementedError


first_t, length, factor = prediction()
on_the_way = solve(velocity, test_noise, steps=60, step=rk4_step, trajectory=True)
one_step_miss = {}
for k in range(1, 10):  # t = .9, .8, …, .1
    now, start_t = on_the_way[6 * k], 1 - k / 10
    one_step_miss[start_t] = miss(solve(velocity, now, start_t, 0.0, 1, euler_step))
true_t = max(t for t, value in one_step_miss.items() if value < 0.25)
true_length = velocity(mean[None].float(), torch.ones(1, 1)).norm()
check("exercise 3: error of your t", abs(first_t - true_t), below=0.05)
check("exercise 3: error of your length", abs(length - true_length), below=1e-3)
check("exercise 3: error of your factor", abs(factor - misses[4] / misses[7]), below=1.5)

# %% [markdown]
# <details><summary>Hint</summary>
#
# For 1, watch the right panel with $n=1$: its title says how far off it is. For 2, the formula for $v(a,1)$ in step 3.
# For 3, the slope.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# The best guess settles late: not before $t=0.4$ is it, on average, within 0.25 of the end. The arrow at the mean has
# length zero. Eight times the steps, an eighth of the error.
#
# ```python
# def prediction():
#     return 0.4, 0.0, 8
# ```
#
# </details>

# %% [markdown]
# ### 4. The floor of the loss, for one Gaussian · ●●○ · 15 min
#
# Let the data be normal with standard deviation $c$ in each of two coordinates. How large is
# $C(t)=E\|\varepsilon-a_0-v(a_t,t)\|^2$? Write it as a function of $t$ and $c$. The check compares it with 200 000
# pairs; test your formula at both ends first.


# %% tags=["exercise", "raises-exception"]
def floor_of_gaussian(t, c):
    raise NotImplementedError


g = torch.Generator().manual_seed(11)
x0 = c * torch.randn(n, 2, generator=g, **double)
noise_eps = torch.randn(n, 2, generator=g, **double)
for time in (0.1, 0.5, 0.9):
    x = path.noise(x0, noise_eps, time)
    by_pairs = mean_square(noise_eps - x0 - one_blob.velocity(x, time, path))
    ratio = floor_of_gaussian(time, c) / by_pairs
    check(f"exercise 4: ratio to the pairs at t = {time}", ratio, below=1.02, above=0.98)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Given $a_t=a$, the velocity of a pair is $(a-a_0)/t$: only $a_0$ is uncertain. Of the variance of $a_0$, what does the
# regression line of step 4 leave unexplained?
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# Regression leaves $c^2-\frac{((1-t)c^2)^2}{V_t}=\frac{c^2t^2}{V_t}$ of the variance of each coordinate of $a_0$.
# Divide by $t^2$ and add two coordinates: $C(t)=2c^2/V_t$. At $t=0$ this is 2, at $t=1$ it is $2c^2$, as it must be.
#
# ```python
# def floor_of_gaussian(t, c):
#     return 2 * c**2 / ((1 - t) ** 2 * c**2 + t**2)
# ```
#
# </details>

# %% [markdown]
# ### 5. A perfect fit to five points · ●●○ · 20 min
#
# A real data set is finite. Let it be five points, drawn with equal chance. Write the *exact* marginal velocity, the
# one that a perfect network would learn. Where do its samples end? And is that what you want from a generative model?


# %% tags=["exercise", "raises-exception"]
def velocity_of_points(a, t, points):
    raise NotImplementedError


five = fine.sample(5, torch.Generator().manual_seed(12))
start = torch.randn(300, 2, generator=torch.Generator().manual_seed(13), **double)
difference = velocity_of_points(start, torch.ones(300, 1, **double), five) - (start - five.mean(0))
check("exercise 5: v(a, 1) against a - E[a_0]", largest(difference), below=1e-9)
end = solve(lambda a, t: velocity_of_points(a, t, five), start, steps=200, step=euler_step)
nearest = torch.cdist(end, five).min(-1)
check("exercise 5: greatest distance from a data point", nearest.values.max(), below=1e-6)
check("exercise 5: data points that are reached", len(nearest.indices.unique()), above=4)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Take step 5 with blobs of width zero. What are $V_k$ and $m_k(a,t)$ if $c_k=0$?
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# With $c_k=0$ the variance is $t^2$, and the best guess within a "blob" is the point itself. The responsibilities
# are a softmax of $-|a-(1-t)\,a^{(k)}|^2/2t^2$. Every sample ends on one of the five points: the perfect fit
# *memorises*. What makes real models create something new is that they do **not** reach the minimum of their loss.
# The last Euler step starts at $t=1/200$, where the softmax has decided, and jumps to the best guess.
#
# ```python
# def velocity_of_points(a, t, points):
#     g = (-(a[:, None] - (1 - t)[..., None] * points).square().sum(-1) / (2 * t**2)).softmax(-1)
#     return (a - g @ points) / t
# ```
#
# </details>

# %% [markdown]
# ### 6. Straighter lines from better pairs · ●●○ · 20 min
#
# The closed forms of steps 3 to 5 needed data and noise to be *independent*. Steps 1, 2 and 6 did not: they work for
# any rule that pairs them, as long as each side keeps its own distribution. So pair them well: within a batch, choose
# the partners that make the sum of the squared distances least (`scipy.optimize.linear_sum_assignment` finds them).
# Lines then cross less, pairs agree more, and flow lines become straighter. Write `pair_up`, which reorders the noise of a batch. The check trains with it
# (600 steps, batches of 128) and asks what two Euler steps are worth.


# %% tags=["exercise", "raises-exception"]
def pair_up(a0, eps):
    raise NotImplementedError


paired_net, paired_losses, _ = fit(pairing=pair_up, steps=600, batch=128)
gain = in_floors(samples(net, steps=2)) / in_floors(samples(paired_net, steps=2))
check("exercise 6: distance of two steps, independent pairs over good pairs", gain, above=2)
check("exercise 6: last losses over C", np.mean(paired_losses[-100:]) / C, below=0.5)

# %% [markdown]
# <details><summary>Hint</summary>
#
# The function wants a matrix of costs and returns which column belongs to which row. What are the rows here, what the
# columns, and which of the two sides do you reorder?
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# The idea is known as minibatch optimal transport (Tong and others, 2302.00482). With better pairs the velocity of a
# pair is nearly known from $(a,t)$, so $C$ falls, and nearly constant along a flow line, so Euler errs less. The batch
# limits it: the best pairing *within* 128 points is not the best of all. In the book we do not use it, because SOM
# has no data points to pair.
#
# ```python
# from scipy.optimize import linear_sum_assignment
#
#
# def pair_up(a0, eps):
#     _, partner = linear_sum_assignment(torch.cdist(a0, eps).square().numpy())
#     return eps[torch.from_numpy(partner)]
# ```
#
# </details>

# %% [markdown]
# ## Summary
#
# * A path joins data and noise, $a_t=(1-t)\,a_0+t\,\varepsilon$. Time 0 is data, time 1 is noise.
# * A pair moves at $\varepsilon-a_0$. A place has the mean velocity of the pairs that pass,
#   $v(a,t)=E[\varepsilon-a_0\mid a_t=a]=(a-m)/t$. For a mixture of Gaussians it is a formula.
# * Points that follow $v$ are distributed as $p_t$ at every time. Lines of pairs cross; flow lines do not.
# * Regression on the velocities of pairs finds the velocity of places. Both losses differ by a constant $C$, which is
#   the floor of the training loss. A loss that stands still says little.
# * One Euler step from $(a,t)$ jumps to the best guess $m(a,t)$; from noise that is the mean of the data.
# * Euler's error falls like $1/n$ until the error of the network takes over.
# * Clock, sign, the law of $t$, the law of the noise: all four raise no error when they are wrong. Test the
#   sampler with an exact field first.

# %% [markdown]
# ## References
#
# Mind the clock: in these papers noise is at time 0 and data at time 1.
#
# * Lipman, Chen, Ben-Hamu, Nickel, Le: *Flow Matching for Generative Modeling*,
#   [2210.02747](https://arxiv.org/abs/2210.02747). The loss of this chapter. Read section 3: theorem 1 says that the
#   mean velocity has the right marginals (our chapter 05), theorem 2 that the two losses have the same gradient.
# * Liu, Gong, Liu: *Flow Straight and Fast*, [2209.03003](https://arxiv.org/abs/2209.03003). The straight path, lines
#   that cross and flow lines that do not, and how to straighten them.
# * Albergo, Vanden-Eijnden: *Building Normalizing Flows with Stochastic Interpolants*,
#   [2209.15571](https://arxiv.org/abs/2209.15571). The same idea, found at the same time, with other paths.
# * Tong and others: *Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport*,
#   [2302.00482](https://arxiv.org/abs/2302.00482). Better pairs (exercise 6).
# * Bertrand and others: *On the Closed-Form of Flow Matching: Generalization Does Not Arise from Target Stochasticity*,
#   [2506.03719](https://arxiv.org/abs/2506.03719). What the exact field of a finite data set does, and why networks do
#   something else (exercise 5).
#
# ---
#
# Previous: [00 · Start here](00_start_here.ipynb). Next: [02 · MeanFlow](02_meanflow.ipynb), where one step is enough.
