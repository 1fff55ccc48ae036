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
# # 00 · Start here: one call from noise to action
#
# **What you will do.** You check that your set-up works, read the map of the book, and meet its three formulas.
# Then you load a trained policy, hand it a thousand random points, and watch it turn them into actions, all in a
# single call of a network.
#
# **What you will learn.** What the letters of this book mean and which way its time runs. Why a policy that may
# answer in several ways needs noise. Why the average of good answers can be a bad one. That is the reason for
# everything that follows.
#
# **What you need.** Calculus, probability and a little PyTorch. No reinforcement learning and no flows: both are
# explained when they are needed.
#
# **Time and hardware.** ≈ 10 s of computing on one CPU core; allow 45 min for reading and exercises. No GPU.
#
# Next: [01 · Flow matching on the plane](01_flow_matching.ipynb).

# %% [markdown]
# ## What this book is
#
# A robot sees a state and has to choose an action: a few real numbers, one for each motor. Often several quite
# different actions are equally good: to get past a chair, left may be as good as right.
#
# A *policy* is the rule that chooses. This book builds policies that can keep all good answers and still decide
# fast. They start from a random point and move it to an action. Here is the whole idea in one line:
#
# $$\text{action} \;=\; \text{noise} \;-\; u(\text{noise}),\qquad u:\ \text{one network, called once.}$$
#
# The method is called SOM (Kim and others, [2605.23365](https://arxiv.org/abs/2605.23365)). It learns $u$, an
# *average velocity*, from a *critic*, a network that grades actions. It needs no examples of good actions.
#
# **At the end you will be able to** derive each step of that method on paper, write it in a few lines of PyTorch,
# train it on simulated robots, compare it fairly with a standard method, and tell which part to suspect when it
# fails.
#
# Beside the chapters stands a small package, `som_lite`. Its files are short and meant to be read.

# %% [markdown]
# ## How to use it
#
# **Run the cells** from top to bottom with Shift+Enter, or all at once: *Run → Run All Cells*. Change anything.
# `git restore chapters/` brings the original back.
#
# **A check mark ✓ is a claim that was tested.** A line such as `✓ error < 0.01 (here 0.0032)` states a bound and the
# number that your machine found. If the bound does not hold, the cell stops with an error.
#
# **Sliders** belong to pictures called explorers. They work as soon as you have run their cell. Until then
# you see a flip-book of the same picture, or a still.
#
# **Exercises** state their difficulty (●○○ to ●●●) and minutes. Each has a check that fails until you solve it, and a
# hint and a solution that stay folded until you click.
#
# **Recorded runs.** Some trainings take longer than you want to wait. Their results lie in `chapters/recorded/`, each
# with the command, seed, versions and hardware that made it. You can run the same command yourself.
#
# **If a number differs.** The last digits of a computation depend on the machine. That is normal; the bounds allow for
# it. If a check *fails* on unchanged code, look first at the versions of your packages: `constraints.txt` lists the
# tested ones, and `make test` compares every output of the book with the stored one.
#
# The first cell finds out whether the packages are there.

# %%
from importlib.util import find_spec

packages = [
    "torch",
    "numpy",
    "scipy",
    "matplotlib",
    "ipywidgets",
    "gymnasium",
    "mujoco",
    "safetensors",
    "som_lite",
]
missing = [name for name in packages if find_spec(name) is None]
print("all packages found:", not missing)

# %%
import numpy as np
import torch
from matplotlib.patches import Circle

from som_lite.flow.densities import GaussianMixture, two_moons
from som_lite.flow.meanflow import average_velocity, sample
from som_lite.flow.ode import reference_solve, rk4_step, solve
from som_lite.flow.paths import Linear
from som_lite.rl.critic import best_of_n
from som_lite.rl.envs import make_env
from som_lite.rl.multigoal import GOALS, REACH
from som_lite.rl.runs import Run
from som_lite.view import plots
from som_lite.view.explorers import policy_explorer
from som_lite.view.notebook import check, show
from som_lite.view.style import COLOURS, figure, plane

torch.set_num_threads(1)  # small nets: more threads cost more than they bring
check("packages that are missing", len(missing), below=1)

# %% [markdown]
# If you see a ✓ above, you are ready.

# %% [markdown]
# ## The map
#
# The book climbs six steps, from a critic to a policy. Below they are drawn for the smallest case: one state, and an
# action that is a single number $a$. Every curve is computed from formulas; nothing is trained yet. Do not try to
# understand it all now. Come back to this picture when you wonder where you are.

# %%
alpha, path = 0.1, Linear()
two_peaks = GaussianMixture(
    torch.tensor([[-0.8], [0.9]]), torch.tensor([0.22, 0.22]), torch.tensor([0.5, 0.5])
)
line = torch.linspace(-2.2, 2.2, 301)[:, None]


def made_up_critic(a):
    """Q with two peaks, chosen so that exp(Q / alpha) is a density whose flow is known."""
    return alpha * two_peaks.log_prob(a)


def one_number(a, t):
    return two_peaks.velocity(a, t, path)


