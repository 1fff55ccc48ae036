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
# # 03 · Policies as Boltzmann distributions
#
# **What you will do.** You compute a critic exactly, turn it into a density of actions, and check every formula about
# that density on a grid. Then you draw from it: by a random walk that you write yourself, and, when the walk gets
# stuck, by adding noise and taking it away.
#
# **What you will learn.** What $Q$ is. Why $\exp(Q/\alpha)$ is the right density and what the temperature $\alpha$
# costs. Why Langevin dynamics works, and how slow it is. And why not just follow the gradient of $Q$.
#
# **What you need.** Calculus (gradients, the divergence theorem), probability and PyTorch. From chapter 01 only the
# path that adds noise. No reinforcement learning.
#
# **Time and hardware.** ≈ 25 s on one CPU core. Two hours for reading, two for the exercises. No GPU.
#
# Previous: [02 · MeanFlow](02_meanflow.ipynb). Next: [04 · A score without samples](04_score_without_samples.ipynb).

# %% [markdown]
# ## The idea in one picture
#
# ### A critic on one page
#
# A robot acts again and again. It sees the **state** $s$ and does the **action** $a$. For each action it is paid a
# **reward** $R$, a number, and finds itself in the next state. The **return** $G$ adds the rewards up, later ones for
# less:
#
# $$G = R_0+\gamma\,R_1+\gamma^2 R_2+\cdots, \qquad 0\le\gamma<1 .$$
#
# The *discount* $\gamma$ says how much a reward loses by coming one step later. A **policy** $\pi(a\mid s)$ is a rule
# for acting: in state $s$ it draws the action from this distribution. The **critic** grades one action: do $a$ in state
# $s$, from then on follow $\pi$, and take the mean return,
#
# $$Q(s,a)=E\,[\,G \mid \text{start in } s,\; \text{do } a,\; \text{then follow } \pi\,].$$
#
# **A critic belongs to one policy.** Another policy has another $Q$.
#
# We assume that the world is **Markov**: what follows depends on the present state and action alone, not on how one got
# there. So what follows the first reward is again a return, from the next state $s'$ on, discounted once:
#
# $$Q(s,a)=E\big[\,R+\gamma\,Q(s',a')\,\big],\qquad a'\sim\pi(\cdot\mid s').$$
#
# This is the *Bellman equation*.
#
# **An example you can solve.** A corridor has five cells, 0 to 4. The robot steps left or right. Leaving on the left
# pays 1, leaving on the right pays 3, nothing else pays. The discount is 0.8. The policy flips a coin at every step.
# Once the robot has left, $Q=0$. That makes ten linear equations for ten numbers. We solve them, and hold the answer
# against the definition: the mean return of 20 000 games for each of the ten beginnings.

# %%
import math
from functools import partial

import numpy as np
import torch

from som_lite.flow.boltzmann import BoxBoltzmann, Bumps, ridge, three_bumps
from som_lite.flow.paths import Linear
from som_lite.view import plots
from som_lite.view.explorers import boltzmann_explorer
from som_lite.view.notebook import check, show
from som_lite.view.style import COLOURS, figure, plane

torch.set_num_threads(1)  # small tensors: more threads cost more than they bring

gamma = 0.8


def pay(cell):
    return {-1: 1.0, 5: 3.0}.get(cell, 0.0)


equations, rewards = torch.eye(10), torch.zeros(10)
for cell in range(5):
    for move in (0, 1):  # left, right
        after = cell + 2 * move - 1
        rewards[2 * cell + move] = pay(after)
        if 0 <= after < 5:
            equations[2 * cell + move, 2 * after : 2 * after + 2] -= gamma / 2
corridor = torch.linalg.solve(equations, rewards).view(5, 2)


def mean_return(cell, move, generator, episodes=20_000):
    """Play: first the given move, then coin flips, until every episode has left the corridor."""
    place, total, factor = torch.full((episodes,), cell), 0.0, 1.0
    moves = torch.full((episodes,), move)
    while len(place):
        place = place + 2 * moves - 1
        total += factor * (1.0 * (place < 0).sum() + 3.0 * (place > 4).sum()).item()
        place = place[(place >= 0) & (place <= 4)]
        moves = torch.randint(2, place.shape, generator=generator)
        factor *= gamma
    return total / episodes


g = torch.Generator().manual_seed(0)
played = torch.tensor([[mean_return(cell, move, g) for move in (0, 1)] for cell in range(5)])
print("cell            0        1        2        3        4")
for move, name in enumerate(("Q(left)", "Q(right)")):
    print(f"{name:<9}" + "".join(f"{corridor[cell, move]:9.5f}" for cell in range(5)))
# a return lies between 0 and 3, so a mean of 20 000 is uncertain by at most 0.011
check("Bellman equation against played episodes", (corridor - played).abs().max(), below=0.045)

# %% [markdown]
# In cells 0 and 1 the critic prefers left: 1 soon beats 3 much later. It *grades* each action and gives no rule for
# choosing. That rule is the subject of this chapter. (Learning a critic is the subject of chapter 07.)
#
# **Stop and think.** A robot that *always* goes right stands in cell 1. Does this critic grade its two moves
# truthfully? Compute its own $Q$.
#
# <details><summary>Answer</summary>
#
# No. Four moves to the right and it is out: $Q=0.8^3\cdot3=1.536$. After one step left it needs five more:
# $0.8^5\cdot3=0.983$. For this robot right is better. Left is better for a coin flipper, who wastes the way right.
#
# </details>
#
# **From here on** the state is fixed and we write $Q(a)$. The action is a point of the square $[-1,1]^2$: two motors,
# each between full reverse and full ahead. Our critic `q` has three hills, of heights 1, 0.97 and 0.93: three good ways
# to pass an obstacle. The first is wider: it forgives small errors.
#
# ### The picture
#
# We want a policy that prefers high $Q$. Three ideas:
#
# 1. **Follow the gradient.** Start anywhere, walk uphill, act where you arrive.
# 2. **Fit a Gaussian.** Here is the one most likely to have produced the points of the third panel.
# 3. **Take a density that grows with $Q$,** $p(a)=\exp(Q(a)/\alpha)/Z$, and draw from it. The number $\alpha>0$ is the
#    *temperature*, and $Z$ makes the total mass 1. This is the **Boltzmann density**, in code `BoxBoltzmann`.

# %%
q, alpha, path = three_bumps(), 0.1, Linear()
exact = BoxBoltzmann(q, alpha)
generator = torch.Generator().manual_seed(1)


def hill(a):
    """The number of the hill whose top is nearest."""
    return torch.cdist(a, q.centres.to(a.dtype)).argmin(-1)


def shares(a):
    return torch.bincount(hill(a), minlength=3) / len(a)


def climb(q, a, rate=0.02, steps=1000):
    """Gradient ascent on q."""
    for _ in range(steps):
        a = a.detach().requires_grad_()
        (grad,) = torch.autograd.grad(q(a).sum(), a)
        a = a + rate * grad
    return a.detach()


starts = 2 * torch.rand(2000, 2, generator=generator) - 1
tops = climb(q, starts)
samples = exact.sample(2000, generator)
spread = torch.linalg.cholesky(samples.T.cov())
gaussian = samples.mean(0) + torch.randn(2000, 2, generator=generator) @ spread.T

masses = torch.zeros(3, dtype=torch.float64).index_add(0, hill(exact.grid), exact.p)
print("share of each hill, exactly: " + "  ".join(f"{mass:.5f}" for mass in masses))
arrived = torch.cdist(tops, q.centres).amin(-1) < 0.05
assert 0.75 < arrived.float().mean() < 0.95  # the others are still on the plains
on_best = (arrived & (hill(tops) == 0)).float().mean()
check("share of all climbers on the best hill", on_best, below=0.42)

# %% tags=["hide-input"]
fig, axes = figure(9.0, 3.7, ncols=3)
panels = {
    "follow the gradient": (tops, "error"),
    "a Gaussian": (gaussian, "error"),
    "the Boltzmann density": (samples, "target"),
}
for ax, (title, (points, kind)) in zip(axes, panels.items(), strict=True):
    plane(ax, 1.0)
    plots.backdrop(ax, lambda a: q(a).log())
    plots.particles(ax, points[:700], kind, size=3, alpha=0.6)
    ax.set_title(title)
plots.particles(axes[0], q.centres, "error", size=9, alpha=1.0)
mean = gaussian.mean(0)
plots.particles(axes[1], mean[None], "reference", size=12, alpha=1.0)
label = axes[1].text(*(mean + torch.tensor([0.09, 0.0])), "mean", va="center")
label.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0})
show(
    fig,
    "Three panels over the pale hills of Q on the square. Follow the gradient: most points on the three tops, some "
    "scattered in the corners between the hills. A Gaussian: a broad tilted cloud over the whole square; a black cross, "
    "its mean, stands between the hills. The Boltzmann density: a small round cloud on each top, the largest at the lower left.",
)

# %% [markdown]
# **What you should see.** On the left the climbers: most on three spots (enlarged), the others on the plains, which
# have hardly any slope. In the middle the Gaussian: its mean (cross) lies *between* the hills, where $Q$ is low. On the right
# the Boltzmann density: all three hills, each with some play around its top.
#
# A climber takes the hill on whose flank it happens to start, good or bad. Two in five reach the best hill, which holds
# 58 % of the Boltzmann density.

