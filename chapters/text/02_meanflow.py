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
# # 02 · MeanFlow: from noise to data in one step
#
# **What you will do.** You derive one equation, the MeanFlow identity, and check every line of the derivation
# against numbers. You turn it into a training target of four lines. Then you train a small network that takes a random
# point to a data point in a single step, and break it in several ways to see what each part is for.
#
# **What you will learn.** What an average velocity is and why one step needs it. What a Jacobian-vector product
# is, and how to get one without a Jacobian. Why the target carries no gradient. How to read a loss that rises
# while the model gets better.
#
# **What you need.** [Chapter 01](01_flow_matching.ipynb), calculus (the chain rule in several variables) and
# PyTorch.
#
# **Time and hardware.** ≈ 40 s on one CPU core, nearly all of it for nine short trainings; allow an hour and a half for
# reading and two hours for the exercises. No GPU.
#
# Previous: [01 · Flow matching on the plane](01_flow_matching.ipynb). Next:
# [03 · Policies as Boltzmann distributions](03_boltzmann_policies.ipynb).

# %% [markdown]
# ## The idea in one picture
#
# ### What we bring along
#
# The letters are those of chapter 01. A data point $a_0$ with density $p_0$ (the same three blobs, with 50, 30 and 20 %
# of the mass) and a noise point $\varepsilon$ make a path, $a_t=(1-t)\,a_0+t\,\varepsilon$. Time $t=0$ is data,
# $t=1$ is noise. A pair moves at $\varepsilon-a_0$. A place has the mean velocity of the pairs that pass,
#
# $$v(a,t)=E\,[\,\varepsilon-a_0\mid a_t=a\,],$$
#
# for our blobs an explicit function. Points that follow $da_t/dt=v(a_t,t)$ backwards from noise end up as data, each on
# its own *flow line*.
#
# Chapter 01 ended with a bill: a good sample takes many Euler steps, hence many calls of the network. For later
# comparisons we send 4000 noise points along the exact flow, in 64 small steps, and keep where they arrive.

# %%
from functools import partial
from itertools import combinations

import numpy as np
import torch
from scipy.integrate import simpson
from torch import nn

from som_lite.flow import meanflow
from som_lite.flow.densities import GaussianMixture, three_modes
from som_lite.flow.distances import sliced_distance
from som_lite.flow.meanflow import sample_times
from som_lite.flow.nets import MLP, TimeEmbedding
from som_lite.flow.ode import euler_step, reference_solve, rk4_step, solve
from som_lite.flow.paths import Linear
from som_lite.view import plots
from som_lite.view.explorers import average_velocity_explorer
from som_lite.view.notebook import check, show
from som_lite.view.style import COLOURS, figure, plane

torch.set_num_threads(1)  # small nets: more threads cost more than they bring

toy, path = three_modes(), Linear()
mean = toy.weights @ toy.means  # E[a_0]


def velocity(a, t):
    return toy.velocity(a, t, path)


def shares(points):
    """The share of the points that is nearest to each of the three centres."""
    return torch.bincount(torch.cdist(points, toy.means).argmin(-1), minlength=3) / len(points)


test_noise = torch.randn(4000, 2, generator=torch.Generator().manual_seed(1))
test_end = solve(velocity, test_noise, steps=64, step=rk4_step)  # where the exact flow takes it

# The share of 4000 points is uncertain by at most 0.008 (one standard deviation).
check("error of the three shares", (shares(test_end) - toy.weights).abs().max(), below=0.03)

# %% [markdown]
# ### The picture
#
# One Euler step from $t=1$ to $t=0$ follows the arrow of $v$ at the start, and lands on the mean of the data, wherever
# it starts (chapter 01). The remedy is another arrow: the one that points from the start to the *end of the flow line*.
# It is the mean of all the arrows $v$ along the way. This average velocity is called $u$. One step along it is exact.

# %% tags=["hide-input"]
starts = torch.tensor(
    [[1.1, 1.9], [-1.2, 1.0], [2.0, -1.9], [-0.3, -2.2], [-2.3, 0.1], [0.4, -0.5]]
)
lines = solve(velocity, starts, steps=64, step=rk4_step, trajectory=True)
fig, (left, right) = figure(8.4, 4.7, ncols=2)
for ax in (left, right):
    plane(ax)
    plots.backdrop(ax, toy.log_prob)
    plots.trajectories(ax, lines, "reference", linewidth=1.3, alpha=0.9)
for start, end in zip(starts, lines[-1], strict=True):
    plots.arrow(left, start, mean - start, "velocity", width=0.008)
    plots.arrow(right, start, end - start, "average", width=0.008)
for ax in (left, right):
    plots.particles(ax, starts, "noise", size=7, alpha=1.0)
left.set_title("one Euler step of $v$")
right.set_title("one step of $u$")
both = {"noise": ("noise", "points"), "flow line": ("reference", "line")}
plots.key(left, {**both, "$-v$": ("velocity", "arrow")}, ncols=3)
plots.key(right, {**both, "$-u$": ("average", "arrow")}, ncols=3)
show(
    fig,
    "Two panels over the three pale blue blobs of the data, each with six noise points and the curved black flow "
    "lines that lead from them into the blobs. Left: the arrows of v at the start all end in one spot between the "
    "blobs, the mean. Right: the arrows of u end where the flow lines end.",
)

# %% [markdown]
# **What you should see.** The same six flow lines twice. On the left each orange arrow leaves along its flow line and
# then goes straight on: all six meet at the mean. On the right each green arrow cuts across and ends where its flow
# line ends.
#
# So one step is easy once $u$ is known. But $u$ is an average over a path that we wanted to avoid walking. We look
# for an equation for $u$ that needs no walking at all.

# %% [markdown]
# ## Derivation
#
# Every step is checked in the cell that follows it, on 200 random points of the path with random intervals, in 64-bit
# numbers.

# %%
fine = GaussianMixture(toy.means.double(), toy.stds.double(), toy.weights.double())
generator = torch.Generator().manual_seed(2)
a0, eps = fine.sample(200, generator), torch.randn(200, 2, generator=generator, dtype=torch.float64)
t = 0.2 + 0.75 * torch.rand(200, 1, generator=generator, dtype=torch.float64)  # in [.2, .95]
r = (t - 0.1) * torch.rand(200, 1, generator=generator, dtype=torch.float64)  # in [0, t - .1]
a = path.noise(a0, eps, t)


def v64(a, t):
    return fine.velocity(a, t, path)


def largest(difference):
    """The greatest length among the rows."""
    return difference.norm(dim=-1).max()


# %% [markdown]
# ### Step 1: the average velocity
#
# Take two times $r<t$ and a point $a$. Exactly one flow line passes through $a$ at time $t$. Call its points
# $a_\tau$, so that $a_t=a$. The **average velocity** is the mean of $v$ along this line over $[r,t]$:
#
# $$u(a,r,t) = \frac1{t-r}\int_r^t v(a_\tau,\tau)\,d\tau .$$
#
# As $r$ moves up to $t$, the average is taken over less and less of the line, and in the limit $u(a,t,t)=v(a,t)$.
#
# ### Step 2: the displacement
#
# Along the line $v(a_\tau,\tau)$ is the derivative of $a_\tau$. The integral of a derivative is a difference, so
#
# $$(t-r)\,u(a,r,t) = a_t-a_r .$$
#
# Velocity times time is displacement, as in school. Read from right to left this is a sampler: one jump,
#
# $$a_r = a_t-(t-r)\,u(a_t,r,t), \qquad\text{and from noise to data}\qquad a_0=\varepsilon-u(\varepsilon,0,1).$$
#
# It also gives a way to compute the true $u$ of a known $v$: follow the line from $t$ to $r$ with a fine solver
# (64 Runge-Kutta steps) and divide the displacement by the time.


# %%
def average_velocity(velocity, a, r, t, steps=64):
    end = solve(velocity, a, t, r, steps, rk4_step)
    gap = t - r
    tiny = torch.finfo(a.dtype).eps ** 0.5  # below, rounding in a - end outweighs the change of v
    return torch.where(gap > tiny, (a - end) / gap.clamp(min=tiny), velocity(a, t))


