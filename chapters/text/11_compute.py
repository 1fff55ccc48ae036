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
# # 11 · Spending compute well
#
# **What you will do.** You find out where the time of an update goes, and make it cheaper. You choose the times $t$
# that an update looks at: by a law, in slices, and by a sampler that learns while it trains. You write the two
# functions that this chapter is about: a trial step that tells how much a time is worth, and a pass that carries a
# derivative along.
#
# **What you will learn.** When the choice of times matters, and when it cannot. Which law has the least variance. Why
# weights have to stay, and what you learn without them. Which savings are real, and how to measure one on a busy
# machine.
#
# **What you need.** Chapters 01, 02 and 06; for the profile, chapter 08. What is used from them is recalled.
#
# **Time and hardware.** ≈ 30 s on one CPU core; allow an hour for reading and two for the exercises. No GPU.
#
# Previous: [10 · Neighbours](10_neighbours.ipynb). Next: [12 · Offline, and what is open](12_offline.ipynb).

# %% [markdown]
# ## The idea in one picture
#
# Training costs time: so many updates, and so much for each. That leaves two ways to save. **Make an update cheaper**,
# and get the same numbers sooner. Or **make an update better**: let its gradient say more about the loss.
#
# For the first we must know where the time goes. For the second, where the noise of the gradient comes from. One source
# is ours to choose. Each row of a batch has a *time* $t$, between data ($t=0$) and noise ($t=1$). We draw it. We could
# draw it otherwise.
#
# The picture shows both, from measurements. They were made by the commands printed below, too long for a chapter; their
# results lie in `chapters/recorded`, and this chapter reads them.

# %%
import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

from som_lite.flow import dual, timesteps
from som_lite.flow.boltzmann import Bumps, three_bumps
from som_lite.flow.densities import three_modes
from som_lite.flow.dual import dual_meanflow_loss, time_rate  # noqa: F401
from som_lite.flow.meanflow import meanflow_loss, sample_times
from som_lite.flow.nets import AverageVelocityNet, SkipVelocityNet
from som_lite.flow.paths import Linear
from som_lite.flow.regressions import PLANS, flow_matching, row_gradients, train_with_plan
from som_lite.flow.scores import box_proposals, posterior_mean_estimate
from som_lite.flow.timesteps import BinLaw, Likelihood, LogitNormal, Power, weights
from som_lite.rl.critic import TwinQ
from som_lite.view.explorers import law_of_t_explorer
from som_lite.view.law_of_t import (
    equal_time_ratios,
    error_ratios,
    mean_ratio,
    relative_variance,
)
from som_lite.view.notebook import check, listing, measured, relative_times, show
from som_lite.view.style import COLOURS, figure

torch.set_num_threads(1)  # small nets: more threads cost more than they bring
path = Linear()


def rng(seed):
    return torch.Generator().manual_seed(seed)


recorded = Path("recorded")
trainings = json.loads((recorded / "timesteps.json").read_text())
timings = json.loads((recorded / "compute.json").read_text())
parts = trainings["parts"]
shares = timings["parts of an update"]
print(timings["command"])
print("\n".join(part["command"] for part in parts.values()))

# %% tags=["hide-input"]
fig, (left, right) = figure(8.6, 3.6, ncols=2)
names = list(shares)[::-1]
colours = [COLOURS[k] for k in ("average", "velocity", "target", "noise")]
left.barh(names, [100 * shares[name] for name in names], color=colours)
left.set(xlabel="per cent of an update of SOM")
looks = {
    "flow matching": ("data", "-"),
    "MeanFlow": ("average", "-"),
    "SOM's actor": ("score", "-."),
    "likelihood": ("error", ":"),
}
for loss, (kind, line) in looks.items():
    part = parts[loss]
    t, f, second = (np.array(part[key]) for key in ("grid", "objective", "second"))
    length = f * np.sqrt(second[-1])
    uniform_mean = np.mean(length / f) / np.mean(1 / f)
    right.plot(t, length / uniform_mean, color=COLOURS[kind], linestyle=line, label=loss)
right.set(yscale="log", xlabel="time $t$", xlim=(0, 1), title="weighted gradient of a row")
right.legend(frameon=False, fontsize=9)
show(
    fig,
    "Left, four bars: shares of an update's time for the critic, for Q at the proposals, for the flow lines, and for the "
    "actor's gradient and step. Right, over the time t with logarithmic heights, the length of a row's weighted gradient for "
    "four losses: nearly flat for flow matching, rising at first for MeanFlow and SOM's actor, and falling by a factor of a "
    "thousand for the likelihood.",
)

# %% [markdown]
# **What you should see.** Left: the bill of one update of SOM, at HalfCheetah's sizes. Even if the critic, the longest
# bar, cost nothing, 45 % of the bill would be left. Right: how long the gradient of a row is at each time, with the
# weight that its loss gives to that time, over its mean. For *flow matching* that is nearly the same everywhere. For
# the *likelihood*, where the same velocity is learnt with the weights of a bound on $\log p$, a few times near the data
# have nearly all of it.
#
# Keep this picture. Where the line is flat, uniform times are as good as any. Where it is steep, much depends on the choice.

# %%
check(
    "shares of an update: distance of their sum from 1", abs(sum(shares.values()) - 1), below=0.02
)
check("largest share", max(shares.values()), below=0.8)


# %% [markdown]
# ## Derivation
#
# ### An objective is an integral over times
#
# Every loss of this book is a mean over times. A density $f(t)$ says how much each time counts; $\ell(t)$ is the
# squared error there. Draw the times from *another* density $p(t)$, and give each row a **weight** $w$. Then the mean
# is the same:
#
# $$L=\int_0^1f(t)\,\ell(t)\,dt=E_{t\sim p}\big[\,w\,\ell(t)\,\big],\qquad w=\frac{f(t)}{p(t)} .$$
#
# So $p$ is free, as long as it is positive wherever $f$ is. It changes how *noisy* the mean is, and nothing else.
# Without the weights, $p$ itself takes the place of $f$: you minimise another loss.
#
# Three densities $f$ occur here. Flow matching has the uniform one. MeanFlow sorts two uniform times into $r\le t$,
# where $r$ is the lower end of the interval; the larger one has $f(t)=2t$, and SOM's actor inherited it. Third, the
# likelihood: $f(t)\propto(1-t)/t$, cut off at $t=0.001$. We check the first formula, and the sentence about MeanFlow.