noise_1d = torch.linspace(-1.9, 1.9, 12)[:, None]
flow_1d = solve(one_number, noise_1d, steps=100, step=rk4_step, trajectory=True)[
    ..., 0
]  # (101, 12)
clock = np.linspace(1, 0, 101)

fig, axes = figure(8.6, 6.0, ncols=3, nrows=2)
titles = {
    "1  critic $Q$": "chapters 03, 09",
    "2  density $e^{Q/\\alpha}$": "chapter 03",
    "3  noise it: score $s$": "chapters 03, 04",
    "4  velocity $v$": "chapters 01, 05",
    "5  average velocity $u$": "chapter 02",
    "6  one-step actor": "chapters 06, 09",
}
for ax, (title, where) in zip(axes.flat, titles.items(), strict=True):
    ax.set_title(f"{title}\n", fontsize=11, weight="bold")
    ax.text(0.5, 1.03, where, transform=ax.transAxes, ha="center", fontsize=9)
    ax.set_yticks([])
critic_ax, density_ax, score_ax, *time_axes = axes.flat

critic_ax.plot(line, made_up_critic(line), color=COLOURS["reference"])
critic_ax.set(ylim=(-1.5, 0.3), xlabel="action $a$")
density_ax.fill_between(
    line[:, 0], two_peaks.log_prob(line).exp(), color=COLOURS["data"], alpha=0.7
)
density_ax.set(ylim=(0, 1.15), xlabel="action $a$")

noised = two_peaks.noised(path, 0.35)
score_ax.fill_between(line[:, 0], noised.log_prob(line).exp(), color=COLOURS["noise"], alpha=0.5)
for x in np.array([-1.7, -1.2, -0.08, 0.08, 1.2, 1.7]):
    push = (
        0.35 * noised.score(torch.tensor([[x]], dtype=torch.float32)).sign().item()
    )  # direction only
    plots.arrow(score_ax, (x, 0.1), (push, 0.0), "score", width=0.014)
score_ax.set(xlim=(-2.2, 2.2), ylim=(0, 0.75), xlabel="noised action $a_t$")

for ax in time_axes:
    ax.set(xlim=(0, 1), ylim=(-2.2, 2.2), xlabel="time $t$")
    ax.set_xticks([0, 1], ["0\ndata", "1\nnoise"])
velocity_ax, average_ax, actor_ax = time_axes
velocity_ax.plot(clock, flow_1d, color=COLOURS["flow"], linewidth=1.2)
bent = flow_1d[:, 8]
average_ax.set_ylim(0.5, 1.05)  # one line, enlarged
average_ax.plot(clock, bent, color=COLOURS["flow"], linewidth=1.5)
for r in (0, 35, 60):  # from t = 1 back to r
    average_ax.plot([1, r / 100], [bent[0], bent[100 - r]], color=COLOURS["average"], linewidth=1.5)
actor_ax.plot([1, 0], flow_1d[[0, -1]], color=COLOURS["one-step"], linewidth=1.2)
show(
    fig,
    "Six small panels. 1: the critic, a curve over the action with two peaks. 2: the density exp(Q/alpha), two blue "
    "humps at the same places. 3: a smoother grey density after adding noise, with purple score arrows that point "
    "uphill. 4: orange curves over time, from noise on the right to the two humps on the left. 5: one of these curves, "
    "enlarged, and three green chords of it. 6: straight green lines from every noise point to its action.",
)

# %% [markdown]
# **What you should see.** Read it like a comic. (1) A *critic* $Q$ grades actions, here with two equally good ones. (2)
# Grades become a density: better actions are more likely, and a *temperature* $\alpha$ says by how much. (3) Noise smooths the density, and its *score* points uphill.
# (4) The score gives a *velocity*, and points that follow it flow from noise to good actions along curved lines. (5) The
# straight line between two points of such a curve, a chord, has the *average velocity* as its slope. (6) A network that
# knows the longest chord needs one call.
#
# The chapters take the steps in another order: 4 and 5 come first, because flows can be learnt without a critic.
#
# | chapter | you leave able to | |
# |---|---|---|
# | 00 Start here | find the way; read the notation; see a one-step policy run | you are here |
# | 01 [Flow matching on the plane](01_flow_matching.ipynb) | derive and train a velocity field; say why one Euler step fails | **ready** |
# | 02 [MeanFlow](02_meanflow.ipynb) | derive the identity behind $u$, write it in code, sample in one step | **ready** |
# | 03 [Policies as Boltzmann distributions](03_boltzmann_policies.ipynb) | go from $Q$ to density to score | **ready** |
# | 04 [A score without samples](04_score_without_samples.ipynb) | estimate the score of the noised density from $Q$ alone | **ready** |
# | 05 [The probability-flow ODE](05_probability_flow_ode.ipynb) | turn a score into a velocity for any path | **ready** |
# | 06 [MeanFlow from a Q-function](06_meanflow_from_q.ipynb) | train a one-step sampler of $\exp(Q/\alpha)$ with no sample of it | **ready** |
# | 07 The critic | learn $Q$ from experience | planned |
# | 08 SOM, complete | read the algorithm line by line in code; train it live | planned |
# | 09 [SOM on MuJoCo](09_som_on_mujoco.ipynb) | train, evaluate and compare on simulated robots; know the cost | **ready** |
# | 10 Neighbours | see each rival as a change of a few lines | planned |
# | 11 Spending compute well | make it faster | planned |
# | 12 Offline, and what is open | carry the idea to recorded data; start a project | planned |