def true_u(a, r, t):
    return average_velocity(v64, a, r, t)


# %% [markdown]
# We compute $u$ in two ways: by definition, as an integral of $v$ along the line (Simpson's rule), and by
# displacement. An adaptive solver of another library is the third witness. The 64 steps of our solver leave an error
# of some $10^{-6}$ where lines bend sharply; hence the bounds.

# %%
line = solve(v64, a, t, r, 200, rk4_step, trajectory=True)  # (201, 200, 2): from time t down to r
times = t + (r - t) * torch.linspace(0, 1, 201, dtype=torch.float64)[:, None, None]
u_by_integral = torch.from_numpy(simpson(v64(line, times).numpy(), dx=1 / 200, axis=0))
u = true_u(a, r, t)
check("step 2: integral against displacement", largest(u_by_integral - u), below=1e-4)

# Over an interval of length d the average differs from v by about d/2 times the rate of v along the line.
u_short = true_u(a, t - 1e-5, t)
assert largest(u_short - v64(a, t)) < 0.001  # step 1: u over a tiny interval against v

end = reference_solve(v64, a, 0.9, 0.2)
same_time = torch.ones_like(t)
jump = a - 0.7 * true_u(a, 0.2 * same_time, 0.9 * same_time)
check("step 2: jump against an adaptive solver", largest(jump - end), below=1e-4)

# %% [markdown]
# ### Step 3: move along the line
#
# Now the decisive idea. Keep $r$ fixed and let $t$ change, with $a_t$ moving along its flow line. What happens to
# the displacement $a_t-a_r$? It has two ends. One of them, $a_t$, moves at velocity $v(a_t,t)$. The other, $a_r$,
# **does not move**: it is the same line, and the point of that line at time $r$ stays what it is.

# %% tags=["hide-input"]
start = torch.tensor([[1.1, 1.9]])
# its points at the times 1, .99, …, 0
one_line = solve(velocity, start, steps=100, step=rk4_step, trajectory=True)[:, 0]
fig, ax = figure(5.6, 4.1)
ax.set(xlim=(0.1, 1.5), ylim=(1.15, 2.15), aspect="equal")
ax.plot(*one_line.T, color=COLOURS["reference"], linewidth=1.3)
tail = one_line[80]  # r = .2
for k in (0, 20, 40):  # t = 1, .8, .6
    plots.arrow(ax, one_line[k], tail - one_line[k], "average", width=0.006)
    plots.particles(ax, one_line[k : k + 1], "noise", size=8, alpha=1.0)
    ax.text(*(one_line[k] + torch.tensor([0.04, 0])), f"$a_t$, $t = {1 - k / 100:g}$", va="center")
plots.particles(ax, tail[None], "reference", size=9, alpha=1.0).set(zorder=6)
ax.text(*(tail - 0.04), "$a_r$, $r = 0.2$", ha="right", va="top")
ax.text(*(one_line[-1] + torch.tensor([0.03, 0])), "to the data", va="center")
show(
    fig,
    "One curved flow line with three grey points on it, the positions at times t = 1, 0.8 and 0.6. From each a green "
    "arrow, the displacement back to time r = 0.2, leads to the same black cross further along the line.",
)

# %% [markdown]
# **What you should see.** One flow line (black), and on it the places of a point at three times $t$ (grey). The
# green arrows are jumps back to time $r=0.2$. They start at different places and end at the same one.
#
# So differentiate the equation of step 2 with respect to $t$, along the line. On the right $a_r$ drops out:
#
# $$\frac{d}{dt}\Big[(t-r)\,u(a_t,r,t)\Big]=v(a_t,t).$$
#
# The product rule on the left gives $u+(t-r)\,\dfrac{du}{dt}$. Hence
#
# $$u(a_t,r,t)=v(a_t,t)-(t-r)\,\frac{du}{dt}.$$
#
# Here $d/dt$ is the derivative *along the line*: both the time and the point change. The check takes it literally. It
# moves each point a little way along its line, to $t\pm h$ with $h=10^{-5}$, computes $u$ afresh at both places, and
# forms the difference quotient.

# %%
h = 1e-5
before, after = (solve(v64, a, t, t + shift, 1, rk4_step) for shift in (-h, h))  # a_{t-h}, a_{t+h}
u_before, u_after = true_u(before, r, t - h), true_u(after, r, t + h)
displacement_speed = ((t + h - r) * u_after - (t - h - r) * u_before) / (2 * h)
du_dt = (u_after - u_before) / (2 * h)
v = v64(a, t)
check("step 3: speed of the displacement against v", largest(displacement_speed - v), below=1e-4)
assert largest(u + (t - r) * du_dt - v) < 0.0001  # step 3: product rule

# %% [markdown]
# ### Step 4: the chain rule
#
# The derivative along the line can be had without moving. The function $u(a_t,r,t)$ depends on $t$ in two places:
# through the point, which changes at the rate $v$, and through its last argument, which changes at the rate 1.
# The chain rule adds both:
#
# $$\frac{du}{dt}=v\cdot\partial_a u+\partial_t u .$$
#
# Here $\partial_a u$ is the $2\times2$ Jacobian matrix of $u$ in $a$, and $v\cdot\partial_a u$ is short for the
# vector with components $\sum_j v_j\,\partial u_i/\partial a_j$: how fast $u$ changes when the point moves at
# velocity $v$. We call it the *transport term*. $\partial_t u$ is the change at a fixed point.
#
# The check computes both parts separately, by differences at a fixed time and at a fixed point.

# %%
transport = (true_u(a + h * v, r, t) - true_u(a - h * v, r, t)) / (2 * h)
at_fixed_point = (true_u(a, r, t + h) - true_u(a, r, t - h)) / (2 * h)
difference = largest(transport + at_fixed_point - du_dt)
check("step 4: sum of the two parts against the line", difference, below=1e-4)

# %% [markdown]
# ### Step 5: the MeanFlow identity
#
# Put the pieces together:
#
# $$\boxed{\,u(a,r,t)=v(a,t)-(t-r)\,\big(v\cdot\partial_a u+\partial_t u\big)(a,r,t)\,}$$
#
# This is the MeanFlow identity (Geng et al., 2505.13447, eq. 6). Look at what has gone: no integral, no flow line, no
# other time than $r$ and $t$. It ties $u$ at one place to $v$ and to the derivatives of $u$ *at the same place*. A
# network can be trained on that.

# %%
right_side = v - (t - r) * (transport + at_fixed_point)
names = ("v", "transport term", "d_t u", "right side", "u")
print(f"a = ({a[0, 0]:.5f}, {a[0, 1]:.5f}),  r = {r[0, 0]:.5f},  t = {t[0, 0]:.5f}")
for name, vector in zip(names, (v, transport, at_fixed_point, right_side, u), strict=True):
    print(f"{name:<15}{vector[0, 0]:10.5f}{vector[0, 1]:10.5f}")
check("step 5: residual of the identity", largest(u - right_side), below=1e-4)

# %% [markdown]
# We have shown that the true $u$ satisfies the identity. The converse holds too: read backwards, step 3 says that
# a smooth $u$ with the identity has $\frac{d}{dt}[(t-r)\,u]=v$ along every line. Integrate from $r$, where
# $(t-r)\,u=0$, and the definition of step 1 comes out. So the identity has one smooth solution, and it is ours.
#
# **Stop and think.** The word *smooth* is needed. Take any function $f$ of the end point $a_r$, and add $f(a_r)/(t-r)$ to
# the true $u$. Does the sum satisfy the identity? Where does it fail?
#
# <details><summary>Answer</summary>
#
# It does: $(t-r)\,u$ changes by $f$, which is constant along a line, so its derivative there is still $v$. But the sum is
# infinite at $r=t$. Only the end $u(a,t,t)=v$ picks the true solution out of the many.
#
# </details>