# %%
curve = lambda t: torch.cos(2 * t[:, 0])  # noqa: E731  stands for the error at each time
grid = ((torch.arange(4000) + 0.5) / 4000)[:, None]
exact = (2 * grid[:, 0] * curve(grid)).mean()
for name, law in {"uniform": Power(1.0), "cubes": Power(3.0), "own": Power(2.0)}.items():
    t = law.spread(20_000, rng(0))
    mean = (weights(t, Power(2.0), law) * curve(t)).mean()
    # evenly spread times err little; the weights of "cubes" grow like 1 / t
    check(f"f = 2t, times from {name}: error of the weighted mean", abs(mean - exact), below=2e-3)
check(
    "cubes without weights: error",
    abs(curve(Power(3.0).spread(20_000, rng(0))).mean() - exact),
    above=0.1,
)
drawn = sample_times(20_000, rng(1), t_min=0.0)[1]
check("MeanFlow's t: error of its mean, 2/3", abs(drawn.mean() - 2 / 3), below=0.01)

# %% [markdown]
# ### The law of least variance
#
# Let $g$ be the gradient of one row's error in all weights of the network, and $G(t)=E\big[|g|^2\mid t\big]$ the mean
# of its squared length at a time. The gradient of a batch is the mean of $w\,g$ over its rows. Its noise is ruled by
# the second moment
#
# $$M(p)=E_{t\sim p}\big[w^2\,|g|^2\big]=\int_0^1\frac{f(t)^2\,G(t)}{p(t)}\,dt .$$
#
# (Take off the squared length of the mean gradient, which does not depend on $p$, and divide by the number of rows:
# that is the variance.) Which $p$ makes it least? The answer has one line, and exercise 5 asks you for the proof:
#
# $$p^*(t)\;\propto\;f(t)\,\sqrt{G(t)},\qquad M(p^*)=\Big(\int_0^1f(t)\,\sqrt{G(t)}\,dt\Big)^2 .$$
#
# Look where the weighted gradient is *long*: the square root of the second moment, not the second moment. The quotient
# $M(f)/M(p^*)$ is all that a law can gain. Take $f=1$ and $\sqrt G=1+4t$, five times as long at one end as at the other:

# %%
root = lambda t: 1 + 4 * t[:, 0]  # noqa: E731
best = BinLaw(Power(1.0), bins=100, share=0.01, memory=0.0)
best.learn(root((torch.arange(100)[:, None] + 0.5) / 100))
greedy = BinLaw(Power(1.0), bins=100, power=2.0, share=0.01, memory=0.0)
greedy.learn(best.score)
moment = {}
for name, law in {"own": Power(1.0), "best": best, "in proportion to G": greedy}.items():
    t = law.spread(20_000, rng(2))
    moment[name] = (weights(t, Power(1.0), law) * root(t)).square().mean()
    print(f"{name:20}{moment[name]:.4f}")
check("M of the uniform law: error against 31/3", abs(moment["own"] - 31 / 3), below=0.02)
check("M of the best law: error against 9", abs(moment["best"] - 9), below=0.02)
check(
    "M in proportion to G, over the best", moment["in proportion to G"] / moment["best"], above=1.1
)

# %% [markdown]
# A factor of five in length, and the best law saves 13 %. And whoever draws in proportion to $G$ itself has gained
# nothing at all. Remember that when you read that some times have "ten times the variance".
#
# The second moment needs the gradient of each row, which is dear. But the loss knows something. In a squared error the
# gradient of a row is the error times the slope of the network. If the slope is about the same at all times, then $G$
# is in proportion to the mean loss at that time, and **the best law goes with the root of the loss**. The common
# *loss-proportional* law forgets the root.
#
# ### Slices
#
# There is a saving that needs no law. A batch of $n$ independent times has gaps and clusters, by chance. Cut $[0,1]$
# into $n$ slices of equal mass and draw one time from each. The variance of a mean has two parts, within times and
# between times; slices leave the first alone, and the second is gone. With $f=p$, and $V(t)$ for the variance of $g$ at
# a time,
#
# $$\mathrm{Var}\Big[\frac1n\sum_ig_i\Big]\;\approx\;\frac1n\int_0^1f(t)\,V(t)\,dt .$$
#
# In the check $g$ is the number $1+4t$ plus normal noise: within times the variance is 1, between times $16/12$.


# %%
def variance_of_means(draw, n=64, batches=4000):
    g = rng(3)
    t = torch.cat([draw(n, g) for _ in range(batches)])
    values = root(t) + torch.randn(len(t), generator=g)
    return n * values.view(batches, n).mean(1).var()


independent, sliced = variance_of_means(Power(1.0).sample), variance_of_means(Power(1.0).spread)
# a variance from 4000 batches has a relative standard error of 2 %
check(
    "n times the variance, independent: over 1 + 16/12",
    independent / (1 + 16 / 12),
    above=0.9,
    below=1.1,
)
check("n times the variance, in slices: over 1", sliced, above=0.9, below=1.1)

# %% [markdown]
# **Stop and think.** Slices take away the variance *between* times. Why do they not help flow matching much?
#
# <details><summary>Answer</summary>
#
# There the mean gradients at different times differ little, compared with the gradients of rows at one and the same
# time: the noise comes from the pairs of data and noise. What is not there cannot be taken away.
#
# </details>

# %% [markdown]
# ## Code
#
# ### The gradient's length, time by time
#
# The observation behind the paper *Adaptive Non-uniform Timestep Sampling* (2411.09998) is that the variance of the
# gradient differs strongly from time to time. Does it here? `row_gradients` has the gradient of each row, by
# `torch.func.vmap`. We train two networks for a moment, one for each weighting, and look.


# %%
def lengths_at(loss, t, rows=128):
    """Root of the mean squared gradient of a row, and its part that is noise, at each time."""
    net, _ = train_with_plan(loss, PLANS["own"], 150)
    found = []
    for time in t:
        g = row_gradients(net, loss.rows(net, torch.full((rows, 1), time), rng(4)))
        found.append((g.square().sum(1).mean().sqrt(), g.var(0).sum() / g.square().sum(1).mean()))
    return torch.tensor(found).T


plain, bound = flow_matching(three_modes()), flow_matching(three_modes(), Likelihood())
probe = [0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98]
length, noise_share = lengths_at(plain, probe)
steep = Likelihood().density(torch.tensor(probe)) * lengths_at(bound, probe)[0]
lines = [f"{'t':>6}{'flow matching':>16}{'of it noise':>13}{'likelihood':>13}"]
for row in zip(probe, length / length.mean(), noise_share, steep / steep.mean(), strict=True):
    lines.append("{:6.2f}{:16.2f}{:13.2f}{:13.3f}".format(*row))
