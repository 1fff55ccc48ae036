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
# # 04 · A score without samples
#
# **What you will do.** You have a function $Q$ that rates points, and no data. You derive two formulas for the score of
# the density $\exp(Q/\alpha)$ after noise was added to it, and write the better one as an estimator of five lines. You
# measure which one to trust, at which noise, with how many values of $Q$.
#
# **What you will learn.** Importance sampling, its bias, its spread, and what an effective sample size of one means.
# What happens at the walls of a box, and why the formula with the gradient of $Q$ does not notice them. What to expect
# in many dimensions.
#
# **What you need.** Calculus (integration by parts), probability (Bayes' rule, conditional expectation) and PyTorch.
# The recap holds what is used of chapters 01 to 03.
#
# **Time and hardware.** ≈ 40 s on one CPU core. Two hours for reading, two for the exercises. No GPU, and nothing is
# trained.
#
# Previous: [03 · Policies as Boltzmann distributions](03_boltzmann_policies.ipynb). Next: [05 · The probability-flow
# ODE](05_probability_flow_ode.ipynb).

# %% [markdown]
# ## The idea in one picture
#
# ### A recap on half a page
#
# **The target.** A *critic* $Q$ rates every action $a$ in the box $[-1,1]^d$. At temperature $\alpha$ we want actions
# from the Boltzmann density $p_0(a)\propto\exp(Q(a)/\alpha)$. We can *evaluate* $Q$ wherever we like. We have no sample
# of $p_0$, and its normalising factor is unknown.
#
# **The path.** Noise is added as always in this book:
#
# $$a_t=\mu_t\,a_0+\sigma_t\,\varepsilon,\qquad a_0\sim p_0,\quad\varepsilon\sim\mathcal N(0,I).$$
#
# Time 0 is the action, time 1 is noise, and $p_t$ is the density of $a_t$. On the linear path $\mu_t=1-t$ and
# $\sigma_t=t$. We drop the index of $\mu_t$ and $\sigma_t$.
#
# **Three faces of one thing.** To travel from noise to actions one needs, at a point $a$ and a time $t$, any one of
# these: the *posterior mean* $m(a,t)=E[a_0\mid a_t=a]$, where $a$ came from, on average; the *score*
# $s(a,t)=\nabla_a\log p_t(a)$; the *velocity* $v(a,t)$ of chapter 01. Each gives the others. On the linear path
# $v=E[\varepsilon-a_0\mid a_t=a]$. Put in $\varepsilon=(a-(1-t)\,a_0)/t$:
#
# $$v(a,t)=\frac{a-m(a,t)}{t}.$$
#
# The velocity points away from where $a$ came from. We measure all errors on $v$, whose size is about one at every $t$.
#
# **A target with a known answer.** Three blobs in the square, with 50, 30 and 20 % of the mass. For a mixture of
# Gaussians $m$, $s$ and $v$ are explicit. The estimators get only `q`, which is $\alpha\log p_0$ plus a constant.

# %%
import math

import numpy as np
import torch
from scipy import integrate, stats

from som_lite.flow.boltzmann import BoxBoltzmann
from som_lite.flow.densities import GaussianMixture
from som_lite.flow.paths import VP, Linear
from som_lite.flow.scores import (
    Estimate,
    box_proposals,
    shared_posterior_mean_estimate,
    uphill,
)
from som_lite.view import plots
from som_lite.view.explorers import score_estimate_explorer
from som_lite.view.notebook import check, listing, show
from som_lite.view.style import COLOURS, MARKERS, figure, plane

torch.set_num_threads(1)

toy = GaussianMixture(
    torch.tensor([[0.6, 0.6], [-0.6, 0.4], [0.0, -0.7]]),
    torch.full((3,), 0.12),
    torch.tensor([0.5, 0.3, 0.2]),
)
path, alpha = Linear(), 0.5


def q(a):
    """The critic of this chapter: all that an estimator may see of the toy."""
    return alpha * toy.log_prob(a) + 7.0


def on_path(n, t, seed, density=toy):
    """n points a_t of the path at time t."""
    g = torch.Generator().manual_seed(seed)
    a0 = density.sample(n, g)
    return path.noise(a0, torch.randn(a0.shape, generator=g, dtype=a0.dtype), t)


def largest(difference):
    """The greatest length among the rows."""
    return difference.norm(dim=-1).max()


a = on_path(500, 0.4, seed=0)
v, m = toy.velocity(a, 0.4, path), toy.posterior_mean(a, 0.4, path)
check("v = (a - m) / t against the closed form", largest(v - (a - m) / 0.4), below=1e-5)

# %% [markdown]
# ### The picture
#
# Stand at a point $a$ at time $t$ and ask: *where could it have come from?* Undo the noise. Draw a normal $\xi$,
# pretend that it was the noise (up to its sign), and solve for the action: $a_0=(a+\sigma\,\xi)/\mu$. That is one
# candidate. Draw two hundred.
#
# As far as the noise is concerned, all candidates are equally good. $Q$ knows better. Give candidate $k$ the weight
# $w_k\propto\exp(Q/\alpha)$. The weighted mean is the estimate of $m$.

# %%
g = torch.Generator().manual_seed(4)
t, a = 0.4, torch.tensor([0.55, -0.15])
candidates = (a + t * torch.randn(200, 2, generator=g)) / (1 - t)
w = (q(candidates) / alpha).softmax(0)
m_hat, m = w @ candidates, toy.posterior_mean(a, t, path)
assert (m_hat - m).norm() < 0.2

# %% tags=["hide-input"]
fig, (left, right) = figure(8.4, 4.7, ncols=2)
for ax in (left, right):
    plots.backdrop(plane(ax, 1.75), toy.log_prob)
plots.particles(left, candidates, "noise", size=4)
plots.particles(left, a[None], "velocity", size=9, alpha=1.0)
look = {"color": COLOURS["score"], "marker": MARKERS["score"], "linewidths": 0, "zorder": 3}
right.scatter(*candidates.T, s=900 * w, alpha=0.6, **look)
plots.arrow(right, a, m_hat - a, "velocity")
plots.particles(right, m[None], "reference", size=11, alpha=1.0)
left.set_title("candidates $a_0=(a+\\sigma\\xi)/\\mu$")
right.set_title("weighted by $\\exp(Q/\\alpha)$")
plots.key(left, {"candidates": ("noise", "points"), "the point $a$": ("velocity", "points")})
names = {
    "weight": ("score", "points"),
    r"$a\to\hat m$": ("velocity", "arrow"),
    "exact $m$": ("reference", "points"),
}
plots.key(right, names, ncols=3)
show(
    fig,
    "Two panels over three pale blue blobs in the square from -1.75 to 1.75. Left: an orange "
    "point and 200 grey candidates scattered widely to its right, some beyond the edge. Right: the same candidates as "
    "purple triangles with areas by weight; only those inside the blobs are visible, and an "
    "orange arrow from the point ends near a black cross, the exact mean.",
)

# %% [markdown]
# **What you should see.** On the left, a cloud of candidates that knows nothing of the target. On the right, with areas
# by weight, nearly all have vanished. The few dozen that lie in a blob decide, and their mean (the tip of the arrow)
# comes close to the exact one (the cross). Most of the work was wasted, and it gets worse with more noise and more
# dimensions.

# %% [markdown]
# ## Derivation
#
# We check each formula by brute force: integrals over $a_0$ become sums over a grid of 57 600 small cells, in 64-bit
# numbers. That shares no code with what we want to test.

# %%
fine = GaussianMixture(toy.means.double(), toy.stds.double(), toy.weights.double())
cell = 3.2 / 240
axis = (torch.arange(240, dtype=torch.float64) + 0.5) * cell - 1.6
grid = torch.cartesian_prod(axis, axis)  # the values that a_0 may take

g = torch.Generator().manual_seed(2)
t = 0.15 + 0.75 * torch.rand(40, 1, generator=g, dtype=torch.float64)  # in [.15, .9]
mu, sigma = path.mu(t), path.sigma(t)
a = on_path(40, t, seed=3, density=fine)

# %% [markdown]
# ### Step 1: the posterior
#
# Given $a_0$, the point $a_t$ is normal with mean $\mu a_0$ and standard deviation $\sigma$ in every coordinate. Write
# $\mathcal N(a;\mu a_0,\sigma^2I)$ for this density, the *likelihood* of $a_0$. The density of $a_t$ is the mean over
# all $a_0$, and Bayes' rule turns the question round:
#
# $$p_t(a)=\int p_0(a_0)\,\mathcal N(a;\mu a_0,\sigma^2I)\,da_0,
# \qquad p(a_0\mid a)=\frac{p_0(a_0)\,\mathcal N(a;\mu a_0,\sigma^2I)}{p_t(a)} .$$
#
# This is the *posterior*. On the grid the sum over the cells is $p_t$, and the normalised summands are the posterior
# masses. The noised mixture is again a mixture: $p_t$ is known.

# %%
squares = (a[:, None] - mu[:, None] * grid).square().sum(-1)  # (40, cells)
log_joint = fine.log_prob(grid) - squares / (2 * sigma**2) - (2 * math.pi * sigma**2).log()
log_pt = log_joint.logsumexp(-1) + 2 * math.log(cell)
posterior = log_joint.softmax(-1)

closed = [fine.noised(path, time.item()).log_prob(point) for time, point in zip(t, a, strict=True)]
difference = (log_pt - torch.stack(closed)).abs().max()
check("step 1: log p_t by quadrature against the closed form", difference, below=1e-6)

# %% [markdown]
# ### Step 2: the score is a posterior mean
#
# That was derived in chapter 03, step 8, as Tweedie's formula:
#
# $$\boxed{\,s(a,t)=\frac{\mu\,m(a,t)-a}{\sigma^2}\,}$$
#
# So averages over the posterior give the score.

# %%
m = posterior @ grid
s = fine.noised_score(a, t, path)
check("step 2: Tweedie against the exact score", largest((mu * m - a) / sigma**2 - s), below=1e-6)

