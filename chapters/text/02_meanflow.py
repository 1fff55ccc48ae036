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
# against numbers. You turn it into a training target of four lines of code. Then you train a small network that
# takes a random point to a data point in a single step, and you break it in several ways to see what each part is
# for.
#
# **What you will learn.** What an average velocity is and why one step needs it. What a Jacobian-vector product
# is, and how to get one without a Jacobian. Why the target carries no gradient. How to read a loss that rises
# while the model gets better.
#
# **What you need.** [Chapter 01](01_flow_matching.ipynb), calculus (the chain rule in several variables) and
# PyTorch.
#
# **Time and hardware.** ≈ 40 s on one CPU core, nearly all of it for nine short trainings; allow two to three hours for
# reading and exercises. No GPU.
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
# Chapter 01 ended with a bill: an Euler step errs, so a good sample takes many steps, hence many calls of the network.
# For later comparisons we send 4000 noise points along the exact flow, in 64 small steps, and keep where they arrive.
# (With 4000 points the share of a blob is uncertain by at most 0.008, one standard deviation; so 0.03 is a fair bound.)

# %%
from functools import partial

import numpy as np
import ot
import torch
from scipy.integrate import simpson
from torch import nn

from som_lite.flow.densities import GaussianMixture, three_modes
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


def shares(x):
    """The share of the points x that is nearest to each of the three centres."""
    return torch.bincount(torch.cdist(x, toy.means).argmin(-1), minlength=3) / len(x)


test_noise = torch.randn(4000, 2, generator=torch.Generator().manual_seed(1))
test_end = solve(velocity, test_noise, steps=64, step=rk4_step)  # where the exact flow takes it

check("error of the three shares", (shares(test_end) - toy.weights).abs().max(), below=0.03)

# %% [markdown]
# ### The picture
#
# One Euler step from $t=1$ to $t=0$ follows the arrow of $v$ at the start, $a=\varepsilon-v(\varepsilon,1)$. Since
# $v(\varepsilon,1)=\varepsilon-E[a_0]$, every point lands on the mean of the data, wherever it starts. No better
# network can change that: it is what the first arrow says.
#
# The remedy is another arrow: the one that points from the start to the *end of the flow line*. It is the mean of
# all the arrows $v$ along the way. This average velocity is called $u$. One step along it is exact.

# %%
starts = torch.tensor(
    [[1.1, 1.9], [-1.2, 1.0], [2.0, -1.9], [-0.3, -2.2], [-2.3, 0.1], [0.4, -0.5]]
)
lines = solve(velocity, starts, steps=64, step=rk4_step, trajectory=True)
ends = lines[-1]

fig, (left, right) = figure(8.4, 4.7, ncols=2)
for ax in (left, right):
    plane(ax)
    plots.backdrop(ax, toy.log_prob)
    plots.trajectories(ax, lines, "reference", linewidth=1.3, alpha=0.9)
for start, end in zip(starts, ends, strict=True):
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
# **What you should see.** The same six flow lines twice. On the left each orange arrow leaves along its flow
# line, as a velocity must, and then goes straight on: all six meet at the mean of the data, where there are hardly
# any data. On the right each green arrow cuts across and ends where its flow line ends.

# %%
at_noise = torch.ones(len(test_noise), 1)
landing = test_noise - velocity(test_noise, at_noise)
farthest = (landing - mean).norm(dim=-1).max()
check("distance of every Euler landing from the mean", farthest, below=1e-5)

# %% [markdown]
# So one step is easy once $u$ is known. But $u$ is an average over a path that we wanted to avoid walking. The
# rest of this chapter finds an equation for $u$ that needs no walking at all.

# %% [markdown]
# ## Derivation
#
# Every step below is checked in the cell that follows it, on 200 random points of the path with random intervals.
# The checks need small differences, so this section computes in 64-bit numbers.

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
# (`solve` takes 64 Runge-Kutta steps) and divide the displacement by the time. When $t-r$ is tiny this would
# divide rounding errors by almost nothing, so there the function returns $v$.


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
# displacement. As a third witness we ask an adaptive solver of another library for the end of the line, for one
# interval. The 64 steps of our solver leave an error of some $10^{-6}$ where lines bend sharply; hence the
# bounds.

# %%
n = 200
line = solve(v64, a, t, r, n, rk4_step, trajectory=True)  # (n + 1, 200, 2): from time t down to r
times = t + (r - t) * torch.linspace(0, 1, n + 1, dtype=torch.float64)[:, None, None]
u_by_integral = torch.from_numpy(simpson(v64(line, times).numpy(), dx=1 / n, axis=0))
u = true_u(a, r, t)
check("step 2: integral against displacement", largest(u_by_integral - u), below=1e-4)

# Over an interval of length d the average differs from v by about d/2 times the rate of v along the line.
u_short = true_u(a, t - 1e-5, t)
check("step 1: u over a tiny interval against v", largest(u_short - v64(a, t)), below=1e-3)

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

# %%
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
plots.particles(ax, tail[None], "reference", size=9, alpha=1.0)
ax.text(*(tail - 0.04), "$a_r$, $r = 0.2$", ha="right", va="top")
ax.text(*(one_line[-1] + torch.tensor([0.03, 0])), "to the data", va="center")
show(
    fig,
    "One curved flow line with three grey points on it, the positions at times t = 1, 0.8 and 0.6. From each a green "
    "arrow, the displacement back to time r = 0.2, leads to the same black cross further along the line.",
)