# %% [markdown]
# ## The idea in one picture
#
# Take a density on the plane, shaped like two moons. We want random points of it. We know how to draw points from
# something simple, the standard normal density: that is *noise*. So we look for a rule that moves each noise point to
# a place in a moon.
#
# A *flow* is such a rule. Each point follows a velocity, step by step. For this density the velocity is known in closed
# form, so the picture shows the exact flow.

# %%
target = two_moons()


def velocity(a, t):
    return target.velocity(a, t, path)


noise = torch.randn(30, 2, generator=torch.Generator().manual_seed(5))
flow_lines = solve(velocity, noise, steps=60, step=rk4_step, trajectory=True)  # (61, 30, 2)

fig, (left, right) = figure(8.4, 4.7, ncols=2)
for ax, lines, kind in ((left, flow_lines, "flow"), (right, flow_lines[[0, -1]], "one-step")):
    plane(ax)
    plots.backdrop(ax, target.log_prob)
    plots.trajectories(ax, lines, kind, linewidth=1.2, alpha=0.8)
    plots.particles(ax, noise, "noise", size=5, alpha=1.0)
    plots.particles(ax, flow_lines[-1], "data", size=5, alpha=1.0)
left.set_title("many-step sampling: 60 steps along the flow")
right.set_title("one-step sampling: one jump $-u$")
for ax in (left, right):
    plots.key(ax, {"noise": ("noise", "points"), "data": ("data", "points")})
show(
    fig,
    "Two panels over a pale density of two interleaved moons. Left: thirty grey noise points reach the moons along curved "
    "orange flow lines. Right: the same thirty points reach the same places along straight green lines.",
)

# %% [markdown]
# **What you should see.** The same start points and the same end points, twice. On the left they travel along curved lines. On
# the right each one jumps. The jumps were cheated here: we took the ends from the left panel. The book teaches how a
# network can *learn* them.
#
# Why care? A robot must decide many times a second, and training calls the policy millions of times. Sixty calls against
# one is a large difference.

# %% [markdown]
# ## Derivation
#
# Three formulas carry the book. Here they are in plain words, each with a check. Later chapters derive them with care.
#
# ### Formula 1: a path between data and noise
#
# Take a data point $a_0$ and a noise point $\varepsilon$. Join them by a straight line and walk along it with a
# parameter $t$:
#
# $$a_t = (1-t)\,a_0 + t\,\varepsilon .$$
#
# In words: at time $t$ the point is made of $1-t$ parts data and $t$ parts noise.
#
# **Time runs from data to noise: $t=0$ is data, $t=1$ is noise.** Remember this one sentence. A sampler starts with noise,
# so it walks *backwards* in time, from 1 to 0. Other books let time run the other way. When a sign looks wrong, ask which
# end is noise.

# %%
generator = torch.Generator().manual_seed(0)
a0, eps = target.sample(5, generator), torch.randn(5, 2, generator=generator)
h = 0.01
speed = (path.noise(a0, eps, 0.5 + h) - path.noise(a0, eps, 0.5)) / h

check("distance from the data at t = 0", (path.noise(a0, eps, 0.0) - a0).abs().max(), below=1e-6)
check("distance from the noise at t = 1", (path.noise(a0, eps, 1.0) - eps).abs().max(), below=1e-6)
check("speed of a pair against eps - a0", (speed - (eps - a0)).abs().max(), below=1e-3)

# %% [markdown]
# ### Formula 2: an average velocity, and the one-step map
#
# Drive 100 km in two hours. Your speed changed all the time, and still your *average* velocity was 50 km/h. Average
# velocity times time is displacement. So along one flow line
#
# $$u \;=\; \frac{\text{displacement}}{\text{time}} \;=\; \frac{1}{t-r}\int_r^t v(a_\tau,\tau)\,d\tau
#  \qquad\Longrightarrow\qquad a_r = a_t-(t-r)\,u .$$
#
# Take the longest interval, from noise at $t=1$ to data at $r=0$. The factor $t-r$ is one, and a single subtraction is left:
#
# $$a_0 = \varepsilon - u .$$
#
# Why minus? $u$ points the way time runs, towards the noise. We walk back.
#
# The check computes the average of $v$ over the 60 steps drawn above, subtracts it from the noise, and compares with the end
# of the line as an adaptive solver of another library finds it.

# %%
times = torch.linspace(1, 0, 61)[:, None, None].expand(61, 30, 1)
along = velocity(flow_lines, times)  # (61, 30, 2): v at every point of every flow line
u_by_average = (along[1:] + along[:-1]).mean(0) / 2  # trapezoid rule over [0, 1]
exact_end = reference_solve(velocity, noise)

off = (noise - u_by_average - exact_end).norm(dim=-1)
check("noise minus average velocity against the end of the flow line", off.max(), below=0.01)

