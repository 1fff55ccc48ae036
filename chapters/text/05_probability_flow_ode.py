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
# **What you will do.** You turn a score into a velocity, for three noising paths at once, and check the equations
# behind it on a grid. You find that the three paths are one flow in different clothes. Then you build three
# solvers, measure their order, let one of them compute exact likelihoods, and break the whole thing in five ways.
#
# **What you will learn.** Why a deterministic equation can have the same distributions as a random one. Which
# formula to use near $t=0$ and which near $t=1$. What a solver's order is worth when you can afford eight network
# calls. When noise helps.
#
# **What you need.** Calculus (divergence, integration by parts), a little probability and PyTorch. The recap
# below holds what is used of the earlier chapters.
#
# **Time and hardware.** ≈ 20 s on one CPU core. No training, no GPU.
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
# * **linear**: $\mu_t=1-t$, $\sigma_t=t$, the path of chapters 01 and 02;
# * **VP**, variance preserving: $\mu_t=\exp\big(-\frac12\int_0^t\beta_\tau d\tau\big)$ and $\sigma_t^2=1-\mu_t^2$,
#   with a rate $\beta_t$ that rises linearly from 0.1 to 20. A public reading of SOM uses this one;
# * **VE**, variance exploding: $\mu_t=1$, and $\sigma_t$ grows geometrically from 0.01 to 10.
#
# **Three functions** describe where $a_t$ is and where it goes. The *score* $s(a,t)=\nabla_a\log p_t(a)$ points
# uphill in log density. The *posterior mean* $m(a,t)=E[a_0\mid a_t=a]$ is the best guess of the data point. The
# *velocity* $v(a,t)=E[\dot\mu_t a_0+\dot\sigma_t\varepsilon\mid a_t=a]$ is the mean speed of the pairs that pass
# through $a$ (a dot is a derivative in $t$).
#
# **Where we stand.** Chapters 03 and 04 went from a critic to a score, or to a posterior mean. Chapter 02 trains
# a one-step sampler, but asks for a velocity. This chapter is the bridge. The equation $\dot a=v(a,t)$, with $v$
# made from a score, is called the **probability-flow ODE**.
#
# ### The picture
#
# There are two ways to walk from noise to data once the score is known. One walk is smooth: every point follows
# the velocity. The other walk is random: at each step it takes fresh noise, and pays for it with an extra push
# along the score. Here are both, on a line instead of a plane, so that time can have an axis of its own. The
# recipe in `walk_back`, with its rates $f_t$ and $g_t$, is derived in step 2. Skip it for now; `noise=0` is the
# smooth walk, `noise=1` the random one.

# %%
import math
from functools import partial
from itertools import pairwise

import numpy as np
import ot
import torch
from matplotlib.colors import LinearSegmentedColormap
from scipy.stats import kstest

from som_lite.flow import ode
from som_lite.flow.densities import GaussianMixture, three_modes
from som_lite.flow.paths import VE, VP, Linear, Path
from som_lite.view import plots
from som_lite.view.explorers import schedule_explorer
from som_lite.view.notebook import check, listing, show
from som_lite.view.style import BACKDROP, COLOURS, LINES, MARKERS, figure, plane

torch.set_num_threads(1)  # small tensors: more threads cost more than they bring

linear, vp, ve = Linear(), VP(), VE()
paths = {"linear": linear, "VP": vp, "VE": ve}


def drift_rate(path, t):
    """f_t: the deterministic part of the noising is f_t a."""
    return path.dmu(t) / path.mu(t)


def noise_rate(path, t):
    """g_t squared: the variance that the noising adds per unit of time."""
    return 2 * (path.sigma_dsigma(t) - path.sigma(t) ** 2 * path.dmu(t) / path.mu(t))


def walk_back(score, path, a, times, noise, generator):
    """All points of a walk down the times; noise = 1 is as much as the noising itself has."""
    points = [a]
    for now, then in pairwise(times):
        t, h = now.expand_as(a[:, :1]), now - then
        s, g2 = score(a, t), noise_rate(path, t)
        v = drift_rate(path, t) * a - g2 / 2 * s
        kick = (h * g2).sqrt() * torch.randn(a.shape, generator=generator, dtype=a.dtype)
        a = a - h * v + noise**2 * h * g2 / 2 * s + noise * kick
        points.append(a)
    return torch.stack(points)


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


hills = GaussianMixture(
    doubles([-1.6], [0.3], [1.9]), doubles(0.25, 0.4, 0.2), doubles(0.4, 0.35, 0.25)
)
generator = torch.Generator().manual_seed(0)
start = torch.randn(4000, 1, generator=generator, dtype=torch.float64)
times = torch.linspace(1, 0, 401, dtype=torch.float64)
walks = {
    noise: walk_back(partial(hills.noised_score, path=vp), vp, start, times, noise, generator)
    for noise in (0.0, 1.0)
}

# %%
height = torch.linspace(-3, 3, 200, dtype=torch.float64)[:, None]
columns = times[::4].flip(0)
shade = torch.stack([hills.noised(vp, t.item()).log_prob(height).exp() for t in columns], 1)
shade = shade / shade.max(0).values
shown = start[:, 0].argsort()[200::450]  # nine walkers, from the lowest start to the highest
fig, axes = figure(8.4, 3.9, ncols=2)
titles = ("no noise: $\\dot a=v(a,t)$", "fresh noise, and twice the score")
for ax, walk, title in zip(axes, walks.values(), titles, strict=True):
    ax.contourf(columns, height[:, 0], shade, levels=np.linspace(0.1, 1, 7), cmap=BACKDROP)
    for k in shown:
        ax.plot(times, walk[:, k, 0], color=COLOURS["flow"], linewidth=1.0)
    ax.set(xlim=(0, 1), ylim=(-3, 3), xlabel="time $t$ (0 data, 1 noise)", title=title)
axes[0].set_ylabel("$a$")
show(
    fig,
    "Two panels of the same pale blue density over time and position: one hill at t = 1 on the "
    "right splits into three at t = 0 on the left. Over it nine orange walks from right to left. "
    "Left panel: smooth curves that never cross. Right panel: ragged curves that cross each other "
    "and settle on the hills near t = 0.",
)

# %% [markdown]
# **What you should see.** Read both panels from right to left, as a sampler walks. Blue is the density $p_t$ at
# each time (scaled to its greatest value at that time): one hill of noise that splits into three hills of data.
# Left: smooth lines that never cross. Right: ragged ones that cross all the time. A single walker does quite
# different things in the two panels. The crowd does the same.
#
# "The same" is a claim about distributions, so we test it as one. The Kolmogorov-Smirnov distance is the largest
# gap between the share of walkers below a height and the exact share. For 4000 draws from the right distribution
# it exceeds 0.026 once in a hundred times; hence the bound.


# %%
def share_below(a, t):
    """The exact P(a_t < a)."""
    now = hills.noised(vp, t)
    z = (a[:, None] - now.means[:, 0].numpy()) / now.stds.numpy()
    return torch.special.ndtr(torch.from_numpy(z)).numpy() @ now.weights.numpy()


for noise, walk in walks.items():
    for k in (200, 320, 400):  # t = .5, .2, 0
        t = times[k].item()
        gap = kstest(walk[k, :, 0].numpy(), partial(share_below, t=t)).statistic
        check(f"noise {noise:g}, t = {t:.1f}: gap to the exact distribution", gap, below=0.026)

# %% [markdown]
# ## Derivation
#
# Steps 1 and 2 say when a motion has the densities $p_t$. Steps 3 and 4 turn scores into velocities. Step 5 shows
# that the paths are relatives, step 6 looks at their ends. Steps 7 and 8 prepare the code: solvers and
# likelihoods. All checks are on the three blobs of chapter 02, in 64-bit numbers; their noised density,
# score and velocity are known in closed form.

# %%
toy = three_modes()
fine = GaussianMixture(toy.means.double(), toy.stds.double(), toy.weights.double())


def velocity_on(path, target=fine):
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
# This is the **continuity equation**. The product $p_tv$ is the flow of mass, its divergence is what leaves a
# place, and nothing is made or lost on the way.
#
# Now the path. A pair $(a_0,\varepsilon)$ moves at $\dot\mu_ta_0+\dot\sigma_t\varepsilon$, so
# $\frac{d}{dt}E\,\varphi(a_t)=E[\nabla\varphi(a_t)\cdot(\dot\mu_ta_0+\dot\sigma_t\varepsilon)]$. Take the mean
# over all pairs through the same point first: it turns the bracket into $v(a_t,t)$. The densities of the path
# satisfy *the same equation*, with the marginal velocity as $v$.
#
# That is all that is needed. Two families of densities satisfy one equation and agree at one time; if $v$ is
# smooth, the equation has one solution, so they agree at all times. **A deterministic motion has the marginals of
# a random path, as soon as it moves at the path's mean velocity.** The lines differ. The crowd does not.
#
# The check: both sides on a grid of the plane. $\partial_tp_t$ by a central difference in $t$, the divergence by
# central differences in space. The error of those is of the order of the squared width of a cell. So we ask for more
# than a small residual: it must fall by a factor 4 when the cells are halved. And a test must be able to fail: with
# the sign of $v$ turned round, the residual is twice $\partial_tp_t$.


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
    late, early = (fine.noised(path, t + d).log_prob(a).exp() for d in (step, -step))
    return (late - early) / (2 * step)


def continuity_residual(path, t, cells, sign=1):
    a, width = mesh(cells)
    p = fine.noised(path, t).log_prob(a).exp()
    change = dp_dt(path, a, t)
    flux = p[..., None] * fine.velocity(a, column(a, t), path)
    wrong = change[1:-1, 1:-1] + sign * div_on_grid(flux, width)
    return (wrong.abs().max() / change.abs().max()).item()


