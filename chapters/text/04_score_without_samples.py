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
# **What you will do.** You have a function $Q$ that rates points, and no data. You derive two formulas for the
# score of the density $\exp(Q/\alpha)$ after noise was added to it. Each becomes an estimator of five lines. You
# measure both until you know which one to trust, at which noise, with how many evaluations of $Q$. Then you break
# them in the ways in which published code breaks.
#
# **What you will learn.** Why a score is a posterior mean in disguise. Importance sampling, its bias, its spread,
# and what an effective sample size of one means. What happens at the walls of a box, and why the formula with the
# gradient of $Q$ does not notice them. What to do when there are many dimensions, and what not to expect.
#
# **What you need.** Calculus (integration by parts), probability (Bayes' rule, conditional expectation) and
# PyTorch. The recap holds what is used of chapters 01 to 03.
#
# **Time and hardware.** ≈ 30 s on one CPU core. No GPU, and nothing is trained.
#
# Previous: [03 · Policies as Boltzmann distributions](03_boltzmann_policies.ipynb). Next:
# [05 · The probability-flow ODE](05_probability_flow_ode.ipynb).

# %% [markdown]
# ## The idea in one picture
#
# ### A recap on half a page
#
# **The target.** A *critic* $Q$ rates every action $a$ in the box $[-1,1]^d$. At temperature $\alpha$ we want
# actions from the Boltzmann density $p_0(a)\propto\exp(Q(a)/\alpha)$. We can *evaluate* $Q$ wherever we like. We
# have no sample of $p_0$, and the factor that makes it integrate to one is unknown.
#
# **The path.** Noise is added as always in this book:
#
# $$a_t=\mu_t\,a_0+\sigma_t\,\varepsilon,\qquad a_0\sim p_0,\quad\varepsilon\sim\mathcal N(0,I).$$
#
# Time 0 is the action, time 1 is noise, and $p_t$ is the density of $a_t$. On the linear path $\mu_t=1-t$ and
# $\sigma_t=t$. We drop the index of $\mu_t$ and $\sigma_t$ when no doubt is possible.
#
# **Three faces of one thing.** To travel from noise to actions one needs, at a point $a$ and a time $t$, any one
# of these:
#
# * the *posterior mean* $m(a,t)=E[a_0\mid a_t=a]$: where $a$ came from, on average;
# * the *score* $s(a,t)=\nabla_a\log p_t(a)$: the uphill direction of the noised density;
# * the *velocity* $v(a,t)$: how fast the flow of chapter 01 passes through $a$.
#
# Each gives the others. On the linear path $v=E[\varepsilon-a_0\mid a_t=a]$. Put in
# $\varepsilon=(a-(1-t)\,a_0)/t$ and tidy up:
#
# $$v(a,t)=\frac{a-m(a,t)}{t}.$$
#
# The velocity points from the posterior mean to $a$, that is, away from where $a$ came from. We shall measure all
# errors on $v$. Its size is about one at every $t$, while a score is of the size of one over the width of the noised
# blobs.
#
# **A target with a known answer.** Three blobs in the square, with 50, 30 and 20 % of the mass. For a mixture of
# Gaussians $m$, $s$ and $v$ are explicit. The estimators will not see them. They get only `q`, which is
# $\alpha\log p_0$ plus a constant, because in real life that constant is unknown. Two things are checked: the
# formula for $v$, and that hardly any mass lies outside the box.

# %%
import math
from itertools import product

import numpy as np
import torch
from scipy import integrate, stats

from som_lite.flow.boltzmann import BoxBoltzmann, three_bumps
from som_lite.flow.densities import GaussianMixture
from som_lite.flow.paths import Linear
from som_lite.flow.scores import Estimate, box_proposals, shared_posterior_mean_estimate
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
outside = (toy.sample(100_000, torch.Generator().manual_seed(1)).abs() > 1).any(-1)
check("share of the toy outside the box", outside.float().mean(), below=0.005)

# %% [markdown]
# ### The picture
#
# Stand at a point $a$ at time $t$ and ask: *where could it have come from?*
#
# Undo the noise. Draw a normal $\xi$, pretend that it was the noise (up to its sign), and solve for the action:
# $a_0=(a+\sigma\,\xi)/\mu$. That is one candidate. Draw two hundred.
#
# As far as the noise is concerned, all candidates are equally good. $Q$ knows better. Give candidate $k$ the
# weight $w_k\propto\exp(Q/\alpha)$, and take the weighted mean. That is the estimate of $m$, and the arrow from
# $a$ towards it is the direction to go.

# %%
g = torch.Generator().manual_seed(4)
t, a = 0.4, torch.tensor([0.55, -0.15])
candidates = (a + t * torch.randn(200, 2, generator=g)) / (1 - t)
w = (q(candidates) / alpha).softmax(0)
m_hat, m = w @ candidates, toy.posterior_mean(a, t, path)

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
    "point and 200 grey candidates scattered widely to its right. Right: the same candidates as "
    "purple triangles with areas by weight; only those inside the blobs are visible, and an "
    "orange arrow from the point ends near a black cross, the exact mean.",
)
check("distance of the estimate from the exact mean", (m_hat - m).norm(), below=0.2)

# %% [markdown]
# **What you should see.** On the left, a cloud of candidates that knows nothing of the target. (It is centred at
# $a/\mu$: undoing the noise also undoes the shrinking.) On the right, the same candidates with an area according
# to their weight. Nearly all have vanished. The few dozen that happen to lie in a blob decide, and their mean
# (the tip of the arrow) comes close to the exact one (the cross). No sample of $p_0$ was used, only two hundred
# values of $Q$.
#
# The picture also shows the weakness. Most of the work was wasted, and it gets worse with more noise and more
# dimensions. This chapter is about how much worse, and about what to do.

# %% [markdown]
# ## Derivation
#
# We check each formula by brute force: integrals over $a_0$ become sums over a grid of 57 600 small cells, in
# 64-bit numbers. On the plane that is affordable, and it shares no code with what we want to test.

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
# Given $a_0$, the point $a_t$ is normal with mean $\mu a_0$ and standard deviation $\sigma$ in every coordinate.
# Write $\mathcal N(a;\mu a_0,\sigma^2I)$ for this density; it is the *likelihood* of $a_0$. The density of $a_t$
# is the mean over all $a_0$, and Bayes' rule turns the question round:
#
# $$p_t(a)=\int p_0(a_0)\,\mathcal N(a;\mu a_0,\sigma^2I)\,da_0,
# \qquad p(a_0\mid a)=\frac{p_0(a_0)\,\mathcal N(a;\mu a_0,\sigma^2I)}{p_t(a)} .$$
#
# We call $p(a_0\mid a)$ the *posterior*. The grid gives both: the sum over the cells is $p_t$, and the normalised
# summands are the posterior masses of the cells. The noised mixture is again a mixture, so $p_t$ is known.

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
# Differentiate $p_t$ under the integral. The gradient of a normal density is the density times
# $-(a-\mu a_0)/\sigma^2$. So
#
# $$\nabla p_t(a)=\int p_0(a_0)\,\mathcal N(a;\mu a_0,\sigma^2I)\,\frac{\mu a_0-a}{\sigma^2}\,da_0 .$$
#
# Divide by $p_t(a)$. On the left stands $\nabla\log p_t$, on the right an average over the posterior:
#
# $$\boxed{\,s(a,t)=\frac{\mu\,m(a,t)-a}{\sigma^2}\,}$$
#
# This is *Tweedie's formula*. No derivative is left. Whoever can average over the posterior has the score.

# %%
m = posterior @ grid
s = fine.noised_score(a, t, path)
check("step 2: Tweedie against the exact score", largest((mu * m - a) / sigma**2 - s), below=1e-6)

# %% [markdown]
# ### Step 3: the score is also a mean of gradients
#
# The normal density depends on $a$ and $a_0$ only through $a-\mu a_0$. A small change of $a$ does the same as a
# change of $a_0$ in the opposite direction, scaled:
#
# $$\nabla_a\,\mathcal N(a;\mu a_0,\sigma^2I)=-\frac1\mu\,\nabla_{a_0}\mathcal N(a;\mu a_0,\sigma^2I).$$
#
# Put this into $\nabla p_t$ and integrate by parts. The derivative moves from the normal to $p_0$, and the sign
# turns:
#
# $$\nabla p_t(a)=-\frac1\mu\int p_0\,\nabla_{a_0}\mathcal N\,da_0=\frac1\mu\int\nabla p_0\;\mathcal N\,da_0 .$$
#
# Integration by parts leaves a term at the boundary. On the whole space it vanishes, because $p_0$ does so at
# infinity. (Keep an eye on this sentence. It is where the trouble of step 7 hides.) With
# $\nabla p_0=p_0\,\nabla\log p_0$, division by $p_t$ gives another average over the posterior:
#
# $$\boxed{\,s(a,t)=\frac1\mu\,E\big[\nabla\log p_0(a_0)\mid a_t=a\big]=\frac1{\mu\,\alpha}\,E\big[\nabla
# Q(a_0)\mid a_t=a\big]\,}$$
#
# This is the *target-score identity* (2402.08667). For a Boltzmann density $\nabla\log p_0=\nabla Q/\alpha$: the
# unknown constant has no gradient.

