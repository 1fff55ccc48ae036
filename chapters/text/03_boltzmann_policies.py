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
# **What you will do.** You compute a critic exactly, in a world of five cells. You turn a critic into a density of
# actions, and check every formula about that density on a grid. Then you draw from it: by a random walk that
# climbs, and, when the walk gets stuck, by adding noise and taking it away. At the end you break the walk in the ways
# that happen in practice.
#
# **What you will learn.** What $Q$ is, without any course in reinforcement learning. Why $\exp(Q/\alpha)$ is the
# right density and what the temperature $\alpha$ costs. What a score is. Why Langevin dynamics works, why it is slow,
# and how slow. And the answer to a fair question: why not just follow the gradient of $Q$?
#
# **What you need.** Calculus (gradients, the divergence theorem), probability and PyTorch. From chapter 01 only the
# path that adds noise, and it is repeated here. No reinforcement learning.
#
# **Time and hardware.** ≈ 25 s on one CPU core; allow two to three hours for reading and exercises. No GPU.
#
# Previous: [02 · MeanFlow](02_meanflow.ipynb). Next: [04 · A score without samples](04_score_without_samples.ipynb).

# %% [markdown]
# ## The idea in one picture
#
# ### A critic on one page
#
# A robot acts again and again. What it sees is the **state** $s$. What it does is the **action** $a$. For each action it
# is paid a **reward** $R$, a number, and finds itself in the next state. Call the rewards $R_0, R_1, R_2,\dots$ The
# **return** $G$ adds them up, later ones for less:
#
# $$G = R_0+\gamma\,R_1+\gamma^2 R_2+\cdots, \qquad 0\le\gamma<1 .$$
#
# The number $\gamma$ is called the *discount*. It says how much a reward loses by coming one step later.
#
# A **policy** $\pi(a\mid s)$ is a rule for acting: in state $s$ it draws the action from this distribution. Now fix a
# policy. The **critic** grades one action: do $a$ in state $s$, from then on follow $\pi$, and take the mean return,
#
# $$Q(s,a)=E\,[\,G \mid \text{start in } s,\; \text{do } a,\; \text{then follow } \pi\,].$$
#
# **An example you can solve.** A corridor has five cells in a row, 0 to 4. The robot steps left or right. Leaving on
# the left pays 1, leaving on the right pays 3, and nothing else pays. The discount is 0.8. The policy flips a coin at
# every step.
#
# Look at the return one step later. What follows the first reward is a return again, discounted once. So
#
# $$Q(s,a)=R+\gamma\,E_{a'\sim\pi}\,[\,Q(s',a')\,],$$
#
# where $R$ is the reward for $a$ in $s$ and $s'$ the cell that follows, and $Q=0$ once the robot has left. (Where chance
# decides what follows, average over that as well.) This is the *Bellman equation*: here, ten linear equations for ten
# numbers. We solve them, and hold the answer against its definition: we play each of the ten beginnings 20 000 times and
# average the returns. A return lies between 0 and 3, so such a mean is uncertain by at most 0.011; we allow four times
# that.

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
check("Bellman equation against played episodes", (corridor - played).abs().max(), below=0.045)

# %% [markdown]
# In cells 0 and 1 the critic prefers left: 1 soon beats 3 much later. From cell 2 on it prefers right. Note what it does
# *not* say: it grades each action, and gives no rule for choosing. That rule is the subject of this chapter. (How a
# critic is learnt from experience is another subject. Here it is simply given.)
#
# **From here on** the state is fixed and we write $Q(a)$. The action is no longer left or right but a point of the
# square $[-1,1]^2$: two motors, each between full reverse and full ahead. Our critic `q` is a landscape with three
# hills, of heights 1, 0.97 and 0.93. Read them as three good ways to pass an obstacle. The first hill is wider than
# the others: that way forgives small errors.
#
# ### The picture
#
# We want a policy that prefers high $Q$. Here are three ideas.
#
# 1. **Follow the gradient.** Start anywhere, walk uphill, act where you arrive.
# 2. **Fit a Gaussian.** Most policies in use are Gaussians: a mean and a spread. Here is the one that fits best (in
#    likelihood) the points of the third panel.
# 3. **Take a density that grows with $Q$,** $p(a)=\exp(Q(a)/\alpha)/Z$, and draw from it. The number $\alpha>0$ is the
#    *temperature*. The constant $Z$ makes the total mass 1. This is the **Boltzmann density**.
#
# The package has it as `BoxBoltzmann`, computed on a grid of cells. How, is the first step of the derivation.

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
show(
    fig,
    "Three panels over the pale hills of Q on the square. Follow the gradient: most points on the three tops, some "
    "scattered in the corners between the hills. A Gaussian: a broad tilted cloud around the middle of the square, mostly where Q is low. The Boltzmann density: a "
    "small round cloud on each top, the largest at the lower left.",
)

# %% [markdown]
# **What you should see.** The pale hills of $Q$ three times. On the left the climbers: most of them on three spots
# (enlarged), the others still on the plains where they started, since a plain has no slope to follow. In the middle the
# Gaussian: its mean lies *between* the hills, where acting is useless. On the right the Boltzmann density: all three
# hills, each with some play around its top.
#
# The left panel hides one more fault. How many climbers reach each top has nothing to do with how good it is, only
# with how large a part of the square slopes towards it. The widest and best hill holds more than half of the
# Boltzmann density, and gets two in five of the climbers.

# %%
masses = torch.zeros(3, dtype=torch.float64).index_add(0, hill(exact.grid), exact.p)
print("share of each hill, exactly: " + "  ".join(f"{mass:.5f}" for mass in masses))
arrived = torch.cdist(tops, q.centres).amin(-1) < 0.05
check("share of climbers that have reached a top", arrived.float().mean(), above=0.75, below=0.95)
check(
    "share of all climbers on the best hill",
    (arrived & (hill(tops) == 0)).float().mean(),
    below=0.42,
)
check("E[Q] of the Gaussian", q(gaussian).mean(), below=0.25)
check("E[Q] of the Boltzmann samples", q(samples).mean(), above=0.8)

# %% [markdown]
# ## Derivation
#
# ### Step 0: expectations on a grid
#
# On a square, every integral is a sum. Cut the square into small cells of equal area. The mass of a cell is
# $\exp(Q/\alpha)$ at its centre, divided by the sum over all cells: a softmax. An expectation is a sum over cells,
# weighted by mass. The *entropy*
#
# $$H(p)=-\int p(a)\log p(a)\,da$$
#
# needs the density of a cell, its mass divided by its area. That is all. We call this *quadrature*, and treat it
# as the truth: the error falls with the square of the cell's width. `BoxBoltzmann` does the same; the cell compares the
# two. (It evaluates $Q$ in 32 bits, we in 64, hence $10^{-5}$.)

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
check("E[Q] here and in BoxBoltzmann", abs(p @ value - exact.expectation(q)), below=1e-5)
check("entropy here and in BoxBoltzmann", abs(entropy(p) - exact.entropy()), below=1e-5)

# %% [markdown]
# ### Step 1: what the policy should maximise
#
# The greedy choice is to maximise $E_\pi[Q]$, the mean grade under a policy $\pi$. Its answer is a single point. Three
# things speak against it. The critic is an estimate, and the top of an estimate is where its errors are largest. A
# policy that always does the same never finds out about the rest. And when two ways are equally good, why drop one?
#
# So we pay for randomness. A bonus of $\alpha$ per unit of entropy gives the *maximum-entropy objective*:
#
# $$J(\pi)=E_\pi[Q]+\alpha\,H(\pi).$$
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
# and the maximiser of $J$ is $p=\exp(Q/\alpha)/Z$, with the maximum $\alpha\log Z$. No other step was needed.
#
# A nice special case: let $\pi$ be $p$ *restricted* to a region of mass $M$. There $\pi/p=1/M$, so the gap is exactly
#
# $$\alpha\,\mathrm{KL}=\alpha\log\frac1M .$$
#
# We check both on four rivals: the uniform density, the Gaussian with the mean and covariance of $p$ (cut off at the
# walls), the Boltzmann density of another temperature, and $p$ restricted to its largest hill. Both sides are sums over cells, so
# they agree to rounding.