# %% [markdown]
# ## Derivation
#
# ### Step 0: expectations on a grid
#
# On a square, every integral is a sum. Cut it into small cells of equal area. The mass of a cell is $\exp(Q/\alpha)$ at
# its centre, divided by the sum over all cells: a softmax. The *entropy*
#
# $$H(p)=-\int p(a)\log p(a)\,da$$
#
# needs the density of a cell, its mass divided by its area. We call this *quadrature* and treat it as the truth.
# `BoxBoltzmann` does the same, but evaluates $Q$ in 32 bits, hence $10^{-5}$.

# %%
n = 201
axis = (torch.arange(n, dtype=torch.float64) + 0.5) / n * 2 - 1
cells = torch.cartesian_prod(axis, axis)  # the centres, (n * n, 2)
area = (2 / n) ** 2
value = q(cells)


def boltzmann(alpha):
    return (value / alpha).softmax(0)


def entropy(p):
    return torch.special.entr(p).sum() + math.log(area)  # entr(p) = -p log p, and 0 at p = 0


def log_z(alpha):
    return (value / alpha).logsumexp(0) + math.log(area)


p = boltzmann(alpha)
print(f"E[Q] = {p @ value:.5f}   H = {entropy(p):.5f}   log Z = {log_z(alpha):.5f}")
check("entropy here and in BoxBoltzmann", abs(entropy(p) - exact.entropy()), below=1e-5)

# %% [markdown]
# ### Step 1: what the policy should maximise
#
# The greedy choice is to maximise $E_\pi[Q]$, the mean grade under a policy $\pi$. Its answer is a single point. But
# the critic is an estimate, and what stands out at its top may be an error. A policy that always does the same never
# finds out about the rest. And when two ways are equally good, why drop one? So we pay for randomness, $\alpha$ per
# unit of entropy. This is the *maximum-entropy objective* $J(\pi)=E_\pi[Q]+\alpha\,H(\pi)$.
#
# ### Step 2: its maximiser
#
# Take the logarithm of the Boltzmann density: $\log p=Q/\alpha-\log Z$. Solve for $Q$ and put it into $J$:
#
# $$J(\pi)=E_\pi[\alpha\log p+\alpha\log Z]-\alpha\,E_\pi[\log\pi]
# =\alpha\log Z-\alpha\,E_\pi\Big[\log\frac{\pi}{p}\Big].$$
#
# The last expectation is the Kullback-Leibler divergence $\mathrm{KL}(\pi\,\|\,p)$. By Jensen's inequality it is never
# negative, and zero only for $\pi=p$. Hence
#
# $$\boxed{\;\alpha\log Z-J(\pi)=\alpha\,\mathrm{KL}(\pi\,\|\,p)\;}$$
#
# and the maximiser of $J$ is $p=\exp(Q/\alpha)/Z$. A special case: let $\pi$ be $p$ *restricted* to a region of mass
# $M$. There $\pi/p=1/M$, so the gap is exactly $\alpha\log\frac1M$. We check both on four rivals; the Gaussian has the
# mean and covariance of $p$, before the walls cut it off.


# %%
def objective(pi):
    return pi @ value + alpha * entropy(pi)


def kl(pi, p):
    return (torch.special.xlogy(pi, pi) - torch.special.xlogy(pi, p)).sum()


offset = cells - p @ cells
precision = torch.linalg.inv((p[:, None] * offset).T @ offset)
largest_hill = torch.where(hill(cells) == 0, p, 0.0)
rivals = {
    "uniform": torch.full_like(p, 1 / len(p)),
    "Gaussian": (-0.5 * (offset @ precision * offset).sum(-1)).softmax(0),
    "alpha = 0.3": boltzmann(0.3),
    "one hill": largest_hill / largest_hill.sum(),
}
top = alpha * log_z(alpha)
print(f"{'':<12}    E[Q]        H        J      gap  alpha KL")
for name, pi in {"Boltzmann": p, **rivals}.items():
    gap, divergence = abs(top - objective(pi)), abs(alpha * kl(pi, p))  # abs: no minus zero
    numbers = (pi @ value, entropy(pi), objective(pi), gap, divergence)
    print(f"{name:<12}" + "".join(f"{number:9.5f}" for number in numbers))
gaps = {name: top - objective(pi) for name, pi in rivals.items()}
worst = max(abs(gaps[name] - alpha * kl(pi, p)) for name, pi in rivals.items())
check("gap against alpha KL, worst of four", worst, below=1e-10)
difference = abs(gaps["one hill"] - alpha * math.log(1 / masses[0]))
check("gap of one hill against alpha log 1/M", difference, below=1e-5)

# %% [markdown]
# Losing two of three hills costs 0.055. For scale: knowing nothing at all, the uniform density, costs 0.431. (Only gaps
# mean something: a constant added to $Q$ shifts $J$.) And $E[Q]$ is even *higher* than at the optimum. Whether a method
# that maximises $J$ keeps all hills has to be measured on its own.
#
# ### Step 3: temperature
#
# Write $\beta=1/\alpha$ and differentiate $\log Z=\log\int e^{\beta Q}$. The first derivative is $E[Q]$, the second the
# variance of $Q$ under $p$. And $H=\log Z-\beta E[Q]$. So
#
# $$\frac{dE[Q]}{d\beta}=\mathrm{Var}[Q],\qquad \frac{dH}{d\beta}=-\beta\,\mathrm{Var}[Q].$$
#
# **Cooling always raises $E[Q]$ and always lowers the entropy**, whatever the landscape (unless it is flat). At
# $\alpha\to\infty$ the density is uniform, and $H=\log4$, the logarithm of the square's area. At $\alpha\to0$ only the
# highest top is left. If it lies inside the square, $Q$ is a parabola near it, $p$ is a Gaussian, and each of the $d$
# dimensions costs $\alpha/2$:
#
# $$E[Q]\approx\max Q-\tfrac d2\,\alpha\qquad\text{for small }\alpha .$$
#
# The last formula is checked at $\alpha=0.01$, where $d/2=1$.

# %%
worst_q, worst_h = 0.0, 0.0
for temperature in (0.05, 0.1, 0.3, 1.0):
    beta, now = 1 / temperature, boltzmann(temperature)
    h = 1e-4 * beta
    up, down = boltzmann(1 / (beta + h)), boltzmann(1 / (beta - h))
    variance = now @ value.square() - (now @ value) ** 2
    slope_q, slope_h = (up - down) @ value / (2 * h), (entropy(up) - entropy(down)) / (2 * h)
    worst_q = max(worst_q, abs(slope_q / variance - 1))
    worst_h = max(worst_h, abs(slope_h / (-beta * variance) - 1))
check("relative error of dE[Q]/dbeta, worst of four temperatures", worst_q, below=1e-5)
check("relative error of dH/dbeta", worst_h, below=1e-5)
cost = (value.max() - boltzmann(0.01) @ value) / 0.01
check("(max Q - E[Q]) / alpha at alpha = 0.01", cost, above=0.9, below=1.1)

# %% tags=["hide-input"]
temperatures = np.logspace(-2, 1.5, 60)
means = [boltzmann(x) @ value for x in temperatures]
entropies = [entropy(boltzmann(x)) for x in temperatures]
fig, (left, right) = figure(8.4, 3.5, ncols=2)
for ax, line, ends, name in (
    (left, means, (value.max(), value.mean()), "E[Q]"),
    (right, entropies, (None, math.log(4)), "entropy"),
):
    ax.semilogx(temperatures, line, color=COLOURS["target"], linewidth=1.8)
    for end, words in zip(ends, ("greedy", "uniform"), strict=True):
        if end is not None:
            ax.axhline(end, color=COLOURS["reference"], linestyle=":", linewidth=1.0)
            ax.text(0.012 if words == "uniform" else 3.0, end, words, va="bottom")
    ax.axvline(alpha, color=COLOURS["noise"], linewidth=1.0)
    ax.text(0.11, 0.03, r"$\alpha = 0.1$", transform=ax.get_xaxis_transform())
    ax.set(xlabel=r"temperature $\alpha$", title=name, xlim=(0.01, 30))
left.set_ylim(0, 1.15)
right.set_ylim(-6, 2.2)
show(
    fig,
    "Two curves against the temperature on a logarithmic axis. E[Q] falls from the dotted line greedy, near 1, to the "
    "dotted line uniform, near 0.13, most steeply between 0.1 and 0.5. The entropy rises from about -5 to the dotted "
    "line uniform at log 4. A grey line marks alpha = 0.1.",
)

# %% [markdown]
# **What you should see.** From greedy to uniform takes about two decades, those in which $\alpha$ is comparable to the
# *differences* of $Q$. Multiplying $Q$ by ten is the same as dividing $\alpha$ by ten: a temperature without the scale
# of its $Q$ says nothing.
#
# ### Step 4: the score, and the wall
#
# The gradient of the log density is called the **score**, with the letter $s$. (From here on $s$ is a score in this
# chapter, no longer a state.) Inside the square
#
# $$\nabla\log p(a)=\frac{\nabla Q(a)}{\alpha}-\nabla\log Z=\frac{\nabla Q(a)}{\alpha}.$$
#
# The constant $Z$ has dropped out: one backward pass through the critic gives the score of a density that nobody can
# normalise.


# %%
def boltzmann_score(q, alpha, a):
    with torch.enable_grad():
        a = a.detach().requires_grad_()
        (grad,) = torch.autograd.grad(q(a).sum(), a)
    return grad / alpha


