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
# field. First you find that field with pencil and paper, for a case where it has a formula. Then you write the loss
# and the sampler, train a network from nothing but pairs of data and noise, and compare it with the formula. At the
# end you break it in seven ways, and learn to tell which one it was.
#
# **What you will learn.** The difference between the velocity of one pair and the velocity of a *place*. Why a
# network that is shown only the first learns the second. Why its loss stops falling before it stops learning. Why
# many small steps work, and one big step lands on the mean.
#
# **What you need.** Calculus, a little probability (conditional expectation, Bayes' rule) and PyTorch. Nothing
# about flows, diffusion or robots.
#
# **Time and hardware.** ≈ 40 s on one CPU core, most of it for five short trainings; allow an hour and a half for
# reading and two hours for the exercises. No GPU.
#
# Previous: [00 · Start here](00_start_here.ipynb). Next: [02 · MeanFlow](02_meanflow.ipynb).

# %% [markdown]
# ## The idea in one picture
#
# ### Noise is easy, data is hard
#
# We have examples of something: pictures, sentences, good actions of a robot. They were drawn from some density
# $p_0$, and we would like more of them. Drawing from $p_0$ itself is hard, for its formula is unknown or unwieldy.
# Drawing from the standard normal density is easy: `torch.randn`. So we look for a machine that moves normal points
# until they are distributed as $p_0$.
#
# ### Pairs and lines
#
# Take a *data point* $a_0$, drawn from $p_0$, and a *noise point* $\varepsilon$, drawn from the standard normal
# density, independently of each other. Join them by a straight line:
#
# $$a_t=(1-t)\,a_0+t\,\varepsilon,\qquad 0\le t\le1 .$$
#
# The letter $t$ is the *path time*. **Time $t=0$ is data and time $t=1$ is noise**, in the whole book. (The letter
# $a$ is for *action*; for now just a point.) The distribution of $a_t$ is called $p_t$: $p_1$ is the standard normal
# density, and between 1 and 0 it changes gradually into the data's.
#
# If only the noise points knew their partners, each could walk along its line and arrive at data. But at sampling
# time there are no partners. All that a moving point knows is **where it is and what time it is**. At one place and
# time many lines meet, and they point in different directions. What should a point do there? The answer of flow
# matching: follow the *mean* of their velocities.

# %%
import math
from functools import partial
from itertools import combinations, pairwise

import numpy as np
import torch
from torch import Tensor, nn

from som_lite.flow import matching
from som_lite.flow.densities import GaussianMixture, three_modes
from som_lite.flow.ode import euler_step, rk4_step, solve
from som_lite.flow.paths import VP, Linear, Path
from som_lite.view import plots
from som_lite.view.explorers import flow_field_explorer
from som_lite.view.notebook import check, listing, show
from som_lite.view.style import BACKDROP, COLOURS, figure, plane

torch.set_num_threads(1)  # small nets: more threads cost more than they bring
double = {"dtype": torch.float64}
path = Linear()

# %% [markdown]
# For a first picture the data are numbers, drawn from two blobs around $-1.5$ and $1.5$; then the second axis is free
# for the time. `blob_velocity` is the mean velocity, by a formula that we derive below, and `solve` follows it in 100
# small steps.

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

# %% tags=["hide-input"]
times = torch.linspace(1, 0, 101, **double)
places = torch.tensor([[0.75, 0.7], [0.5, -0.25], [0.3, 0.2]], **double)  # (t, a)
drifts = blob_velocity(places[:, 1:], places[:, :1])[:, 0]
height = torch.linspace(-3, 3, 121, **double)[:, None]
p_t = torch.stack([blobs.noised(path, t).log_prob(height).exp() for t in times], dim=1)
fig, (left, right) = figure(8.4, 4.2, ncols=2)
for ax in (left, right):
    levels = np.linspace(0.02, float(p_t.max()) ** 0.5, 9) ** 2
    ax.contourf(times, height[:, 0], p_t, levels=levels, cmap=BACKDROP, zorder=0)
    ax.contour(times, height[:, 0], p_t, levels=levels[2::2], colors="white", linewidths=0.8)
    ax.set(xlim=(1, 0), ylim=(-3, 3), xlabel="time $t$: from noise to data", yticks=[-3, 0, 3])
left.plot([1, 0], torch.cat([eps, a0], 1)[:30].T, color=COLOURS["data"], linewidth=0.6, alpha=0.7)
right.plot(times, flow[:, :30, 0], color=COLOURS["reference"], linewidth=0.6, alpha=0.7)
for ax in (left, right):
    for place, drift in zip(places, drifts, strict=True):
        plots.arrow(ax, place, [-0.17, -0.17 * drift], "velocity", width=0.014)
left.set(ylabel="$a_t$", title="straight lines of 30 pairs")
right.set(title="30 points that follow the mean velocity")
show(
    fig,
    "Time from noise at the left to data at the right, position upwards, over shades of a density that splits from one blob "
    "into two. Left: 30 straight blue lines join noise to data and cross everywhere. Right: 30 black curves from the same "
    "noise points fan out into the same two blobs and never cross. Three orange arrows lie along the curves.",
)

# %% [markdown]
# **What you should see.** Noise ($t=1$) is on the left and data ($t=0$) on the right, the direction in which a
# sampler walks. Left panel: the lines of 30 pairs cross everywhere. The three orange arrows show the mean velocity at
# three places; few lines agree with them. Right panel: from the same 30 starts, points that follow the mean velocity
# at every moment. Their *flow lines* bend, and never cross.
#
# The shades behind are the density $p_t$, the same in both pictures. That is the surprise: **as a crowd, the points
# on the right cannot be told from those on the left, at any time.** Only who goes where has changed.
#
# Two claims, two checks. In one dimension lines that do not cross keep their order, while the ends of independent
# pairs have their orders by chance: half of all pairs of lines cross. And for the crowd we measure the greatest gap
# between the distribution function of the points and that of $p_t$.


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
    points = points.sort(dim=0).values
    exact = torch.special.ndtr((points - law.means.T) / law.stds) @ law.weights
    ranks = torch.arange(len(points) + 1, **double) / len(points)
    return torch.maximum((exact - ranks[:-1]).abs().max(), (exact - ranks[1:]).abs().max())


# 4000 true draws exceed 1.95 / sqrt(4000) = 0.031 once in a thousand times (Kolmogorov).
on_lines = max(distance_from_law(path.noise(a0, eps, t), t) for t in (0.5, 0.25, 0.0))
on_flow = max(distance_from_law(flow[round(100 - 100 * t)], t) for t in (0.5, 0.25, 0.0))
check("straight lines, greatest gap to p_t at t = 0.5, 0.25 and 0", on_lines, below=0.031)
check("flow lines, greatest gap to p_t at t = 0.5, 0.25 and 0", on_flow, below=0.031)