# %%
def objective(pi):
    return pi @ value + alpha * entropy(pi)


def kl(pi, p):
    return (torch.special.xlogy(pi, pi) - torch.special.xlogy(pi, p)).sum()


offset = cells - p @ cells
precision = torch.linalg.inv((p[:, None] * offset).T @ offset)
largest_hill = torch.where(hill(cells) == 0, p, 0.0)
mass = largest_hill.sum()
rivals = {
    "uniform": torch.full_like(p, 1 / len(p)),
    "Gaussian": (-0.5 * (offset @ precision * offset).sum(-1)).softmax(0),
    "alpha = 0.3": boltzmann(0.3),
    "one hill": largest_hill / mass,
}
top = alpha * log_z(alpha)
print(f"{'':<12}    E[Q]        H        J      gap  alpha KL")
for name, pi in {"Boltzmann": p, **rivals}.items():
    gap, divergence = abs(top - objective(pi)), abs(alpha * kl(pi, p))  # abs: no minus zero
    numbers = (pi @ value, entropy(pi), objective(pi), gap, divergence)
    print(f"{name:<12}" + "".join(f"{x:9.5f}" for x in numbers))
for name, pi in rivals.items():
    difference = abs(top - objective(pi) - alpha * kl(pi, p))
    check(f"gap against alpha KL, {name}", difference, below=1e-10)
difference = abs(top - objective(rivals["one hill"]) - alpha * math.log(1 / mass))
check("gap of one hill against alpha log 1/M", difference, below=1e-10)

# %% [markdown]
# Look at the last line of the table. Losing two of three hills costs little: 0.055 out of 0.70. The objective is
# nearly blind to a lost hill, since the price is only the *logarithm* of the lost share. (And its $E[Q]$ is *higher*
# than that of the optimum.) Keep this in mind when you read that a method "maximises the entropy-regularised return":
# whether it keeps all modes is another question, and has to be measured on its own.
#
# ### Step 3: temperature
#
# Write $\beta=1/\alpha$ and differentiate $\log Z=\log\int e^{\beta Q}$. The first derivative is $E[Q]$, the second the
# variance of $Q$ under $p$. And $H=\log Z-\beta E[Q]$. So
#
# $$\frac{dE[Q]}{d\beta}=\mathrm{Var}[Q],\qquad \frac{dH}{d\beta}=-\beta\,\mathrm{Var}[Q].$$
#
# A variance is not negative: **cooling always raises $E[Q]$ and always lowers the entropy**, whatever the landscape.
# The two ends are simple. At $\alpha\to\infty$ the density is uniform, and $H=\log4$, the logarithm of the square's
# area. At $\alpha\to0$ only the highest top is left. Near it $Q$ is a parabola, $p$ is a Gaussian, and each of the
# $d$ dimensions costs $\alpha/2$:
#
# $$E[Q]\approx\max Q-\tfrac d2\,\alpha\qquad\text{for small }\alpha .$$
#
# The derivatives are checked by central differences with $h=10^{-4}\beta$; their error is of the order $h^2$. The last
# formula is checked at $\alpha=0.01$, where $d/2=1$; ten per cent are for the terms after the parabola.

# %%
worst = {"E[Q]": 0.0, "H": 0.0}
for temperature in (0.05, 0.1, 0.3, 1.0):
    beta, now = 1 / temperature, boltzmann(temperature)
    h = 1e-4 * beta
    up, down = boltzmann(1 / (beta + h)), boltzmann(1 / (beta - h))
    variance = now @ value.square() - (now @ value) ** 2
    slope_q, slope_h = (up - down) @ value / (2 * h), (entropy(up) - entropy(down)) / (2 * h)
    worst["E[Q]"] = max(worst["E[Q]"], abs(slope_q / variance - 1))
    worst["H"] = max(worst["H"], abs(slope_h / (-beta * variance) - 1))
    print(
        f"alpha {temperature:<5} Var[Q] {variance:.6f}  dE[Q]/dbeta {slope_q:.6f}  dH/dbeta {slope_h:.6f}"
    )
for name, error in worst.items():
    check(f"relative error of d{name}/dbeta", error, below=1e-5)
check(
    "(max Q - E[Q]) / alpha at alpha = 0.01",
    (value.max() - boltzmann(0.01) @ value) / 0.01,
    above=0.9,
    below=1.1,
)

# %%
temperatures = np.logspace(-2, 1.5, 60)
means = [boltzmann(x) @ value for x in temperatures]
entropies = [entropy(boltzmann(x)) for x in temperatures]
fig, (left, right) = figure(8.4, 3.5, ncols=2)
for ax, curve, ends, name in (
    (left, means, (value.max(), value.mean()), "E[Q]"),
    (right, entropies, (None, math.log(4)), "entropy"),
):
    ax.semilogx(temperatures, curve, color=COLOURS["target"], linewidth=1.8)
    for end, words in zip(ends, ("greedy", "uniform"), strict=True):
        if end is not None:
            ax.axhline(end, color=COLOURS["reference"], linestyle=":", linewidth=1.0)
            ax.text(0.012 if words == "uniform" else 3.0, end, words, va="bottom")
    ax.axvline(alpha, color=COLOURS["noise"], linewidth=1.0)
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
# **What you should see.** From greedy to uniform in about two decades of $\alpha$. The grey line is our $\alpha=0.1$.
# The interesting range is where $\alpha$ is a sizeable part of the *differences* of $Q$. Two facts are forgotten
# surprisingly often (exercise 2): adding a constant to $Q$ changes nothing, and multiplying $Q$ by ten is the same as
# dividing $\alpha$ by ten. A temperature without the scale of its $Q$ says nothing.
#
# ### Step 4: the score, and the wall
#
# The gradient of the log density is called the **score**, with the letter $s$. (So far $s$ was a state. From here on the
# state is fixed, and in this chapter $s$ is always a score.) Inside the square
#
# $$\nabla\log p(a)=\frac{\nabla Q(a)}{\alpha}-\nabla\log Z=\frac{\nabla Q(a)}{\alpha}.$$
#
# The constant $Z$, an integral over all actions, has dropped out. That is why scores are so popular: a density that
# you cannot normalise still has a score that you can compute, by one backward pass through the critic. We check it
# against differences of the normalised log density. (Central differences with $h=10^{-4}$ err by about $h^2$ times a
# third derivative. On a hill of width $w$ that is of the order $1/\alpha w^3$, some thousands; hence the relative
# $10^{-5}$.)


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
check("score against differences of log p", error / largest(score), below=1e-5)