zeros, ones = torch.zeros(30, 1), torch.ones(30, 1)
u_of_package = average_velocity(velocity, noise, zeros, ones)
check(
    "the package's u against the average",
    (u_of_package - u_by_average).norm(dim=-1).max(),
    below=0.01,
)

# %% [markdown]
# ### Formula 3: from grades to probabilities
#
# A critic $Q(s,a)$ grades the action $a$ in the state $s$: it is the sum of rewards to expect
# from this action on. How likely
# should each action be? Boltzmann's answer:
#
# $$\pi(a\mid s) \;=\; \frac{\exp\big(Q(s,a)/\alpha\big)}{\text{the same, summed over all actions}} .$$
#
# (Where actions fill a continuum, the sum is an integral.) In words: only *differences* of grades count, equal grades get equal probability, and the temperature $\alpha$ says how
# strict we are. A gap of $\alpha$ between two grades makes one action $e\approx2.7$ times as likely as the other.

# %%
grades = torch.tensor([1.0, 1.0, 0.9, 0.5])  # of four actions
for temperature in (1.0, 0.1, 0.02):
    probabilities = torch.softmax(grades / temperature, dim=0)
    print(f"alpha = {temperature:4.2f}:", " ".join(f"{p:8.5f}" for p in probabilities))

p = torch.softmax(grades / 0.1, dim=0)
check("ratio of equally good actions", p[0] / p[1], above=0.999, below=1.001)
check("a gap of alpha makes a factor e, error", (p[0] / p[2] - np.e).abs(), below=1e-4)
check(
    "adding 7 to all grades changes",
    (torch.softmax((grades + 7) / 0.1, dim=0) - p).abs().max(),
    below=1e-5,
)

# %% [markdown]
# **What you should see.** Hot ($\alpha=1$): nearly even odds. Cold ($\alpha=0.02$): the two best actions share almost
# everything, *half each*. A rule that always takes the best action would keep only one of them. That is the difference this
# book is about.
#
# ### The notation
#
# The same letters are used in prose, code and figures, in all chapters.
#
# | symbol | code | meaning |
# |---|---|---|
# | $t\in[0,1]$ | `t` | path time: **$t=0$ is data (the action), $t=1$ is noise** |
# | $r\le t$ | `r` | start of the interval that an average velocity covers |
# | $a_0,\ \varepsilon,\ a_t$ | `a0`, `eps`, `a_t` | clean sample, standard normal noise, point on the path |
# | $\mu_t,\ \sigma_t$ | `mu`, `sigma` | path coefficients, $a_t=\mu_t a_0+\sigma_t\varepsilon$; here $1-t$ and $t$ |
# | $p_t(a)$ | | density of $a_t$: $p_0$ is that of the data, $p_1$ that of the noise |
# | $v(a,t)$ | `v` | velocity of the flow at one moment |
# | $u(a,r,t)$ | `u` | average velocity over $[r,t]$ |
# | $s(a,t)$ | `score` | score: slope of the log-density, $\nabla_a\log p_t(a)$ |
# | $m(a,t)$ | `m` | posterior mean: the average of all $a_0$ that may hide behind a noised point $a$ |
# | $Q(s,a),\ \alpha$ | `q`, `alpha` | critic, temperature: the target density is $\propto\exp(Q/\alpha)$ |
# | $K,\ N,\ B$ | `K`, `N`, `B` | Monte-Carlo proposals, candidate actions, batch size |
#
# The letter $s$ has two jobs, as in the research papers: $s(a,t)$ is a score, and the $s$ in $Q(s,a)$ is a state. The
# arguments tell them apart.

# %% [markdown]
# ## Code
#
# Time to see a policy run. The task is as small as a task can be. A point starts in the middle of the plane. Four goals wait at
# $(\pm1,\pm1)$, all worth the same. An action is a step: two numbers between $-1$ and $1$. The step is a quarter of that
# vector, and a vector longer than one counts as one. Each step costs a tenth of the distance to the nearest goal, reaching
# a goal pays 1 and ends the episode, and after 40 steps it is over anyway. The sum of all rewards of an episode is its *return*.
#
# A policy for this task was trained by SOM and recorded. Here is the command that made it, and after it the five
# lines that matter.

# %%
recorded = Run("recorded/som/MultiGoal-v0/seed0")
print(recorded.info()["command"])

# %%
agent = recorded.load_agent()
observation = torch.tensor([[0.0, 0.0]])  # B = 1 state: the point is in the middle
noise = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
u = agent.actor(noise, torch.zeros(1000, 1), torch.ones(1000, 1), observation.expand(1000, -1))
actions = (noise - u).clamp(-1, 1).detach()

for name, value in {"observation": observation, "noise": noise, "u": u, "actions": actions}.items():
    print(f"{name:<12} {tuple(value.shape)}")

# %% [markdown]
# That is formula 2, with a network in place of the integral: $a_0=\varepsilon-u(\varepsilon,0,1)$, given the state. The last
# step cuts off what sticks out of the box of allowed actions. One call of the network served all 1000 noise points.
#
# The package wraps these lines. `sample` is the one-step map, `agent.generate` draws the noise itself, and `agent.act`
# returns one action for each state.


