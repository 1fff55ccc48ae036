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
# # 05 · The probability-flow ODE: from a score to a velocity
#
# **What you will do.** You prove that a smooth motion can have the same densities as a random one. You turn scores
# into velocities for three noising paths, and find that they are one flow in different clothes. You write a solver,
# let it compute exact likelihoods, and break the whole thing in five ways.
#
# **What you will learn.** What chapter 04 took on trust: why following $v$ *samples the target*; what changes on
# another path than the straight one; which formula to use near which end; what a solver's order is worth when you can
# afford eight network calls; when noise helps.
#
# **What you need.** Calculus (divergence, integration by parts), a little probability and PyTorch.
#
# **Time and hardware.** ≈ 20 s on one CPU core; allow two hours for reading and as much for the exercises. No
# training, no GPU.
#
# Previous: [04 · A score without samples](04_score_without_samples.ipynb). Next:
# [06 · MeanFlow from a Q-function](06_meanflow_from_q.ipynb).

# %% [markdown]
# ## The idea in one picture
#
# ### A recap on half a page
#
# **A noising path** mixes a data point $a_0$ with standard normal noise $\varepsilon$:
#
# $$a_t=\mu_t\,a_0+\sigma_t\,\varepsilon,\qquad 0\le t\le1 .$$
#
# Time $t=0$ is data, $t=1$ is noise. The density of $a_t$ is $p_t$. Three choices of $\mu_t,\sigma_t$ are common:
#
# * **linear**: $\mu_t=1-t$, $\sigma_t=t$, the path of the chapters before;
# * **VP**, variance preserving: $\mu_t=\exp\big(-\frac12\int_0^t\beta_\tau d\tau\big)$ and $\sigma_t^2=1-\mu_t^2$,
#   with a rate $\beta_t$ that rises linearly from 0.1 to 20. The usual diffusion path;
# * **VE**, variance exploding: $\mu_t=1$, and $\sigma_t$ grows geometrically from 0.01 to 10.
#
# **Three functions.** The *score* $s(a,t)=\nabla_a\log p_t(a)$ points uphill in log density. The *posterior mean*
# $m(a,t)=E[a_0\mid a_t=a]$ is the best guess of the data point. The *velocity*
# $v(a,t)=E[\dot\mu_t a_0+\dot\sigma_t\varepsilon\mid a_t=a]$ is the mean speed of the pairs that pass through $a$ (a dot is
# a derivative in $t$). The equation $\dot a=v(a,t)$, with $v$ made from a score, is called the **probability-flow ODE**.
#
# ### The picture
#
# There are two ways to walk from noise to data once the score is known. One walk is smooth: every point follows
# the velocity. The other is random: at each step it takes fresh noise, and pays for it with an extra push along the
# score. Here are both on a line. (`walk_back` is derived in step 2.)

# %%
import math
from functools import partial
from itertools import combinations, pairwise

import numpy as np
import ot
import torch
from matplotlib.colors import LinearSegmentedColormap
from scipy.stats import kstest

from som_lite.flow import ode
from som_lite.flow.densities import GaussianMixture, three_modes
from som_lite.flow.ode import heun_step
from som_lite.flow.paths import VE, VP, Linear, Path
from som_lite.view import plots
from som_lite.view.explorers import schedule_explorer
from som_lite.view.notebook import check, show
from som_lite.view.style import BACKDROP, COLOURS, LINES, MARKERS, figure, plane

torch.set_num_threads(1)  # small tensors: more threads cost more than they bring
paths = {"linear": Linear(), "VP": VP(), "VE": VE()}
linear, vp, ve = paths.values()


def rng(seed):
    return torch.Generator().manual_seed(seed)


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def normals(rows, dim, generator):
    return torch.randn(rows, dim, generator=generator, dtype=torch.float64)


def drift_rate(path, t):
    """f_t: the deterministic part of the noising is f_t a."""
    return path.dmu(t) / path.mu(t)


def noise_rate(path, t):
    """g_t squared: the variance that the noising adds per unit of time."""
    return 2 * (path.sigma_dsigma(t) - path.sigma(t) ** 2 * drift_rate(path, t))


def walk_back(score, path, a, times, amount, generator):
    """All points of a walk down the times; amount = 1 is as much noise as the noising itself has."""
    points = [a]
    for now, then in pairwise(times):
        t, h = now.expand_as(a[:, :1]), now - then
        s, g2 = score(a, t), noise_rate(path, t)
        kick = (h * g2).sqrt() * torch.randn(a.shape, generator=generator, dtype=a.dtype)
        a = a - h * path.velocity_from_score(s, a, t) + amount**2 * h * g2 / 2 * s + amount * kick
        points.append(a)
    return torch.stack(points)


hills = GaussianMixture(
    doubles([-1.6], [0.3], [1.9]), doubles(0.25, 0.4, 0.2), doubles(0.4, 0.35, 0.25)
)
walkers = normals(4000, 1, rng(0))
walk_times = torch.linspace(1, 0, 401, dtype=torch.float64)
hill_score = partial(hills.noised_score, path=vp)
walks = {
    amount: walk_back(hill_score, vp, walkers, walk_times, amount, rng(20)) for amount in (0.0, 1.0)
}

# %% tags=["hide-input"]
height = torch.linspace(-3, 3, 200, dtype=torch.float64)[:, None]
columns = walk_times[::4]
shade = torch.stack([hills.noised(vp, now.item()).log_prob(height).exp() for now in columns], 1)
shade = shade / shade.max(0).values
shown = walkers[:, 0].argsort()[200::450]  # nine walkers, from the lowest start to the highest
fig, axes = figure(8.4, 3.9, ncols=2)
titles = ("no noise: $\\dot a=v(a,t)$", "fresh noise, and twice the score")
for ax, walked, title in zip(axes, walks.values(), titles, strict=True):
    ax.contourf(columns, height[:, 0], shade, levels=np.linspace(0.1, 1, 7), cmap=BACKDROP)
    for k in shown:
        ax.plot(walk_times, walked[:, k, 0], color=COLOURS["flow"], linewidth=1.0)
    ax.set(xlim=(1, 0), ylim=(-3, 3), xlabel="time $t$: from noise to data", title=title)
axes[0].set_ylabel("$a_t$")
show(
    fig,
    "Two panels of the same pale blue density over time and position: one hill at t = 1 on the "
    "left splits into three at t = 0 on the right. Over it nine orange walks from left to right. "
    "Left panel: smooth curves that never cross. Right panel: ragged curves that cross each other "
    "and settle on the hills near t = 0.",
)

# %% [markdown]
# **What you should see.** As in chapter 01, noise is on the left and data on the right. Blue is the density $p_t$ at each
# time (scaled to its greatest value then). Left: smooth lines that never cross. Right: ragged ones that cross all the
# time. A single walker does quite different things in the two panels. The crowd does the same.
#
# "The same" is a claim about distributions. The Kolmogorov-Smirnov distance is the largest gap between the share of
# walkers below a height and the exact share. For 4000 draws from the right distribution it exceeds 0.026 once in a
# hundred times; hence the bound.


# %%
def share_below(a, t):
    """The exact P(a_t < a)."""
    now = hills.noised(vp, t)
    units = (a[:, None] - now.means[:, 0].numpy()) / now.stds.numpy()
    return torch.special.ndtr(torch.from_numpy(units)).numpy() @ now.weights.numpy()


for amount, walked in walks.items():
    gaps = [
        kstest(walked[k, :, 0].numpy(), partial(share_below, t=walk_times[k].item())).statistic
        for k in (200, 320, 400)  # t = .5, .2, 0
    ]
    check(f"noise {amount:g}, t = .5, .2, 0: largest gap to the exact", max(gaps), below=0.026)

# %% [markdown]
# **Stop and think.** Someone gives you 4000 positions at $t=0.5$, all from one panel. Can you tell from which? And with
# the same walkers' positions at $t=0.4$?
#
# <details><summary>Answer</summary>
#
# Not from the first: both crowds have the density $p_{0.5}$. With the second, easily: in the left panel the order of
# the walkers never changes.
#
# </details>

# %% [markdown]
# ## Derivation
#
# Steps 1 and 2 say when a motion has the densities $p_t$, 3 and 4 turn scores into velocities, 5 and 6 compare the
# paths, 7 and 8 prepare solvers and likelihoods. All checks are on the three blobs of chapter 02, in 64-bit numbers;
# their noised density, score and velocity are known in closed form.

# %%
toy = three_modes()
blobs = GaussianMixture(toy.means.double(), toy.stds.double(), toy.weights.double())
starts = normals(300, 2, rng(1))  # noise for all comparisons of solvers
points = doubles([0.3, -0.4], [-1.0, 0.5], [1.2, 0.9], [-0.6, -1.5], [0.1, 1.4], [2.0, -0.3])
point_times = torch.linspace(0.05, 0.95, 6, dtype=torch.float64)[:, None]  # one for each point


def velocity_on(path, target=blobs):
    """The exact velocity of a path, as a function of a and t."""
    return partial(target.velocity, path=path)


def column(a, t):
    """The time t for every row of a."""
    return torch.full_like(a[..., :1], t)


def largest(difference):
    """The greatest length among the rows."""
    return difference.norm(dim=-1).max()


def apart(x, y):
    """The mean distance between points of the same row."""
    return (x - y).norm(dim=-1).mean().item()