measured(
    "length of a row's weighted gradient by t, over its mean, and its share of noise",
    "\n".join(lines),
)
check("flow matching: greatest length over least", length.max() / length.min(), below=3)
check("flow matching: least share of noise", noise_share.min(), above=0.8)
check("likelihood: greatest length over least", steep.max() / steep.min(), above=20)

# %% [markdown]
# So it depends on the loss. A velocity has about the same size at all times: the loss of flow matching is well made.
# The paper judges an update by the bound on the likelihood; with *its* weights the observation holds here too. And
# nearly all of the gradient is noise, at every time: it comes from the pairs.
#
# ### Laws in the package
#
# A law is a density with a quantile function: uniform numbers go in, times come out. Slices are then two lines.

# %%
listing(
    timesteps.Law.spread,
    {
        "slices = ": "Numbers 0 to $n-1$, of which each gets a uniform fraction.",
        "self.quantile": "Any law.",
    },
)

# %% [markdown]
# A law that learns must not depend on a formula. `BinLaw` cuts a *base* law, the objective's own, into bins of equal
# mass, and draws the bins by a score. A share of 20 % stays even. That bounds the weights: $w\le 1/0.2=5$, whatever the
# scores do.

# %%
listing(
    timesteps.BinLaw.learn,
    {
        "self.score.lerp": "A running mean over about ten looks.",
        "mixed_masses": "In proportion to score to a *power*, mixed with the even share.",
    },
)
law = BinLaw(Likelihood(), bins=8)
law.learn(torch.tensor([0.0, 0, 0, 9, 1, 0, 0, 0]))
t = law.sample(4000, rng(5))
check("largest weight", weights(t, Likelihood(), law).max(), below=5.001)
check(
    "a law's own mean weight, distance from 1",
    abs(weights(t, Likelihood(), law).mean() - 1),
    below=0.1,
)

# %% [markdown]
# What should the score be? With the power ½ of the loss we have the rule from above, at no cost: the losses are there
# anyway. The paper takes another one.

# %% [markdown]
# ### 1. A trial step · ●●○ · 25 min
#
# It asks: *by how much would one update with rows at this time lower the loss over all times?* With the network's weights
# $\theta_k$ after $k$ updates, and $\theta_{k+1}^{(t)}$ after one more with rows at the time $t$ alone,
#
# $$\Delta_k^t=L(\theta_k)-L\big(\theta_{k+1}^{(t)}\big).$$
#
# That is an honest question. A time counts if it helps *all* others, however large its loss or its variance. Write it
# for bins. `bin_loss(b)` is the loss of a few rows in bin `b`; `whole_loss()` is that of fixed rows at all times. Step
# every parameter by its `size` times the slope of `bin_loss(b)` down, measure `whole_loss()`, and put the parameters
# back, exactly. Return the decreases, of shape `(bins,)`.


# %% tags=["exercise", "raises-exception"]
def trial_decreases(parameters, sizes, bin_loss, whole_loss, bins):
    raise NotImplementedError("your turn")


z = torch.tensor([0.3, -0.7, 0.5], requires_grad=True)
before, steepness = z.detach().clone(), torch.tensor([1.0, 4.0, 16.0])
one = lambda b: steepness[b] * z[b] ** 2 / 2  # noqa: E731  a bin for each coordinate
whole = lambda: one(0) + one(1) + one(2)  # noqa: E731
falls = trial_decreases([z], [torch.full((3,), 0.1)], one, whole, 3)
closed = steepness * before**2 / 2 * (1 - (1 - 0.1 * steepness) ** 2)
check(
    "exercise 1: decreases against the closed form, error", (falls - closed).abs().max(), below=1e-5
)
check(
    "exercise 1: change of the parameters afterwards",
    (z.detach() - before).abs().max(),
    below=1e-12,
)
pull = lambda b: (z[b] - 0.0) ** 2 * (1 + b)  # noqa: E731
mixed = trial_decreases([z], [torch.full((3,), 0.1)], pull, whole, 3)
inner = (0.2 * (1 + torch.arange(3.0))) * before  # the step in each coordinate
other = steepness * (before**2 - (before - inner) ** 2) / 2
check(
    "exercise 1: bins with another loss than the whole, error",
    (mixed - other).abs().max(),
    below=1e-5,
)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Keep clones of the parameters. `torch.autograd.grad(loss, parameters)` has the slopes. Whatever changes a parameter in
# place stands under `torch.no_grad()`; `p.copy_(old)` puts one back.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def trial_decreases(parameters, sizes, bin_loss, whole_loss, bins):
#     parameters, sizes = list(parameters), list(sizes)
#     old = [p.detach().clone() for p in parameters]
#     falls = []
#     with torch.no_grad():
#         start = whole_loss()
#     for b in range(bins):
#         slopes = torch.autograd.grad(bin_loss(b), parameters)
#         with torch.no_grad():
#             for p, size, slope in zip(parameters, sizes, slopes, strict=True):
#                 p -= size * slope
#             falls.append(start - whole_loss())
#             for p, before in zip(parameters, old, strict=True):
#                 p.copy_(before)
#     return torch.stack(falls)
# ```
#
# </details>

# %% [markdown]
# **What is the paper's, and what is ours.** The paper's is the quantity $\Delta_k^t$, the aim to draw the times with
# the largest one, and to learn that while training. In the paper a network looks at $a_0$, the clean data point, and
# gives a Beta density of $t$; it is trained by policy gradients, with $\Delta$ as the reward and an entropy bonus;
# $\Delta$ is measured for the updates that are made anyway, on a few times that stand for the rest; and, in its
# published code, the rows have no weights. Ours are the bins, the trial step that is undone, a measurement at all
# times, Adam's step sizes without its memory of direction, and the weights. With bins there is little to learn. You can
# read it in a minute, and it costs 16 trial steps every 50 updates, each with a look at the whole loss: with all else, a third more time or so.
#
# ### The other lever: a derivative for nothing
#
# MeanFlow's target contains the rate of change of the average velocity $u(a,r,t)$ when the point moves at its velocity
# $v$ and the time runs (chapter 02). The code had two calls of the network: one for $u$, and one inside
# `torch.func.jvp`, which computes $u$ again and throws it away. By hand, value and rate go through the layers
# *together*, as a pair $(z,\dot z)$:
#
# $$(z,\dot z)\mapsto(Wz+b,\;W\dot z),\qquad
# (z,\dot z)\mapsto\big(z\varsigma,\;\dot z\,\varsigma\,(1+z\,(1-\varsigma))\big),\quad\varsigma=\frac1{1+e^{-z}}.$$
#
# The left is a linear layer, the right is SiLU. You wrote that in exercise 5 of chapter 02; the check holds it against
# central differences.