# %% [markdown]
# **What you should see.** One flow line (black), and on it the places of a point at three times $t$ (grey). The
# green arrows are jumps back to time $r=0.2$. They start at different places and end at the same one. When $t$
# changes, only the start of the arrow moves.
#
# So differentiate the equation of step 2 with respect to $t$, along the line. On the right $a_r$ drops out:
#
# $$\frac{d}{dt}\Big[(t-r)\,u(a_t,r,t)\Big]=v(a_t,t).$$
#
# The product rule on the left gives $u+(t-r)\,\dfrac{du}{dt}$. Hence
#
# $$u(a_t,r,t)=v(a_t,t)-(t-r)\,\frac{du}{dt}.$$
#
# Here $d/dt$ is the derivative *along the line*: both the time and the point change. The check takes it
# literally. It moves each point a little way along its line, to $t\pm h$, computes $u$ afresh at both places, and
# forms the difference quotient, with $h=10^{-5}$. The error of the quotient is of the order $h^2=10^{-10}$ times
# a third derivative, which can be large where lines bend sharply.

# %%
h = 1e-5
before, after = (solve(v64, a, t, t + shift, 1, rk4_step) for shift in (-h, h))  # a_{t-h}, a_{t+h}
u_before, u_after = true_u(before, r, t - h), true_u(after, r, t + h)
displacement_speed = ((t + h - r) * u_after - (t - h - r) * u_before) / (2 * h)
du_dt = (u_after - u_before) / (2 * h)
v = v64(a, t)
check("step 3: speed of the displacement against v", largest(displacement_speed - v), below=1e-4)
check("step 3: product rule", largest(u + (t - r) * du_dt - v), below=1e-4)

# %% [markdown]
# ### Step 4: the chain rule
#
# The derivative along the line can be had without moving. The function $u(a_t,r,t)$ depends on $t$ in two places:
# through the point, which changes at the rate $v$, and through its last argument, which changes at the rate 1.
# The chain rule adds both:
#
# $$\frac{du}{dt}=v\cdot\partial_a u+\partial_t u .$$
#
# Here $\partial_a u$ is the $d\times d$ Jacobian matrix of $u$ in $a$, and $v\cdot\partial_a u$ is short for the
# vector with components $\sum_j v_j\,\partial u_i/\partial a_j$: how fast $u$ changes when the point moves at
# velocity $v$. We call it the *transport term*. $\partial_t u$ is the change at a fixed point.
#
# The check computes both parts separately, by differences at a fixed time and at a fixed point, and compares
# their sum with $du/dt$ from step 3, which went along the line.

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
# This is the MeanFlow identity (Geng et al., 2505.13447, eq. 6). Look at what has gone: no integral, no flow
# line, no other time than $r$ and $t$, no other point than $a$. It ties $u$ at one place to $v$ and to the
# derivatives of $u$ *at the same place*. A network can be trained on that.
#
# Here are both sides at the first test point, and the largest difference over all 200.

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

# %% [markdown]
# ## Code
#
# ### A derivative along a direction, three ways
#
# The identity needs $v\cdot\partial_a u+\partial_t u$: the derivative of $u$ at $(a,r,t)$ when the three
# arguments move at the rates $(v,0,1)$. The list of rates is called the *tangent*. The derivative is the Jacobian
# of $u$ times the tangent, a **Jacobian-vector product** or JVP. Note the zero: $r$ stays where it is.
#
# Let us get one in three ways, for a function small enough to differentiate by hand:
#
# $$u_1=t\,\sin(x y),\qquad u_2=x^2-r\,t^2,\qquad a=(x,y).$$
#
# **By hand.** The chain rule with $\dot x=v_1$, $\dot y=v_2$, $\dot r=0$, $\dot t=1$ gives
# $\dot u_1=t\cos(xy)\,(v_1y+x\,v_2)+\sin(xy)$ and $\dot u_2=2x\,v_1-2\,r\,t$.
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


def by_hand(a, r, t, v):
    x, y, v1, v2 = a[..., :1], a[..., 1:], v[..., :1], v[..., 1:]
    du1 = t * torch.cos(x * y) * (v1 * y + x * v2) + torch.sin(x * y)
    return torch.cat([du1, 2 * x * v1 - 2 * r * t], -1)


def by_jvp(a, r, t, v):
    tangent = (v, torch.zeros_like(r), torch.ones_like(t))
    return torch.func.jvp(small_u, (a, r, t), tangent)[1]


def by_differences(a, r, t, v, h):
    return (small_u(a + h * v, r, t + h) - small_u(a - h * v, r, t - h)) / (2 * h)


answers = {
    "by hand": by_hand(a, r, t, v),
    "torch.func.jvp": by_jvp(a, r, t, v),
    "differences, h = 0.1": by_differences(a, r, t, v, 0.1),
}
for way, answer in answers.items():
    print(f"{way:<22}{answer[0, 0]:10.6f}{answer[0, 1]:10.6f}")
difference = largest(answers["torch.func.jvp"] - answers["by hand"])
check("torch.func.jvp against by hand", difference, below=1e-12)

# %% [markdown]
# Why not always take finite differences? They need no library. But they need a step $h$, and no choice of it is
# quite right. The formula itself errs in proportion to $h^2$ (not for $u_2$, a quadratic, where central differences are
# exact). That asks for a small $h$. Rounding errors in $u$ are divided by $2h$, which asks for a large one.

# %%
steps = np.logspace(-9, 0, 37)


def error_of_differences(dtype):
    case = [x.to(dtype) for x in (a, r, t, v)]
    truth = by_hand(a, r, t, v)
    errors = [by_differences(*case, float(h)).double() - truth for h in steps]
    return np.array([error.norm(dim=-1).mean() for error in errors])


error32, error64 = error_of_differences(torch.float32), error_of_differences(torch.float64)
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
check("least error in 32 bits", error32.min(), below=1e-3, above=1e-6)
check("least error in 64 bits", error64.min(), below=1e-8)
check("the best step in 32 bits", steps[error32.argmin()], above=5e-4, below=2e-2)
at_millionth = error32[np.abs(np.log(steps / 1e-6)).argmin()]
check(
    "error of the step 1e-6 over the least one, in 32 bits", at_millionth / error32.min(), above=100
)