# %% [markdown]
# That a crowd which follows the mean velocity keeps the density $p_t$ is a theorem. Chapter 05 proves it. Here we
# have tested it.
#
# Why can flow lines never cross? At a crossing two lines would leave one place at one time in two directions, but the
# mean velocity there is one vector. Nor can they merge: $v$ is smooth, and then the equation of motion has a single
# solution through each place and time.
#
# **Stop and think.** On the plane there is no axis left for the time: a flow line is drawn as a curve. May two such
# curves cross?
#
# <details><summary>Answer</summary>
#
# Yes. Two points may visit one place at *different* times, when its mean velocity differs.
#
# </details>
#
# What is the mean velocity, as a formula? And how does a network learn it from pairs?

# %% [markdown]
# ## Derivation
#
# From here on the data live on the plane: three blobs that hold 50, 30 and 20 % of the mass. Every step is checked in
# the cell that follows it, in 64-bit numbers, at 200 random points of the path.

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
ahead, behind = ((1 - moment) * a0 + moment * eps for moment in (t + h, t - h))
check("step 1: speed of the pair", largest((ahead - behind) / (2 * h) - (eps - a0)), below=1e-12)

# %% [markdown]
# ### Step 2: the velocity of a place
#
# Now fix a place $a$ and a time $t$, and look at all pairs whose line passes there at that time. The mean of their
# velocities is the **marginal velocity**
#
# $$v(a,t)=E\,[\,\varepsilon-a_0\mid a_t=a\,].$$
#
# Take it literally: draw two million pairs, keep those that pass close to $a$, and average.

# %%
half = 0.5
places = torch.tensor([[0.1, 0.35], [-1.3, -0.4], [1.1, -0.9]])
g = torch.Generator().manual_seed(2)
many_a0, many_eps = toy.sample(2_000_000, g), torch.randn(2_000_000, 2, generator=g)
many_a = (1 - half) * many_a0 + half * many_eps
close = [(many_a - place).norm(dim=-1) < 0.05 for place in places]
met = [(many_eps - many_a0)[rows] for rows in close]  # velocities of the pairs that pass by

# %% tags=["hide-input"]
fig, ax = figure(5.2, 5.2)
plane(ax)
plots.backdrop(ax, toy.log_prob)
for place, w in zip(places, met, strict=True):
    for one in w[:30]:
        plots.arrow(ax, place, -0.4 * one, "data", width=0.0025)
    plots.arrow(ax, place, -0.4 * w.mean(0), "velocity", width=0.011)
dots = plots.particles(ax, places, "noise", size=6, alpha=1.0)
dots.set(zorder=6, markeredgecolor="white", markeredgewidth=1.0)
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
# all that pass by (orange). As always in this book, velocities are drawn *backwards*, as $-v$, the way a sampler
# walks; here they are shortened as well. At the place in the middle the blue arrows are bound for three different
# blobs. The orange arrow is short, and it is nobody's. Yet it is the one that counts.
#
# The package has the formula that we want, as `fine.velocity`. Do our averages agree with it? They are means over
# more than 300 pairs, whose velocities scatter by at most two units in each coordinate. So they are uncertain by
# about 0.1 or less. We allow twice that.

# %%
exact = fine.velocity(places.double(), half, path)
assert min(map(len, met)) > 300
worst = max((w.mean(0) - exact[k]).norm() for k, w in enumerate(met))
check("step 2: mean of those who pass by, against v, at the worst place", worst, below=0.2)

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


def error_by_grid(time):
    same = torch.full_like(t, time)
    point = (1 - time) * a0 + time * eps
    by_grid = (point - posterior_mean_by_grid(point, same)) / time
    return largest(by_grid - fine.velocity(point, same, path))


worst = max(map(error_by_grid, (0.25, 0.6, 1.0)))
check("step 3: (a - m) / t by Bayes' rule, worst of t = 0.25, 0.6 and 1", worst, below=1e-4)

# %% [markdown]
# The factor $1/t$ looks dangerous at $t=0$, but the numerator vanishes there too. There $a_t$ *is* the data point,
# and about the noise one knows nothing: $v(a,0)=E[\varepsilon]-a=-a$. At the other end $a_t$ is the noise, and
# about the data one knows nothing: $v(a,1)=a-E[a_0]$.

# %%
assert largest(fine.velocity(a, 0.0, path) + a) < 1e-12  # v(a, 0) = -a
# The weights of the blobs are 32-bit numbers and sum to one up to 1e-8; hence the bound.
difference = largest(fine.velocity(a, 1.0, path) - (a - mean))
check("step 3: v(a, 1) against a - E[a_0]", difference, below=1e-7)

# %% [markdown]
# ### Step 4: one Gaussian
#
# Let the data be a single blob, normal with centre $b$ and standard deviation $c$. Then $a_0$ and $a_t$ are jointly
# normal, and the best guess of one from the other is a straight line, as in linear regression: mean plus slope
# times deviation, where slope is covariance over variance. The covariance of $a_0$ and $(1-t)\,a_0+t\,\varepsilon$
# is $(1-t)\,c^2$ in each coordinate, and the variance of $a_t$ is $V_t=(1-t)^2c^2+t^2$. So
#
# $$m(a,t)=b+\frac{(1-t)\,c^2}{V_t}\,\big(a-(1-t)\,b\big).$$
#
# The check draws a million pairs and fits the regression line. Its slope is uncertain by about 0.001.

# %%
b, c, time = 0.7, 0.4, 0.6
g = torch.Generator().manual_seed(3)
of_blob = b + c * torch.randn(1_000_000, generator=g, **double)
noisy = (1 - time) * of_blob + time * torch.randn(1_000_000, generator=g, **double)
covariance = torch.cov(torch.stack([of_blob, noisy]))
slope = covariance[0, 1] / covariance[1, 1]
by_formula = (1 - time) * c**2 / ((1 - time) ** 2 * c**2 + time**2)
print(f"slope by formula {by_formula:.5f}, by regression {slope:.5f}")
check("step 4: difference of the slopes", abs(slope - by_formula), below=0.004)