def differences(f, a, h=1e-4):
    """The derivatives of f along each coordinate of a, by central differences, in the last axis."""
    steps = h * torch.eye(2, dtype=a.dtype)
    return torch.stack([(f(a + step) - f(a - step)) / (2 * h) for step in steps], -1)


def largest(vectors):
    """The greatest length among the rows."""
    return vectors.norm(dim=-1).max()


inner_points = samples[:200].double()
score = boltzmann_score(q, alpha, inner_points)
error = largest(score - differences(exact.log_prob, inner_points))
check("score against differences of log p, relative", error / largest(score), below=1e-5)

# %% [markdown]
# But a score does not see the wall. At the border $p$ falls from some positive value to zero at once, and no gradient
# at an inner point tells you so. By the divergence theorem,
#
# $$E[\nabla\log p]=\int\nabla p\,da=\oint p\;\mathbf n\,dS,$$
#
# where $\mathbf n$ points outwards and the right integral runs over the border. On the whole plane the mean score is
# zero. In a box it is not, if $p$ is alive at the wall. We check it on `ridge`, a long hill that a corner of the square
# cuts off.


# %%
cut = BoxBoltzmann(lambda a: ridge(a.double()), alpha)
mean_score = cut.p @ boltzmann_score(cut.q, alpha, cut.grid.double())
one = torch.ones_like(axis)


def mass_on(x, y):
    """The integral of p along a face of length 2 with the points (x, y)."""
    return 2 * cut.log_prob(torch.stack([x, y], -1)).exp().mean()


right_minus_left = mass_on(one, axis) - mass_on(-one, axis)
top_minus_bottom = mass_on(axis, one) - mass_on(axis, -one)
through = torch.stack([right_minus_left, top_minus_bottom])
print(f"mean score       {mean_score[0]:.4f}  {mean_score[1]:.4f}")
print(f"border integral  {through[0]:.4f}  {through[1]:.4f}")
check("mean score against border integral", (mean_score - through).abs().max(), below=1e-3)

# %% [markdown]
# So a sampler needs a second rule, for the wall.
#
# ### Step 5: a walk that changes nothing
#
# How do you draw from a density when all you have is its score? Walk. At each step go a little uphill and add noise:
#
# $$a\;\leftarrow\;a+\frac\eta2\,\nabla\log p(a)+\sqrt\eta\,\xi,\qquad \xi\sim\mathcal N(0,I).$$
#
# This is **Langevin dynamics** with step size $\eta$. (A policy that walks like this on a learnt critic is *Langevin
# Q-learning*, 2602.07873.)
#
# Why does it sample $p$? Suppose that $a$ is distributed as $p$, and ask whether one step changes that. Take any smooth
# function $f$, and expand it at the new point to first order in $\eta$. The drift contributes
# $\frac\eta2\nabla\log p\cdot\nabla f$. The noise has mean zero, but its square has mean $\eta$ in each coordinate,
# which contributes $\frac\eta2\Delta f$, half the sum of second derivatives. So
#
# $$E f(a_{\text{new}})-E f(a)=\frac\eta2\,E\big[\nabla\log p\cdot\nabla f+\Delta f\big]+O(\eta^2).$$
#
# The bracket times $p$ is a divergence, $\nabla\!\cdot(p\,\nabla f)$. Its integral is what flows through the border:
#
# $$E\big[\nabla\log p\cdot\nabla f+\Delta f\big]=\oint p\,\frac{\partial f}{\partial\mathbf n}\,dS.$$
#
# On the whole plane this is zero: no mean changes, so $p$ stays $p$. In the box it is zero only for those $f$ that have
# no slope across the wall.
#
# **For the other $f$, mirrors on the walls do the rest.** Stand at distance $z$ from a wall. A step that goes beyond it
# by $\sqrt\eta\,\xi-z>0$ is folded back by twice that, and $f$ loses
# $2\,(\sqrt\eta\,\xi-z)\,\partial f/\partial\mathbf n$. Add up all $z$, with $p$ as at the wall:
#
# $$-2\,p\,\frac{\partial f}{\partial\mathbf n}\int_0^\infty E\big[(\sqrt\eta\,\xi-z)_+\big]\,dz
# =-2\,p\,\frac{\partial f}{\partial\mathbf n}\cdot\frac{E[(\sqrt\eta\,\xi)_+^2]}2=-\frac\eta2\;p\,\frac{\partial f}{\partial\mathbf n}.$$
#
# That cancels the border integral, for every $f$, up to order $\eta^{3/2}$.
#
# The first two formulas are checked on $f=\cos\pi a_1\,(2+\cos\pi a_2)$, which has no slope across any wall. The
# mirrors are checked where $f$ has a slope at the wall: on a line, with $p\propto e^{2a}$ and $f=a+a^3/2$.


# %%
def f(a):
    x, y = (math.pi * a).unbind(-1)
    return x.cos() * (2 + y.cos())


def bracket(target, weights, factor=1.0):
    """E[factor * score . grad f + laplacian f] under the given masses of the cells."""
    a = target.grid.double()
    x, y = (math.pi * a).unbind(-1)
    slope = -math.pi * torch.stack([x.sin() * (2 + y.cos()), x.cos() * y.sin()], -1)
    laplacian = -(math.pi**2) * x.cos() * (2 + 2 * y.cos())
    score = factor * boltzmann_score(target.q, target.alpha, a)
    return weights @ ((score * slope).sum(-1) + laplacian)


def change(weights, eta):
    """E f after one Langevin step on the three hills, less E f before."""
    start = cells + eta / 2 * boltzmann_score(q, alpha, cells)
    nodes = {-math.sqrt(3): 1 / 6, 0.0: 2 / 3, math.sqrt(3): 1 / 6}  # the first five moments of xi
    after = sum(
        nodes[x] * nodes[y] * f(start + math.sqrt(eta) * torch.tensor([x, y]))
        for x in nodes
        for y in nodes
    )
    return weights @ (after - f(cells))


uniform = rivals["uniform"]
size = bracket(exact, uniform).abs()
vanishing = max(bracket(exact, p).abs(), bracket(cut, cut.p).abs()) / size
check("bracket under p (hills, ridge), over its uniform size", vanishing, below=1e-3)
assert bracket(exact, p, factor=alpha).abs() / size > 0.1  # the same without 1 / alpha
ratio = change(uniform, 1e-4) / (1e-4 / 2 * bracket(exact, uniform))
check("uniform start: change over formula", ratio, above=0.98, below=1.02)


# %%
def reflect(a):
    return 1 - ((a + 1) % 4 - 2).abs()


def change_at_walls(wall, eta=1e-4):
    """The change of E f in one step from p = exp(2 a), over the border term, with a rule for the wall."""
    line = (torch.arange(8000, dtype=torch.float64) + 0.5) / 4000 - 1
    p, xi = (2 * line).softmax(0), torch.linspace(-6, 6, 601, dtype=torch.float64)
    weights, sloped = (-(xi**2) / 2).softmax(0), lambda a: a + a**3 / 2
    after = wall(line[:, None] + eta / 2 * 2.0 + math.sqrt(eta) * xi)  # the score is 2
    border = 4000 * (p[-1] - p[0]) * 2.5  # p f' at the right wall, less p f' at the left one
    return p @ (sloped(after) @ weights - sloped(line)) / (eta / 2 * border)


assert 0.98 < change_at_walls(lambda a: a) < 1.02  # no wall: the border term itself
check("mirrors: change over border term", change_at_walls(reflect).abs(), below=0.02)
clipping = change_at_walls(lambda a: a.clamp(-1, 1))
check("clipping: change over border term", clipping, above=0.45, below=0.55)


from som_lite.flow import langevin as package


def landing(step, box):
    """Mean, covariance and greatest coordinate of 200 000 copies of one point after a step."""
    copies = torch.tensor([[0.9, -0.3]]).repeat(200_000, 1)
    pull = lambda a: 10 * (torch.tensor([1.2, -0.8]) - a)  # noqa: E731
    after = step(pull, copies, 0.04, torch.Generator().manual_seed(20 + box), box)
    return torch.cat([after.mean(0)[None], after.T.cov()]), after.abs().max()


# %% [markdown]
# `reflect` folds the line into $[-1,1]$. Clipping leaves half of the border term.

# %% [markdown]
# ### 1. The Langevin step · ●○○ · 10 min
#
# Write the step. `score` maps points `(*batch, d)` to scores, `generator` makes the random numbers; with `box=True` the
# new point is folded back by `reflect`. The check moves 200 000 copies of one point, and compares the mean and
# covariance of where they land with the package's.


# %% tags=["exercise", "raises-exception"]
def langevin_step(score, a, eta, generator, box=True):
    raise NotImplementedError


for box in (True, False):
    (mine, farthest), (theirs, _) = (
        landing(step, box) for step in (langevin_step, package.langevin_step)
    )
    name = "in the box" if box else "without a box"
    check(f"exercise 1, {name}: mean", (mine - theirs)[0].abs().max(), below=0.003)
    check(f"exercise 1, {name}: covariance", (mine - theirs)[1:].abs().max(), below=0.002)
    if box:
        check("exercise 1, in the box: greatest coordinate", farthest, below=1 + 1e-6)
again = (landing(langevin_step, box)[0] - mine).abs().max()
check("exercise 1: difference when the same seed runs again", again, below=1e-9)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `torch.randn(a.shape, generator=generator)`: one normal number for each coordinate of each point. Look at the two
# powers of $\eta$.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# It is the package's (`som_lite.flow.langevin`).
#
# ```python
# def langevin_step(score, a, eta, generator, box=True):
#     xi = torch.randn(a.shape, generator=generator, dtype=a.dtype, device=a.device)
#     a = a + eta / 2 * score(a) + eta**0.5 * xi
#     return reflect(a) if box else a
# ```
#
# </details>