# %%
z = torch.linspace(-4, 4, 9, dtype=torch.float64)
s = torch.sigmoid(z)
silu = nn.functional.silu
slope = (silu(z + 1e-5) - silu(z - 1e-5)) / 2e-5
check("slope of SiLU, error", (s * (1 + z * (1 - s)) - slope).abs().max(), below=1e-9)

# %% [markdown]
# ### 2. One pass for two · ●●○ · 30 min
#
# Write `value_and_rate`: the value $u$ of an `AverageVelocityNet`, which carries gradient, and its rate along
# $(v,0,1)$, which carries none, from **one** pass. The network joins `a`, `net.time(t)` and `net.time(t - r)` and sends
# them through `net.mlp`. `time_rate(net.time, t)` is the derivative of the embedding in $t$. The check counts how often
# a layer is called.


# %% tags=["exercise", "raises-exception"]
def value_and_rate(net, a, r, t, v):
    raise NotImplementedError("your turn")


torch.manual_seed(0)
net = AverageVelocityNet(2, hidden=(64, 64))
a, v = torch.randn(2, 128, 2, generator=rng(6))
t = torch.rand(128, 1, generator=rng(7))
r = t * torch.rand(128, 1, generator=rng(8))
calls = []
hook = net.mlp[2].register_forward_hook(lambda *_: calls.append(1))
value, rate = value_and_rate(net, a, r, t, v)
hook.remove()
with torch.no_grad():
    by_torch = torch.func.jvp(net, (a, r, t), (v, torch.zeros_like(r), torch.ones_like(t)))
off = (value.detach() - by_torch[0]).abs().max()
check("exercise 2: error of the value", off, below=1e-5)
check(
    "exercise 2: relative error of the rate",
    (rate.detach() - by_torch[1]).norm() / by_torch[1].norm(),
    below=1e-5,
)
check("exercise 2: calls of a hidden layer", len(calls), below=1.5)
check(
    "exercise 2: the value carries gradient, the rate none",
    value.requires_grad - rate.requires_grad,
    above=0.5,
)
first = net.mlp[0].weight
wanted = torch.autograd.grad(net(a, r, t).square().sum(), first)[0]
found = torch.autograd.grad(value.square().sum(), first, allow_unused=True)[0]
off = 1.0 if found is None else (found - wanted).norm() / wanted.norm()
check("exercise 2: gradient that reaches the first layer, relative error", off, below=1e-4)

# %% [markdown]
# <details><summary>Hint</summary>
#
# What moves at which rate? The point at $v$, both embeddings with $t$. Then loop over `net.mlp`. For the rate use
# `layer.weight.detach()` and `z.detach()`.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# (The package's begins with a look at the type of `net`: other networks have other layers.)
#
# ```python
# def value_and_rate(net, a, r, t, v):
#     if type(net) is not AverageVelocityNet:
#         raise TypeError(f"net must be an AverageVelocityNet, got {type(net).__name__}")
#     z = torch.cat([a, net.time(t), net.time(t - r)], -1)
#     dz = torch.cat([v, time_rate(net.time, t), time_rate(net.time, t - r)], -1)
#     for layer in net.mlp:
#         if isinstance(layer, nn.Linear):
#             dz = dz @ layer.weight.detach().T
#         else:
#             x = z.detach()
#             s = torch.sigmoid(x)
#             dz = dz * s * (1 + x * (1 - s))
#         z = layer(z)
#     return z, dz
# ```
#
# </details>

# %% [markdown]
# With it the loss of MeanFlow is one pass (`dual_meanflow_loss`). What is it worth? Here is how such a thing is
# measured. The two take *turns*, so that a change of the machine's pace meets both. We count the processor's time and
# not that of the clock on the wall, for others may be using the machine. And we take the median of the *ratios*.

# %%
with torch.no_grad():
    off = (dual.value_and_rate(net, a, r, t, v)[0] - net(a, r, t)).abs().max()
check("value by hand: difference from the network's", off, below=1e-12)


def update_with(loss):
    net.zero_grad()
    loss(net, a, r, t, v).backward()


gradient = {}
for loss in (meanflow_loss, dual_meanflow_loss):
    update_with(loss)
    gradient[loss] = torch.cat([p.grad.flatten() for p in net.parameters()])
off = gradient[dual_meanflow_loss] - gradient[meanflow_loss]
check(
    "gradients of both losses, relative difference",
    off.norm() / gradient[meanflow_loss].norm(),
    below=1e-5,
)
ratio = relative_times(
    {"jvp": lambda: update_with(meanflow_loss), "dual": lambda: update_with(dual_meanflow_loss)},
    7,
    3,
)["dual"]
check("time of an update with the dual pass over one with the JVP", ratio, below=0.75)

# %% tags=["hide-input"]
lines = [f"{'':20}{'time / forward':>16}{'the same, larger':>18}{'error':>12}"]
small, large = timings["rates, 64-64, 128 rows"], timings["rates, 256-256, 256 rows"]
for way in small["time"]:
    error = small["error"].get(way)
    shown = f"{error:12.0e}" if error is not None else ""
    lines.append(f"{way:20}{small['time'][way]:16.1f}{large['time'][way]:18.1f}{shown}")
print("\n".join(lines))

# %% [markdown]
# The recorded table: times over that of one forward pass, for two hidden layers of 64 (128 rows) and of 256 (256 rows),
# and the relative error against double precision. The value by hand is that of the network bit for bit; the rate
# differs from the library's in the last digit or two, since the two multiply in another order. `torch.func.jvp` is
# general, and a small network pays for it. Finite differences are as cheap as the dual pass and some two hundred times less
# exact. *Reverse twice* is a trick to remember, for a library without a JVP: the gradient of a vector-Jacobian product
# in its vector.

# %% [markdown]
# ## Checks
#
# ### Does the choice of times pay?
#
# Four losses, each on three targets with five seeds: flow matching, the likelihood's weights, MeanFlow, and SOM's actor
# on a known critic $Q$ with the temperature $\alpha=0.15$. *Own* draws from the density $f$ of the loss. The others are
# compared with it: same target, same seed, error over error, and the geometric mean over the fifteen pairs with its 95 %
# interval. The *error* of the first two is $|u-v|/|v|$ with the exact velocity $v$; that of the others is the mean
# distance of one step's end from the right one. Each training has 800 updates, SOM's actor 600.


# %%
def cell(numbers):
    return "{:.2f} ({:.2f} to {:.2f})".format(*numbers)