# %% [markdown]
# ## Code
#
# ### A derivative along a direction, three ways
#
# When the arguments of $u(a,r,t)$ move at the rates $(\dot a,\dot r,\dot t)$, at which rate does $u$ move? The list of
# rates is called the *tangent*. The answer is the Jacobian of $u$ times the tangent, a **Jacobian-vector product** or
# JVP. We get one in three ways, for a function small enough to differentiate by hand:
#
# $$u_1=t\,\sin(xy),\qquad u_2=x^2-r\,t^2,\qquad a=(x,y).$$
#
# **By hand.** The chain rule gives $\dot u_1=\dot t\,\sin(xy)+t\cos(xy)\,(\dot x\,y+x\,\dot y)$ and
# $\dot u_2=2x\,\dot x-\dot r\,t^2-2\,r\,t\,\dot t$.
#
# **By `torch.func.jvp`.** It does what you just did, by machine: each operation hands on its value and its rate
# of change together. No Jacobian is ever formed, nothing is approximated, and the cost is a small multiple of one
# evaluation, however many dimensions $a$ has.
#
# **By finite differences.** Evaluate a step $h$ ahead and a step $h$ behind, and divide by $2h$.


# %%
def small_u(a, r, t):
    x, y = a[..., :1], a[..., 1:]
    return torch.cat([t * torch.sin(x * y), x**2 - r * t**2], -1)


def by_hand(a, r, t, da, dr, dt):
    x, y, dx, dy = a[..., :1], a[..., 1:], da[..., :1], da[..., 1:]
    du1 = dt * torch.sin(x * y) + t * torch.cos(x * y) * (dx * y + x * dy)
    return torch.cat([du1, 2 * x * dx - dr * t**2 - 2 * r * t * dt], -1)


def by_jvp(a, r, t, da, dr, dt):
    return torch.func.jvp(small_u, (a, r, t), (da, dr, dt))[1]


def by_differences(a, r, t, da, dr, dt, h):
    ahead = small_u(a + h * da, r + h * dr, t + h * dt)
    return (ahead - small_u(a - h * da, r - h * dr, t - h * dt)) / (2 * h)


rates = eps, torch.sin(r), torch.cos(t)  # any numbers of the right shapes
answers = {
    "by hand": by_hand(a, r, t, *rates),
    "torch.func.jvp": by_jvp(a, r, t, *rates),
    "differences, h = 0.1": by_differences(a, r, t, *rates, 0.1),
}
for way, answer in answers.items():
    print(f"{way:<22}{answer[0, 0]:10.6f}{answer[0, 1]:10.6f}")
difference = largest(answers["torch.func.jvp"] - answers["by hand"])
check("torch.func.jvp against by hand", difference, below=1e-12)

# %% [markdown]
# Why not always take finite differences? They need no library. But they need a step $h$. The formula itself errs in
# proportion to $h^2$, which asks for a small $h$. Rounding errors in $u$ are divided by $2h$, which asks for a large one.

# %%
steps = np.logspace(-9, 0, 37)


def error_of_differences(dtype):
    case = [number.to(dtype) for number in (a, r, t, *rates)]
    errors = [by_differences(*case, float(h)).double() - answers["by hand"] for h in steps]
    return np.array([error.norm(dim=-1).mean() for error in errors])


error32, error64 = error_of_differences(torch.float32), error_of_differences(torch.float64)
assert 1e-6 < error32.min() < 1e-3 and error64.min() < 1e-8
check("the best step in 32 bits", steps[error32.argmin()], above=5e-4, below=2e-2)
at_millionth = error32[np.abs(np.log(steps / 1e-6)).argmin()]
ratio = at_millionth / error32.min()
assert ratio > 100  # error of the step 1e-6 over the least one, in 32 bits

# %% tags=["hide-input"]
fig, ax = figure(6.0, 4.0)
ax.loglog(steps, error32, "o-", color=COLOURS["error"], markersize=4)
ax.loglog(steps, error64, "s-", color=COLOURS["data"], markersize=4)
ax.set(xlabel="step $h$", ylabel="mean error of the derivative", xlim=(1e-9, 1), ylim=(1e-12, 1e2))
ax.text(1e-6, 4e-1, "32-bit numbers", color=COLOURS["error"])
ax.text(1.3e-9, 4e-11, "64-bit numbers", color=COLOURS["data"])
show(
    fig,
    "Error of central finite differences against the step h on logarithmic axes, a V for each precision. On the right "
    "both fall together as h squared. In 32-bit numbers the error turns near h = 0.003 and grows like 1/h; in 64-bit "
    "numbers it turns near 0.000004.",
)

# %% [markdown]
# **What you should see.** Two V shapes with a common right arm, where the formula's error $\propto h^2$ rules. The
# left arms are rounding. Networks work in 32 bits. There the best step is near $3\cdot10^{-3}$; one of $10^{-6}$,
# which looks more careful, is more than a hundred times worse. `torch.func.jvp` has no step to choose. Finite
# differences remain a good *test* of it, as in the derivation above.
#
# ### The target
#
# Suppose that a network $u_\theta$ should learn $u$. Evaluate the right side of the identity with the network's own
# derivatives, and call the result the target. The network moves towards it as if it were a constant; why is a question
# for later.

# %%
theta = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)


def u_theta(a, r, t):
    """A "network" with a single weight."""
    return theta * small_u(a, r, t)


# %% [markdown]
# ### 1. Write the target · ●●○ · 20 min
#
# Four lines of code are this chapter. Write
#
# $$u_{\text{tgt}}=v-(t-r)\,\big(v\cdot\partial_a u_\theta+\partial_t u_\theta\big)$$
#
# for a function `u(a, r, t)` with one call of `torch.func.jvp`, given points `a`, times `r` and `t`, and the velocities
# `v` of the points. No gradient may flow through the result. What is the tangent? The check asks whether the true $u$
# reproduces itself (it is a *fixed point*), and compares with the package for a function that is none. (The true $u$ can
# be differentiated: `torch.func.jvp` goes through everything made of torch operations, also through the ODE solver.)


# %% tags=["exercise", "raises-exception"]
def meanflow_target(u, a, r, t, v):
    raise NotImplementedError("your turn")


yours, packages = (
    make(u_theta, a, r, t, v) for make in (meanflow_target, meanflow.meanflow_target)
)
check("exercise 1: yours against the package's", largest(yours - packages), below=1e-6)
check("exercise 1: carries a gradient (0 no, 1 yes)", float(yours.requires_grad), below=0.5)
yours = meanflow_target(true_u, a, r, t, v)
check("exercise 1: the true u against its own target", largest(yours - u), below=1e-4)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Step 4 says at which rates the three arguments move when time goes on along a flow line. One of them does not move.
# Everything inside `with torch.no_grad():` carries no gradient.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# The point moves at $v$, $r$ stays where it is, and time runs at the rate 1: the tangent is $(v,0,1)$. The package's
# version, word for word:
#
# ```python
# def meanflow_target(u, a, r, t, v):
#     tangents = (v, torch.zeros_like(r), torch.ones_like(t))
#     with torch.no_grad():
#         du_dt = torch.func.jvp(u, (a, r, t), tangents)[1]
#         return v - (t - r) * du_dt
# ```
#
# </details>

# %% [markdown]
# From here on the book uses the package's: one JVP along the tangent $(v,0,1)$.

# %%
meanflow_target = meanflow.meanflow_target
difference = largest(meanflow_target(true_u, a, r, t, v) - u)
check("the true u against its own target", difference, below=1e-4)

# %% [markdown]
# ### The loss
#
# The loss is the squared distance to the target, the mean over a batch of points and of intervals:
#
# $$\mathcal L(\theta)=E\,\big\|\,u_\theta(a_t,r,t)-\mathrm{sg}[u_{\text{tgt}}]\,\big\|^2 .$$
#
# Here $\mathrm{sg}$ is *stop-gradient*: the target counts as a constant. The code can also divide the squared error of
# each row by `(error + c) ** p`, likewise held constant. We keep `p = 0`, the plain squared error, and see further down
# what `p = 1` does.