# %%
@torch.no_grad()
def generate(noise, observations):
    """Noise (n, 2) and what the policy sees (n, 2) -> actions (n, 2), in one call."""
    return sample(lambda a, r, t: agent.actor(a, r, t, observations), noise).clamp(-1, 1)


candidates = agent.generate(observation, 5)
print("generate:", tuple(candidates.shape), "= (states B, candidates N, action components)")
print("act:     ", tuple(agent.act(observation, explore=False).shape))
check(
    "five lines against the package",
    (generate(noise, observation.expand(1000, -1)) - actions).abs().max(),
    below=1e-5,
)

# %% [markdown]
# Now let it play. `play` runs many episodes side by side and keeps the positions, the returns, and which goal was reached.


# %%
def play(policy, episodes=200):
    """positions (steps + 1, episodes, 2), returns (episodes,), goal reached (episodes,), -1 for none."""
    envs = [make_env("MultiGoal-v0") for _ in range(episodes)]
    position = np.stack([env.reset(seed=i)[0] for i, env in enumerate(envs)])
    positions, returns = [position.copy()], np.zeros(episodes)
    goals, running = np.full(episodes, -1), np.ones(episodes, dtype=bool)
    while running.any():
        actions = policy(torch.as_tensor(position)).numpy()
        for i in np.flatnonzero(running):
            position[i], reward, terminated, truncated, info = envs[i].step(actions[i])
            returns[i] += reward
            goals[i] = info.get("goal", -1)
            running[i] = not (terminated or truncated)
        positions.append(position.copy())
    return np.stack(positions), returns, goals


def counts(goals):
    """How many episodes ended at each of the four goals."""
    return np.bincount(goals[goals >= 0], minlength=4)


def with_noise(draw, seed=0):
    """A policy that draws one action per state, from a noise stream of its own."""
    generator = torch.Generator().manual_seed(seed)
    return lambda observations: draw(observations, generator)


som = with_noise(lambda s, g: generate(torch.randn(len(s), 2, generator=g), s))
random = with_noise(lambda s, g: 2 * torch.rand(len(s), 2, generator=g) - 1)
som_paths, som_returns, som_goals = play(som)
_, random_returns, random_goals = play(random)

# %% [markdown]
# The policy takes *one* candidate action per state, $N=1$. Later chapters draw several candidates and let the critic pick
# the best. With many candidates that breaks the tie: the four goals are equally good, but a learnt critic grades one of them
# a hair better and would pick it every time. (We try it below.)
#
# For contrast we load a second recorded policy. It was trained on the same task for the same number of steps with networks
# of the same size, by *soft actor-critic* (SAC), a widely used method. Its policy is a single Gaussian, squashed into the
# box.

# %%
sac_run = Run("recorded/sac/MultiGoal-v0/seed0")
print(sac_run.info()["command"])
sac = sac_run.load_agent()
sac.generator.manual_seed(0)
sac_paths, sac_returns, sac_goals = play(lambda s: sac.generate(s, 1)[:, 0])


# %%
def draw_task(ax, paths, goals, kind):
    plane(ax, 1.6)
    plots.trajectories(ax, paths, kind, linewidth=0.8, alpha=0.35)
    for goal, count in zip(GOALS, counts(goals), strict=True):
        ax.add_patch(Circle(goal, REACH, fill=False, color=COLOURS["target"], linewidth=1.8))
        ax.annotate(
            f"{count}", goal, ha="center", va="center", fontsize=11, weight="bold", zorder=5
        )
    plots.particles(ax, np.zeros((1, 2)), "reference", size=8, alpha=1.0)
    ax.set_xticks([-1, 0, 1])
    ax.set_yticks([-1, 0, 1])


fig, (left, right) = figure(8.4, 4.5, ncols=2)
draw_task(left, som_paths, som_goals, "som")
draw_task(right, sac_paths, sac_goals, "sac")
left.set_title("SOM: 200 episodes")
right.set_title("SAC: 200 episodes")
show(
    fig,
    "Two panels with four goals drawn as circles and the start as a cross in the middle. Left: the green paths of SOM "
    "fan out to all four goals. Right: the light blue paths of SAC all lead to one goal.",
)

# %% [markdown]
# **What you should see.** The number in a circle counts the episodes that ended there. SOM's paths reach all four goals, each in
# about a quarter of the episodes. SAC's paths go to one goal. A single Gaussian has one hump, and it has settled on one answer.
#
# Do not read this as a ranking. SAC walks straight and has the higher return; the reward of this task never asks for
# variety. This is one run of each. SOM's settings were picked out of five that were tried, and one of the five ended at a
# single goal as well; SAC was run once. What you see is a difference in *kind*: noise that a network bends can form
# four humps, a single Gaussian cannot. Chapter 09 is the place where returns are compared.

# %% [markdown]
# ## Checks
#
# What did we claim? That the policy acts, that it acts repeatably, that it knows its job, and that it keeps four answers. Each
# claim gets a bound. Counts fluctuate: if a goal has a true share of 25 %, then its share in 200 episodes is uncertain by
# $\sqrt{0.25\cdot0.75/200}\approx3\,\%$. The bound on the rarest goal leaves room for that.