# %%
where = grid.clone().requires_grad_()
(slope,) = torch.autograd.grad(fine.log_prob(where).sum(), where)  # grad log p_0 at every cell
by_slope = posterior @ slope / mu
check("step 3: target-score identity against the exact score", largest(by_slope - s), below=1e-6)

# %% [markdown]
# ### Step 4: averages over the posterior, by importance sampling
#
# Both formulas ask for $E[f(a_0)\mid a_t=a]$ with some $f$: $f=a_0$ or $f=\nabla Q(a_0)$. We cannot sample the
# posterior, since it contains $p_0$. But it is a product, and one factor is easy. Complete the square: as a
# function of $a_0$ the likelihood is a normal density as well,
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
# Numerator and denominator use the same $K$ draws. Every constant cancels: $\mu^{-d}$, the normaliser of $p_0$,
# the 7 in our `q`. The weights are a *softmax* of $Q/\alpha$. They are called *self-normalised*. The two
# estimators are
#
# $$\hat m=\sum_kw_k\,a_0^{(k)},\quad\hat s=\frac{\mu\hat m-a}{\sigma^2}=\frac1\sigma\sum_kw_k\,\xi_k
# \qquad\text{(posterior mean)},\qquad
# \hat s=\frac1{\mu\,\alpha}\sum_kw_k\,\nabla Q(a_0^{(k)})\qquad\text{(gradient)}.$$
#
# The first needs only values of $Q$. The second needs a gradient of $Q$ at every proposal.
#
# Four checks at one point, $t=0.1$: the two normals; the two forms of the first estimator; both estimators with
# $K=200\,000$ against the exact score. A draw of $g=\xi/\sigma$ has a spread of ten, so errors should be near
# $10/\sqrt K\approx0.02$, times a small factor for uneven weights; we allow 0.1.