# %% [markdown]
# ### Step 5: a mixture of Gaussians
#
# Our data have three blobs: centres $b_k$, standard deviations $c_k$, weights $\pi_k$. To draw a point, draw a blob and
# then a point of it. If somebody told us that it was blob $k$, step 4 would give the best guess; call it $m_k(a,t)$.
# Nobody does, but Bayes' rule says how likely each blob is, given where we are:
#
# $$\gamma_k(a,t)=\frac{\pi_k\,\mathcal N\big(a;\,(1-t)\,b_k,\,V_{k}I\big)}{\sum_j \pi_j\,\mathcal N\big(a;\,(1-t)\,b_j,\,V_{j}I\big)},
# \qquad V_k=(1-t)^2c_k^2+t^2 .$$
#
# Here $\mathcal N(a;\,b,VI)$ is the density at $a$ of a normal with mean $b$ and variance $V$ in each coordinate. The
# $\gamma_k$ are called *responsibilities*. They are the weights with which to average the three guesses:
#
# $$m(a,t)=\sum_k \gamma_k(a,t)\,m_k(a,t),\qquad v(a,t)=\frac{a-m(a,t)}t .$$
#
# Here it is in five lines. A softmax of logarithms is Bayes' rule without overflow.


# %%
def mixture_velocity(a, t, centres, stds, weights):
    V = (1 - t) ** 2 * stds**2 + t**2  # (n, 3)
    apart = a[:, None] - (1 - t)[..., None] * centres  # (n, 3, 2): from the centre of each blob
    # On the plane the normal density is exp(-|apart|^2 / 2V) / (2 pi V).
    gamma = (weights.log() - V.log() - apart.square().sum(-1) / (2 * V)).softmax(-1)  # (n, 3)
    guesses = centres + ((1 - t) * stds**2 / V)[..., None] * apart  # (n, 3, 2): step 4
    return (a - (gamma[..., None] * guesses).sum(1)) / t


ours = mixture_velocity(a, t, fine.means, fine.stds, fine.weights)
difference = largest(ours - fine.velocity(a, t, path))
check("step 5: our formula against the package", difference, below=1e-12)

# %% [markdown]
# That is the **truth** of this chapter: an exact marginal velocity, to hold a network against.
#
# ### Step 6: learn the mean by looking at the parts
#
# Outside textbooks there is no formula for $v$. Suppose that a function $f(a,t)$ is to imitate it. From here on $E$
# is the mean over pairs *and* over a time $t$, drawn uniformly from $[0,1]$. The loss that we *want* to minimise is
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
# The middle term has mean zero. For take the mean over all pairs that pass through one $(a,t)$: there $f-v$ is a
# fixed vector, and the mean of $w$ is $v$ by definition. So the product has mean zero at every place, hence
# altogether: that is the **law of total expectation**, $E[X]=E\,[\,E[X\mid a_t,t]\,]$. What is left is
#
# $$\boxed{\;\mathcal L_{\text{pair}}(f)=\mathcal L_{\text{place}}(f)+C,\qquad C=E\,\|\varepsilon-a_0-v(a_t,t)\|^2\;}$$
#
# and $C$ does not contain $f$. The same function minimises both, and the gradients are equal. **Least squares finds
# conditional means**; this is all there is to it.
#
# We try it with four functions that have nothing in common, on the same 200 000 pairs. The middle term should be
# within four of its own standard errors of zero.

# %%
g = torch.Generator().manual_seed(4)
pairs = 200_000
a0, eps = fine.sample(pairs, g), torch.randn(pairs, 2, generator=g, **double)
t = torch.rand(pairs, 1, generator=g, **double)
a_t = path.noise(a0, eps, t)
w, v = eps - a0, fine.velocity(a_t, t, path)


def mean_square(vectors):
    return vectors.square().sum(-1).mean()


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
middle = [2 * ((f - v) * (v - w)).sum(-1) for f in candidates.values()]
errors = max(abs(term.mean()) / (term.std() / pairs**0.5) for term in middle)
check("step 6: greatest distance from C, in standard errors", errors, below=4)

# %% [markdown]
# The columns "pair" and "place" vary widely, their difference does not. Even the perfect $v$ has a loss of about 3.2:
# **the loss of flow matching does not go to zero.** It goes to $C$.
#
# What is $C$ made of? Let $C(t)$ be the same mean at one fixed time. The total $E\|w\|^2=2+E\|a_0\|^2$ does not
# depend on $t$, and by Pythagoras
#
# $$E\,\|w\|^2=E\,\|v(a_t,t)\|^2+C(t),$$
#
# the part that place and time tell plus the part that they do not. (It is the boxed formula for $f=0$.) We know both
# ends. At $t=0$ nothing is known of the noise: $C(0)=E\|\varepsilon\|^2=2$. At $t=1$ nothing is known of the data:
# $C(1)=E\|a_0-E[a_0]\|^2$.

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

# 20 000 pairs: the standard error of these means is about 0.02 to 0.03.
check("step 6: both parts against the total", (told + untold - total).abs().max(), below=0.15)
check("step 6: mean of C(t) against C", abs(torch.trapezoid(untold, grid_t) - C), below=0.1)
ends = max(abs(untold[0] - 2), abs(untold[-1] - spread))
check("step 6: C(0) against 2, C(1) against the spread of the data", ends, below=0.12)

# %% tags=["hide-input"]
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

# %% [markdown]
# **What you should see.** The black line is the mean square of what the network is shown. Only the orange part can be
# learnt. The blue part is noise to the network. It is largest around $t=0.7$, where a point may still be bound for
# any blob and its noise is hidden as well. The average over $t$ is $C$.

# %% [markdown]
# ## Code
#
# ### The path
#
# In the package the straight line is one *path* among others, $a_t=\mu_t\,a_0+\sigma_t\,\varepsilon$, with
# coefficients $\mu_t=1-t$ and $\sigma_t=t$. A dot denotes the derivative in $t$: $\dot\mu_t=-1$, $\dot\sigma_t=1$.
# Here is the class, as installed, and the two things that we ask of it. Chapter 05 fills in other coefficients.

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
listing(
    Path.noise,
    {"self.sigma(t) * eps": "A point of the path: $\\mu_t\\,a_0+\\sigma_t\\,\\varepsilon$."},
)
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
# It takes a point and a time and returns a velocity: a plain multilayer perceptron. An *embedding* makes the time
# louder among its inputs: the network is given $\sin$ and $\cos$ of $\frac\pi2 2^kt$ for $k=0,1,\dots$, so many
# *octaves*. One octave, the default, is a quarter turn of a circle as $t$ goes from 0 to 1: smooth, and different at
# each time.