# %% [markdown]
# ### Step 3: the score is also a mean of gradients
#
# The normal density depends on $a$ and $a_0$ only through $a-\mu a_0$. So a change of $a$ does the same as a change of
# $a_0$ in the opposite direction, scaled: $\nabla_a\,\mathcal N=-\frac1\mu\,\nabla_{a_0}\mathcal N$. Put this into
# $\nabla p_t$ and integrate by parts. The derivative moves from the normal to $p_0$, and the sign turns:
#
# $$\nabla p_t(a)=-\frac1\mu\int p_0\,\nabla_{a_0}\mathcal N\,da_0=\frac1\mu\int\nabla p_0\;\mathcal N\,da_0 .$$
#
# Integration by parts leaves a term at the boundary. On the whole space it vanishes, because $p_0$ does so at infinity.
# (Keep this sentence in mind.) With $\nabla p_0=p_0\,\nabla\log p_0$ and $\nabla\log p_0=\nabla Q/\alpha$, division by
# $p_t$ gives another average over the posterior:
#
# $$\boxed{\,s(a,t)=\frac1\mu\,E\big[\nabla\log p_0(a_0)\mid a_t=a\big]=\frac1{\mu\,\alpha}\,E\big[\nabla
# Q(a_0)\mid a_t=a\big]\,}$$
#
# This is the *target-score identity* (2402.08667).

# %%
where = grid.clone().requires_grad_()
(slope,) = torch.autograd.grad(fine.log_prob(where).sum(), where)  # grad log p_0 at every cell
by_slope = posterior @ slope / mu
check("step 3: target-score identity against the exact score", largest(by_slope - s), below=1e-6)

# %% [markdown]
# ### Step 4: averages over the posterior, by importance sampling
#
# Both formulas ask for $E[f(a_0)\mid a_t=a]$ with some $f$: $f=a_0$ or $f=\nabla Q(a_0)$. The posterior is a product,
# and one factor is easy to sample. As a function of $a_0$ the likelihood is a normal density as well,
#
# $$\mathcal N(a;\mu a_0,\sigma^2I)=\mu^{-d}\;\mathcal N\Big(a_0;\,\frac a\mu,\,\frac{\sigma^2}{\mu^2}I\Big).$$
#
# So draw $K$ *proposals* from this normal, $a_0^{(k)}=(a+\sigma\,\xi_k)/\mu$ with $\xi_k\sim\mathcal N(0,I)$. What is
# left of the posterior is the factor $p_0$, and it becomes a weight. With $E_{\text{prop}}$ for the mean over
# proposals,
#
# $$E[f(a_0)\mid a_t=a]=\frac{E_{\text{prop}}[\,e^{Q(a_0)/\alpha}f(a_0)\,]}{E_{\text{prop}}[\,e^{Q(a_0)/\alpha}\,]}
# \;\approx\;\sum_{k=1}^Kw_k\,f(a_0^{(k)}),\qquad w_k=\frac{e^{Q(a_0^{(k)})/\alpha}}{\sum_je^{Q(a_0^{(j)})/\alpha}} .$$
#
# Numerator and denominator use the same $K$ draws, and every constant cancels. The weights are a *softmax* of
# $Q/\alpha$, and called *self-normalised*. The two estimators are
#
# $$\hat m=\sum_kw_k\,a_0^{(k)},\quad\hat s=\frac{\mu\hat m-a}{\sigma^2}=\frac1\sigma\sum_kw_k\,\xi_k
# \qquad\text{(posterior mean)},\qquad
# \hat s=\frac1{\mu\,\alpha}\sum_kw_k\,\nabla Q(a_0^{(k)})\qquad\text{(gradient)}.$$
#
# The first needs only values of $Q$.