lines = [f"{'':14}{'times':21}{'after 1/8':>21}{'after all':>21}{'time':>6}{'at equal time':>21}"]
for loss, part in parts.items():
    for law in (name for name in part["time"] if name != "own"):
        looks = np.stack(mean_ratio(error_ratios(part, law)))
        fair = np.stack(mean_ratio(equal_time_ratios(part, law)))[:, 0]
        row = f"{loss:14}{law:21}{cell(looks[:, 1]):>21}{cell(looks[:, -1]):>21}"
        lines.append(f"{row}{part['time'][law]:6.2f}{cell(fair):>21}")
print("\n".join(lines))

# %% tags=["hide-input"]
fig, axes = figure(8.6, 3.6, ncols=2)
shown = {
    "own": ("reference", "-"),
    "uniform": ("error", ":"),
    "spread": ("average", "-"),
    "root loss": ("flow", "--"),
    "decrease": ("score", "-."),
}
for ax, loss in zip(axes, ("likelihood", "MeanFlow"), strict=True):
    part = parts[loss]
    for law, (kind, line) in shown.items():
        runs = np.concatenate([np.array(e[law]) for e in part["error"].values()])
        spent = part["time"][law] * np.array(part["looks"])
        error = np.exp(np.log(runs).mean(0))
        ax.plot(spent, error, color=COLOURS[kind], linestyle=line, label=law)
    ax.set(xscale="log", yscale="log", title=loss, xlabel="processor time, in updates of own")
    ax.set_yticks([0.3, 0.5, 0.7, 1.0], ["0.3", "0.5", "0.7", "1"])
    ax.minorticks_off()
axes[0].set_ylabel("error")
axes[1].legend(frameon=False, fontsize=9)
show(
    fig,
    "Error against the processor time, both logarithmic, by five laws. Left, the likelihood: uniform times run above the "
    "others all the way; own and spread lie on each other; the learnt laws run beside them, a little later. Right, MeanFlow: "
    "four laws fall together after a hundred updates, the law by decrease half as fast.",
)

# %% [markdown]
# *Time* is the processor's time of an update over own's. *At equal time* compares own after three quarters of its
# updates with the other after as many as it makes in that time.
#
# Before you read the errors, look at the variances. What can be won is known: $M(p)/M(p^*)$, from the recorded
# gradients at the end of the trainings.

# %%
laws = ("own", "uniform", "loss", "root loss", "decrease")
lines = [f"{'M over its least value':24}" + "".join(f"{law:>11}" for law in laws)]
for loss, part in parts.items():
    found = [relative_variance(part, x, -1) if x in part["density"] else None for x in laws]
    lines.append(f"{loss:24}" + "".join(f"{x:11.2f}" if x else f"{'':11}" for x in found))
print("\n".join(lines))
for loss in ("flow matching", "likelihood", "MeanFlow"):
    check(f"{loss}: M of own over the least", relative_variance(parts[loss], "own", -1), below=1.1)
check("SOM's actor: the same", relative_variance(parts["SOM's actor"], "own", -1), above=1.1)
root_law = relative_variance(parts["SOM's actor"], "root loss", -1)
check("SOM's actor: M of the root of the loss", root_law, below=1.12)
far_off = relative_variance(parts["likelihood"], "uniform", -1)
check("likelihood, uniform times: M over the least", far_off, above=15)

# %% [markdown]
# (One training each, on the first target.) Three of the four losses had, without knowing it, a law within two per cent of the best one. **There was nothing to
# win.** SOM's actor is 38 % above; the loss finds nearly all of that, its root most, so there the network's slope is not the same at all times. And the law by decrease has *more*
# variance than own everywhere: it answers another question.
#
# Now the errors.
#
# * **Flow matching.** No law beats its own. Slices do neither good nor harm. The law by decrease is 4 % behind. Laws
#   that learn cost a third more time, so at equal time they all are behind.
# * **Likelihood.** Uniform times with weights, which is how one would naively train, have 30 times the least variance
#   and are behind from the start. Drawing from $f$ instead of multiplying by it costs nothing. After that the learnt
#   laws have nothing to add.
# * **MeanFlow.** In the end no law with weights is ahead; the law by decrease is 4 % behind. Logit-normal times
#   *without* weights are 13 % behind: another objective.
# * **SOM's actor.** The loss-proportional law has the least variance, and 4 % less error after all updates, but not at
#   equal time: the noise of the gradient is not what limits it here. Logit-normal times *without* weights end 10 %
#   ahead: not by less variance, but by another objective, with less weight at the ends of the path. At equal time that
#   is within its interval. It is a hint, on a robot not yet followed.
#
# This does not contradict the paper. It trained large networks on images, and our small ones on the plane
# cannot say what happens there. What you can carry over is the *measurement*: $M$ of your law over the least
# one. It takes a minute, and tells you whether a sampler of times is worth the trouble.

# %%
for loss in ("flow matching", "MeanFlow", "SOM's actor"):
    for law in ("spread", "loss", "root loss", "decrease"):
        late = mean_ratio(error_ratios(parts[loss], law))[0][-1]
        check(f"{loss}, {law}: error over own's", late, above=0.85, below=1.15)
uniform_early = mean_ratio(error_ratios(parts["likelihood"], "uniform"))[1][1]
check("likelihood, uniform times: error over own's after 1/8, lower end", uniform_early, above=1.05)
low = mean_ratio(error_ratios(parts["MeanFlow"], "logit-normal"))[1]
check("MeanFlow, logit-normal without weights: lower end after all", low[-1], above=1.05)
ahead = mean_ratio(error_ratios(parts["SOM's actor"], "logit-normal"))[2][-1]
check("SOM's actor, logit-normal without weights: error over own's, upper end", ahead, below=1)

# %% [markdown]
# That can be tried here, in a second: the beginning of a training with the likelihood's weights.

# %%
early = {"own": [], "uniform": []}
for name, errors in early.items():
    for seed in (0, 1):
        errors.append(train_with_plan(bound, PLANS[name], 80, seed, looks=[10])[1][0].error)
worse = np.mean(early["uniform"]) / np.mean(early["own"])
check("after 10 of 80 updates: error with uniform times over own's", worse, above=1.03)

# %% [markdown]
# ### Proposals or rows, at equal cost
#
# SOM's actor asks $Q$ at $K$ proposals for each of $B$ rows of a batch: $KB$ values. Few proposals make each velocity
# noisy, and wrong on average, as a quotient of two estimates is. Few rows make the mean over rows noisy. What is best,
# for 1024 values? We hold the gradient against one from half a million values.