# %%
class MLP(nn.Sequential):
    def __init__(self, sizes, activation=nn.SiLU):
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(sizes):
            layers += [nn.Linear(fan_in, fan_out), activation()]
        super().__init__(*layers[:-1])


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
# ### 1. Write the loss · ●○○ · 10 min
#
# The heart of this chapter is three lines, and they are yours. Write $\mathcal L_{\text{pair}}$ of step 6 for a
# function `v(a, t)`, given data points `a0` and noise points `eps` (both $n\times2$), times `t` ($n\times1$), and a
# `path` with the two methods above. Use only these two, and your loss will serve the paths of chapter 05 as well (the
# check tries one). $\|\cdot\|^2$ is a *sum* over coordinates; average over pairs only, or everything is half of what
# step 6 says.
#
# (Replace the body of the stub and run the cell: ✓ lines say that you are done. The chapter goes on without your
# answer, too.)


# %% tags=["exercise", "raises-exception"]
def flow_matching_loss(v, a0, eps, t, path):
    raise NotImplementedError("your turn")


for name, any_path in {"this path": path, "another path": VP()}.items():
    case = (lambda a, t: torch.sin(3 * a) + t, a0, eps, t, any_path)
    ratio = flow_matching_loss(*case) / matching.flow_matching_loss(*case)
    check(f"exercise 1: yours over the package's, {name}", ratio, below=1.00001, above=0.99999)
truth = flow_matching_loss(lambda a, t: fine.velocity(a, t, path), a0, eps, t, path)
check("exercise 1: loss of the exact v over C", truth / C, below=1.00001, above=0.99999)

# %% [markdown]
# <details><summary>Hint</summary>
#
# What is $f$ asked, and what should it have answered? The first is a point of the path and a time, the second the
# velocity of the pair.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# This is the package's version, word for word.
#
# ```python
# def flow_matching_loss(v, a0, eps, t, path):
#     a_t = path.noise(a0, eps, t)
#     error = v(a_t, t) - path.conditional_velocity(a0, eps, t)
#     return error.square().sum(-1).mean()
# ```
#
# </details>

# %% [markdown]
# From here on the book uses the package's. By step 6 its gradient is, on average, that of the loss we cannot compute.
# The difference of the two is noise without bias; so ten times as many pairs should make it about $\sqrt{10}\approx3$
# times smaller. (Both are random, so we ask for 1.5 times.)

# %%
flow_matching_loss = matching.flow_matching_loss


def gradient(loss, net):
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, net.parameters())])


def gap_of_gradients(count):
    """The difference of the gradients of both losses, relative to their length."""
    rows = [full[:count].float() for full in (a0, eps, t, a_t, v)]
    of_pair = gradient(flow_matching_loss(fresh, *rows[:3], path), fresh)
    of_place = gradient(mean_square(fresh(rows[3], rows[2]) - rows[4]), fresh)
    return (of_pair - of_place).norm() / of_place.norm()


with torch.random.fork_rng(devices=[]):
    torch.manual_seed(0)
    fresh = VelocityNet(2)
few, many = gap_of_gradients(10_000), gap_of_gradients(100_000)
assert many < 0.05
check("gap with 10 000 pairs over that with 100 000", few / many, above=1.5)

# %% [markdown]
# ### The training
#
# Draw data, noise and a time for each pair; take a gradient step; repeat. The learning rate decays to zero along a
# cosine. Because we know the truth, we can also watch the root mean square error (RMSE) against it, at 4000 points of
# the path.

# %%
g = torch.Generator().manual_seed(5)
test_t = torch.rand(4000, 1, generator=g)
test_a = path.noise(toy.sample(4000, g), torch.randn(4000, 2, generator=g), test_t)


def velocity(a, t):
    return toy.velocity(a, t, path)


@torch.no_grad()
def rmse(v, a, t):
    return mean_square(v(a, t) - velocity(a, t)).sqrt().item()


def any_time(count, generator):
    return torch.rand(count, 1, generator=generator)


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
last, early = np.mean(losses[-500:]), np.mean(losses[300:800])
check("RMSE of the trained field", errors[-1], below=0.2)
check("loss of the last 500 steps over C", last / C, below=1.02, above=0.98)
check("loss of steps 300 to 800 over C", early / C, below=1.06)
assert np.std(losses[-500:]) > 0.09  # the scatter from one batch to the next
progress_made = errors[-1] / np.mean(errors[6:16])
check("final RMSE over the mean RMSE of steps 300 to 800", progress_made, below=0.6)

# %% tags=["hide-input"]
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

# %% [markdown]
# **What you should see.** On the left the loss comes down to $C$ early and then seems to do nothing. On the right the
# error against the truth goes on falling. People stop trainings because "the loss has converged". It has; the network
# has not.
#
# **Stop and think.** Suppose that the mean loss is 0.09 above $C$ at one time and 0.01 above it later. What are the
# two RMSEs? And how many batches would you have to average to see the difference, if the loss of one batch scatters
# by 0.1?
#
# <details><summary>Answer</summary>
#
# By step 6 the excess over $C$ is the *square* of the error: 0.3 and 0.1. The difference is 0.08. A single batch
# hides it; the mean of 25 scatters by 0.02 and shows it.
#
# </details>
#
# ### The sampler
#
# To sample, start at noise and walk from $t=1$ to $t=0$ along the *flow*, the differential equation
#
# $$\frac{da_t}{dt}=v(a_t,t).$$
#
# The simplest solver is Euler's: pretend that $v$ stays what it is for a short time, and walk straight.
#
# For one Gaussian around zero the flow can be solved by hand: every point keeps its place in units of the standard
# deviation, $a_t=\sqrt{V_t}\,\varepsilon$, so noise $\varepsilon$ ends at $c\,\varepsilon$. (Chapter 00,
# exercise 6, derives it.) That is what a sampler can be tested on.

# %%
c = 0.4
one_blob = GaussianMixture(
    torch.zeros(1, 2, **double), torch.full((1,), c, **double), torch.ones(1, **double)
)
start = torch.randn(500, 2, generator=torch.Generator().manual_seed(6), **double)


class Watched:
    """The velocity of one Gaussian, which notes at which times it is asked."""

    def __init__(self):
        self.times = []

    def __call__(self, a, t):
        if getattr(t, "shape", None) != (len(a), 1):
            raise ValueError("v wants the time as a column (n, 1), one entry for each point")
        self.times.append(t[0].item())
        return one_blob.velocity(a, t, path)


by_fine_solver = solve(Watched(), start, steps=100, step=rk4_step)
check(
    "one Gaussian: end of the flow against c eps", largest(by_fine_solver - c * start), below=1e-6
)