for name, path in paths.items():
    coarse, half = (continuity_residual(path, 0.3, cells) for cells in (120, 240))
    check(f"{name}: residual of the continuity equation", half, below=0.01)
    check(f"{name}: it falls by four with half the cell", coarse / half, above=3.5, below=4.5)
    check(f"{name}: with the wrong sign", continuity_residual(path, 0.3, 120, sign=-1), above=1.9)

# %% [markdown]
# And the mean of a function, $\varphi=\sin x\cos y$, by sums over the grid: the speed of its mean against the mean
# of $\nabla\varphi\cdot v$. (A sum over such a grid is very accurate for a function that has died down at its
# border.)

# %%
a, width = mesh(200, reach=6.0)
x, y = a.unbind(-1)
t = 0.3
gradient = torch.stack([x.cos() * y.cos(), -x.sin() * y.sin()], -1)
p = fine.noised(vp, t).log_prob(a).exp()
speed_of_mean = width**2 * (x.sin() * y.cos() * dp_dt(vp, a, t)).sum()
mean_of_speed = width**2 * (p * (gradient * fine.velocity(a, column(a, t), vp)).sum(-1)).sum()
print(f"d/dt E phi = {speed_of_mean:.6f},  E[grad phi . v] = {mean_of_speed:.6f}")
check("step 1: difference of the two", abs(speed_of_mean - mean_of_speed), below=1e-6)

# %%
fig, ax = figure(5.4, 4.4)
plane(ax)
a = plots.grid(ax, 120).double()
change = dp_dt(vp, a, t).numpy()
top = np.abs(change).max()
tones = [COLOURS["noise"], "white", COLOURS["data"]]
grey_to_blue = LinearSegmentedColormap.from_list("", tones, N=65)
square = {"extent": (-3, 3, -3, 3), "origin": "lower"}
image = ax.imshow(change, cmap=grey_to_blue, vmin=-top, vmax=top, **square)
fig.colorbar(image, ax=ax, label="$\\partial_t p_t$")
coarse = plots.grid(ax, 16).double()
mass = fine.noised(vp, t).log_prob(coarse).exp()[..., None]
plots.field(ax, mass * fine.velocity(coarse, column(coarse, t), vp), 16, "velocity")
show(
    fig,
    "The rate of change of the density at t = 0.3 on the VP path: grey, falling, in three spots "
    "where the blobs are, and blue, rising, in between. Orange arrows of the flow of mass lead "
    "out of the grey spots into the blue region.",
)

# %% [markdown]
# **What you should see.** The equation with your own eyes. Orange arrows are the flow of mass $p_tv$ at $t=0.3$ on
# the VP path. They start in the grey spots, where the density is falling, and end in the blue region, where it
# is rising. ($v$ runs from data to noise. A sampler goes against the arrows.)
#
# ### Step 2: noise for score
#
# Diffusion models write the noising as a *stochastic differential equation* (SDE): in a short time $h$,
#
# $$a_{t+h}=a_t+h\,f_ta_t+g_t\sqrt h\;\xi,\qquad \xi\ \text{standard normal}.$$
#
# The drift $f_ta$ shrinks, the noise of size $g_t\sqrt h$ spreads. (Why a root? Variances of independent kicks
# add. So $n$ kicks in a fixed time must have a variance of $1/n$ each.) What does this do to a mean? Expand
# $\varphi$ to second order. The kick has mean zero, so its first-order term drops out; its second-order term
# leaves $\frac12g_t^2h\,\Delta\varphi$, with the Laplacian $\Delta=\nabla\cdot\nabla$. Integrate by parts, twice
# for that term:
#
# $$\partial_tp_t=-\nabla\!\cdot(f_ta\,p_t)+\tfrac12g_t^2\,\Delta p_t .$$
#
# This is the **Fokker-Planck equation**. The decisive line comes now. Since $\nabla p=p\,\nabla\log p=p\,s$,
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
# and $\dot a=v$ is the **probability-flow ODE** of the SDE (Song et al., 2011.13456, section 4.3). Mind the
# $\frac12$: it comes from the $\frac12$ in the second-order term, and it is the most forgotten number of the
# trade.
#
# **The exchange works for any amount.** A drift $\frac12\eta^2s$ together with noise of size $\eta$ changes no
# density: by the same two lines, $-\nabla\!\cdot(p\,\frac12\eta^2s)+\frac12\eta^2\Delta p=0$. (This is Langevin
# dynamics, chapter 03.) So it may be added to the ODE, in either direction of time, for any $\eta_t\ge0$.
# Backwards, from noise to data:
#
# $$a_{t-h}=a_t-h\,v+\tfrac12h\,\eta_t^2\,s+\eta_t\sqrt h\;\xi .$$
#
# With $\eta=0$ this is the ODE. With $\eta_t=g_t$ the two terms with $s$ add up to $h\,g_t^2s$, and it is the
# reverse SDE of diffusion models (Anderson, 1982). `walk_back` above is this line.
#
# Which $f$ and $g$ belong to a path? Given $a_0$, the mean of $a_t$ is $\mu_ta_0$, so $\dot\mu=f\mu$. The variance
# $\sigma^2$ is scaled by the drift and fed by the noise: $\frac{d}{dt}\sigma^2=2f\sigma^2+g^2$. Hence
#
# $$f_t=\frac{\dot\mu_t}{\mu_t},\qquad g_t^2=2\sigma_t\dot\sigma_t-2\frac{\dot\mu_t}{\mu_t}\sigma_t^2 .$$
#
# The check is on the grid again, for all three paths. The 240 cells a side leave errors of about a percent where
# the density bends most. Then the variance, which the SDE must bring to $\sigma_t^2$: we let 20 000 points start
# in $a_0=0$ (on VE with the noise it has at $t=0$) and take 200 steps. A variance from so many points is uncertain
# by 1 % (one standard deviation, relative), and the steps add about as much again.


# %%
def laplacian_on_grid(p, width):
    x_part = p[2:, 1:-1] + p[:-2, 1:-1] - 2 * p[1:-1, 1:-1]
    y_part = p[1:-1, 2:] + p[1:-1, :-2] - 2 * p[1:-1, 1:-1]
    return (x_part + y_part) / width**2


def relative(wrong, size):
    return wrong.abs().max() / size.abs().max()


a, width = mesh(240)
for name, path in paths.items():
    p = fine.noised(path, t).log_prob(a).exp()
    f, g2 = drift_rate(path, column(a, t))[0, 0], noise_rate(path, column(a, t))[0, 0]
    drift, spread = div_on_grid(f * a * p[..., None], width), g2 / 2 * laplacian_on_grid(p, width)
    s = fine.noised_score(a, column(a, t), path)
    change = dp_dt(path, a, t)[1:-1, 1:-1]
    by_score = g2 / 2 * div_on_grid(p[..., None] * s, width)
    check(f"{name}: Fokker-Planck residual", relative(change + drift - spread, change), below=0.02)
    check(f"{name}: noise against score", relative(spread - by_score, spread), below=0.02)
    v = f * a - g2 / 2 * s
    error = largest(v - velocity_on(path)(a, column(a, t)))
    check(f"{name}: f a - g²/2 s against v", error, below=1e-8)


# %%
def normals(count, generator):
    return torch.randn(count, 1, generator=generator, dtype=torch.float64)


generator = torch.Generator().manual_seed(1)
end, h = 0.8, 0.8 / 200  # not up to t = 1, where g of the linear path is infinite
for name, path in paths.items():
    point = path.sigma(0.0) * normals(20_000, generator)
    for i in range(200):
        now = doubles((i + 0.5) * h)  # the rates at the middle of the step
        kick = (h * noise_rate(path, now)).sqrt() * normals(20_000, generator)
        point = point + h * drift_rate(path, now) * point + kick
    ratio = point.var() / path.sigma(end) ** 2
    check(f"{name}: variance of the SDE over sigma²", ratio, above=0.95, below=1.05)

# %% [markdown]
# ### Step 3: everything from everything
#
# Score, posterior mean and velocity hold the same information. Two facts tie them together. The first is the
# definition of $a_t$, averaged over all pairs through $a$:
#
# $$a=\mu\,m+\sigma\,E[\varepsilon\mid a_t=a].$$
#
# The second is Tweedie's formula. $p_t$ is a mixture of normals with means $\mu a_0$ and standard deviation
# $\sigma$, so its log-gradient is the mean of $-(a-\mu a_0)/\sigma^2=-\varepsilon/\sigma$ over the pairs through
# $a$:
#
# $$E[\varepsilon\mid a_t=a]=-\sigma\,s(a,t).$$
#
# And the velocity is $v=\dot\mu\,m+\dot\sigma\,E[\varepsilon\mid a_t=a]$. The rest is school algebra. Posterior
# mean from score, and velocity from either:
#
# $$m=\frac{a+\sigma^2s}{\mu},\qquad
# v=\frac{\dot\mu}{\mu}\,a-\Big(\sigma\dot\sigma-\frac{\dot\mu}{\mu}\sigma^2\Big)\,s,\qquad
# v=\dot\mu\,m+\frac{\dot\sigma}{\sigma}\,(a-\mu\,m).$$
#
# The one in the middle is $f_ta-\frac12g_t^2s$: step 2 once more, found without any stochastic calculus. Reading
# them backwards gives $s$ and $m$ from $v$.
#
# The check goes back to the definitions. For six points $a$ we sum over a fine grid of $a_0$, weighted by
# $p_0(a_0)\,\mathcal N(a;\mu a_0,\sigma^2I)$: these are the conditional means, without any of the formulas above.
# The score we take by automatic differentiation of $\log p_t$.