# %% [markdown]
# ### Step 1: the continuity equation
#
# Let points move by $\dot a=v(a,t)$, with density $p_t$. How does the density change? Take any smooth bounded
# function $\varphi$ of the plane and watch its mean. Along a moving point $\varphi$ changes at the rate
# $\nabla\varphi\cdot v$, so
#
# $$\frac{d}{dt}E\,\varphi(a_t)=E\,[\nabla\varphi(a_t)\cdot v(a_t,t)] .$$
#
# Write both means as integrals over $p_t$ and integrate the right one by parts (far out $p_t$ vanishes, so there
# is no boundary term): $\int\varphi\,\partial_tp_t=-\int\varphi\,\nabla\!\cdot(p_tv)$. This holds for every
# $\varphi$, so
#
# $$\partial_t p_t=-\nabla\!\cdot(p_t\,v).$$
#
# This is the **continuity equation**. $p_tv$ is the flow of mass, its divergence is what leaves a place, and nothing is
# made or lost on the way.
#
# Now the path. A pair $(a_0,\varepsilon)$ moves at $\dot\mu_ta_0+\dot\sigma_t\varepsilon$, so
# $\frac{d}{dt}E\,\varphi(a_t)=E[\nabla\varphi(a_t)\cdot(\dot\mu_ta_0+\dot\sigma_t\varepsilon)]$. The mean over all pairs
# through the same point turns the bracket into $v(a_t,t)$: the path's densities satisfy *the same equation*, with the
# marginal velocity as $v$.
#
# Two families of densities that satisfy one equation and agree at one time agree at all times, if $v$ is smooth. **A
# deterministic motion has the marginals of a random path, as soon as it moves at the path's mean velocity.** The lines
# differ. The crowd does not.
#
# The check: both sides on a grid of the plane, by central differences. Their error is of the order of the squared
# width of a cell, so the residual must fall by a factor 4 when the cells are halved. And a test must be able to fail:
# with the sign of $v$ turned round, the residual is twice $\partial_tp_t$.


# %%
def mesh(cells, reach=4.0):
    """The centres (cells, cells, 2) of a square grid, and the width of a cell."""
    side = -reach + 2 * reach / cells * (torch.arange(cells, dtype=torch.float64) + 0.5)
    return torch.stack(torch.meshgrid(side, side, indexing="ij"), -1), 2 * reach / cells


def div_on_grid(flux, width):
    """The divergence of flux (n, n, 2) by central differences, on the inner cells."""
    in_x = flux[2:, 1:-1, 0] - flux[:-2, 1:-1, 0]
    in_y = flux[1:-1, 2:, 1] - flux[1:-1, :-2, 1]
    return (in_x + in_y) / (2 * width)


def dp_dt(path, a, t, step=1e-4):
    late, early = (blobs.noised(path, t + d).log_prob(a).exp() for d in (step, -step))
    return (late - early) / (2 * step)


def relative(wrong, size):
    return (wrong.abs().max() / size.abs().max()).item()


def continuity_residual(path, cells, t=0.3, sign=1):
    a, width = mesh(cells)
    change = dp_dt(path, a, t)[1:-1, 1:-1]
    flux = blobs.noised(path, t).log_prob(a).exp()[..., None] * velocity_on(path)(a, column(a, t))
    return relative(change + sign * div_on_grid(flux, width), change)


for name, path in paths.items():
    coarse, half = (continuity_residual(path, cells) for cells in (120, 240))
    check(f"{name}: residual of the continuity equation", half, below=0.01)
    check(f"{name}: it falls by four with half the cell", coarse / half, above=3.5, below=4.5)
check("VP, wrong sign: residual", continuity_residual(vp, 120, sign=-1), above=1.9)

# %% tags=["hide-input"]
fig, ax = figure(5.4, 4.4)
plane(ax)
pixels = plots.grid(ax, 120).double()
change = dp_dt(vp, pixels, 0.3).numpy()
top = np.abs(change).max()
tones = [COLOURS["noise"], "white", COLOURS["data"]]
grey_to_blue = LinearSegmentedColormap.from_list("", tones, N=65)
square = {"extent": (-3, 3, -3, 3), "origin": "lower"}
image = ax.imshow(change, cmap=grey_to_blue, vmin=-top, vmax=top, **square)
fig.colorbar(image, ax=ax, label="$\\partial_t p_t$")
places = plots.grid(ax, 16).double()
mass_there = blobs.noised(vp, 0.3).log_prob(places).exp()[..., None]
plots.field(ax, mass_there * velocity_on(vp)(places, column(places, 0.3)), 16, "velocity")
show(
    fig,
    "The rate of change of the density at t = 0.3 on the VP path: grey, falling, in three spots "
    "where the blobs are, and blue, rising, in between. Orange arrows of the flow of mass lead "
    "out of the grey spots into the blue region.",
)

# %% [markdown]
# **What you should see.** Orange arrows are the flow of mass $p_tv$ at $t=0.3$ on the VP path. They lead from
# the grey spots, where the density falls, into the blue region, where it rises. ($v$ runs from data to noise. A
# sampler goes against the arrows.)
#
# ### Step 2: noise for score
#
# Diffusion models write the noising as a *stochastic differential equation* (SDE): in a short time $h$,
#
# $$a_{t+h}=a_t+h\,f_ta_t+g_t\sqrt h\;\xi,\qquad \xi\ \text{standard normal}.$$
#
# The drift $f_ta$ shrinks, the noise of size $g_t\sqrt h$ spreads. (A root, because variances of independent kicks
# add.) What does this do to a mean? Expand $\varphi$ to second order. The kick has mean zero, so only its second-order
# term is left, $\frac12g_t^2h\,\Delta\varphi$ with the Laplacian $\Delta=\nabla\cdot\nabla$. Integrate by parts, twice for
# that term:
#
# $$\partial_tp_t=-\nabla\!\cdot(f_ta\,p_t)+\tfrac12g_t^2\,\Delta p_t .$$
#
# This is the **Fokker-Planck equation**. Now the decisive line. Since $\nabla p_t=p_t\nabla\log p_t=p_t\,s$,
#
# $$\Delta p_t=\nabla\!\cdot(p_t\,s),$$
#
# so spreading by noise *is* a flow of mass, along minus the score. Put it in:
#
# $$\partial_tp_t=-\nabla\!\cdot\Big(p_t\,\big[f_ta-\tfrac12g_t^2\,s\big]\Big).$$
#
# That is the continuity equation of the velocity
#
# $$\boxed{\,v(a,t)=f_t\,a-\tfrac12g_t^2\,s(a,t)\,}$$
#
# and $\dot a=v$ is the probability-flow ODE of the SDE (Song et al., 2011.13456). Mind the $\frac12$ of the
# second-order term: it is easily forgotten.
#
# **The exchange works for any amount.** A drift $\frac12\eta^2s$ together with noise of size $\eta$ changes no
# density: by the same two lines, $-\nabla\!\cdot(p_t\,\frac12\eta^2s)+\frac12\eta^2\Delta p_t=0$. (This is Langevin
# dynamics, chapter 03.) So it may be added to the ODE, in either direction of time, for any $\eta_t\ge0$.
# Backwards, from noise to data:
#
# $$a_{t-h}=a_t-h\,v+\tfrac12h\,\eta_t^2\,s+\eta_t\sqrt h\;\xi .$$
#
# With $\eta=0$ this is the ODE. With $\eta_t=g_t$ the two terms with $s$ add up to $h\,g_t^2s$, and it is the
# reverse SDE of diffusion models (Anderson, 1982). `walk_back` is this line, with $\eta_t$ = `amount` $\times\,g_t$.
#
# Which $f$ and $g$ belong to a path? Given $a_0$, the mean of $a_t$ is $\mu_ta_0$, so $\dot\mu=f\mu$. The variance
# $\sigma^2$ is scaled by the drift and fed by the noise: $\frac{d}{dt}\sigma^2=2f\sigma^2+g^2$. Hence
#
# $$f_t=\frac{\dot\mu_t}{\mu_t},\qquad g_t^2=2\sigma_t\dot\sigma_t-2\frac{\dot\mu_t}{\mu_t}\sigma_t^2 .$$
#
# The check is on the grid again. Then we let 20 000 points start in $a_0=0$ (on VE with the noise it has at $t=0$) and
# follow the SDE for 200 steps: their variance must become $\sigma_t^2$. It is uncertain by 1 %, and the steps add about
# as much.


# %%
def laplacian_on_grid(density, width):
    x_part = density[2:, 1:-1] + density[:-2, 1:-1] - 2 * density[1:-1, 1:-1]
    y_part = density[1:-1, 2:] + density[1:-1, :-2] - 2 * density[1:-1, 1:-1]
    return (x_part + y_part) / width**2


def step_2_errors(path, cells=240, t=0.3):
    """Of Fokker-Planck, of noise against score, and of the boxed formula."""
    a, width = mesh(cells)
    density = blobs.noised(path, t).log_prob(a).exp()
    f, g2 = drift_rate(path, t), noise_rate(path, t)
    spread = g2 / 2 * laplacian_on_grid(density, width)
    change = dp_dt(path, a, t)[1:-1, 1:-1] + div_on_grid(f * a * density[..., None], width)
    s = blobs.noised_score(a, column(a, t), path)
    by_score = g2 / 2 * div_on_grid(density[..., None] * s, width)
    wrong_v = f * a - g2 / 2 * s - velocity_on(path)(a, column(a, t))
    return (
        relative(change - spread, dp_dt(path, a, t)),
        relative(spread - by_score, spread),
        largest(wrong_v.flatten(0, 1)).item(),
    )


def sde_variance(path, end=0.8, steps=200, rows=20_000):
    """After following the SDE from a_0 = 0; not up to t = 1, where g of the linear path is infinite."""
    generator, h = rng(2), end / steps
    a = path.sigma(0.0) * normals(rows, 1, generator)
    for i in range(steps):
        t = (i + 0.5) * h  # the rates at the middle of the step
        kick = (h * noise_rate(path, t)).sqrt() * normals(rows, 1, generator)
        a = a + h * drift_rate(path, t) * a + kick
    return a.var().item()


fokker_planck, exchange, boxed = zip(*map(step_2_errors, paths.values()), strict=True)
check("Fokker-Planck: largest residual of three paths", max(fokker_planck), below=0.02)
check("noise against score: largest difference", max(exchange), below=0.02)
check("f a - g²/2 s against v: largest difference", max(boxed), below=1e-8)
grown = [sde_variance(path) / path.sigma(0.8).item() ** 2 for path in paths.values()]
check("smallest variance of the SDE over sigma²", min(grown), above=0.95)
check("largest variance of the SDE over sigma²", max(grown), below=1.05)