# %%
again = generate(noise, observation.expand(1000, -1))
check("same noise, same actions: largest difference", (again - actions).abs().max(), below=1e-6)
check("largest component of any action", actions.abs().max(), below=1.0001)
check("mean return of uniformly random actions", random_returns.mean(), below=-2)
check("mean return of SOM, N = 1", som_returns.mean(), above=0.4)
check("mean return of SAC", sac_returns.mean(), above=0.4)
check("share of SOM's episodes that reach a goal", (som_goals >= 0).mean(), above=0.95)
check("share of SOM's rarest goal", counts(som_goals).min() / 200, above=0.15)
check("share of SAC's most frequent goal", counts(sac_goals).max() / 200, above=0.95)

# %% [markdown]
# A recorded run must also be what it says it is. Its `config.json` holds a fingerprint of the policy file. We recompute it.

# %%
import hashlib

for run in (recorded, sac_run):
    fingerprint = hashlib.sha256((run.folder / "policy.safetensors").read_bytes()).hexdigest()
    print(
        run.config().agent,
        "policy file is the recorded one:",
        fingerprint == run.info()["sha256"]["policy.safetensors"],
    )

# %% [markdown]
# ## Explorer
#
# Now look inside a single decision. On the left there are 300 noise points. On the right the same points are on their way to becoming
# actions. The slider `progress` slides them along the straight jump, from noise (0) to action (1). The policy itself makes the jump in
# one call; the way is drawn for your eyes.
#
# The sliders `x` and `y` move the point on the plane, so they change the state that the policy sees. The dashed square holds the
# allowed actions. A black cross marks a full step towards the *nearest* goal: four crosses in the middle, two on an axis,
# one elsewhere.


# %%
def best_steps(position):
    """A full step towards each goal that is nearest, (m, 2)."""
    to_goals = torch.from_numpy(GOALS) - position
    distances = to_goals.norm(dim=-1)
    nearest = distances < distances.min() + 1e-3
    return (to_goals / distances.clamp(min=1e-6)[:, None])[nearest]


policy_explorer(
    generate,
    noise[:300],
    observation[0],
    limit=2.0,
    coordinate=(0, 1),
    label=("x", "y"),
    span=(-1.0, 1.0),
    marks=best_steps,
)

# %% [markdown]
# **What you should see.** In the middle the actions keep away from the centre and crowd around the four crosses: four dense
# patches, or *lobes*, joined by thinner bands. Follow the numbers. A noise point joins the lobe on its own side, and a point near a border, such as 5,
# may end up between lobes: a smooth network cannot tear the plane, it can only stretch it thin. Now move the point. On
# an axis, at $(-0.5, 0)$ say, two of the four lobes remain, and near a goal, at $(0.5, 0.5)$, only one: noise that used to go
# elsewhere is sent to the nearest goal.
#
# The actions fill the corners beyond the crosses. A vector longer than one counts as one, so it makes the same step.

# %% [markdown]
# ## What can go wrong
#
# ### The mean of good actions
#
# Why all this noise? Why not train a network to output *the* best action? Because of what happens when there are several.
#
# Suppose we have seen good decisions at the middle of the plane: a quarter of them towards each goal. We train a network on
# them by least squares, the way one fits a curve. Least squares finds the mean. Let us see how good the mean is.

# %%
good = torch.from_numpy(GOALS / np.linalg.norm(GOALS, axis=1, keepdims=True))  # (4, 2)
mean_action = good.mean(0)


def walk(action):
    """The return of taking the same action in every step."""
    _, returns, _ = play(lambda observations: action.expand(len(observations), -1), episodes=1)
    return returns[0]


for action in good:
    print(f"action ({action[0]:8.5f}, {action[1]:8.5f})   return {walk(action):8.5f}")
print(f"their mean ({mean_action[0]:.5f}, {mean_action[1]:.5f})   return {walk(mean_action):8.5f}")

grid = torch.cartesian_prod(
    torch.linspace(-1, 1, 41), torch.linspace(-1, 1, 41)
)  # all candidate answers
squared_error = (grid[:, None] - good).square().sum(-1).mean(-1)
check(
    "least-squares answer, distance from the mean",
    (grid[squared_error.argmin()] - mean_action).norm(),
    below=1e-6,
)

# %% [markdown]
# Each of the four actions walks straight to a goal. Their mean stands still for 40 steps, and pays for the distance in each of
# them. It is worse than acting at random.
#
# The next figure asks for every direction: what is the return of walking that way, always?

# %%
angles = torch.linspace(0, 2 * np.pi, 181)
directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
_, returns, _ = play(lambda observations: directions, episodes=len(directions))
degrees = np.degrees(angles.numpy())