# %%
a0, _ = mesh(360, reach=4.5)
a0 = a0.reshape(-1, 2)
points = doubles([0.3, -0.4], [-1.0, 0.5], [1.2, 0.9], [-0.6, -1.5], [0.1, 1.4], [2.0, -0.3])
print("at a = (0.3, -0.4), t = 0.5, first components")
for name, path in paths.items():
    t = column(points, 0.5)
    mu, sigma, dmu, dsigma = (c(0.5) for c in (path.mu, path.sigma, path.dmu, path.dsigma))
    eps = (points[:, None] - mu * a0) / sigma  # (6, n, 2): the noise that leads from a_0 to a
    weight = (fine.log_prob(a0) - 0.5 * eps.square().sum(-1)).softmax(-1)[..., None]
    m, mean_eps = (weight * a0).sum(1), (weight * eps).sum(1)
    v = dmu * m + dsigma * mean_eps
    s = torch.func.grad(lambda x: fine.noised(path, 0.5).log_prob(x).sum())(points)  # noqa: B023
    print(f"{name:<8} s = {s[0, 0]:9.5f}   m = {m[0, 0]:9.5f}   v = {v[0, 0]:9.5f}")
    check(f"{name}: Tweedie", largest(mean_eps + sigma * s), below=1e-6)
    for what, got, wanted in (
        ("m from s", path.mean_from_score(s, points, t), m),
        ("v from s", path.velocity_from_score(s, points, t), v),
        ("v from m", path.velocity_from_mean(m, points, t), v),
        ("s from m", path.score_from_mean(m, points, t), s),
        ("s from v", path.score_from_velocity(v, points, t), s),
        ("m from v", path.mean_from_velocity(v, points, t), m),
    ):
        check(f"{name}: {what}", largest(got - wanted), below=1e-6)

# %% [markdown]
# ### Step 4: the three paths
#
# Put $\mu$ and $\sigma$ of each path in. For VP, $\mu^2+\sigma^2=1$ makes $\sigma\dot\sigma=-\mu\dot\mu$, and
# everything collapses to $\beta$.
#
# | path | $f_t$ | $\frac12g_t^2$ | $v$ from the score | $v$ from the posterior mean |
# |---|---|---|---|---|
# | VP | $-\frac12\beta_t$ | $\frac12\beta_t$ | $-\frac12\beta_t\,(a+s)$ | $-\dfrac{\beta_t\,\mu_t}{2\sigma_t^2}\,(m-\mu_t a)$ |
# | VE | $0$ | $\sigma_t\dot\sigma_t$ | $-\sigma_t\dot\sigma_t\,s$ | $\dfrac{\dot\sigma_t}{\sigma_t}\,(a-m)$ |
# | linear | $-\dfrac1{1-t}$ | $\dfrac t{1-t}$ | $-\dfrac{a+t\,s}{1-t}$ | $\dfrac{a-m}t$ |

# %%
t = torch.linspace(0.05, 0.95, 6, dtype=torch.float64)[:, None]  # a time for each of the six points
beta, mu, sigma = vp.beta(t), vp.mu(t), vp.sigma(t)
growth = ve.sigma(t) * ve.dsigma(t)
table = {  # f, g²/2, v from s, v from m
    "VP": (-beta / 2, beta / 2, lambda s: -beta / 2 * (points + s),
           lambda m: -beta * mu / (2 * sigma**2) * (m - mu * points)),
    "VE": (0 * t, growth, lambda s: -growth * s,
           lambda m: ve.dsigma(t) / ve.sigma(t) * (points - m)),
    "linear": (-1 / (1 - t), t / (1 - t), lambda s: -(points + t * s) / (1 - t),
               lambda m: (points - m) / t),
}  # fmt: skip
for name, (f, half_g2, from_score, from_mean) in table.items():
    path = paths[name]
    s, m = (known(points, t, path) for known in (fine.noised_score, fine.posterior_mean))
    v = fine.velocity(points, t, path)
    errors = (
        f - drift_rate(path, t),
        half_g2 - noise_rate(path, t) / 2,
        from_score(s) - v,
        from_mean(m) - v,
    )
    check(f"step 4: the row of {name}", max(largest(error) for error in errors), below=1e-8)

# %% [markdown]
# ### Step 5: one flow in three clothes
#
# The paths look like three methods. They are one. Divide the point by $\mu_t$, and call the result $b$ and the
# noise-to-signal ratio $\rho$:
#
# $$b=\frac{a_t}{\mu_t}=a_0+\rho\,\varepsilon,\qquad \rho_t=\frac{\sigma_t}{\mu_t}.$$
#
# Nothing on the right remembers the path: it is data plus noise of size $\rho$. Its flow is
# $\dfrac{db}{d\rho}=E[\varepsilon\mid b,\rho]$, a fixed field. A path only says *when* a given $\rho$ is reached
# and in *which units* the point is written.
#
# The check: all three paths at the time of $\rho=1$, at the same points $b$. From the chain rule,
# $\frac{db}{d\rho}=\frac{(v-f_ta)/\mu}{\dot\rho}$, and $\dot\rho=\frac12g_t^2/(\mu\sigma)$ by step 2.


# %%
def ratio(path, t):
    return path.sigma(t) / path.mu(t)


def vp_time(rho):
    rise = vp.beta_max - vp.beta_min
    return (-vp.beta_min + (vp.beta_min**2 + 2 * rise * torch.log1p(rho**2)).sqrt()) / rise


when = {"linear": 0.5, "VP": vp_time(doubles(1.0)).item(), "VE": math.log(100) / math.log(1000)}
b_velocity = {}
for name, path in paths.items():
    check(
        f"{name}: rho at t = {when[name]:.4f}, minus 1",
        abs(ratio(path, when[name]) - 1),
        below=1e-9,
    )
    t, mu, sigma = column(points, when[name]), path.mu(when[name]), path.sigma(when[name])
    rho_speed = noise_rate(path, t) / (2 * mu * sigma)
    a = mu * points  # the same b for all
    b_velocity[name] = (velocity_on(path)(a, t) - drift_rate(path, t) * a) / mu / rho_speed
check("db/drho, VP against linear", largest(b_velocity["VP"] - b_velocity["linear"]), below=1e-9)
check("db/drho, VE against linear", largest(b_velocity["VE"] - b_velocity["linear"]), below=1e-9)

# %% [markdown]
# So a flow line of the VP path is a flow line of the linear path: rescale the point by $\mu^{lin}/\mu^{VP}$, and
# read it at the time at which the linear path has the same $\rho$. These times can be solved for:
#
# $$t^{lin}=\frac\rho{1+\rho},\qquad
# \beta_{\min}t^{VP}+\tfrac12(\beta_{\max}-\beta_{\min})\,(t^{VP})^2=\log(1+\rho^2).$$
#
# (`vp_time` above is the second one, solved.) The check: 100 VP lines from $t=1$, by 200 fine steps. On the linear
# path we start at the rescaled points, at the time of equal $\rho$, integrate with the linear path's own velocity,
# and compare on the way and at the end. (`ode.solve` and its steps are the package's; you write them yourself
# further down.)