# %% [markdown]
# ### Step 3: everything from everything
#
# Score, posterior mean and velocity hold the same information. Two facts tie them together. The first is the
# definition of $a_t$, averaged over all pairs through $a$; the second is Tweedie's formula (chapter 04):
#
# $$a=\mu\,m+\sigma\,E[\varepsilon\mid a_t=a],\qquad E[\varepsilon\mid a_t=a]=-\sigma\,s(a,t).$$
#
# And $v=\dot\mu\,m+\dot\sigma\,E[\varepsilon\mid a_t=a]$ by definition. The rest is school algebra. Posterior mean from
# score, and velocity from either:
#
# $$m=\frac{a+\sigma^2s}{\mu},\qquad
# v=\frac{\dot\mu}{\mu}\,a-\Big(\sigma\dot\sigma-\frac{\dot\mu}{\mu}\sigma^2\Big)\,s,\qquad
# v=\dot\mu\,m+\frac{\dot\sigma}{\sigma}\,(a-\mu\,m).$$
#
# The one in the middle is $f_ta-\frac12g_t^2s$: step 2 once more, without any stochastic calculus.
#
# The check goes back to the definitions. For six points $a$ we sum over a fine grid of $a_0$, weighted by
# $p_0(a_0)\,\mathcal N(a;\mu a_0,\sigma^2I)$: conditional means, without any of the formulas above. The score is the
# automatic derivative of $\log p_t$.

# %%
cells_of_a0 = mesh(360, reach=4.5)[0].reshape(-1, 2)


def by_definition(path, t=0.5):
    """m, E[eps] and v as sums over a_0, and s by automatic differentiation."""
    eps = (points[:, None] - path.mu(t) * cells_of_a0) / path.sigma(t)  # leads from a_0 to a
    weight = (blobs.log_prob(cells_of_a0) - 0.5 * eps.square().sum(-1)).softmax(-1)[..., None]
    m, mean_eps = (weight * cells_of_a0).sum(1), (weight * eps).sum(1)
    v = path.dmu(t) * m + path.dsigma(t) * mean_eps
    s = torch.func.grad(lambda a: blobs.noised(path, t).log_prob(a).sum())(points)
    return m, mean_eps, v, s


print("at a = (0.3, -0.4), t = 0.5, first components")
halfway, step_3 = (
    column(points, 0.5),
    {"Tweedie": [], "m from s": [], "v from s": [], "v from m": []},
)
for name, path in paths.items():
    m, mean_eps, v, s = by_definition(path)
    print(f"{name:<8} s = {s[0, 0]:9.5f}   m = {m[0, 0]:9.5f}   v = {v[0, 0]:9.5f}")
    step_3["Tweedie"].append(largest(mean_eps + path.sigma(0.5) * s))
    step_3["m from s"].append(largest(path.mean_from_score(s, points, halfway) - m))
    step_3["v from s"].append(largest(path.velocity_from_score(s, points, halfway) - v))
    step_3["v from m"].append(largest(path.velocity_from_mean(m, points, halfway) - v))
for what, differences in step_3.items():
    check(f"{what}: largest difference on three paths", max(differences), below=1e-6)

# %% [markdown]
# ### Step 4: the three paths
#
# For VP, $\mu^2+\sigma^2=1$ makes $\sigma\dot\sigma=-\mu\dot\mu$, and everything collapses to $\beta$.
#
# | path | $f_t$ | $\frac12g_t^2$ | $v$ from the score | $v$ from the posterior mean |
# |---|---|---|---|---|
# | VP | $-\frac12\beta_t$ | $\frac12\beta_t$ | $-\frac12\beta_t\,(a+s)$ | $-\dfrac{\beta_t\,\mu_t}{2\sigma_t^2}\,(m-\mu_t a)$ |
# | VE | $0$ | $\sigma_t\dot\sigma_t$ | $-\sigma_t\dot\sigma_t\,s$ | $\dfrac{\dot\sigma_t}{\sigma_t}\,(a-m)$ |
# | linear | $-\dfrac1{1-t}$ | $\dfrac t{1-t}$ | $-\dfrac{a+t\,s}{1-t}$ | $\dfrac{a-m}t$ |


# %%
def row_of_table(name, s, m, a, t):
    """f, g²/2, v from s, v from m, as the table has them."""
    if name == "VP":
        beta, mu, sigma = vp.beta(t), vp.mu(t), vp.sigma(t)
        return -beta / 2, beta / 2, -beta / 2 * (a + s), -beta * mu / (2 * sigma**2) * (m - mu * a)
    if name == "VE":
        sigma, dsigma = ve.sigma(t), ve.dsigma(t)
        return 0 * t, sigma * dsigma, -sigma * dsigma * s, dsigma / sigma * (a - m)
    return -1 / (1 - t), t / (1 - t), -(a + t * s) / (1 - t), (a - m) / t


for name, path in paths.items():
    s, m = (
        known(points, point_times, path) for known in (blobs.noised_score, blobs.posterior_mean)
    )
    v = blobs.velocity(points, point_times, path)
    wanted = (drift_rate(path, point_times), noise_rate(path, point_times) / 2, v, v)
    found = row_of_table(name, s, m, points, point_times)
    off = max(largest(x - y) for x, y in zip(found, wanted, strict=True))
    check(f"step 4: the row of {name}", off, below=1e-8)

# %% [markdown]
# ### Step 5: one flow in three clothes
#
# The paths look like three methods. They are one. Divide the point by $\mu_t$, and call the result $b$ and the
# noise-to-signal ratio $\rho$:
#
# $$b=\frac{a_t}{\mu_t}=a_0+\rho\,\varepsilon,\qquad \rho_t=\frac{\sigma_t}{\mu_t}.$$
#
# Nothing on the right remembers the path: it is data plus noise of size $\rho$. Take $\rho$ for the time: the speed of a
# pair is $\varepsilon$, so the velocity is $\dfrac{db}{d\rho}=E[\varepsilon\mid b,\rho]$, a fixed field. A path only
# says *when* a given $\rho$ is reached and in *which units* the point is written.
#
# So a flow line of the VP path is a flow line of the linear path: rescale the point by $\mu^{lin}/\mu^{VP}$, and read it
# at the time of the same $\rho$:
#
# $$t^{lin}=\frac\rho{1+\rho},\qquad
# \beta_{\min}t^{VP}+\tfrac12(\beta_{\max}-\beta_{\min})\,(t^{VP})^2=\log(1+\rho^2).$$
#
# Two checks. The field: $\frac{db}{d\rho}=\frac{(v-f_ta)/\mu}{\dot\rho}$ with $\dot\rho=\frac12g_t^2/(\mu\sigma)$ must be
# the same for all paths at $\rho=1$. The lines: 100 of VP in 200 fine steps, against those of the linear path's own
# velocity, from the rescaled starts.


# %%
def ratio(path, t):
    return path.sigma(t) / path.mu(t)


def linear_time(rho):
    return rho / (1 + rho)


def vp_time(rho):
    rise = vp.beta_max - vp.beta_min
    return (-vp.beta_min + (vp.beta_min**2 + 2 * rise * torch.log1p(rho**2)).sqrt()) / rise


def b_velocity(path, b, t):
    a, mu = path.mu(t) * b, path.mu(t)
    rho_speed = noise_rate(path, t) / (2 * mu * path.sigma(t))
    return (velocity_on(path)(a, column(a, t)) - drift_rate(path, t) * a) / mu / rho_speed


one_times = {
    "linear": 0.5,
    "VP": vp_time(doubles(1.0)).item(),
    "VE": math.log(100) / math.log(1000),
}
off = max(abs(ratio(paths[name], one_times[name]) - 1) for name in paths)
check("rho at these three times, minus 1", off, below=1e-9)
of_linear, of_vp, of_ve = (b_velocity(paths[name], points, one_times[name]) for name in paths)
check("db/drho, VP against linear", largest(of_vp - of_linear), below=1e-9)
check("db/drho, VE against linear", largest(of_ve - of_linear), below=1e-9)

exact_walk = partial(ode.solve, steps=200, step=ode.rk4_step)
vp_lines = exact_walk(velocity_on(vp), starts[:100], trajectory=True)
first = linear_time(ratio(vp, 1.0))
moved = starts[:100] * linear.mu(first) / vp.mu(1.0)
print(f"VP starts at rho = {ratio(vp, 1.0):.4f}, which the linear path passes at t = {first:.6f}")
for k in (100, 200):
    t_vp = 1 - k / 200
    t_lin = linear_time(ratio(vp, t_vp))
    same = exact_walk(velocity_on(linear), moved, first.item(), t_lin.item())
    off = largest(same * vp.mu(t_vp) / linear.mu(t_lin) - vp_lines[k])
    check(f"VP at t = {t_vp:g} is linear at t = {t_lin:.4f}: difference", off, below=1e-5)

# %% tags=["hide-input"]
six = doubles([1.1, 1.9], [-1.2, 1.0], [2.0, -1.9], [-0.3, -2.2], [-2.3, 0.1], [0.4, -0.5])
fig, axes = figure(7.6, 8.0, ncols=2, nrows=2)
clock = torch.linspace(1, 0, 201, dtype=torch.float64)[:, None, None]
widths = {"VE": 6.0, "VP": 3.2, "linear": 1.2}
shades = {"VE": "#f8e0b0", "VP": COLOURS["flow"], "linear": COLOURS["reference"]}
together = plane(axes[1, 1])
plots.backdrop(together, toy.log_prob)
for name, ax in zip(("linear", "VP", "VE"), axes.flat, strict=False):
    path = paths[name]
    lines = exact_walk(velocity_on(path), path.sigma(1.0) * six, trajectory=True)
    plane(ax, 3.0 if name != "VE" else 30.0)
    plots.backdrop(ax, toy.log_prob)
    plots.trajectories(ax, lines, "flow", linewidth=1.5, alpha=1.0)
    plots.particles(ax, lines[0], "noise", size=6)
    ax.set_title(f"{name} path: $a_t$")
    scaled = lines / (path.mu(clock) ** 2 + path.sigma(clock) ** 2).sqrt()
    drawn = plots.trajectories(together, scaled, "flow", linewidth=widths[name], alpha=1.0)
    drawn.set(color=shades[name], zorder=2 + 0.1 * list(widths).index(name))
together.set_title(r"all three: $a_t/\sqrt{\mu_t^2+\sigma_t^2}$")
show(
    fig,
    "Four panels with six flow lines from noise to the three blobs. Linear: lines that first run "
    "inwards and then bend into a blob. VP: shorter lines around the outside. VE, window ten times "
    "larger: long, nearly straight lines towards the middle. All three after scaling: the lines "
    "lie on top of each other, a thin black one on an orange one on a broad pale one.",
)