# %% [markdown]
# ### 2. Write the sampler · ●●○ · 15 min
#
# Take noise points `eps` ($n\times2$) from $t=1$ to $t=0$ in `steps` Euler steps of equal length, along a velocity
# `v(a, t)`, whose `t` is a column ($n\times1$). Each step looks at the velocity where and when it *starts*, and asks
# once. Return the end points. The check compares them with those of the package's solver.


# %% tags=["exercise", "raises-exception"]
def euler_samples(v, eps, steps):
    raise NotImplementedError("your turn")


for steps in (1, 5, 100):
    watched = Watched()
    end = euler_samples(watched, start, steps)
    packages = solve(Watched(), start, steps=steps, step=euler_step)
    check(
        f"exercise 2: calls of v, {steps} step(s)",
        len(watched.times) / steps,
        below=1.01,
        above=0.99,
    )
    check("exercise 2: latest time at which v is asked", watched.times[0], below=1.001, above=0.999)
    check("exercise 2: distance from the package's end points", largest(end - packages), below=1e-9)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Velocity times time is displacement, and the time that passes in one step is $-1/n$. At which times do the $n$ steps
# start?
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def euler_samples(v, eps, steps):
#     a, ones = eps, torch.ones_like(eps[:, :1])
#     for i in range(steps, 0, -1):
#         a = a - v(a, ones * (i / steps)) / steps
#     return a
# ```
#
# </details>

# %% [markdown]
# The package keeps the step apart from the walk, so that chapter 05 can put in a better one:

# %%
listing(
    euler_step,
    {
        "return": "Velocity times time is displacement. `dt` is negative when we go from noise to data: that sign "
        "is all that *against the velocity* means."
    },
)
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


# %%
def euler_error(steps):
    return largest(solve(Watched(), start, steps=steps, step=euler_step) - c * start)


halved = euler_error(100) / euler_error(200)
check("error of 100 Euler steps over that of 200", halved, below=2.1, above=1.9)

# %% [markdown]
# ## Checks
#
# ### The samples
#
# Let 4000 noise points follow the field in 64 Euler steps, and compare the crowd with true samples. We use the
# *sliced Wasserstein distance*: project both crowds on many lines, sort, and average how far apart the sorted points
# are. Two crowds drawn from the *same* density are not at distance zero. We draw eight and call the mean distance of
# their 28 pairs the *floor*. In units of the floor a perfect sampler scores 1, on average. A single crowd scores more
# or less, by the chance of a few points more in one blob: the cell prints the range of the eight true crowds. Read
# nothing into a score within it. We also count the shares of the blobs, which are uncertain by 0.008.

# %%
test_noise = torch.randn(4000, 2, generator=torch.Generator().manual_seed(8))
g = torch.Generator().manual_seed(9)
truths = [toy.sample(4000, g) for _ in range(8)]


def sliced_distance(points, others):
    """Sliced Wasserstein-1 distance on the plane: mean over 32 directions, evenly turned."""
    angles = math.pi * torch.arange(32) / 32
    directions = torch.stack([angles.cos(), angles.sin()])
    ours, theirs = ((crowd @ directions).sort(0).values for crowd in (points, others))
    return (ours - theirs).abs().mean().item()


floor = np.mean([sliced_distance(*two) for two in combinations(truths, 2)])


def in_floors(points):
    """The mean distance of the points from true samples, in units of the floor."""
    return (
        np.mean([sliced_distance(points, truth) for truth in truths if truth is not points]) / floor
    )


def shares(points):
    """The share of the points that is nearest to each of the three centres."""
    return torch.bincount(torch.cdist(points, toy.means).argmin(-1), minlength=3) / len(points)


@torch.no_grad()
def samples(v, steps=64, start=test_noise):
    return solve(v, start, steps=steps, step=euler_step)


own = sorted(in_floors(truth) for truth in truths)
print(f"eight true crowds score {own[0]:.5f} to {own[-1]:.5f}")
exact_samples, net_samples = samples(velocity), samples(net)
check("exact field, 64 steps: distance in floors", in_floors(exact_samples), below=2)
check("trained field, 64 steps: distance in floors", in_floors(net_samples), below=2)
check("error of the three shares", (shares(net_samples) - toy.weights).abs().max(), below=0.04)

# %% [markdown]
# ### One step lands on the mean
#
# What do fewer steps do? The last formula of step 3 knows. One Euler step from any place and time to the end gives
#
# $$a-t\,v(a,t)=m(a,t):$$
#
# it jumps to the best guess. A best guess in the sense of least squares is a mean, and the mean of two good answers
# need not be a good answer. At $t=1$ the guess is $E[a_0]$ for all, since noise tells nothing about the data. All
# points land on one spot, and no better network could help: it is what the *exact* field does.

# %%
point, late = a_t[:200], torch.full((200, 1), 0.6, **double)
jump = point - late * fine.velocity(point, late, path)
difference = largest(jump - posterior_mean_by_grid(point, late))
check("one Euler step against the best guess", difference, below=1e-4)
landed = largest(samples(velocity, steps=1) - mean.float())
check("exact field: distance of the landings from the mean", landed, below=1e-5)
one_of_net = (samples(net, steps=1) - mean.float()).norm(dim=-1).mean()
assert one_of_net < 0.25

# %% tags=["hide-input"]
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
# Four steps: blobs, still joined. Sixty-four: three blobs.
#
# ### The error against the number of steps
#
# We compare each point with the end of its exact flow line (64 steps of the much more accurate Runge-Kutta method).
# An Euler step of length $1/n$ errs in proportion to $1/n^2$, and there are $n$ of them. So the error should fall
# like $1/n$: twice the steps, half the error.

# %%
exact_end = solve(velocity, test_noise, steps=64, step=rk4_step)
counts = [1, 2, 4, 8, 16, 32, 64, 128]


def miss(points):
    """The mean distance of the points from the ends of their exact flow lines."""
    return (points - exact_end).norm(dim=-1).mean().item()


misses = [miss(samples(velocity, steps)) for steps in counts]
net_misses = [miss(samples(net, steps)) for steps in counts]
for steps, value in zip(counts, misses, strict=True):
    print(f"{steps:>3} Euler steps of the exact v: miss {value:.5f}")
ratio, net_ratio = misses[-2] / misses[-1], net_misses[-2] / net_misses[-1]
check("exact field: miss of 64 steps over that of 128", ratio, below=2.2, above=1.8)
check("trained field: miss of 64 steps over that of 128", net_ratio, below=1.7)