# %%
from som_lite.flow.langevin import langevin_step  # with or without your own

# %% [markdown]
# ### Step 6: the price of a finite step
#
# Finite steps sample a density that is slightly off. How much? Suppose that near a top the density is
# $\mathcal N(0,c^2)$ in each direction. The score is $-a/c^2$. A step is then linear:
# $a\leftarrow(1-\frac{\eta}{2c^2})\,a+\sqrt\eta\,\xi$. The variance $V$ follows
# $V\leftarrow(1-\frac{\eta}{2c^2})^2V+\eta$. Set both sides equal and solve:
#
# $$V=\frac{c^2}{1-\eta/(4c^2)}.$$
#
# Too wide. And from $\eta=4c^2$ on there is no limit at all: a step overshoots the top by as much as the walker was
# away from it, or more. **The narrowest direction of the density sets the step.** For a hill of width $w$ and height 1,
# $Q\approx1-|a|^2/(2w^2)$, so $c^2=\alpha w^2$. Colder means narrower, and narrower means smaller steps.

# %%
c = 0.15
generator = torch.Generator().manual_seed(2)
worst = 0.0
for ratio in (0.2, 1.0, 2.0, 3.0):
    eta, a = ratio * c**2, torch.zeros(40_000, 1)
    for _ in range(60):
        a = langevin_step(lambda a: -a / c**2, a, eta, generator, box=False)
    formula = 1 / (1 - ratio / 4)
    print(f"eta = {ratio:.1f} c^2: V = {formula:.5f} c^2")
    worst = max(worst, abs(a.var() / c**2 / formula - 1))
# 40 000 walkers make a variance uncertain by 0.7 %
check("variance over the formula, less 1, worst of four", worst, below=0.03)

# %% [markdown]
# ### Step 7: the price of a valley
#
# To reach the next hill a walker has to cross a valley, where $p$ is small. How long does it take?
#
# In one dimension there is an exact answer for small steps. Let $T$ be the mean time from a top at $x_0$ to the next at
# $x_1>x_0$, with a mirror at $-1$, where time means $\eta$ times the number of steps. Then (Gardiner, first passage
# times)
#
# $$T=2\int_{x_0}^{x_1}e^{-Q(y)/\alpha}\int_{-1}^{y}e^{Q(z)/\alpha}\,dz\,dy .$$
#
# The inner integral is dominated by the first hill, the outer one by the bottom of the valley. Let $D$ be the depth of
# the valley. The two exponentials give $e^{D/\alpha}$, and each integral covers a width of the order $\sqrt{\alpha/D}$.
# So for deep valleys
#
# $$T\;\sim\;\text{const}\cdot\frac{\alpha}{D}\;e^{\,D/\alpha}.$$
#
# This is **Arrhenius' law**, from 1889 and about chemistry. We measure it between tops at $\pm\frac12$,
# $Q(a)=-16\,D\,(a^2-\frac14)^2$: the total time that 600 walkers walked, divided by the number of arrivals.

# %%
depths = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])  # D / alpha
eta, limit = 0.002, 6000
walkers = torch.full((6, 600), -0.5)
waiting, walked = torch.ones_like(walkers, dtype=torch.bool), torch.zeros(6)
generator = torch.Generator().manual_seed(3)


def valley_score(a):
    return -64 * depths[:, None] * a * (a**2 - 0.25)  # the derivative of Q / alpha


for _ in range(limit):
    walked += eta * waiting.sum(-1)
    walkers = langevin_step(valley_score, walkers, eta, generator)
    waiting &= walkers < 0.5
arrivals = 600 - waiting.sum(-1)
measured = walked / arrivals

y = torch.linspace(-1, 0.5, 3001, dtype=torch.float64)
landscape = -16 * depths.double()[:, None] * (y**2 - 0.25) ** 2  # Q / alpha
inner = torch.cumulative_trapezoid(landscape.exp(), y)
outer = (-landscape[:, 1:]).exp() * inner
between = y[1:] >= -0.5
crossing = 2 * torch.trapezoid(outer[:, between], y[1:][between])
for depth, theory in zip(depths, crossing, strict=True):
    print(f"D / alpha = {depth:.0f}: T = {theory:8.3f}, that is {theory / eta:8.1f} steps")
assert arrivals.min() > 100
# a hundred arrivals are good to 10 %, and one between two steps is noticed late
check("largest relative error of T", (measured / crossing - 1).abs().max(), below=0.3)
growth = (crossing * depths).log().diff()  # of T D / alpha, per unit of D / alpha
check("exponent between the two deepest valleys", growth[-1], above=0.9, below=1.1)

# %% tags=["hide-input"]
fig, ax = figure(6.0, 3.6)
ax.semilogy(depths, crossing, color=COLOURS["reference"], linewidth=1.5)
ax.semilogy(depths, measured, color=COLOURS["score"], marker="v", linestyle="none", markersize=8)
ax.set(
    xlabel=r"depth of the valley over temperature, $D/\alpha$", ylabel="mean time to the other hill"
)
ax.set_yticks([2, 5, 10, 20, 40], ["2", "5", "10", "20", "40"])
ax.minorticks_off()
ax.text(3.4, 2.3, "double integral", color=COLOURS["reference"])
ax.text(2.2, 7.5, "measured", color="#a0527c")
show(
    fig,
    "Mean crossing time on a logarithmic axis against the depth of the valley in units of alpha, from 1 to 6. Measured "
    "marks lie on the line of the double integral, which rises from 2 to 40, bends up and becomes straight: an exponential.",
)

# %% [markdown]
# **What you should see.** The marks on the curve, which becomes a straight line, on this axis an exponential. Our three
# hills at $\alpha=0.1$ have valleys about nine temperatures deep. From six to nine the law adds a factor
# $e^3\cdot\frac69\approx13$: of the order of a hundred thousand steps for *one* crossing. (The constant depends on the
# landscape; we shall count.) No robot has that much time.
#
# ### Step 8: noise levels
#
# The cure is to walk on other densities first. Add noise to the actions, along the path of chapter 01,
#
# $$a_t=\mu_t\,a_0+\sigma_t\,\varepsilon,\qquad a_0\sim p,\quad \varepsilon\sim\mathcal N(0,I),$$
#
# with the path's coefficients $\mu_t=1-t$ and $\sigma_t=t$ and the time $t$ from 0 (action) to 1 (noise). Let $p_t$ be
# the density of $a_t$. At $t=1$ it is a standard normal: a single round hill, easy to sample. In between, noise fills
# the valleys. Written out, without the index of $\mu$ and $\sigma$,
#
# $$p_t(a)=\int p(a_0)\,\mathcal N\big(a;\,\mu\,a_0,\,\sigma^2 I\big)\,da_0 .$$
#
# **Its score.** Differentiate under the integral. The gradient of a normal density is the density times
# $-(a-\mu a_0)/\sigma^2$. Divide by $p_t$: by Bayes' rule, $p(a_0)\,\mathcal N/p_t$ is the density of those $a_0$ that
# may lie behind the noisy point $a$, the *posterior*. So with its mean $m(a,t)=E[a_0\mid a_t=a]$, the **posterior
# mean**, the score $s(a,t)$ is
#
# $$\boxed{\;s(a,t)=\nabla\log p_t(a)=\frac{\mu\,m(a,t)-a}{\sigma^2}\;}$$
#
# It points from where you are to the best guess of where you would be without the noise. This is **Tweedie's formula**,
# for any $\mu$ and $\sigma$. On the grid $m$ is once more a sum over cells. We check against differences of $\log p_t$,
# and against the package.


# %%
def log_weights(a, t):
    """log of p(cell) N(a; mu cell, sigma^2 I), (points, cells)."""
    mu, sigma = path.mu(t), path.sigma(t)
    square = (a[:, None] - mu * cells).square().sum(-1)
    return p.log() - square / (2 * sigma**2) - math.log(2 * math.pi * sigma**2)


def log_p(a, t):
    return log_weights(a, t).logsumexp(-1)


def noised_score(a, t):
    m = log_weights(a, t).softmax(-1) @ cells
    return (path.mu(t) * m - a) / path.sigma(t) ** 2


generator = torch.Generator().manual_seed(4)
points = 1.5 * torch.randn(20, 2, generator=generator).double()
to_slope, to_package = 0.0, 0.0
for t in (0.1, 0.4, 0.8):
    score = noised_score(points, t)
    by_differences = largest(score - differences(partial(log_p, t=t), points)) / largest(score)
    package_score = exact.noised_score(points.float(), t, path)
    to_slope = max(to_slope, by_differences)
    to_package = max(to_package, largest(score - package_score) / largest(score))
check("Tweedie against differences, worst of t = .1, .4, .8", to_slope, below=1e-5)
assert to_package < 1e-4  # against BoxBoltzmann

# %% [markdown]
# **Its step.** How narrow can $p_t$ be? Differentiate the score once more. The posterior mean contributes the
# covariance $C$ of the posterior:
#
# $$-\nabla\nabla\log p_t=\frac1{\sigma^2}\,I-\frac{\mu^2}{\sigma^4}\,C .$$
#
# A covariance can only lower this. So no top of $p_t$ is more sharply curved than a Gaussian of variance $\sigma^2$,
# **whatever $Q$ is**. By step 6 a step $\eta=\rho\,\sigma^2$ with a rate $\rho<4$ is never too large: large steps at
# high noise, small ones at low noise.