# %% [markdown]
# But a score does not see the wall. At the border of the square $p$ falls from some positive value to zero at once,
# and no gradient at any inner point tells you so. One formula shows what is missing. By the divergence theorem,
#
# $$E[\nabla\log p]=\int\nabla p\,da=\oint p\;\mathbf n\,dS,$$
#
# where $\mathbf n$ points outwards and the right integral runs over the border. For a density on the whole plane the
# mean score is zero: pushes to the left and right cancel. In a box it is not, if $p$ is alive at the wall. We check it
# on the energy `ridge`, a long hill that a corner of the square cuts off. (Midpoint sums on both sides, with cells of
# width 0.01: we allow $10^{-3}$.)


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
# So a sampler that knows only the score needs a second rule, for the wall. And an estimator that averages scores will
# miss the border integral. (It returns in chapter 04.)
#
# ### Step 5: a walk that changes nothing
#
# How do you draw from a density when all you have is its score? Walk. At each step go a little uphill and add noise:
#
# $$a\;\leftarrow\;a+\frac\eta2\,\nabla\log p(a)+\sqrt\eta\,\xi,\qquad \xi\sim\mathcal N(0,I).$$
#
# This is **Langevin dynamics** with step size $\eta$. With the score of step 4 the drift is $\frac\eta2\nabla Q/\alpha$,
# and a policy that walks like this on a learnt critic is the idea of *Langevin Q-learning* (Ki and others, 2602.07873). It
# has no network for the policy at all.
#
# Why does it sample $p$? Suppose that the point $a$ is distributed as $p$, and ask whether one step changes that. Take
# any smooth function $f$, and expand $f$ at the new point to first order in $\eta$. The drift contributes
# $\frac\eta2\nabla\log p\cdot\nabla f$. The noise has mean zero, but its square has mean $\eta$ in each coordinate, which
# contributes $\frac\eta2\Delta f$, half the sum of second derivatives. So
#
# $$E f(a_{\text{new}})-E f(a)=\frac\eta2\,E\big[\nabla\log p\cdot\nabla f+\Delta f\big]+O(\eta^2).$$
#
# The bracket times $p$ is a divergence, $\nabla\!\cdot(p\,\nabla f)$. Its integral is what flows through the border:
#
# $$E\big[\nabla\log p\cdot\nabla f+\Delta f\big]=\oint p\,\frac{\partial f}{\partial\mathbf n}\,dS.$$
#
# On the whole plane this is zero and we are done: no mean changes, so $p$ stays $p$. In the box we make it zero by
# mirrors on the walls. A mirrored walk cannot tell $f$ from its mirror image, and a function that is symmetric about
# the wall has no slope across it.
#
# The checks take $f=\cos\pi a_1\,(2+\cos\pi a_2)$, which has no slope across any wall. First the bracket, by
# quadrature. It must vanish for the right score, on the three hills and on the ridge at the wall. It must not for a wrong
# one: we try a score without the $1/\alpha$.
#
# Then the expansion. For the mean over $\xi$ we need no random numbers: three values, $0$ and $\pm\sqrt3$, with weights
# $\frac23$ and $\frac16$, have the first five moments of a standard normal, which is exact up to the order $\eta^2$. (And no
# mirrors: $f$ is the same at a point and at its mirror image.) Starting from the uniform density, the change divided by
# the formula must be near 1. Starting from $p$, only the $O(\eta^2)$ is left: half the step, a quarter of the change.


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
    nodes, shares_of_nodes = (-math.sqrt(3), 0.0, math.sqrt(3)), (1 / 6, 2 / 3, 1 / 6)
    after = sum(
        w1 * w2 * f(start + math.sqrt(eta) * torch.tensor([x1, x2]))
        for x1, w1 in zip(nodes, shares_of_nodes, strict=True)
        for x2, w2 in zip(nodes, shares_of_nodes, strict=True)
    )
    return weights @ (after - f(cells))


uniform = rivals["uniform"]
size = bracket(exact, uniform).abs()
check(
    "bracket on the three hills, over its uniform size", bracket(exact, p).abs() / size, below=1e-3
)
check("bracket on the ridge, over the same", bracket(cut, cut.p).abs() / size, below=1e-3)
check("the same without 1 / alpha", bracket(exact, p, factor=alpha).abs() / size, above=0.1)
eta = 1e-4
ratio = change(uniform, eta) / (eta / 2 * bracket(exact, uniform))
check("uniform start: change over formula", ratio, above=0.98, below=1.02)
check(
    "start at p: change, over that of half the step",
    change(p, eta) / change(p, eta / 2),
    above=3.9,
    below=4.1,
)

# %% [markdown]
# The step in code, with the mirrors. Along each coordinate they fold the line into $[-1,1]$, like a zigzag of
# period 4.


# %%
def reflect(a):
    return 1 - ((a + 1) % 4 - 2).abs()


def langevin_step(score, a, eta, generator, box=True):
    xi = torch.randn(a.shape, generator=generator, dtype=a.dtype, device=a.device)
    a = a + eta / 2 * score(a) + eta**0.5 * xi
    return reflect(a) if box else a


# %% [markdown]
# ### Step 6: the price of a finite step
#
# The $O(\eta^2)$ of step 5 is not zero, so the walk samples a density that is slightly off. How much? For a Gaussian we
# can say it exactly. Suppose that near a top the density is $\mathcal N(0,c^2)$ in each direction. The score is
# $-a/c^2$. A step is then linear: $a\leftarrow(1-\frac{\eta}{2c^2})\,a+\sqrt\eta\,\xi$. The variance $V$ follows
# $V\leftarrow(1-\frac{\eta}{2c^2})^2V+\eta$. Set both sides equal and solve:
#
# $$V=\frac{c^2}{1-\eta/(4c^2)}.$$
#
# Too wide, by the factor $1/(1-\eta/(4c^2))$. And from $\eta=4c^2$ on there is no limit at all: a step then overshoots the
# top by as much as the walker was away from it, or more. **The narrowest direction of the density sets the step.** For a hill of width $w$ and
# height 1, $Q\approx1-|a|^2/(2w^2)$, so $c^2=\alpha w^2$. Colder means narrower, and narrower means smaller steps.
#
# We let 40 000 walkers go 60 steps from the origin. (A variance from that many is uncertain by 0.7 %; we allow 3 %.)

# %%
c = 0.15
generator = torch.Generator().manual_seed(2)
for ratio in (0.2, 1.0, 2.0, 3.0):
    eta, a = ratio * c**2, torch.zeros(40_000, 1)
    for _ in range(60):
        a = langevin_step(lambda a: -a / c**2, a, eta, generator, box=False)
    formula = 1 / (1 - ratio / 4)
    error = abs(a.var() / c**2 / formula - 1)
    check(f"eta = {ratio:g} c^2, V = {formula:.5f} c^2: relative error", error, below=0.03)

# %% [markdown]
# ### Step 7: the price of a valley
#
# A walker on one hill has to cross a valley to reach the next one. In the valley $p$ is small: few walkers are there at
# any time, so few cross. How long does it take?
#
# In one dimension there is an exact answer for small steps. Let $T$ be the mean time from a top at $x_0$ to the next at
# $x_1>x_0$, with a mirror at $-1$, where time means $\eta$ times the number of steps. Then (Gardiner, *Stochastic Methods*, on first passage times)
#
# $$T=2\int_{x_0}^{x_1}e^{-Q(y)/\alpha}\int_{-1}^{y}e^{Q(z)/\alpha}\,dz\,dy .$$
#
# Read it from the inside: the inner integral is large once $y$ has passed the first hill; the outer one is dominated by
# the bottom of the valley, where $e^{-Q/\alpha}$ is greatest. Let $b$ be the depth of the valley below the top. The two
# exponentials give $e^{b/\alpha}$, and each integral covers a width of the order $\sqrt{\alpha/b}$. So for deep valleys
#
# $$T\;\sim\;\text{const}\cdot\frac{\alpha}{b}\;e^{\,b/\alpha}.$$
#
# The exponential is **Arrhenius' law**, from 1889 and about chemistry: reactions wait for a rare push over a barrier, and
# cooling makes them exponentially slower.
#
# We measure it on a valley between tops at $\pm\frac12$, $Q(a)=-16\,b\,(a^2-\frac14)^2$, which has depth $b$ at
# $a=0$. For six depths, 600 walkers each start on the left top. We count who has arrived at the right one, and estimate
# $T$ as the total time walked divided by the number of arrivals. (More than a hundred arrivals make this uncertain by less
# than 10 %, and a walker that arrives between two steps is noticed late. We allow 30 %.)

# %%
depths = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])  # b / alpha
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
arrived = 600 - waiting.sum(-1)
measured = walked / arrived

y = torch.linspace(-1, 0.5, 3001, dtype=torch.float64)
landscape = -16 * depths.double()[:, None] * (y**2 - 0.25) ** 2  # Q / alpha
inner = torch.cumulative_trapezoid(landscape.exp(), y)
outer = (-landscape[:, 1:]).exp() * inner
between = y[1:] >= -0.5
crossing = 2 * torch.trapezoid(outer[:, between], y[1:][between])
for depth, theory in zip(depths, crossing, strict=True):
    print(f"b / alpha = {depth:.0f}: T = {theory:8.3f}, that is {theory / eta:8.1f} steps")
check("step 7: fewest arrivals", arrived.min(), above=100)
check("step 7: largest relative error of T", (measured / crossing - 1).abs().max(), below=0.3)
growth = (crossing * depths).log().diff()  # of T b / alpha, per unit of b / alpha
check("step 7: exponent between the two deepest valleys", growth[-1], above=0.9, below=1.1)