# %% tags=["hide-input"]
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
# help. With many steps they part: the exact field improves like $1/n$, while the trained one levels off at the error
# of the *network*.
#
# Every step is a call of the network: many calls for one sample. Chapter 02 makes it one.

# %% [markdown]
# ## Explorer
#
# The trained field. On the left, arrows of $-v(a,t)$ and particles that follow it, with the lines that some of them
# left behind. On the right, a promise: where $n$ Euler steps would take each particle from where it is now.
#
# **Stop and think.** Before you press play, or move $t$ from 1 down to 0: with $n=1$, where do the promises lie at
# $t=1$, and where do they go as $t$ falls? Into the blobs straight away, or first somewhere else?
#
# <details><summary>Answer</summary>
#
# Each promise is the best guess $m(a,t)$, an average of the centres with (nearly) the responsibilities of step 5. So
# the promises leave the mean and run along the lines between the blobs, until one responsibility is near 1.
#
# </details>

# %%
flow_field_explorer(net, toy.log_prob)

# %% [markdown]
# **What you should see.** At $t=1$ all arrows point at one spot, the mean, and with $n=1$ all promises lie there. As
# $t$ falls the arrows begin to disagree. Near $t=0$ promise and end agree; with larger $n$, much earlier.

# %% [markdown]
# ## What can go wrong
#
# ### The clock and the sign
#
# Half of the literature has noise at $t=0$ and data at $t=1$, with the velocity $a_0-\varepsilon$. Mix both, say the
# training of one source and the sampler of another, and nothing raises an error. There are two things to get right,
# the clock and the sign, hence four ways to combine them, of which one works. (Turning both does not bring you back:
# the clock still tells the network the wrong time.)

# %%
wrong_sign = samples(lambda a, t: -net(a, t))
wrong_clock = samples(lambda a, t: net(a, 1 - t))
both_wrong = samples(lambda a, t: -net(a, 1 - t))
check("sign turned: distance in floors", in_floors(wrong_sign), above=20)
check("clock turned: distance in floors", in_floors(wrong_clock), above=5)
check("both turned: distance in floors", in_floors(both_wrong), above=20)

# %% [markdown]
# A cheap test, before any training: run the sampler with the *exact* field of a toy, as we did above.
#
# ### Times from one end only
#
# What if training times come from one end, say because "near the data is where it matters" or through a slip in the
# units of $t$?

# %%
g = torch.Generator().manual_seed(7)
data, noise = toy.sample(4000, g), torch.randn(4000, 2, generator=g)
grid_t = torch.linspace(0, 1, 21)


def rmse_by_time(v):
    return [rmse(v, path.noise(data, noise, t.item()), t.expand(4000, 1)) for t in grid_t]


low_net, low_losses, _ = fit(times=lambda n, g: 0.2 * any_time(n, g), steps=800)
high_net, high_losses, _ = fit(times=lambda n, g: 0.8 + 0.2 * any_time(n, g), steps=800)
net_errors, low_errors, high_errors = map(rmse_by_time, (net, low_net, high_net))
low_samples, high_samples = samples(low_net), samples(high_net)
assert in_floors(low_samples) > 5 and in_floors(high_samples) > 3
check("times below 0.2: last losses over C", np.mean(low_losses[-100:]) / C, below=0.8)

# %% tags=["hide-input"]
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
    "RMSE against time on a logarithmic axis for three trainings. With all times: below 0.2 throughout. With times below 0.2: about "
    "0.1 at t = 0.1, then rising to over 2. With times above 0.8: as good from 0.85 on, and rising to about 2 towards the data.",
)

# %% [markdown]
# **What you should see.** Each network is good within the times of its training only. Yet the one trained near the
# data has a *lower* loss than the right one (the check), because $C(t)$ is lower there. Losses under different laws
# of $t$ cannot be compared.
#
# ### Noise of another kind
#
# The flow carries $p_1$ to $p_0$, and $p_1$ is the standard normal density. Start from something else and you end at
# something else: here from `torch.rand`, uniform numbers between 0 and 1, where the training had used `torch.randn`.
# One letter.

# %%
uniform_start = samples(net, start=torch.rand(4000, 2, generator=torch.Generator().manual_seed(10)))
check("uniform start: distance in floors", in_floors(uniform_start), above=5)
check("uniform start: share of the largest blob", shares(uniform_start)[0], below=0.2)

# %% tags=["hide-input"]
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
# **What you should see.** In the first three and the last the network is perfectly good. Learn to know the faces. A
# *star*: the sign is wrong, points flee the data. *Small heaps drawn to the middle*: the clock is wrong; treacherous,
# for at a glance it looks right. *Torn heaps* or *one big heap*: a part of the time was never learnt. *Sharp edges
# and wrong shares*: look at the start.
#
# ### A nervous clock
#
# Do more octaves hurt? We train with ten, and compare the field, and its derivative in $t$.


# %%
def rate_in_time(v, a, t):
    """d_t v at a fixed place, by automatic differentiation (chapter 02 explains how)."""
    return torch.func.jvp(lambda time: v(a, time), (t,), (torch.ones_like(t),))[1]


nervous_net, _, nervous_errors = fit(octaves=10, steps=1200)
calm_net, _, calm_errors = fit(steps=1200)
true_rate = rate_in_time(velocity, test_a, test_t)
nervous_rate, calm_rate = (
    mean_square(rate_in_time(v, test_a, test_t) - true_rate).sqrt().item()
    for v in (nervous_net, calm_net)
)
check("RMSE of v, ten octaves over one", nervous_errors[-1] / calm_errors[-1], below=1.2)
check("RMSE of d_t v, ten octaves over one", nervous_rate / calm_rate, above=5)
check("ten octaves, 64 steps: distance in floors", in_floors(samples(nervous_net)), below=2)

# %% tags=["hide-input"]
here = torch.tensor([[1.1, 0.2]]).expand(400, 2)
clock = torch.linspace(0.1, 0.9, 400)[:, None]
looks = {
    nervous_net: {"color": COLOURS["error"], "linewidth": 0.9, "label": "ten octaves"},
    velocity: {"color": COLOURS["reference"], "linewidth": 2.4, "label": "exact"},
    calm_net: {"color": COLOURS["velocity"], "linestyle": "--", "label": "one octave"},
}
fig, (left, right) = figure(8.4, 3.8, ncols=2)
with torch.no_grad():
    for field, look in looks.items():
        left.plot(clock, field(here, clock)[:, 0], **look)
        right.plot(clock, rate_in_time(field, here, clock)[:, 0], **look)
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
# **What you should see.** One place, as time goes by. Left: the nervous network is as good as the calm one, with a
# fine tremor. For flow matching that is harmless: the solver averages it away (the third check). Right: a tremor that
# is small and fast has a large derivative, and this one drowns the truth. Chapter 02 trains on such a derivative.
# That is why one octave is the default of this book.