# %%
t1, a1, K = 0.1, torch.tensor([0.42, 0.5], dtype=torch.float64), 200_000
mu1, sigma1 = path.mu(t1), path.sigma(t1)
xi = torch.randn(K, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
proposals = ((a1 + sigma1 * xi) / mu1).requires_grad_()

likelihood = stats.norm(mu1 * proposals[:9].detach(), sigma1).pdf(a1)
as_normal = stats.norm(a1 / mu1, sigma1 / mu1).pdf(proposals[:9].detach()) / mu1.item()
check("step 4: the likelihood as a normal in a_0", abs(likelihood - as_normal).max(), below=1e-9)

log_p0 = fine.log_prob(proposals)  # Q / alpha, up to a constant
(slope,) = torch.autograd.grad(log_p0.sum(), proposals)
w = log_p0.softmax(0).detach()
by_mean = (mu1 * (w @ proposals.detach()) - a1) / sigma1**2
by_gradient = w @ slope / mu1
exact = fine.noised_score(a1, t1, path)
print(f"exact score ({exact[0]:.5f}, {exact[1]:.5f})")
check("step 4: two forms of the estimator", (by_mean - w @ xi / sigma1).norm(), below=1e-9)
check("step 4: error of the posterior mean's score", (by_mean - exact).norm(), below=0.1)
check("step 4: error of the gradient's score", (by_gradient - exact).norm(), below=0.1)

# %% [markdown]
# ### Step 5: how wrong is a ratio?
#
# The mean of $K$ draws is unbiased. A *ratio* of two means is not, because the denominator is random too. Let us
# see by how much. Scale the weights to mean one, $W=e^{Q/\alpha}/E_{\text{prop}}[e^{Q/\alpha}]$, so that
# $m=E_{\text{prop}}[W a_0]$. The error of $\hat m$ is
#
# $$\hat m-m=\frac{\frac1K\sum_kW_k\,(a_0^{(k)}-m)}{\frac1K\sum_kW_k}.$$
#
# The numerator has mean zero and size $1/\sqrt K$. The denominator is $1+\delta$, with $\delta$ of size
# $1/\sqrt K$ as well. Use $1/(1+\delta)\approx1-\delta$: the error is about the numerator minus $\delta$ times
# the numerator. The first has mean zero. In the mean of the product only equal indices survive, and each of the
# $K$ of them gives $E_{\text{prop}}[(W-1)\,W(a_0-m)]/K^2$, where the $-1$ contributes nothing. Hence, one
# coordinate at a time,
#
# $$\text{bias}\approx-\frac1K\,E_{\text{prop}}\big[W^2(a_0-m)\big],\qquad
# \text{variance}\approx\frac1K\,E_{\text{prop}}\big[W^2(a_0-m)^2\big].$$
#
# The bias falls with $1/K$, the spread (the root of the variance) with $1/\sqrt K$. So for large $K$ the bias is
# the smaller problem.
#
# Plain samples of the posterior would have the variance
# $\frac1KE_{\text{post}}[(a_0-m)^2]=\frac1KE_{\text{prop}}[W(a_0-m)^2]$. There is one factor $W$ more above. If
# it were independent of the rest, it would contribute its posterior mean, which is $E_{\text{prop}}[W\cdot W]$.
# Then $K$ weighted proposals would be worth $K/E_{\text{prop}}[W^2]$ plain samples. Replace the means by those
# over the proposals at hand, and you get the **effective sample size**:
#
# $$\text{ESS}=\frac{(\sum_kW_k)^2}{\sum_kW_k^2}=\frac1{\sum_kw_k^2},\qquad1\le\text{ESS}\le K .$$
#
# It is $K$ when all weights are equal and 1 when one proposal takes all. It costs nothing, so log it.
#
# The experiment is on a line, with two blobs, at $a=0.2$ and $t=0.5$; the proposals have mean 0.4 and standard
# deviation 1. The predictions are integrals over $a_0$ (the trapezoidal rule on 4001 points). Every $K$ gets four
# million proposals, cut into groups of $K$.

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
    x = 0.4 + torch.randn(4_000_000 // K, K, generator=g, dtype=torch.float64)
    w = two.log_prob(x[..., None]).softmax(-1)
    m_hat = (w * x).sum(-1)
    bias.append(m_hat.mean().item() - m1)
    spread.append(m_hat.std().item())
    ess.append((1 / w.square().sum(-1)).mean().item())
    words = f"bias {bias[-1]:8.5f}   spread {spread[-1]:.5f}   ESS / K {ess[-1] / K:.5f}"
    lines.append(f"K = {K:>2}   {words}")
print("\n".join(lines))

# %% [markdown]
# The bounds, at $K=32$: the next terms of the expansion are smaller by a factor of a few over $K$, so we grant a
# tenth. The measured bias also carries the noise of the experiment: 0.13 (the spread) over $\sqrt{125\,000}$ (the
# groups), a fourteenth of it. It gets a quarter.

# %%
at = counts.index(32)
check("step 5: K bias over its prediction", abs(32 * bias[at] / predicted_bias - 1), below=0.25)
ratio = 32 * spread[at] ** 2 / predicted_variance
check("step 5: K variance over its prediction", abs(ratio - 1), below=0.1)
check("step 5: ESS / K over its prediction", abs(ess[at] / 32 / predicted_ess - 1), below=0.1)

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
# **What you should see.** Marks are measured, grey lines predicted. Two slopes, ½ and 1. The predictions are
# *asymptotic*: the first marks lie off the lines. And the bias is below the spread everywhere. Remember under
# which condition: here the ESS is about half of $K$.
#
# ### Step 6: the box, and how to stay in it
#
# A critic is trained on actions in $[-1,1]^d$. Its values outside are nobody's opinion. The density that we mean
# is $\exp(Q/\alpha)$ *inside* and zero outside. A proposal outside should have weight zero, so it is wasted; and
# if we forget that, its weight is worse than wasted. (See "What can go wrong".)
#
# The remedy is to propose inside from the start. Cut the normal $\mathcal N(a/\mu,\sigma^2/\mu^2)$ to $[-1,1]$ in
# every coordinate. Inside the box this changes the density of the proposals by a constant factor only. Constants
# cancel, and **the weights stay the same softmax**.
#
# How does one draw from a normal that is cut to an interval? By *inverse transform*. Let $\Phi$ be the
# distribution function of the standard normal: $\Phi(z)$ is the probability of a draw below $z$. In units of the
# noise the box is
#
# $$\text{low}=\frac{-\mu-a}\sigma\;\le\;\xi\;\le\;\frac{\mu-a}\sigma=\text{high}.$$
#
# The distribution function of the cut normal rises from 0 to 1 over this interval. A value $u$, uniform in
# $[0,1]$, is its height. Solve for the place:
#
# $$\frac{\Phi(\xi)-\Phi(\text{low})}{\Phi(\text{high})-\Phi(\text{low})}=u
# \quad\Longleftrightarrow\quad\xi=\Phi^{-1}\big(\Phi(\text{low})+u\,(\Phi(\text{high})-\Phi(\text{low}))\big).$$
#
# In code this is one line. We compare the mean and the spread of such draws with the truncated normal of scipy.


# %%
def truncated_normal(low, high, u):
    F = torch.special.ndtr  # the distribution function; ndtri is its inverse
    return torch.special.ndtri(F(low) + u * (F(high) - F(low)))


u = torch.rand(1_000_000, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
for low, high in ((-1.0, 2.5), (0.5, 4.5), (-3.0, -2.0)):
    draws = truncated_normal(torch.tensor(low).double(), torch.tensor(high).double(), u)
    reference = stats.truncnorm(low, high)
    errors = abs(draws.mean() - reference.mean()), abs(draws.std() - reference.std())
    # a million draws of standard deviation below one: four standard errors
    check(f"step 6: mean and spread on [{low:g}, {high:g}]", max(errors), below=0.004)

# %% [markdown]
# ### Step 7: what the gradient does not see
#
# Tweedie's formula (step 2) did not care where $p_0$ lives. Step 3 did: it integrated by parts. On the box $B$
# the boundary term stays. In several dimensions integration by parts is the divergence theorem; with $n$ for the
# outward normal on the faces $\partial B$,
#
# $$\int_Bp_0\,\nabla_{a_0}\mathcal N\,da_0=\oint_{\partial B}p_0\,\mathcal N\,n\,dS-\int_B\mathcal
# N\,\nabla p_0\,da_0 .$$
#
# Multiply by $-1/\mu$ and divide by $p_t$:
#
# $$\boxed{\,s(a,t)=\frac1\mu\Big(E\big[\nabla\log p_0\mid a_t=a\big]-\frac1{p_t(a)}\oint_{\partial
# B}p_0(a_0)\,\mathcal N(a;\mu a_0,\sigma^2I)\,n\,dS\Big)}$$
#
# The gradient estimator computes the first part and drops the second. The second part says that walls push
# inwards, the harder the more posterior mass sits at them.
#
# The plainest case: $d=1$ and $Q=0$, a uniform density on $[-1,1]$. The gradient is zero everywhere. So the
# gradient estimator answers *zero*, for every $a$, every $t$ and every $K$. The true score is
#
# $$s(a,t)=-\frac1\mu\cdot\frac{p_0(1)\,\mathcal N(a;\mu,\sigma^2)-p_0(-1)\,\mathcal N(a;-\mu,\sigma^2)}{p_t(a)},$$
#
# all of it boundary. The cell takes two slopes, $Q=0$ and $Q=2a$, with $\alpha=1$. The truth comes from
# differentiating $\log p_t$, an integral on a fine grid, by autograd, so it knows nothing of divergence theorems.

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
    x = line.clone().requires_grad_()
    pt = (p0 * normal(x[:, None], mu7 * half)).sum(-1) / 2000 / mass
    (truth,) = torch.autograd.grad(pt.log().sum(), x)
    right_wall = math.exp(slope) / mass * normal(line, mu7)
    left_wall = math.exp(-slope) / mass * normal(line, -mu7)
    walls = -(right_wall - left_wall) / pt.detach() / mu7
    inside = torch.full_like(line, slope / mu7)  # E[grad Q] / mu: grad Q is the same everywhere
    parts[slope] = truth, inside, walls
    # the midpoint rule on 4000 cells is good to about 1e-6 here
    error = (inside + walls - truth).abs().max()
    check(f"step 7: inside plus walls against the score, Q = {slope:g} a", error, below=1e-4)

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
    "Two panels, Q = 0 and Q = 2a, over a from -1.6 to 1.6 with the box shaded. For Q = 0 the "
    "score is flat zero in the middle and falls steeply outside, from positive on the left to "
    "negative on the right; the part seen by the gradient is the zero line and the wall part is "
    "the whole score. For Q = 2a the gradient part is a constant line near 3, the wall part "
    "brings it down.",
)

# %% [markdown]
# **What you should see.** Left: the purple line, all that the gradient knows, is zero. The score is what the
# walls make of it. Right: the gradient says "to the right, everywhere", also beyond the right wall, where the truth
# points back. Optimal actions often sit *at* a wall, such as full torque, so this is not a corner
# case.
#
# ### Step 8: two members of one family
#
# Why are there two formulas for one score? Take a single draw $a_0$ from the posterior, and write down what each
# formula averages:
#
# $$g_1=\frac{\mu a_0-a}{\sigma^2},\qquad g_2=\frac{\nabla\log p_0(a_0)}\mu .$$
#
# Away from walls both have the mean $s$. So $g_2-g_1$ has mean *zero*. A quantity with a known mean is a
# **control variate**: one may add any multiple of it without changing the mean, and choose the multiple that
# reduces the variance. We get a family with a parameter $\lambda$,
#
# $$\hat s_\lambda=\sum_kw_k\,\big((1-\lambda)\,g_1^{(k)}+\lambda\,g_2^{(k)}\big),$$
#
# with the posterior mean at $\lambda=0$ and the gradient at $\lambda=1$.
#
# (Readers of reinforcement learning know the pair. Write the score as the gradient of
# $\log E_\xi[\exp(Q((a+\sigma\xi)/\mu)/\alpha)]$. Differentiate *through* the sample, and you have the
# reparametrised gradient, $g_2$. Differentiate the density of the sample, and you have the likelihood-ratio
# gradient, $g_1$, which people tame with *baselines*. A baseline is a control variate too: exercise 6.)
#
# Which $\lambda$? For a Gaussian $p_0=\mathcal N(m_0,c^2I)$ there is a perfect one. Then
# $\nabla\log p_0=-(a_0-m_0)/c^2$, so $g_1$ and $g_2$ are both linear in $a_0$, one rising and one falling. The
# right mixture does not depend on $a_0$ at all:
#
# $$(1-\lambda)\,\frac\mu{\sigma^2}-\frac\lambda{\mu c^2}=0\quad\Longleftrightarrow\quad
# \lambda^*=\frac{\mu^2c^2}{\mu^2c^2+\sigma^2} .$$
#
# *One* proposal gives the exact score. At low noise $\lambda^*$ is near 1, the gradient. At high noise it is near
# zero, the posterior mean. The check draws a single random $a_0$ for each of the 40 points; any place will do.

# %%
m0, c = torch.tensor([0.3, -0.2], dtype=torch.float64), 0.5
blob = GaussianMixture(m0[None], torch.tensor([c]).double(), torch.ones(1).double())
anywhere = torch.rand(40, 2, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
g1, g2 = (mu * anywhere - a) / sigma**2, -(anywhere - m0) / c**2 / mu
best = mu**2 * c**2 / (mu**2 * c**2 + sigma**2)
difference = largest((1 - best) * g1 + best * g2 - blob.noised_score(a, t, path))
check("step 8: the best mixture from one draw against the exact score", difference, below=1e-9)
check("step 8: the two formulas from one draw differ", largest(g1 - g2), above=1)

# %% [markdown]
# For three blobs the mixture is not perfect, but the law is the same. Here is the error of $\hat s_\lambda$ on
# the toy, with $K=128$ proposals, as a share of the root mean square of $s$. The ring is $\lambda^*$ for a single
# blob of our width, $c=0.12$. Note the logarithmic scale.

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
    x = ((a8[:, None] + t8 * xi) / (1 - t8)).requires_grad_()
    log_p0 = q(x) / alpha
    (slope,) = torch.autograd.grad(log_p0.sum(), x)
    w = log_p0.softmax(-1).detach()[..., None]
    g1, g2 = (w * xi).sum(1) / t8, (w * slope).sum(1) / (1 - t8)
    s8 = toy.noised_score(a8, t8, path)
    error = g1 + lambdas[:, None, None] * (g2 - g1) - s8
    curves[t8] = (error.square().sum(-1).mean(-1) / s8.square().sum(-1).mean()).sqrt().numpy()

fig, ax = figure(6.0, 4.0)
for t8, colour in times8.items():
    ax.semilogy(lambdas, curves[t8], color=colour)
    gate = ((1 - t8) * 0.12) ** 2 / (((1 - t8) * 0.12) ** 2 + t8**2)
    ax.semilogy(gate, curves[t8][round(100 * gate)], "o", color=colour, mfc="none", markersize=9)
    ax.text(1.02, curves[t8][-1], f"$t = {t8}$", color=colour, va="center")
ax.set(
    xlim=(0, 1),
    ylim=(3e-4, 8),
    xlabel="$\\lambda$",
    ylabel="error of $\\hat s_\\lambda$ / length of $s$",
)
ax.text(0.01, 3.5, "posterior mean")
ax.text(0.99, 2e-3, "gradient", ha="right")
show(
    fig,
    "Error of the mixture against lambda on a logarithmic axis, one curve for each of t = .05, "
    ".1, .2 and .4. At small t the curve falls to the right, at large t it rises to the right. "
    "Each has a dip in between, near a ring: far right at t = .05, in the middle at .1, at the "
    "far left at .4.",
)
check("t = .05: gradient over posterior mean", curves[0.05][-1] / curves[0.05][0], below=0.5)
check("t = .4: gradient over posterior mean", curves[0.4][-1] / curves[0.4][0], above=5)
check(
    "t = .1: best mixture over the better of the two",
    min(curves[0.1]) / min(curves[0.1][[0, -1]]),
    below=0.8,
)

# %% [markdown]
# **What you should see.** At $t=0.05$ the gradient end (right) is better, at $t=0.2$ and $0.4$ the posterior-mean
# end (left). In between lies a mixture that beats both, by a lot at low noise and by little at high noise, and
# the ring of the one-blob theory finds it. Do not expect so much elsewhere. $\lambda^*$ uses the width $c$, that
# is, the curvature of $\log p_0$, and our blobs all have the same. A critic has another curvature at every point.
# And step 7 stands: on a box, everything with $\lambda>0$ inherits the missing walls.

# %% [markdown]
# ## Code
#
# Everything so far fits into five small functions and two helpers. They take points `a` of shape `(*batch, d)`,
# and a time that is a number or one value per point, `(*batch, 1)`. Proposals have one axis more,
# `(*batch, K, d)`. The helpers see to that: $\mu$ and $\sigma$ need an axis for the proposals, and so do random
# numbers.


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


# %% [markdown]
# `softmax` subtracts the largest entry before it exponentiates, so that $e^{Q/\alpha}$ never overflows, however
# cold it gets. (Never write `exp(q / alpha) / exp(q / alpha).sum()`: at $Q/\alpha=100$ it is infinity over
# infinity in 32 bits.)

# %%
w = importance_weights(torch.tensor([100.0, 99.0]), 1.0)
check(
    "softmax at Q / alpha = 100: ratio of weights minus e", (w[0] / w[1] - math.e).abs(), below=1e-5
)
check("exp(100) in 32 bits", torch.tensor(100.0).exp(), above=1e38)

# %% [markdown]
# The estimators are the formulas of step 4. Both return the posterior mean *and* the score, which belong together
# by Tweedie, and the effective sample size.


# %%
def posterior_mean_estimate(q, a, t, path, alpha, K, generator, box=True):
    with torch.no_grad():
        a0 = (box_proposals if box else free_proposals)(a, t, path, K, generator)
        w = importance_weights(q(a0), alpha)
        m = (w[..., None] * a0).sum(-2)
        return Estimate(m, path.score_from_mean(m, a, t), effective_sample_size(w))


def gradient_estimate(q, a, t, path, alpha, K, generator, box=True):
    with torch.no_grad():
        a0 = (box_proposals if box else free_proposals)(a, t, path, K, generator)
        with torch.enable_grad():
            value = q(a0.requires_grad_())
            (grad,) = torch.autograd.grad(value.sum(), a0)
        w = importance_weights(value, alpha)
        score = (w[..., None] * grad).sum(-2) / (alpha * path.mu(t))
        return Estimate(path.mean_from_score(score, a, t), score, effective_sample_size(w))


# %% [markdown]
# The whole estimate runs without a graph: it will be a *target* for a network, and targets carry no gradient
# (chapter 02). Only `gradient_estimate` opens one, from the proposals to $Q$ and no further. The gradient of
# `value.sum()` holds the gradients of all proposals at once, because each value depends on its own proposal only.
#
# There is another way to write it. The literature (iDEM, 2402.06121) has
#
# $$\hat s=\nabla_a\log\frac1K\sum_k\exp\big(Q(a_0^{(k)})/\alpha\big),\qquad a_0^{(k)}=\frac{a+\sigma\xi_k}\mu,$$
#
# and lets autograd run through `logsumexp`. The derivative of `logsumexp` is `softmax`, and the chain rule brings
# $1/\mu$: it is the same estimator.

# %%
a = on_path(100, 0.3, seed=11).requires_grad_()
x = free_proposals(a, 0.3, path, 64, torch.Generator().manual_seed(12))
(by_logsumexp,) = torch.autograd.grad((q(x) / alpha).logsumexp(-1).sum(), a)
g = torch.Generator().manual_seed(12)  # the same proposals
ours = gradient_estimate(q, a.detach(), 0.3, path, alpha, 64, g, box=False).score
relative = largest(by_logsumexp - ours) / largest(ours)
check("gradient estimator against autograd through logsumexp", relative, below=1e-4)

# %% [markdown]
# ### Box proposals, and how 32 bits fail far out
#
# Step 6 is one line, and in 32-bit numbers that line is wrong. Look at a point far to the right of the box. There
# $\Phi(\text{high})$ is a tiny number, which `ndtr` rounds to a multiple of $3\cdot10^{-8}$, and soon to zero.
# Far to the left, the box lies in the other tail, where $\Phi$ is close to one. Floats are $6\cdot10^{-8}$ apart
# there, and few are left for the whole tail. With $\mu=0.9$ and $\sigma=0.1$ we ask how many of 20 000 proposals
# are usable, how many *different* ones there are, and how far their distribution is from scipy's (the largest gap
# between the two distribution functions).

# %%


class Stopped(Linear):
    """The linear path, stopped at one pair of mu and sigma."""

    def __init__(self, mu, sigma):
        object.__setattr__(self, "pair", (torch.tensor(mu), torch.tensor(sigma)))

    def mu(self, t):
        return self.pair[0]

    def sigma(self, t):
        return self.pair[1]


def one_line(a, n, generator):
    low, high = (torch.tensor((wall * 0.9 - a) / 0.1) for wall in (-1, 1))
    return (a + 0.1 * truncated_normal(low, high, torch.rand(n, generator=generator))) / 0.9


def careful(a, n, generator):
    return box_proposals(torch.tensor([[a]]), 0.5, Stopped(0.9, 0.1), n, generator)[0, :, 0]


def in_words(usable, n):
    """How many of n draws are usable, and how many of these are different."""
    share, different = len(usable) / n, len(usable.unique())
    how_many = "all" if share > 0.99 else "most" if share > 0.5 else "none" if share == 0 else "few"
    words = "thousands" if different > 1000 else "hundreds" if different > 100 else "a handful"
    return how_many, words if different else "none"


table = [f"{'':27}{'the one line':^33}{'box_proposals':^33}".rstrip()]
table.append("   a    outside the box by " + "    usable   different      gap  " * 2)
for point in (0.5, 1.3, -1.3, 1.4, -1.4, 1.6, -1.6, 3.0):
    law = stats.truncnorm((-0.9 - point) / 0.1, (0.9 - point) / 0.1, point / 0.9, 0.1 / 0.9)
    text = f"{point:5.1f}   {max(0.0, (abs(point) - 0.9) / 0.1):10.1f} sigma    "
    for draw in (one_line, careful):
        x = draw(point, 20_000, torch.Generator().manual_seed(13))
        usable = x[x.isfinite() & (x.abs() <= 1)].double()
        share, different = in_words(usable, 20_000)
        gap = stats.kstest(usable.numpy(), law.cdf).statistic if len(usable) else math.nan
        text += f"    {share:>6}   {different:>9}   {gap:6.4f}  "
    table.append(text.rstrip())
print("\n".join(table))

# %% [markdown]
# With 20 000 draws a gap of 0.01 is sampling noise. On the left, the one line is fine at four standard
# deviations, apart from repeating itself. At five, some proposals are outside the box, and on one side only a
# handful of values is left, with a gap that is no noise. At seven it returns nothing usable. Is that far? At
# $t=0.1$ the noise is narrow, and points made by a *network*, unlike points of the path, end up anywhere.
#
# The package keeps all digits with three ideas. Here is its source, with notes.

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
# ### Own samples as proposals
#
# Near $t=1$ the point $a$ says nothing about $a_0$, and box proposals are a uniform shower. If the target is a
# few narrow peaks, the shower wastes nearly all. But who knows where the peaks are? The *sampler that we are
# training* may, after a while. `shared_posterior_mean_estimate` takes $C$ of its samples along, each blurred by a
# small normal. (MFPO, 2604.14698, does something similar with 16 samples of the policy and 32 box proposals.)
#
# Such points are not drawn from the likelihood, so their weights cannot be the plain softmax. The rule is always
# the same: *weight = target over proposal density*. All $K+C$ points are treated as if each came from the mixture
# of both sources,
#
# $$w_j\propto\frac{\exp(Q(z_j)/\alpha)\;\mathcal N(a;\mu z_j,\sigma^2I)}{\frac K{K+C}\,q_{\text{box}}(z_j)+\frac
# C{K+C}\,q_{\text{own}}(z_j)} ,$$
#
# where $q_{\text{box}}$ is the density of the box proposals and $q_{\text{own}}$ that of the blurred samples.
# This is the *balance heuristic* of computer graphics (Veach and Guibas 1995). Its charm is in the denominator.
# Where either source puts mass, the weight is bounded. Poor own samples then cost some proposals and do no other
# harm. Without any own samples, $q_{\text{box}}\propto\mathcal N$ cancels the likelihood, and the softmax is
# back.
#
# The check puts all own samples into a corner. The limit must not move. (Check 3 below asks what they cost.)

# %%
poor, g = torch.full((100, 32, 2), -0.9), torch.Generator().manual_seed(33)
a, late = torch.tensor([[0.2, 0.1]]).expand(100, 2), torch.full((100, 1), 0.7)
shared = shared_posterior_mean_estimate(q, a, late, path, alpha, 4096, g, poor)
m = BoxBoltzmann(q, alpha).posterior_mean(a[:1], 0.7, path)
# the mean of 100 estimates: its standard error is about .002
check("own samples in a corner: error of m", (shared.m.mean(0) - m).norm(), below=0.01)

# %% [markdown]
# ## Checks
#
# **1. Known answers on the box.** The one-dimensional density $p_0\propto e^{2a}$ on $[-1,1]$, at $a=0.3$.
# Scipy's adaptive quadrature gives $m$. With $K=400\,000$ proposals of standard deviation below 0.4, four
# standard errors are below 0.004. The gradient estimator must fail, and we know how: $\nabla Q=2$ everywhere, so
# it answers $2/\mu$. At $t=1$ the point says nothing, and $m$ must be the mean of $p_0$, which is
# $\coth2-\frac12$.


# %%
def rising(a):
    return 2 * a[..., 0]


def by_quadrature(a, mu, sigma):
    weight = lambda x: math.exp(2 * x - ((a - mu * x) / sigma) ** 2 / 2)  # noqa: E731
    top, bottom = (integrate.quad(f, -1, 1)[0] for f in (lambda x: x * weight(x), weight))
    return top / bottom


g, point = torch.Generator().manual_seed(14), torch.tensor([[0.3]])
for mu1, sigma1 in ((0.6, 0.4), (0.6, 0.5), (0.2, 0.8)):
    truth = by_quadrature(0.3, mu1, sigma1)
    print(f"mu {mu1}, sigma {sigma1}: m = {truth:.6f}, score {(mu1 * truth - 0.3) / sigma1**2:.6f}")
    arguments = (rising, point, 0.5, Stopped(mu1, sigma1), 1.0, 400_000, g)
    estimate = posterior_mean_estimate(*arguments)
    check("1. error of the posterior mean", abs(estimate.m.item() - truth), below=0.004)
    wrong = gradient_estimate(*arguments).score.item()
    check("1. gradient estimate against 2 / mu", abs(wrong - 2 / mu1), below=1e-4)

at_noise = posterior_mean_estimate(rising, point, torch.ones(1, 1), path, 1.0, 400_000, g).m.item()
check("1. error at t = 1", abs(at_noise - (1 / math.tanh(2) - 0.5)), below=0.004)

# %% [markdown]
# The same on the plane, for an energy of three hills and $\alpha=0.1$. `BoxBoltzmann` holds the density on a grid
# of the square and gives the exact velocity by quadrature. With $K=4096$ the error of $\hat m$ should be some
# hundredths, and $v$ divides it by $t$.

# %%
hills = BoxBoltzmann(three_bumps(), 0.1)
for t1 in (0.2, 0.6, 0.95):
    a = on_path(200, t1, seed=15, density=hills)
    estimate = posterior_mean_estimate(three_bumps(), a, t1, path, 0.1, 4096, g)
    error = path.velocity_from_mean(estimate.m, a, t1) - hills.velocity(a, t1, path)
    check(
        f"1. error of v on three hills, t = {t1}", error.square().sum(-1).mean().sqrt(), below=0.15
    )

# %% [markdown]
# **2. The table.** Now the question of the chapter: *which estimator, which proposals, which $K$?* For each row
# of the table and each of four times we take 1000 points of the path, estimate $v$ at each of them eight times
# with fresh proposals, and compare with the closed form. We report
#
# * the root mean square error (RMSE) of $v$, to be compared with the mean length of $v$ in the first line;
# * the share of bias in the mean square error. The variance over the eight repeats is unbiased; what it leaves of
#   the mean square error is bias. (Zero means: too small for this experiment to see.)
# * the effective sample size.

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
        cells = [f"{x[block]:11.4f}" if x[block] < 1e4 else f"{x[block]:11.4e}" for x in row]
        printed.append(f"  {name:36}" + "".join(cells))
print("\n".join(printed))

# %% [markdown]
# Take your time with it. It decides how the later chapters are built.
#
# * **At low noise ($t=0.1$) all do well.** The gradient has a small lead, as step 8 said.
# * **Unbounded proposals fail towards $t=1$.** Their standard deviation is $\sigma/\mu$, which is 19 at $t=0.95$.
#   They rain on an area hundreds of times that of the box. The ESS is one, and the estimate is one proposal.
# * **The gradient estimator fails much harder.** At the same ESS, it takes $\nabla Q$ of that one proposal, far
#   from all blobs, and the conversion from score to velocity multiplies by $t/(1-t)$. An error of $10^5$ on a
#   speed of one is not noise that a network could average out.
# * **The box rescues the posterior mean, not the gradient.** With box proposals the posterior mean has an error
#   between 0.15 and 0.35 at *every* $t$. Its error cannot be large: $\hat m$ is a mean of points in the box, so
#   $\|\hat v-v\|\le2\sqrt d/t$. The gradient has no such leash.
# * **$K$ works as in step 5.** From 16 to 1024, a factor of 64, the error falls by about eight. Bias matters
#   where the ESS is near one, and for small $K$. (The 9 % at $t=0.1$ and $K=1024$ will not fall with $K$. They
#   are the 0.2 % of the toy outside the box, which box proposals deny and the closed form counts. The last check
#   has the size of it.)
#
# So from here on the book uses the posterior mean with box proposals. The following checks hold the bullets
# above.

# %%
rmse = {name: [entry[0] for entry in row] for name, row in table.items()}
mean_free, grad_free, grad_box, mean_box, few, many = rmse.values()
check(
    "2. worst error at t = .1, K = 128",
    max(row[0] for row in (mean_free, grad_free, grad_box, mean_box)),
    below=0.25,
)
check("2. posterior mean, unbounded, t = .95", mean_free[3], above=3)
check("2. gradient, unbounded, t = .95", grad_free[3], above=1e4)
check("2. gradient, box, t = .95", grad_box[3], above=100)
check("2. posterior mean, box: worst over t", max(mean_box), below=0.45)
gains = [x / y for x, y in zip(few, many, strict=True)]
check("2. least gain from 64 times the proposals", min(gains), above=5)
check("2. greatest gain from 64 times the proposals", max(gains), below=11)
a = on_path(1000, 0.1, seed=16)
walls = BoxBoltzmann(q, alpha, cells=401).velocity(a, 0.1, path) - toy.velocity(a, 0.1, path)
check(
    "2. RMSE between the toy and the toy cut to the box, t = .1",
    walls.square().sum(-1).mean().sqrt(),
    below=0.03,
)

# %% [markdown]
# **3. Own samples, good and bad.** Four dimensions, two narrow peaks at opposite corners (60 and 40 %), $t=0.8$,
# 128 points in all. We replace 32 box proposals by own samples: perfect ones, ones that know only the *smaller*
# peak, and uniform ones, as from an untrained sampler. The last line uses the perfect ones and forgets their
# density: it adds them to the box proposals with the plain softmax.


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

box_only = posterior_mean_estimate(four.log_prob, a, 0.8, path, 1.0, 128, g)
results = {"128 box proposals": box_only}
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
box_error, own_error, one_error, untrained_error, plain_error = errors.values()
check("3. own over box", own_error / box_error, below=0.5)
check("3. one peak over box", one_error / box_error, below=1.1)
check("3. untrained over box", untrained_error / box_error, below=1.3)
check("3. plain softmax over the balance heuristic", plain_error / own_error, above=1.5)

# %% [markdown]
# Perfect samples are worth many times their number: a quarter of the error. Untrained ones, and ones that miss a
# peak, hardly hurt. The plain softmax counts every peak twice, once through the samples and once through $Q$, and
# has twice the error of the right weights. Now look at the right column. The largest ESS belongs to a wrong
# answer, and one peak has nearly four times the ESS of box proposals with the same error. **A high ESS is no
# proof.** It sees uneven weights. It cannot see a peak that no proposal hit, or a density that was forgotten.
#
# **4. Many dimensions.** HalfCheetah has 6 action dimensions, Humanoid 17. Take the two peaks in $d=1$ to 16
# dimensions, with 128 points at each $d$. The share of the box that a peak covers shrinks geometrically with $d$,
# and with it the chance of a box proposal to meet one.

# %%
dims, lines = (1, 2, 4, 6, 8, 12, 16), {}
for t4, d in product((0.1, 0.8), dims):
    target, g = peaks(d), torch.Generator().manual_seed(20)
    a = on_path(300, t4, seed=21, density=target)
    v, own = target.velocity(a, t4, path), target.sample(32 * 300, g).reshape(300, 32, d)
    soft = lambda x, target=target: target.log_prob(x) / 10  # noqa: E731
    runs = {
        "box": posterior_mean_estimate(target.log_prob, a, t4, path, 1.0, 128, g),
        "own": shared_posterior_mean_estimate(
            target.log_prob, a, torch.full((300, 1), t4), path, 1.0, 96, g, own
        ),
        "soft": posterior_mean_estimate(soft, a, t4, path, 1.0, 128, g),
    }
    for name, run in runs.items():
        error = relative_error(run.m, v, a, t4)
        lines.setdefault((t4, name), []).append((run.ess.mean().item(), error))

fig, (left, right) = figure(8.4, 3.9, ncols=2)
looks = {  # kind, label, shift of the label in points
    (0.1, "box"): ("data", "$t = 0.1$", 0),
    (0.8, "soft"): ("noise", "heated", 6),
    (0.8, "own"): ("average", "own", -6),
    (0.8, "box"): ("error", "$t = 0.8$", 0),
}
for key, (kind, label, shift) in looks.items():
    sizes, errors = zip(*lines[key], strict=True)
    plots.curve(left, dims, sizes, kind=kind, label=label, shift=shift)
    if key[1] != "soft":  # another target: its exact velocity is another one
        at_end = {"own": "own, $t = 0.8$"}.get(key[1], label)
        apart = {"$t = 0.1$": -6, "$t = 0.8$": 6}.get(at_end, 0)
        plots.curve(right, dims, errors, kind=kind, label=at_end, shift=apart)
left.set(yscale="log", xlabel="dimension $d$", xlim=(0, 16), ylim=(0.9, 140))
left.set_title("effective sample size of 128")
for ax in (left, right):
    ax.set_xticks([1, 4, 8, 12, 16])
right.set(xlabel="dimension $d$", xlim=(0, 16), ylim=(0, 1), title="relative error of $v$")
show(
    fig,
    "Left: the effective sample size of 128 proposals against the dimension from 1 to 16, "
    "logarithmic. Box proposals at t = .8 fall to one by d = 8, at t = .1 more slowly; with own "
    "samples the fall is later; at ten times the temperature it is much slower. Right: the "
    "relative error of v rises with d, to about .65 for box proposals and half of it with own "
    "samples.",
)
box_at_8, own_at_8 = lines[0.8, "box"][dims.index(8)], lines[0.8, "own"][dims.index(8)]
check("4. ESS of box proposals, d = 8, t = .8", box_at_8[0], below=1.6)
check("4. error with own samples over error without, d = 8", own_at_8[1] / box_at_8[1], below=0.5)
check(
    "4. ESS in d = 8 at ten times the temperature", lines[0.8, "soft"][dims.index(8)][0], above=10
)
early = lines[0.1, "own"][dims.index(8)][1] / lines[0.1, "box"][dims.index(8)][1]
check("4. the same at t = .1: error with own samples over error without", early, above=0.9)

# %% [markdown]
# **What you should see.** At $t=0.8$ box proposals (vermillion) are down to about one effective sample by eight
# dimensions. At $t=0.1$ (blue) the point itself says where to look, and the fall is slower. Own samples at
# $t=0.8$ (green) buy a few dimensions. (At $t=0.1$ they buy nothing, says the last check: there the point is
# better informed than they.) So does a higher temperature (grey, "heated", $t=0.8$ and $10\,\alpha$): the weights
# are flat when the temperature is not small against the differences of $Q$ among the proposals. Nothing here beats
# this *curse of dimensionality*; it only sets in later. Our two narrow peaks in an empty box are a hard case on
# purpose. A critic is usually smoother.
#
# The errors are not as bad as the ESS. Even at $d=16$ the box keeps $\hat m$ on its leash. But an estimate with
# an ESS of one is a different animal. We look at it below.

# %% [markdown]
# ## Explorer
#
# On the left, the exact field $-v$ (black; the way a sampler moves) and its estimate (orange) from `K` values of
# $Q$ at each point. On the right, the error of $v$ and the share ESS / K over all $t$, with marks at the chosen
# `t`. The proposals are the same at all settings, as far as possible, so that what changes is what you changed.
# Do exercise 1 first.

# %%
score_estimate_explorer(toy, q, alpha)

# %% [markdown]
# **What you should see.** Start with the posterior mean in the box and raise `t` to 0.95: the orange arrows stay
# near the black ones. Switch to unbounded proposals: at small `t` nothing happens, near $t=1$ the arrows are
# random, and the share of effective proposals falls to $1/K$. Switch to the gradient: at `t` = 0.05 it is the
# best estimator of all, at 0.95 all its arrows are cut, and the error needs its logarithmic axis. `K` from 16 to
# 256 divides the error of the posterior mean in the box by about four. From 4 to 16 it often gains less: with
# four proposals the ESS is near one, and the laws of step 5 have not begun.

# %% [markdown]
# ## What can go wrong
#
# ### An average that does not exist
#
# What if $Q$ grows outside the box? Take $Q=a^2$ in one dimension, harmless on $[-1,1]$, with $\alpha=1$.
# Unbounded proposals are normal with standard deviation $\sigma/\mu$. The mean of their weights is
#
# $$E_{\text{prop}}\big[e^{a_0^2}\big]=\int\exp\Big(a_0^2-\frac{(a_0-a/\mu)^2}{2\,\sigma^2/\mu^2}\Big)\,da_0\cdot\text{const},$$
#
# and this integral is infinite as soon as $\sigma^2/\mu^2\ge\frac12$, which on the linear path is $t\ge0.41$.
# Below that, the posterior is a normal with mean $(a/\mu)/(1-2\,\sigma^2/\mu^2)$, and one sees it run away. The
# *variance* of the weights contains $e^{2a_0^2}$ and is infinite from $\sigma^2/\mu^2\ge\frac14$ on,
# $t\ge\frac13$. In code nothing shows. The estimator returns a number. We watch that number while $K$ grows to a
# million, at $a=0.3$.


# %%
def bowl(a):
    return a[..., 0] ** 2


def running_mean(propose, t, K, seed):
    """The estimate of m from the first 1, 2, ..., K proposals."""
    point = torch.tensor([0.3], dtype=torch.float64)
    x = propose(point, t, path, K, torch.Generator().manual_seed(seed))
    w = (bowl(x) - bowl(x).max()).exp()
    return (w * x[:, 0]).cumsum(0) / w.cumsum(0)


fig, axes = figure(8.4, 3.6, ncols=2)
K = 1_000_000
shown = np.unique(np.logspace(1, 6, 400).astype(int)) - 1
for ax, t5 in zip(axes, (0.2, 0.6), strict=True):
    for seed in (0, 1, 2):
        ax.semilogx(
            shown + 1,
            running_mean(free_proposals, t5, K, seed)[shown],
            color=COLOURS["error"],
            linewidth=1.2,
        )
        ax.semilogx(
            shown + 1,
            running_mean(box_proposals, t5, K, seed)[shown],
            color=COLOURS["data"],
            linewidth=1.2,
        )
    ax.set(xlabel="proposals $K$", title=f"estimate of $m$, $t = {t5}$", xlim=(10, K))
axes[0].set_ylim(0.2, 0.8)
axes[1].set_ylim(-7, 9)
axes[1].text(13, 7.5, "unbounded proposals", color=COLOURS["error"])
axes[1].text(1e3, -1.3, "box proposals", color=COLOURS["data"])
show(
    fig,
    "The running estimate of the posterior mean against K up to a million, three runs each. Left, "
    "t = .2: unbounded and box proposals both settle, at slightly different values. Right, t = "
    ".6: box proposals settle near .13; unbounded ones jump between -5 and 8, in steps that never "
    "end.",
)
last = torch.stack([running_mean(free_proposals, 0.6, K, seed)[-1] for seed in range(6)])
boxed = torch.stack([running_mean(box_proposals, 0.6, K, seed)[-1] for seed in range(6)])
check("spread of six unbounded estimates from a million proposals each", last.std(), above=1)
check("spread of six box estimates", boxed.std(), below=0.005)
settled = running_mean(free_proposals, 0.2, K, seed=0)[-1]
runaway = (0.3 / 0.8) / (1 - 2 * 0.2**2 / 0.8**2)
check("unbounded, t = .2, against the mean of its normal", abs(settled - runaway), below=0.003)

# %% [markdown]
# **What you should see.** On the left, $t=0.2$, both settle. (On different values: with unbounded proposals the
# target is $e^{a^2}$ on the whole line, which is not what we meant.) On the right, $t=0.6$, the unbounded
# estimate is, after a million proposals, the place of whichever proposal was farthest out. Each new record takes
# all the weight. There is no $K$ that helps, since there is nothing to converge to. (That the three runs look
# alike is their records growing at the same slow pace.)
#
# A critic made of ReLU layers grows linearly outside the box, not like $a^2$. Then the integral exists, and that
# is no consolation:
#
# ### The box ignored
#
# Let $Q=2a$, as in check 1, and forget the box. The posterior is then a normal, shifted by the slope: complete
# the square, and its mean is $m=a/\mu+2\,\sigma^2/\mu^2$. The estimator with unbounded proposals converges to
# *that*.

# %%
rows = ["   t      m on the box    box, K = 128    limit without a box    unbounded, K = 128"]
for t6 in (0.1, 0.4, 0.8, 0.95):
    mu6, sigma6 = 1 - t6, t6
    truth, limit = by_quadrature(0.3, mu6, sigma6), 0.3 / mu6 + 2 * sigma6**2 / mu6**2
    g = torch.Generator().manual_seed(22)
    points = torch.full((2000, 1), 0.3)  # a mean of 2000 estimates, to be rid of chance
    inside, outside = (
        posterior_mean_estimate(rising, points, t6, path, 1.0, 128, g, box).m.mean().item()
        for box in (True, False)
    )
    rows.append(f"{t6:5.2f}   {truth:12.5f}    {inside:12.5f}    {limit:19.5f}    {outside:18.5f}")
    check(f"box, error of the mean estimate at t = {t6}", abs(inside - truth), below=0.02)
    if t6 == 0.1:
        check("unbounded, t = 0.1, against its limit", abs(outside - limit), below=0.002)
check("the last unbounded estimate", outside, above=20)
print("\n".join(rows))

# %% [markdown]
# At $t=0.95$ the "best action in $[-1,1]$" is said to be around 55. It is not even its own limit, which is above
# 700; 128 proposals do not reach so far. A policy trained on such targets flees the box, whose edge it then hits
# by clipping, with every action at full throttle.
#
# ### One proposal decides
#
# Let us look closely at an estimate whose ESS is one. It is a softmax with one winner, so $\hat m$ *is* the
# proposal with the largest $Q$, the arg max. What does that do? We take a cold critic on the plane, $\alpha$ ten
# times smaller, at $t=0.95$ and with $K=16$ box proposals.

# %%
cold = alpha / 10
a, g = on_path(4000, 0.95, seed=23), torch.Generator().manual_seed(24)
x = box_proposals(a, 0.95, path, 16, g)
w = importance_weights(q(x), cold)
m_hat = (w[..., None] * x).sum(1)
winner = x[torch.arange(4000), q(x).argmax(-1)]
sharp = BoxBoltzmann(q, cold, cells=401)
m = sharp.posterior_mean(a, 0.95, path)
check("mean effective sample size", effective_sample_size(w).mean(), below=1.3)
check(
    "median distance from the best of the 16 proposals",
    (m_hat - winner).norm(dim=-1).median(),
    below=1e-3,
)


def shares(x):
    return torch.bincount(torch.cdist(x, toy.means).argmin(-1), minlength=3) / len(x)


exact_shares = shares(sharp.sample(4000, g))
print(
    "share of        " + "".join(f"   blob {k}" for k in (1, 2, 3)),
    "the density     " + "".join(f"{x:9.4f}" for x in exact_shares),
    "the arg max     " + "".join(f"{x:9.4f}" for x in shares(m_hat)),
    sep="\n",
)

fig, (left, right) = figure(8.4, 4.6, ncols=2)
for ax, points, kind, title in (
    (left, m[:600], "reference", "exact posterior means, $t = 0.95$"),
    (right, m_hat[:600], "error", "estimates with an ESS near one"),
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
bias = (m_hat.mean(0) - m.mean(0)).norm()
check("length of the bias of the posterior mean", bias, above=0.5)
spread = (m_hat - m_hat.mean(0)).square().sum(-1).mean().sqrt()
check("bias over spread of the estimates", bias / spread, above=0.7)

# %% [markdown]
# **What you should see.** So cold, the first blob holds 99 % of the mass, and at $t=0.95$ the point $a$ says
# nearly nothing. So all exact posterior means are on one spot (left). The estimates are all over the place. Each
# is a decent action, the best of sixteen. But a network that is trained on them learns their *mean*, the cross on
# the right, and that is nowhere near. The **bias** is nearly as large as the spread. Which blob wins the lottery
# depends on which one is *hit*, not on which one has the mass.
#
# So an ESS near one means: *you are running best-of-$K$ and calling it a score*. Raise $\alpha$, raise $K$, or
# bring better proposals.
#
# ### Wrong in the last digit that matters
#
# The fourth failure was shown under "Code": the one-line truncation in 32 bits. It is the nastiest, because it is
# right wherever one tests it first.

# %% [markdown]
# ## Exercises
#
# Each stub raises `NotImplementedError`. Replace its body and run the cell: a ✓ line says that you are done.

# %% [markdown]
# ### 1. Predict, then move the slider · ●○○ · 10 min
#
# Answer before you touch the explorer. Then move the sliders, and then run the cell.
#
# 1. Unbounded proposals, $K=256$, $t=0.05$: which estimator has the smaller error, `"gradient"` or
#    `"posterior mean"`?
# 2. Posterior mean in the box, $t=0.8$: from $K=16$ to $K=256$, by which factor does the error fall, roughly?
# 3. Unbounded proposals, $K=256$, $t=0.95$: what is the ESS, roughly?
#
# Return the three answers.


# %% tags=["exercise", "raises-exception"]
def prediction():
    raise NotImplementedError


better, factor, size = prediction()
low_noise = {
    "gradient": judge(gradient_estimate, 256, False, 0.05)[0],
    "posterior mean": judge(posterior_mean_estimate, 256, False, 0.05)[0],
}
truly_better = min(low_noise, key=low_noise.get)
fall = few[2] / judge(posterior_mean_estimate, 256, True, 0.8)[0]
lonely = judge(posterior_mean_estimate, 256, False, 0.95)[2]
check("exercise 1: wrong estimators named", float(better != truly_better), below=0.5)
check("exercise 1: your factor over the true one", factor / fall, above=0.7, below=1.4)
check("exercise 1: error of your ESS", abs(size - lonely), below=0.3)

# %% [markdown]
# <details><summary>Hint</summary>
#
# For 1 look at the curves of step 8, for 2 at step 5. For 3: how many of 256 proposals with standard deviation 19
# land in $[-1,1]$, with both coordinates?
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# At low noise the gradient wins: $g_1$ averages $\xi/\sigma$, large random numbers, while $g_2$ differs little
# from proposal to proposal. Sixteen times the proposals divide the error by four. And of 256 proposals fewer than
# one hits the box on average, so the nearest takes all the weight.
#
# ```python
# def prediction():
#     return "gradient", 4, 1
# ```
#
# </details>

# %% [markdown]
# ### 2. Find the bug: one sign · ●○○ · 5 min
#
# Many samplers learn the *noise* instead of the score: a network is trained towards $E[\varepsilon\mid a_t=a]$.
# The README of one public implementation gives the sign of the critic's gradient in that target one way, its code
# the other way. One of the two is this:
#
# ```python
# def noise_target(q, a, t, path, alpha, K, generator):
#     score = gradient_estimate(q, a, t, path, alpha, K, generator, box=False).score
#     return path.sigma(t) * score
# ```
#
# Write it correctly. The check compares with $E[\varepsilon\mid a_t=a]=(a-\mu m)/\sigma$.


# %% tags=["exercise", "raises-exception"]
def noise_target(q, a, t, path, alpha, K, generator):
    raise NotImplementedError


a, g = on_path(200, 0.1, seed=25), torch.Generator().manual_seed(26)
exact_noise = (a - 0.9 * toy.posterior_mean(a, 0.1, path)) / 0.1
error = noise_target(q, a, 0.1, path, alpha, 2000, g) - exact_noise
check("exercise 2: RMSE of the noise", error.square().mean().sqrt(), below=0.15)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Noise leads away from the data, the score leads towards them.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# By Tweedie $s=(\mu m-a)/\sigma^2=-E[\varepsilon\mid a_t=a]/\sigma$, so the target is $-\sigma s$. A
# one-dimensional quadratic $Q$ finds the sign in a second; a training run needs hours to say "it does not work".
# (The code was right, the README was not.)
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
# The gradient estimator was published for a path with $\mu=1$ (noise is added, the action is not shrunk).
# Somebody moved it to our path. Two mistakes came with the move. A third one is from published code of another
# estimator: correct weights, averaged in the wrong way.
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


a, g = on_path(200, 0.1, seed=27), torch.Generator().manual_seed(28)
error = ported_score(q, a, 0.1, path, alpha, 2000, g).detach() - toy.noised_score(a, 0.1, path)
scale = toy.noised_score(a, 0.1, path).square().mean()
check("exercise 3: relative error of the score", (error.square().mean() / scale).sqrt(), below=0.07)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Step 4 has two factors $1/\mu$ that are invisible when $\mu=1$. And what do the weights already sum to?
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# The proposals must be divided by $\mu$, and so must the score. The weights sum to one, so the mean over $K$
# divides by $K$ a second time. Under Adam, which ignores the scale of a loss, the last one can hide for years.
# Two of the three are invisible near $t=0$: test at more than one time.
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
# ### 4. Find the bug: clipped · ●●○ · 15 min
#
# A published actor keeps its proposals in the box in the obvious way, by clipping. It learns the weighted noise:
#
# ```python
# def weighted_noise(q, a, t, path, alpha, K, generator):
#     xi = torch.randn(*a.shape[:-1], K, a.shape[-1], generator=generator)
#     a0 = ((a[..., None, :] + path.sigma(t) * xi) / path.mu(t)).clamp(-1, 1)
#     w = importance_weights(q(a0), alpha)
#     return (w[..., None] * xi).sum(-2)
# ```
#
# The score would be this divided by $\sigma$. Two things are wrong near a wall: the clipped proposals are no
# longer the points that $\xi$ belongs to, and they pile up on the face, where their density is not the truncated
# normal. Write it correctly. The check uses the slope $Q=2a$ on $[-1,1]$ at $t=0.6$ and the quadrature of the
# first check.


# %% tags=["exercise", "raises-exception"]
def weighted_noise(q, a, t, path, alpha, K, generator):
    raise NotImplementedError


g, points = torch.Generator().manual_seed(29), torch.tensor([[-0.5], [0.3], [1.0]])
found = weighted_noise(rising, points, 0.6, path, 1.0, 100_000, g)[:, 0]
exact_noise = [(0.4 * by_quadrature(x.item(), 0.4, 0.6) - x.item()) / 0.6 for x in points[:, 0]]
check("exercise 4: largest error", (found - torch.tensor(exact_noise)).abs().max(), below=0.01)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Truncate instead of clipping, with `box_proposals`. Then ask which $\xi$ belongs to a proposal.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# Solve $a_0=(a+\sigma\xi)/\mu$ for $\xi$.
#
# ```python
# def weighted_noise(q, a, t, path, alpha, K, generator):
#     a0 = box_proposals(a, t, path, K, generator)
#     w = importance_weights(q(a0), alpha)
#     xi = (path.mu(t) * a0 - a[..., None, :]) / path.sigma(t)
#     return (w[..., None] * xi).sum(-2)
# ```
#
# </details>

# %% [markdown]
# ### 5. A perfect mixture on another path · ●●○ · 15 min
#
# Step 8 found $\lambda^*$ for a Gaussian whose coordinates all have the same width $c$. Let the widths differ:
# $p_0=\mathcal N(m_0,\mathrm{diag}(c_1^2,\dots,c_d^2))$. Write a function that takes *one* arbitrary point `a0`
# per row and returns the exact score, for any path, by mixing $g_1$ and $g_2$ with a factor per coordinate. The
# check uses the path with $\mu^2+\sigma^2=1$ and its closed form: $a_t$ is normal with variances
# $\mu^2c_i^2+\sigma^2$.


# %% tags=["exercise", "raises-exception"]
def score_from_one(a0, a, t, path, m0, c):
    raise NotImplementedError


from som_lite.flow.paths import VP

g, vp = torch.Generator().manual_seed(30), VP()
m0, c = torch.tensor([0.7, -0.3, 0.1]).double(), torch.tensor([0.1, 0.5, 2.0]).double()
a, a0 = torch.randn(2, 50, 3, generator=g, dtype=torch.float64)
for t5 in (0.1, 0.5):
    mu5, sigma5 = vp.mu(t5), vp.sigma(t5)
    exact = -(a - mu5 * m0) / (mu5**2 * c**2 + sigma5**2)
    error = largest(score_from_one(a0, a, t5, vp, m0, c) - exact)
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
# def score_from_one(a0, a, t, path, m0, c):
#     mu, sigma = path.mu(t), path.sigma(t)
#     mix = mu**2 * c**2 / (mu**2 * c**2 + sigma**2)
#     g1 = (mu * a0 - a) / sigma**2
#     g2 = -(a0 - m0) / (c**2 * mu)
#     return (1 - mix) * g1 + mix * g2
# ```
#
# </details>

# %% [markdown]
# ### 6. A baseline · ●●● · 20 min
#
# At very low noise all weights are nearly $1/K$, and the posterior mean's score $\frac1\sigma\sum_kw_k\xi_k$ is
# mostly $\frac1\sigma\cdot\frac1K\sum_k\xi_k$: pure chance, times $1/\sigma$. But the mean of $\xi$ over
# unbounded proposals is *known*. Use this as a control variate, without gradients of $Q$. On the toy at $t=0.02$
# and $K=128$ the RMSE should fall below half of its value without a baseline. Return the score.


# %% tags=["exercise", "raises-exception"]
def score_with_baseline(q, a, t, path, alpha, K, generator):
    raise NotImplementedError


a = on_path(1000, 0.02, seed=31)
s = toy.noised_score(a, 0.02, path)
with_baseline, without = (
    (score - s).square().sum(-1).mean().sqrt()
    for score in (
        score_with_baseline(q, a, 0.02, path, alpha, 128, torch.Generator().manual_seed(32)),
        posterior_mean_estimate(
            q, a, 0.02, path, alpha, 128, torch.Generator().manual_seed(32), box=False
        ).score,
    )
)
check("exercise 6: error with a baseline over error without", with_baseline / without, below=0.5)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Subtract something from $w_k$ that multiplies a sum of mean zero. What is $w_k$ when $Q$ is flat?
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# Replace $w_k$ by $w_k-\frac1K$. The subtracted term $\frac1{\sigma K}\sum_k\xi_k$ has mean zero, so the answer
# does not shift. If $Q$ is flat the estimate is now exactly zero, as it should be. This is the baseline of the
# policy-gradient theorem. With box proposals the mean of $\xi$ is not zero; it is the mean of a truncated normal,
# and must be added back.
#
# ```python
# def score_with_baseline(q, a, t, path, alpha, K, generator):
#     a0 = free_proposals(a, t, path, K, generator)
#     w = importance_weights(q(a0), alpha)
#     xi = (path.mu(t) * a0 - a[..., None, :]) / path.sigma(t)
#     return ((w - 1 / K)[..., None] * xi).sum(-2) / path.sigma(t)
# ```
#
# </details>

# %% [markdown]
# ## Summary
#
# * The score of a noised density is an average over the posterior $p(a_0\mid a_t=a)$, in two ways: of $a_0$
#   (Tweedie, $s=(\mu m-a)/\sigma^2$), and of gradients (target-score identity, $s=E[\nabla Q]/(\mu\alpha)$).
# * The likelihood, read as a density of $a_0$, is a normal. Propose from it; the weights are a softmax of
#   $Q/\alpha$, and all unknown constants cancel.
# * Self-normalised: bias of order $1/K$, spread of order $1/\sqrt K$, ESS $=1/\sum_kw_k^2$. An ESS near one means
#   best-of-$K$, not a score. A high ESS proves nothing.
# * On a box, truncate the proposals; do not clip them, and do not ignore the walls. The weights stay a softmax.
#   Compute the truncation in the lower tail.
# * The gradient formula misses the walls (divergence theorem) and explodes at high noise. At low noise, away from
#   walls, it is the better one. Both are ends of a family of control variates.
# * **The posterior mean with box proposals is the only one of the four that is usable at every $t$.** Its error
#   cannot exceed $2\sqrt d/t$. From here on it is our estimator.
# * In many dimensions box proposals run dry when the target is sharp. What helps: a higher temperature, own
#   samples with their density in the weights, and $K$. None of them beats the curse.

# %% [markdown]
# ## References
#
# * Akhound-Sadegh and others: *Iterated Denoising Energy Matching*,
#   [2402.06121](https://arxiv.org/abs/2402.06121). The gradient estimator as a training target: the ancestor of
#   SOM's score.
# * De Bortoli and others: *Target Score Matching*, [2402.08667](https://arxiv.org/abs/2402.08667). The identity
#   of step 3, and where it beats Tweedie.
# * Ma, Chen and others: *Efficient Online Reinforcement Learning for Diffusion Policy*,
#   [2502.00361](https://arxiv.org/abs/2502.00361). The posterior mean from a critic's values (SDAC).
# * *Reverse Flow Matching*, [2601.08136](https://arxiv.org/abs/2601.08136). Both estimators as members of one
#   family of control variates, for reinforcement learning.
# * *Mean Flow Policy Optimization* (MFPO), [2604.14698](https://arxiv.org/abs/2604.14698). Policy samples and
#   truncated normal proposals together, in a MeanFlow policy.
# * Efron: *Tweedie's Formula and Selection Bias*, Journal of the American Statistical Association 106 (2011). The
#   history of step 2, and why it surprises statisticians.
# * Owen: *Monte Carlo theory, methods and examples*, [chapter 9](https://artowen.su.domains/mc/). Importance
#   sampling, self-normalised weights, effective sample size: the best text there is.
# * Veach, Guibas: *Optimally Combining Sampling Techniques for Monte Carlo Rendering*, SIGGRAPH 1995. The balance
#   heuristic.
# * Kim, Ki, Ahn, Lee: *Score-Based One-step MeanFlow Policy Optimization* (SOM),
#   [2605.23365](https://arxiv.org/abs/2605.23365). What this book is heading for.
#
# ---
#
# Previous: [03 · Policies as Boltzmann distributions](03_boltzmann_policies.ipynb). Next:
# [05 · The probability-flow ODE](05_probability_flow_ode.ipynb).