# %% [markdown]
# **What you should see.** Two V shapes with a common right arm, where the formula's error $\propto h^2$ rules. The left
# arms are rounding, a $1/h$ law, and lie about nine decades apart, like the precisions themselves. (The flat top:
# there $a\pm h v$ rounds to $a$, and the quotient is zero.) Networks work in 32 bits. There the best step is near
# $3\cdot10^{-3}$. A step of $10^{-6}$, which looks more careful, is more than a hundred times worse, and one of $10^{-8}$
# gives nothing. `torch.func.jvp` has no step to choose. Finite
# differences remain a good *test* of a JVP, as in the derivation above.
#
# ### The target and the loss
#
# Suppose that a network $u_\theta$ should learn $u$. Evaluate the right side of the identity with the network's
# own derivatives, and call the result the target:
#
# $$u_{\text{tgt}}=v-(t-r)\,\big(v\cdot\partial_a u_\theta+\partial_t u_\theta\big).$$


# %%
def meanflow_target(u, a, r, t, v):
    tangents = (v, torch.zeros_like(r), torch.ones_like(t))
    with torch.no_grad():
        du_dt = torch.func.jvp(u, (a, r, t), tangents)[1]
        return v - (t - r) * du_dt


# %% [markdown]
# Four lines. If they are right, the true $u$ reproduces itself: it is a *fixed point* of the target. We can test
# that before any training, because `torch.func.jvp` differentiates whatever is made of torch operations, also the
# ODE solver inside `average_velocity`.

# %%
difference = largest(meanflow_target(true_u, a, r, t, v) - u)
check("the true u against its own target", difference, below=1e-4)

# %% [markdown]
# The loss is the squared distance to the target, the mean over a batch of points and of intervals:
#
# $$\mathcal L(\theta)=E\,\big\|\,u_\theta(a_t,r,t)-\mathrm{sg}[u_{\text{tgt}}]\,\big\|^2 .$$
#
# Here $\mathrm{sg}$ is *stop-gradient*: in backpropagation the target counts as a constant. The code can also
# divide the squared error of each row by $(\text{that error}+c)^p$, likewise held constant. We keep $p=0$, the
# plain squared error, and see further down what $p=1$ does.


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
# The cell checks the formula with `small_u` in place of a network and an independent tool: the whole Jacobian, row by
# row. Then it shows what linear means: the target of a mean is the mean of the targets.

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
check("target of the mean against mean of the targets", largest(of_mean - mean_of), below=1e-12)

# %% [markdown]
# **What are rows with $r=t$ for?** There the factor $t-r$ is zero and the target is $v$ itself: ordinary flow
# matching. These are the only rows whose target does not depend on the network at all. They pin down the end from
# which longer intervals are built, and without them $u(a,t,t)$ is only approached, through short intervals.
# `sample_times` draws two uniform times, sorts them, and sets $r=t$ on a quarter of the rows. *What can go wrong* tries
# other shares.

# %%
at_r_equal_t = meanflow_target(small_u, a, t, t, v)
check("rows with r = t: target of any u against v", largest(at_r_equal_t - v), below=1e-12)
generator = torch.Generator().manual_seed(5)
r_drawn, t_drawn = sample_times(20_000, generator)
# The share of 20 000 draws is uncertain by 0.003.
equal = (r_drawn == t_drawn).double().mean()
check("rows with r = t: their share", equal, below=0.265, above=0.235)
check("rows with r > t", (r_drawn > t_drawn).sum(), below=0.5)

# %% [markdown]
# **Why stop-gradient?** First, for the cost: a gradient through the target needs second derivatives of the
# network. Second, for correctness. When $v$ is noisy, so is the target: its noise is the noise of $v$ times the
# matrix $I-(t-r)\,\partial_a u_\theta$. A network that may bend its own target can shrink this noise by giving
# $\partial_a u_\theta$ a convenient value (such as $I/(t-r)$, which cancels the noise altogether) instead of the
# right one. With the target held constant nothing is gained that way.
#
# Two small checks. The gradient of our loss is that of an ordinary regression on a target computed beforehand. And the
# temptation is real: $u=a/(t-r)$ knows nothing of the data and sends every point to the origin, yet its target is free of
# noise and equals $u$ itself, whatever $v$ is. Its loss is zero. (It solves the identity. What it lacks is the smoothness
# at $r=t$ that step 5 asked for, and a network can come close to it.)

# %%
theta = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)


def u_theta(a, r, t):
    """A "network" with a single weight."""
    return theta * small_u(a, r, t)


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
# velocity. Each time enters through `TimeEmbedding` with one octave, $\sin\frac{\pi}{2}t$ and
# $\cos\frac{\pi}{2}t$. We stay with one on purpose. The target contains $\partial_t u_\theta$, and at the end of
# chapter 01 we saw what many octaves do to that. Exercise 5 shows the price.


# %%
class AverageVelocityNet(nn.Module):
    def __init__(self, dim, cond_dim=0, hidden=(128, 128, 128), octaves=1):
        super().__init__()
        self.time = TimeEmbedding(octaves)
        self.mlp = MLP([dim + 2 * self.time.size + cond_dim, *hidden, dim])

    def forward(self, a, r, t, cond=None):
        parts = [a, self.time(t), self.time(t - r)] + ([] if cond is None else [cond])
        return self.mlp(torch.cat(parts, -1))


# %% [markdown]
# (`cond` is unused here. In later chapters it is the state of a robot.) The sampler is step 2 of the derivation,
# once or $n$ times:


# %%
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
# We judge a net by its **miss**: start 4000 noise points, take one step of $u_\theta$, and measure the mean
# distance to the points where the exact flow takes the same noise. It is stricter than comparing clouds of
# points, because every point must find its own end.
#
# The training loop is ordinary: Adam, a learning rate that decays to zero along a cosine, batches of 256. The
# points at which the net is trained are points of the path, since those are what a sampler meets.