# %%
def adaptive_weight(squared_error, p, c):
    return (squared_error.detach() + c) ** -p


def meanflow_loss(u, a, r, t, v, p=0.0, c=1e-3):
    error = (u(a, r, t) - meanflow_target(u, a, r, t, v)).square().sum(-1)
    return (adaptive_weight(error, p, c) * error).mean()


# %% [markdown]
# **Which $v$?** Today the exact $v(a,t)$, because we have it. When all you have is data, take the velocity of the
# pair, $\varepsilon-a_0$, in its place. Why is that allowed? Collect the terms with $v$:
#
# $$u_{\text{tgt}}=\big(I-(t-r)\,\partial_a u_\theta\big)\,v-(t-r)\,\partial_t u_\theta .$$
#
# The target is *linear* in $v$ (more exactly, affine). So its mean over all pairs through $a$ is the target with the
# marginal $v$, and least squares finds means, as in chapter 01. That is how MeanFlow is trained on images. SOM has
# neither an exact $v$ nor data. It has a critic, and builds $v$ from a score that it estimates from the critic
# (chapters 04 to 06).
#
# The cell checks the formula with the whole Jacobian of `small_u`, and that the target of a mean is the mean of the
# targets.

# %%
pair_v = eps - a0  # the velocity of one pair for each row, beside the marginal v
rowwise = (torch.vmap(torch.func.jacrev(small_u, argnums=k))(a, r, t) for k in (0, 2))
jacobian, d_t = rowwise  # (200, 2, 2) and (200, 2, 1)
matrix = torch.eye(2, dtype=torch.float64) - (t - r)[..., None] * jacobian
collected = (matrix @ pair_v[..., None] - (t - r)[..., None] * d_t)[..., 0]
target = meanflow_target(small_u, a, r, t, pair_v)
check("target: collected terms against the JVP", largest(collected - target), below=1e-12)
of_mean = meanflow_target(small_u, a, r, t, (v + pair_v) / 2)
mean_of = (meanflow_target(small_u, a, r, t, v) + target) / 2
assert largest(of_mean - mean_of) < 1e-12  # target of the mean against mean of the targets

# %% [markdown]
# **What are rows with $r=t$ for?** There the target is $v$ itself: ordinary flow matching. These are the only rows whose
# target does not depend on the network at all. They pin down the end from which longer intervals are built.
# `sample_times` draws two uniform times, sorts them, and sets $r=t$ on a quarter of the rows. *What can go wrong* tries
# other shares.

# %%
at_r_equal_t = meanflow_target(small_u, a, t, t, v)
check("rows with r = t: target of any u against v", largest(at_r_equal_t - v), below=1e-12)
r_drawn, t_drawn = sample_times(20_000, torch.Generator().manual_seed(5))
# The share of 20 000 draws is uncertain by 0.003.
assert 0.235 < (r_drawn == t_drawn).double().mean() < 0.265 and (r_drawn <= t_drawn).all()

# %% [markdown]
# **Why stop-gradient?** First, for the cost: a gradient through the target needs second derivatives of the
# network. Second, for correctness. When $v$ is noisy, so is the target: its noise is the noise of $v$ times the
# matrix $I-(t-r)\,\partial_a u_\theta$. A network that may bend its own target can shrink this noise by giving
# $\partial_a u_\theta$ a convenient value (such as $I/(t-r)$, which cancels the noise altogether) instead of the
# right one. With the target held constant nothing is gained that way.
#
# The gradient of our loss is that of a regression on a target computed beforehand. And the
# temptation is real: $u=a/(t-r)$ knows nothing of the data, yet its target is free of noise and equals $u$ itself,
# whatever $v$ is. Its loss is zero. (It is one of the solutions of the identity that are infinite at $r=t$. A network
# can come close to it.)

# %%
constant = meanflow_target(u_theta, a, r, t, v)
plain = (u_theta(a, r, t) - constant).square().sum(-1).mean()
(by_loss,) = torch.autograd.grad(meanflow_loss(u_theta, a, r, t, v), theta)
(by_regression,) = torch.autograd.grad(plain, theta)
check("gradient of the loss against a constant target", abs(by_loss - by_regression), below=1e-12)


def quiet(a, r, t):
    return a / (t - r)


check("loss of u = a / (t - r), from pairs", meanflow_loss(quiet, a, r, t, pair_v), below=1e-20)

# %% [markdown]
# ### The network and the sampler
#
# The network is that of chapter 01 with a second time: it takes the point, $t$ and the length $t-r$, and returns a
# velocity. Each time enters with one octave, $\sin\frac{\pi}{2}t$ and $\cos\frac{\pi}{2}t$, on purpose. The target
# contains $\partial_t u_\theta$, and at the end of chapter 01 we saw what many octaves do to that. (`cond` is unused
# here. In later chapters it is the state of a robot.) The sampler is step 2 of the derivation, once or $n$ times.


# %%
class AverageVelocityNet(nn.Module):
    def __init__(self, dim, cond_dim=0, hidden=(128, 128, 128), octaves=1):
        super().__init__()
        self.time = TimeEmbedding(octaves)
        self.mlp = MLP([dim + 2 * self.time.size + cond_dim, *hidden, dim])

    def forward(self, a, r, t, cond=None):
        parts = [a, self.time(t), self.time(t - r)] + ([] if cond is None else [cond])
        return self.mlp(torch.cat(parts, -1))


def sample(u, eps, steps=1):
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    a, ones = eps, torch.ones_like(eps[..., :1])
    for i in range(steps, 0, -1):
        t, r = ones * (i / steps), ones * ((i - 1) / steps)
        a = a - (t - r) * u(a, r, t)
    return a


# %% [markdown]
# ### Training
#
# We judge a net by its **miss**: start 4000 noise points, take one step of $u_\theta$, and measure the mean distance
# to the points where the exact flow takes the same noise. It is stricter than comparing clouds. (One Euler step
# misses by 1.8. The blobs have standard deviations between 0.25 and 0.4, so a miss near 0.1 is good.) The training
# loop is that of chapter 01, with batches of 256, at points of the path, since those are what a sampler meets.


# %%
def apart(points, others):
    """The mean distance between points of the same row."""
    return (points - others).norm(dim=-1).mean().item()


@torch.no_grad()
def miss(u, steps=1):
    return apart(sample(u, test_noise, steps), test_end)