# %% [markdown]
# **What you should see.** Three panels with different lines, VE's ten times as wide. In the fourth, each point is
# divided by $\sqrt{\mu_t^2+\sigma_t^2}$, which leaves $b/\sqrt{1+\rho^2}$: nothing of the path but $\rho$. All lines
# fall onto one another. What is left of VE's difference comes from its start: $\rho=10$ is not infinity.
#
# So a path does *not* choose where noise goes. It decides how a **solver** sees the line: how large the velocity is, and
# where equal steps of $t$ fall. And it decides what a network has to learn.
#
# **Stop and think.** With the exact score and a thousand steps someone finds VP's samples a little worse than the linear
# path's. Both follow the same lines. What is left that can differ?
#
# <details><summary>Answer</summary>
#
# The start: VP ends at a finite $\rho$, and is started in $\mathcal N(0,I)$ all the same. See step 6.
#
# </details>
#
# ### Step 6: the ends
#
# Most trouble lives at $t=0$ and $t=1$.
#
# **0/0.** On the linear path, $(a-m)/t$ at $t\to0$ is a small difference divided by a small number, because $m\to
# a$; and $-(a+t\,s)/(1-t)$ at $t\to1$ is the same, because $s\to-a$. The limits exist:
#
# $$v(a,0)=-a,\qquad v(a,1)=a-E[a_0]\qquad\text{(linear)}.$$
#
# But rounding errors of about $10^{-7}$ are divided by $t$, or by $1-t$. Here are both formulas in 32 bits.

# %%
clean, fresh = blobs.sample(500, rng(3)), normals(500, 2, rng(4))
at_zero = velocity_on(linear)(clean, column(clean, 1e-9))
check("v(a, 0) = -a", largest(at_zero + clean), below=1e-6)
at_one = velocity_on(linear)(fresh, column(fresh, 1 - 1e-9))
check("v(a, 1) = a - E[a_0]", largest(at_one - (fresh - blobs.weights @ blobs.means)), below=1e-6)

gap_sizes = np.logspace(-6, np.log10(0.5), 13)


def errors_in_32_bits(t):
    """Mean error of v from m and of v from s."""
    t = column(clean, t)
    a = linear.noise(clean, fresh, t)
    v, a32, t32 = blobs.velocity(a, t, linear), a.float(), t.float()
    from_mean = linear.velocity_from_mean(toy.posterior_mean(a32, t32, linear), a32, t32)
    from_score = linear.velocity_from_score(toy.noised_score(a32, t32, linear), a32, t32)
    return apart(from_mean.double(), v), apart(from_score.double(), v)


near_data = np.array([errors_in_32_bits(t) for t in gap_sizes])
near_noise = np.array([errors_in_32_bits(1 - t) for t in gap_sizes])
check("t = 8e-5: error from m over error from s", near_data[4, 0] / near_data[4, 1], above=100)
check(
    "1 - t = 8e-5: error from s over error from m", near_noise[4, 1] / near_noise[4, 0], above=100
)

# %% tags=["hide-input"]
fig, axes = figure(8.4, 3.9, ncols=2)
ends_drawn = (("near the data", near_data, "$t$"), ("near the noise", near_noise, "$1-t$"))
for ax, (title, off, label) in zip(axes, ends_drawn, strict=True):
    for k, kind in enumerate(("data", "score")):
        look = {"color": COLOURS[kind], "marker": MARKERS[kind], "linestyle": LINES[kind]}
        ax.loglog(gap_sizes, off[:, k], **look)
    ax.set(xlabel=label, title=title, ylim=(1e-8, 1))
axes[0].set_ylabel("mean error of $v$")
axes[0].text(3e-4, 3e-3, "from $m$", color=COLOURS["data"])
axes[0].text(2e-3, 1.3e-8, "from $s$", color="#a0527f")
axes[1].text(3e-4, 3e-3, "from $s$", color="#a0527f")
axes[1].text(2e-3, 2e-8, "from $m$", color=COLOURS["data"])
show(
    fig,
    "Error of the velocity in 32-bit numbers on logarithmic axes, linear path. Left, against t: "
    "the error from the posterior mean grows, at the end in a zigzag, from 1e-7 to about 0.1 as t "
    "falls to 1e-6; that from the score stays at 1e-7. Right, against 1 - t: the reverse.",
)

# %% [markdown]
# **What you should see.** Two lines that swap roles. (The zigzag is the luck of rounding.) Near the data use the score,
# near the noise the posterior mean. With *estimated* inputs the same factors act on larger errors: an error $\delta$ of
# the posterior mean becomes $\delta/t$ in the velocity, one of the score $\delta\,t/(1-t)$. This book takes
# $v=(a-m)/t$, with times cut off a little above 0: its $m$ is bounded by the box, so the noise end is safe.
#
# **VP has a root at 0.** $\sigma_t\approx\sqrt{\beta_{\min}t}$ has an infinite slope there, but the product
# $\sigma\dot\sigma$ is finite. The package stores that one.
#
# **VP does not end in noise,** and VE does not begin in data. VP has $\mu_1=0.0066$, a small rest of the data; a sampler
# starts in $\mathcal N(0,I)$ all the same. VE's $p_1$ is the *data* blurred by $\sigma=10$, and one starts in
# $\mathcal N(0,100\,I)$. The *prior mismatch* between $p_1$ and the start is measured by the total variation distance,
# the share of the mass that is in the wrong place:
#
# $$\mathrm{TV}=\tfrac12\int\big|\,p_1(a)-\mathcal N(a;0,\sigma_1^2I)\,\big|\,da .$$


# %%
def normal(std):
    """A centred normal on the plane, as a mixture of one."""
    return GaussianMixture(doubles([0.0, 0.0]), doubles(std), doubles(1.0))


def mismatch(path):
    sigma = path.sigma(1.0).item()
    a, width = mesh(300, reach=6 * max(sigma, 1.0))
    begun, wanted = normal(sigma).log_prob(a).exp(), blobs.noised(path, 1.0).log_prob(a).exp()
    return 0.5 * width**2 * (begun - wanted).abs().sum().item()


short = VP(0.1, 5.0)
more_paths = {
    "VP, beta up to 10": VP(0.1, 10.0),
    "VP, beta up to 5": short,
    "VE, sigma up to 30": VE(0.01, 30.0),
}
for name, path in (paths | more_paths).items():
    print(f"{name:<20} mu_1 = {path.mu(1.0):8.5f}   mismatch {100 * mismatch(path):8.5f} %")
check("mismatch of the linear path", mismatch(linear), below=1e-7)  # rounding

# %% [markdown]
# The flow does not repair it. Both densities, $p_1$ and the one we start in, are moved by the same map, which can be
# undone and so carries a misplaced share of mass along: **the total variation distance at the start is that of the
# samples.** The standard VP misplaces less than a tenth of a percent, VE 1.4 %; with a $\beta$ that stops at 5 it is 6 %.
#
# ### Step 7: three solvers
#
# A solver takes a step $h$ (negative for a sampler). Taylor's theorem says where it should land:
#
# $$a_{t+h}=a_t+h\,v+\tfrac12h^2\,\dot v+O(h^3),\qquad \dot v=\partial_av\,v+\partial_tv .$$
#
# Here $\dot v$ is the change of $v$ *along the line*, a Jacobian-vector product as in chapter 02.
#
# * **Euler** keeps the first two terms: $a+h\,v$. One step errs by $\frac12h^2\dot v$. There are $1/|h|$ steps, so
#   the end is off by a multiple of $h$: order 1.
# * **Heun** takes a trial step like Euler, looks again where that ends, and then steps with the mean of both
#   velocities. Since the second one is $v+h\,\dot v+O(h^2)$, the mean supplies exactly the missing
#   $\frac12h^2\dot v$: order 2, two looks a step.
# * **RK4** looks four times, once at the start, twice in the middle, once at the end, and weighs them 1, 2, 2, 1. It
#   matches Taylor up to $h^4$: order 4.
#
# The check: the landing error of one Euler step over $h^2$ against $\frac12\dot v$ from a JVP; and that a Heun step errs
# by $h^3$ (eight times less for half the step).

# %%
v_linear = velocity_on(linear)
line_times = 0.3 + 0.5 * torch.rand(200, 1, generator=rng(5), dtype=torch.float64)
on_lines = linear.noise(blobs.sample(200, rng(6)), normals(200, 2, rng(7)), line_times)


def landing(h, steps=20):
    """Where the exact flow is after a time h."""
    return ode.solve(v_linear, on_lines, line_times, line_times + h, steps, ode.rk4_step)


speed = v_linear(on_lines, line_times)
v_dot = torch.func.jvp(v_linear, (on_lines, line_times), (speed, torch.ones_like(line_times)))[1]
euler_error = (landing(-1e-4) - (on_lines - 1e-4 * speed)) / 1e-8
check("Euler's error over h² against half of v dot", largest(euler_error - v_dot / 2), below=0.02)
heun_off = [
    apart(heun_step(v_linear, on_lines, line_times, column(on_lines, h)), landing(h))
    for h in (-2e-2, -1e-2)
]
check("Heun's error over that with half the step", heun_off[0] / heun_off[1], above=6.5, below=9.5)

# %% [markdown]
# ### Step 8: the exact likelihood
#
# How dense is the crowd at the end of a flow line? Follow $\log p_t$ along the line. The chain rule gives
# $\frac{d}{dt}\log p_t(a_t)=\partial_t\log p_t+v\cdot\nabla\log p_t$. The continuity equation, divided by $p_t$,
# says $\partial_t\log p_t=-\nabla\!\cdot v-v\cdot\nabla\log p_t$. The sum is short:
#
# $$\frac{d}{dt}\log p_t(a_t)=-\nabla\!\cdot v(a_t,t).$$
#
# A cloud that grows gets thinner. No score, no integral over the plane: only the divergence of $v$, the trace of
# its Jacobian. Integrated from data to noise,
#
# $$\log p_0(a)=\log p_1(a_1)+\int_0^1\nabla\!\cdot v(a_t,t)\,dt\qquad\text{on the line with }a_0=a .$$
#
# (Chen et al., 1806.07366.) The check compares the difference quotient of $\log p_t$ along lines with the divergence,
# itself by differences.