# %%
t = 0.2
jacobian = differences(partial(noised_score, t=t), points)  # (20, 2, 2): second derivatives
weights = log_weights(points, t).softmax(-1)
m = weights @ cells
second = torch.einsum("nk,ki,kj->nij", weights, cells, cells)
covariance = second - m[:, :, None] * m[:, None, :]
curvature = torch.eye(2) / t**2 - (1 - t) ** 2 / t**4 * covariance
difference = (jacobian + curvature).abs().max() * t**2
greatest = torch.linalg.eigvalsh(curvature).max() * t**2
check("curvature against differences", difference, below=1e-5)
check("greatest curvature in units of 1 / sigma^2", greatest, below=1 + 1e-9)

# %% [markdown]
# How deep are the valleys of $p_t$? We follow $\log p_t$ along the line between the two best hills (both shrink by the
# factor $\mu$), and ask how deep water would stand there (at $t=0$ that is $D/\alpha$). Beside it, the share of $p_t$
# that lies nearest to the first hill.

# %%
line = torch.linspace(-0.3, 1.3, 161, dtype=torch.float64)[:, None]
wide = torch.cartesian_prod(*2 * [torch.linspace(-3.5, 3.5, 211, dtype=torch.float64)])


def valley(t):
    """How deep water would stand on the profile of log p_t between the two best hills."""
    first, second = (1 - t) * q.centres[:2].double()
    profile = exact.noised_log_prob(first + line * (second - first), t, path)
    from_left, from_right = profile.cummax(0).values, profile.flip(0).cummax(0).values.flip(0)
    return (torch.minimum(from_left, from_right) - profile).max()


def first_share(t):
    """The mass of p_t that is nearest to the shrunk top of the first hill."""
    mass = exact.noised_log_prob(wide, t, path).softmax(0)
    return mass @ (hill(wide / (1 - t)) == 0).double()


for t in (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4):
    print(f"t = {t:.2f}: valley {valley(t):7.4f} deep, share {first_share(t):.4f}")
drift_of_share = abs(first_share(0.15) - masses[0])
check("share of the first hill at t = .15, less the final one", drift_of_share, below=0.004)

# %% tags=["hide-input"]
fig, axes = figure(9.2, 3.4, ncols=4)
for ax, t in zip(axes, (0.05, 0.2, 0.4, 0.8), strict=True):
    plane(ax, 1.5)
    plots.backdrop(ax, lambda a, t=t: exact.noised_log_prob(a, t, path))
    plots.field(ax, lambda a, t=t: t * exact.noised_score(a, t, path), 9, "score", width=0.012)
    ax.set_title(f"$t = {t}$")
show(
    fig,
    "The noised density and arrows of its score at t = 0.05, 0.2, 0.4 and 0.8. Three separate spots, with long arrows "
    "around the square that point in and hardly any within; three wider spots that touch, with arrows everywhere; one "
    "lopsided spot; one round spot near the origin with all arrows towards it.",
)

# %% [markdown]
# **What you should see.** Noise melts the three hills into one between $t=0.2$ and $t=0.4$. (The arrows are the score
# times $\sigma$.) At $t=0.05$ the plains have no slope, and only the wall is felt. From $t=0.2$ on every point knows a
# direction.

# %% [markdown]
# ## Code
#
# The plain walk is a loop around `langevin_step`. The **annealed** walk (Song and Ermon, 1907.05600) starts from noise,
# walks a few steps, goes to a lower level, walks again with the score of *that* level, and so on down. The valleys open
# slowly beneath walkers that stand in about the right shares.