# %% [markdown]
# ## Exercises
#
# Exercises 1 and 2 stand where the loss and the sampler are taught.

# %% [markdown]
# ### 3. What does it learn? · ●●○ · 20 min
#
# Three losses with a slip in each. All of them run, and all of them fall. Each network minimises its loss without error.
# Which function of $(a,t)$ does it become? Return the three, in this order, at places `a` ($n\times2$) and times `t`
# ($n\times1$), written with the posterior mean `m(a, t)`, which you are given as a function.
#
# ```python
# def one(v, a0, eps, t):
#     return mean_square(v(a0, t) - (eps - a0))
#
# def two(v, a0, eps, t):
#     a_t = (1 - t) * a0 + t * eps
#     return mean_square(v(a_t, t) - (torch.randn_like(a0) - a0))
#
# def three(v, a0, eps, t):
#     a_t = (1 - t) * a0 + t * eps
#     return mean_square(v(a_t, 1 - t) - (a0 - eps))
# ```


# %% tags=["exercise", "raises-exception"]
def learnt(a, t, m):
    raise NotImplementedError("your turn")


early, by_grid = torch.full((200, 1), 0.3, **double), posterior_mean_by_grid
for place, moment in ((point, late), (a_t[200:400], early)):
    mirrored = fine.velocity(place, 1 - moment, path)
    truths_of_slips = (-place, moment * fine.velocity(place, moment, path) - place, -mirrored)
    for k, (yours, truth) in enumerate(
        zip(learnt(place, moment, by_grid), truths_of_slips, strict=True), 1
    ):
        error = largest(yours - truth)
        check(f"exercise 3: error of the {k}. answer, t = {moment[0, 0]:g}", error, below=1e-3)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Least squares finds conditional means: of the target, given what the network is shown. In the first the network is
# shown $a_0$, in the second $a_t$. In the third it is shown $a_t$ and a wrong time; call that one $s$, and ask what the
# network says at $(a,s)$.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# The first is told the clean point: $E[\varepsilon-a_0\mid a_0]=-a_0$. It may look at the answer, so its loss falls to
# 2, well below $C$; at sampling time nobody shows it a clean point. In the second the noise of the target knows nothing
# of $a_t$: $E[\varepsilon'-a_0\mid a_t=a]=-m(a,t)$. The third is a network of the other clock, with $s=1-t$ and the
# velocity turned: at $(a,s)$ it says $-v(a,1-s)$. Nothing is wrong with it, as long as its sampler knows.
#
# ```python
# def learnt(a, t, m):
#     return -a, -m(a, t), (m(a, 1 - t) - a) / (1 - t)
# ```
#
# </details>

# %% [markdown]
# ### 4. A perfect fit to five points · ●●○ · 20 min
#
# A real data set is finite. Let it be five points, drawn with equal chance. Write the *exact* marginal velocity for
# $t>0$, the one that a perfect network would learn. Where do its samples end? Is that what you want?


# %% tags=["exercise", "raises-exception"]
def velocity_of_points(a, t, points):
    raise NotImplementedError("your turn")


five = fine.sample(5, torch.Generator().manual_seed(12))
start = torch.randn(300, 2, generator=torch.Generator().manual_seed(13), **double)
needles = GaussianMixture(five, torch.full((5,), 1e-5, **double), torch.full((5,), 0.2, **double))
for time in (0.9, 0.6, 0.3):
    now, column = (1 - time) * five[:1] + time * start, torch.full((300, 1), time, **double)
    error = largest(velocity_of_points(now, column, five) - needles.velocity(now, time, path))
    check(f"exercise 4: error at t = {time}, against five very thin blobs", error, below=1e-5)
end = solve(lambda a, t: velocity_of_points(a, t, five), start, steps=200, step=euler_step)
nearest = torch.cdist(end, five).min(-1)
check("exercise 4: greatest distance from a data point", nearest.values.max(), below=1e-6)
check("exercise 4: data points that are reached", len(nearest.indices.unique()), above=4)

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
# are a softmax of $-|a-(1-t)\,b_k|^2/2t^2$. Every sample ends on one of the five points: the perfect fit
# *memorises*. What makes real models create something new is that they do **not** reach the minimum of their loss.
# The last Euler step starts at $t=1/200$, where the softmax has decided, and jumps to the best guess.
#
# ```python
# def velocity_of_points(a, t, points):
#     apart = a[:, None] - (1 - t)[..., None] * points
#     gamma = (-apart.square().sum(-1) / (2 * t**2)).softmax(-1)
#     return (a - gamma @ points) / t
# ```
#
# </details>

# %% [markdown]
# ### 5. Straighter lines from better pairs · ●●○ · 20 min
#
# The closed forms of steps 3 to 5 needed data and noise to be *independent*. Steps 1, 2 and 6 work for any rule that
# pairs them, as long as each side keeps its own distribution. So pair them well: within a batch, give every data
# point one noise point, such that the sum of the squared distances of partners is least. Lines then cross less, pairs
# agree more, and flow lines become straighter. Write `pair_up`, which reorders the noise of a batch
# (`scipy.optimize.linear_sum_assignment` solves such problems). The check tries a case whose best pairs are known,
# then trains, and asks what two Euler steps are worth.


# %% tags=["exercise", "raises-exception"]
def pair_up(a0, eps):
    raise NotImplementedError("your turn")