# %%
def log_p(a, t):
    """log p_t(a) on the linear path, with a time for each row."""
    rows = zip(a, t, strict=True)
    return torch.stack([blobs.noised(linear, now.item()).log_prob(x) for x, now in rows])


def change_of_log_p(h=1e-5):
    late, early = (log_p(landing(d, steps=1), line_times + d) for d in (h, -h))
    return (late - early) / (2 * h)


def div_by_differences(h=1e-5):
    axes = torch.eye(2, dtype=torch.float64)
    moved = (
        (v_linear(on_lines + h * e, line_times) - v_linear(on_lines - h * e, line_times)) @ e
        for e in axes
    )
    return sum(moved) / (2 * h)


off = (change_of_log_p() + div_by_differences()).abs().max()
check("change of log p along the line against -div v", off, below=1e-4)

# %% [markdown]
# ## Code
#
# ### A path of your own
#
# In the package a path is a small class. It gives $\mu$, $\dot\mu$, $\sigma$ and $\sigma\dot\sigma$; the conversions of
# step 3 are written once for all paths. The core two you write yourself, below. A fourth path costs four short methods:
# the *cosine path* of image models, $\mu_t=\cos\frac{\pi t}2$, $\sigma_t=\sin\frac{\pi t}2$.


# %%
class Cosine(Path):
    def mu(self, t):
        return (math.pi / 2 * t).cos()

    def dmu(self, t):
        return -math.pi / 2 * (math.pi / 2 * t).sin()

    def sigma(self, t):
        return (math.pi / 2 * t).sin()

    def sigma_dsigma(self, t):
        return math.pi / 2 * self.sigma(t) * self.mu(t)


cosine_score = blobs.noised_score(points, point_times, Cosine())
cosine_v = Cosine().velocity_from_score(cosine_score, points, point_times)
off = largest(cosine_v - velocity_on(Cosine())(points, point_times))
check("cosine path: v from s", off, below=1e-8)

# %% [markdown]
# ### 1. Velocity from score, and back · ●●○ · 20 min
#
# Write both conversions for *any* path, from its methods `path.mu(t)`, `dmu`, `sigma`, `sigma_dsigma`, `dsigma`. The
# first must be finite at $t=0$ on VP and linear, the second at $t=1$ on the linear path, where $\mu=0$.


# %% tags=["exercise", "raises-exception"]
def velocity_from_score(path, s, a, t):
    raise NotImplementedError


def score_from_velocity(path, v, a, t):
    raise NotImplementedError


early, late = (
    torch.cat([0 * point_times, point_times]),
    torch.cat([point_times, 1 + 0 * point_times]),
)
twice = torch.cat([points, points])
for name, path in (paths | {"cosine": Cosine()}).items():
    s, v = blobs.noised_score(twice, early, path), blobs.velocity(twice, early, path)
    off = largest(velocity_from_score(path, s, twice, early) - v)
    check(f"exercise 1: {name}, v from s, t from 0", off, below=1e-6)
    s, v = blobs.noised_score(twice, late, path), blobs.velocity(twice, late, path)
    off = largest(score_from_velocity(path, v, twice, late) - s)
    check(f"exercise 1: {name}, s from v, t to 1", off, below=1e-6)
s = blobs.noised_score(points, point_times, vp)
off = velocity_from_score(vp, s, points, point_times) - vp.velocity_from_score(
    s, points, point_times
)
check("exercise 1: distance to the package's", largest(off), below=1e-9)

# %% [markdown]
# <details><summary>Hint</summary>
#
# $\dot\sigma$ is infinite on VP at $t=0$, the product $\sigma\dot\sigma$ is not. For the way back multiply the equation
# by $\mu$ before you solve it for $s$.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# Times $\mu$, the formula of step 3 is $\mu v=\dot\mu a-\gamma s$ with $\gamma=\mu\,\sigma\dot\sigma-\dot\mu\,\sigma^2$,
# which is 1 at $t=1$ on the linear path. In the package these are methods of `Path`, and $\gamma$ is `_g`.
#
# ```python
# def gamma(path, t):
#     return path.mu(t) * path.sigma_dsigma(t) - path.dmu(t) * path.sigma(t) ** 2
#
#
# def velocity_from_score(path, s, a, t):
#     return (path.dmu(t) * a - gamma(path, t) * s) / path.mu(t)
#
#
# def score_from_velocity(path, v, a, t):
#     return (path.dmu(t) * a - path.mu(t) * v) / gamma(path, t)
# ```
#
# </details>

# %% [markdown]
# ### The solvers
#
# A step is a function of one to five lines; a loop repeats it. `dt` is the step $h$; times are columns. Heun's step you
# write yourself, below; until then `heun_step` is the package's.


# %%
def euler_step(velocity, a, t, dt):
    return a + dt * velocity(a, t)


def rk4_step(velocity, a, t, dt):
    k1 = velocity(a, t)
    k2 = velocity(a + dt / 2 * k1, t + dt / 2)
    k3 = velocity(a + dt / 2 * k2, t + dt / 2)
    k4 = velocity(a + dt * k3, t + dt)
    return a + dt * (k1 + 2 * k2 + 2 * k3 + k4) / 6


def solve(velocity, a, t0=1.0, t1=0.0, steps=20, step=heun_step, trajectory=False):
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    start, end = (
        torch.as_tensor(t, dtype=a.dtype) + torch.zeros_like(a[..., :1]) for t in (t0, t1)
    )
    dt = (end - start) / steps
    points = [a]
    for i in range(steps):
        points.append(step(velocity, points[-1], start + i * dt, dt))
    return torch.stack(points) if trajectory else points[-1]


def walk(velocity, a, times, step):
    """Any grid: from the first of the falling times to the last."""
    for t, r in pairwise(times):
        a = step(velocity, a, t.expand_as(a[..., :1]), (r - t).expand_as(a[..., :1]))
    return a


solvers = {"Euler": (euler_step, 1), "Heun": (heun_step, 2), "RK4": (rk4_step, 4)}  # calls per step
tilted = partial(solve, lambda a, t: 4 * t**3 + 0 * a, torch.zeros(1, 1), 1.0, 0.0, 1)
linear_ends = ode.reference_solve(v_linear, starts, tol=1e-10)


def order_of(solve_in, counts):
    """Minus the slope of the error against the number of steps."""
    off = [apart(solve_in(n), linear_ends) for n in counts]
    return -np.polyfit(np.log(counts), np.log(off), 1)[0]


even = torch.linspace(1, 0, 9, dtype=torch.float64)
off = largest(walk(v_linear, starts, even, heun_step) - solve(v_linear, starts, steps=8))
check("walk on an even grid against solve", off, below=1e-12)
check(
    "RK4: one step through the time alone is exact; error", (tilted(rk4_step) + 1).abs(), below=1e-6
)

# %% [markdown]
# ### 2. A solver that spares the end · ●●○ · 20 min
#
# Write Heun's method down a tensor of falling times, `(T,)`. With $v=(a-m)/t$ the velocity at $t=0$ is 0/0; so the *last*
# step shall be Euler's, and nothing is ever asked at $t=0$.


# %% tags=["exercise", "raises-exception"]
def heun_solve(velocity, a, times):
    raise NotImplementedError


looks = []
by_hand = heun_solve(lambda a, t: looks.append(float(t.min())) or v_linear(a, t), starts, even)
check("exercise 2: looks in 8 steps, minus 15", abs(len(looks) - 15), below=0.5)
check("exercise 2: the earliest time asked", min(looks), above=0.12)
package = euler_step(
    v_linear, walk(v_linear, starts, even[:-1], heun_step), column(starts, 0.125), -0.125
)
check("exercise 2: distance to the package's steps", largest(by_hand - package), below=1e-9)
crowded = even**2  # steps that shrink towards the data
package = euler_step(
    v_linear, walk(v_linear, starts, crowded[:-1], heun_step), column(starts, 1 / 64), -1 / 64
)
off = largest(heun_solve(v_linear, starts, crowded) - package)
check("exercise 2: the same where the times are uneven", off, below=1e-9)
graded = lambda n: torch.linspace(1, 0, n + 1, dtype=torch.float64)  # noqa: E731
measured = order_of(lambda n: heun_solve(v_linear, starts, graded(n)), [48, 96, 192])
check("exercise 2: |order - 2|", abs(measured - 2), below=0.2)

# %% [markdown]
# <details><summary>Hint</summary>
#
# In the loop of `walk`, with $h=r-t$: where does an Euler step end, and what is the velocity there *at the time* $r$?
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# One Euler step errs by $h^2$, as much as all Heun steps together, so the order stays 2. `ode.heun_step` is the body of
# the branch.
#
# ```python
# def heun_solve(velocity, a, times):
#     for t, r in pairwise(times):
#         h, v0 = r - t, velocity(a, column(a, t.item()))
#         if r > 0:
#             v1 = velocity(a + h * v0, column(a, r.item()))
#             a = a + h * (v0 + v1) / 2
#         else:
#             a = a + h * v0
#     return a
# ```
#
# </details>

# %% [markdown]
# ### The likelihood
#
# The divergence is the trace of the Jacobian $J=\partial_av$. A JVP along the $i$-th axis gives the $i$-th column, of
# which we keep the $i$-th entry: one JVP per dimension, fine for the actions of a robot and too dear for images.
# **Hutchinson's trick** needs one JVP in any dimension. For a random vector $z$ with independent entries of mean 0 and
# variance 1,
#
# $$E\,[z^\top J z]=\sum_{ij}J_{ij}\,E[z_iz_j]=\operatorname{tr}J ,$$
#
# so $z\cdot(Jz)$ is an unbiased estimate of the trace. The integral of the divergence rides along as one more
# coordinate, under the same solver.


# %%
def divergence(velocity, a, t):
    total = torch.zeros_like(a[..., 0])
    for i, axis in enumerate(torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)):
        column = torch.func.jvp(lambda x: velocity(x, t), (a,), (axis.expand_as(a),))[1]
        total = total + column[..., i]
    return total


def hutchinson_divergence(velocity, a, t, probe):
    along = torch.func.jvp(lambda x: velocity(x, t), (a,), (probe,))[1]
    return (probe * along).sum(-1)