fig, ax = figure(7.2, 3.4)
ax.plot(degrees, returns, color=COLOURS["data"])
ax.axhline(walk(mean_action), color=COLOURS["error"], linestyle=":")
ax.plot(
    [45, 135, 225, 315],
    [walk(a) for a in good],
    color=COLOURS["one-step"],
    marker="D",
    linestyle="none",
)
ax.text(
    90,
    walk(mean_action) - 0.9,
    "the mean action: stand still",
    color=COLOURS["error"],
    ha="center",
)
ax.text(45, 1.15, "towards a goal", color="#00785a", ha="center")
ax.set(xlim=(0, 360), ylim=(-8, 2), xlabel="direction of every step (degrees)", ylabel="return")
ax.set_xticks([0, 45, 90, 135, 180, 225, 270, 315, 360])
show(
    fig,
    "The return of walking in one direction, over the direction from 0 to 360 degrees: four equal plateaus just below "
    "1 around 45, 135, 225 and 315 degrees, and deep valleys between them. A dotted red line shows the mean action at "
    "about -5.7.",
)

# %% [markdown]
# **What you should see.** Four equal plateaus, one for each goal, with valleys between them. Anyone who has to name a *single* answer and
# hedges between the plateaus lands in a valley, or stands still. A policy must be able to say "this *or* that". A density can
# say it, and a sampler of that density can act on it. This is the reason for the book.
#
# ### The tie that breaks
#
# We took one candidate per state. What if the policy makes $N$ candidates and the critic picks the best?


# %%
def best_of(n):
    """The policy that draws n actions per state and takes the one with the highest grade."""

    @torch.no_grad()
    def draw(observations, generator):
        eps = torch.randn(len(observations) * n, 2, generator=generator)
        candidates = generate(eps, observations.repeat_interleave(n, dim=0)).view(-1, n, 2)
        return best_of_n(agent.critic, observations, candidates)

    return with_noise(draw)


_, few_returns, few_goals = play(best_of(2))
_, many_returns, many_goals = play(best_of(32))
check("N = 2: mean return", few_returns.mean(), above=0.58)
check("N = 2: share of the rarest goal", counts(few_goals).min() / 200, above=0.08)
check("N = 32: mean return", many_returns.mean(), above=0.64)
check("N = 32: share of the rarest goal", counts(many_goals).min() / 200, below=0.06)

# %% [markdown]
# Two candidates already help: the critic throws away steps that are short or crooked, and all four goals stay. With 32
# the return is nearly that of a straight walk, but one of the four goals is now hardly ever reached. The critic is a
# network. It grades the four equal goals *almost* equally, and a strict choice magnifies the rest. The number $N$ is one
# more thermometer: the larger, the colder.

# %% [markdown]
# ## Exercises
#
# Each stub raises `NotImplementedError`. Replace its body and run the cell: a ✓ line says that you are done.

# %% [markdown]
# ### 1. Back to the data · ●○○ · 5 min
#
# You are given a point $a_t$ of the path, its noise $\varepsilon$ and the time $t<1$. Find the data point $a_0$. The check
# knows the answer.


# %% tags=["exercise", "raises-exception"]
def clean_sample(a_t, eps, t):
    raise NotImplementedError


found = clean_sample(path.noise(a0, eps, 0.8), eps, 0.8)
check("exercise 1: distance from the data", (found - a0).abs().max(), below=1e-4)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Solve formula 1 for $a_0$.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# $a_0=(a_t-t\,\varepsilon)/(1-t)$. Near $t=1$ this divides by almost nothing: a point that is nearly pure noise tells little
# about its data.
#
# ```python
# def clean_sample(a_t, eps, t):
#     return (a_t - t * eps) / (1 - t)
# ```
#
# </details>

# %% [markdown]
# ### 2. Choose a temperature · ●○○ · 5 min
#
# Two actions differ in their grade by `gap`. The better one should be taken with probability `share`, between one half and
# one. Which temperature $\alpha$ does that? The check puts your answer into formula 3.


# %% tags=["exercise", "raises-exception"]
def temperature_for(gap, share):
    raise NotImplementedError


for gap, share in ((0.2, 0.9), (1.0, 0.6), (0.05, 0.99)):
    odds = torch.softmax(torch.tensor([gap, 0.0]) / temperature_for(gap, share), dim=0)
    check(f"exercise 2: error for gap {gap} and share {share}", (odds[0] - share).abs(), below=1e-4)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Write down the ratio of the two probabilities twice: by formula 3, and as `share / (1 - share)`.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# $e^{\text{gap}/\alpha}=\text{share}/(1-\text{share})$, so $\alpha$ is the gap divided by the logarithm of the odds.
#
# ```python
# def temperature_for(gap, share):
#     return gap / np.log(share / (1 - share))
# ```
#
# </details>

# %% [markdown]
# ### 3. Find the bugs · ●●○ · 10 min
#
# This one-step policy runs without an error and sends half of its actions to the wall of the box. It holds two bugs, both of
# them about time. Write it correctly.
#
# ```python
# def one_call(noise, observations):
#     zeros, ones = torch.zeros(len(noise), 1), torch.ones(len(noise), 1)
#     u = agent.actor(noise, ones, zeros, observations)
#     return (noise + u).clamp(-1, 1)
# ```


# %% tags=["exercise", "raises-exception"]
def one_call(noise, observations):
    raise NotImplementedError


elsewhere = torch.tensor([[-0.4, 0.2]]).expand(1000, -1)
wrong = (one_call(noise, elsewhere) - generate(noise, elsewhere)).abs().max()
check("exercise 3: largest error of an action", wrong, below=1e-5)