# %%
def langevin(score, a, eta, steps, generator, box=True):
    if eta <= 0:
        raise ValueError(f"eta, the step size, must be above 0, got {eta}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    for _ in range(steps):
        a = langevin_step(score, a, eta, generator, box)
    return a


def annealed_langevin(score, a, path, times, steps, generator, rate=0.5):
    if not 0 < rate < 4:
        raise ValueError(f"rate, the step size over sigma^2, must lie in (0, 4), got {rate}")
    for t in times:
        eta = rate * float(path.sigma(t)) ** 2
        a = langevin(partial(score, t=t), a, eta, steps, generator, box=False)
    return a


# %% [markdown]
# There is no box at the noisy levels: $p_t$ fills the whole plane. `reflect` folds back what the last noise left
# outside.
#
# We take twenty levels with twenty steps each, then fifty steps on the clean density. Beside it, as many plain steps of
# size 0.001 (a ninth of the bound $4\alpha w^2$ for the narrow hills, $w=0.15$) from two starts.

# %%
clean_score, eta = partial(boltzmann_score, q, alpha), 0.001
quick = BoxBoltzmann(q, alpha, cells=61)  # coarser, and good enough for t >= 0.035
times = np.geomspace(0.95, 0.035, 20).tolist()

g = torch.Generator().manual_seed(5)
noise = torch.randn(2000, 2, generator=g)
noisy = annealed_langevin(
    partial(quick.noised_score, path=path), noise, path, times, 20, g, rate=1.0
)
annealed = langevin(clean_score, reflect(noisy), eta, 50, g)
from_one = langevin(clean_score, q.centres[2].repeat(2000, 1), eta, 450, g)
from_all = langevin(clean_score, 2 * torch.rand(2000, 2, generator=g) - 1, eta, 450, g)

# about ten of the 2000 get away: good to a factor of three
crossing_steps = 450 / (1 - shares(from_one)[2])
check("steps for one crossing from the third hill", crossing_steps, above=3e4, below=3e5)
from_all_error, annealed_error = ((shares(a) - masses).abs().max() for a in (from_all, annealed))
check("error of the shares, walk from everywhere", from_all_error, above=0.12)
check("error of the shares, annealed", annealed_error, below=0.05)

# %% tags=["hide-input"]
fig, axes = figure(9.0, 3.6, ncols=3)
panels = {
    "450 steps from one hill": from_one,
    "450 steps from everywhere": from_all,
    "450 annealed steps": annealed,
}
for ax, (title, walkers) in zip(axes, panels.items(), strict=True):
    plane(ax, 1.0)
    plots.backdrop(ax, exact.log_prob)
    plots.particles(ax, walkers[:1000], "score", size=3, alpha=0.5)
    ax.set_title(title)
    for k, centre in enumerate(q.centres):
        words = f"{100 * shares(walkers)[k]:.0f} % ({100 * masses[k]:.0f} %)"
        ax.text(centre[0], centre[1] - 0.3, words, ha="center", va="center")
show(
    fig,
    "Walkers over the Boltzmann density after 450 steps, with the share on each hill and the exact share in brackets. "
    "From one hill: nearly all still on the third hill. From everywhere: about a third on each, some on the plains. "
    "Annealed: close to the exact shares of 58, 25 and 18 per cent.",
)

# %% [markdown]
# **What you should see.** From one hill: nearly all are still there. From everywhere: each walker took the hill it met first.
# Annealed: about right. (Exact shares of 2000 walkers would scatter by 0.011.)
#
# **Stop and think.** Did the annealed shares *freeze* too early, when the valleys became too deep to cross? Look at the
# two columns of step 8.
#
# <details><summary>Answer</summary>
#
# No. At $t=0.15$, where the valley is only three temperatures deep, the share of the first hill is already the final
# one within 0.002. A walk that followed every level perfectly could freeze there. What is left comes from finitely many
# finite steps.
#
# </details>

# %% [markdown]
# ## Checks
#
# ### The step size, against quadrature
#
# We start walkers on our hills *at* the exact density, so that valleys play no role, and let them settle. By step 6
# each hill becomes wider by the factor $1/(1-\eta/(4c^2))$, so $E[Q]$ should fall short by about $\alpha$ times that
# factor less one: for small $\eta$, in proportion to $\eta$.

# %%
etas = [0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032]


def settled(eta, generator):
    a = langevin(clean_score, exact.sample(4000, generator), eta, 60, generator)
    total = 0.0
    for _ in range(100):
        a = langevin_step(clean_score, a, eta, generator)
        total += q(a).mean().item() / 100
    return total


biased = np.array([settled(eta, torch.Generator().manual_seed(6)) for eta in etas])
shortfall = exact.expectation(q) - biased
variances = alpha * q.widths.double() ** 2  # c^2 of each hill
predicted = alpha * masses @ (1 / (1 - 0.001 / (4 * variances)) - 1)
ratio = shortfall[2] / shortfall[1]
check("shortfall at eta = 0.001 over theory", shortfall[1] / predicted, above=0.7, below=1.4)
check("shortfall at eta = 0.002 over that at 0.001", ratio, above=1.7, below=2.6)

# %% tags=["hide-input"]
fig, ax = figure(6.0, 3.6)
ax.semilogx(etas, biased, color=COLOURS["score"], marker="v", linestyle="-.")
ax.axhline(exact.expectation(q), color=COLOURS["reference"], linewidth=1.2)
ax.axhline(value.mean(), color=COLOURS["noise"], linestyle=":", linewidth=1.2)
ax.axvline(4 * alpha * q.widths.min() ** 2, color=COLOURS["error"], linestyle=(0, (1, 1)))
ax.set(xlabel=r"step size $\eta$", ylabel="E[Q] of the walk", ylim=(0, 1))
ax.text(0.00052, 0.885, "exact")
ax.text(0.00052, 0.165, "uniform policy")
ax.text(0.0094, 0.93, r"$4\alpha w^2$", color=COLOURS["error"])
show(
    fig,
    "E[Q] of the settled walk against the step size on a logarithmic axis. It starts just below the exact value, "
    "sags as the step grows to the dotted vertical line at 4 alpha w squared, and falls beyond it to near the value of "
    "a uniform policy.",
)

# %% [markdown]
# **What you should see.** Up to $\eta=0.001$ the walk is nearly exact. Then it sags, and past the bound of the narrow
# hills it falls. Nothing overflows: the walk just quietly becomes useless. And the bound moves with the critic: steeper
# hills, smaller steps.
#
# ### Why not just follow the gradient?
#
# Five policies: **climb**, gradient ascent as in the first picture; **Gaussian, one**, the best Gaussian in the sense
# of $J$, found by ascent on $J$ from each hill and from the middle; **Gaussian, all**, with the mean and covariance of
# the Boltzmann density; **Boltzmann**; **uniform**. Climbers end in points, so their entropy is minus infinity. They
# also climb *uneven* hills, of heights 1, 0.4 and 0.3.


# %%
def log_gaussian(mean, log_std):
    """A Gaussian with independent coordinates, cut off at the walls."""
    return (-0.5 * ((cells - mean) / log_std.exp()).square().sum(-1)).log_softmax(0)


def best_gaussian(start, std, steps=120):
    """Maximise J over mean and standard deviations."""
    mean = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    log_std = torch.full((2,), math.log(std), dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([mean, log_std], lr=0.05)
    for _ in range(steps):
        log_pi = log_gaussian(mean, log_std)
        pi = log_pi.exp()
        loss = -(pi @ (value - alpha * log_pi))
        adam.zero_grad()
        loss.backward()
        adam.step()
    return log_gaussian(mean.detach(), log_std.detach()).exp()


starting_points = [*((centre.tolist(), 0.1) for centre in q.centres), ([0.0, 0.0], 0.5)]
policies = {
    "Boltzmann": p,
    "Gaussian, one": max((best_gaussian(*start) for start in starting_points), key=objective),
    "Gaussian, all": rivals["Gaussian"],
    "uniform": uniform,
}
print(f"{'':<14}    E[Q]        H        J    hill 1   hill 2   hill 3")
for name, pi in policies.items():
    on_hills = torch.zeros(3, dtype=torch.float64).index_add(0, hill(cells), pi)
    numbers = (pi @ value, entropy(pi), objective(pi), *on_hills)
    print(f"{name:<14}" + "".join(f"{number:9.5f}" for number in numbers))
climbers = f"{q(tops).mean():9.5f}{'-inf':>9}{'-inf':>9}"
print(f"{'climb':<14}{climbers}" + "".join(f"{share:9.5f}" for share in shares(tops)))
lost = objective(p) - objective(policies["Gaussian, one"])
price = alpha * math.log(1 / masses[0])
check("J lost by the best Gaussian, over alpha log 1/M", lost / price, above=0.9, below=1.2)

uneven = Bumps(q.centres, q.widths, torch.tensor([1.0, 0.4, 0.3]))
uneven_tops = climb(uneven, starts)
by_boltzmann = BoxBoltzmann(uneven, alpha).expectation(uneven)
print(f"\nuneven hills: E[Q] of the Boltzmann density {by_boltzmann:.5f}")
on_poor_top = (torch.cdist(uneven_tops, q.centres[1:]) < 0.05).any(-1)
check("uneven hills: share of climbers on a poor top", on_poor_top.float().mean(), above=0.35)
check("uneven hills: E[Q] of the climbers", uneven(uneven_tops).mean(), below=0.6)

# %% [markdown]
# **Climbing** has no notion of better or worse hills: of the uneven ones four climbers in ten stand on a poor top.
# **The best Gaussian** gives up two hills, at a price of about $\alpha\log\frac1M$. It is a fine policy until its hill
# turns out to be an error of the critic. **The Gaussian that keeps all hills** acts worst of all but the uniform
# policy. **The Boltzmann density** keeps every hill in proportion to what it is worth. But it has no formula for
# samples. The rest of the book pays that price.
#
# ### What is still missing
#
# Every sampler from here on needs the score of $p_t$. We took it from a grid, and that cannot last: $201^d$ cells are
# $10^{14}$ for the six motors of HalfCheetah.
#
# **And there is no shortcut through $\nabla Q$.** Two tempting formulas replace the score of $p_t$:
#
# 1. *The gradient at the noisy point*, $\nabla Q(a_t)/\alpha$. It is the idea of QSM (2312.11752).
# 2. *The gradient of the mean $Q$*, $\nabla E[Q(a_0)\mid a_t]/\alpha$. Critics that are trained on noisy actions by
#    regression learn such a mean (ACA, 2509.21022; NC-LQL, 2602.07873).
#
# Policies are built on both (chapter 10). But neither is the score of $p_t$. Let the actions behind the noise be uniform on the
# square, and let $\bar p_t$ be the density of noisy uniform actions. Bayes' rule gives
#
# $$\log p_t(a)=\log\bar p_t(a)+\log E\big[e^{Q(a_0)/\alpha}\mid a_t=a\big]+\text{const}.$$
#
# So the *exponential* has to be averaged, not $Q$. How wrong are the shortcuts? We grant everyone the gradient of
# $\log\bar p_t$, and ask for the rest, the part of the score that $Q$ is responsible for: error over the size of that
# part. The formula above is the third candidate.

# %%
coarse = BoxBoltzmann(q, alpha, cells=67).grid.double()
coarse_value = q(coarse)


def shortcut_errors(t, count=150):
    g = torch.Generator().manual_seed(8)
    a = path.noise(exact.sample(count, g), torch.randn(count, 2, generator=g), t).double()

    def behind(a):
        """log N(a; mu a_0, sigma^2 I) for all cells a_0, up to a constant."""
        return -(a[:, None] - (1 - t) * coarse).square().sum(-1) / (2 * t**2)

    def log_flat(a):
        return behind(a).logsumexp(-1)

    def mean_q(a):
        return behind(a).softmax(-1) @ coarse_value / alpha

    def log_mean_exp(a):
        return (behind(a) + coarse_value / alpha).logsumexp(-1) - log_flat(a)

    part_of_q = exact.noised_score(a, t, path) - differences(log_flat, a)
    candidates = {
        "gradient at the noisy point": boltzmann_score(q, alpha, a),
        "gradient of the mean Q": differences(mean_q, a),
        "gradient of the log-mean-exp": differences(log_mean_exp, a),
    }
    size = part_of_q.square().mean().sqrt()
    return {
        name: (guess - part_of_q).square().mean().sqrt() / size
        for name, guess in candidates.items()
    }


table = {t: shortcut_errors(t) for t in (0.1, 0.3, 0.6)}
print(f"{'relative error at':<30}" + "".join(f"  t = {t}" for t in table))
for name in ("gradient at the noisy point", "gradient of the mean Q"):
    print(f"{name:<30}" + "".join(f"{table[t][name]:9.5f}" for t in table))
worst_formula = max(errors["gradient of the log-mean-exp"] for errors in table.values())
check("largest error of the log-mean-exp", worst_formula, below=0.02)

# %% [markdown]
# An error of 1 is no better than answering zero. The gradient at the noisy point is worse than that at each of the three
# times, and the gradient of the mean $Q$ is a third off even at the last. So the score of $p_t$ needs an average over clean actions, weighted by
# $e^{Q/\alpha}$, for every noisy point. An average is something one can *estimate*, from a few dozen values of $Q$.
# That is chapter 04.

# %% [markdown]
# ## Explorer
#
# Left: the policy $\exp(Q/\alpha)/Z$. Right: the same density noised to time $t$, on a larger window, with arrows of
# its score (long ones shortened).

# %%
boltzmann_explorer(q)

# %% [markdown]
# **What you should see.** At $t=0$ there are arrows only inside the dashed square. At $t=0.05$ arrows appear outside,
# all pointing in: the wall. Further up the spots melt together. Lower $\alpha$: the spots on the left shrink, $E[Q]$
# rises and the entropy falls, always together.

# %% [markdown]
# ## What can go wrong
#
# ### No noise
#
# Leave out $\sqrt\eta\,\xi$, and the walk is gradient ascent. $E[Q]$ even looks better. What gives it away is the
# spread around a top.

# %%
g = torch.Generator().manual_seed(9)
silent = exact.sample(2000, g)
for _ in range(300):
    silent = reflect(silent + eta / 2 * clean_score(silent))
walking = langevin(clean_score, exact.sample(2000, g), eta, 100, g)


def spread_on_first(a):
    """The mean square distance from the first top of the points that are near it."""
    square = (a - q.centres[0]).square().sum(-1)
    return square[square < 0.3**2].mean()


right_spread = spread_on_first(exact.sample(20_000, g))
check("E[Q] without noise, less E[Q] of the walk", q(silent).mean() - q(walking).mean(), above=0.08)
with_noise, without = (spread_on_first(a) / right_spread for a in (walking, silent))
assert 0.85 < with_noise < 1.2
check("spread over the exact one, without noise", without, below=0.05)

# %% [markdown]
# ### The temperature forgotten, or used twice
#
# There are two right places for $\alpha$. Divide the gradient by it, or multiply the variance of the noise by it:
#
# $$\tfrac\eta2\,\nabla Q/\alpha+\sqrt\eta\,\xi \qquad\text{or}\qquad \tfrac\eta2\,\nabla Q+\sqrt{\alpha\eta}\,\xi .$$
#
# The second is the first with the step $\alpha\eta$. Let the drift be $\frac\eta2\lambda\nabla Q$ and the noise have
# the variance $\nu\eta$: a Langevin step of size $\nu\eta$ with the score $\lambda\nabla Q/\nu$. So the walk samples
# the Boltzmann density of the *effective temperature* $\nu/\lambda$: 1 if $\alpha$ is forgotten, $\alpha^2$ if it is
# used twice.

# %%
warm_alpha = 0.2
warm = BoxBoltzmann(q, warm_alpha).sample(2000, torch.Generator().manual_seed(10))


def move(a, step, drift, variance, generator):
    """step / 2 drift grad Q + sqrt(variance step) xi: both forms of the text, and the wrong ones."""
    xi = torch.randn(a.shape, generator=generator)
    return a + step / 2 * drift * boltzmann_score(q, 1.0, a) + math.sqrt(variance * step) * xi


first, second = (
    move(warm, *form, torch.Generator().manual_seed(10))
    for form in ((0.001, 1 / warm_alpha, 1.0), (0.001 / warm_alpha, 1.0, warm_alpha))
)
check("the two right forms, same noise: difference", largest(first - second), below=1e-6)
recipes = {  # the factors lambda and nu
    "right": (1 / warm_alpha, 1.0),
    "alpha forgotten": (1.0, 1.0),
    "alpha twice": (1 / warm_alpha, warm_alpha),
}
for name, (drift, variance) in recipes.items():
    walkers, g = warm, torch.Generator().manual_seed(10)
    step = 0.005 / max(drift, 5 * variance)  # so that the Langevin step is at most 0.001
    for _ in range(1500):
        walkers = reflect(move(walkers, step, drift, variance, g))
    temperature = variance / drift
    theory = BoxBoltzmann(q, temperature).expectation(q)
    print(f"{name:<16} effective temperature {temperature:.2f}  E[Q] by quadrature {theory:.5f}")
    # 2000 walkers: .008; finite steps take the rest
    check(f"{name}: error of E[Q]", abs(q(walkers).mean() - theory), below=0.04)

# %% [markdown]
# ### The box ignored, or clipped
#
# What happens to a walker that steps out of the box?
#
# **Nothing.** Then it samples $\exp(Q/\alpha)$ on the whole plane, where a learnt critic has never seen data. On
# `ridge` we count who leaves.
#
# **Clip** to the nearest point of the box, as NC-LQL's code does (`ku-dmlab/NCLQL`). That puts a *positive share of the
# walkers exactly on the faces*: without drift and with small steps, about $\sqrt{\eta/2}\,/\,(2+1.165\sqrt\eta)$ on each end of a line (Siegmund, *Sequential
# Analysis*).
#
# **Reflect.** Without drift a folded step leads from $a$ to $b$ as often as back, so the uniform density stays uniform.
#
# We compare on $Q=0$, with $\eta=0.01$.

# %%
g, step = torch.Generator().manual_seed(11), 0.01
clipped = 2 * torch.rand(20_000, 2, generator=g) - 1
folded = clipped
for _ in range(300):
    clipped = (clipped + math.sqrt(step) * torch.randn(clipped.shape, generator=g)).clamp(-1, 1)
    folded = langevin_step(torch.zeros_like, folded, step, g)
face = math.sqrt(step / 2) / (2 + 1.165 * math.sqrt(step))
theory = 1 - (1 - 2 * face) ** 2  # on some face, unless both coordinates are inside
for d in (2, 6):
    print(f"share on the border in {d} dimensions, by the formula: {1 - (1 - 2 * face) ** d:.5f}")
on_border = (clipped.abs() == 1).any(-1).float().mean()
check("clipped: error of the share on the border", abs(on_border - theory), below=0.01)
check("reflected: share on the border", (folded.abs() == 1).any(-1).float().mean(), below=1e-3)

wandering = BoxBoltzmann(ridge, alpha).sample(2000, g)
wandering = langevin(partial(boltzmann_score, ridge, alpha), wandering, eta, 1500, g, box=False)
check("no wall: share of walkers outside", (wandering.abs() > 1).any(-1).float().mean(), above=0.08)

# %% tags=["hide-input"]
fig, (left, right) = figure(8.4, 3.7, ncols=2)
bins = np.linspace(-1, 1, 41)
left.hist(clipped[:, 0], bins, density=True, histtype="step", color=COLOURS["error"], linewidth=1.5)
left.hist(folded[:, 0], bins, density=True, color=COLOURS["score"], alpha=0.5)
left.plot([-1, 1], [0.5, 0.5], color=COLOURS["reference"], linewidth=1.0)
left.set(xlabel="$a_1$", title="density of $a_1$ for $Q=0$", xlim=(-1.1, 1.1), ylim=(0, 1.3))
left.annotate("uniform: 1/2", (0.0, 0.5), (-0.3, 0.72), arrowprops={"arrowstyle": "-", "lw": 0.7})
left.text(0, 0.95, "clipped: outline,  reflected: filled", ha="center")
plane(right, 1.5)
plots.particles(right, wandering, "error", size=2.5, alpha=0.6)
square = torch.tensor([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]])
right.plot(*square.T, color=COLOURS["reference"], linestyle="--", linewidth=1.0)
right.set_title("ridge, no wall")
show(
    fig,
    "Left: histograms of a_1 for a critic without preference. Reflected walkers fill an even block along a black line at "
    "one half, the uniform density. The outline of the clipped ones lies a little lower, with a spike at each end. Right: "
    "walkers on the ridge without a wall, a long cloud along the diagonal, part of it outside the upper right corner of "
    "the dashed square.",
)

# %% [markdown]
# **What you should see.** Left: clipped walkers pile up at both ends. On the square one in eight sits *exactly* on the
# border, in six dimensions one in three. Right: a policy that asks for actions that do not exist.

# %% [markdown]
# ## Exercises
#
# Replace the body of a stub and run the cell: ✓ lines say that you are done. Exercise 1 was the Langevin step.

# %% [markdown]
# ### 2. A slope between two walls · ●○○ · 15 min
#
# The simplest critic is linear: one motor, $Q(a)=k\,a$ on $[-1,1]$. Find $E[a]$ under the Boltzmann density in closed
# form. What are its limits for $\alpha\to0$ and $\alpha\to\infty$?


# %% tags=["exercise", "raises-exception"]
def mean_action(k, alpha):
    raise NotImplementedError


for k, temperature in ((1.0, 0.5), (-3.0, 0.4), (0.2, 1.0)):
    by_quadrature = (k * axis / temperature).softmax(0) @ axis
    error = abs(mean_action(k, temperature) - by_quadrature)
    check(f"exercise 2: k = {k:g}, alpha = {temperature:g}", error, below=1e-4)

# %% [markdown]
# <details><summary>Hint</summary>
#
# $Z(\beta)=\int_{-1}^1e^{\beta ka}\,da$ is elementary. Step 3 says how to get $E[Q]$ from $\log Z$.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# With $x=k/\alpha$, $Z=2\sinh x/x$, and $E[a]=\frac{d\log Z}{dx}=\coth x-\frac1x$. For $\alpha\to0$ this is $\pm1$, the
# better wall. For $\alpha\to\infty$ it is $x/3\to0$. Physicists call it the *Langevin function*: the same Langevin, on
# magnets, in 1905.
#
# ```python
# def mean_action(k, alpha):
#     x = k / alpha
#     return 1 / math.tanh(x) - 1 / x
# ```
#
# </details>

# %% [markdown]
# ### 3. Find the bug · ●○○ · 10 min
#
# To use one $\alpha$ for tasks of any scale, people bring $Q$ to mean 0 and standard deviation 1 before the softmax.
# This is the weighting of the agent DPMD in the repository `mahaitongdae/diffusion_policy_online_rl` (there with
# running averages). Repair it.
#
# ```python
# def weights(q, alpha):
#     normalised = q - q.mean() / q.std()
#     return (normalised / alpha).softmax(0)
# ```
#
# The check takes a critic and the same critic in another currency, ten times as large and shifted. Both must give the
# same policy.


# %% tags=["exercise", "raises-exception"]
def repaired_weights(q, alpha):
    raise NotImplementedError


for temperature in (0.3, 1.0):
    mine = repaired_weights(value, temperature)
    other = repaired_weights(10 * value + 3, temperature)
    name = f"exercise 3, alpha = {temperature:g}"
    check(f"{name}: change of the policy", (mine - other).abs().sum(), below=1e-6)
    by_hand = boltzmann(temperature * value.std())
    # loose enough for both definitions of a standard deviation, with n and with n - 1
    check(f"{name}: distance from the policy", (mine - by_hand).abs().sum(), below=1e-3)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Multiply `q` by ten in your head, and follow the line term by term. What does the softmax do with a constant that is
# subtracted from all its inputs?
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# Brackets. Without them the line subtracts a constant, which drops out with $Z$: it does *nothing*. The temperature
# then means something else in every task. A test with one critic cannot see it. Test a normalisation with two scales.
#
# ```python
# def repaired_weights(q, alpha):
#     normalised = (q - q.mean()) / q.std()
#     return (normalised / alpha).softmax(0)
# ```
#
# </details>

# %% [markdown]
# ### 4. A gradient without its length · ●●○ · 20 min
#
# Some samplers, NC-LQL's among them, drop the length of the gradient: in place of the score they take
# $\kappa\,\nabla Q/\|\nabla Q\|$, with a fixed $\kappa$. Take a round hill in the plane, with its top at the origin,
# far from any wall. Which density does the walk sample, for small steps? Return its mean distance from the top. Does it
# depend on $\alpha$, or on the shape of the hill?


# %% tags=["exercise", "raises-exception"]
def mean_distance(kappa):
    raise NotImplementedError


g = torch.Generator().manual_seed(12)
for kappa in (10.0, 20.0):
    drift = partial(lambda a, k: -k * a / a.norm(dim=-1, keepdim=True).clamp(min=1e-9), k=kappa)
    walkers = langevin(drift, torch.zeros(4000, 2), 0.02 / kappa**2, 1500, g)
    measured_distance = walkers.norm(dim=-1).mean()
    error = abs(mean_distance(kappa) / measured_distance - 1)
    check(f"exercise 4: relative error, kappa = {kappa:g}", error, below=0.06)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Of which function is $-\kappa\,a/\|a\|$ the gradient? Use polar coordinates for the mean.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# $-\kappa\,a/\|a\|=\nabla(-\kappa\|a\|)$, so the walk samples $p\propto e^{-\kappa\ell}$ with $\ell=\|a\|$: a tent, not
# a parabola. In the plane $\ell$ has the density $\propto\ell\,e^{-\kappa\ell}$, and the mean $2/\kappa$. Neither
# $\alpha$ nor the height of the hill appears: $\kappa$ has taken the place of the temperature. With more hills it gets
# worse, since a poor hill pulls exactly as hard as a good one.
#
# ```python
# def mean_distance(kappa):
#     return 2 / kappa
# ```
#
# </details>

# %% [markdown]
# ### 5. Take the bias away by saying no · ●●○ · 30 min
#
# The bias of step 6 can be removed completely. Propose a Langevin step from $a$ to $b$, without a box, and accept it
# with the probability
#
# $$\min\Big(1,\;\frac{p(b)\;\varphi(a\mid b)}{p(a)\;\varphi(b\mid a)}\Big),\qquad \varphi(b\mid a)=\mathcal N\big(b;\;a+\tfrac\eta2 s(a),\;\eta I\big);$$
#
# otherwise stay at $a$. (Metropolis, Hastings; with this proposal, MALA.) `log_p` maps points `(*batch, d)` to
# `(*batch)` and may lack its normalising constant. The check takes a step with which the variance of the plain walk is
# twice too large.


# %% tags=["exercise", "raises-exception"]
def metropolis_step(log_p, score, a, eta, generator):
    raise NotImplementedError


g, a = torch.Generator().manual_seed(13), torch.zeros(20_000, 2)
for _ in range(100):
    before, a = (
        a,
        metropolis_step(
            lambda a: -a.square().sum(-1) / (2 * c**2), lambda a: -a / c**2, a, 2 * c**2, g
        ),
    )
check("exercise 5: relative error of the variance", (a.var(0) / c**2 - 1).abs().max(), below=0.05)
check("exercise 5: correlation of the two coordinates", torch.corrcoef(a.T)[0, 1].abs(), below=0.05)
stayed = ((a - before).norm(dim=-1) < 1e-5).float().mean()
check("exercise 5: share of refused steps", stayed, above=0.3, below=0.37)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Work with logarithms. $\log\varphi(b\mid a)=-\|b-a-\frac\eta2s(a)\|^2/2\eta$ up to a constant that cancels. Draw one
# uniform number per row and compare its logarithm. The decision has one axis less than the points.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# The ratio makes the flow from $a$ to $b$ equal to the flow back, for every pair. Then $p$ stays as it is, for any step
# size. Too large a step is no longer wrong, only wasteful. It does not help against valleys.
#
# ```python
# def metropolis_step(log_p, score, a, eta, generator):
#     def log_phi(b, a):
#         return -(b - a - eta / 2 * score(a)).square().sum(-1) / (2 * eta)
#
#     b = langevin_step(score, a, eta, generator, box=False)
#     log_ratio = log_p(b) + log_phi(a, b) - log_p(a) - log_phi(b, a)
#     accept = torch.rand(log_ratio.shape, generator=generator).log() < log_ratio
#     return torch.where(accept[..., None], b, a)
# ```
#
# </details>

# %% [markdown]
# ### 6. Take the bias away by remembering · ●●● · 40 min
#
# Another cure refuses nothing and needs no density. Let each step use the noise of the step before once more:
#
# $$a_{n+1}=a_n+\frac\eta2\,s(a_n)+\sqrt\eta\,\big(x\,\xi_n+y\,\xi_{n+1}\big).$$
#
# Two conditions fix the numbers $x$ and $y$. On flat ground ($s=0$) the walk must spread as before: variance $n\eta$
# after many steps $n$. And for the Gaussian of step 6 the variance must be exactly $c^2$, *for every* $\eta<4c^2$.
# Derive them. (Mind that $a_n$ and $\xi_n$ are correlated.) The step takes the last noise `xi` and returns the new
# point and the new noise.


# %% tags=["exercise", "raises-exception"]
def remembering_step(score, a, xi, eta, generator):
    raise NotImplementedError


on_hill = lambda a: -a / c**2  # noqa: E731
walks = {"flat ground, variance over n eta": (torch.zeros_like, 0.01, 60 * 0.01)}
walks |= {f"V / c^2 at eta = {x:g} c^2": (on_hill, x * c**2, c**2) for x in (1.0, 2.0, 3.0)}
for name, (score, eta, right_variance) in walks.items():
    g = torch.Generator().manual_seed(14)
    a, xi = torch.zeros(20_000, 2), torch.randn(20_000, 2, generator=g)
    for _ in range(60):
        a, xi = remembering_step(score, a, xi, eta, g)
    check(f"exercise 6: {name}", a.var() / right_variance, above=0.97, below=1.03)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Flat ground: after many steps each $\xi_n$ has been added $x+y$ times. For the Gaussian write
# $a_{n+1}=\theta a_n+\dots$ with $\theta=1-\eta/2c^2$. The covariance of $a_n$ and $\xi_n$ is $\sqrt\eta\,y$.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# Flat ground asks for $x+y=1$. With $\theta=1-\eta/2c^2$ the stationary variance fulfils
# $V=\theta^2V+\eta(x^2+y^2)+2\theta\eta\,xy$. Put in $x^2+y^2=1-2xy$: $(1-\theta^2)V=\eta\,(1-2xy(1-\theta))$. With
# $1-\theta=\eta/2c^2$ that is $V=c^2\,\frac{1-xy\,\eta/c^2}{1-\eta/4c^2}$, which is $c^2$ for every $\eta$ if
# $xy=\frac14$. So $x=y=\frac12$: the mean of the last two noises. (Leimkuhler and Matthews, 2013. For other densities a
# bias remains, but it is of the order $\eta^2$.)
#
# ```python
# def remembering_step(score, a, xi, eta, generator):
#     new = torch.randn(a.shape, generator=generator)
#     return a + eta / 2 * score(a) + eta**0.5 * (xi + new) / 2, new
# ```
#
# </details>

# %% [markdown]
# ## Summary
#
# * A critic is the mean discounted return after doing $a$ in $s$ and then following *one* policy. It grades; it does
#   not choose.
# * The policy with the largest $E[Q]+\alpha H$ is $e^{Q/\alpha}/Z$. Losing all but a share $M$ of it costs only
#   $\alpha\log\frac1M$: a high $J$ does not prove that all hills are there.
# * Cooling raises $E[Q]$ and lowers the entropy. Only $Q/\alpha$ counts, up to a constant.
# * The score $\nabla Q/\alpha$ needs no $Z$. It does not see the wall; mirrors do.
# * Langevin dynamics leaves $p$ as it is, up to a bias of order $\eta$. The narrowest hill sets the step ($\eta<4c^2$).
#   A valley of depth $D$ costs a time $\sim e^{D/\alpha}$.
# * Noise fills valleys. The noised density has the score $(\mu m-a)/\sigma^2$ and allows steps in proportion to
#   $\sigma^2$.
# * Before trusting a sampler, check shares, spread, $E[Q]$ and the border on a known density.

# %% [markdown]
# ## References
#
# * Haarnoja and others: *Deep Energy-Based Policies*, [1702.08165](https://arxiv.org/abs/1702.08165). Steps 1 and 2,
#   for whole episodes.
# * Haarnoja and others: *Soft Actor-Critic*, [1801.01290](https://arxiv.org/abs/1801.01290): the "Gaussian, one".
# * Ki, Ahn, Kim, Lee: *Direct Soft-Policy Sampling via Langevin Dynamics*,
#   [2602.07873](https://arxiv.org/abs/2602.07873). Langevin Q-learning, and a noise-conditioned critic (NC-LQL).
# * Psenka and others: *Q-Score Matching* (QSM), [2312.11752](https://arxiv.org/abs/2312.11752).
# * Song, Ermon: *Generative Modeling by Estimating Gradients of the Data Distribution*,
#   [1907.05600](https://arxiv.org/abs/1907.05600).
# * Roberts, Tweedie: *Exponential convergence of Langevin distributions and their discrete approximations*, Bernoulli
#   2(4), 1996. Exercise 5.
# * Leimkuhler, Matthews: *Rational construction of stochastic numerical methods for molecular sampling*, AMRX 2013(1).
#   Exercise 6.
# * Gardiner: *Stochastic Methods*, Springer.
#
# ---
#
# Previous: [02 · MeanFlow](02_meanflow.ipynb). Next: [04 · A score without samples](04_score_without_samples.ipynb).