def log_likelihood(velocity, log_prior, a, t0=0.0, steps=50, step=rk4_step, div=divergence):
    def field(x, t):
        a = x[..., :-1]
        return torch.cat([velocity(a, t), div(velocity, a, t)[..., None]], -1)

    start = torch.cat([a, torch.zeros_like(a[..., :1])], -1)
    end = solve(field, start, t0, 1.0, steps, step)
    return log_prior(end[..., :-1]) + end[..., -1]


# %% [markdown]
# In two dimensions the mean over all four vectors of signs must be the trace.

# %%
exact_div = divergence(v_linear, on_lines, line_times)
check("divergence against differences", (exact_div - div_by_differences()).abs().max(), below=1e-6)
signs = [doubles(i, j).expand_as(on_lines) for i in (-1.0, 1.0) for j in (-1.0, 1.0)]
estimates = [hutchinson_divergence(v_linear, on_lines, line_times, sign) for sign in signs]
off = (torch.stack(estimates).mean(0) - exact_div).abs().max()
check("Hutchinson, mean over all signs: error", off, below=1e-10)
print(f"mean size of the exact trace           {exact_div.abs().mean():.4f}")
print(f"mean size of the error of one estimate {(estimates[0] - exact_div).abs().mean():.4f}")

# %% [markdown]
# ## Checks
#
# ### The order, measured
#
# 300 noise points, the exact velocity, and as a judge the adaptive solver `dopri5` of the library torchdiffeq. On
# logarithmic axes, error against steps is a straight line, and minus its slope is the order, read off where steps are
# small.
#
# **Stop and think.** Before you look: which of the three wins at 8 network calls, that is, with 8 steps of Euler, 4 of
# Heun or 2 of RK4?
#
# <details><summary>Answer</summary>
#
# It depends on the path: the picture shows it.
#
# </details>