# %%
fig, ax = figure(6.0, 3.6)
ax.semilogy(depths, crossing, color=COLOURS["reference"], linewidth=1.5)
ax.semilogy(depths, measured, color=COLOURS["score"], marker="v", linestyle="none", markersize=8)
ax.set(
    xlabel=r"depth of the valley over temperature, $b/\alpha$", ylabel="mean time to the other hill"
)
ax.set_yticks([2, 5, 10, 20, 40], ["2", "5", "10", "20", "40"])
ax.minorticks_off()
ax.text(3.4, 2.3, "double integral", color=COLOURS["reference"])
ax.text(2.2, 7.5, "measured", color="#a0527c")
show(
    fig,
    "Mean crossing time on a logarithmic axis against the depth of the valley in units of alpha, from 1 to 6. Measured "
    "marks lie on the line of the double integral, which bends up and becomes straight: an exponential.",
)

# %% [markdown]
# **What you should see.** The marks (walks) on the curve (the double integral). To the right the curve becomes a
# straight line, which on this axis is an exponential. A valley of six temperatures took 20 000 steps, and each further
# temperature multiplies that by two to three. Our three hills at $\alpha=0.1$ have valleys about nine temperatures
# deep, as you will see in a moment. No robot has that much time.
#
# ### Step 8: noise levels
#
# The cure is to walk on other densities first. Add noise to the actions, along the path of chapter 01:
#
# $$a_t=(1-t)\,a_0+t\,\varepsilon,\qquad a_0\sim p,\quad \varepsilon\sim\mathcal N(0,I),$$
#
# with the time $t$ from 0 (action) to 1 (noise), and let $p_t$ be the density of $a_t$. At $t=0$ it is the Boltzmann density, at $t=1$ a standard normal: a single
# round hill, which is easy to sample. In between, noise fills the valleys. Written out,
#
# $$p_t(a)=\int p(a_0)\,\mathcal N\big(a;\,(1-t)\,a_0,\,t^2 I\big)\,da_0 .$$
#
# **Its score.** Differentiate under the integral. The gradient of a normal density is the density times
# $-(a-(1-t)a_0)/t^2$. Divide by $p_t$, and the integral becomes an average over those $a_0$ that may lie behind the noisy
# point $a$. With $m(a,t)=E[a_0\mid a_t=a]$, the **posterior mean**, the score $s(a,t)$ is
#
# $$s(a,t)=\nabla\log p_t(a)=\frac{(1-t)\,m(a,t)-a}{t^2}.$$
#
# It points from where you are to the best guess of where you would be without the noise. (This is Tweedie's formula.) The posterior mean is a sum
# over cells once more: weight each cell by its mass times the normal density of getting from there to $a$. We check
# the formula against differences of $\log p_t$, and against `BoxBoltzmann.noised_score`, which computes the same sum
# quickly. (Central differences with $h=10^{-4}$ in 64 bits; then 32-bit inputs.)


# %%
def log_weights(a, t):
    """log of p(cell) N(a; (1 - t) cell, t^2 I), (points, cells)."""
    square = (a[:, None] - (1 - t) * cells).square().sum(-1)
    return p.log() - square / (2 * t**2) - math.log(2 * math.pi * t**2)


def log_p(a, t):
    return log_weights(a, t).logsumexp(-1)


def noised_score(a, t):
    m = log_weights(a, t).softmax(-1) @ cells
    return ((1 - t) * m - a) / t**2


generator = torch.Generator().manual_seed(4)
points = 1.5 * torch.randn(20, 2, generator=generator).double()
for t in (0.1, 0.4, 0.8):
    score = noised_score(points, t)
    slope = differences(partial(log_p, t=t), points)
    package = exact.noised_score(points.float(), t, path)
    to_slope, to_package = (largest(score - x) / largest(score) for x in (slope, package))
    check(f"step 8: formula against differences, t = {t}", to_slope, below=1e-5)
    check(f"step 8: formula against BoxBoltzmann, t = {t}", to_package, below=1e-4)

# %% [markdown]
# **Its step.** By step 6 we need to know how narrow $p_t$ can be. Differentiate the score once more, along $a$. The
# posterior mean contributes the covariance $C$ of the posterior:
#
# $$-\nabla\nabla\log p_t=\frac1{t^2}\,I-\frac{(1-t)^2}{t^4}\,C .$$
#
# A covariance can only lower this. So no top of $p_t$ is more sharply curved than a Gaussian of variance $t^2$, **whatever
# $Q$ is**: at noise level $t$ no hill is narrower than $t$. By step 6 a step $\eta=\rho\,t^2$ with $\rho<4$ is never too large.
# Large steps at high noise, small ones at low noise: this is why annealing is quick.

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
check("step 8: curvature against differences", difference, below=1e-5)
check("step 8: greatest curvature in units of 1 / t^2", greatest, below=1 + 1e-9)

# %% [markdown]
# How deep are the valleys of $p_t$? We follow $\log p_t$ along the straight line between the two best hills (both shrink
# towards the origin by the factor $1-t$), and ask how deep water would stand in its valley.

# %%
levels = [0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4]
line = torch.linspace(-0.3, 1.3, 161, dtype=torch.float64)[:, None]


def valley(t):
    """How deep water would stand on the profile of log p_t between the two best hills."""
    first, second = (1 - t) * q.centres[:2].double()
    profile = exact.noised_log_prob(first + line * (second - first), t, path)
    from_left, from_right = profile.cummax(0).values, profile.flip(0).cummax(0).values.flip(0)
    return (torch.minimum(from_left, from_right) - profile).max()


valleys = [valley(t) for t in levels]
for t, depth in zip(levels, valleys, strict=True):
    print(f"t = {t:.2f}: the valley of log p_t is {depth:7.4f} deep")

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
# **What you should see.** Noise melts the three hills into one between $t=0.2$ and $t=0.4$; the printed depths say the
# same. The arrows (scaled by $t$, so that they fit) come to life. At $t=0.05$ the plains between the hills have no slope,
# and only the wall is felt, from outside. From $t=0.2$ on every point knows a direction.

# %% [markdown]
# ## Code
#
# ### The plain walk
#
# A loop around `langevin_step`:


# %%
def langevin(score, a, eta, steps, generator, box=True):
    if eta <= 0:
        raise ValueError(f"eta, the step size, must be above 0, got {eta}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    for _ in range(steps):
        a = langevin_step(score, a, eta, generator, box)
    return a


# %% [markdown]
# ### The annealed walk
#
# Start from noise, at the level where $p_t$ is nearly a standard normal. Walk a few steps there, go to a lower level,
# walk again with the score of *that* level, and so on down to almost no noise. At each level the walk only has to
# adjust what changed. The valleys open slowly beneath it, and by then each walker stands on some hill, with about the
# right probability.
#
# The idea is due to Song and Ermon (1907.05600), for images. *Noise-conditioned* Langevin Q-learning, in the same paper as
# above, brings it to policies: the critic gets the noise level as an input.


# %%
def annealed_langevin(score, a, path, times, steps, generator, rate=0.5):
    if not 0 < rate < 4:
        raise ValueError(f"rate, the step size over sigma^2, must lie in (0, 4), got {rate}")
    for t in times:
        eta = rate * float(path.sigma(t)) ** 2
        a = langevin(partial(score, t=t), a, eta, steps, generator, box=False)
    return a


# %% [markdown]
# There is no box at the noisy levels: $p_t$ fills the whole plane. Only the finished points have to be actions. Those
# that the last bit of noise left outside are folded back in by `reflect`.
#
# We take twenty levels with twenty steps each, then fifty steps on the clean density to remove the last noise. Beside it,
# the same number of plain steps from two starts: all walkers on the third hill, or spread evenly over the square. The
# step 0.001 is a ninth of the bound $4\alpha w^2$ for the narrow hills, $w=0.15$; `rate` is the $\rho$ of step 8.

# %%
clean_score, eta = partial(boltzmann_score, q, alpha), 0.001
quick = BoxBoltzmann(q, alpha, cells=81)  # coarser, and good enough for t >= 0.03
times = np.geomspace(0.95, 0.03, 20).tolist()

g = torch.Generator().manual_seed(5)
noise = torch.randn(3000, 2, generator=g)
noisy = annealed_langevin(
    partial(quick.noised_score, path=path), noise, path, times, 20, g, rate=1.0
)
annealed = langevin(clean_score, reflect(noisy), eta, 50, g)
from_one = langevin(clean_score, q.centres[2].repeat(3000, 1), eta, 450, g)
from_all = langevin(clean_score, 2 * torch.rand(3000, 2, generator=g) - 1, eta, 450, g)

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
check("share that stayed on the third hill", shares(from_one)[2], above=0.95)
from_all_error, annealed_error = ((shares(a) - masses).abs().max() for a in (from_all, annealed))
check("error of the shares, walk from everywhere", from_all_error, above=0.12)
check("error of the shares, annealed", annealed_error, below=0.05)

# %% [markdown]
# **What you should see.** The share of walkers on each hill, and in brackets the exact one. From one hill: they are
# still there. From everywhere: each walker took the hill it met first, so the shares are about a third each, and some
# are still lost on the plains. Annealed: about right. What error is left (exact shares would scatter by 0.009) has two
# sources: the score of each level was followed for finitely many finite steps, and the shares *froze* when the valleys
# became too deep to cross, a little before the noise was gone.

# %% [markdown]
# ## Checks
#
# ### The step size, against quadrature
#
# Step 6 was about a Gaussian. On our hills the truth is known from the grid. We start walkers *at* the exact density, so
# that valleys play no role, let them settle into whatever the finite step makes of it, and average $Q$ over a
# hundred steps more. Theory: each hill becomes wider by the factor $1/(1-\eta/(4c^2))$, so $E[Q]$ should fall short by
# about $\alpha$ times that factor less one: for small $\eta$, in proportion to $\eta$.

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
# **What you should see.** Up to $\eta=0.001$ the walk is nearly exact. Then it sags, and past the vertical line, the bound
# $4\alpha w^2$ of the narrow hills, it falls: a walker that comes near a top is thrown off it. At the right end it is
# worth little more than the uniform policy. There is no cliff at the line, since our hills flatten out and catch again
# what was thrown off. In a box nothing overflows either, and no number becomes NaN. The walk just quietly becomes
# useless.
#
# ### The number of steps
#
# How long does the plain walk need? All walkers start on the third hill. After many steps, how far are the shares
# still from the truth, at our temperature and at two warmer ones? (The warmer targets have other shares. Each is
# compared with its own, by quadrature. With 600 walkers, shares scatter by up to 0.02.)

# %%
marks = [10, 30, 100, 300, 1000, 3000]
distance = {}
for temperature in (0.1, 0.2, 0.3):
    warm = BoxBoltzmann(q, temperature, cells=101)
    truth = torch.zeros(3, dtype=torch.float64).index_add(0, hill(warm.grid), warm.p)
    g, walkers, done = torch.Generator().manual_seed(7), q.centres[2].repeat(600, 1), 0
    distance[temperature] = []
    for mark in marks:
        walkers = langevin(partial(boltzmann_score, q, temperature), walkers, eta, mark - done, g)
        done = mark
        distance[temperature].append(0.5 * (shares(walkers) - truth).abs().sum().item())
check("alpha = 0.3, share still misplaced after 3000 steps", distance[0.3][-1], below=0.15)
check("alpha = 0.1, share still misplaced after 3000 steps", distance[0.1][-1], above=0.7)

fig, ax = figure(6.0, 3.6)
for temperature, style in ((0.1, "-"), (0.2, "--"), (0.3, ":")):
    ax.semilogx(marks, distance[temperature], color=COLOURS["score"], linestyle=style, marker="v")
    ax.text(3400, distance[temperature][-1] + 0.02, rf"$\alpha = {temperature}$")
ax.axhline(0.5 * (shares(annealed) - masses).abs().sum(), color=COLOURS["reference"], linewidth=1.2)
ax.text(10, 0.05, r"annealed, 450 steps, $\alpha = 0.1$")
ax.set(xlabel="steps", ylabel="share on a wrong hill", ylim=(0, 1), xlim=(9, 9000))
show(
    fig,
    "Share of misplaced walkers against the number of steps on a logarithmic axis, from a start on one hill. At "
    "alpha = 0.3 it falls to nearly zero after 3000 steps, at 0.2 to about 0.2, at 0.1 it has hardly moved from 0.8. A "
    "black line near 0.03 marks 450 annealed steps at alpha = 0.1.",
)

# %% [markdown]
# **What you should see.** At $\alpha=0.3$ nearly all of the error is gone after 3000 steps. At $\alpha=0.1$, a third of
# that temperature, the curve has hardly left its start. That is Arrhenius again: the same valley is three temperatures
# deep in one case and nine in the other. The black line is the annealed walk at $\alpha=0.1$, with 450 steps.
#
# ### Why not just follow the gradient?
#
# Readers ask, and they should. $\nabla Q$ is there for the asking; why train anything? We compare five policies on our
# three hills.
#
# * **Climb**: gradient ascent from a uniform start, as in the first picture. We also let it climb on *uneven* hills: one
#   good way and two poor ones, of heights 1, 0.4 and 0.3.
# * **Gaussian, one**: the best Gaussian in the sense of $J$, found by ascent on $J$ itself (its sums run over the grid).
#   We start it once on each hill and once wide in the middle, and keep the best.
# * **Gaussian, all**: the Gaussian with the mean and covariance of the Boltzmann density.
# * **Boltzmann**, by quadrature.
# * **Uniform**.
#
# For all but the climbers, which have no density, every number is a sum over cells.


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
    print(f"{name:<14}" + "".join(f"{x:9.5f}" for x in numbers))
lost = objective(p) - objective(policies["Gaussian, one"])
price = alpha * math.log(1 / masses[0])
check("J lost by the best Gaussian, over alpha log 1/M", lost / price, above=0.9, below=1.2)
check("E[Q] of the climbers", q(tops).mean(), above=0.8, below=0.85)

uneven = Bumps(q.centres, q.widths, torch.tensor([1.0, 0.4, 0.3]))
uneven_boltzmann = BoxBoltzmann(uneven, alpha)
uneven_tops = climb(uneven, starts)
print(f"\nuneven hills: E[Q] of the Boltzmann density {uneven_boltzmann.expectation(uneven):.5f}")
print(f"uneven hills: mean of the three heights      {uneven.heights.mean():.5f}")
on_poor_top = (torch.cdist(uneven_tops, q.centres[1:]) < 0.05).any(-1)
check("uneven hills: share of climbers on a poor top", on_poor_top.float().mean(), above=0.35)
check("uneven hills: E[Q] of the climbers", uneven(uneven_tops).mean(), below=0.567)

# %% [markdown]
# What does each of them get wrong?
#
# **Climbing** has no notion of better or worse hills: a top is a top. On hills of nearly equal height that costs little:
# only those who never leave the plains pull $E[Q]$ below Boltzmann's. On the uneven ones four climbers in ten stand on a
# poor top, and $E[Q]$ is below the mean of the three heights. A learnt critic is full of small false tops. Climbing also
# ends in points: no spread around a top, entropy minus infinity.
#
# **The best Gaussian** gives up two hills. By step 2 that costs it about $\alpha\log\frac1M$, the checked ratio, and it is
# content. Its $E[Q]$ is even a little higher than Boltzmann's. It is a fine policy until the hill it chose turns out
# to be an error of the critic: then it has no other to turn to.
#
# **The Gaussian that keeps all hills** sits between them, and acts worst of all but the uniform policy.
#
# **The Boltzmann density** has the largest $J$, as it must. It keeps every hill in proportion to what it is worth, and
# $\alpha$ says how much worth counts. Its price: it has no formula for samples. The rest of the book pays that price.
#
# ### What is still missing
#
# The annealed walk needs the score of $p_t$, and so will every sampler from here on. We took it from quadrature. That
# cannot last, for two reasons.
#
# **Dimension.** A grid with 201 cells along each axis has $201^d$ cells. A walking robot has six motors or more.

# %%
for d, who in ((2, "this chapter"), (6, "HalfCheetah"), (17, "Humanoid")):
    power = round(d * math.log10(201))
    print(f"{d:>2} motors ({who}): about 10 to the power {power:>2} cells for one score")

# %% [markdown]
# **There is no shortcut through $\nabla Q$.** At $t=0$ the score is $\nabla Q/\alpha$. Why not use it at noisy points as
# well? Two tempting formulas replace the score of $p_t$:
#
# 1. *The gradient at the noisy point*, $\nabla Q(a_t)/\alpha$. It is the idea of QSM (2312.11752).
# 2. *The gradient of the mean $Q$*: teach a critic the mean of $Q(a_0)$ over the clean actions behind a noisy one, and
#    take $\nabla E[Q(a_0)\mid a_t]/\alpha$. Critics that are trained on noisy actions by regression learn such a mean
#    (ACA, 2509.21022; NC-LQL, 2602.07873).
#
# Both can make useful policies. But neither is the score of $p_t$. For the second we can say exactly why. Let the actions
# behind the noise be uniform on the square, as in a buffer of random actions, and let $\bar p_t$ be the density of noisy
# uniform actions. Bayes' rule gives
#
# $$\log p_t(a)=\log\bar p_t(a)+\log E\big[e^{Q(a_0)/\alpha}\mid a_t=a\big]+\text{const}.$$
#
# So the *exponential* has to be averaged, not $Q$. The mean of exponentials is ruled by the best action behind the
# noise, the mean of $Q$ by the typical one. They agree only where $Q$ hardly varies over the noise.
#
# How wrong are they? The gradient of $\log\bar p_t$ does not depend on $Q$, so we grant it to everyone, and ask for the rest:
# the part of the score that $Q$ is responsible for. We measure the candidates against it at points $a_t\sim p_t$: root
# mean square error, over the root mean square of the part itself. The third candidate is the formula above; it checks
# Bayes' rule. (It sums over a coarser grid, of 67 cells along each axis, and differentiates by differences: we allow
# 2 %.)

# %%
coarse = BoxBoltzmann(q, alpha, cells=67).grid.double()
coarse_value = q(coarse)


def shortcut_errors(t, count=150):
    g = torch.Generator().manual_seed(8)
    a = path.noise(exact.sample(count, g), torch.randn(count, 2, generator=g), t).double()

    def behind(a):
        """log N(a; (1 - t) a_0, t^2 I) for all cells a_0, up to a constant."""
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
    return {name: (x - part_of_q).square().mean().sqrt() / size for name, x in candidates.items()}


table = {t: shortcut_errors(t) for t in (0.1, 0.3, 0.6)}
print(f"{'relative error at':<30}" + "".join(f"  t = {t}" for t in table))
for name in ("gradient at the noisy point", "gradient of the mean Q"):
    print(f"{name:<30}" + "".join(f"{table[t][name]:9.5f}" for t in table))
worst_formula = max(errors["gradient of the log-mean-exp"] for errors in table.values())
check("largest error of the log-mean-exp", worst_formula, below=0.02)

# %% [markdown]
# An error of 1 means: no better than answering zero. The gradient at the noisy point is worse than that at every level. The
# gradient of the mean $Q$ is better, and still off by thirty per cent or more.
#
# So the score of $p_t$ needs an average over clean actions, weighted by $e^{Q/\alpha}$, for every noisy point; in six
# dimensions and more; from evaluations of $Q$ alone, since there are no samples of $p$. An average is something one can
# *estimate*, from a few dozen well chosen actions. That is chapter 04.

# %% [markdown]
# ## Explorer
#
# Left: the policy $\exp(Q/\alpha)/Z$ on the square, with its $E[Q]$ and entropy. Right: the same density noised to time
# $t$, on a larger window, with arrows of its score (long ones shortened). Shades are relative to the highest value of
# each picture. Do exercise 3 before you move the sliders.

# %%
boltzmann_explorer(q)

# %% [markdown]
# **What you should see.** At $t=0$ there are arrows only inside the dashed square, and almost none on the plains. Raise
# $t$ to 0.05: arrows appear outside, all pointing in. That is the wall, which the score of the clean density could not
# see. Raise $t$ further: the spots melt together, and the arrows turn towards the middle; at $t=1$ nothing of $Q$ is
# left. Now lower $\alpha$: the spots on the left shrink, $E[Q]$ rises and the entropy falls, always together (step 3).
# The lower hills fade as well.

# %% [markdown]
# ## What can go wrong
#
# ### No noise
#
# Leave out $\sqrt\eta\,\xi$, and the walk is gradient ascent with the rate $\eta/2\alpha$: the first panel of the chapter.
# Nothing fails. $E[Q]$ even looks better. What gives it away is the spread: around a top the variance of each coordinate
# should be about $\alpha w^2$. We compare it with that of exact samples. This check belongs in every implementation of
# Langevin dynamics. (The walk's spread has the bias of step 6, 7 % here, and scatters by a few more.)

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
check("spread over the exact one, with noise", with_noise, above=0.85, below=1.2)
check("spread over the exact one, without noise", without, below=0.05)

# %% [markdown]
# ### The temperature forgotten, or used twice
#
# There are two right places for $\alpha$. Divide the gradient by it, or multiply the variance of the noise by it:
#
# $$\tfrac\eta2\,\nabla Q/\alpha+\sqrt\eta\,\xi \qquad\text{or}\qquad \tfrac\eta2\,\nabla Q+\sqrt{\alpha\eta}\,\xi .$$
#
# The second is the first with the step $\alpha\eta$. Both are common, and that is how accidents happen: somebody who
# knows the one form repairs code that is written in the other. Let the drift be $\frac\eta2 k\nabla Q$ and the noise
# have the variance $\nu\eta$. That is a Langevin step of size $\nu\eta$ with the score $k\nabla Q/\nu$. So the walk samples
# the Boltzmann density of the
#
# $$\text{effective temperature}\quad \frac\nu k .$$
#
# Forgotten: $k=\nu=1$ gives temperature 1. Used twice: $k=1/\alpha$, $\nu=\alpha$ gives $\alpha^2$. The code runs, the
# walkers move, and the policy is simply another one. We take $\alpha=0.2$, start all walks at the right density, and
# compare where they settle with quadrature at the effective temperature. (2000 walkers make $E[Q]$ uncertain by
# 0.008; finite steps, and a few walkers that are still on the plains, take the rest of 0.04.)

# %%
warm_alpha = 0.2
recipes = {  # k, nu
    "drift over alpha": (1 / warm_alpha, 1.0),
    "noise times alpha": (1.0, warm_alpha),
    "alpha forgotten": (1.0, 1.0),
    "alpha twice": (1 / warm_alpha, warm_alpha),
}
for name, (k, nu) in recipes.items():
    g = torch.Generator().manual_seed(10)
    step = 0.005 / max(k, 5 * nu)  # so that the Langevin step, nu * step, is at most 0.001
    a = BoxBoltzmann(q, warm_alpha).sample(2000, g)
    for _ in range(1500):
        drift = step / 2 * k * boltzmann_score(q, 1.0, a)
        a = reflect(a + drift + math.sqrt(nu * step) * torch.randn(a.shape, generator=g))
    settled_q, theory = q(a).mean(), BoxBoltzmann(q, nu / k).expectation(q)
    print(f"{name:<18} effective temperature {nu / k:.2f}  E[Q] by quadrature {theory:.5f}")
    check(f"{name}: error of E[Q]", abs(settled_q - theory), below=0.04)

# %% [markdown]
# ### The box ignored, or clipped
#
# Actions live in a box. What happens to a walker that steps out? Three things can be done.
#
# **Nothing.** Then it samples $\exp(Q/\alpha)$ on the whole plane, if that density exists at all. Outside the box a learnt
# critic has never seen data, and its values there mean nothing. On `ridge` we count who leaves.
#
# **Clip** to the nearest point of the box. This is what most code does. It keeps all walkers legal, and puts a *positive
# share of them exactly on the faces*, where a density has none. For a walk without drift in one dimension the share on
# each face is known: it is $\sqrt{\eta/2}\,/\,(2+1.165\sqrt\eta)$, from the theory of ladder heights (Siegmund,
# *Sequential Analysis*, chapter X, where $0.583=1.165/2$ is the mean overshoot). It falls only with the *root* of the
# step.
#
# **Reflect**, as in `langevin_step`. Where there is no drift, a folded step leads from $a$ to $b$ as often as from $b$ to
# $a$, so the uniform density stays exactly uniform for every step size. That is why this book reflects while it walks.
# (On the *finished* action of a trained policy a clip does little harm: it is applied once, and does not feed back into
# the walk.)
#
# We check clip and reflect on a critic without any preference, $Q=0$, where every action should be equally
# likely, with $\eta=0.01$. In two dimensions a walker is on some face unless both coordinates are inside.

# %%
g, step = torch.Generator().manual_seed(11), 0.01
clipped = 2 * torch.rand(20_000, 2, generator=g) - 1
folded = clipped
for _ in range(300):
    clipped = (clipped + math.sqrt(step) * torch.randn(clipped.shape, generator=g)).clamp(-1, 1)
    folded = langevin_step(torch.zeros_like, folded, step, g)
face = math.sqrt(step / 2) / (2 + 1.165 * math.sqrt(step))
theory = 1 - (1 - 2 * face) ** 2
for d in (2, 6):
    print(f"share on the border in {d} dimensions, by the formula: {1 - (1 - 2 * face) ** d:.5f}")
on_border = (clipped.abs() == 1).any(-1).float().mean()
check("clipped: error of the share on the border", abs(on_border - theory), below=0.01)
check("reflected: share on the border", (folded.abs() == 1).any(-1).float().mean(), below=1e-3)

wandering = BoxBoltzmann(ridge, alpha).sample(2000, g)
wandering = langevin(partial(boltzmann_score, ridge, alpha), wandering, eta, 1500, g, box=False)
check("no wall: share of walkers outside", (wandering.abs() > 1).any(-1).float().mean(), above=0.08)

fig, (left, right) = figure(8.4, 3.7, ncols=2)
bins = np.linspace(-1, 1, 41)
left.hist(clipped[:, 0], bins, density=True, histtype="step", color=COLOURS["error"], linewidth=1.5)
left.hist(folded[:, 0], bins, density=True, color=COLOURS["score"], alpha=0.5)
left.axhline(0.5, color=COLOURS["reference"], linewidth=1.0)
left.set(xlabel="$a_1$", title="density of $a_1$ for $Q=0$", xlim=(-1.1, 1.1), ylim=(0, 1.3))
left.text(0, 0.62, "clipped: outline,  reflected: filled", ha="center")
plane(right, 1.5)
plots.particles(right, wandering, "error", size=2.5, alpha=0.6)
square = torch.tensor([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]])
right.plot(*square.T, color=COLOURS["reference"], linestyle="--", linewidth=1.0)
right.set_title("ridge, no wall")
show(
    fig,
    "Left: histograms of a_1 for a critic without preference. Reflected walkers fill an even block at 0.5. The outline "
    "of the clipped ones lies a little lower, with a spike at each end. Right: walkers on the ridge without a wall, a "
    "long cloud along the diagonal, part of it outside the upper right corner of the dashed square.",
)