# %%
t1, a1, K = 0.1, torch.tensor([0.42, 0.5], dtype=torch.float64), 200_000
mu1, sigma1 = path.mu(t1), path.sigma(t1)
xi = torch.randn(K, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
proposals = ((a1 + sigma1 * xi) / mu1).requires_grad_()

likelihood = stats.norm(mu1 * proposals[:9].detach(), sigma1).pdf(a1)
as_normal = stats.norm(a1 / mu1, sigma1 / mu1).pdf(proposals[:9].detach()) / mu1.item()
assert abs(likelihood - as_normal).max() < 1e-9  # the likelihood as a normal in a_0

log_p0 = fine.log_prob(proposals)  # Q / alpha, up to a constant
(slope,) = torch.autograd.grad(log_p0.sum(), proposals)
w = log_p0.softmax(0).detach()
by_mean, by_gradient = w @ xi / sigma1, w @ slope / mu1
exact = fine.noised_score(a1, t1, path)
print(f"exact score ({exact[0]:.5f}, {exact[1]:.5f})")
# xi / sigma has a spread of ten, so errors should be near 10 / sqrt(K) = .02, and more by uneven weights
check("step 4: error of the posterior mean's score", (by_mean - exact).norm(), below=0.1)
check("step 4: error of the gradient's score", (by_gradient - exact).norm(), below=0.1)

# %% [markdown]
# ### Step 5: how wrong is a ratio?
#
# The mean of $K$ draws is unbiased. A *ratio* of two means is not. By how much? Scale the weights to mean one,
# $W=e^{Q/\alpha}/E_{\text{prop}}[e^{Q/\alpha}]$, so that $m=E_{\text{prop}}[W a_0]$. The error of $\hat m$ is
#
# $$\hat m-m=\frac{\frac1K\sum_kW_k\,(a_0^{(k)}-m)}{\frac1K\sum_kW_k}.$$
#
# The numerator has mean zero and size $1/\sqrt K$. The denominator is $1+\delta$, with $\delta$ of size $1/\sqrt K$ as
# well. Use $1/(1+\delta)\approx1-\delta$: the error is about the numerator minus $\delta$ times the numerator. In the
# mean of the product only equal indices survive, and each of the $K$ of them gives
# $E_{\text{prop}}[(W-1)\,W(a_0-m)]/K^2$, where the $-1$ contributes nothing. Hence, one coordinate at a time,
#
# $$\text{bias}\approx-\frac1K\,E_{\text{prop}}\big[W^2(a_0-m)\big],\qquad
# \text{variance}\approx\frac1K\,E_{\text{prop}}\big[W^2(a_0-m)^2\big].$$
#
# The bias falls with $1/K$, the *spread* (the root of the variance) with $1/\sqrt K$.
#
# Plain samples of the posterior would have the variance $\frac1KE_{\text{prop}}[W(a_0-m)^2]$, with one factor $W$ less.
# If that were independent of the rest, it would contribute its posterior mean, $E_{\text{prop}}[W\cdot W]$, and $K$
# proposals would be worth $K/E_{\text{prop}}[W^2]$ plain samples. Over the proposals at hand this is the **effective
# sample size**:
#
# $$\text{ESS}=\frac{(\sum_kW_k)^2}{\sum_kW_k^2}=\frac1{\sum_kw_k^2},\qquad1\le\text{ESS}\le K .$$
#
# It is $K$ when all weights are equal and 1 when one proposal takes all.
#
# The experiment is on a line, with two blobs, at $a=0.2$ and $t=0.5$. Every $K$ gets four million proposals, cut into
# groups of $K$.

# %%
two = GaussianMixture(
    torch.tensor([[0.6], [-0.6]], dtype=torch.float64),
    torch.full((2,), 0.25, dtype=torch.float64),
    torch.tensor([0.6, 0.4], dtype=torch.float64),
)
z = torch.linspace(-5, 6, 4001, dtype=torch.float64)
density = torch.from_numpy(stats.norm(0.4, 1.0).pdf(z))  # of the proposals


def mean_over_proposals(f):
    return torch.trapezoid(density * f, z).item()


W = two.log_prob(z[:, None]).exp()
W = W / mean_over_proposals(W)
m1 = mean_over_proposals(W * z)
predicted_bias = -mean_over_proposals(W**2 * (z - m1))
predicted_variance = mean_over_proposals(W**2 * (z - m1) ** 2)
predicted_ess = 1 / mean_over_proposals(W**2)

g = torch.Generator().manual_seed(6)
counts, bias, spread, ess, lines = [4, 8, 16, 32, 64], [], [], [], []
for K in counts:
    a0 = 0.4 + torch.randn(4_000_000 // K, K, generator=g, dtype=torch.float64)
    w = two.log_prob(a0[..., None]).softmax(-1)
    m_hat = (w * a0).sum(-1)
    bias.append(m_hat.mean().item() - m1)
    spread.append(m_hat.std().item())
    ess.append((1 / w.square().sum(-1)).mean().item())
    words = f"bias {bias[-1]:8.5f}   spread {spread[-1]:.5f}   ESS / K {ess[-1] / K:.5f}"
    lines.append(f"K = {K:>2}   {words}")
print("\n".join(lines))
at = counts.index(32)
# at K = 32 the next terms of the expansion are smaller by a factor of a few over K: a tenth; the measured
# bias also has the noise of the experiment, .13 / sqrt(125 000), a fourteenth of it: a quarter
check("step 5: K bias over its prediction", abs(32 * bias[at] / predicted_bias - 1), below=0.25)
ratio = 32 * spread[at] ** 2 / predicted_variance
check("step 5: K variance over its prediction", abs(ratio - 1), below=0.1)
check("step 5: ESS / K over its prediction", abs(ess[at] / 32 / predicted_ess - 1), below=0.1)

# %% tags=["hide-input"]
fig, ax = figure(5.8, 4.0)
K_line = np.array([3, 85])
ax.loglog(K_line, np.sqrt(predicted_variance / K_line), color="#a0a0a0", linewidth=1)
ax.loglog(K_line, abs(predicted_bias) / K_line, color="#a0a0a0", linewidth=1)
ax.loglog(counts, spread, "o", color=COLOURS["score"])
ax.loglog(counts, np.abs(bias), "X", color=COLOURS["error"])
ax.text(17, 0.22, "spread", color=COLOURS["score"])
ax.text(17, 0.014, "bias", color=COLOURS["error"])
ax.set(xlabel="proposals $K$", ylabel="error of the posterior mean", xlim=(3, 85))
ax.set_xticks(counts, counts)
ax.minorticks_off()
show(
    fig,
    "Bias and spread of the estimated posterior mean against K, logarithmic axes. Both follow the "
    "grey lines of the prediction: the spread falls like one over the root of K, the bias twice "
    "as steeply and lies far below.",
)

# %% [markdown]
# **What you should see.** Marks are measured, grey lines predicted. Two slopes, ½ and 1, and the bias below the spread
# everywhere. Remember under which condition: here the ESS is about half of $K$.
#
# **Stop and think.** A network is trained on a million such estimates. Which of the two errors does it learn?
#
# <details><summary>Answer</summary>
#
# The bias. A network that fits noisy targets in mean square learns their *mean*: the spread averages out, slowly, and
# the bias stays. A large error that is nearly all spread is a bad answer and a usable training target.
#
# </details>
#
# ### Step 6: the box, and how to stay in it
#
# A critic is trained on actions in $[-1,1]^d$. Its values outside are nobody's opinion. So propose inside from the
# start: cut the normal $\mathcal N(a/\mu,\sigma^2/\mu^2)$ to $[-1,1]$ in every coordinate. Inside the box this changes
# the density of the proposals by a constant factor only. **The weights stay the same softmax.**
#
# How does one draw from a normal that is cut to an interval? By *inverse transform*. Let $\Phi(z)$ be the probability
# that a standard normal lies below $z$. In units of the noise the box is
#
# $$\text{low}=\frac{-\mu-a}\sigma\;\le\;\xi\;\le\;\frac{\mu-a}\sigma=\text{high}.$$
#
# The distribution function of the cut normal rises from 0 to 1 over this interval. A value $u$, uniform in $[0,1]$, is
# its height. Solve for the place:
#
# $$\frac{\Phi(\xi)-\Phi(\text{low})}{\Phi(\text{high})-\Phi(\text{low})}=u
# \quad\Longleftrightarrow\quad\xi=\Phi^{-1}\big(\Phi(\text{low})+u\,(\Phi(\text{high})-\Phi(\text{low}))\big).$$


# %%
def truncated_normal(low, high, u):
    F = torch.special.ndtr  # the distribution function; ndtri is its inverse
    return torch.special.ndtri(F(low) + u * (F(high) - F(low)))


u = torch.rand(1_000_000, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
worst = 0.0
for low, high in ((-1.0, 2.5), (0.5, 4.5), (-3.0, -2.0)):
    draws = truncated_normal(torch.tensor(low).double(), torch.tensor(high).double(), u)
    reference = stats.truncnorm(low, high)
    worst = max(worst, abs(draws.mean() - reference.mean()), abs(draws.std() - reference.std()))
# a million draws of standard deviation below one: four standard errors
check("step 6: mean and spread against scipy, worst of three intervals", worst, below=0.004)

# %% [markdown]
# ### Step 7: what the gradient does not see
#
# Tweedie's formula did not care where $p_0$ lives. Step 3 did: it integrated by parts. On the box $B$ the boundary term
# stays. By the divergence theorem, with $\mathbf n$ for the outward normal on the faces $\partial B$,
#
# $$\int_Bp_0\,\nabla_{a_0}\mathcal N\,da_0=\oint_{\partial B}p_0\,\mathcal N\,\mathbf n\,dS-\int_B\mathcal
# N\,\nabla p_0\,da_0 .$$
#
# Multiply by $-1/\mu$ and divide by $p_t$:
#
# $$\boxed{\,s(a,t)=\frac1\mu\Big(E\big[\nabla\log p_0\mid a_t=a\big]-\frac1{p_t(a)}\oint_{\partial
# B}p_0(a_0)\,\mathcal N(a;\mu a_0,\sigma^2I)\,\mathbf n\,dS\Big)}$$
#
# The gradient estimator computes the first part and drops the second: walls push inwards.
#
# The plainest case: $d=1$ and $Q=0$, a uniform density on $[-1,1]$. The gradient estimator answers *zero*, for every
# $a$, every $t$ and every $K$. The true score is all boundary,
#
# $$s(a,t)=-\frac1\mu\cdot\frac{p_0(1)\,\mathcal N(a;\mu,\sigma^2)-p_0(-1)\,\mathcal N(a;-\mu,\sigma^2)}{p_t(a)}.$$
#
# The cell takes two slopes, $Q=0$ and $Q=2a$, with $\alpha=1$. The truth is $\log p_t$, an integral on a fine grid,
# differentiated by autograd.

# %%
half = (torch.arange(4000, dtype=torch.float64) + 0.5) / 2000 - 1  # cells of [-1, 1]
t7 = 0.3
mu7, sigma7 = 1 - t7, t7
line = torch.linspace(-1.6, 1.6, 161, dtype=torch.float64)


def normal(a, mean):
    return ((a - mean) ** 2 / (-2 * sigma7**2)).exp() / (math.sqrt(2 * math.pi) * sigma7)


parts = {}
for slope in (0.0, 2.0):
    p0 = (slope * half).exp()
    mass = p0.sum() / 2000
    place = line.clone().requires_grad_()
    pt = (p0 * normal(place[:, None], mu7 * half)).sum(-1) / 2000 / mass
    (truth,) = torch.autograd.grad(pt.log().sum(), place)
    right_wall = math.exp(slope) / mass * normal(line, mu7)
    left_wall = math.exp(-slope) / mass * normal(line, -mu7)
    walls = -(right_wall - left_wall) / pt.detach() / mu7
    inside = torch.full_like(line, slope / mu7)  # E[grad Q] / mu: grad Q is the same everywhere
    parts[slope] = truth, inside, walls
    # the midpoint rule on 4000 cells is good to about 1e-6 here
    error = (inside + walls - truth).abs().max()
    check(f"step 7: inside plus walls against the score, Q = {slope:g} a", error, below=1e-4)

# %% tags=["hide-input"]
fig, axes = figure(8.4, 3.8, ncols=2)
for ax, (slope, (truth, inside, walls)) in zip(axes, parts.items(), strict=True):
    plots.curve(ax, line, truth, kind="reference")
    plots.curve(ax, line, inside, kind="score")
    plots.curve(ax, line, walls, kind="error")
    ax.axvspan(-1, 1, color="#eaf3f9", zorder=0)
    ax.set(xlim=(-1.6, 1.6), ylim=(-13, 13), xlabel="$a$")
    ax.set_title(f"$Q = {slope:g}\\,a$, $t = 0.3$" if slope else "$Q = 0$, $t = 0.3$")
axes[0].text(-0.6, 5, "the score is what the walls add")
axes[0].text(-1.55, -1.5, "what the gradient sees", color=COLOURS["score"])
axes[1].text(0.02, 3.6, "what the gradient sees", color=COLOURS["score"])
axes[1].text(-0.85, 6.5, "the score")
axes[1].text(-0.95, -5, "what the walls add", color=COLOURS["error"])
show(
    fig,
    "Two panels, Q = 0 and Q = 2a, over a from -1.6 to 1.6 with the box shaded. For Q = 0 the score falls from 11 at the "
    "left end through 0 in the middle to -11 at the right end; the part seen by the gradient is the zero line, and the "
    "wall part is the whole score. For Q = 2a the gradient part is a constant line near 3; the wall part is positive on "
    "the left and lifts the score above that line, negative on the right and pulls it below.",
)

# %% [markdown]
# **What you should see.** Left: all that the gradient knows is zero. Right: the gradient says "to the right,
# everywhere", also beyond the right wall, where the truth points back. And good actions may well sit *at* a wall: full
# torque.
#
# ### Step 8: two members of one family
#
# Why are there two formulas for one score? Take a single draw $a_0$ from the posterior, and write down what each
# formula averages:
#
# $$h_1=\frac{\mu a_0-a}{\sigma^2},\qquad h_2=\frac{\nabla\log p_0(a_0)}\mu .$$
#
# Away from walls both have the mean $s$. So $h_2-h_1$ has mean *zero*. One may add any multiple of it without changing
# the mean, and choose the multiple that reduces the variance: it is a **control variate**. We get a family with a
# parameter $\lambda$,
#
# $$\hat s_\lambda=\sum_kw_k\,\big((1-\lambda)\,h_1^{(k)}+\lambda\,h_2^{(k)}\big),$$
#
# with the posterior mean at $\lambda=0$ and the gradient at $\lambda=1$.
#
# For a Gaussian $p_0=\mathcal N(m_0,c^2I)$ there is a perfect $\lambda$. Then $\nabla\log p_0=-(a_0-m_0)/c^2$, so $h_1$
# and $h_2$ are both linear in $a_0$, one rising and one falling. The right mixture does not depend on $a_0$ at all:
#
# $$(1-\lambda)\,\frac\mu{\sigma^2}-\frac\lambda{\mu c^2}=0\quad\Longleftrightarrow\quad
# \lambda^*=\frac{\mu^2c^2}{\mu^2c^2+\sigma^2} .$$
#
# *One* proposal, at any place, gives the exact score. At low noise $\lambda^*$ is near 1, the gradient, at high noise
# near zero.

# %%
m0, c = torch.tensor([0.3, -0.2], dtype=torch.float64), 0.5
blob = GaussianMixture(m0[None], torch.tensor([c]).double(), torch.ones(1).double())
anywhere = torch.rand(40, 2, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
h1, h2 = (mu * anywhere - a) / sigma**2, -(anywhere - m0) / c**2 / mu
best = mu**2 * c**2 / (mu**2 * c**2 + sigma**2)
difference = largest((1 - best) * h1 + best * h2 - blob.noised_score(a, t, path))
check("step 8: the best mixture from one draw against the exact score", difference, below=1e-9)

# %% [markdown]
# For three blobs the mixture is not perfect, but the law is the same. Here is the error on the toy, with $K=128$. The
# ring is $\lambda^*$ for a single blob of our width, $c=0.12$.

# %%
lambdas = torch.linspace(0, 1, 101)
times8 = {
    0.05: COLOURS["average"],
    0.1: COLOURS["data"],
    0.2: COLOURS["flow"],
    0.4: COLOURS["error"],
}
curves = {}
for t8 in times8:
    a8, g = on_path(1000, t8, seed=9), torch.Generator().manual_seed(10)
    xi = torch.randn(1000, 128, 2, generator=g)
    a0 = ((a8[:, None] + t8 * xi) / (1 - t8)).requires_grad_()
    log_p0 = q(a0) / alpha
    (slope,) = torch.autograd.grad(log_p0.sum(), a0)
    w = log_p0.softmax(-1).detach()[..., None]
    h1, h2 = (w * xi).sum(1) / t8, (w * slope).sum(1) / (1 - t8)
    s8 = toy.noised_score(a8, t8, path)
    error = h1 + lambdas[:, None, None] * (h2 - h1) - s8
    curves[t8] = (error.square().sum(-1).mean(-1) / s8.square().sum(-1).mean()).sqrt().numpy()
check("t = .05: gradient over posterior mean", curves[0.05][-1] / curves[0.05][0], below=0.5)
check("t = .4: gradient over posterior mean", curves[0.4][-1] / curves[0.4][0], above=5)
gain = min(curves[0.1]) / min(curves[0.1][[0, -1]])
check("t = .1: best mixture over the better of the two", gain, below=0.8)

# %% tags=["hide-input"]
fig, ax = figure(6.0, 4.0)
for t8, colour in times8.items():
    ax.semilogy(lambdas, curves[t8], color=colour)
    gate = ((1 - t8) * 0.12) ** 2 / (((1 - t8) * 0.12) ** 2 + t8**2)
    ax.semilogy(gate, curves[t8][round(100 * gate)], "o", color=colour, mfc="none", markersize=9)
    ax.text(1.02, curves[t8][-1], f"$t = {t8}$", color=colour, va="center")
ax.set(xlim=(0, 1), ylim=(3e-4, 8), xlabel="$\\lambda$")
ax.set_ylabel("error of $\\hat s_\\lambda$ / length of $s$")
ends = ["0\nposterior mean", "0.2", "0.4", "0.6", "0.8", "1\ngradient"]
ax.set_xticks(np.linspace(0, 1, 6), ends)
show(
    fig,
    "Error of the mixture against lambda on a logarithmic axis, one curve for each of t = .05, "
    ".1, .2 and .4; the axis runs from 0, the posterior mean, to 1, the gradient. At small t the "
    "curve falls to the right, at large t it rises to the right. Each has a dip in between, near "
    "a ring: far right at t = .05, in the middle at .1, at the far left at .4.",
)

# %% [markdown]
# **What you should see.** At $t=0.05$ the gradient end is better, at $t=0.2$ and $0.4$ the posterior-mean end. In
# between lies a mixture that beats both, and the ring of the one-blob theory finds it. But $\lambda^*$ uses the width
# $c$, and our blobs all have the same; and everything with $\lambda>0$ inherits the missing walls.

# %% [markdown]
# ## Code
#
# Everything takes points `a` of shape `(*batch, d)`, and a time that is a number or one value per point, `(*batch, 1)`.
# Proposals have one axis more, `(*batch, K, d)`. `box_proposals` is the line of step 6, made safe for 32-bit numbers
# (appendix, at the end of "What can go wrong").


# %%
def _coefficients(a, t, path):
    mu, sigma = (torch.as_tensor(c, dtype=a.dtype) for c in (path.mu(t), path.sigma(t)))
    return (mu[..., None], sigma[..., None]) if mu.ndim else (mu, sigma)


def _rand(draw, a, K, generator):
    if K < 1:
        raise ValueError(f"K, the number of proposals, must be at least 1, got {K}")
    shape = (*a.shape[:-1], K, a.shape[-1])
    return draw(shape, generator=generator, dtype=a.dtype, device=a.device)


def free_proposals(a, t, path, K, generator):
    mu, sigma = _coefficients(a, t, path)
    xi = _rand(torch.randn, a, K, generator)
    return (a[..., None, :] + sigma * xi) / mu


def importance_weights(q, alpha):
    return (q / alpha).softmax(-1)


def effective_sample_size(w):
    return 1 / w.square().sum(-1)


# Why not exp(q / alpha) / sum? In 32 bits exp(100) is infinity; softmax subtracts the largest entry first.
w = importance_weights(torch.tensor([100.0, 99.0]), 1.0)
assert abs(w[0] / w[1] - math.e) < 1e-5

# For the exercise: what an estimator finds for 200 points, over what is exact.
from som_lite.flow import scores as package

trials = [(0.1, True), (0.6, True), (torch.full((200, 1), 0.6), True), (0.6, False)]


def trial(estimate, t, box):
    """Error of m, error of Tweedie's formula, mean effective sample size, and whether a graph is left."""
    tilt = torch.ones((), requires_grad=True)  # as if q were a network
    a, g = on_path(200, t, seed=11), torch.Generator().manual_seed(12)
    m, score, ess = estimate(lambda a0: tilt * q(a0), a, t, path, alpha, 2000, g, box)
    wrong = (m - toy.posterior_mean(a, t, path)).square().sum(-1).mean().sqrt()
    apart = largest(score - path.score_from_mean(m, a, t))
    graph = any(x.requires_grad for x in (m, score, ess))
    return wrong.item(), apart.item(), ess.mean().item(), float(graph)


# %% [markdown]
# ### 1. The estimator of the book · ●●○ · 20 min
#
# Write the posterior-mean estimator of step 4, with box or unbounded proposals. It returns `Estimate(m, score, ess)`,
# with the score by Tweedie (`path.score_from_mean(m, a, t)`). Its results will be *targets* for a network, so no
# gradient may flow out of them, even where `q` is a network itself. The check compares with the package's: error of
# $m$, effective sample size, and no graph.


# %% tags=["exercise", "raises-exception"]
def posterior_mean_estimate(q, a, t, path, alpha, K, generator, box=True):
    raise NotImplementedError


for when, in_box in trials:
    error, apart, ess, graph = trial(posterior_mean_estimate, when, in_box)
    theirs = trial(package.posterior_mean_estimate, when, in_box)
    name = f"exercise 1, t = {when if isinstance(when, float) else 'one per point'}, box = {in_box}"
    check(f"{name}: error over the package's", error / theirs[0], above=0.7, below=1.4)
    check(f"{name}: ESS over the package's", ess / theirs[2], above=0.9, below=1.1)
    check(f"{name}: distance from Tweedie's formula", apart, below=1e-3)
    check(f"{name}: results with a graph", graph, below=0.5)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Proposals, values of `q`, weights, a sum over the proposals: four lines under `torch.no_grad()`. The weights need one
# more axis before they meet the proposals.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# It is the package's (`som_lite.flow.scores`).
#
# ```python
# def posterior_mean_estimate(q, a, t, path, alpha, K, generator, box=True):
#     with torch.no_grad():
#         a0 = (box_proposals if box else free_proposals)(a, t, path, K, generator)
#         w = importance_weights(q(a0), alpha)
#         m = (w[..., None] * a0).sum(-2)
#         return Estimate(m, path.score_from_mean(m, a, t), effective_sample_size(w))
# ```
#
# </details>

# %% [markdown]
# ### The gradient estimator
#
# It opens a graph from the proposals to $Q$ and no further. The gradient of `value.sum()` holds the gradients of all
# proposals at once, because each value depends on its own proposal only. The literature (iDEM, 2402.06121) writes it as
#
# $$\hat s=\nabla_a\log\frac1K\sum_k\exp\big(Q(a_0^{(k)})/\alpha\big),\qquad a_0^{(k)}=\frac{a+\sigma\xi_k}\mu:$$
#
# the derivative of `logsumexp` is `softmax`, and the chain rule brings $1/\mu$.

# %%
from som_lite.flow.scores import posterior_mean_estimate  # with or without your own


def gradient_estimate(q, a, t, path, alpha, K, generator, box=True):
    with torch.no_grad():
        a0 = (box_proposals if box else free_proposals)(a, t, path, K, generator)
        with torch.enable_grad():
            value = q(a0.requires_grad_())
            (grad,) = torch.autograd.grad(value.sum(), a0)
        w = importance_weights(value, alpha)
        score = (w[..., None] * grad).sum(-2) / (alpha * path.mu(t))
        return Estimate(path.mean_from_score(score, a, t), score, effective_sample_size(w))


a = on_path(100, 0.3, seed=11).requires_grad_()
a0 = free_proposals(a, 0.3, path, 64, torch.Generator().manual_seed(12))
(by_logsumexp,) = torch.autograd.grad((q(a0) / alpha).logsumexp(-1).sum(), a)
g = torch.Generator().manual_seed(12)  # the same proposals
ours = gradient_estimate(q, a.detach(), 0.3, path, alpha, 64, g, box=False).score
relative = largest(by_logsumexp - ours) / largest(ours)
check("gradient estimator against autograd through logsumexp", relative, below=1e-4)

# %% [markdown]
# ### Own samples as proposals
#
# Near $t=1$ the point $a$ says nothing about $a_0$, and box proposals are a uniform shower. If the target is a few
# narrow peaks, nearly all is wasted. But the *sampler that we are training* may know the peaks after a while.
# `shared_posterior_mean_estimate` takes $C$ of its samples along, each blurred by a small normal that is cut to the
# box.
#
# The rule for weights is always the same: *target over proposal density*. All $K+C$ points are treated as if each came
# from the mixture of both sources,
#
# $$w_j\propto\frac{\exp(Q(z_j)/\alpha)\;\mathcal N(a;\mu z_j,\sigma^2I)}{\frac K{K+C}\,q_{\text{box}}(z_j)+\frac
# C{K+C}\,q_{\text{own}}(z_j)} ,$$
#
# where $q_{\text{box}}$ is the density of the box proposals, and $q_{\text{own}}$ the mean of the $C$ small normals.
# This is the *balance heuristic* of computer graphics (Veach and Guibas 1995). In the limit of many proposals the
# answer does not depend on where the own samples lie. With few it does (check 4).

# %%
poor, g = torch.full((100, 32, 2), -0.9), torch.Generator().manual_seed(33)  # all in a corner
a, late = torch.tensor([[0.2, 0.1]]).expand(100, 2), torch.full((100, 1), 0.7)
shared = shared_posterior_mean_estimate(q, a, late, path, alpha, 4096, g, poor)
m = BoxBoltzmann(q, alpha).posterior_mean(a[:1], 0.7, path)
# the mean of 100 estimates: its standard error is about .002
check("own samples in a corner, K = 4096: error of m", (shared.m.mean(0) - m).norm(), below=0.01)

# %% [markdown]
# ## Checks
#
# **1. Known answers on the box.** The density $p_0\propto e^{2a}$ on $[-1,1]$, at $a=0.3$. Scipy's adaptive quadrature
# gives $m$. With $K=400\,000$ proposals of standard deviation 0.46 and 0.57, four standard errors are below 0.004. The
# gradient estimator must fail, and we know how: $\nabla Q=2$ everywhere, so it answers $2/\mu$. At $t=1$ the point says
# nothing, and $m$ must be the mean of $p_0$, which is $\coth2-\frac12$.


# %%
def rising(a):
    return 2 * a[..., 0]


def by_quadrature(a, t):
    """The posterior mean of exp(2 a) on [-1, 1]."""
    weight = lambda a0: math.exp(2 * a0 - ((a - (1 - t) * a0) / t) ** 2 / 2)  # noqa: E731
    top, bottom = (integrate.quad(f, -1, 1)[0] for f in (lambda a0: a0 * weight(a0), weight))
    return top / bottom


g, point = torch.Generator().manual_seed(14), torch.tensor([[0.3]])
for t1 in (0.4, 0.8):
    truth, arguments = by_quadrature(0.3, t1), (rising, point, t1, path, 1.0, 400_000, g)
    print(f"t = {t1}: m = {truth:.6f}, score {((1 - t1) * truth - 0.3) / t1**2:.6f}")
    estimate = posterior_mean_estimate(*arguments)
    check(f"1. error of the posterior mean, t = {t1}", abs(estimate.m.item() - truth), below=0.004)
    wrong = gradient_estimate(*arguments).score.item()
    check(f"1. gradient estimate against 2 / mu, t = {t1}", abs(wrong - 2 / (1 - t1)), below=1e-4)

at_noise = posterior_mean_estimate(rising, point, torch.ones(1, 1), path, 1.0, 400_000, g).m.item()
check("1. error at t = 1", abs(at_noise - (1 / math.tanh(2) - 0.5)), below=0.004)

# %% [markdown]
# **2. The table.** *Which estimator, which proposals, which $K$?* For each row and each of four times we take 1000
# points of the path, estimate $v$ at each of them eight times with fresh proposals, and compare with the closed form:
# root mean square error (RMSE), the share of bias in its square (what the variance over the repeats leaves; zero means
# too small to see), and effective sample size.

# %%
times = (0.1, 0.4, 0.8, 0.95)


def judge(estimate, K, box, t, points=1000, repeats=8):
    """RMSE of v, share of bias in its square in %, effective sample size."""
    a, g = on_path(points, t, seed=16), torch.Generator().manual_seed(17)
    v = toy.velocity(a, t, path)
    result = estimate(q, a.expand(repeats, -1, -1), t, path, alpha, K, g, box)
    error = (path.velocity_from_mean(result.m, a, t) - v).double()
    square, variance = error.square().sum(-1).mean().item(), error.var(0).sum(-1).mean().item()
    share = 100 * max(0.0, 1 - variance / square)
    return square**0.5, share, result.ess.mean().item()


settings = {
    "posterior mean, unbounded, K = 128": (posterior_mean_estimate, 128, False),
    "gradient,       unbounded, K = 128": (gradient_estimate, 128, False),
    "gradient,       box,       K = 128": (gradient_estimate, 128, True),
    "posterior mean, box,       K = 128": (posterior_mean_estimate, 128, True),
    "posterior mean, box,       K = 16": (posterior_mean_estimate, 16, True),
    "posterior mean, box,       K = 1024": (posterior_mean_estimate, 1024, True),
}
table = {name: [judge(*setting, t) for t in times] for name, setting in settings.items()}

speeds = [
    toy.velocity(on_path(1000, t, seed=16), t, path).norm(dim=-1).mean().item() for t in times
]
printed = [f"{'':38}" + "".join(f"{'t = ' + str(t):>11}" for t in times)]
printed.append(f"{'mean length of v':38}" + "".join(f"{speed:11.4f}" for speed in speeds))
for block, title in enumerate(("RMSE of v", "bias, % of its square", "effective sample size")):
    printed.append(title)
    for name, row in table.items():
        entries = [f"{x[block]:11.4f}" if x[block] < 1e4 else f"{x[block]:11.4e}" for x in row]
        printed.append(f"  {name:36}" + "".join(entries))
print("\n".join(printed))
rmse = {name: [entry[0] for entry in row] for name, row in table.items()}
mean_free, grad_free, grad_box, mean_box, few, many = rmse.values()
gains = [x / y for x, y in zip(few, many, strict=True)]
check("2. posterior mean, unbounded, t = .95", mean_free[3], above=3)
check("2. gradient, unbounded, t = .95", grad_free[3], above=1e4)
check("2. gradient, box, t = .95", grad_box[3], above=100)
check("2. posterior mean, box, K = 128: worst over t", max(mean_box), below=0.45)
check("2. least gain from 64 times the proposals", min(gains), above=5)
assert max(gains) < 11
a = on_path(1000, 0.1, seed=16)
walls = BoxBoltzmann(q, alpha, cells=401).velocity(a, 0.1, path) - toy.velocity(a, 0.1, path)
cut_off = walls.square().sum(-1).mean().sqrt()
check("2. RMSE between the toy and the toy cut to the box, t = .1", cut_off, below=0.03)

# %% [markdown]
# The table decides how the later chapters are built.
#
# * **At low noise ($t=0.1$) all do well.** The gradient has a small lead, as step 8 said.
# * **Unbounded proposals fail towards $t=1$.** Their standard deviation is $\sigma/\mu$, which is 19 at $t=0.95$. The
#   ESS is one, and the estimate is one proposal.
# * **The gradient estimator fails much harder.** It takes $\nabla Q$ of that one proposal, far from all blobs.
# * **The box rescues the posterior mean, not the gradient.** $\hat m$ is a mean of points in the box, so
#   $\|\hat v-v\|\le2\sqrt d/t$. The gradient has no such leash.
# * **$K$ works as in step 5.** From 16 to 1024, a factor of 64, the error falls by about eight. (The 9 % of bias at
#   $t=0.1$ and $K=1024$ are the 0.2 % of the toy outside the box, which box proposals deny: the last check.)
#
# **3. Own samples, good and bad, beside no estimate at all.** Four dimensions, two narrow peaks at opposite corners (60
# and 40 %), $t=0.8$, 128 points in all. We replace 32 box proposals by own samples: perfect ones, ones that know only
# the *smaller* peak, and uniform ones. One line forgets the density of the perfect ones and uses the plain softmax. The
# last line is the baseline to beat: $m=0$, without a look at $Q$.


# %%
def peaks(d):
    """Two narrow peaks, at (.5, ..., .5) and (-.5, ..., -.5)."""
    centre = torch.full((1, d), 0.5)
    weights = torch.tensor([0.6, 0.4])
    return GaussianMixture(torch.cat([centre, -centre]), torch.full((2,), 0.15), weights)


def relative_error(m, v, a, t):
    """RMSE of v over the root mean square of v."""
    error = path.velocity_from_mean(m, a, t) - v
    return (error.square().mean() / v.square().mean()).sqrt().item()


four, n, t3 = peaks(4), 1000, torch.full((1000, 1), 0.8)
a = on_path(n, 0.8, seed=18, density=four)
v, g = four.velocity(a, 0.8, path), torch.Generator().manual_seed(19)
fresh = four.sample(32 * n, g).reshape(n, 32, 4)
one_peak = (torch.randn(n, 32, 4, generator=g) * 0.15 - 0.5).clamp(-1, 1)
untrained = 2 * torch.rand(n, 32, 4, generator=g) - 1

results = {"128 box proposals": posterior_mean_estimate(four.log_prob, a, 0.8, path, 1.0, 128, g)}
for name, own in {"own": fresh, "own, one peak": one_peak, "own, untrained": untrained}.items():
    arguments = (four.log_prob, a, t3, path, 1.0, 96, g, own)
    results[f"96 box + 32 {name}"] = shared_posterior_mean_estimate(*arguments)
z = torch.cat([box_proposals(a, 0.8, path, 96, g), fresh.clamp(-1, 1)], dim=1)
w = importance_weights(four.log_prob(z), 1.0)
plain = Estimate((w[..., None] * z).sum(1), a, effective_sample_size(w))
results["96 box + 32 own, plain softmax"] = plain

errors = {name: relative_error(result.m, v, a, 0.8) for name, result in results.items()}
words = {name: f"{errors[name]:.4f}   ESS {x.ess.mean():8.4f}" for name, x in results.items()}
print("\n".join(f"{name:<32} relative error {text}" for name, text in words.items()))
zero_error = relative_error(0 * a, v, a, 0.8)
print(f"{'the answer 0':<32} relative error {zero_error:.4f}")
box_error, own_error, one_error, untrained_error, plain_error = errors.values()
check("3. own over the answer 0", own_error / zero_error, below=0.7)
check("3. box over the answer 0", box_error / zero_error, above=1.5)
worse = max(one_error, untrained_error) / box_error
check("3. the worse of one peak and untrained, over box", worse, below=1.3)
check("3. plain softmax over the balance heuristic", plain_error / own_error, above=1.5)

# %% [markdown]
# Perfect samples leave a quarter of the error. Untrained ones, and ones that miss a peak, hardly hurt here. The plain
# softmax counts every peak twice, once through the samples and once through $Q$. **A high ESS is no proof**: the
# largest belongs to this wrong answer. It cannot see a peak that no proposal hit, or a density that was forgotten.
#
# And in four dimensions the box loses to no estimate at all, by a factor of two.
#
# **4. Many dimensions, bias and spread apart.** HalfCheetah has 6 action dimensions, Humanoid 17. Take the two peaks in
# $d=1$ to 16 dimensions at $t=0.8$. Each of 150 points is estimated 16 times, to tell bias from spread.

# %%
dims, repeats, n = (1, 2, 4, 6, 8, 12, 16), 16, 150


def error_parts(estimate, m, v, t):
    """Error, bias and spread of v over the root mean square of v, and the mean ESS."""
    error = (estimate.m.view(repeats, *m.shape) - m) / t
    variance = error.var(0).sum(-1).mean()
    # the mean of 16 still has a sixteenth of the variance
    bias = (error.mean(0).square().sum(-1).mean() - variance / repeats).clamp(min=0)
    size = v.square().sum(-1).mean()
    parts = [(x / size).sqrt().item() for x in (variance + bias, bias, variance)]
    return *parts, estimate.ess.mean().item()


found = {"box": [], "own": [], "zero": [], "heated": []}
for d in dims:
    target, g = peaks(d), torch.Generator().manual_seed(20)
    a = on_path(n, 0.8, seed=21, density=target)
    m, v = target.posterior_mean(a, 0.8, path), target.velocity(a, 0.8, path)
    many_a, t4 = a.repeat(repeats, 1), torch.full((repeats * n, 1), 0.8)
    own = target.sample(32 * repeats * n, g).reshape(repeats * n, 32, d)
    box = posterior_mean_estimate(target.log_prob, many_a, t4, path, 1.0, 128, g)
    shared = shared_posterior_mean_estimate(target.log_prob, many_a, t4, path, 1.0, 96, g, own)
    heated = posterior_mean_estimate(target.log_prob, a, 0.8, path, 10.0, 128, g)
    found["box"].append(error_parts(box, m, v, 0.8))
    found["own"].append(error_parts(shared, m, v, 0.8))
    found["zero"].append(relative_error(0 * a, v, a, 0.8))
    found["heated"].append(heated.ess.mean().item())

print("           error of v        |    its bias     |           ESS of 128")
print(" d    box     own   answer 0 |    box     own  |    box      own   box, 10 alpha")
for d, one, other, zero, hot in zip(dims, *found.values(), strict=True):
    left = f"{one[0]:7.4f} {other[0]:7.4f} {zero:8.4f}"
    print(
        f"{d:>2} {left}   | {one[1]:7.4f} {other[1]:7.4f} | {one[3]:8.4f} {other[3]:8.4f} {hot:9.4f}"
    )
at = dims.index(8)
box8, own8, zero8 = found["box"][at], found["own"][at], found["zero"][at]
check("4. d = 8: error of box over that of the answer 0", box8[0] / zero8, above=2)
check("4. d = 8: bias of box over that of the answer 0", box8[1] / zero8, below=0.6)
assert (box8[1] / box8[0]) ** 2 < 0.06  # bias in the squared error of box
check("4. d = 8: error with own samples over the answer 0", own8[0] / zero8, below=1)
check("4. d = 16: the same", found["own"][-1][0] / found["zero"][-1], above=1)
sixteenfold = posterior_mean_estimate(target.log_prob, a, 0.8, path, 1.0, 16 * 128, g).m
gain = relative_error(sixteenfold, v, a, 0.8) / found["box"][-1][0]
check("4. d = 16: error of box with 16 times the proposals, over that with 128", gain, above=0.8)
blind = shared_posterior_mean_estimate(target.log_prob, many_a, t4, path, 1.0, 96, g, -own.abs())
astray = error_parts(blind, m, v, 0.8)[1] / found["zero"][-1]
check("4. d = 16: bias with own samples on one peak, over the answer 0", astray, above=1.5)
climbing = uphill(target.log_prob, own, 1.0)
moved = shared_posterior_mean_estimate(target.log_prob, many_a, t4, path, 1.0, 96, g, climbing)
by_moved = error_parts(moved, m, v, 0.8)[0] / found["zero"][-1]
check("4. d = 16: error with own samples moved uphill, over the answer 0", by_moved, below=0.5)

# %% tags=["hide-input"]
fig, (left, right) = figure(8.4, 3.9, ncols=2)
looks = {"box": ("error", "box"), "own": ("average", "own"), "zero": ("reference", "answer 0")}
for part, ax in enumerate((left, right)):
    for name, (kind, label) in looks.items():
        rows = found[name]
        curve = rows if name == "zero" else [row[part] for row in rows]
        shift = {"own": 5, "zero": -5}.get(name, 0) if part == 0 else 0
        plots.curve(ax, dims, curve, kind=kind, label=label, shift=shift)
    ax.set(xlabel="dimension $d$", xlim=(0, 16), ylim=(0, 0.75))
    ax.set_xticks([1, 4, 8, 12, 16])
left.set_title("relative error of $v$, $t = 0.8$")
right.set_title("its bias alone")
show(
    fig,
    "Two panels against the dimension from 1 to 16, with the same axis from 0 to 0.75. Left, the relative error of v: box "
    "proposals rise steeply to about 0.65, own samples slowly to 0.38; the answer 0 lies between 0.16 and 0.3, below box "
    "from d = 4 on and below own from d = 12 on. Right, the bias alone: the answer 0 as before, box below it everywhere, "
    "at 0.17 in the end, and own at less than 0.1.",
)

# %% [markdown]
# **What you should see.** Left: as a single estimate, the box is worse than the answer 0 from four dimensions on, and
# own samples win only up to eight. Right, the good news: nearly all of the error is spread. The *bias* of the box, what
# a network would learn from many such targets, stays below that of the answer 0, whose error is all bias. Own samples
# have less, if they know both peaks. If they know one, they bend the answer (checked): balanced weights repair that
# only in the limit.
#
# The table has the reason: at eight dimensions one proposal in 128 decides. (Two narrow peaks in an empty box are a
# hard case on purpose.) At sixteen, sixteen times the proposals hardly help. What helps is to move good own samples up
# the gradient of $Q$ before they are blurred (`uphill`); their density stays known.

# %% [markdown]
# ## Explorer
#
# On the left, the exact field $-v$ (black; the way a sampler moves) and its estimate (orange) from `K` values of $Q$ at
# each point. On the right, the error of $v$ and the share ESS / K over all $t$; errors above 30 are drawn at 30.
#
# **Stop and think.** Before you move a slider: unbounded proposals, $K=256$. Which estimator has the smaller error at
# $t=0.05$? And what is the ESS at $t=0.95$, roughly?
#
# <details><summary>Answer</summary>
#
# The gradient: $h_1$ averages $\xi/\sigma$, large random numbers, while $h_2$ differs little from proposal to proposal.
# At $t=0.95$ the ESS is one: of 256 proposals with standard deviation 19 fewer than one lands in the box on average, so
# the nearest takes all the weight.
#
# </details>

# %%
score_estimate_explorer(toy, q, alpha)

# %% [markdown]
# **What you should see.** With the posterior mean in the box most orange arrows follow the black ones at every `t`;
# between the blobs they waver, less with more `K`. With unbounded proposals they are random there, and the share of
# effective proposals falls to $1/K$. The gradient is the best of all at `t` = 0.05; at 0.95 all its arrows are cut.

# %% [markdown]
# ## What can go wrong
#
# ### An average that does not exist
#
# What if $Q$ grows outside the box? Take $Q=a^2$ in one dimension, with $\alpha=1$. Unbounded proposals are normal with
# standard deviation $\sigma/\mu$. The mean of their weights is
#
# $$E_{\text{prop}}\big[e^{a_0^2}\big]=\int\exp\Big(a_0^2-\frac{(a_0-a/\mu)^2}{2\,\sigma^2/\mu^2}\Big)\,da_0\cdot\text{const},$$
#
# and this integral is infinite as soon as $\sigma^2/\mu^2\ge\frac12$, on the linear path $t\ge0.41$. Below that, the
# posterior is a normal with mean $(a/\mu)/(1-2\,\sigma^2/\mu^2)$. We watch the estimate while $K$ grows to a million,
# at $a=0.3$.


# %%
def bowl(a):
    return a[..., 0] ** 2


def running_mean(propose, t, K, seed):
    """The estimate of m from the first 1, 2, ..., K proposals."""
    point = torch.tensor([0.3], dtype=torch.float64)
    a0 = propose(point, t, path, K, torch.Generator().manual_seed(seed))
    w = (bowl(a0) - bowl(a0).max()).exp()
    return (w * a0[:, 0]).cumsum(0) / w.cumsum(0)


K = 1_000_000
runs = {
    (propose, t5): torch.stack([running_mean(propose, t5, K, seed) for seed in range(6)])
    for t5 in (0.2, 0.6)
    for propose in (free_proposals, box_proposals)
}
last = {key: run[:, -1] for key, run in runs.items()}
check("t = .6: spread of six unbounded estimates", last[free_proposals, 0.6].std(), above=1)
assert last[box_proposals, 0.6].std() < 0.005
runaway = (0.3 / 0.8) / (1 - 2 * 0.2**2 / 0.8**2)
settled = (last[free_proposals, 0.2] - runaway).abs().max()
check("t = .2: unbounded against the mean of its normal", settled, below=0.003)

# %% tags=["hide-input"]
fig, axes = figure(8.4, 3.6, ncols=2)
shown = np.unique(np.logspace(1, 6, 400).astype(int)) - 1
for ax, t5 in zip(axes, (0.2, 0.6), strict=True):
    for propose, kind in ((free_proposals, "error"), (box_proposals, "data")):
        for run in runs[propose, t5]:
            ax.semilogx(shown + 1, run[shown], color=COLOURS[kind], linewidth=1.0)
    ax.set(xlabel="proposals $K$", title=f"estimate of $m$, $t = {t5}$", xlim=(10, K))
axes[0].set_ylim(0.2, 0.8)
axes[1].set_ylim(-11, 11)
axes[1].text(13, 9.3, "unbounded proposals", color=COLOURS["error"])
axes[1].text(1e3, -1.9, "box proposals", color=COLOURS["data"])
show(
    fig,
    "The running estimate of the posterior mean against K up to a million, six runs each. Left, "
    "t = .2: unbounded and box proposals both settle, at slightly different values. Right, t = "
    ".6: box proposals settle near .13; unbounded ones jump between -5 and 8, in steps that "
    "never end.",
)

# %% [markdown]
# **What you should see.** On the left both settle. (On different values: unbounded proposals see $e^{a^2}$ on the whole
# line.) On the right the unbounded estimate is, after a million proposals, the place of whichever was farthest out. No
# $K$ helps, since there is nothing to converge to.
#
# ### The box ignored
#
# A critic made of ReLU layers grows at most linearly far out. Then the integral exists, which is no consolation. Let
# $Q=2a$, as in check 1, and forget the box. The posterior is then a normal with mean $a/\mu+2\,\sigma^2/\mu^2$, and the
# estimator with unbounded proposals converges to *that*.

# %%
rows = ["   t      m on the box    box, K = 128    limit without a box    unbounded, K = 128"]
worst = 0.0
for t6 in (0.1, 0.4, 0.8, 0.95):
    mu6, sigma6 = 1 - t6, t6
    truth, limit = by_quadrature(0.3, t6), 0.3 / mu6 + 2 * sigma6**2 / mu6**2
    g = torch.Generator().manual_seed(22)
    points = torch.full((2000, 1), 0.3)  # a mean of 2000 estimates, to be rid of chance
    inside, outside = (
        posterior_mean_estimate(rising, points, t6, path, 1.0, 128, g, box).m.mean().item()
        for box in (True, False)
    )
    rows.append(f"{t6:5.2f}   {truth:12.5f}    {inside:12.5f}    {limit:19.5f}    {outside:18.5f}")
    worst = max(worst, abs(inside - truth))
print("\n".join(rows))
check("box, greatest error of the mean estimate", worst, below=0.02)
check("the last unbounded estimate", outside, above=20)

# %% [markdown]
# At $t=0.95$ the mean of actions from $[-1,1]$ is said to be 55. Such targets send a policy out of the box.
#
# ### One proposal decides
#
# An estimate whose ESS is one is a softmax with one winner: $\hat m$ *is* the proposal with the largest $Q$. We take a
# cold critic on the plane, $\alpha$ ten times smaller, at $t=0.95$, where the point $a$ says nearly nothing.

# %%
cold = alpha / 10
a = on_path(4000, 0.95, seed=23)
sharp = BoxBoltzmann(q, cold, cells=401)
m = sharp.posterior_mean(a, 0.95, path)


def shares(points):
    return torch.bincount(torch.cdist(points, toy.means).argmin(-1), minlength=3) / len(points)


exact_shares = shares(sharp.sample(4000, torch.Generator().manual_seed(24)))
lines = ["share of           blob 1   blob 2   blob 3     ESS   bias of m"]
lines.append(f"{'the density':<15}" + "".join(f"{x:9.4f}" for x in exact_shares))
estimates, winners, sizes, biases = {}, {}, {}, {}
for K in (4, 16, 64, 256):
    a0 = box_proposals(a, 0.95, path, K, torch.Generator().manual_seed(24))
    w = importance_weights(q(a0), cold)
    estimates[K] = m_hat = (w[..., None] * a0).sum(1)
    winners[K] = a0[torch.arange(4000), q(a0).argmax(-1)]
    sizes[K], biases[K] = effective_sample_size(w).mean(), (m_hat.mean(0) - m.mean(0)).norm()
    row = "".join(f"{x:9.4f}" for x in shares(winners[K]))
    lines.append(f"arg max, K = {K:<3}{row} {sizes[K]:7.4f} {biases[K]:11.4f}")
print("\n".join(lines))
m_hat = estimates[16]
check("K = 16: mean effective sample size", sizes[16], below=1.3)
far = (m_hat - winners[16]).norm(dim=-1).median()
check("K = 16: median distance of the estimate from the arg max", far, below=1e-3)
spread = (m_hat - m_hat.mean(0)).square().sum(-1).mean().sqrt()
check("K = 16: bias over spread", biases[16] / spread, above=0.7)

# %% tags=["hide-input"]
fig, (left, right) = figure(8.4, 4.6, ncols=2)
for ax, points, kind, title in (
    (left, m[:600], "reference", "exact posterior means, $t = 0.95$"),
    (right, m_hat[:600], "error", "estimates with $K = 16$, ESS near one"),
):
    plots.backdrop(plane(ax, 1.25), toy.log_prob)
    plots.particles(ax, points, kind, size=3.5)
    ax.set_title(title)
plots.particles(left, m[:1], "reference", size=10, alpha=1.0)
plots.particles(right, m_hat.mean(0)[None], "reference", size=10, alpha=1.0)
label = right.text(*(m_hat.mean(0) + torch.tensor([0.07, -0.04])), "their mean", va="center")
label.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0})
show(
    fig,
    "Two panels of 600 points over the three blobs. Left: all exact posterior means at t = .95 "
    "are on one spot in the first blob, marked by a cross. Right: the estimates are scattered "
    "over all three blobs and the space between; a cross marks their mean, in the middle between "
    "the blobs.",
)

# %% [markdown]
# **What you should see.** So cold, the first blob holds 99 % of the mass, and all exact posterior means are on one spot
# (left). Each estimate is a decent action, the best of sixteen. But a network that is trained on them learns their
# *mean*, the cross on the right, and that is nowhere near. Here the **bias** is nearly as large as the spread. Sixteen
# proposals often miss the best blob, and then another wins: how often, depends on $K$ (see the table).
#
# An ESS near one means: *you are running best-of-$K$ and calling it a score*.
#
# ### Appendix: how 32 bits fail far out
#
# Step 6 is one line, and in 32-bit numbers that line is wrong. Far to the right of the box, $\Phi(\text{high})$ is a
# tiny number, which `ndtr` rounds to zero. Far to the left, $\Phi$ is close to one, where floats are $6\cdot10^{-8}$
# apart. At $t=0.1$ we ask how many of 20 000 proposals are usable, how many *different* ones there are, and how far
# their distribution is from scipy's.


# %%
def one_line(a, n, generator):
    low, high = (torch.tensor((wall * 0.9 - a) / 0.1) for wall in (-1, 1))
    return (a + 0.1 * truncated_normal(low, high, torch.rand(n, generator=generator))) / 0.9


def careful(a, n, generator):
    return box_proposals(torch.tensor([[a]]), 0.1, path, n, generator)[0, :, 0]


def in_words(usable, n):
    """How many of n draws are usable, and how many of these are different."""
    share, different = len(usable) / n, len(usable.unique())
    how_many = "all" if share > 0.99 else "most" if share > 0.5 else "none" if share == 0 else "few"
    words = "thousands" if different > 1000 else "hundreds" if different > 100 else "a handful"
    return how_many, words if different else "none"


lines = [f"{'':27}{'the one line':^33}{'box_proposals':^33}".rstrip()]
lines.append("   a    outside the box by " + "    usable   different      gap  " * 2)
for point in (0.5, 1.3, -1.3, 1.4, -1.4, 1.6, -1.6, 3.0):
    law = stats.truncnorm((-0.9 - point) / 0.1, (0.9 - point) / 0.1, point / 0.9, 0.1 / 0.9)
    text = f"{point:5.1f}   {max(0.0, (abs(point) - 0.9) / 0.1):10.1f} sigma    "
    for draw in (one_line, careful):
        a0 = draw(point, 20_000, torch.Generator().manual_seed(13))
        usable = a0[a0.isfinite() & (a0.abs() <= 1)].double()
        share, different = in_words(usable, 20_000)
        gap = stats.kstest(usable.numpy(), law.cdf).statistic if len(usable) else math.nan
        text += f"    {share:>6}   {different:>9}   {gap:6.4f}  "
    lines.append(text.rstrip())
print("\n".join(lines))

# %% [markdown]
# (With 20 000 draws a gap of 0.01 is chance.) At five standard deviations on one side only a handful of values is left;
# at seven nothing. Points made by a *network*, unlike points of the path, end up anywhere. The package keeps all
# digits:

# %%
listing(
    box_proposals,
    {
        "flip = low + high > 0": "**Work in the lower tail.** A float has many digits near 0 and few near 1. When "
        "the box lies to the right, mirror everything: the same problem with the signs turned.",
        "cdf_low, cdf_high = _ndtr(low), _ndtr(high)": "`_ndtr` is $\\tfrac12\\,\\mathrm{erfc}(-x/\\sqrt2)$, exact "
        "in the lower tail, where `torch.special.ndtr` rounds to zero.",
        "ratio = (": "**Far out, replace $e^{-z^2/2}$ by $|z|\\,e^{-z^2/2}$.** Over the few hundredths that matter "
        "there, $|z|$ hardly changes. This density has an elementary integral, $e^{-z^2/2}$, so its quantile is a "
        "logarithm and a root. `ratio` is the mass below `low` over the mass below `high`, computed from a "
        "difference of squares without overflow.",
        "z = torch.where(high < -10, far, z)": "Beyond ten standard deviations; the error is about $1/z^2$, below "
        "one per cent.",
        "fraction = torch.where(": "**A narrow box.** Towards $t=1$ the box is tiny in units of the noise, and the "
        "normal is flat on it. The place inside the box, from 0 to 1, is then $u$ itself: uniform proposals. So "
        "$t=1$, where $\\mu=0$, needs no special case.",
    },
)

# %% [markdown]
# ## Exercises
#
# Replace the body of a stub and run the cell: ✓ lines say that you are done. Exercise 1 was the estimator. Everywhere
# below, `exact_noise` is $E[\varepsilon\mid a_t=a]=(a-\mu\,m)/\sigma$.

# %% [markdown]
# ### 2. Find the bug: one sign · ●○○ · 5 min
#
# Many samplers learn the *noise* instead of the score: a network is trained towards $E[\varepsilon\mid a_t=a]$. The
# README of `Alescontrela/score_matching_rl` (QSM) and its code give the critic's gradient in that target opposite
# signs. One of the two amounts to this:
#
# ```python
# def noise_target(q, a, t, path, alpha, K, generator):
#     score = gradient_estimate(q, a, t, path, alpha, K, generator, box=False).score
#     return path.sigma(t) * score
# ```
#
# Is it right? Write the right one.


# %% tags=["exercise", "raises-exception"]
def noise_target(q, a, t, path, alpha, K, generator):
    raise NotImplementedError


for t2 in (0.1, 0.2):
    a, g = on_path(200, t2, seed=25), torch.Generator().manual_seed(26)
    exact_noise = (a - path.mu(t2) * toy.posterior_mean(a, t2, path)) / path.sigma(t2)
    error = noise_target(q, a, t2, path, alpha, 4000, g) - exact_noise
    size = error.square().mean().sqrt() / exact_noise.square().mean().sqrt()
    check(f"exercise 2: relative error of the noise, t = {t2}", size, below=0.2)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Noise leads away from the data, the score leads towards them.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# By Tweedie $s=(\mu m-a)/\sigma^2=-E[\varepsilon\mid a_t=a]/\sigma$, so the target is $-\sigma s$. A one-dimensional
# quadratic $Q$ finds the sign in a second; a training run needs hours to say "it does not work". (The code was right,
# the README was not.)
#
# ```python
# def noise_target(q, a, t, path, alpha, K, generator):
#     score = gradient_estimate(q, a, t, path, alpha, K, generator, box=False).score
#     return -path.sigma(t) * score
# ```
#
# </details>

# %% [markdown]
# ### 3. Find the bugs: ported from another path · ●●○ · 15 min
#
# The gradient estimator was published for a path with $\mu=1$ (noise is added, the action is not shrunk). Somebody
# moved it to our path, with unbounded proposals, and made two mistakes. A third one is found in the SDAC agent of the
# repository `typoverflow/flow-rl`: correct weights, averaged in the wrong way.
#
# ```python
# def ported_score(q, a, t, path, alpha, K, generator):
#     xi = torch.randn(*a.shape[:-1], K, a.shape[-1], generator=generator)
#     a0 = (a[..., None, :] + path.sigma(t) * xi).requires_grad_()
#     value = q(a0) / alpha
#     (grad,) = torch.autograd.grad(value.sum(), a0)
#     w = value.detach().softmax(-1)
#     return (w[..., None] * grad).mean(-2)
# ```
#
# Repair all three.


# %% tags=["exercise", "raises-exception"]
def ported_score(q, a, t, path, alpha, K, generator):
    raise NotImplementedError


for t3, bound in ((0.1, 0.07), (0.2, 0.16)):
    a, g = on_path(200, t3, seed=27), torch.Generator().manual_seed(28)
    truth = toy.noised_score(a, t3, path)
    error = ported_score(q, a, t3, path, alpha, 4000, g).detach() - truth
    size = (error.square().mean() / truth.square().mean()).sqrt()
    check(f"exercise 3: relative error of the score, t = {t3}", size, below=bound)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Step 4 has two factors $1/\mu$ that are invisible when $\mu=1$. And what do the weights already sum to?
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# The proposals must be divided by $\mu$, and so must the score. The weights sum to one, so the mean over $K$ divides by
# $K$ a second time. In the repository that factor multiplies a *loss*; Adam ignores the scale of a loss, and hides it.
# Here it multiplies the score itself, and nothing would hide it. The other two are nearly invisible at small $t$: test
# at more than one time.
#
# ```python
# def ported_score(q, a, t, path, alpha, K, generator):
#     xi = torch.randn(*a.shape[:-1], K, a.shape[-1], generator=generator)
#     a0 = ((a[..., None, :] + path.sigma(t) * xi) / path.mu(t)).requires_grad_()
#     value = q(a0) / alpha
#     (grad,) = torch.autograd.grad(value.sum(), a0)
#     w = value.detach().softmax(-1)
#     return (w[..., None] * grad).sum(-2) / path.mu(t)
# ```
#
# </details>

# %% [markdown]
# ### 4. Find the bug: clipped · ●●○ · 20 min
#
# The SDAC agent of `mahaitongdae/diffusion_policy_online_rl` keeps its proposals in the box by clipping, and learns the
# weighted noise:
#
# ```python
# def weighted_noise(q, a, t, path, alpha, K, generator):
#     xi = torch.randn(*a.shape[:-1], K, a.shape[-1], generator=generator)
#     a0 = ((a[..., None, :] - path.sigma(t) * xi) / path.mu(t)).clamp(-1, 1)
#     w = importance_weights(q(a0), alpha)
#     return (w[..., None] * xi).sum(-2)
# ```
#
# It should tend to $E[\varepsilon\mid a_t=a]$. (So `xi` has the sign of the noise here.) Near a wall two things are
# wrong. Say which, and write it correctly. The check uses the slope $Q=2a$ on $[-1,1]$.


# %% tags=["exercise", "raises-exception"]
def weighted_noise(q, a, t, path, alpha, K, generator):
    raise NotImplementedError


g, points = torch.Generator().manual_seed(29), torch.tensor([[-0.5], [0.3], [1.0]])
for t4 in (0.3, 0.6):
    found4 = weighted_noise(rising, points, t4, path, 1.0, 100_000, g)[:, 0]
    exact_noise = [(x - (1 - t4) * by_quadrature(x, t4)) / t4 for x in points[:, 0].tolist()]
    error = (found4 - torch.tensor(exact_noise)).abs().max()
    check(f"exercise 4: largest error, t = {t4}", error, below=0.015)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Which noise belongs to a clipped proposal? And what is the density of the proposals on the face? `box_proposals` cures
# one of the two.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# Clipped proposals pile up on the face, where their density is not the cut normal; and they are no longer the points
# that `xi` belongs to. Truncate, and solve $a=\mu a_0+\sigma\varepsilon$ for the noise.
#
# ```python
# def weighted_noise(q, a, t, path, alpha, K, generator):
#     a0 = box_proposals(a, t, path, K, generator)
#     w = importance_weights(q(a0), alpha)
#     eps = (a[..., None, :] - path.mu(t) * a0) / path.sigma(t)
#     return (w[..., None] * eps).sum(-2)
# ```
#
# </details>

# %% [markdown]
# ### 5. A perfect mixture, coordinate by coordinate · ●●○ · 20 min
#
# Step 8 found $\lambda^*$ for a Gaussian whose coordinates all have the same width. Let the widths differ:
# $p_0=\mathcal N(m_0,\mathrm{diag}(c_1^2,\dots,c_d^2))$. Your function gets what the two formulas say of *one*
# arbitrary $a_0$, `h1` and `h2`, of shape `(n, d)`, and the widths `c`. It returns their mixture that is the exact
# score, for any path. The check uses VP, the path with $\mu^2+\sigma^2=1$, where $a_t$ is normal with variances
# $\mu^2c_i^2+\sigma^2$.


# %% tags=["exercise", "raises-exception"]
def best_mixture(h1, h2, t, path, c):
    raise NotImplementedError


g, widths, centre = torch.Generator().manual_seed(30), torch.tensor([0.1, 0.5, 2.0]).double(), 0.7
for t5 in (0.1, 0.5):
    mu5, sigma5 = VP().mu(t5), VP().sigma(t5)
    a5, any5 = torch.randn(2, 50, 3, generator=g, dtype=torch.float64)
    from_noise, from_slope = (mu5 * any5 - a5) / sigma5**2, (centre - any5) / widths**2 / mu5
    exact = (mu5 * centre - a5) / (mu5**2 * widths**2 + sigma5**2)
    error = largest(best_mixture(from_noise, from_slope, t5, VP(), widths) - exact)
    check(f"exercise 5: error at t = {t5}", error, below=1e-9)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Nothing in step 8 couples the coordinates.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# $\lambda_i=\mu^2c_i^2/(\mu^2c_i^2+\sigma^2)$. For a general $p_0$ one replaces $1/c^2$ by a posterior mean of
# $-\nabla^2\log p_0$, a matrix; this is the Laplace-Fisher gate of 2606.25169.
#
# ```python
# def best_mixture(h1, h2, t, path, c):
#     mu, sigma = path.mu(t), path.sigma(t)
#     mix = mu**2 * c**2 / (mu**2 * c**2 + sigma**2)
#     return (1 - mix) * h1 + mix * h2
# ```
#
# </details>

# %% [markdown]
# ### 6. A baseline in the box · ●●● · 40 min
#
# At very low noise all weights are nearly $1/K$, and the posterior mean's score $\frac1\sigma\sum_kw_k\xi_k$ is mostly
# $\frac1\sigma\cdot\frac1K\sum_k\xi_k$: pure chance, times $1/\sigma$. Unbounded proposals have $E[\xi]=0$, so
# $w_k-\frac1K$ in place of $w_k$ takes the chance away and leaves the limit. (In reinforcement learning this is called
# a *baseline*.) In the box $E[\xi]$ is not zero. Derive it, coordinate by coordinate, from the density $\phi$ and the
# distribution function $\Phi$ of the standard normal, and write an estimate of the score with a baseline and
# `box_proposals`. Your budget is $K$ *values* of `q` for each point, and no gradient.
#
# The check takes $Q=2a_1-a_2$ on the square at $t=0.05$ and $K=128$, where the posterior is itself a cut normal. Your
# error must be below 0.3 of that without a baseline.


# %% tags=["exercise", "raises-exception"]
def score_with_baseline(q, a, t, path, alpha, K, generator):
    raise NotImplementedError


asked = []  # of each call of q: how many values, and whether they carry a graph
tilted = torch.tensor([2.0, -1.0])
watched = lambda a0: asked.append((a0[..., 0].numel(), a0.requires_grad)) or a0 @ tilted  # noqa: E731
g = torch.Generator().manual_seed(31)
a = 2 * torch.rand(500, 2, generator=g) - 1
width6, middle = 0.05 / 0.95, (a / 0.95 + tilted * 0.05**2 / 0.95**2).numpy()
law = stats.truncnorm((-1 - middle) / width6, (1 - middle) / width6, loc=middle, scale=width6)
truth = path.score_from_mean(torch.from_numpy(law.mean()).float(), a, 0.05)
mine = score_with_baseline(watched, a, 0.05, path, 1.0, 128, g)
values, graphs = zip(*asked, strict=True)
check("exercise 6: values of q per point", sum(values) / 500, above=1, below=128.5)
check("exercise 6: calls of q with a gradient", sum(graphs), below=0.5)
plain = posterior_mean_estimate(watched, a, 0.05, path, 1.0, 128, g).score
ratio = (mine - truth).square().mean().sqrt() / (plain - truth).square().mean().sqrt()
check("exercise 6: error with a baseline over error without", ratio, below=0.3)

# %% [markdown]
# <details><summary>Hint</summary>
#
# $\phi'(z)=-z\,\phi(z)$, so $\int z\,\phi(z)\,dz$ is elementary. What you subtract with $\frac1K\sum_k\xi_k$ must be
# added back as $E[\xi]$.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# $E[\xi]=\frac{\phi(\text{low})-\phi(\text{high})}{\Phi(\text{high})-\Phi(\text{low})}$ for the normal that is cut to
# $[\text{low},\text{high}]$ of step 6. If $Q$ is flat the estimate is now exact, with a single proposal. (Its limits
# are those of 32 bits: far outside the box both differences are zero.)
#
# ```python
# def score_with_baseline(q, a, t, path, alpha, K, generator):
#     mu, sigma = path.mu(t), path.sigma(t)
#     a0 = box_proposals(a, t, path, K, generator)
#     w = importance_weights(q(a0), alpha)
#     xi = (mu * a0 - a[..., None, :]) / sigma
#     low, high = (-mu - a) / sigma, (mu - a) / sigma
#     normal = torch.distributions.Normal(0.0, 1.0)
#     mass = normal.cdf(high) - normal.cdf(low)
#     mean = (normal.log_prob(low).exp() - normal.log_prob(high).exp()) / mass
#     return (((w - 1 / K)[..., None] * xi).sum(-2) + mean) / sigma
# ```
#
# </details>

# %% [markdown]
# ## Summary
#
# * The score of a noised density is an average over the posterior $p(a_0\mid a_t=a)$, in two ways: of $a_0$ (Tweedie,
#   $s=(\mu m-a)/\sigma^2$), and of gradients (target-score identity, $s=E[\nabla Q]/(\mu\alpha)$).
# * Propose from the likelihood; the weights are a softmax of $Q/\alpha$, and all unknown constants cancel.
# * Self-normalised: bias of order $1/K$, spread of order $1/\sqrt K$, ESS $=1/\sum_kw_k^2$. A network learns the bias
#   and averages the spread. An ESS near one means best-of-$K$, not a score. A high ESS proves nothing.
# * On a box, truncate the proposals; do not clip them, and do not ignore the walls.
# * The gradient formula misses the walls and explodes at high noise. At low noise, away from walls, it is the better
#   one.
# * **The posterior mean with box proposals is the only one of the four that was usable at every $t$.** From here on it
#   is our estimator.
# * In many dimensions it loses, as a single estimate, to the answer 0; its bias does not. Compare with the answer 0
#   always. What helps: own samples, best moved uphill, with their density in the weights; a higher temperature. More
#   proposals help in few dimensions only.

# %% [markdown]
# ## References
#
# * Akhound-Sadegh and others: *Iterated Denoising Energy Matching*, [2402.06121](https://arxiv.org/abs/2402.06121). The
#   gradient estimator as a training target: the ancestor of SOM's score.
# * De Bortoli and others: *Target Score Matching*, [2402.08667](https://arxiv.org/abs/2402.08667). Step 3.
# * Ma, Chen and others: *Efficient Online Reinforcement Learning for Diffusion Policy* (SDAC),
#   [2502.00361](https://arxiv.org/abs/2502.00361). The posterior mean from a critic's values.
# * *Reverse Flow Matching*, [2601.08136](https://arxiv.org/abs/2601.08136). Both as one family of control variates.
# * *Mean Flow Policy Optimization* (MFPO), [2604.14698](https://arxiv.org/abs/2604.14698). Policy samples and truncated
#   proposals together.
# * Owen: *Monte Carlo theory, methods and examples*, [chapter 9](https://artowen.su.domains/mc/): the best text on
#   importance sampling.
# * Veach, Guibas: *Optimally Combining Sampling Techniques for Monte Carlo Rendering*, SIGGRAPH 1995.
#
# ---
#
# Previous: [03 · Policies as Boltzmann distributions](03_boltzmann_policies.ipynb). Next: [05 · The probability-flow
# ODE](05_probability_flow_ode.ipynb).