# %%
call_counts = [4, 8, 16, 32, 64, 128, 256]
solver_errors = {}
for name, path in paths.items():
    noise = path.sigma(1.0) * starts
    judge = ode.reference_solve(velocity_on(path), noise, tol=1e-10)
    for solver, (step, calls) in solvers.items():
        ends = [solve(velocity_on(path), noise, steps=n // calls, step=step) for n in call_counts]
        solver_errors[name, solver] = [apart(end, judge) for end in ends]

for solver, (step, order) in solvers.items():  # calls per step happen to be the order
    measured = order_of(lambda n: solve(v_linear, starts, steps=n, step=step), [48, 96, 192])  # noqa: B023
    print(f"{solver:<6} measured order {measured:.5f}")
    check(f"{solver}: |order - {order}|", abs(measured - order), below=0.3)

# %% tags=["hide-input"]
tints = {"Euler": ("#f0b429", "^"), "Heun": ("#b87700", "o"), "RK4": ("#5c3b00", "D")}
fig, axes = figure(9.0, 3.9, ncols=3)
for ax, name in zip(axes, paths, strict=True):
    for solver, (tint, marker) in tints.items():
        look = {"color": tint, "marker": marker, "markersize": 4, "label": solver}
        ax.loglog(call_counts, solver_errors[name, solver], **look)
    ax.set(title=f"{name} path", xlabel="network calls", ylim=(1e-7, 40))
    ax.set_xticks([4, 16, 64, 256], ["4", "16", "64", "256"])
    ax.minorticks_off()
axes[0].set_ylabel("mean error of the end points")
axes[0].legend(frameon=False, loc="lower left")
show(
    fig,
    "Error against network calls from 4 to 256 on logarithmic axes, one panel per path. Euler "
    "falls with slope 1, Heun with slope 2, RK4 with slope 4. Linear: RK4 is ahead from 16 calls "
    "on. VP: Euler is best at 4 and 8 calls. VE: all errors above 1 at 4 calls; from 8 calls on "
    "RK4 is ahead.",
)
print("calls        4         8        16        32")
for (name, solver), off in solver_errors.items():
    print(f"{name:<7}{solver:<6}" + "".join(f"{value:9.5f} " for value in off[:4]))

# %% [markdown]
# **What you should see.** On the right of each panel three slopes, 1, 2 and 4. But look at the left ends, where a policy
# that must answer quickly lives. On the VP path, Euler is the best of the three up to 8 calls: at 4 calls Heun has taken two
# steps and RK4 one, far beyond the range of Taylor's theorem. **The order is a promise about small steps.** On the linear
# path 8 calls of Heun do more than 32 of Euler. Measure at *your* number of calls.
#
# ### The likelihood against the closed form
#
# On the linear path 50 steps of RK4 should give the known $\log p_0$ of the blobs back to three digits. And like every
# density it must have mass 1 over the plane.

# %%
likelihood = log_likelihood(v_linear, normal(1.0).log_prob, blobs.sample(200, rng(8)))
known = blobs.log_prob(blobs.sample(200, rng(8)))
check("largest error of log p_0", (likelihood - known).abs().max(), below=1e-3)

sixty, cell = mesh(60, reach=4.5)
on_cells = partial(log_likelihood, a=sixty.reshape(-1, 2), steps=20)
total_mass = cell**2 * on_cells(v_linear, normal(1.0).log_prob).exp().sum()
check("|mass - 1|", abs(total_mass - 1), below=1e-3)

# %% [markdown]
# Mass 1 alone proves little: *every* flow conserves it, also that of a badly trained network.
#
# Now the claim of step 6. Take VP with $\beta$ up to 5, started in $\mathcal N(0,\sigma_1^2I)$. The likelihood gives the
# density of what this sampler really draws.

# %%
drawn_density = on_cells(velocity_on(short), normal(short.sigma(1.0).item()).log_prob).exp()
difference = drawn_density - blobs.log_prob(sixty.reshape(-1, 2)).exp()
arrived = 0.5 * cell**2 * difference.abs().sum().item()
print(f"mismatch at the start {100 * mismatch(short):.4f} %, of the samples {100 * arrived:.4f} %")
check("relative difference of the two", abs(arrived / mismatch(short) - 1), below=0.01)

# %% [markdown]
# ## Explorer
#
# Left: black lines are the exact flow, orange triangles the places where the solver steps, each divided by
# $\sqrt{\mu_t^2+\sigma_t^2}$ as in step 5. Right: 120 end points of the solver and of the exact flow, joined by red
# lines. The title says how far they are apart and what it cost.

# %%
schedule_explorer(blobs)

# %% [markdown]
# **What you should see.** Switch the path with $n$ at 16: the black lines hardly move, the triangles do. On VP they
# crowd at the noise end, where nothing happens. VE with few steps shoots out of the picture. Raise $n$, and RK4's red
# lines are the first to vanish.

# %% [markdown]
# ## What can go wrong
#
# ### Wrong direction, half a score, a small start, too few steps
#
# Four small slips. None raises an error.
#
# 1. **Wrong sign of time.** Noise is put in at $t=0$ and integrated up to $t=1$, as if it were data.
# 2. **A score where a velocity belongs.** The reverse SDE's drift, $f_ta-g_t^2s$, without its noise: it lacks the factor
#    $\frac12$.
# 3. **VE from unit variance,** like every other path.
# 4. **Too few steps at a stiff end.** Four Heun steps on VP, for the same blobs made ten times tighter.

# %%
crowd = normals(2000, 2, rng(9))
tight = GaussianMixture(blobs.means, 0.1 * blobs.stds, blobs.weights)


def shares(x):
    """The share of the points x that is nearest to each of the three centres."""
    return torch.bincount(torch.cdist(x, blobs.means).argmin(-1), minlength=3) / len(x)


def spread(x):
    """The mean distance of the points x to their nearest centre."""
    return torch.cdist(x, blobs.means).min(-1).values.mean().item()


def doubled_score(a, t):
    return drift_rate(vp, t) * a - noise_rate(vp, t) * blobs.noised_score(a, t, vp)


failures = {
    "1. wrong direction": solve(v_linear, crowd, 0.0, 1.0, steps=50),
    "2. no factor ½": solve(doubled_score, crowd, steps=200),
    "3. VE from unit variance": solve(velocity_on(ve), crowd, steps=60),
    "4. VP, tight data, 4 Heun steps": solve(velocity_on(vp, tight), crowd, steps=4),
}
one, two, three, four = failures.values()
right = solve(v_linear, crowd, steps=50)
for name, x in ({"right": right} | failures).items():
    print(f"{name:<32} shares " + " ".join(f"{share:.2f}" for share in shares(x)))
check("2: spread over the right one", spread(two) / spread(right), below=0.35)
check("3: share of the first blob (right: 0.5)", shares(three)[0], above=0.9)
tight_ends = ode.reference_solve(velocity_on(vp, tight), crowd)
euler_8 = solve(velocity_on(vp, tight), crowd, steps=8, step=euler_step)
check("4: mean error of 4 Heun steps", apart(four, tight_ends), above=1)
check("4: mean error of 8 Euler steps, at the same cost", apart(euler_8, tight_ends), below=0.3)

# %% tags=["hide-input"]
fig, axes = figure(7.6, 8.0, ncols=2, nrows=2)
for ax, (title, x) in zip(axes.flat, failures.items(), strict=True):
    plane(ax)
    plots.backdrop(ax, (tight if title.startswith("4") else blobs).log_prob)
    plots.particles(ax, x[:1200], "error", size=2.5, alpha=0.7)
    ax.set_title(title)
show(
    fig,
    "Samples of four broken samplers. Wrong direction: points on three thin seams between the "
    "blobs, few in them. No factor one half: all points in one knot inside the lower left blob. "
    "VE from unit variance: a narrow crowd at the edge of the lower left blob, a few points at the "
    "edge of the right one. VP with tight data and four Heun steps: a cloud in the middle and "
    "points all over the window, hardly any in the three small blobs.",
)

# %% [markdown]
# **What you should see.** 1: no blob at all. Read forwards the flow spreads the blobs, and squeezes the gaps between
# them, where most of our noise happened to lie, to thin seams. 2: one blob, and in it a
# knot instead of a cloud: too sharp, and here also all in the strongest mode. 3: a crowd in one blob. A start of a tenth
# of the width looks, to the flow, like points from the middle of $p_1$. 4: points everywhere but in the (tiny) blobs.
#
# ### Why higher orders fail first
#
# Around one blob of standard deviation $\varsigma$ the velocity, relative to the moving centre, is $\lambda_t$ times
# the distance to it, with $\lambda_t=\dot V_t/2V_t$ and $V_t=\mu_t^2\varsigma^2+\sigma_t^2$. Walking back by $h$ at
# constant $\lambda$ shrinks distances by $e^{-y}$, $y=\lambda h$. The solvers take the first terms of its series:
#
# $$\text{Euler: }1-y,\qquad\text{Heun: }1-y+\tfrac12y^2,\qquad\text{RK4: }1-y+\tfrac12y^2-\tfrac16y^3+\tfrac1{24}y^4 .$$
#
# For $y$ of 4 and more all of them *stretch*, the higher the power, the worse in the end. A problem with large $y$ for
# any step one would like to take is called **stiff**.


# %%
only_point = GaussianMixture(doubles([0.7, -0.3]), doubles(0.0), doubles(1.0))


def shrinking(path, step, n):
    """By which factor each of n steps changes the offset from the data point, along (1, 0)."""
    noise = only_point.means + doubles([1.0, 0.0])
    line = solve(velocity_on(path, only_point), noise, steps=n, step=step, trajectory=True)
    offset = (line - only_point.means)[:, 0, 0]
    return offset[1:] / offset[:-1]


lambdas = doubles(0.5, 1.0, 2.0, 4.0, 8.0)[:, None]
series = {
    "Euler": 1 - lambdas,
    "Heun": 1 - lambdas + lambdas**2 / 2,
    "RK4": 1 - lambdas + lambdas**2 / 2 - lambdas**3 / 6 + lambdas**4 / 24,
}
for name, factor in series.items():  # walked from t = 1 back to 0 in one step, h = 1
    one_step = solve(
        lambda a, t: lambdas * a, torch.ones_like(lambdas), steps=1, step=solvers[name][0]
    )
    check(f"{name}: factor of one step", largest(one_step - factor), below=1e-12)
print("y        exact" + "".join(f"{name:>12}" for name in series))
for k, y in enumerate(lambdas[:, 0]):
    print(f"{y:<5.1f}{math.exp(-y):9.4f}" + "".join(f"{f[k, 0]:12.4f}" for f in series.values()))

fine_times = torch.linspace(0, 1, 401, dtype=torch.float64)
variance = vp.mu(fine_times) ** 2 * tight.stds[0] ** 2 + vp.sigma(fine_times) ** 2
growth = 2 * vp.mu(fine_times) * vp.dmu(fine_times) * tight.stds[0] ** 2 + 2 * vp.sigma_dsigma(
    fine_times
)
rate = growth / (2 * variance)
print(f"tight blob on VP: largest lambda {rate.max():.4f}, at t = {fine_times[rate.argmax()]:.4f}")
print(f"                  lambda at t = 0 {rate[0]:.4f}, at t = 0.25 {rate[100]:.4f}")

# %% [markdown]
# For the tight blobs $\lambda$ is largest near $t=0$. The last of four Heun steps goes from $t=0.25$ to 0; its second look
# sees a $\lambda$ near 41, so $y$ is about 10. Euler's last look is at $t=h$; that is how Euler gets away. Cures: more
# steps; more of them where $\lambda$ is large; an Euler step at the end, as in EDM's sampler (2206.00364) and exercise 2;
# or a step that solves the stiff part exactly (exercise 5).
#
# ### A wrong score: ODE or SDE?
#
# With an exact score both agree. A learnt or estimated one is never exact. We spoil the score of the VP path in three
# ways: a constant push early in the sampling ($0.4<t<0.8$), a constant push at its end ($t<0.1$), and a score that is
# 30 % too long. The noise goes from $\eta=0$ (ODE) to twice that of the usual reverse SDE. The judge is the sliced
# Wasserstein distance to true samples (chapter 01). The floor is the mean over pairs of sets of true samples, which are
# 0.02 to 0.07 apart: a little below it means nothing.


# %%
def pushed(s, t, low, high, size):
    return s + size * ((t > low) & (t < high)) * torch.tensor([1.0, 0.0])


spoilt = {
    "early push": lambda s, t: pushed(s, t, 0.4, 0.8, 0.5),
    "late push": lambda s, t: pushed(s, t, -1, 0.1, 2.0),
    "30 % too long": lambda s, t: 1.3 * s,
    "exact": lambda s, t: s,
}
truths = [toy.sample(2000, rng(30 + k)) for k in range(8)]
levels = (0.0, 0.5, 1.0, 1.5, 2.0)


def distance(x, y):
    return ot.sliced_wasserstein_distance(x.numpy(), y.numpy(), n_projections=50, seed=0, p=1)


def distance_with(spoil, level):
    """Of the samples made with a spoilt score and an amount of noise."""
    times = torch.linspace(1, 0, 201)
    wrong = lambda a, t: spoil(toy.noised_score(a, t, vp), t)  # noqa: E731
    ends = walk_back(wrong, vp, crowd.float(), times, level, rng(10))[-1]
    return np.mean([distance(ends, truth) for truth in truths])


floor = np.mean([distance(x, y) for x, y in combinations(truths, 2)])
off_by = {name: [distance_with(spoil, level) for level in levels] for name, spoil in spoilt.items()}
check("early push: ODE over SDE", off_by["early push"][0] / off_by["early push"][2], above=1.5)
check(
    "30 % too long: ODE over SDE", off_by["30 % too long"][0] / off_by["30 % too long"][2], above=3
)
check("late push: SDE over ODE", off_by["late push"][2] / off_by["late push"][0], above=1.2)
check("exact score: ODE over the floor", off_by["exact"][0] / floor, below=1.5)

# %% tags=["hide-input"]
fig, ax = figure(6.4, 4.0)
looks = {
    "early push": ("^", "--"),
    "late push": ("s", "-."),
    "30 % too long": ("X", ":"),
    "exact": ("o", "-"),
}
for name, (marker, dashes) in looks.items():
    colour = COLOURS["reference" if name == "exact" else "error"]
    ax.semilogy(levels, off_by[name], color=colour, marker=marker, linestyle=dashes, label=name)
ax.axhline(floor, color=COLOURS["data"], linewidth=1.0)
ax.text(1.55, 0.83 * floor, "floor", color=COLOURS["data"], va="top")
labels = {"xlabel": "noise, in units of that of the reverse SDE", "ylabel": "distance to the truth"}
ax.set(**labels, ylim=(0.02, 1.5))
ax.legend(frameon=False, ncols=2, loc="upper right")
show(
    fig,
    "Distance of the samples to the truth against the amount of noise, from 0, the ODE, to 2, "
    "logarithmic heights. Early push and too long a score: far off at 0, much nearer at 2. Late "
    "push: near at 0 and 0.5, then rising. Exact score: near the floor throughout.",
)

# %% [markdown]
# **What you should see.** Two curves fall, one rises, one stays. The ODE *carries errors along*: nothing brings a
# displaced crowd back. The SDE's Langevin moves pull any crowd towards the $p_t$ of the present time; what happened early
# is *damped*. The price: it uses $g^2s$ where the ODE uses $\frac12g^2s$, so an error of the score that comes last counts
# up to double. And the SDE cannot be jumped in one step: it has no deterministic map from noise to action for MeanFlow to
# learn. A one-step policy needs the ODE, and a score that is good at high noise.

# %% [markdown]
# ## Exercises
#
# Exercises 1 and 2, the core, stand in the code section.

# %% [markdown]
# ### 3. Find the bugs · ●●○ · 15 min
#
# An agent wants the entropy $-E[\log p_0(a)]$ of its own samples. This function draws noise with standard deviation 0.5,
# follows the flow to $t=0$ and asks for the likelihood. It holds two bugs, one of which does harm even where the standard
# deviation is 1. Write it correctly.
#
# ```python
# def entropy_of_samples(velocity, count, generator):
#     eps = 0.5 * torch.randn(count, 2, generator=generator, dtype=torch.float64)
#     a = solve(velocity, eps, steps=20, step=rk4_step)
#     div = partial(hutchinson_divergence, probe=eps)
#     return -log_likelihood(velocity, normal(1.0).log_prob, a, steps=20, div=div).mean()
# ```
#
# The first check uses one blob, whose flow scales all distances by $\varsigma=0.4$. The second uses the three blobs: there
# the entropy is that of the noise, less the mean exact integral of the divergence (step 8).


# %% tags=["exercise", "raises-exception"]
def entropy_of_samples(velocity, count, generator):
    raise NotImplementedError


one_blob = velocity_on(linear, GaussianMixture(doubles([0.5, -0.2]), doubles(0.4), doubles(1.0)))
off = entropy_of_samples(one_blob, 2000, rng(11)) - math.log(2 * math.pi * math.e * 0.2**2)
# 2000 samples leave an uncertainty of .02
check("exercise 3: error of the entropy", abs(off), below=0.08)
half_noise = solve(v_linear, 0.5 * normals(2000, 2, rng(12)), steps=20, step=rk4_step)
grown = log_likelihood(v_linear, lambda a: 0 * a[..., 0], half_noise, steps=20).mean()
off = entropy_of_samples(v_linear, 2000, rng(11)) - math.log(2 * math.pi * math.e * 0.5**2) + grown
# both means are uncertain by about .03
check("exercise 3: the same for the three blobs", abs(off), below=0.15)

# %% [markdown]
# <details><summary>Hint</summary>
#
# From which density was the noise drawn, and under which is it scored? And what must a probe be independent of?
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# The noise is drawn with standard deviation 0.5 and scored under a standard normal. And the probe is the noise
# itself: it has the wrong variance, and the Jacobian at $a_t$ depends on it, so that the estimate is biased even
# when the variance is 1. (With `probe=eps / 0.5` the first check still passes, because the Jacobian of a single blob
# is the same everywhere.) The generator must be asked twice.
#
# ```python
# def entropy_of_samples(velocity, count, generator):
#     eps = 0.5 * torch.randn(count, 2, generator=generator, dtype=torch.float64)
#     a = solve(velocity, eps, steps=20, step=rk4_step)
#     probe = 2.0 * torch.randint(0, 2, eps.shape, generator=generator).double() - 1
#     div = partial(hutchinson_divergence, probe=probe)
#     return -log_likelihood(velocity, normal(0.5).log_prob, a, steps=20, div=div).mean()
# ```
#
# </details>

# %% [markdown]
# ### 4. Predict: how many steps? · ●●○ · 15 min
#
# Let the data be a single point $a_0$, so that $m=a_0$ everywhere. With even steps from $t=1$ to 0, what is the smallest
# number of
#
# 1. *Euler* steps on the *linear* path that lands on $a_0$;
# 2. *Euler* steps on *VE* with which no step jumps over $a_0$ to its other side;
# 3. *Heun* steps on *VE* in which every step brings the point nearer?
#
# Predict by hand and return the three numbers.


# %% tags=["exercise", "raises-exception"]
def prediction():
    raise NotImplementedError


landing_n, no_jump_n, nearer_n = prediction()
few = range(1, 30)
true_landing = next(n for n in few if shrinking(linear, euler_step, n)[-1].abs() < 1e-9)
true_no_jump = next(n for n in few if (shrinking(ve, euler_step, n) >= 0).all())
true_nearer = next(n for n in few if (shrinking(ve, heun_step, n).abs() < 1).all())
check("exercise 4: error of your first number", abs(landing_n - true_landing), below=0.5)
check("exercise 4: error of your second number", abs(no_jump_n - true_no_jump), below=0.5)
check("exercise 4: error of your third number", abs(nearer_n - true_nearer), below=0.5)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Take $v$ from $m$ in the table of step 4. On VE, what is $\dot\sigma_t/\sigma_t$ when $\sigma_t$ grows geometrically
# by a factor of 1000? Then it is the constant $\lambda$ of *Why higher orders fail first*.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# On the linear path $v=(a-a_0)/t$ is constant along a line, so one step lands. On VE $\lambda=\log1000=6.9$ and
# $y=6.9/n$. Euler's factor $1-y$ is not negative from $n=7$ on. Heun's $1-y+\frac12y^2$ is always positive, and below 1
# when $y<2$: $n\ge4$.
#
# ```python
# def prediction():
#     return 1, 7, 4
# ```
#
# </details>

# %% [markdown]
# ### 5. Solve the stiff part exactly · ●●○ · 20 min
#
# Freeze the posterior mean instead of the velocity. If the data point were $m$, the noise would be
# $\hat\varepsilon=(a-\mu_tm)/\sigma_t$, and at time $r$ the point would be $\mu_rm+\sigma_r\hat\varepsilon$. A
# solver that jumps there is known as DDIM (2010.02502). Write it for any path: `posterior_mean` takes `(a, t)`, and
# `times` falls from 1 to 0.
#
# On the linear path it *is* Euler's step; for a single data point it is exact however long the step; and on the tight
# blobs, on VP and with 8 calls, it beats Euler and Heun.


# %% tags=["exercise", "raises-exception"]
def ddim_solve(path, posterior_mean, a, times):
    raise NotImplementedError


on_linear = ddim_solve(linear, partial(blobs.posterior_mean, path=linear), starts, even)
linear_8 = solve(v_linear, starts, steps=8, step=euler_step)
check(
    "exercise 5: DDIM against Euler on the linear path", largest(on_linear - linear_8), below=1e-9
)

jumped = ddim_solve(vp, partial(only_point.posterior_mean, path=vp), starts, doubles(1.0, 0.4, 0.0))
check(
    "exercise 5: two steps to a single data point", largest(jumped - only_point.means), below=1e-9
)

tight_judge = ode.reference_solve(velocity_on(vp, tight), starts)
by_ddim = apart(ddim_solve(vp, partial(tight.posterior_mean, path=vp), starts, even), tight_judge)
for name, n in (("Euler", 8), ("Heun", 4)):
    other = solve(velocity_on(vp, tight), starts, steps=n, step=solvers[name][0])
    off = by_ddim / apart(other, tight_judge)
    check(f"exercise 5: error of DDIM over that of {name}, 8 calls on VP", off, below=0.8)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Take the loop of `walk`, and in it nothing but `path.mu`, `path.sigma` and the two formulas of the task. On the
# linear path, put $\mu_r=1-r$, $\sigma_r=r$ in and compare with $a+(r-t)\,(a-m)/t$.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# In the coordinates $b,\rho$ of step 5 a DDIM step is Euler's, $b_r=b_t+(\rho_r-\rho_t)\,\hat\varepsilon$, on every
# path. So Euler on the linear path is DDIM on any path, at the times of equal $\rho$: one more reason why linear
# paths are pleasant.
#
# ```python
# def ddim_solve(path, posterior_mean, a, times):
#     for t, r in pairwise(times):
#         m = posterior_mean(a, column(a, t.item()))
#         eps = (a - path.mu(t) * m) / path.sigma(t)
#         a = path.mu(r) * m + path.sigma(r) * eps
#     return a
# ```
#
# </details>

# %% [markdown]
# ### 6. Entropy without any ODE · ●●● · 30 min
#
# The entropy of a density is $H_t=-E[\log p_t(a_t)]$. Derive how fast it changes along the flow, and from that a
# formula for $H_0$ that needs neither a flow line nor a density: only data points $a_0$, noise, random times and the
# divergence of $v$. Write it for the linear path, where $H_1=\log(2\pi e)$ in two dimensions. `a0` is `(n, 2)`.
# Spread the times evenly, one in each of $n$ equal slots: then the mean of 4000 is uncertain by about 0.03.
#
# The second check hands you a *false* velocity, twice the right one: report twice the change of entropy.


# %% tags=["exercise", "raises-exception"]
def entropy_by_divergence(velocity, a0, generator):
    raise NotImplementedError


wide_cells, side = mesh(200, reach=4.5)
log_p0 = blobs.log_prob(wide_cells)
true_entropy = -(side**2 * log_p0.exp() * log_p0).sum()
data_4000 = blobs.sample(4000, rng(13))
estimate = entropy_by_divergence(v_linear, data_4000, rng(14))
check("exercise 6: error of the entropy", abs(estimate - true_entropy), below=0.1)
twice_v = entropy_by_divergence(lambda a, t: 2 * v_linear(a, t), data_4000, rng(14))
wanted = math.log(2 * math.pi * math.e) + 2 * (true_entropy - math.log(2 * math.pi * math.e))
check("exercise 6: the same for the false velocity", abs(twice_v - wanted), below=0.2)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Take the mean of the equation of step 8 over all lines. The mean over lines at time $t$ is a mean over $p_t$, and
# samples of $p_t$ come from the path for free.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# $\dot H_t=E[\nabla\!\cdot v(a_t,t)]$, so $H_0=H_1-\int_0^1E[\nabla\!\cdot v(a_t,t)]\,dt$. A mean over random
# times and pairs estimates the integral. MFPO (2604.14698) builds its entropy bonus from divergences, too.
#
# ```python
# def entropy_by_divergence(velocity, a0, generator):
#     n = len(a0)
#     t = (torch.arange(n) + torch.rand(n, generator=generator)).double()[:, None] / n
#     eps = torch.randn(n, 2, generator=generator, dtype=torch.float64)
#     growth = divergence(velocity, linear.noise(a0, eps, t), t).mean()
#     return math.log(2 * math.pi * math.e) - growth
# ```
#
# </details>

# %% [markdown]
# ## Summary
#
# * Densities move by $\partial_tp_t=-\nabla\!\cdot(p_t\,v)$. A deterministic flow with the path's mean velocity has the
#   path's densities.
# * Noise is a flow along minus the score. So $v=f_ta-\frac12g_t^2s$, and any amount of noise may be swapped for score.
# * On every path $a=\mu m+\sigma E[\varepsilon]$, $E[\varepsilon]=-\sigma s$, $v=\dot\mu m+\dot\sigma E[\varepsilon]$.
#   Linear: $v=(a-m)/t=-(a+t\,s)/(1-t)$. VP: $v=-\frac12\beta(a+s)$.
# * The paths are one flow in the coordinates $a/\mu$ and $\rho=\sigma/\mu$.
# * Near $t=0$ use the score, near $t=1$ the posterior mean. What the start misses, the samples miss.
# * Orders 1, 2, 4 hold for small steps. At few calls, or a stiff end, Euler can win.
# * $\frac{d}{dt}\log p_t(a_t)=-\nabla\!\cdot v$ gives exact likelihoods. Probes must be independent of the noise.
# * The ODE carries errors of the score along. The SDE damps early ones and magnifies the last.

# %% [markdown]
# ## References
#
# * Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole: *Score-Based Generative Modeling through Stochastic
#   Differential Equations*, [2011.13456](https://arxiv.org/abs/2011.13456).
# * Maoutsa, Reich, Opper: *Interacting Particle Solutions of Fokker-Planck Equations Through Gradient-Log-Density
#   Estimation*, [2006.00702](https://arxiv.org/abs/2006.00702).
# * Albergo, Boffi, Vanden-Eijnden: *Stochastic Interpolants*, [2303.08797](https://arxiv.org/abs/2303.08797).
# * Karras, Aittala, Aila, Laine: *Elucidating the Design Space of Diffusion-Based Generative Models*,
#   [2206.00364](https://arxiv.org/abs/2206.00364).
# * Kingma, Salimans, Poole, Ho: *Variational Diffusion Models*, [2107.00630](https://arxiv.org/abs/2107.00630).
# * Song, Meng, Ermon: *Denoising Diffusion Implicit Models*, [2010.02502](https://arxiv.org/abs/2010.02502), and
#   Lu and others: *DPM-Solver*, [2206.00927](https://arxiv.org/abs/2206.00927). Exercise 5.
# * Chen and others: *Neural Ordinary Differential Equations*, [1806.07366](https://arxiv.org/abs/1806.07366), and
#   Grathwohl and others: *FFJORD*, [1810.01367](https://arxiv.org/abs/1810.01367). Likelihoods along an ODE.
# * Anderson: *Reverse-time diffusion equation models*, Stochastic Processes and their Applications 12 (1982).
#
# ---
#
# Previous: [04 · A score without samples](04_score_without_samples.ipynb). Next:
# [06 · MeanFlow from a Q-function](06_meanflow_from_q.ipynb).