# %% [markdown]
# **What you should see.** Left: reflected walkers are spread evenly, clipped ones pile up at both ends. On the square one
# clipped walker in eight sits *exactly* on the border, and in six dimensions it would be one in three. Right: a policy
# that asks for actions that do not exist.
#
# Published code knows a fourth variant: clip first, *then* add exploration noise, and send the result to the robot and
# into the buffer. The action is outside the box again, and the critic is trained on an action that was never carried
# out (the simulator clips it silently).
#
# ### The step too large
#
# You have seen it: beyond $4\alpha w^2$ the walk is thrown off its hills, and it does not crash. The trap is that the bound moves
# during training. As a critic learns, its hills grow steeper and higher, and a step size that was tuned in the first
# hour is too large in the second. Some implementations therefore drop the length of the gradient and keep its
# direction. That is always stable. Exercise 4 asks which density it samples. (Not the Boltzmann density.)

# %% [markdown]
# ## Exercises
#
# Each stub raises `NotImplementedError`. Replace its body and run the cell: a ✓ line says that you are done.

# %% [markdown]
# ### 1. A slope between two walls · ●○○ · 15 min
#
# The simplest critic of all is linear: one motor, $Q(a)=k\,a$ on $[-1,1]$. Find $E[a]$ under the Boltzmann density in
# closed form. Return it as a function of $k$ and $\alpha$. What are its limits for $\alpha\to0$ and $\alpha\to\infty$?