# %%
alpha = 0.15
q = Bumps(three_bumps().centres, torch.tensor([0.3, 0.2, 0.2]), torch.tensor([1.0, 0.97, 0.93]))
torch.manual_seed(1)
actor = SkipVelocityNet(2, hidden=(64, 64))


def actor_gradient(K, B, generator):
    t = Power(2.0).spread(B, generator).clamp(0.05, 0.999)
    a0 = 2 * torch.rand(B, 2, generator=generator) - 1
    a_t = path.noise(a0, torch.randn(B, 2, generator=generator), t)
    m = posterior_mean_estimate(q, a_t, t, path, alpha, K, generator).m
    loss = (actor(a_t, t, t) - path.velocity_from_mean(m, a_t, t)).square().sum(-1).mean()
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(actor.parameters()))])


g = rng(9)
wanted = torch.stack([actor_gradient(128, 1024, g) for _ in range(4)]).mean(0)
off = {}
for K in (2, 4, 16, 64, 256):
    errors = [actor_gradient(K, 1024 // K, g) - wanted for _ in range(25)]
    off[K] = torch.stack(errors).square().sum(1).mean().sqrt() / wanted.norm()
measured(
    "relative error of the gradient from 1024 values of Q, by K",
    "\n".join(f"K = {K:3}, B = {1024 // K:3}: {error:.2f}" for K, error in off.items()),
)
check("K = 2 over K = 16", off[2] / off[16], above=1.2)
check("K = 256 over K = 16", off[256] / off[16], above=1.5)

# %% [markdown]
# Both ends are a bad way to spend. Of these, 16 proposals for 64 rows is the best, and 16 is SOM's number. A row also
# costs a pass of the actor forward and backward, so in time, not in values, the balance moves a little towards more
# proposals.
#
# ### The rest of the bill

# %% tags=["hide-input"]
kinds, half, two = timings["activations"], timings["bfloat16"], timings["threads"]
lines = [f"{'activation':28}{'time / SiLU':>12}{'error after 300 updates':>26}"]
for kind in kinds["time"]:
    lines.append(f"{kind:28}{kinds['time'][kind]:12.2f}{kinds['error'][kind]:26.3f}")
lines += ["", f"{'32 candidates in a loop over one call':42}{timings['loop over one call']:8.1f}"]
lines += [f"{'a product in bfloat16 over float32':42}{half['ratio']:8.2f}"]
lines += [f"{'its relative rounding error':42}{half['error']:8.4f}"]
lines += [f"{'is bfloat16 native there':42}{'yes' if half['native'] else 'no':>8}"]
lines += [f"{'an update with 2 threads over 1 (wall)':42}{two['two over one']:8.1f}"]
lines += [f"{'... on so many cores, with this load':42}{two['cores']:>4} {two['load']:.0f}"]
print("\n".join(lines))

# %% [markdown]
# **Activation.** ReLU is the cheapest; Mish costs 1.6 times as much as SiLU. Here ReLU has the smallest error too: it
# learns a velocity fast. But its slope jumps, and MeanFlow's target is made of slopes. Choose by your loss.
#
# **One call.** Thirty-two candidate actions, one after the other, take seventeen times as long as in one call. Where
# you see a loop around a network, you have found time.
#
# **Precision.** If the processor multiplies bfloat16 natively, as the recording one did, a large product takes half of
# the time, with an error of three in a thousand. If it does not, every product is emulated, and you can only lose. Ask
# before, as the cell below does.
#
# **Threads.** One process with two threads took 26 times as long as with one, by the clock on the wall, on two cores
# that had other work. To use two cores, run two seeds in two processes.
#
# **GPU.** Captured graphs (`torch.cuda.CUDAGraph`) and `torch.compile` remove the cost of launching many small
# operations, of which an update here has hundreds. They were **not measured** for this book, which had no GPU at hand,
# and no number is given.

# %%
tiny = torch.tensor(1.0, dtype=torch.bfloat16) + torch.tensor(0.003, dtype=torch.bfloat16)
check("bfloat16: 1 + 0.003, distance from 1", abs(float(tiny) - 1), below=1e-6)
native = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
measured(
    "whether bfloat16 is native on this machine",
    f"native bfloat16 here: {'yes' if native else 'no'}",
)

# %% [markdown]
# A number in bfloat16 has eight binary digits: $1+0.003=1$. A step of Adam is often smaller than that, compared with
# its weight, and would be lost. So weights and Adam's state stay in 32 bits; what may be short are the products of a
# forward pass.
#
# **Stop and think.** A colleague reports that two threads made training slower, on a machine with two cores. What may
# have happened?
#
# <details><summary>Answer</summary>
#
# Every operation now ends with both threads waiting for each other. Small products have too little work to pay for
# that. And if something else runs on one of the cores, each operation waits until that core is free again. Two
# *processes*, of one thread each, wait for nothing.
#
# </details>

# %% [markdown]
# ## Explorer
#
# The recorded trainings. Choose a loss and a way to choose times; move the training forward.

# %%
law_of_t_explorer(parts, start=("likelihood", "uniform"))

# %% [markdown]
# **What you should see.** It begins with the likelihood, learnt at uniform times with weights. Left, the black law and
# the purple best one lie on top of each other and shoot up towards the data, $t=0$; the orange one is flat, with 30
# times the least variance. Right, its triangles are above 1 from the first look. Choose *own*, and the orange line
# joins the black one. Now choose *SOM's actor* and *root loss*: the orange line lies nearer to the purple one than the
# black one does, and the triangles lie around 1. With *decrease* the orange law has steps: it is learnt from few looks.

# %% [markdown]
# ## What can go wrong
#
# ### Weights without a floor
#
# The logit-normal law, the sigmoid of a normal, is common for images, *without* weights. Add them for a uniform
# objective, and the weight of a time near the ends is enormous: the density falls faster than any power of $t$. The
# second moment $\int1/p\,dt$ is infinite. In a sample that shows as a sum ruled by its largest term. A share of the
# objective's own law mends it, as in `BinLaw`.

# %%
bell = LogitNormal(0.0)
t = bell.sample(200_000, rng(10))
w = weights(t, Power(1.0), bell).square()
check(
    "logit-normal: share of the largest of 200 000 terms in the sum of squared weights",
    w.max() / w.sum(),
    above=0.01,
)
mixed_density = 0.8 * bell.density(t) + 0.2
check("with a share of 20 %: the largest weight", (1 / mixed_density).max(), below=5)

# %% [markdown]
# ### The weights left out
#
# Then the law *is* the objective. For the likelihood, logit-normal times hardly ever see the data's end, and the error
# there stays.

# %%
late = mean_ratio(error_ratios(parts["likelihood"], "logit-normal"))[1][-1]
check("likelihood, logit-normal without weights: error over own's, lower end", late, above=1.2)

# %% [markdown]
# It can also be what you want: no law of nature says that the objective's own density is the best one for *samples*.
# But then compare objectives, and do not call it variance.
#
# ### A score that follows the noise
#
# A loss-proportional law looks where the loss is large. Where the loss is large because the *target* is noise, it looks
# in vain: no look will lower it. Take two bins. In the first the target is pure chance, in the second a line to learn.

# %%
torch.manual_seed(2)
line = nn.Linear(1, 1)
chance = BinLaw(Power(1.0), bins=2, share=0.1)
g = rng(11)
for _ in range(60):
    t = chance.sample(64, g)
    noisy = t < 0.5
    y = torch.where(noisy, 3 * torch.randn(64, 1, generator=g), 0.8 * t)
    errors = (line(t) * ~noisy - y).square()[:, 0]  # at noisy times nothing can be predicted
    chance.observe(t, errors)
check("loss-proportional: mass of the bin that is pure chance", chance.mass[0], above=0.8)
probe_t = torch.linspace(0.55, 0.95, 32)[:, None]
falls = timesteps.trial_decreases(
    line.parameters(),
    [torch.tensor(0.1), torch.tensor(0.1)],
    lambda b: (line(probe_t) * b - (0.8 * probe_t if b else 3.0)).square().mean(),
    lambda: (line(probe_t) - 0.8 * probe_t).square().mean(),
    2,
)
check(
    "trial steps: decrease by the bin of chance over that by the other",
    falls[0] / falls[1],
    below=0.01,
)

# %% [markdown]
# Here lies the strength of the paper's question: it asks what an update *does*. With weights kept, though, the aim is
# least variance, and there a noisy time does deserve more looks. The two answers differ because the two questions do.
#
# **Stop and think.** With the weights kept, which score would you give `BinLaw`: the root of the loss, or $\Delta$? And
# without?
#
# <details><summary>Answer</summary>
#
# With weights the expected gradient is the same for every law, and only variance is left to win: the root of the loss,
# as an estimate of $\sqrt G$. Without weights the law decides where the network learns: then $\Delta$ is a reasonable
# judge of what is worth learning now, which is how the paper uses it.
#
# </details>

# %% [markdown]
# ## Exercises
#
# Exercises 1 and 2 stand in the code section. Each stub raises `NotImplementedError`; ✓ lines say that you are done.
# This first draft of the loss of SOM's actor is for exercise 4.


# %%
def draft_loss(actor, critic, obs, a_t, t, a0, alpha):
    values = []
    for k in range(a0.shape[1]):
        both = torch.stack([critic.q1(obs, a0[:, k]), critic.q2(obs, a0[:, k])])
        values.append(both.min(0).values)
    w = torch.softmax(torch.stack(values, 1) / alpha, 1)
    m = sum(w[:, k : k + 1] * a0[:, k] for k in range(a0.shape[1]))
    v = (a_t - m) / t
    return (actor(a_t, t, t, obs) - v).square().sum(-1).mean()


g = rng(13)
with torch.random.fork_rng(devices=[]):
    torch.manual_seed(3)
    judges, student = TwinQ(17, 6, (64, 64)), SkipVelocityNet(6, 17, hidden=(64, 64))
obs, times = torch.randn(64, 17, generator=g), 0.1 + 0.8 * torch.rand(64, 1, generator=g)
noisy = torch.randn(64, 6, generator=g)
case = obs, noisy, times, box_proposals(noisy, times, path, 16, g), 0.1


def step_of(loss):
    student.zero_grad()
    judges.zero_grad()
    value = loss(student, judges, *case)
    value.backward()
    return value.detach(), torch.cat([p.grad.flatten() for p in student.parameters()])


# %% [markdown]
# ### 3. Slices for pairs · ●○○ · 15 min
#
# MeanFlow needs pairs $r\le t$. Write `spread_pairs(n, generator)`: columns `r` and `t` of shape `(n, 1)`, distributed
# as two sorted uniform times, but with $t$ in slices: exactly one $t$ in each of $n$ slices of equal mass. Given $t$,
# the lower time is uniform on $[0,t]$.


# %% tags=["exercise", "raises-exception"]
def spread_pairs(n, generator):
    raise NotImplementedError("your turn")


r_pair, t_pair = spread_pairs(1000, rng(12))
check("exercise 3: smallest t - r", (t_pair - r_pair).min(), above=-1e-7)
slices = torch.bincount((t_pair[:, 0] ** 2 * 1000).long().clamp(0, 999), minlength=1000)
check("exercise 3: slices without exactly one t", (slices != 1).sum(), below=5)  # rounding at edges
part = (r_pair / t_pair)[:, 0]
check("exercise 3: error of the mean of r / t", abs(part.mean() - 0.5), below=0.05)
check("exercise 3: error of the variance of r / t, 1/12", abs(part.var() - 1 / 12), below=0.012)
check(
    "exercise 3: correlation of r / t with t",
    abs(torch.corrcoef(torch.stack([part, t_pair[:, 0]]))[0, 1]),
    below=0.12,
)
again = torch.stack([spread_pairs(16, rng(seed))[1].mean() for seed in range(200)])
check("exercise 3: spread of the mean t of 16 pairs", again.std(), above=1e-4, below=0.02)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `Power(2.0)` is the law of the larger of two uniform times.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def spread_pairs(n, generator):
#     t = Power(2.0).spread(n, generator)
#     return t * torch.rand(n, 1, generator=generator), t
# ```
#
# </details>

# %% [markdown]
# ### 4. Twice as fast · ●●○ · 30 min
#
# `draft_loss`, above, is right and slow. It walks through the proposals `a0` `(B, K, d)` of the states `obs` `(B, o)`
# one by one. Write `fast_loss` with the same arguments and the same gradient of the actor. The critic's networks may be
# called once each, the critic gets no gradient, and the update shall take less than half of the time.


# %% tags=["exercise", "raises-exception"]
def fast_loss(actor, critic, obs, a_t, t, a0, alpha):
    raise NotImplementedError("your turn")


(slow_value, slow_step), calls = step_of(draft_loss), []
hooks = [x.register_forward_hook(lambda *_: calls.append(1)) for x in (judges.q1, judges.q2)]
fast_value, fast_step = step_of(fast_loss)
for hook in hooks:
    hook.remove()
check("exercise 4: relative error of the loss", abs(fast_value / slow_value - 1), below=1e-4)
check(
    "exercise 4: relative error of the gradient",
    (fast_step - slow_step).norm() / slow_step.norm(),
    below=1e-4,
)
check("exercise 4: calls of the critic's networks", len(calls), above=1.5, below=2.5)
check(
    "exercise 4: the critic's gradient",
    sum(p.grad is not None for p in judges.parameters()),
    below=0.5,
)
saved = relative_times(
    {"draft": lambda: step_of(draft_loss), "fast": lambda: step_of(fast_loss)}, 7, 2
)
check("exercise 4: time over the draft's", saved["fast"], below=0.5)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `critic.min(obs[:, None], a0)` values all proposals of all states, `(B, K)`, in one call of each network. Which lines
# need a gradient?
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# The draft made the graph of sixteen passes through two critics, and went back through all of them for gradients that
# nobody uses.
#
# ```python
# def fast_loss(actor, critic, obs, a_t, t, a0, alpha):
#     with torch.no_grad():
#         w = torch.softmax(critic.min(obs[:, None], a0) / alpha, 1)
#         v = (a_t - (w[..., None] * a0).sum(1)) / t
#     return (actor(a_t, t, t, obs) - v).square().sum(-1).mean()
# ```
#
# </details>

# %% [markdown]
# ### 5. The best law, with a proof · ●●● · 45 min
#
# Show that $\int f^2G/p\,dt\ge(\int f\sqrt G\,dt)^2$ for every density $p$, and for which $p$ there is equality. Then
# let every row have a *price* $c(t)$, as a call of a solver has, and the batch a budget: so many rows as it pays for.
# Derive the law that makes the second moment least *at equal cost*. Write `best_masses(f, second, price)` for the masses
# `(n,)` of `n` equal bins, from $f$, $G$ and $c$ in the bins.


# %% tags=["exercise", "raises-exception"]
def best_masses(f, second, price):
    raise NotImplementedError("your turn")


middle_t = (torch.arange(50, dtype=torch.float64) + 0.5) / 50
f_bin, second_bin = 2 * middle_t, (1 + 4 * middle_t) ** 2 * (1 + torch.sin(9 * middle_t) / 2)
one_price, rising = torch.ones(50, dtype=torch.float64), 1 + 5 * middle_t


variance_at_cost = lambda p, price: (  # noqa: E731  second moment times mean price
    ((f_bin / 50) ** 2 * second_bin / p).sum() * (p * price).sum()
)
for words, price in {"equal prices": one_price, "rising prices": rising}.items():
    p = best_masses(f_bin, second_bin, price)
    check(f"exercise 5: sum of the masses, {words}: error", abs(p.sum() - 1), below=1e-6)
    least = variance_at_cost(p, price)
    bound_below = ((f_bin / 50) * (second_bin * price).sqrt()).sum() ** 2
    check(
        f"exercise 5: second moment at equal cost over its bound, {words}",
        least / bound_below,
        above=0.9999,
        below=1.0001,
    )
g = rng(14)
for _ in range(20):  # no law nearby is better
    shaken = p * torch.exp(0.1 * torch.randn(50, generator=g, dtype=torch.float64))
    assert variance_at_cost(shaken / shaken.sum(), rising) > least

# %% [markdown]
# <details><summary>Hint</summary>
#
# Cauchy–Schwarz: $(\int xy)^2\le\int x^2\int y^2$, with equality if $x$ and $y$ are proportional. Which $x$, $y$ have
# the product $f\sqrt G$? With prices, a budget $b$ pays for $n=b/\int pc$ rows, and what rules the noise is $M(p)/n$. (The variance is a little
# less, by the squared length of the mean gradient over $n$: small where nearly all is noise.)
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# Take $x=f\sqrt{G/p}$ and $y=\sqrt p$. Their product is $f\sqrt G$, and $\int y^2=1$. So $(\int f\sqrt G)^2\le\int
# f^2G/p$, with equality if $f\sqrt{G/p}\propto\sqrt p$, that is, $p\propto f\sqrt G$. With prices the second moment
# over the number of rows, at a budget $b$, is $\frac1b\int f^2G/p\cdot\int pc$. Take $x=f\sqrt{G/p}$ and $y=\sqrt{pc}$: the product of the integrals
# is at least $(\int f\sqrt{Gc})^2$, with equality if $f\sqrt{G/p}\propto\sqrt{pc}$, that is, $p\propto f\sqrt{G/c}$. A
# time that costs four times as much is drawn half as often.
#
# ```python
# def best_masses(f, second, price):
#     p = f * (second / price).sqrt()
#     return p / p.sum()
# ```
#
# </details>

# %% [markdown]
# ## Summary
#
# * Measure before you save. If SOM's critic cost nothing, 45 % of its update would still be there.
# * With the weights $f/p$ every law of $t$ has the same objective; $p$ decides about the noise alone. Least noise is at
#   $p^*\propto f\sqrt G$, and $M(f)/M(p^*)$ is all that can be won.
# * Where rows have gradients of about one length, the objective's own law is nearly the best: so it is for velocities
#   and MeanFlow. For SOM's actor it is not, but there the noise is not the limit. Draw from the objective's density
#   instead of multiplying by it.
# * Slices cost next to nothing, and gave nothing here. A law without weights is another objective.
# * The adaptive sampler's question, *what does an update at this time do for all others?*, needs no more than a trial
#   step.
# * A value and its rate fit in one pass, and MeanFlow's update takes half of the time or less.
# * Compare in turns, by the processor's time, with medians of ratios.

# %% [markdown]
# ## References
#
# * Kim and others: Adaptive Non-uniform Timestep Sampling, [2411.09998](https://arxiv.org/abs/2411.09998). The decrease
#   of the objective as a measure of what a time is worth.
# * Nichol, Dhariwal: Improved denoising diffusion models, [2102.09672](https://arxiv.org/abs/2102.09672). Times drawn
#   by the root of the mean squared loss, with weights.
# * Esser and others: Rectified flow transformers, [2403.03206](https://arxiv.org/abs/2403.03206). The logit-normal law.
# * Song and others: Maximum likelihood training of score-based models, [2101.09258](https://arxiv.org/abs/2101.09258).
#   The likelihood's weights.
# * Geng and others: MeanFlow, [2505.13447](https://arxiv.org/abs/2505.13447).
# * Kim and others: SOM, [2605.23365](https://arxiv.org/abs/2605.23365).
#
# ---
#
# Previous: [10 · Neighbours](10_neighbours.ipynb). Next: [12 · Offline, and what is open](12_offline.ipynb).