# %%
def apart(x, y):
    """The mean distance between points of the same row."""
    return (x - y).norm(dim=-1).mean().item()


@torch.no_grad()
def miss(u, steps=1):
    return apart(sample(u, test_noise, steps), test_end)


def fit(loss=meanflow_loss, *, sampled=False, octaves=1, share_equal=0.25, steps=1200, seed=0):
    """Train u from the exact v, or (sampled) from pairs; return it, its losses, its misses."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # the initial weights
        net = AverageVelocityNet(2, octaves=octaves)
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
check("miss of one step", misses[-1], below=0.2)

# %% [markdown]
# For comparison: the blobs have standard deviations between 0.25 and 0.4, and a sampler that sends everything to the
# mean of the data, as one Euler step does, has a miss of about 1.8 (printed below). So a miss near 0.1 is a good
# one-step sampler. The bound leaves room for other seeds and machines.
#
# ### A loss that need not fall
#
# Now the same training from pairs, with $\varepsilon-a_0$ in place of $v$. One argument changes.

# %%
pairs_net, pairs_losses, pairs_misses = fit(sampled=True)
check("miss of one step, trained from pairs", pairs_misses[-1], below=0.35)
rise = np.mean(pairs_losses[-300:]) / np.mean(pairs_losses[:100])
check("loss of the last 300 steps over loss of the first 100, from pairs", rise, above=1.2)


# %%
def by_fifty(values):
    return np.reshape(values, (-1, 50)).mean(1)


progress = 50 * np.arange(1, 25)
fig, (left, right) = figure(8.4, 3.6, ncols=2)
for ax, exact, pairs, name in (
    (left, by_fifty(losses), by_fifty(pairs_losses), "loss (mean of 50 steps)"),
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
# pairs, the noise of $\varepsilon-a_0$ is multiplied by $I-(t-r)\,\partial_a u_\theta$, so the variance changes
# as the network learns how sharply $u$ turns between the blobs.
#
# If this is right, the *perfect* $u$ must have a large loss from pairs as well. We know the perfect $u$, so we
# can compute it: it hits its mean target exactly, and only the multiplied noise is left. The result is a mean
# with rare large terms, from the border between blobs, and varies with the points drawn; we ask that it be well above
# the loss at the start of the training.

# %%
g = torch.Generator().manual_seed(0)
a0, eps = fine.sample(4000, g), torch.randn(4000, 2, generator=g, dtype=torch.float64)
r_p, t_p = (times.double() for times in sample_times(4000, g))
a_p = path.noise(a0, eps, t_p)
noise = eps - a0 - v64(a_p, t_p)
turned = (true_u(a_p + h * noise, r_p, t_p) - true_u(a_p - h * noise, r_p, t_p)) / (2 * h)
perfect_loss = (noise - (t_p - r_p) * turned).square().sum(-1).mean()
ratio = perfect_loss / np.mean(pairs_losses[:100])
check("loss of the perfect u over loss of the first 100 steps, from pairs", ratio, above=1.2)

# %% [markdown]
# So the loss of our network rises towards that of a perfect one.
#
# The lesson for later chapters: **watch the samples, not the loss.** "Is my loss supposed to rise?" is a frequent
# question about MeanFlow, and the answer is: it may.

# %% [markdown]
# ## Checks
#
# What should a good one-step sampler satisfy? We ask five things of the net that was trained from the exact $v$.
#
# **1. It knows the velocity.** At $r=t$ the net should be $v$. We print the mean speed on this path and ask for a
# mean error below 0.25.
#
# **2. The right shares.** 50, 30, 20 %, up to counting noise (0.008) and some error of the net.
#
# **3. Few strays.** A *stray* lies where $p_0$ is lower than at 99 % of true samples. By definition 1 % of true
# samples are strays. The exact map sends noise points that are close neighbours to different blobs. A net, being
# smoother, sends a few of them in between. We allow 8 %.
#
# **4. The cloud is right.** The sliced Wasserstein distance compares two clouds: project both on many lines,
# sort, and average how far apart the sorted points are. Two clouds drawn from the *same* density are not at
# distance zero. Their distance is the *floor*, and a perfect sampler cannot be expected below it. We ask for less
# than 2.5 times the floor.
#
# **5. It is self-consistent.** Two jumps, from 1 to ½ and on to 0, should end where one jump ends.

# %%
g = torch.Generator().manual_seed(3)
time = torch.rand(4000, 1, generator=g)
a_t = path.noise(toy.sample(4000, g), torch.randn(4000, 2, generator=g), time)

with torch.no_grad():
    one, two = sample(net, test_noise), sample(net, test_noise, steps=2)
    v_error = apart(net(a_t, time, time), velocity(a_t, time))

rare = toy.log_prob(toy.sample(20_000, g)).quantile(0.01)


def strays(x):
    return (toy.log_prob(x) < rare).float().mean()


def distance(x, y):
    return ot.sliced_wasserstein_distance(x.numpy(), y.numpy(), n_projections=64, seed=0, p=1)


truths = [toy.sample(4000, g) for _ in range(8)]
floor = np.mean([distance(x, y) for x, y in zip(truths[::2], truths[1::2], strict=True)])
to_truth = np.mean([distance(one, x) for x in truths])

print(f"mean speed on the path: {velocity(a_t, time).norm(dim=-1).mean():.5f}")
check("1. mean error of v at r = t", v_error, below=0.25)
check("2. error of the three shares", (shares(one) - toy.weights).abs().max(), below=0.04)
check("3. strays in one step", strays(one), below=0.08)
check("4. sliced Wasserstein distance over its floor", to_truth / floor, below=2.5)
check("5. distance between one jump and two", apart(one, two), below=0.2)

# %% [markdown]
# Now look at the samples themselves, beside one Euler step of the *exact* velocity.

# %%
one_euler = test_noise - velocity(test_noise, at_noise)
fig, axes = figure(7.6, 8.0, ncols=2, nrows=2)
panels = {
    "1 Euler step of the exact $v$": (one_euler, "flow"),
    "1 step of the learnt $u$": (one, "average"),
    "2 steps of the learnt $u$": (two, "average"),
    "64 steps of the exact $v$": (test_end, "data"),
}
for ax, (title, (points, kind)) in zip(axes.flat, panels.items(), strict=True):
    plane(ax)
    plots.backdrop(ax, toy.log_prob)
    plots.particles(ax, points[:1500], kind, size=2.2, alpha=0.7)
    ax.set_title(title)
plots.particles(axes[0, 0], one_euler[:1], "flow", size=9, alpha=1.0)
show(
    fig,
    "Four panels of 1500 sampled points over the three blobs. One Euler step of v: all points on one spot between the blobs. "
    "One step of u: three filled blobs with thin threads of points between them. Two steps: the same with fainter "
    "threads. 64 steps of v: three clean blobs.",
)

# %% [markdown]
# **What you should see.** Top left: 1500 points on one spot (enlarged), the mean. Top right: three blobs of the
# right sizes, joined by thin threads. The threads come from noise near the border, where the exact map sends
# neighbours to different blobs and the smoother net sends them in between. Creases inside the blobs are errors of
# the net, too. Bottom left: two steps leave fewer strays. Bottom right: the exact flow.
#
# How many Euler steps is one step of $u$ worth?

# %%
counts = [1, 2, 4, 8, 16, 32]
euler_misses = [
    apart(solve(velocity, test_noise, steps=n, step=euler_step), test_end) for n in counts
]
u_misses = [miss(net, n) for n in counts]
for n, value in zip(counts, euler_misses, strict=True):
    print(f"{n:>2} Euler steps of the exact v: miss {value:.5f}")
ratio = u_misses[0] / euler_misses[2]
check("miss of one step of u over that of four Euler steps of v", ratio, below=0.8)
check("miss of four steps of u", u_misses[2], below=0.15)

fig, ax = figure(6.0, 3.9)
ax.plot(counts, euler_misses, color=COLOURS["velocity"], marker="^", linestyle="--")
ax.plot(counts, u_misses, color=COLOURS["average"], marker="D")
ax.set(xscale="log", yscale="log", xlabel="steps = evaluations", ylabel="miss", ylim=(0.02, 3))
ax.set_xticks(counts, counts)
ax.minorticks_off()
ax.text(2.2, 0.9, "Euler steps of the exact $v$", color="#a06f00")
ax.text(1.0, 0.042, "steps of the learnt $u$", color="#007a5a")
show(
    fig,
    "The miss against the number of steps, both on logarithmic axes. For Euler steps of v it falls from 1.8 at one step, about "
    "halving with each doubling. For steps of u it starts near 0.1 and changes little.",
)

# %% [markdown]
# **What you should see.** Doubling the number of Euler steps halves the miss, the mark of a first-order method.
# The curve of $u$ starts where Euler is after eight to sixteen steps, and is nearly flat. A *perfect* $u$ would be at
# zero for every number of steps; what is left is the error of the network. A few steps help a little, since short
# intervals are easier to learn than long ones. Many do not: the errors of the single steps remain.

# %% [markdown]
# ## Explorer
#
# On the left, orange arrows show $-v(x,t)$ and green arrows the net's $-u(x,r,t)$ (the minus: both point the way
# a sampler walks). One point $x$ also makes its jump: it starts at the grey dot at time $t$, and the green arrow
# should end at the black cross, where the exact path is at time $r$. On the right, $n$ Euler steps of $v$
# (orange) against one step of $u$ (green). The slider `x` picks another point, `n` another number of steps.
# Exercise 3 asks you to predict what you will see: do it first.

# %%
average_velocity_explorer(velocity, net, log_prob=toy.log_prob)

# %% [markdown]
# **What you should see.** At $r=t$ the two sets of arrows agree and the jump has length zero. Lower $r$ from
# there: the green arrows turn away from the orange ones, most of all where flow lines bend, between the blobs.
# The jump ends near the end of its path, however bent that is. At $t=1$ all orange arrows point at the mean while
# the green ones already know which blob is theirs. On the right, the orange points crawl from the mean into the
# blobs as $n$ grows; the green ones are there from the start.

# %% [markdown]
# ## What can go wrong
#
# ### A wrong tangent
#
# The tangent $(v,0,1)$ is where MeanFlow code goes wrong most easily, for three reasons. One may forget that the
# *point* moves. One may order the times differently: some published code calls $u(a,t,r)$ and uses $(v,1,0)$,
# which is right there and wrong here. And with time running the other way, a sign flips. None of these raises an
# error. But the true $u$ is no fixed point of a wrong target, and that is a test without any training.

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
# What do such errors do to samples? We train with two of the wrong tangents, for 600 steps each. That is enough
# to see that they do not learn.


# %%
def loss_with(tangent):
    def loss(u, a, r, t, v):
        with torch.no_grad():
            total = torch.func.jvp(u, (a, r, t), tangent(v, r, t))[1]
            target = v - (t - r) * total
        return (u(a, r, t) - target).square().sum(-1).mean()

    return loss


still_net, still_losses, still_misses = fit(
    loss_with(lambda v, r, t: (0 * v, 0 * r, torch.ones_like(t))), steps=600
)
swapped_net, swapped_losses, swapped_misses = fit(
    loss_with(lambda v, r, t: (v, torch.ones_like(r), 0 * t)), steps=600
)
check("miss without the transport term", still_misses[-1], above=0.4)
check("miss without it over that with the right target", still_misses[-1] / misses[-1], above=3)
check("miss with r and t swapped", swapped_misses[-1], above=0.7)
check(
    "loss without the transport term over the loss of the right target",
    np.mean(still_losses[-100:]) / np.mean(losses[-100:]),
    below=0.7,
)

# %% [markdown]
# The last line deserves a second look. Without the transport term the loss is *lower* than that of the right
# target, after half the training, and the samples are several times further off. The wrong equation is
# simply easier to satisfy. Losses of different targets cannot be compared.
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
check(
    "its loss over the loss with stop-gradient, both from pairs",
    np.mean(bent_losses[-100:]) / np.mean(pairs_losses[-100:]),
    below=0.6,
)

# %% [markdown]
# Again the lower loss belongs to the worse sampler. (With the exact $v$ there is no noise to suppress, and this
# variant works. It then costs only time. Try `fit(loss_without_stop_gradient, steps=600)`.)
#
# ### No rows with equal times, or no others
#
# We train three times for 600 steps with the exact $v$: with no row at $r=t$, with a quarter, and with nothing else. Then
# we sample in 1 to 32 steps of $u_\theta$, and measure the error of $u_\theta(a,t,t)$ as a velocity.

# %%
by_share = {share: fit(share_equal=share, steps=600)[0] for share in (0.0, 0.25, 1.0)}
jumps = {share: [miss(trained, n) for n in counts] for share, trained in by_share.items()}
with torch.no_grad():
    error_of_v = {
        share: apart(trained(a_t, time, time), velocity(a_t, time))
        for share, trained in by_share.items()
    }
check("only r = t: miss of one step", jumps[1.0][0], above=1)
check("only r = t: miss of 32 steps", jumps[1.0][-1], below=0.2)
check(
    "no r = t: miss of one step over that with a quarter", jumps[0.0][0] / jumps[0.25][0], below=1.5
)
check(
    "no r = t: error of v over that with a quarter", error_of_v[0.0] / error_of_v[0.25], above=1.15
)

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
    "two nearly flat curves between 0.1 and 0.2. All: a curve that falls from above 1 at one step to below 0.1 at 32.",
)

# %% [markdown]
# **What you should see.** With nothing but $r=t$ the network is a flow-matching network (orange): fine with many steps,
# while one step lands near the mean. It was never asked about an interval. With no such rows (black) one step is as
# good as with a quarter of them (green). What suffers is the velocity $u_\theta(a,t,t)$, by the last check. So the share
# is a trade, and not a matter of right and wrong, at least here, where $v$ is exact and short intervals are frequent.
# When $v$ is noisy or training is unstable, practice takes more: three quarters of the rows in the paper's main setting.
#
# ### A weight that looks away
#
# For images, MeanFlow divides each row's error by $(\text{error}+c)^p$ with $p=1$. Rows with a large error then
# count little: good against the wild targets of noisy pairs. With an exact $v$ large errors are no noise. They
# sit where $u$ is hard, on the border between two blobs, and the weight tells the net to look away. After the check, the
# samples of all four broken trainings.

# %%
a_row = torch.tensor([0.01, 1.0, 4.0])  # three squared errors, weighted
check(
    "p = 0 leaves an error as it is",
    (adaptive_weight(a_row, 0.0, 0.01) * a_row - a_row).abs().max(),
    below=1e-9,
)
shares_of_loss = adaptive_weight(a_row, 1.0, 0.01) * a_row
check(
    "p = 1: error 4 over error 0.01, after the weight",
    shares_of_loss[2] / shares_of_loss[0],
    below=2.1,
)

weighted_net, weighted_losses, weighted_misses = fit(partial(meanflow_loss, p=1.0, c=0.01))
with torch.no_grad():
    weighted = sample(weighted_net, test_noise)
check("strays with weight p = 1 over strays with p = 0", strays(weighted) / strays(one), above=1.5)
check("miss with p = 1 over miss with p = 0", weighted_misses[-1] / misses[-1], above=1.3)

# %%
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
with torch.no_grad():
    largest_share = shares(sample(still_net, test_noise))[0]
check("no transport term: share of the largest blob", largest_share, below=0.45)

# %% [markdown]
# **What you should see.** Top left: points reach the blobs, but squeezed into wedges, and too few of them reach
# the largest blob (the last check). Top right and bottom left: the points gather around the middle, near the mean, and find no
# blob. Bottom right: the threads have grown into a veil of strays.
#
# ### Two more, for later
#
# *Too many octaves* in the time embedding: exercise 5. *NaN after a long training* is a frequent complaint about
# large MeanFlow models. The derivative in the target feeds on the network's own derivative, and a spike of one
# feeds the other. Usual cures are few octaves, a decaying learning rate, more rows with $r=t$, 32-bit numbers in
# the JVP, and, for noisy pairs, the weight $p=1$. Log the size of $du/dt$ beside the loss.

# %% [markdown]
# ## Exercises
#
# Each stub raises `NotImplementedError`. Replace its body and run the cell: a ✓ line says that you are done. The
# variables `a`, `r`, `t`, `u`, `true_u` are those of the derivation, in 64-bit numbers.

# %% [markdown]
# ### 1. The average velocity of a Gaussian · ●○○ · 15 min
#
# Let the data be one Gaussian, $p_0=\mathcal N(m_0,c^2I)$, on the linear path. Then $a_t$ is Gaussian with mean
# $(1-t)\,m_0$ and variance $V_t=(1-t)^2c^2+t^2$ in each coordinate, and the velocity is
#
# $$v(a,t)=-m_0+\frac{\dot V_t}{2V_t}\,\big(a-(1-t)\,m_0\big).$$
#
# Find the flow line through $a$ at time $t$, and from it $u(a,r,t)$ for $r<t$. Write it as a function, without an ODE
# solver. The check has one.


# %% tags=["exercise", "raises-exception"]
def gaussian_u(a, r, t, m0, c):
    raise NotImplementedError


m0, c = torch.tensor([0.7, -0.3], dtype=torch.float64), 0.4
one_blob = GaussianMixture(m0[None], torch.full_like(m0[:1], c), torch.ones_like(m0[:1]))
by_solver = average_velocity(lambda a, t: one_blob.velocity(a, t, path), a, r, t)
difference = largest(gaussian_u(a, r, t, m0, c) - by_solver)
check("exercise 1: formula against solver", difference, below=1e-6)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Let $b_t=a_t-(1-t)\,m_0$ be the way from the moving mean to the point. Which differential equation does it satisfy?
# What is the derivative of $\sqrt{V_t}$?
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# $\dot b=\dot a+m_0=\frac{\dot V}{2V}\,b$, and $\sqrt V$ has the derivative $\frac{\dot V}{2V}\sqrt V$. So
# $b_t/\sqrt{V_t}$ is constant along a flow line: every point keeps its distance from the mean in units of the
# standard deviation. Hence $a_r=(1-r)\,m_0+\sqrt{V_r/V_t}\,\big(a-(1-t)\,m_0\big)$, and $u$ is displacement over
# time.
#
# ```python
# def gaussian_u(a, r, t, m0, c):
#     V_r, V_t = ((1 - time) ** 2 * c**2 + time**2 for time in (r, t))
#     end = (1 - r) * m0 + (V_r / V_t).sqrt() * (a - (1 - t) * m0)
#     return (a - end) / (t - r)
# ```
#
# </details>

# %% [markdown]
# ### 2. Find the bug · ●○○ · 5 min
#
# This sampler is modelled on one in published code. With one step it is fine. With two steps the samples are far
# off. Write it correctly.
#
# ```python
# def sampler(u, eps, steps):
#     a, ones = eps, torch.ones_like(eps[..., :1])
#     for i in range(steps, 0, -1):
#         t, r = ones * (i / steps), ones * ((i - 1) / steps)
#         a = a - u(a, r, t)
#     return a
# ```


# %% tags=["exercise", "raises-exception"]
def repaired_sampler(u, eps, steps):
    raise NotImplementedError


exact_end = solve(v64, a, steps=200, step=rk4_step)  # the points a, now taken as noise
for count in (1, 2, 5):
    error = apart(repaired_sampler(true_u, a, count), exact_end)
    check(f"exercise 2: mean error of {count} step(s)", error, below=1e-3)

# %% [markdown]
# <details><summary>Hint</summary>
#
# A velocity is not a displacement. For which interval are the two equal?
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# The factor $t-r$ is missing. It is 1 for the one step from 1 to 0, so a test with one step cannot see it. Test a
# sampler with at least two numbers of steps.
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
# ### 3. Predict, then move the slider · ●○○ · 10 min
#
# Answer before you touch the explorer. Then move the sliders, and then run the cell.
#
# 1. At $r=t$, what is the angle in degrees between the orange and the green arrow at the same point, for a
#    perfect net?
# 2. Which is the first of $n=1,2,4,8,16,32$ Euler steps whose points are off by less than 0.1?
# 3. From $n=16$ to $n=32$, by which factor does the distance to the exact end points fall, roughly?
#
# Return the three numbers.


# %% tags=["exercise", "raises-exception"]
def prediction():
    raise NotImplementedError


angle, first_n, factor = prediction()
explorer_noise = torch.randn(120, 2, generator=torch.Generator().manual_seed(0))
exact_end = solve(velocity, explorer_noise, steps=64, step=rk4_step)
off_by = {
    n: apart(solve(velocity, explorer_noise, steps=n, step=euler_step), exact_end) for n in counts
}
true_n = min(n for n in counts if off_by[n] < 0.1)
check("exercise 3: error of your angle", abs(angle), below=1)
check("exercise 3: error of your n", abs(first_n - true_n), below=0.5)
check("exercise 3: error of your factor", abs(factor - off_by[16] / off_by[32]), below=0.3)

# %% [markdown]
# <details><summary>Hint</summary>
#
# For 1, what does an average over an empty interval mean? For 2 and 3, an Euler step of length $1/n$ errs by
# about $1/n^2$, and there are $n$ of them.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# At $r=t$ the average velocity *is* the velocity, so the angle is zero; for the trained net it is small but
# visible where the arrows are short. Euler's total error is of the order $n\cdot 1/n^2=1/n$: twice the steps,
# half the error. One step is off by 1.7, and in the end 16 steps are needed for 0.1.
#
# ```python
# def prediction():
#     return 0, 16, 2
# ```
#
# </details>

# %% [markdown]
# ### 4. A target without a derivative · ●●○ · 15 min
#
# Displacements add up. For $r\le q\le t$ the way from $t$ to $r$ is the way from $t$ to $q$ and then from $q$ to
# $r$. This is the idea of SplitMeanFlow (2507.16884): a target for $u(a,r,t)$ that is made of two values of $u$
# on shorter intervals, without any JVP. Write it. The check says whether the true $u$ is its fixed point.


# %% tags=["exercise", "raises-exception"]
def split_target(u, a, r, q, t):
    raise NotImplementedError


for part in (0.25, 0.5, 0.75):
    q = r + part * (t - r)
    residual = largest(split_target(true_u, a, r, q, t) - u)
    check(f"exercise 4: residual, split at {part:g}", residual, below=1e-4)

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
# ### 5. Change one constant and explain · ●●○ · 10 min
#
# Train with four octaves in the time embedding instead of one, everything else unchanged, and return what `fit`
# returns. Before you run it: will the miss grow or shrink, given that the net becomes *more* expressive? Look at
# the losses too.


# %% tags=["exercise", "raises-exception"]
def with_four_octaves():
    raise NotImplementedError


_, octave_losses, octave_misses = with_four_octaves()
miss_ratio = octave_misses[-1] / misses[-1]
loss_ratio = np.mean(octave_losses[:100]) / np.mean(losses[:100])
check("exercise 5: miss with four octaves over miss with one", miss_ratio, above=1.3)
check("exercise 5: first losses with four octaves over those with one", loss_ratio, above=2)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `fit` has an argument for it. The fastest feature is now $\sin 4\pi t$. What is its derivative, and where does
# the target use it?
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# The miss grows. The derivative of $\sin4\pi t$ reaches $4\pi\approx12.6$, that of $\sin\frac\pi2t$ only 1.6. The
# target contains $\partial_t u_\theta$, times $t-r$. With four octaves the target of a half-trained network is
# therefore large and wild, and the network chases it. A smoother network makes its own targets better.
#
# ```python
# def with_four_octaves():
#     return fit(octaves=4)
# ```
#
# </details>

# %% [markdown]
# ### 6. Write a JVP yourself · ●●● · 20 min
#
# `torch.func.jvp` carries a value and its rate of change through the network. Do it by hand for our MLP: linear
# layers with SiLU, $\mathrm{silu}(x)=x\,\varsigma(x)$, between them, where $\varsigma(x)=1/(1+e^{-x})$. Given `x`
# and its rate `dx`, return the output and its rate. No call to autograd.


# %% tags=["exercise", "raises-exception"]
def mlp_jvp(mlp, x, dx):
    raise NotImplementedError


g = torch.Generator().manual_seed(4)
x, dx = torch.randn(2, 50, 6, generator=g)  # six inputs: two of the point, four of the times
with torch.no_grad():
    value, rate = mlp_jvp(net.mlp, x, dx)
    value_by_torch, rate_by_torch = torch.func.jvp(net.mlp, (x,), (dx,))
for name, mine, theirs in (("value", value, value_by_torch), ("rate", rate, rate_by_torch)):
    check(f"exercise 6: error of the {name}", largest(mine - theirs) / largest(theirs), below=1e-4)

# %% [markdown]
# <details><summary>Hint</summary>
#
# A linear layer $Wx+b$ maps the rate $\dot x$ to $W\dot x$: no bias. An activation multiplies the rate by its
# derivative, entry by entry.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# The product rule with $\varsigma'=\varsigma(1-\varsigma)$ gives
# $\mathrm{silu}'(x)=\varsigma(x)\,\big(1+x\,(1-\varsigma(x))\big)$.
#
# ```python
# def mlp_jvp(mlp, x, dx):
#     for layer in mlp:
#         if isinstance(layer, nn.Linear):
#             x, dx = layer(x), dx @ layer.weight.T
#         else:
#             s = torch.sigmoid(x)
#             x, dx = x * s, dx * s * (1 + x * (1 - s))
#     return x, dx
# ```
#
# </details>

# %% [markdown]
# ## Summary
#
# * The average velocity $u(a,r,t)$ is displacement over time along a flow line. One step along it is exact:
#   $a_0=\varepsilon-u(\varepsilon,0,1)$.
# * One Euler step of the instantaneous velocity $v$ lands on the mean of the data.
# * Move $t$ along the line: one end of the displacement moves at $v$, the other stays. That is the MeanFlow
#   identity, $u=v-(t-r)\,(v\cdot\partial_a u+\partial_t u)$.
# * The bracket is one JVP along the tangent $(v,0,1)$, for arguments ordered as $u(a,r,t)$. The target carries no
#   gradient. Rows with $r=t$ are plain flow matching; they sharpen $v$.
# * The loss contains the variance of the target. It may rise while the sampler improves, and a wrong target may
#   have a lower loss. Judge samples: against the exact flow where there is one, against the floor of a distance
#   where there is not.
# * Before training, test a target on a known $u$. It must be a fixed point.
# * Few octaves, a decaying learning rate and, with an exact $v$, the plain squared error.

# %% [markdown]
# ## References
#
# * Geng, Deng, Bai, Kolter, He: *Mean Flows for One-step Generative Modeling*,
#   [2505.13447](https://arxiv.org/abs/2505.13447). The identity, the loss and the sampler of this chapter. Read
#   sections 3 and 4.
# * Geng and others: *Improved Mean Flows*, [2512.02012](https://arxiv.org/abs/2512.02012). Why a noisy velocity
#   makes a poor tangent, and a loss whose target does not depend on the network.
# * Guo and others: *SplitMeanFlow*, [2507.16884](https://arxiv.org/abs/2507.16884). The same average velocity
#   without derivatives (exercise 4).
# * Kim and others: *Understanding, Accelerating, and Improving MeanFlow Training*,
#   [2511.19065](https://arxiv.org/abs/2511.19065). In which order the velocities are learnt: first instantaneous,
#   then short intervals, then long ones.
# * Lu, Wang: *On Variance Reduction in Learning Mean Flows*, [2605.09235](https://arxiv.org/abs/2605.09235). The
#   loss that does not fall, explained by the noise of the velocity.
# * Lipman, Chen, Ben-Hamu, Nickel, Le: *Flow Matching for Generative Modeling*,
#   [2210.02747](https://arxiv.org/abs/2210.02747). Where the marginal velocity and its regression come from.
# * Liu, Gong, Liu: *Flow Straight and Fast*, [2209.03003](https://arxiv.org/abs/2209.03003). The linear path, and
#   another road to few steps: straighten the flow lines until Euler is enough.
#
# ---
#
# Previous: [01 · Flow matching on the plane](01_flow_matching.ipynb). Next:
# [03 · Policies as Boltzmann distributions](03_boltzmann_policies.ipynb). So far data told us the velocity. From there on
# a critic has to.