# %% tags=["exercise", "raises-exception"]
def mean_action(k, alpha):
    raise NotImplementedError


for k, temperature in ((1.0, 0.5), (-3.0, 0.4), (0.2, 1.0)):
    by_quadrature = (k * axis / temperature).softmax(0) @ axis
    error = abs(mean_action(k, temperature) - by_quadrature)
    check(f"exercise 1: k = {k:g}, alpha = {temperature:g}", error, below=1e-4)

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
# better wall. For $\alpha\to\infty$ it is $x/3\to0$. Physicists call it the *Langevin function*: the same Langevin,
# on magnets, in 1905.
#
# ```python
# def mean_action(k, alpha):
#     x = k / alpha
#     return 1 / math.tanh(x) - 1 / x
# ```
#
# </details>

# %% [markdown]
# ### 2. Find the bug · ●○○ · 10 min
#
# Critics of different tasks differ in scale: returns may be near 10 or near 10 000. To use one $\alpha$ for all, people
# normalise $Q$ before the softmax. This weighting is modelled on published code. Its author tested it on one task,
# where it worked well. Write it correctly.
#
# ```python
# def weights(q, alpha):
#     normalised = q - q.mean() / q.std()
#     return (normalised / alpha).softmax(0)
# ```
#
# The check takes a critic and the same critic in another currency, ten times as large and shifted. Both must give the
# same policy. It also asks that $\alpha$ still matters.


# %% tags=["exercise", "raises-exception"]
def repaired_weights(q, alpha):
    raise NotImplementedError


for temperature in (0.3, 1.0):
    mine = repaired_weights(value, temperature)
    other_currency = repaired_weights(10 * value + 3, temperature)
    check(
        f"exercise 2: change of the policy, alpha = {temperature:g}",
        (mine - other_currency).abs().sum(),
        below=1e-9,
    )
by_hand = boltzmann(0.3 * value.std())
check(  # loose enough for both definitions of a standard deviation, with n and with n - 1
    "exercise 2: distance from the policy",
    (repaired_weights(value, 0.3) - by_hand).abs().sum(),
    below=1e-3,
)

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
# Brackets. Without them the line subtracts a constant, which drops out with $Z$: it does *nothing*. The temperature then
# means something else in every task. A test with one critic cannot see it. Test a normalisation with two scales.
#
# ```python
# def repaired_weights(q, alpha):
#     normalised = (q - q.mean()) / q.std()
#     return (normalised / alpha).softmax(0)
# ```
#
# </details>

# %% [markdown]
# ### 3. Predict, then move the sliders · ●○○ · 10 min
#
# Answer before you touch the explorer. Then move the sliders, and then run the cell.
#
# 1. At $t=1$, what is the score at the point $(1.5,-0.5)$? Two numbers.
# 2. Which value does the entropy approach as $\alpha$ grows?
# 3. From $\alpha=0.1$ to $\alpha=0.05$: does the *third* hill gain or lose mass? Return $+1$ or $-1$.


# %% tags=["exercise", "raises-exception"]
def prediction():
    raise NotImplementedError


score_at_noise, limit_of_entropy, third_hill = prediction()
point = torch.tensor([[1.5, -0.5]])
true_score = exact.noised_score(point, 1.0, path)[0]
check(
    "exercise 3: error of your score",
    (torch.tensor(score_at_noise) - true_score).abs().max(),
    below=1e-3,
)
check(
    "exercise 3: error of your entropy", abs(limit_of_entropy - entropy(boltzmann(1e6))), below=0.01
)
change = (boltzmann(0.05) - boltzmann(0.1)) @ (hill(cells) == 2).double()
check("exercise 3: your sign times the change of mass", third_hill * change, above=0)