# %%
exact_walk = partial(ode.solve, steps=200, step=ode.rk4_step)
noise = torch.randn(100, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
vp_lines = exact_walk(velocity_on(vp), noise, trajectory=True)
check("the VP time of a given ratio", abs(vp_time(ratio(vp, 0.37)) - 0.37), below=1e-9)

first = ratio(vp, 1.0) / (1 + ratio(vp, 1.0))  # linear time of the VP start
moved = noise * linear.mu(first) / vp.mu(1.0)
print(f"VP starts at rho = {ratio(vp, 1.0):.4f}, which the linear path passes at t = {first:.6f}")
for k in (60, 100, 160, 200):
    t = 1 - k / 200
    last = ratio(vp, t) / (1 + ratio(vp, t))
    on_linear = exact_walk(velocity_on(linear), moved, first.item(), last.item())
    same = on_linear * vp.mu(t) / linear.mu(last)
    check(
        f"VP at t = {t:g} is linear at t = {last:.4f}: difference",
        largest(same - vp_lines[k]),
        below=1e-5,
    )

# %%
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
# **What you should see.** Three panels with lines of different shapes; VE needs a window ten times as wide. In the
# fourth, each point is divided by $\sqrt{\mu_t^2+\sigma_t^2}$. Since
# $a_t/\sqrt{\mu_t^2+\sigma_t^2}=b/\sqrt{1+\rho^2}$, nothing of the path is left but $\rho$; noise and data keep their
# size. Linear (thin, black), VP (orange) and VE (broad, pale) fall onto one another. What is left of VE's difference
# comes from its start: $\rho=10$ is not infinity.
#
# So the choice of a path is *not* a choice of where noise goes. It decides how a **solver** sees the line: how
# large the velocity is, and where on the line equal steps of $t$ fall. And it decides what a network has to learn.
#
# ### Step 6: the ends
#
# Most trouble lives at $t=0$ and $t=1$. Four facts.
#
# **0/0.** On the linear path, $(a-m)/t$ at $t\to0$ is a small difference divided by a small number, because $m\to
# a$; and $-(a+t\,s)/(1-t)$ at $t\to1$ is the same, because $s\to-a$. The limits exist:
#
# $$v(a,0)=-a,\qquad v(a,1)=a-E[a_0]\qquad\text{(linear)}.$$
#
# But 32-bit numbers do not get there. Rounding errors of about $10^{-7}$ are divided by $t$, or by $1-t$. Here are
# both formulas in 32 bits, with scores and posterior means as exact as 32 bits allow.

# %%
g = torch.Generator().manual_seed(3)
a0, eps = fine.sample(500, g), torch.randn(500, 2, generator=g, dtype=torch.float64)
t = column(a0, 1e-9)
check("v(a, 0) = -a", largest(velocity_on(linear)(a0, t) + a0), below=1e-6)
to_mean = eps - fine.weights @ fine.means
check("v(a, 1) = a - E[a_0]", largest(velocity_on(linear)(eps, 1 - t) - to_mean), below=1e-6)

from_score = linear.velocity_from_score(-eps.float(), eps.float(), torch.ones(500, 1))  # s = -a
check("share of NaN at t = 1, from s", from_score.isnan().float().mean(), above=0.99)
small = 1e-5
check(
    "VP: sigma over sqrt(beta_min t)",
    vp.sigma(small) / math.sqrt(0.1 * small),
    above=0.99,
    below=1.01,
)

gaps = np.logspace(-6, np.log10(0.5), 13)


def errors_in_32_bits(path, t):
    """Mean error of v from m and of v from s."""
    t = column(a0, t)
    a = path.noise(a0, eps, t)
    v, a32, t32 = fine.velocity(a, t, path), a.float(), t.float()
    from_mean = path.velocity_from_mean(toy.posterior_mean(a32, t32, path), a32, t32)
    from_score = path.velocity_from_score(toy.noised_score(a32, t32, path), a32, t32)
    return apart(from_mean.double(), v), apart(from_score.double(), v)


fig, axes = figure(8.4, 3.9, ncols=2)
near = {"near the data": (gaps, "$t$"), "near the noise": (1 - gaps, "$1-t$")}
ends = {}
for ax, (title, (when, label)) in zip(axes, near.items(), strict=True):
    ends[title] = np.array([errors_in_32_bits(linear, t) for t in when])
    for k, kind in enumerate(("data", "score")):
        ax.loglog(
            gaps,
            ends[title][:, k],
            color=COLOURS[kind],
            marker=MARKERS[kind],
            linestyle=LINES[kind],
        )
    ax.set(xlabel=label, title=title, ylim=(1e-8, 1))
axes[0].set_ylabel("mean error of $v$")
axes[0].text(3e-4, 3e-3, "from $m$", color=COLOURS["data"])
axes[0].text(2e-3, 1.3e-8, "from $s$", color="#a0527f")
axes[1].text(3e-4, 3e-3, "from $s$", color="#a0527f")
axes[1].text(2e-3, 2e-8, "from $m$", color=COLOURS["data"])
show(
    fig,
    "Error of the velocity in 32-bit numbers on logarithmic axes, linear path. Left, against t: "
    "the error from the posterior mean grows from 1e-7 to about 0.1 as t falls to 1e-6, that from "
    "the score stays at 1e-7. Right, against 1 - t: the reverse.",
)
check(
    "near the data: error from m over error from s, at t = 8e-5",
    ends["near the data"][4, 0] / ends["near the data"][4, 1],
    above=100,
)
check(
    "near the noise: error from s over error from m, at 1 - t = 8e-5",
    ends["near the noise"][4, 1] / ends["near the noise"][4, 0],
    above=100,
)

# %% [markdown]
# **What you should see.** Two lines that swap roles. (The teeth on the left are luck: at some times $1-t$ happens to
# be rounded well.) Near the data use the score, near the noise the posterior mean. At $t=1$ exactly the score's
# formula gives 0/0, a NaN.
#
# With *estimated* inputs the same factors act on much larger errors. An error $\delta$ of the posterior mean becomes
# $\delta/t$ in the velocity, one of the score becomes $\delta\,t/(1-t)$. This is why SOM in this book takes
# $v=(a-m)/t$, with times cut off a little above 0: its $m$ is bounded by the box, so the noise end is safe.
#
# **VP has a root at 0.** $\sigma_t\approx\sqrt{\beta_{\min}t}$ has an infinite slope at $t=0$, so a formula with
# $\dot\sigma$ fails there. The product $\sigma\dot\sigma$ is finite. The package stores that one.
#
# **VP does not end in noise,** and VE does not begin in data. VP has $\mu_1=0.0066$, a small rest of the data. A
# sampler starts in $\mathcal N(0,I)$ all the same. VE has $\mu_1=1$: its $p_1$ is the *data* blurred by
# $\sigma=10$, and one starts in $\mathcal N(0,100\,I)$. The difference between $p_1$ and where we start is the
# *prior mismatch*. We measure it by the total variation distance
#
# $$\mathrm{TV}(p,q)=\tfrac12\int|p-q|,$$
#
# the share of the mass that is in the wrong place. For the linear path it is zero.


# %%
def normal(std):
    """A centred normal on the plane, as a mixture of one."""
    return GaussianMixture(doubles([0.0, 0.0]), doubles(std), doubles(1.0))


def mismatch(path):
    sigma = path.sigma(1.0).item()
    a, width = mesh(300, reach=6 * max(sigma, 1.0))
    start, wanted = normal(sigma).log_prob(a).exp(), fine.noised(path, 1.0).log_prob(a).exp()
    return 0.5 * width**2 * (start - wanted).abs().sum().item()


short = VP(0.1, 5.0)
for name, path in {
    "linear": linear,
    "VP, beta up to 20": vp,
    "VP, beta up to 10": VP(0.1, 10.0),
    "VP, beta up to 5": short,
    "VE, sigma up to 10": ve,
    "VE, sigma up to 30": VE(0.01, 30.0),
}.items():
    print(f"{name:<20} mu_1 = {path.mu(1.0):8.5f}   mismatch {100 * mismatch(path):8.5f} %")
check("mismatch of the linear path", mismatch(linear), below=1e-7)  # rounding

# %% [markdown]
# The flow does not repair it. Both densities, $p_1$ and the one we start in, are moved by the same map. A map that
# can be undone carries a misplaced share of mass along as it is: **the total variation distance at the start is
# that of the samples.** We come back to this in the checks, with exact likelihoods. Here the standard VP misplaces
# less than a tenth of a percent; with a $\beta$ that stops at 5 it is 6 %.
#
# **VE's start is large.** Points begin about ten units out and come in geometrically. Started with unit variance
# instead, they come in just the same, from a tenth of the distance; see *What can go wrong*.
#
# ### Step 7: three solvers
#
# A solver takes a step $h$ (negative for a sampler). Taylor's theorem says where it should land:
#
# $$a_{t+h}=a_t+h\,v+\tfrac12h^2\,\dot v+O(h^3),\qquad \dot v=v\cdot\partial_av+\partial_tv .$$
#
# Here $\dot v$ is the change of $v$ *along the line*, a Jacobian-vector product as in chapter 02.
#
# * **Euler** keeps the first two terms: $a+h\,v$. One step errs by $\frac12h^2\dot v$. There are $1/|h|$ steps, so
#   the end is off by a multiple of $h$: order 1.
# * **Heun** looks again at the end of the Euler step and takes the mean of both velocities. Since the second one
#   is $v+h\,\dot v+O(h^2)$, the mean supplies exactly the missing $\frac12h^2\dot v$: order 2, two looks a step.
# * **RK4**, the classical Runge-Kutta method, looks four times, once at the start, twice in the middle, once at
#   the end, and weighs them 1, 2, 2, 1. If $v$ depended on $t$ alone this would be Simpson's rule. It matches
#   Taylor up to $h^4$: order 4, four looks a step.
#
# The check: the landing error of one Euler step, divided by $h^2$, against $\frac12\dot v$ from a JVP; and that a
# Heun step errs by $h^3$ (eight times less for half the step).

# %%
g = torch.Generator().manual_seed(4)
t = 0.3 + 0.5 * torch.rand(200, 1, generator=g, dtype=torch.float64)
a = linear.noise(fine.sample(200, g), torch.randn(200, 2, generator=g, dtype=torch.float64), t)
v = velocity_on(linear)
v_dot = torch.func.jvp(v, (a, t), (v(a, t), torch.ones_like(t)))[1]
h = -1e-4
landing = ode.solve(v, a, t, t + h, steps=1, step=ode.rk4_step)
check(
    "step 7: Euler's error over h²",
    largest((landing - (a + h * v(a, t))) / h**2 - v_dot / 2),
    below=0.02,
)

heun_errors = []
for h in (-2e-2, -1e-2):
    landing = ode.solve(v, a, t, t + h, steps=20, step=ode.rk4_step)
    one = ode.heun_step(v, a, t, torch.full_like(t, h))
    heun_errors.append(apart(one, landing))
check(
    "step 7: Heun's error, for half the step", heun_errors[0] / heun_errors[1], above=6.5, below=9.5
)

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
# This is the *instantaneous change of variables* (Chen et al., 1806.07366). The check moves points along their
# lines to $t\pm h$ and compares the difference quotient of $\log p_t$ with the divergence, itself by differences.

# %%
h = 1e-5
ahead, behind = (ode.solve(v, a, t, t + d, steps=1, step=ode.rk4_step) for d in (h, -h))


def log_p(a, t):
    """log p_t(a) on the linear path, with a time for each row."""
    return torch.stack(
        [fine.noised(linear, when.item()).log_prob(x) for x, when in zip(a, t, strict=True)]
    )


change = (log_p(ahead, t + h) - log_p(behind, t - h)) / (2 * h)
axes_of_plane = torch.eye(2, dtype=torch.float64)
by_differences = sum(((v(a + h * e, t) - v(a - h * e, t)) @ e) / (2 * h) for e in axes_of_plane)
check(
    "step 8: change of log p along the line against -div v",
    (change + by_differences).abs().max(),
    below=1e-4,
)

# %% [markdown]
# ## Code
#
# ### The conversions
#
# In the package a path is a small class. It gives $\mu$, $\dot\mu$, $\sigma$ and $\sigma\dot\sigma$; the
# conversions of step 3 are written once for all paths. Here are three of the six as they are installed. The
# letter $\gamma=\mu\,\sigma\dot\sigma-\dot\mu\,\sigma^2$ in the notes is the method `_g` (and the plain `g` of the
# docstrings). It is not $g_t$ but $\frac12g_t^2\mu_t$; the factor $\mu_t$ keeps it finite at $\mu=0$.

# %%
listing(
    Path.velocity_from_score,
    {
        "return": r"$v=(\dot\mu\,a-\gamma\,s)/\mu$. Infinite at $\mu=0$: not for $t=1$ on the linear "
        "path."
    },
)
listing(
    Path.velocity_from_mean,
    {
        "return": r"$v=\dot\mu\,m+\frac{\dot\sigma}{\sigma}(a-\mu m)$, with $\dot\sigma/\sigma$ "
        r"written as $\sigma\dot\sigma/\sigma^2$. Infinite at $\sigma=0$: not for $t=0$."
    },
)
listing(
    Path.score_from_velocity,
    {
        "return": "The first one solved for $s$. It serves when a network has learnt $v$ and a "
        "method asks for $s$."
    },
)

# %% [markdown]
# A new path therefore costs four short methods, and all conversions come with it. Here is the *cosine path* of
# image models, $\mu_t=\cos\frac{\pi t}2$, $\sigma_t=\sin\frac{\pi t}2$, with its velocity from the score against
# the closed form of the three blobs.


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


cosine = Cosine()
when = torch.linspace(0.05, 0.95, 6, dtype=torch.float64)[:, None]  # a time for each of the points
cosine_score = fine.noised_score(points, when, cosine)
by_package = cosine.velocity_from_score(cosine_score, points, when)
check("cosine path: v from s", largest(by_package - velocity_on(cosine)(points, when)), below=1e-8)

# %% [markdown]
# ### The solvers
#
# Three steps of one to five lines, and a loop. `dt` is the step $h$; times are columns, so that every row may have
# its own. (In the checks `v` is still the velocity on the linear path, from step 7.)


# %%
def euler_step(velocity, a, t, dt):
    return a + dt * velocity(a, t)


def heun_step(velocity, a, t, dt):
    v0 = velocity(a, t)
    v1 = velocity(a + dt * v0, t + dt)
    return a + dt * (v0 + v1) / 2


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


solvers = {"Euler": (euler_step, 1), "Heun": (heun_step, 2), "RK4": (rk4_step, 4)}  # calls per step
for name, (step, _) in solvers.items():
    seen = []
    end = solve(lambda a, t: seen.append(t) or v(a, t), noise, steps=8, step=step)  # noqa: B023
    check(
        f"{name}: distance to the package's",
        largest(end - ode.solve(v, noise, steps=8, step=step)),
        below=1e-12,
    )
    print(f"{name}: {len(seen)} network calls for 8 steps")

# %% [markdown]
# `solve` takes equal steps of $t$. For any other grid of times, the loop is three lines:


# %%
def walk(velocity, a, times, step):
    for t, r in pairwise(times):
        a = step(velocity, a, t.expand_as(a[..., :1]), (r - t).expand_as(a[..., :1]))
    return a


even = torch.linspace(1, 0, 9, dtype=torch.float64)
check(
    "walk on an even grid against solve",
    largest(walk(v, noise, even, heun_step) - solve(v, noise, steps=8)),
    below=1e-12,
)

# %% [markdown]
# ### The likelihood
#
# The divergence is the trace of the Jacobian. A JVP along the $i$-th axis gives the $i$-th column, of which we
# keep the $i$-th entry. That is one JVP per dimension: exact, and fine for the actions of a robot, which have a
# few to a few dozen dimensions. For images it is too dear. **Hutchinson's trick** needs one JVP in any dimension.
# For a random vector $z$ with independent entries of mean 0 and variance 1,
#
# $$E\,[z^\top J z]=\sum_{ij}J_{ij}\,E[z_iz_j]=\operatorname{tr}J ,$$
#
# so $z\cdot(Jz)$ is an unbiased estimate of the trace. With random signs its error consists of the off-diagonal
# entries of $J$ alone.
#
# The integral of the divergence rides along as one more coordinate of the point, under the same solver.


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
# In two dimensions there are four vectors of signs. The mean of the estimate over all four must be the trace.

# %%
exact_div = divergence(v, a, t)
check("divergence against differences", (exact_div - by_differences).abs().max(), below=1e-6)
signs = [doubles(i, j).expand_as(a) for i in (-1.0, 1.0) for j in (-1.0, 1.0)]
estimates = torch.stack([hutchinson_divergence(v, a, t, z) for z in signs])
check("Hutchinson, mean over all signs", (estimates.mean(0) - exact_div).abs().max(), below=1e-10)
print(f"mean size of the exact trace           {exact_div.abs().mean():.4f}")
print(f"mean size of the error of one estimate {(estimates[0] - exact_div).abs().mean():.4f}")

# %% [markdown]
# ## Checks
#
# ### The order, measured
#
# Theory gave the orders 1, 2 and 4. We measure them: 300 noise points, the exact velocity, and as a judge the
# adaptive solver `dopri5` of the library torchdiffeq, at a tolerance of $10^{-10}$. The error is the mean distance
# of the end points. On logarithmic axes, error against steps is a straight line, and minus its slope is the
# order. The slope is read off where steps are small; lines that bend sharply keep it a little under its limit,
# by up to 0.3.

# %%
noise = torch.randn(300, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
counts = [4, 8, 16, 32, 64, 128, 256]  # network calls
errors = {}
for name, path in paths.items():
    start = path.sigma(1.0) * noise
    judge = ode.reference_solve(velocity_on(path), start, tol=1e-10)
    for solver, (step, calls) in solvers.items():
        ends = [solve(velocity_on(path), start, steps=n // calls, step=step) for n in counts]
        errors[name, solver] = [apart(end, judge) for end in ends]

start, judge = noise, ode.reference_solve(velocity_on(linear), noise, tol=1e-10)
for solver, (step, order) in solvers.items():
    many = [48, 96, 192]  # steps
    off = [apart(solve(velocity_on(linear), noise, steps=n, step=step), judge) for n in many]
    slope = -np.polyfit(np.log(many), np.log(off), 1)[0]
    print(f"{solver:<6} measured order {slope:.5f}")
    check(f"{solver}: |order - {order}|", abs(slope - order), below=0.3)

# %%
tints = {"Euler": ("#f0b429", "^"), "Heun": ("#b87700", "o"), "RK4": ("#5c3b00", "D")}
fig, axes = figure(9.0, 3.9, ncols=3)
for ax, name in zip(axes, paths, strict=True):
    for solver, (tint, marker) in tints.items():
        ax.loglog(
            counts, errors[name, solver], color=tint, marker=marker, markersize=4, label=solver
        )
    ax.set(title=f"{name} path", xlabel="network calls", ylim=(1e-7, 40))
    ax.set_xticks([4, 16, 64, 256], ["4", "16", "64", "256"])
    ax.minorticks_off()
axes[0].set_ylabel("mean error of the end points")
axes[0].legend(frameon=False, loc="lower left")
show(
    fig,
    "Error against network calls from 4 to 256 on logarithmic axes, one panel per path. Euler "
    "falls with slope 1, Heun with slope 2, RK4 with slope 4. Linear: RK4 is ahead from 16 calls "
    "on. VP: Euler is best at 4 and 8 calls. VE: all errors above 1 at 4 calls; from 16 calls on "
    "RK4 is ahead.",
)
print("calls        4         8        16        32")
for (name, solver), off in errors.items():
    print(f"{name:<7}{solver:<6}" + "".join(f"{value:9.5f} " for value in off[:4]))

# %% [markdown]
# **What you should see.** Three slopes in each panel, 1, 2 and 4. But look at the left ends, where a policy that
# must answer quickly lives. On the VP path, Euler is the best of the three up to 8 calls. At 4 calls Heun has
# taken two steps and RK4 one, far beyond the range in which Taylor's theorem says anything. **The order is a
# promise about small steps.** On the linear path 8 calls of Heun do more than 32 of Euler. VE starts so far out that
# it needs 16 calls to get anywhere.
#
# What did you expect? Many readers expect the highest order to win always, and "more accurate per step" to mean
# "more accurate per network call". Measure at *your* number of calls.
#
# ### Where to put the steps
#
# The grid of times is free, too. A common choice puts more steps near the data: $t=\tau^2$ with even steps of
# $\tau$. We try it on the three blobs, and on the same blobs made ten times tighter, as the policy of a greedy
# agent would be.

# %%
tight = GaussianMixture(fine.means, 0.1 * fine.stds, fine.weights)
grids = {"even": torch.linspace(1, 0, 9, dtype=torch.float64)}
grids["squared"] = grids["even"] ** 2
print(f"Heun, 8 steps      {'three blobs':>22}{'ten times tighter':>24}")
print(" " * 18 + f"{'even':>12}{'squared':>12}" * 2)
gain = {}
for name, path in paths.items():
    row = f"{name:<18}"
    for target_name, target in (("blobs", fine), ("tight", tight)):
        field = velocity_on(path, target)
        start = path.sigma(1.0) * noise
        judge = ode.reference_solve(field, start)
        off = {
            kind: apart(walk(field, start, times, heun_step), judge)
            for kind, times in grids.items()
        }
        gain[name, target_name] = off["even"] / off["squared"]
        row += f"{off['even']:12.5f}{off['squared']:12.5f}"
    print(row)
check("VP, tight blobs: error of the even grid over the squared", gain["VP", "tight"], above=10)
check("linear, blobs: the same", gain["linear", "blobs"], below=1)
check("VE, blobs: the same", gain["VE", "blobs"], below=1)

# %% [markdown]
# No grid is best. Squared times save VP when the data is tight, because there everything happens near $t=0$; they
# help the linear path on tight data, and hurt it on broad data. VE's own $\sigma_t$ is already geometric, and
# squaring again starves its start. By step 5 all this is *one* question: at which ratios $\rho$ do the steps fall?
#
# ### The likelihood against the closed form
#
# For the three blobs $\log p_0$ is known. On the linear path, where the start is exact, 50 steps of RK4 should
# give it back to three digits or more, at 200 samples; a few of them lie where lines bend sharply. And like every
# density it must have mass 1 over the plane, here a sum over 60 × 60 cells.

# %%
samples = fine.sample(200, torch.Generator().manual_seed(6))
likelihood = log_likelihood(velocity_on(linear), normal(1.0).log_prob, samples)
worst = (likelihood - fine.log_prob(samples)).abs().max()
check("largest error of log p_0", worst, below=1e-3)

cells, width = mesh(60, reach=4.5)
on_cells = partial(log_likelihood, a=cells.reshape(-1, 2), steps=20)
mass = width**2 * on_cells(velocity_on(linear), normal(1.0).log_prob).exp().sum()
check("|mass - 1|", abs(mass - 1), below=1e-3)

# %% [markdown]
# Mass 1 alone proves little: *every* flow conserves mass, also a wrong one. So does a badly trained network. (It
# does prove that the divergence is the divergence of the velocity that moves the points.) The comparison with the
# closed form is the real test.
#
# ### The mismatch arrives
#
# Step 6 said that the flow passes the prior mismatch on unchanged. Take the worst case, VP with $\beta$ up to 5,
# started in $\mathcal N(0,\sigma_1^2I)$. The likelihood gives the density $q_0$ of what this sampler really
# draws. Its total variation distance to $p_0$ must be that of the start.

# %%
drawn = on_cells(velocity_on(short), normal(short.sigma(1.0).item()).log_prob).exp()
gap = drawn - fine.log_prob(cells.reshape(-1, 2)).exp()
arrived = 0.5 * width**2 * gap.abs().sum().item()
print(f"mismatch at the start {100 * mismatch(short):.4f} %, of the samples {100 * arrived:.4f} %")
check("relative difference of the two", abs(arrived / mismatch(short) - 1), below=0.01)

# %% [markdown]
# ## Explorer
#
# The same flow on three paths. On the left, black lines are the exact flow, and orange triangles the places where
# the solver steps, in the window of step 5 (each point divided by $\sqrt{\mu_t^2+\sigma_t^2}$). On the right, 120
# end points of the solver and of the exact flow, joined by red lines. The title says how far they are apart and
# what it cost. Before you move anything, do exercise 3.

# %%
schedule_explorer(fine)

# %% [markdown]
# **What you should see.** Switch the path with $n$ at 16: the black lines hardly move, the triangles do. On VP they
# crowd at the noise end, where nothing happens, and few are left for the bends; on the linear path they are spread
# out. VE with few steps shoots out of the picture. Raise $n$, and RK4's red lines are the first to vanish. To be
# fair to Euler compare at equal cost, the number of calls in the title: $n=4$ of Euler with $n=2$ of Heun and
# $n=1$ of RK4.

# %% [markdown]
# ## What can go wrong
#
# ### Wrong direction, half a score, a small start, too few steps
#
# Four failures, each from one small slip. None raises an error.
#
# 1. **Wrong sign of time.** Noise is put in at $t=0$ and integrated up to $t=1$, as if it were data. (Signs do get
#    lost: in one published repository the README and the code disagree about that of the score.)
# 2. **A score where a velocity belongs.** The reverse SDE has the drift $f_ta-g_t^2s$. Used without its noise, as
#    if it were a velocity, it lacks the factor $\frac12$. The samples are much too sharp, and all in one blob.
# 3. **VE from unit variance.** Every other path starts in $\mathcal N(0,I)$, so why not this one?
# 4. **Too few steps at a stiff end.** Heun with 8 network calls on VP, for the blobs that are ten times tighter.

# %%
test_noise = torch.randn(2000, 2, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def shares(x):
    """The share of the points x that is nearest to each of the three centres."""
    return torch.bincount(torch.cdist(x, fine.means).argmin(-1), minlength=3) / len(x)


def spread(x):
    """The mean distance of the points x to their nearest centre."""
    return torch.cdist(x, fine.means).min(-1).values.mean().item()


def doubled_score(a, t):
    return drift_rate(vp, t) * a - noise_rate(vp, t) * fine.noised_score(a, t, vp)


failures = {
    "1. wrong direction": solve(velocity_on(linear), test_noise, 0.0, 1.0, steps=50),
    "2. no factor ½": solve(doubled_score, test_noise, steps=200),
    "3. VE from unit variance": solve(velocity_on(ve), test_noise, steps=60),
    "4. VP, tight data, 4 Heun steps": solve(velocity_on(vp, tight), test_noise, steps=4),
}
right = solve(velocity_on(linear), test_noise, steps=50)
print(f"{'right':<32} shares {shares(right)[0]:.2f} {shares(right)[1]:.2f} {shares(right)[2]:.2f}")
for name, x in failures.items():
    one, two, three = shares(x)
    print(f"{name:<32} shares {one:.2f} {two:.2f} {three:.2f}")
check(
    "2: spread over the right one", spread(failures["2. no factor ½"]) / spread(right), below=0.35
)
check(
    "3: share of the first blob (right: 0.5)",
    shares(failures["3. VE from unit variance"])[0],
    above=0.9,
)
tight_end = ode.reference_solve(velocity_on(vp, tight), test_noise)
check(
    "4: mean error of 4 Heun steps",
    apart(failures["4. VP, tight data, 4 Heun steps"], tight_end),
    above=1,
)
euler_8 = solve(velocity_on(vp, tight), test_noise, steps=8, step=euler_step)
check("4: mean error of 8 Euler steps, at the same cost", apart(euler_8, tight_end), below=0.3)

# %%
fig, axes = figure(7.6, 8.0, ncols=2, nrows=2)
for ax, (title, x) in zip(axes.flat, failures.items(), strict=True):
    plane(ax)
    plots.backdrop(ax, (tight if title.startswith("4") else fine).log_prob)
    plots.particles(ax, x[:1200], "error", size=2.5, alpha=0.7)
    ax.set_title(title)
show(
    fig,
    "Samples of four broken samplers. Wrong direction: points on three thin seams between the "
    "blobs, none in them. No factor one half: all points in one knot inside the lower left blob. "
    "VE from unit variance: a narrow crowd in the lower left blob, a few points at the edge of the "
    "right one. VP with tight data and four Heun steps: points scattered over the window.",
)

# %% [markdown]
# **What you should see.** 1: no blob at all. Read forwards the flow spreads the blobs out, until they fill the plane.
# The gaps between them hold almost no data, so it squeezes them to thin seams; and that is where most of our noise
# happened to lie. 2: one blob, and in it a knot instead of a cloud. A wrong factor does not only sharpen; it moves
# the mass to the strongest mode. 3: a crowd in one blob. A start of a tenth of the width looks, to the flow, like
# points from the middle of $p_1$, and the middle belongs to two blobs only. 4: points everywhere, except in the
# small blobs. The next paragraph explains why.
#
# ### Why higher orders fail first
#
# Around one blob of standard deviation $c$ the velocity, relative to the moving centre, is $\lambda_t$ times the
# distance to it, with $\lambda_t=\dot V_t/2V_t$ and $V_t=\mu_t^2c^2+\sigma_t^2$. For a constant $\lambda$, walking
# back by $h$ shrinks distances by $e^{-x}$ with $x=h\lambda$. The solvers replace it by the first terms of its
# series:
#
# $$\text{Euler: }1-x,\qquad\text{Heun: }1-x+\tfrac12x^2,\qquad\text{RK4: }1-x+\tfrac12x^2-\tfrac16x^3+\tfrac1{24}x^4 .$$
#
# For $x$ of 4 and more all of them *stretch*. The higher the power, the worse in the end. A problem with large $x$ for any
# step one would like to take is called **stiff**. For the tight blobs $\lambda$ is largest near $t=0$, and Heun and
# RK4 look there in their last step, while Euler's last look is at $t=h$. That is how Euler gets away.

# %%
x = doubles(0.5, 1.0, 2.0, 4.0, 8.0)[:, None]
decay = lambda a, t: x * a  # noqa: E731  (walked from t = 1 back to 0 in one step)
series = {"Euler": 1 - x, "Heun": 1 - x + x**2 / 2, "RK4": 1 - x + x**2 / 2 - x**3 / 6 + x**4 / 24}
for name, factor in series.items():
    one_step = solve(decay, torch.ones_like(x), steps=1, step=solvers[name][0])
    check(f"{name}: factor of one step", largest(one_step - factor), below=1e-12)
print("x        exact" + "".join(f"{name:>12}" for name in series))
for k, value in enumerate(x[:, 0]):
    print(
        f"{value:<5.1f}{math.exp(-value):9.4f}"
        + "".join(f"{f[k, 0]:12.4f}" for f in series.values())
    )

when = torch.linspace(0, 1, 401, dtype=torch.float64)
V = vp.mu(when) ** 2 * tight.stds[0] ** 2 + vp.sigma(when) ** 2
V_dot = 2 * vp.mu(when) * vp.dmu(when) * tight.stds[0] ** 2 + 2 * vp.sigma_dsigma(when)
rate = V_dot / (2 * V)
one = GaussianMixture(tight.means[:1], tight.stds[:1], doubles(1.0))
centre, k = vp.mu(when)[:, None] * one.means, 80  # t = 0.2
speed = velocity_on(vp, one)(points, column(points, when[k].item()))
of_centre = vp.dmu(when)[k] * one.means
check(
    "velocity around one blob",
    largest(speed - of_centre - rate[k] * (points - centre[k])),
    below=1e-9,
)
print(f"tight blob on VP: largest lambda {rate.max():.4f}, at t = {when[rate.argmax()]:.4f}")
print(f"                  lambda at t = 0 {rate[0]:.4f}, at t = 0.25 {rate[100]:.4f}")

# %% [markdown]
# The last of four Heun steps goes from $t=0.25$ to 0. Its first look sees a $\lambda$ below 3, its second one near 41:
# with $h=0.25$, $x$ is about 10. Cures: more steps; a grid that is fine where $\lambda$ is large (the squared grid); an
# Euler step at the end, as EDM's sampler does (2206.00364); or a step that solves the stiff part exactly (exercise 4).
#
# ### A wrong score: ODE or SDE?
#
# With an exact score the ODE and the SDE agree. A learnt or estimated score is never exact. Then they differ. We
# spoil the score of the VP path in three ways: a constant push early in the sampling ($0.4<t<0.8$), a constant
# push at its end ($t<0.1$), and a score that is 30 % too long throughout. Then we sample with different amounts of
# noise, from $\eta=0$ (ODE) to twice that of the usual reverse SDE. The judge is the sliced Wasserstein distance to
# true samples (chapter 02). Two sets of true samples are not at distance zero either; that is the floor.

# %%
spoilt = {
    "early push": lambda s, t: (
        s + torch.where((t > 0.4) & (t < 0.8), torch.tensor([0.5, 0.0]), torch.zeros(2))
    ),
    "late push": lambda s, t: s + torch.where(t < 0.1, torch.tensor([2.0, 0.0]), torch.zeros(2)),
    "30 % too long": lambda s, t: 1.3 * s,
    "exact": lambda s, t: s,
}
g = torch.Generator().manual_seed(8)
truths = [toy.sample(2000, g) for _ in range(8)]
begin, clock32 = torch.randn(2000, 2, generator=g), torch.linspace(1, 0, 201)


def distance(x, y):
    return ot.sliced_wasserstein_distance(x.numpy(), y.numpy(), n_projections=50, seed=0, p=1)


floor = np.mean([distance(x, y) for x, y in zip(truths[::2], truths[1::2], strict=True)])
levels = (0.0, 0.5, 1.0, 1.5, 2.0)
off = {name: [] for name in spoilt}
for name, spoil in spoilt.items():
    for level in levels:
        score = lambda a, t: spoil(toy.noised_score(a, t, vp), t)  # noqa: B023, E731
        x = walk_back(score, vp, begin, clock32, level, torch.Generator().manual_seed(9))[-1]
        off[name].append(np.mean([distance(x, y) for y in truths[:4]]))

fig, ax = figure(6.4, 4.0)
looks = {
    "early push": ("^", "--"),
    "late push": ("s", "-."),
    "30 % too long": ("X", ":"),
    "exact": ("o", "-"),
}
for name, (marker, line) in looks.items():
    colour = COLOURS["reference" if name == "exact" else "error"]
    ax.semilogy(levels, off[name], color=colour, marker=marker, linestyle=line, label=name)
ax.axhline(floor, color=COLOURS["data"], linewidth=1.0)
ax.text(1.55, 0.83 * floor, "floor", color=COLOURS["data"], va="top")
ax.set(
    xlabel="noise, in units of that of the reverse SDE",
    ylabel="distance to the truth",
    ylim=(0.02, 1.5),
)
ax.legend(frameon=False, ncols=2, loc="upper right")
show(
    fig,
    "Distance of the samples to the truth against the amount of noise, from 0, the ODE, to 2, "
    "logarithmic heights. Early push and too long a score: far off at 0, falling steadily. Late "
    "push: nearest at 0, rising. Exact score: near the floor throughout.",
)
check("early push: ODE over SDE", off["early push"][0] / off["early push"][2], above=1.5)
check("30 % too long: ODE over SDE", off["30 % too long"][0] / off["30 % too long"][2], above=3)
check("late push: SDE over ODE", off["late push"][2] / off["late push"][0], above=1.2)
check("exact score: ODE over the floor", off["exact"][0] / floor, below=1.5)

# %% [markdown]
# **What you should see.** Two curves fall, one rises, one stays.
#
# The ODE *pushes errors along*. A crowd that was displaced at $t=0.5$ is carried to the wrong blobs and nothing
# brings it back, because the lines of an ODE never forget where they came from. The SDE adds Langevin moves, which
# pull any crowd towards the $p_t$ of the present time. What happened early is *damped*. The price stands in its
# formula: it uses $g^2s$ where the ODE uses $\frac12g^2s$, so an error of the score that comes last, with no time
# left to be forgotten, counts up to double. And the SDE cannot be jumped in one step: there is no deterministic
# map from noise to action for MeanFlow to learn. That is why SOM takes the ODE, and why its score had better be
# good at high noise. (Chapter 04 saw which estimator is.)

# %% [markdown]
# ## Exercises
#
# Each stub raises `NotImplementedError`. Replace its body and run the cell: a ✓ line says that you are done. The
# functions `velocity_on`, `column`, `solve`, `log_likelihood` and the mixtures `fine` and `tight` are those of the
# chapter.

# %% [markdown]
# ### 1. A path of your own · ●○○ · 15 min
#
# The cosine path of the code section has $\mu_t=\cos\frac{\pi t}2$ and $\sigma_t=\sin\frac{\pi t}2$. Derive its
# velocity from the score by the general formula of step 3, simplify by hand until one function of $t$ is left, and
# write the result. The check compares it with the velocity of the three blobs at six points and times.


# %% tags=["exercise", "raises-exception"]
def cosine_velocity(s, a, t):
    raise NotImplementedError


when = torch.linspace(0.05, 0.95, 6, dtype=torch.float64)[:, None]
by_hand = cosine_velocity(cosine_score, points, when)
check("exercise 1: velocity", largest(by_hand - velocity_on(cosine)(points, when)), below=1e-8)

# %% [markdown]
# <details><summary>Hint</summary>
#
# $\mu^2+\sigma^2=1$, so this is a VP path. Which $\beta_t$ has $\dot\mu/\mu=-\frac12\beta_t$?
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# $\dot\mu/\mu=-\frac\pi2\tan\frac{\pi t}2$, and $\sigma\dot\sigma-\frac{\dot\mu}\mu\sigma^2
# =\frac\pi2\sin\cos+\frac\pi2\frac{\sin^3}{\cos}=\frac\pi2\tan\frac{\pi t}2$. So it is VP with
# $\beta_t=\pi\tan\frac{\pi t}2$. The rate is zero at $t=0$ and infinite at $t=1$: at its end it *is* pure noise.
#
# ```python
# def cosine_velocity(s, a, t):
#     return -math.pi / 2 * torch.tan(math.pi / 2 * t) * (a + s)
# ```
#
# </details>

# %% [markdown]
# ### 2. Find the bugs · ●○○ · 10 min
#
# An agent with an entropy bonus needs the entropy $-E[\log p_0(a)]$ of its own samples. This function draws noise
# with standard deviation 0.5, as some published policies do, follows the flow to $t=0$ and asks for the
# likelihood. It holds two bugs, each modelled on one in published code. One of them does harm even where the
# standard deviation is 1. Write it correctly.
#
# ```python
# def entropy_of_samples(velocity, count, generator):
#     eps = 0.5 * torch.randn(count, 2, generator=generator, dtype=torch.float64)
#     a = solve(velocity, eps, steps=20, step=rk4_step)
#     div = partial(hutchinson_divergence, probe=eps)
#     return -log_likelihood(velocity, normal(1.0).log_prob, a, steps=20, div=div).mean()
# ```
#
# The first check uses the flow of one blob, where the answer is known: it scales all distances by $c=0.4$, so the samples
# are normal with standard deviation $0.2$ and their entropy is $\log(2\pi e\cdot0.2^2)$. 2000 samples leave an
# uncertainty of 0.02. The second uses the three blobs. There the entropy is that of the noise, less the mean exact
# integral of the divergence (step 8).


# %% tags=["exercise", "raises-exception"]
def entropy_of_samples(velocity, count, generator):
    raise NotImplementedError


blob = GaussianMixture(doubles([0.5, -0.2]), doubles(0.4), doubles(1.0))
entropy = entropy_of_samples(velocity_on(linear, blob), 2000, torch.Generator().manual_seed(10))
error = abs(entropy - math.log(2 * math.pi * math.e * 0.2**2))
check("exercise 2: error of the entropy", error, below=0.08)
noise_2 = 0.5 * normals(4000, torch.Generator().manual_seed(12)).view(2000, 2)
data = solve(velocity_on(linear), noise_2, steps=20, step=rk4_step)
growth = log_likelihood(velocity_on(linear), lambda a: 0 * a[..., 0], data, steps=20).mean()
entropy = entropy_of_samples(velocity_on(linear), 2000, torch.Generator().manual_seed(10))
error = abs(entropy - (math.log(2 * math.pi * math.e * 0.5**2) - growth))
# both means are uncertain by about .03
check("exercise 2: the same for the three blobs", error, below=0.15)

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
# is the same everywhere. On the three blobs the entropy comes out far too low.) The generator must be asked twice.
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
# ### 3. Predict, then move the slider · ●○○ · 10 min
#
# Answer before you touch the explorer. Then move the sliders, and then run the cell.
#
# 1. VP path, four network calls: Euler with $n=4$, Heun with $n=2$ or RK4 with $n=1$. Which ends nearest to the
#    exact points? Answer by its calls per step: 1, 2 or 4.
# 2. Linear path, Euler: by which factor does the error fall from $n=16$ to $n=32$, roughly?
# 3. VE path, RK4: which is the first of $n=1,2,3,4,6,8,12,16,24,32$ that is off by less than 0.1?
#
# Return the three numbers.


# %% tags=["exercise", "raises-exception"]
def prediction():
    raise NotImplementedError


best, factor, first_n = prediction()
explorer_noise = torch.randn(120, 2, generator=torch.Generator().manual_seed(0)).double()


off_by = lambda path, step, n: apart(  # noqa: E731
    solve(velocity_on(path), path.sigma(1.0) * explorer_noise, steps=n, step=step),
    solve(velocity_on(path), path.sigma(1.0) * explorer_noise, steps=128, step=rk4_step),
)
four_calls = {calls: off_by(vp, step, 4 // calls) for step, calls in solvers.values()}
true_factor = off_by(linear, euler_step, 16) / off_by(linear, euler_step, 32)
true_n = min(n for n in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32) if off_by(ve, rk4_step, n) < 0.1)
check("exercise 3: error of your solver", four_calls[best] - min(four_calls.values()), below=1e-9)
check("exercise 3: error of your factor", abs(factor - true_factor), below=0.3)
check("exercise 3: error of your n", abs(first_n - true_n), below=0.5)

# %% [markdown]
# <details><summary>Hint</summary>
#
# For 1, what is a Taylor series worth when the step is a quarter of the way or more? For 2, what is the order of
# Euler's method? For 3, a step of VE multiplies the noise level by $1000^{-1/n}$; that should not be too brutal.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# Euler. Order 1: a factor of 2. And VE with RK4 needs 6 steps, 24 calls.
#
# ```python
# def prediction():
#     return 1, 2, 6
# ```
#
# </details>

# %% [markdown]
# ### 4. Solve the stiff part exactly · ●●○ · 20 min
#
# Freeze the posterior mean instead of the velocity. If the data point were known to be $m$, the noise would be
# $\hat\varepsilon=(a-\mu_tm)/\sigma_t$, and at time $r$ the point would be $\mu_rm+\sigma_r\hat\varepsilon$. A
# solver that jumps there is known as DDIM (Song, Meng, Ermon, 2010.02502). Write it for any path: `posterior_mean`
# takes `(a, t)`, and `times` falls from 1 to 0.
#
# The checks: on the linear path it *is* Euler's step; for a single data point it is exact however long the step;
# and on the tight blobs, on VP and with 8 calls, it beats Euler and Heun.


# %% tags=["exercise", "raises-exception"]
def ddim_solve(path, posterior_mean, a, times):
    raise NotImplementedError


of_blobs = partial(fine.posterior_mean, path=linear)
on_linear = ddim_solve(linear, of_blobs, noise, even)
euler_8 = solve(velocity_on(linear), noise, steps=8, step=euler_step)
check("exercise 4: DDIM against Euler on the linear path", largest(on_linear - euler_8), below=1e-9)

point = GaussianMixture(doubles([0.7, -0.3]), doubles(0.0), doubles(1.0))
of_point = partial(point.posterior_mean, path=vp)
landed = ddim_solve(vp, of_point, noise, doubles(1.0, 0.4, 0.0))
check("exercise 4: two steps to a single data point", largest(landed - point.means), below=1e-9)

judge = ode.reference_solve(velocity_on(vp, tight), noise)
of_tight = partial(tight.posterior_mean, path=vp)
ddim_off = apart(ddim_solve(vp, of_tight, noise, even), judge)
for name, n in (("Euler", 8), ("Heun", 4)):
    other = apart(solve(velocity_on(vp, tight), noise, steps=n, step=solvers[name][0]), judge)
    check(
        f"exercise 4: error of DDIM over that of {name}, 8 calls on VP", ddim_off / other, below=0.8
    )

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
# On the linear path, $(1-r)\,m+r\,\hat\varepsilon$ with $\hat\varepsilon=(a-(1-t)m)/t$ is $a+(r-t)\frac{a-m}t$. In
# the coordinates $b,\rho$ of step 5 a DDIM step is Euler's, $b_r=b_t+(\rho_r-\rho_t)\,\hat\varepsilon$, on every
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
# ### 5. Second order at the price of the first · ●●○ · 20 min
#
# Heun looks twice per step. But the velocity of the *previous* step is already paid for. With equal steps $h$,
# estimate $\dot v$ from the last two velocities and put it into Taylor's formula of step 7. This is the method of
# Adams and Bashforth; samplers of the DPM-Solver family use it. The first step, which has no past, may be Euler's.
# Write it from $t=1$ to $t=0$ with one network call per step.


# %% tags=["exercise", "raises-exception"]
def adams_solve(velocity, a, steps):
    raise NotImplementedError


judge = ode.reference_solve(velocity_on(linear), noise)
seen = []
adams_solve(lambda a, t: seen.append(t) or velocity_on(linear)(a, t), noise, 16)
check("exercise 5: calls beyond one per step", len(seen) - 16, below=0.5)
many = [32, 64, 128, 256]
off_adams = [apart(adams_solve(velocity_on(linear), noise, n), judge) for n in many]
slope = -np.polyfit(np.log(many), np.log(off_adams), 1)[0]
check("exercise 5: |order - 2|", abs(slope - 2), below=0.2)
heun_32 = apart(solve(velocity_on(linear), noise, steps=16), judge)
check("exercise 5: error over Heun's at 32 calls", off_adams[0] / heun_32, below=0.8)

# %% [markdown]
# <details><summary>Hint</summary>
#
# $\dot v\approx(v_k-v_{k-1})/h$. Then $a+h\,v_k+\frac12h^2\dot v$ has only $v_k$ and $v_{k-1}$ in it.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# $a+h\,(\frac32v_k-\frac12v_{k-1})$. The one Euler step errs by $h^2$, as much as all others together, so the order
# stays 2.
#
# ```python
# def adams_solve(velocity, a, steps):
#     h, before = -1 / steps, None
#     for i in range(steps):
#         now = velocity(a, column(a, 1 + i * h))
#         a = a + h * (now if before is None else 1.5 * now - 0.5 * before)
#         before = now
#     return a
# ```
#
# </details>

# %% [markdown]
# ### 6. Entropy without any ODE · ●●● · 25 min
#
# The entropy of a density is $H_t=-E[\log p_t(a_t)]$. Derive how fast it changes along the flow, and from that a
# formula for $H_0$ that needs neither a flow line nor a likelihood: only pairs $(a_0,\varepsilon)$, random times
# and the divergence of $v$. Write it for the linear path, where $H_1=\log(2\pi e)$ in two dimensions. The check has
# the entropy of the three blobs from a sum over a grid. Spread the times evenly (one in each of `count` equal
# slots). The divergence varies by about two units from pair to pair, so the mean of 4000 is uncertain by about
# 0.03.


# %% tags=["exercise", "raises-exception"]
def entropy_by_divergence(target, count, generator):
    raise NotImplementedError


cells, width = mesh(200, reach=4.5)
log_p0 = fine.log_prob(cells)
entropy = -(width**2 * log_p0.exp() * log_p0).sum()
estimate = entropy_by_divergence(fine, 4000, torch.Generator().manual_seed(11))
check("exercise 6: error of the entropy", abs(estimate - entropy), below=0.1)

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
# def entropy_by_divergence(target, count, generator):
#     slots = torch.arange(count) + torch.rand(count, generator=generator)
#     t = (slots / count).double()[:, None]
#     eps = torch.randn(count, 2, generator=generator, dtype=torch.float64)
#     a = linear.noise(target.sample(count, generator), eps, t)
#     growth = divergence(velocity_on(linear, target), a, t).mean()
#     return math.log(2 * math.pi * math.e) - growth
# ```
#
# </details>

# %% [markdown]
# ## Summary
#
# * Densities move by the continuity equation, $\partial_tp=-\nabla\!\cdot(p\,v)$. A deterministic flow with the
#   path's mean velocity has the path's densities.
# * Noise is a flow along minus the score: $\Delta p=\nabla\!\cdot(p\,s)$. So $v=f_ta-\frac12g_t^2s$, with its
#   $\frac12$, and any amount of noise may be swapped in for score.
# * $a=\mu m+\sigma E[\varepsilon]$, $E[\varepsilon]=-\sigma s$, $v=\dot\mu m+\dot\sigma E[\varepsilon]$: everything
#   from everything, on every path. Linear: $v=(a-m)/t=-(a+t\,s)/(1-t)$. VP: $v=-\frac12\beta(a+s)$.
# * The paths are one flow in the coordinates $a/\mu$ and $\rho=\sigma/\mu$. A path decides what the solver and the
#   network see, not where noise goes.
# * Near $t=0$ use the score, near $t=1$ the posterior mean. What the start misses, the samples miss.
# * Orders 1, 2, 4 hold for small steps. With few calls, or at a stiff end, Euler can win. Measure at your number of
#   calls, in calls.
# * $\frac{d}{dt}\log p_t(a_t)=-\nabla\!\cdot v$ gives exact likelihoods. Probes must be independent of the noise.
# * With a wrong score the ODE carries errors along and the SDE forgets early ones, but counts the last ones twice.

# %% [markdown]
# ## References
#
# * Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole: *Score-Based Generative Modeling through Stochastic
#   Differential Equations*, [2011.13456](https://arxiv.org/abs/2011.13456). VP, VE, and the probability-flow ODE
#   (section 4.3, appendix D).
# * Maoutsa, Reich, Opper: *Interacting Particle Solutions of Fokker-Planck Equations Through Gradient-Log-Density
#   Estimation*, [2006.00702](https://arxiv.org/abs/2006.00702). The same exchange of noise for score.
# * Albergo, Boffi, Vanden-Eijnden: *Stochastic Interpolants*, [2303.08797](https://arxiv.org/abs/2303.08797). ODE
#   and SDE with the same densities, for any amount of noise, and what errors of the score do to each.
# * Karras, Aittala, Aila, Laine: *Elucidating the Design Space of Diffusion-Based Generative Models*,
#   [2206.00364](https://arxiv.org/abs/2206.00364). Paths as scaling and time change; Heun; where to put the steps.
# * Kingma, Salimans, Poole, Ho: *Variational Diffusion Models*, [2107.00630](https://arxiv.org/abs/2107.00630).
#   Only the noise-to-signal ratio matters (section 5).
# * Song, Meng, Ermon: *Denoising Diffusion Implicit Models*, [2010.02502](https://arxiv.org/abs/2010.02502), and
#   Lu and others: *DPM-Solver*, [2206.00927](https://arxiv.org/abs/2206.00927). Steps that solve the linear part
#   exactly (exercises 4 and 5).
# * Chen, Rubanova, Bettencourt, Duvenaud: *Neural Ordinary Differential Equations*,
#   [1806.07366](https://arxiv.org/abs/1806.07366), and Grathwohl and others: *FFJORD*,
#   [1810.01367](https://arxiv.org/abs/1810.01367). Likelihoods along an ODE, and Hutchinson's estimate in them.
# * Anderson: *Reverse-time diffusion equation models*, Stochastic Processes and their Applications 12 (1982). The
#   reverse SDE.
#
# ---
#
# Previous: [04 · A score without samples](04_score_without_samples.ipynb). Next:
# [06 · MeanFlow from a Q-function](06_meanflow_from_q.ipynb).