def fit(loss=meanflow_loss, *, sampled=False, share_equal=0.25, steps=1200, seed=0):
    """Train u from the exact v, or (sampled) from pairs; return it, its losses, its misses."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # the initial weights
        net = AverageVelocityNet(2)
    adam = torch.optim.Adam(net.parameters(), lr=5e-3, fused=True)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    losses, misses = [], []
    for step in range(steps):
        r, t = sample_times(256, generator, law="uniform", share_equal=share_equal)
        a0, eps = toy.sample(256, generator), torch.randn(256, 2, generator=generator)
        a = path.noise(a0, eps, t)
        v = path.conditional_velocity(a0, eps, t) if sampled else velocity(a, t)
        value = loss(net, a, r, t, v)
        adam.zero_grad()
        value.backward()
        adam.step()
        decay.step()
        losses.append(value.item())
        if step % 50 == 49:
            misses.append(miss(net))
    return net, losses, misses


net, losses, misses = fit()
to_mean = apart(mean.expand(4000, 2), test_end)
check("miss of one step", misses[-1], below=0.2)
assert 1.7 < to_mean < 1.9  # miss of sending everything to the mean

# %% [markdown]
# ### A loss that need not fall
#
# Now the same training from pairs, with $\varepsilon-a_0$ in place of $v$. One argument changes.

# %%
pairs_net, pairs_losses, pairs_misses = fit(sampled=True)
check("miss of one step, trained from pairs", pairs_misses[-1], below=0.35)
rise = np.mean(pairs_losses[-300:]) / np.mean(pairs_losses[:100])
check("loss of the last 300 steps over loss of the first 100, from pairs", rise, above=1.2)

# %% tags=["hide-input"]
progress = 50 * np.arange(1, 25)
fig, (left, right) = figure(8.4, 3.6, ncols=2)
by_fifty, by_fifty_pairs = (
    np.reshape(all_of, (-1, 50)).mean(1) for all_of in (losses, pairs_losses)
)
for ax, exact, pairs, name in (
    (left, by_fifty, by_fifty_pairs, "loss (mean of 50 steps)"),
    (right, misses, pairs_misses, "miss of one step"),
):
    plots.curve(ax, progress, exact, kind="average", label="exact $v$")
    plots.curve(ax, progress, pairs, kind="data", label=r"pairs, $\varepsilon - a_0$")
    ax.set(yscale="log", xlabel="training steps", title=name, xlim=(0, 1200))
left.set_ylim(0.03, 30)
right.set_ylim(0.05, 2)
show(
    fig,
    "Two panels over 1200 training steps, logarithmic heights. Left, the losses: with the exact v it falls to about "
    "0.1, with pairs it starts near 5 and rises to about 10. Right, the misses: both fall, to about 0.1 and 0.2.",
)

# %% [markdown]
# **What you should see.** On the right both samplers get better. On the left one loss falls and the other
# *rises*, to about twice its first value. Nothing is wrong with it.
#
# The loss is the sum of two parts: the squared distance from $u_\theta$ to the *mean* target, which training
# reduces, and the *variance* of the target, which it does not. With the exact $v$ the variance is zero. With
# pairs, the noise $\varepsilon-a_0-v$ is multiplied by $I-(t-r)\,\partial_a u_\theta$. So the variance grows while the
# network learns how sharply $u$ turns between the blobs.
#
# If this is right, the *perfect* $u$ must have a large loss from pairs as well. We know the perfect $u$, so we can
# compute it, row by row, and beside it the variance of the network's target.

# %%
g = torch.Generator().manual_seed(0)
a0, eps = fine.sample(4000, g), torch.randn(4000, 2, generator=g, dtype=torch.float64)
r_p, t_p = (times.double() for times in sample_times(4000, g))
a_p = path.noise(a0, eps, t_p)
v_p = v64(a_p, t_p)
noise = eps - a0 - v_p
turned = (true_u(a_p + h * noise, r_p, t_p) - true_u(a_p - h * noise, r_p, t_p)) / (2 * h)
perfect = (noise - (t_p - r_p) * turned).square().sum(-1)  # its loss, row by row

rows = [column.float() for column in (a_p, r_p, t_p)]
mean_target = meanflow_target(pairs_net, *rows, v_p.float())
off = meanflow_target(pairs_net, *rows, (v_p + noise).float()) - mean_target
variance = off.square().sum(-1)  # of the network's target, row by row
bias = (pairs_net(*rows) - mean_target).square().sum(-1).mean()

order = perfect.argsort(descending=True)
worst, rest = order[:200], order[200:]  # 5 % of the rows, and the others
start_loss = np.mean(pairs_losses[:100])
check(
    "loss of the perfect u over loss of the first 100 steps", perfect.mean() / start_loss, above=2
)
check("part of it that 5 % of the rows carry", perfect[worst].sum() / perfect.sum(), above=0.8)
assert bias / variance.mean() < 0.1  # network: distance to the mean target over variance
check("those 5 %: perfect over network", perfect[worst].mean() / variance[worst].mean(), above=2)
assert perfect[rest].mean() / variance[rest].mean() < 1  # the rest: perfect over network

# %% [markdown]
# On these rows the perfect $u$ has a loss of about 20. (Other draws give 30 or 70.) The network, which hits its mean
# target well, stops half way, near 10. Why? Nearly all of the perfect loss comes from a few rows. They lie at the
# border between two blobs, where $u$ all but jumps: move such a point by 0.1 and it often ends in another blob. There
# $\partial_au$ is huge, and so is the multiplied noise. The network is smoother. It makes a slope of the jump,
# multiplies less noise, and pays with points that end between the blobs.


# %%
def share_that_changes(rows, by=0.1):
    """Of the points, the share whose blob changes between a shift to one side and to the other."""
    shift = by * noise[rows] / noise[rows].norm(dim=-1, keepdim=True)
    ends = [
        solve(v64, a_p[rows] + side * shift, t_p[rows], steps=64, step=rk4_step) for side in (-1, 1)
    ]
    before, after = (torch.cdist(end, fine.means).argmin(-1) for end in ends)
    return (before != after).double().mean()


check("those 5 %: share of the points at a border", share_that_changes(worst), above=0.45)
assert share_that_changes(rest[::10]) < 0.2  # 400 others: share of the points at a border

# %% [markdown]
# The lesson for later chapters: **watch the samples, not the loss.**

# %% [markdown]
# ## Checks
#
# We ask five things of the net that was trained from the exact $v$.
#
# **1. It knows the velocity.** At $r=t$ the net should be $v$, whose mean length on this path is 1.3. We ask for a
# mean error below 0.25. **2. The right shares**, up to counting noise (0.008) and some error of the net. **3. Few
# strays.** A *stray* lies where $p_0$ is lower than at 99 % of true samples. We allow 8 %. **4. The cloud is right**:
# its sliced distance to true samples, in units of the floor (chapter 01), where true clouds score up to 1.4, is below
# 2.5. **5. It is self-consistent.** Two jumps, from 1 to ½ and on to 0, should end where one jump ends.

# %%
g = torch.Generator().manual_seed(3)
time = torch.rand(4000, 1, generator=g)
a_t = path.noise(toy.sample(4000, g), torch.randn(4000, 2, generator=g), time)

with torch.no_grad():
    one, two = sample(net, test_noise), sample(net, test_noise, steps=2)
    v_error = apart(net(a_t, time, time), velocity(a_t, time))

rare = toy.log_prob(toy.sample(20_000, g)).quantile(0.01)


def strays(points):
    return (toy.log_prob(points) < rare).float().mean()


truths = [toy.sample(4000, g) for _ in range(8)]
floor = np.mean([sliced_distance(*clouds) for clouds in combinations(truths, 2)])
score = np.mean([sliced_distance(one, truth) for truth in truths]) / floor

assert 1.28 < velocity(a_t, time).norm(dim=-1).mean() < 1.4  # mean length of v
check("1. mean error of v at r = t", v_error, below=0.25)
check("2. error of the three shares", (shares(one) - toy.weights).abs().max(), below=0.04)
check("3. strays in one step", strays(one), below=0.08)
check("4. sliced distance over its floor", score, below=2.5)
check("5. distance between one jump and two", apart(one, two), below=0.2)
assert strays(two) < strays(one)

# %% tags=["hide-input"]
fig, axes = figure(9.0, 3.5, ncols=3)
panels = {
    "1 step of the learnt $u$": (one, "average"),
    "2 steps of the learnt $u$": (two, "average"),
    "64 steps of the exact $v$": (test_end, "data"),
}
for ax, (title, (points, kind)) in zip(axes.flat, panels.items(), strict=True):
    plane(ax)
    plots.backdrop(ax, toy.log_prob)
    plots.particles(ax, points[:1500], kind, size=2.2, alpha=0.7)
    ax.set_title(title)
show(
    fig,
    "Three panels of 1500 sampled points over the three blobs. One step of u: three filled blobs with thin threads of points "
    "between them. Two steps: the same with fainter threads. 64 steps of v: three clean blobs.",
)

# %% [markdown]
# **What you should see.** Left: three blobs of the right sizes, joined by thin threads: noise near the border.
# Middle: two steps leave fewer strays. Right: the exact flow.
#
# In the table of chapter 01, four Euler steps of the *exact* $v$ miss by 0.3. One step of $u$ does better. A perfect
# $u$ would miss by zero for every number of steps; what is left is the error of the network. Sixteen steps do not
# remove it.

# %%
four_euler = apart(solve(velocity, test_noise, steps=4, step=euler_step), test_end)
ratio = misses[-1] / four_euler
check("miss of one step of u over that of four Euler steps of v", ratio, below=0.8)
assert miss(net, 16) / misses[-1] > 0.5  # miss of sixteen steps of u over that of one

# %% [markdown]
# ## Explorer
#
# On the left, the ringed point is yours: drag it. From there, over the interval $[r,t]$, go one Euler step of $v$
# (orange arrow), one step of the net's $u$ (green arrow) and the flow line (black, to the cross). Triangles follow
# $v$; diamonds take the straight way along $u$. On the right, $n$ Euler steps of $v$ against one step of $u$.
#
# **Stop and think.** Before you move anything: as $r$ comes up to $t$, what becomes of the angle between the green
# and the orange arrow? And at $t=1$, $r=0$, what does the orange one not know?
#
# <details><summary>Answer</summary>
#
# It goes to zero: an average over an empty interval is the value, $u(a,t,t)=v(a,t)$. At $t=1$ the orange arrow points
# at the mean of the data, because the noise tells nothing about its partner. The green one knows the flow line, hence
# the blob.
#
# </details>

# %%
average_velocity_explorer(velocity, net, log_prob=toy.log_prob)

# %% [markdown]
# **What you should see.** Triangles and diamonds start together and end nearly together, by different ways. With $r$
# near $t$ all arrows agree. Lower $r$: green leaves orange, most of all between the blobs, where flow lines bend, and
# ends near the cross. On the right, the orange points crawl from the mean into the blobs as $n$ grows; the green ones
# are there from the start.

# %% [markdown]
# ## What can go wrong
#
# ### A wrong tangent
#
# The tangent $(v,0,1)$ is where MeanFlow code goes wrong most easily. One may forget that the *point* moves, mix up the
# two times, or let time run the other way, which flips a sign. None of these raises an error. But the true $u$ is no
# fixed point of a wrong target, and that is a test without any training.

# %%
in_r = (true_u(a, r + h, t) - true_u(a, r - h, t)) / (2 * h)
derivatives = {  # along the tangent in brackets
    "right, (v, 0, 1)": transport + at_fixed_point,
    "no transport, (0, 0, 1)": at_fixed_point,
    "r and t swapped, (v, 1, 0)": transport + in_r,
    "sign of time, (v, 0, -1)": transport - at_fixed_point,
}
for name, derivative in derivatives.items():
    residual = v - (t - r) * derivative - u
    print(f"{name:<28} residual {residual.norm(dim=-1).square().mean().sqrt():.5f}")

# %% [markdown]
# The right tangent leaves nothing. The wrong ones leave errors of half a unit and more, on velocities of one or
# two units. Keep this cell: it is the unit test that every implementation of MeanFlow should have.
#
# **Stop and think.** A library calls its network as $u(a,t,r)$ and uses the tangent $(v,1,0)$. Is it wrong?
#
# <details><summary>Answer</summary>
#
# No. The rates belong to the arguments, not to their places: there too the point moves at $v$, $t$ at 1, and $r$ rests.
# Copy the tangent without the order, and you have the third row of the table.
#
# </details>
#
# What do such errors do to samples? We train with two of the wrong tangents, for 600 steps each.


# %%
def loss_with(tangent):
    def loss(u, a, r, t, v):
        with torch.no_grad():
            total = torch.func.jvp(u, (a, r, t), tangent(v, r, t))[1]
            target = v - (t - r) * total
        return (u(a, r, t) - target).square().sum(-1).mean()

    return loss


no_transport = loss_with(lambda v, r, t: (0 * v, 0 * r, torch.ones_like(t)))
swapped = loss_with(lambda v, r, t: (v, torch.ones_like(r), 0 * t))
still_net, still_losses, still_misses = fit(no_transport, steps=600)
swapped_net, _, swapped_misses = fit(swapped, steps=600)
check("miss without the transport term", still_misses[-1], above=0.4)
assert swapped_misses[-1] > 0.7  # miss with r and t swapped
ratio = np.mean(still_losses[-100:]) / np.mean(losses[-100:])
check("loss without the transport term over the loss of the right target", ratio, below=0.7)

# %% [markdown]
# The last line deserves a second look. Without the transport term the loss is *lower* than that of the right
# target, and the samples are several times further off. The wrong equation is simply easier to satisfy. Losses of
# different targets cannot be compared.
#
# ### A gradient through the target
#
# Next we let the gradient flow through the target, training from pairs. By the argument above the network should
# now prefer a quiet target to a right one.


# %%
def loss_without_stop_gradient(u, a, r, t, v):
    total = torch.func.jvp(u, (a, r, t), (v, torch.zeros_like(r), torch.ones_like(t)))[1]
    return (u(a, r, t) - v + (t - r) * total).square().sum(-1).mean()


bent_net, bent_losses, bent_misses = fit(loss_without_stop_gradient, sampled=True, steps=600)
check("miss with a gradient through the target", bent_misses[-1], above=0.7)
ratio = np.mean(bent_losses[-100:]) / np.mean(pairs_losses[-100:])
check("its loss over the loss with stop-gradient, both from pairs", ratio, below=0.6)

# %% [markdown]
# Again the lower loss belongs to the worse sampler. (With the exact $v$ there is no noise to suppress, and this
# variant works; it costs only time.)
#
# ### No rows with equal times, or no others
#
# We train three times for 600 steps with the exact $v$: with no row at $r=t$, with a quarter, and with nothing else. Then
# we sample in 1 to 32 steps of $u_\theta$, and measure the error of $u_\theta(a,t,t)$ as a velocity.

# %%
counts = [1, 2, 4, 8, 16, 32]
by_share = {share: fit(share_equal=share, steps=600)[0] for share in (0.0, 0.25, 1.0)}
jumps = {share: [miss(trained, n) for n in counts] for share, trained in by_share.items()}
with torch.no_grad():
    error_of_v = {
        share: apart(trained(a_t, time, time), velocity(a_t, time))
        for share, trained in by_share.items()
    }
check("only r = t: miss of one step", jumps[1.0][0], above=1)
assert jumps[1.0][-1] < 0.2  # only r = t: miss of 32 steps
ratio, ratio_of_v = jumps[0.0][0] / jumps[0.25][0], error_of_v[0.0] / error_of_v[0.25]
assert ratio < 1.5  # no r = t: miss of one step over that with a quarter
check("no r = t: error of v over that with a quarter", ratio_of_v, above=1.15)

# %% tags=["hide-input"]
fig, ax = figure(6.0, 3.7)
looks = {
    0.0: {"label": "none", "color": COLOURS["reference"], "marker": "x", "linestyle": ":"},
    0.25: {"label": "a quarter", "color": COLOURS["average"], "marker": "D"},
    1.0: {"label": "all", "color": COLOURS["velocity"], "marker": "^", "linestyle": "--"},
}
for share, look in looks.items():
    ax.plot(counts, jumps[share], **look)
ax.set(xscale="log", yscale="log", xlabel=r"steps of $u_\theta$", ylabel="miss", ylim=(0.05, 3))
ax.set_xticks(counts, counts)
ax.minorticks_off()
ax.legend(frameon=False, title="rows with $r = t$")
show(
    fig,
    "The miss against the number of steps from 1 to 32, both logarithmic, for three shares of rows with r = t. None and a quarter: "
    "two curves that start below 0.2, fall to about 0.1 at four steps and stay there. All: a curve that falls from above 1 at one step to below 0.1 at 32.",
)

# %% [markdown]
# **What you should see.** With nothing but $r=t$ the network is a flow-matching network (orange): fine with many
# steps, while one step lands near the mean. With no such rows (black) one step is as good as with a quarter of them
# (green). What suffers is the velocity $u_\theta(a,t,t)$, by the last check. So the share is a trade, at least here,
# where $v$ is exact and short intervals are frequent.
#
# ### A weight that looks away
#
# For images, MeanFlow divides each row's error by `(error + c) ** p` with `p = 1`. Large errors then
# count little. With an exact $v$ large errors are no noise: they sit where $u$ is hard, on the border between two blobs,
# and the weight tells the net to look away. After the check, the
# samples of all four broken trainings.

# %%
squared_errors = torch.tensor([0.01, 1.0, 4.0])
weighted_errors = adaptive_weight(squared_errors, 1.0, 0.01) * squared_errors
ratio = weighted_errors[2] / weighted_errors[0]
assert ratio < 2.1  # p = 1: error 4 over error 0.01, after the weight

weighted_net, _, weighted_misses = fit(partial(meanflow_loss, p=1.0, c=0.01))
with torch.no_grad():
    weighted = sample(weighted_net, test_noise)
    largest_share = shares(sample(still_net, test_noise))[0]
check("strays with weight p = 1 over strays with p = 0", strays(weighted) / strays(one), above=1.5)
assert weighted_misses[-1] / misses[-1] > 1.3  # miss with p = 1 over miss with p = 0
assert largest_share < 0.45  # no transport term: share of the largest blob

# %% tags=["hide-input"]
fig, axes = figure(7.6, 8.0, ncols=2, nrows=2)
panels = {
    "no transport term": still_net,
    "$r$ and $t$ swapped": swapped_net,
    "gradient through the target": bent_net,
    "weight $p = 1$": weighted_net,
}
for ax, (title, broken) in zip(axes.flat, panels.items(), strict=True):
    plane(ax)
    plots.backdrop(ax, toy.log_prob)
    with torch.no_grad():
        plots.particles(ax, sample(broken, test_noise[:1500]), "error", size=2.5, alpha=0.7)
    ax.set_title(title)
show(
    fig,
    "One-step samples of four broken trainings over the three blobs. No transport term: points reach the blobs but with "
    "wrong shares and displaced. r and t swapped, and gradient through the target: a shapeless cloud in the middle. "
    "Weight p = 1: filled blobs with thick threads between them.",
)

# %% [markdown]
# **What you should see.** Top left: points reach the blobs, but squeezed into wedges, and too few of them reach
# the largest blob. Top right and bottom left: the points gather around the middle, near the mean, and find no
# blob. Bottom right: the threads have grown into a veil of strays.

# %% [markdown]
# ## Exercises
#
# Exercise 1 stands where the target is taught. The variables `a`, `r`, `t`, `u`, `v`, `true_u` are those of the
# derivation, in 64-bit numbers.


# %%
class Counted:
    """The true u, which counts how often it is asked."""

    calls = 0

    def __call__(self, a, r, t):
        self.calls += 1
        return true_u(a, r, t)


def gaussian_velocity(a, t, b, Sigma):
    """The velocity of a Gaussian with mean b and covariance Sigma, for exercise 2."""
    identity, late, early = torch.eye(2, dtype=torch.float64), t[..., None], 1 - t[..., None]
    V, rate = early**2 * Sigma + late**2 * identity, 2 * late * identity - 2 * early * Sigma
    return -b + 0.5 * (rate @ torch.linalg.solve(V, (a - (1 - t) * b)[..., None]))[..., 0]


class NoRate(torch.autograd.Function):
    """SiLU without a rule for its derivative."""

    @staticmethod
    def forward(ctx, z):
        return nn.functional.silu(z)


class Sealed(nn.SiLU):
    def forward(self, input):
        return NoRate.apply(input)


# %% [markdown]
# ### 2. The average velocity of a Gaussian · ●●○ · 20 min
#
# Let the data be one Gaussian, $p_0=\mathcal N(b,\Sigma)$, longer in one direction than in another. ($\Sigma$ is its
# covariance matrix.) Then $a_t$ is Gaussian with mean $(1-t)\,b$ and covariance $V_t=(1-t)^2\,\Sigma+t^2I$, and the
# velocity is
#
# $$v(a,t)=-b+\tfrac12\,\dot V_t\,V_t^{-1}\big(a-(1-t)\,b\big),\qquad \dot V_t=2t\,I-2(1-t)\,\Sigma .$$
#
# Find the flow line through $a$ at time $t$, and from it $u(a,r,t)$ for $r<t$. Write it as a function, without an ODE
# solver. The check has one.


# %% tags=["exercise", "raises-exception"]
def gaussian_u(a, r, t, b, Sigma):
    raise NotImplementedError("your turn")


b = torch.tensor([0.7, -0.3], dtype=torch.float64)
Sigma = torch.tensor([[0.50, 0.35], [0.35, 0.30]], dtype=torch.float64)
exact = partial(gaussian_velocity, b=b, Sigma=Sigma)
by_solver = average_velocity(exact, a, r, t)
difference = largest(gaussian_u(a, r, t, b, Sigma) - by_solver)
check("exercise 2: formula against solver", difference, below=1e-5)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Turn the axes into the directions of the eigenvectors of $\Sigma$ (`torch.linalg.eigh`). $V_t$ has the same
# eigenvectors at all times, so the coordinates no longer mix. For one coordinate: which differential equation does the
# way from the moving mean to the point satisfy, and what is the derivative of the square root of its variance?
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# Let $\delta$ be one coordinate of $a_t-(1-t)\,b$ along an eigenvector of $\Sigma$, and $V$ its variance. Then
# $\dot\delta=\frac{\dot V}{2V}\,\delta$, and $\sqrt V$ has the derivative $\frac{\dot V}{2V}\sqrt V$. So
# $\delta/\sqrt V$ is constant along a flow line: in each of these directions every point keeps its distance from the mean
# in units of the standard deviation. Stretch each coordinate by the ratio of its standard deviations, turn back, and $u$
# is displacement over time.
#
# ```python
# def gaussian_u(a, r, t, b, Sigma):
#     variances, axes = torch.linalg.eigh(Sigma)  # the columns of axes are the eigenvectors
#     std_r, std_t = (((1 - time) ** 2 * variances + time**2).sqrt() for time in (r, t))
#     delta = (a - (1 - t) * b) @ axes
#     end = (1 - r) * b + (delta * std_r / std_t) @ axes.T
#     return (a - end) / (t - r)
# ```
#
# </details>

# %% [markdown]
# ### 3. Find the bugs · ●○○ · 10 min
#
# A sampler. With one step it is fine. With two steps the samples are far off. There are two mistakes. Write it
# correctly.
#
# ```python
# def sampler(u, eps, steps):
#     a, ones = eps, torch.ones_like(eps[..., :1])
#     for i in range(steps, 0, -1):
#         t, r = ones * (i / steps), ones * ((i - 1) / steps)
#         a = a - u(eps, r, t)
#     return a
# ```


# %% tags=["exercise", "raises-exception"]
def repaired_sampler(u, eps, steps):
    raise NotImplementedError("your turn")


exact_end = solve(v64, a, steps=200, step=rk4_step)  # the points a, now taken as noise
for count in (1, 2, 5):
    counted = Counted()
    error = apart(repaired_sampler(counted, a, count), exact_end)
    check(f"exercise 3: mean error of {count} step(s)", error, below=1e-3)
    check("exercise 3: calls of u per step", counted.calls / count, above=0.99, below=1.01)

# %% [markdown]
# <details><summary>Hint</summary>
#
# A velocity is not a displacement. For which interval are the two equal? And where is the point when the second step
# begins?
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# The factor $t-r$ is missing, and $u$ is asked at the start `eps` instead of the point `a`. One step from 1 to 0 sees
# neither. Test a sampler with at least two numbers of steps.
#
# ```python
# def repaired_sampler(u, eps, steps):
#     a, ones = eps, torch.ones_like(eps[..., :1])
#     for i in range(steps, 0, -1):
#         t, r = ones * (i / steps), ones * ((i - 1) / steps)
#         a = a - (t - r) * u(a, r, t)
#     return a
# ```
#
# </details>

# %% [markdown]
# ### 4. A target without a derivative · ●●○ · 20 min
#
# Displacements add up. For $r\le q\le t$ the way from $t$ to $r$ is the way from $t$ to $q$ and then from $q$ to
# $r$. This is the idea of SplitMeanFlow (2507.16884): a target for $u(a,r,t)$ that is made of two values of $u$
# on shorter intervals, without any JVP. Write it. The check asks whether the true $u$ is its fixed point, and what
# becomes of `small_u`, which is no average velocity of anything.


# %% tags=["exercise", "raises-exception"]
def split_target(u, a, r, q, t):
    raise NotImplementedError("your turn")


for part in (0.25, 0.5, 0.75):
    q = r + part * (t - r)
    residual = largest(split_target(true_u, a, r, q, t) - u)
    check(f"exercise 4: residual, split at {part:g}", residual, below=1e-4)
of_small_u = (split_target(small_u, a, r, q, t) - small_u(a, r, t)).norm(dim=-1).mean()
check("exercise 4: mean residual of small_u", of_small_u, above=0.0472, below=0.0482)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Where is the point at time $q$? The sampler's jump takes you there. Then write the total displacement in two
# ways.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# $(t-r)\,u(a,r,t)=(t-q)\,u(a,q,t)+(q-r)\,u(a_q,r,q)$ with $a_q=a-(t-q)\,u(a,q,t)$. Let $q$ move up to $t$: then
# $u(a,q,t)$ becomes $v$, the difference between $u(a,r,t)$ and $u(a_q,r,q)$ becomes $(t-q)\,du/dt$, and the
# MeanFlow identity appears.
#
# ```python
# def split_target(u, a, r, q, t):
#     late = (t - q) * u(a, q, t)
#     early = (q - r) * u(a - late, r, q)
#     return (late + early) / (t - r)
# ```
#
# </details>

# %% [markdown]
# ### 5. Write a JVP yourself · ●●○ · 25 min
#
# `torch.func.jvp` carries a value and its rate of change through the network. Do it by hand for our MLP: linear
# layers with SiLU, $\mathrm{silu}(z)=z\,\varsigma(z)$, between them, where $\varsigma(z)=1/(1+e^{-z})$. Given an input
# `z` and its rate `dz`, return the output and its rate. No call to autograd: the check hands you a copy of the network
# whose SiLU, `Sealed`, lets no derivative through.


# %% tags=["exercise", "raises-exception"]
def mlp_jvp(mlp, z, dz):
    raise NotImplementedError("your turn")


sealed = nn.Sequential(*(Sealed() if isinstance(one, nn.SiLU) else one for one in net.mlp))
g = torch.Generator().manual_seed(4)
z, dz = torch.randn(2, 50, 6, generator=g)  # six inputs: two of the point, four of the times
with torch.no_grad():
    value, rate = mlp_jvp(sealed, z, dz)
    value_by_torch, rate_by_torch = torch.func.jvp(net.mlp, (z,), (dz,))
for name, mine, theirs in (("value", value, value_by_torch), ("rate", rate, rate_by_torch)):
    check(f"exercise 5: error of the {name}", largest(mine - theirs) / largest(theirs), below=2e-5)

# %% [markdown]
# <details><summary>Hint</summary>
#
# A linear layer maps the rate $\dot z$ to $W\dot z$: no bias. An activation multiplies the rate by its
# derivative, entry by entry.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# The product rule with $\varsigma'=\varsigma(1-\varsigma)$ gives
# $\mathrm{silu}'(z)=\varsigma(z)\,\big(1+z\,(1-\varsigma(z))\big)$.
#
# ```python
# def mlp_jvp(mlp, z, dz):
#     for layer in mlp:
#         if isinstance(layer, nn.Linear):
#             z, dz = layer(z), dz @ layer.weight.T
#         else:
#             s = torch.sigmoid(z)
#             z, dz = z * s, dz * s * (1 + z * (1 - s))
#     return z, dz
# ```
#
# </details>

# %% [markdown]
# ### 6. Move the other end · ●●● · 40 min
#
# Step 3 moved the upper end of the interval. Keep $a$ and $t$ fixed and move $r$ instead. Derive an identity for
# $u(a,r,t)$ in which no derivative stands but $\partial_r u$, and in which $v$ is asked at another place. Write the
# target that it gives, for functions `u(a, r, t)` and `v(a, t)`, without a solver. Show on paper that your identity, too, has one solution
# only. What does this target need that the one of exercise 1 does not? The check asks whether the true $u$ is its fixed
# point, and what becomes of `small_u`.


# %% tags=["exercise", "raises-exception"]
def lower_target(u, v, a, r, t):
    raise NotImplementedError("your turn")


residual = largest(lower_target(true_u, v64, a, r, t) - u)
check("exercise 6: residual of the true u", residual, below=1e-4)
of_small_u = (lower_target(small_u, v64, a, r, t) - small_u(a, r, t)).norm(dim=-1).mean()
check("exercise 6: mean residual of small_u", of_small_u, above=1.775, below=1.796)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Differentiate $(t-r)\,u(a,r,t)=a-a_r$ in $r$. The point $a$ is fixed; $a_r$ is the point of its line at time $r$. How
# fast does that move? And where is it, in terms of $u$?
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# The left side gives $-u+(t-r)\,\partial_ru$, the right side $-\dot a_r=-v(a_r,r)$. Hence
#
# $$u(a,r,t)=v\big(a-(t-r)\,u,\;r\big)+(t-r)\,\partial_r u .$$
#
# One solution: let $z_r=a-(t-r)\,u(a,r,t)$. The identity says that $dz_r/dr=v(z_r,r)$, and $z_t=a$ as long as $u$ stays
# finite at $r=t$. That is the equation of the flow line through $a$, and it has one solution. The price: $v$ must be
# known as a *function*, at the place where the network's own jump ends. Pairs do not give it there.
# (Flow map matching, 2406.07507, trains on this form and calls it Lagrangian.)
#
# ```python
# def lower_target(u, v, a, r, t):
#     end = a - (t - r) * u(a, r, t)
#     d_r = torch.func.jvp(lambda r: u(a, r, t), (r,), (torch.ones_like(r),))[1]
#     return v(end, r) + (t - r) * d_r
# ```
#
# </details>

# %% [markdown]
# ## Summary
#
# * The average velocity $u(a,r,t)$ is displacement over time along a flow line. One step along it is exact:
#   $a_0=\varepsilon-u(\varepsilon,0,1)$.
# * Move $t$ along the line: one end of the displacement moves at $v$, the other stays. That is the MeanFlow
#   identity, $u=v-(t-r)\,(v\cdot\partial_a u+\partial_t u)$.
# * The bracket is one JVP along the tangent $(v,0,1)$, for arguments ordered as $u(a,r,t)$. The target carries no
#   gradient. Rows with $r=t$ are plain flow matching; they sharpen $v$.
# * The loss contains the variance of the target. It may rise while the sampler improves. Judge samples.
# * Before training, test a target on a known $u$. It must be a fixed point.

# %% [markdown]
# ## References
#
# * Geng, Deng, Bai, Kolter, He: *Mean Flows for One-step Generative Modeling*,
#   [2505.13447](https://arxiv.org/abs/2505.13447). The identity, the loss and the sampler of this chapter.
# * Geng and others: *Improved Mean Flows*, [2512.02012](https://arxiv.org/abs/2512.02012). Why a noisy velocity
#   makes a poor tangent, and a loss whose target does not depend on the network.
# * Guo and others: *SplitMeanFlow*, [2507.16884](https://arxiv.org/abs/2507.16884). The same average velocity
#   without derivatives (exercise 4).
# * Boffi, Albergo, Vanden-Eijnden: *Flow Map Matching*, [2406.07507](https://arxiv.org/abs/2406.07507). Jumps between any
#   two times, and the identity of exercise 6.
# * Kim and others: *Understanding, Accelerating, and Improving MeanFlow Training*,
#   [2511.19065](https://arxiv.org/abs/2511.19065). In which order the velocities are learnt.
# * Lu, Wang: *On Variance Reduction in Learning Mean Flows*, [2605.09235](https://arxiv.org/abs/2605.09235). The
#   loss that does not fall, explained by the noise of the velocity.
#
# ---
#
# Previous: [01 · Flow matching on the plane](01_flow_matching.ipynb). Next:
# [03 · Policies as Boltzmann distributions](03_boltzmann_policies.ipynb). So far data told us the velocity. From there on
# a critic has to.