# %% [markdown]
# <details><summary>Hint</summary>
#
# For 1, what is $p_1$? For 2, which density is left, and what is its area? For 3, compare heights, in units of $\alpha$.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# $p_1$ is the standard normal, so its score is $-a$: $(-1.5,\,0.5)$, whatever $Q$ is. The entropy approaches
# $\log4\approx1.386$, the uniform density's. The third hill is the lowest. It is 0.07 below the first: 0.7 temperatures
# at $\alpha=0.1$, 1.4 at $0.05$. So it loses.
#
# ```python
# def prediction():
#     return (-1.5, 0.5), math.log(4), -1
# ```
#
# </details>

# %% [markdown]
# ### 4. A gradient without its length · ●●○ · 20 min
#
# Some samplers replace the score by $\kappa\,\nabla Q/\|\nabla Q\|$: the direction of the gradient, with a fixed length
# $\kappa$. Take a single round hill in the plane, with its top at the origin, far from any wall. Which density does the
# walk sample (for small steps)? Return its mean distance from the top, as a function of $\kappa$. Does it depend on $\alpha$,
# or on the shape of the hill?


# %% tags=["exercise", "raises-exception"]
def mean_distance(kappa):
    raise NotImplementedError


g = torch.Generator().manual_seed(12)
for kappa in (10.0, 20.0):
    drift = partial(lambda a, k: -k * a / a.norm(dim=-1, keepdim=True).clamp(min=1e-9), k=kappa)
    walkers = langevin(drift, torch.zeros(4000, 2), 0.02 / kappa**2, 1500, g)
    measured_distance = walkers.norm(dim=-1).mean()
    check(
        f"exercise 4: relative error, kappa = {kappa:g}",
        abs(mean_distance(kappa) / measured_distance - 1),
        below=0.06,
    )

# %% [markdown]
# <details><summary>Hint</summary>
#
# Of which function is $-\kappa\,a/\|a\|$ the gradient? Use polar coordinates for the mean.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# $-\kappa\,a/\|a\|=\nabla(-\kappa\|a\|)$, so the walk samples $p\propto e^{-\kappa\rho}$ with $\rho=\|a\|$: a tent, not a parabola. In
# the plane $\rho$ has the density $\propto\rho\,e^{-\kappa\rho}$, and the mean $2/\kappa$. Neither $\alpha$ nor the height of the hill
# appears: $\kappa$ has taken the place of the temperature. With more hills it gets worse, since a poor hill pulls exactly
# as hard as a good one.
#
# ```python
# def mean_distance(kappa):
#     return 2 / kappa
# ```
#
# </details>

# %% [markdown]
# ### 5. Take the bias away · ●●● · 30 min
#
# The step-size bias of step 6 can be removed completely. Propose a Langevin step from $a$ to $b$, and accept it with the
# probability
#
# $$\min\Big(1,\;\frac{p(b)\;g(a\mid b)}{p(a)\;g(b\mid a)}\Big),\qquad g(b\mid a)=\mathcal N\big(b;\;a+\tfrac\eta2 s(a),\;\eta I\big);$$
#
# otherwise stay at $a$. (Metropolis and others, 1953; Hastings, 1970. With this proposal it is called MALA.) Write one such
# step, with the arguments below, for a `log_p` that may lack its normalising constant. The check takes a step size
# with which the variance of the plain walk is twice too large.


# %% tags=["exercise", "raises-exception"]
def metropolis_step(log_p, score, a, eta, generator):
    raise NotImplementedError


g, a = torch.Generator().manual_seed(13), torch.zeros(20_000, 1)
for _ in range(100):
    a = metropolis_step(
        lambda a: -a.square().sum(-1) / (2 * c**2), lambda a: -a / c**2, a, 2 * c**2, g
    )
check("exercise 5: relative error of the variance", abs(a.var() / c**2 - 1), below=0.05)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Work with logarithms. $\log g(b\mid a)=-\|b-a-\frac\eta2s(a)\|^2/2\eta$ up to a constant that cancels. Draw one uniform
# number per row and compare its logarithm.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# The ratio makes the flow from $a$ to $b$ equal to the flow back, for every pair. Then $p$ stays as it is, for any step
# size. Too large a step is no longer wrong, only wasteful: almost every proposal is refused. It does not help
# against valleys.
#
# ```python
# def metropolis_step(log_p, score, a, eta, generator):
#     def log_g(b, a):
#         return -(b - a - eta / 2 * score(a)).square().sum(-1) / (2 * eta)
#
#     b = langevin_step(score, a, eta, generator, box=False)
#     log_ratio = log_p(b) + log_g(a, b) - log_p(a) - log_g(b, a)
#     accept = torch.rand(log_ratio.shape, generator=generator).log() < log_ratio
#     return torch.where(accept[..., None], b, a)
# ```
#
# </details>

# %% [markdown]
# ## Summary
#
# * A critic $Q(s,a)$ is the mean discounted return after doing $a$ in $s$. It grades; it does not choose.
# * The policy with the largest $E[Q]+\alpha H$ is the Boltzmann density $p=e^{Q/\alpha}/Z$. Any other loses
#   $\alpha\,\mathrm{KL}(\pi\|p)$. Losing all but a share $M$ costs only $\alpha\log\frac1M$: a high $J$ does not prove that
#   all modes are there.
# * Cooling raises $E[Q]$ at the rate $\mathrm{Var}[Q]$ and lowers the entropy. Only $Q/\alpha$ counts, up to a constant.
# * The score $\nabla Q/\alpha$ needs no $Z$. It does not see the wall.
# * Langevin dynamics, $a\leftarrow a+\frac\eta2\nabla Q/\alpha+\sqrt\eta\,\xi$, leaves $p$ as it is, up to a bias of order
#   $\eta$. The narrowest hill sets the step ($\eta<4c^2$). A valley of depth $b$ costs a time $\sim e^{b/\alpha}$.
# * Noise fills valleys. The noised density has the score $\big((1-t)m-a\big)/t^2$ and allows steps in proportion to $t^2$.
#   Walking down through the levels puts nearly the right share on every hill.
# * That score is not $\nabla Q/\alpha$ at the noisy point, nor the gradient of a mean $Q/\alpha$. It is an average weighted by $e^{Q/\alpha}$.
# * Before trusting a sampler, check four things on a known density: the shares, the spread on a hill, $E[Q]$ against its
#   exact value, and the border.

# %% [markdown]
# ## References
#
# * Haarnoja, Tang, Abbeel, Levine: *Reinforcement Learning with Deep Energy-Based Policies*,
#   [1702.08165](https://arxiv.org/abs/1702.08165). Policies $\propto\exp(Q/\alpha)$ from the maximum-entropy objective: our
#   steps 1 and 2, for whole episodes.
# * Haarnoja, Zhou, Abbeel, Levine: *Soft Actor-Critic*, [1801.01290](https://arxiv.org/abs/1801.01290). The same
#   objective with a Gaussian in place of the Boltzmann density: the "Gaussian, one" of our table.
# * Ki, Ahn, Kim, Lee: *Direct Soft-Policy Sampling via Langevin Dynamics*,
#   [2602.07873](https://arxiv.org/abs/2602.07873). Langevin Q-learning, its slow mixing, and a noise-conditioned critic as
#   the cure.
# * Psenka, Escontrela, Abbeel, Ma: *Learning a Diffusion Model Policy from Rewards via Q-Score Matching*,
#   [2312.11752](https://arxiv.org/abs/2312.11752). A denoiser trained to point along $\nabla Q$ at the noisy action.
# * Song, Ermon: *Generative Modeling by Estimating Gradients of the Data Distribution*,
#   [1907.05600](https://arxiv.org/abs/1907.05600). Annealed Langevin dynamics; section 3 shows the same failures of the
#   plain walk as this chapter.
# * Roberts, Tweedie: *Exponential convergence of Langevin distributions and their discrete approximations*, Bernoulli
#   2(4), 1996. When the walk converges, when a finite step ruins it, and the correction of exercise 5.
# * Gardiner: *Stochastic Methods*, Springer. Crossing times and Arrhenius' law, with all constants.
#
# ---
#
# Previous: [02 · MeanFlow](02_meanflow.ipynb). Next: [04 · A score without samples](04_score_without_samples.ipynb).