# The best partner of M eps is eps, for any symmetric M with positive eigenvalues (chapter's end).
g = torch.Generator().manual_seed(14)
partners = torch.randn(128, 2, generator=g)
stretched = partners @ torch.tensor([[1.0, 0.6], [0.6, 1.6]])
found = pair_up(stretched, partners[torch.randperm(128, generator=g)])
check("exercise 5: greatest distance from the best partner", largest(found - partners), below=1e-6)
paired_net, paired_losses, _ = fit(pairing=pair_up, steps=600, batch=128)
gain = in_floors(samples(net, steps=2)) / in_floors(samples(paired_net, steps=2))
check("exercise 5: distance of two steps, independent pairs over good pairs", gain, above=2)
check("exercise 5: last losses over C", np.mean(paired_losses[-100:]) / C, below=0.5)

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
# limits it: the best pairing *within* 128 points is not the best of all. SOM has no data points to pair.
#
# Why is the case of the check known? Expand the squares: the least sum of $|M\varepsilon_i-\varepsilon_j|^2$ is the
# greatest sum of $M\varepsilon_i\cdot\varepsilon_j$. That is an inner product, $\langle\varepsilon_i,\varepsilon_j\rangle_M$,
# and $\langle x,y\rangle\le\frac12\langle x,x\rangle+\frac12\langle y,y\rangle$ with equality for $x=y$.
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
# ### 6. What the field knows of its constant · ●●● · 40 min
#
# Step 6 measured $C(t)=E\|\varepsilon-a_0-v(a_t,t)\|^2$ with pairs. Suppose that somebody gives you a perfect $v$ and no
# pairs, only points $a_t$. Show that for $0<t<1$ the mean divergence
#
# $$D(t)=E\Big[\sum_i\frac{\partial v_i}{\partial a_i}(a_t,t)\Big]$$
#
# is enough to know $C(t)$. Write $C(t)$ as a function of $D(t)$, $t$ and the number $d$ of dimensions, for *any* data.
# The check takes $D$ from automatic differentiation and $C(t)$ from pairs.


# %% tags=["exercise", "raises-exception"]
def constant_from_divergence(divergence, t, d):
    raise NotImplementedError("your turn")


for name, law in {"three blobs": fine, "one blob": one_blob}.items():
    law_a0 = law.sample(pairs, torch.Generator().manual_seed(15))
    for time in (0.2, 0.5, 0.8):
        now, same = path.noise(law_a0, eps, time), torch.full_like(t, time)
        by_pairs = mean_square(eps - law_a0 - law.velocity(now, same, path))
        D = 0.0
        for i, direction in enumerate(torch.eye(2, **double)):
            field = partial(law.velocity, t=same, path=path)
            D += torch.func.jvp(field, (now,), (direction.expand_as(now),))[1][:, i].mean()
        ratio = constant_from_divergence(D, time, 2) / by_pairs
        check(f"exercise 6: ratio to the pairs, {name}, t = {time}", ratio, below=1.03, above=0.97)
# A round blob in d dimensions, by step 4: v is a straight line in a, so D = d V' / 2V and C = d c^2 / V.
for d in (1, 5):
    V, half_rate = 0.7**2 * c**2 + 0.3**2, 0.3 - 0.7 * c**2  # at t = 0.3
    ratio = constant_from_divergence(d * half_rate / V, 0.3, d) / (d * c**2 / V)
    check(f"exercise 6: ratio for a blob, d = {d}", ratio, below=1.00001, above=0.99999)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Given $a_t=a$, the velocity of a pair is $(a-a_0)/t$, and only $a_0$ is uncertain: $C(t)$ is a mean conditional
# variance. On the other side, $v$ depends on $a$ through $m$. Differentiate Bayes' rule of step 3 under both integrals:
# the derivative of a mean turns into a covariance.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# Let $S(a)=E\big[\|a_0-m\|^2\mid a_t=a\big]$. The velocity of a pair is $(a-a_0)/t$, its mean is $v$, hence
# $C(t)=E[S]/t^2$.
#
# The weight of $a_0$ in Bayes' rule is $\rho=p_0(a_0)\,e^{-|a-(1-t)a_0|^2/2t^2}$, and
# $\partial\rho/\partial a_i=-\rho\,\big(a_i-(1-t)a_{0,i}\big)/t^2$. The quotient rule gives
#
# $$\frac{\partial m_i}{\partial a_i}=\frac{\int a_{0,i}\,\partial_i\rho}{\int\rho}-m_i\,\frac{\int\partial_i\rho}{\int\rho}
# =\mathrm{Cov}\Big(a_{0,i},\,\frac{(1-t)\,a_{0,i}-a_i}{t^2}\Big)=\frac{1-t}{t^2}\,\mathrm{Var}(a_{0,i}\mid a),$$
#
# because the constant $a_i$ has no covariance. Sum over $i$: $\nabla\cdot m=(1-t)\,S/t^2$. With $v=(a-m)/t$ and the mean
# over $a_t$, $D=\frac1t\big(d-(1-t)\,C(t)\big)$, so $C(t)=\dfrac{d-t\,D(t)}{1-t}$. Where the flow, walked backwards,
# contracts least, the pairs disagree most.
#
# ```python
# def constant_from_divergence(divergence, t, d):
#     return (d - t * divergence) / (1 - t)
# ```
#
# </details>

# %% [markdown]
# ## Summary
#
# * A path joins data and noise, $a_t=(1-t)\,a_0+t\,\varepsilon$. Time 0 is data, time 1 is noise.
# * A pair moves at $\varepsilon-a_0$. A place has the mean velocity of the pairs that pass,
#   $v(a,t)=E[\varepsilon-a_0\mid a_t=a]=(a-m)/t$. For a mixture of Gaussians it is a formula.
# * Points that follow $v$ are distributed as $p_t$ at every time.
# * Regression on the velocities of pairs finds the velocity of places. The loss goes to a constant $C$, not to zero, and
#   says little once it is near.
# * One Euler step from $(a,t)$ jumps to the best guess $m(a,t)$; from noise that is the mean of the data.
# * Euler's error falls like $1/n$ until the error of the network takes over.
# * Clock, sign, the law of $t$, the law of the noise: none raises an error when it is wrong.

# %% [markdown]
# ## References
#
# Mind the clock: in these papers noise is at time 0 and data at time 1.
#
# * Lipman and others: *Flow Matching for Generative Modeling*, [2210.02747](https://arxiv.org/abs/2210.02747). The
#   loss of this chapter. Section 3: theorem 1 says that the mean velocity has the right marginals (our chapter 05),
#   theorem 2 that the two losses have the same gradient.
# * Liu, Gong, Liu: *Flow Straight and Fast*, [2209.03003](https://arxiv.org/abs/2209.03003). The straight path, and
#   how to straighten flow lines.
# * Albergo, Vanden-Eijnden: *Building Normalizing Flows with Stochastic Interpolants*,
#   [2209.15571](https://arxiv.org/abs/2209.15571). The same idea, with other paths.
# * Tong and others: *Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport*,
#   [2302.00482](https://arxiv.org/abs/2302.00482). Better pairs (exercise 5).
# * Bertrand and others: *On the Closed-Form of Flow Matching*, [2506.03719](https://arxiv.org/abs/2506.03719). The
#   exact field of a finite data set (exercise 4).
#
# ---
#
# Previous: [00 · Start here](00_start_here.ipynb). Next: [02 · MeanFlow](02_meanflow.ipynb), where one step is enough.