# %% [markdown]
# <details><summary>Hint</summary>
#
# The network is called as $u(a,r,t)$. Which of $r$ and $t$ is larger? And which way does $u$ point?
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# The interval starts at $r=0$ and ends at $t=1$, so zeros come first. And $u$ points towards the noise, so we subtract it.
# Nothing but a comparison with the right answer could find this: shapes and types are fine.
#
# ```python
# def one_call(noise, observations):
#     zeros, ones = torch.zeros(len(noise), 1), torch.ones(len(noise), 1)
#     u = agent.actor(noise, zeros, ones, observations)
#     return (noise - u).clamp(-1, 1)
# ```
#
# </details>

# %% [markdown]
# ### 4. Predict, then move the sliders · ●○○ · 5 min
#
# A lobe belongs to each goal. Call it *alive* if more than 15 % of the actions point nearest to its goal. How many lobes are alive when the point is at
# $(0,0)$, at $(-0.5,0)$ and at $(-0.5,0.5)$? Answer first. Then look with the explorer, and run the cell.


# %% tags=["exercise", "raises-exception"]
def alive():
    raise NotImplementedError


for place, answer in zip([(0.0, 0.0), (-0.5, 0.0), (-0.5, 0.5)], alive(), strict=True):
    made = generate(noise, torch.tensor([place]).expand(1000, -1))
    lobes = torch.bincount((made @ good.T).argmax(-1), minlength=4)
    check(
        f"exercise 4: error of your answer at {place}", abs((lobes > 150).sum() - answer), below=0.5
    )

# %% [markdown]
# <details><summary>Hint</summary>
#
# How many goals are nearest, from each of the three places?
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# Four from the middle; two from the axis, halfway to the left; one from halfway to the upper left goal. The policy follows the crosses
# of the explorer.
#
# ```python
# def alive():
#     return 4, 2, 1
# ```
#
# </details>

# %% [markdown]
# ### 5. The critic's favourite · ●●○ · 10 min
#
# Write the choice of the best candidate yourself. `agent.critic.min(observations, actions)` grades actions; it takes observations
# $(n,2)$ and actions $(n,2)$ and returns grades $(n)$. Given *one* observation of shape $(2)$ and candidates of shape $(n,2)$,
# return the best candidate, of shape $(2)$. The check compares with the package.


# %% tags=["exercise", "raises-exception"]
def favourite(observation, candidates):
    raise NotImplementedError


for seed in range(3):
    drawn = generate(
        torch.randn(32, 2, generator=torch.Generator().manual_seed(seed)), torch.zeros(32, 2)
    )
    expected = best_of_n(agent.critic, torch.zeros(1, 2), drawn[None])[0]
    check(
        f"exercise 5: error, draw {seed}",
        (favourite(torch.zeros(2), drawn) - expected).abs().max(),
        below=1e-6,
    )

# %% [markdown]
# <details><summary>Hint</summary>
#
# `observation.expand(n, -1)` repeats one row, and `argmax` gives the index of the largest grade.
#
# </details>

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def favourite(observation, candidates):
#     grades = agent.critic.min(observation.expand(len(candidates), -1), candidates)
#     return candidates[grades.argmax()]
# ```
#
# </details>

# %% [markdown]
# ## Summary
#
# * A policy can be a sampler: noise goes in, an action comes out. Different noise may give different good actions.
# * Time runs from data ($t=0$) to noise ($t=1$). The path is $a_t=(1-t)\,a_0+t\,\varepsilon$.
# * An average velocity is displacement over time, so one subtraction goes all the way: $a_0=\varepsilon-u(\varepsilon,0,1)$.
# * Grades become probabilities by $\exp(Q/\alpha)$. Equal grades stay equal, and $\alpha$ sets how strict the choice is.
# * The mean of good actions can be the worst action of all. Hence densities and not single answers.
# * With one candidate per state the recorded SOM policy reached four goals. SAC's single Gaussian earned more and reached one.
# * Letting the critic choose among $N$ candidates raises the return. With very many candidates it also breaks ties.

# %% [markdown]
# ## References
#
# * Kim and others: *Score-Based One-step MeanFlow Policy Optimization*, [2605.23365](https://arxiv.org/abs/2605.23365).
#   The method at the end of this book. Come back to it after chapter 02.
# * Geng, Deng, Bai, Kolter, He: *Mean Flows for One-step Generative Modeling*,
#   [2505.13447](https://arxiv.org/abs/2505.13447). Where the average velocity as a thing to learn comes from.
# * Haarnoja, Tang, Abbeel, Levine: *Reinforcement Learning with Deep Energy-Based Policies*,
#   [1702.08165](https://arxiv.org/abs/1702.08165). Policies of the form $\exp(Q/\alpha)$, and a task with several goals
#   like ours.
# * Haarnoja and others: *Soft Actor-Critic Algorithms and Applications*,
#   [1812.05905](https://arxiv.org/abs/1812.05905). The method behind the second policy.
#
# ---
#
# Next: [01 · Flow matching on the plane](01_flow_matching.ipynb), where you learn to train $v$.
