"""What each agent of the family teaches its network, against closed forms; and that it learns."""

import ast
import copy
import inspect
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from som_lite.flow.densities import GaussianMixture
from som_lite.flow.meanflow import average_velocity
from som_lite.flow.paths import VE, VP, Linear
from som_lite.rl.agents import AGENTS, presets
from som_lite.rl.agents.base import ActorCritic
from som_lite.rl.bandit import FixedQ, actions, learn_from, network_calls
from som_lite.rl.critic import NoisyTwinQ, level_loss
from tests.rl.bandit import EASY
from tests.rl.conftest import maker
from tests.rl.test_agents import make_batch

CENTRE, STD, ALPHA = 0.2, 0.15, 0.3  # exp(Q / ALPHA) is a normal that the box hardly cuts


def normal_q(a):
    return -0.5 * ALPHA * ((a - CENTRE) / STD).square().sum(-1)


BATCH = make_batch(B=64)
NEAR = BATCH._replace(action=CENTRE + 0.4 * BATCH.action)  # where exp(Q / ALPHA) has its mass


class Recorder(nn.Module):
    """An actor that says 0 and remembers where it was asked."""

    def __init__(self):
        super().__init__()
        self.zero = nn.Parameter(torch.zeros(()))

    def forward(self, a, *times_and_obs):
        self.a, self.t = a, times_and_obs[-2]
        return self.zero * a


def taught(monkeypatch, name, function="weighted_error", **settings):
    """The agent of that name on the normal Q, what its loss was called with, and its actor."""
    agent, calls = maker(name)(**settings), []
    agent.critic, agent.actor = FixedQ(normal_q), Recorder()
    module = inspect.getmodule(type(agent).actor_loss)
    if name.startswith("fpmd"):
        module = inspect.getmodule(type(agent))
    real = getattr(module, function)
    monkeypatch.setattr(module, function, lambda *x: calls.append(x) or real(*x))
    agent.actor_loss(NEAR)
    return agent, calls[0]


# -- targets -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "latest", "tolerance"), [("sdac", 1.0, 0.03), ("idem", 0.35, 0.1)]
)
def test_the_noise_to_predict_is_that_of_the_noised_boltzmann_density(
    monkeypatch, name, latest, tolerance
):
    """eps = sigma (a - mu c) / (mu^2 s^2 + sigma^2) for exp(Q / alpha) = N(c, s^2)."""
    settings = {"K": 4096, "alpha": ALPHA, "relative": False, "steps": 10, "actor_batch": 64}
    settings |= {"longest": 1e6}
    agent, (_, target, *_) = taught(monkeypatch, name, **settings)
    a, t = agent.actor.a, agent.actor.t
    mu, sigma = VP().mu(t), VP().sigma(t)
    exact = sigma * (a - mu * CENTRE) / (mu**2 * STD**2 + sigma**2)
    early = (t <= latest).squeeze()
    assert early.sum() > 10
    # The target's slope over the exact one. A proposal that carries weight is off by .15, which is
    # below half of the exact noise for SDAC, and gradients by 1 / .15 for iDEM, times 1 / mu, which
    # is why it is looked at early only; hundreds of the 4096 carry weight. A wrong sign gives -1,
    # a factor K, sigma or mu another slope.
    target, exact = target[early], exact[early]
    assert (target * exact).sum() / exact.square().sum() == pytest.approx(1, abs=tolerance)
    # and nothing is missing that is not along the exact one
    assert (target - exact).square().mean() < 0.3 * exact.square().mean()


def test_idem_cuts_long_scores(monkeypatch):
    settings = {"alpha": ALPHA, "relative": False, "longest": 2.0}
    agent, (_, target, *_) = taught(monkeypatch, "idem", **settings)
    length = (target / VP().sigma(agent.actor.t)).norm(dim=-1)
    assert length.max() <= 2 * (1 + 1e-5) and (length > 1.999).any()


@pytest.mark.parametrize("relative", [False, True])
def test_qsm_teaches_the_gradient_at_the_noisy_action(monkeypatch, relative):
    agent, (_, target, *_) = taught(monkeypatch, "qsm", alpha=ALPHA, relative=relative)
    uphill = -(agent.actor.a - CENTRE) / STD**2  # grad Q / alpha
    if relative:
        uphill = uphill / (ALPHA * (ALPHA * uphill).norm(dim=-1).mean())
        uphill = uphill * ALPHA
    torch.testing.assert_close(target, -VP().sigma(agent.actor.t) * uphill, rtol=1e-4, atol=1e-4)


def uniform_old_policy(monkeypatch, agent_class):
    """Own actions, replaced by uniform ones: the weights then have to do everything."""
    monkeypatch.setattr(
        agent_class, "generate", lambda self, obs, n, averaged=False: self.uniform(len(obs), n, 2)
    )


@pytest.mark.parametrize("name", ["dpmd", "fpmd_r", "fpmd_m"])
def test_the_weights_tilt_the_old_policy(monkeypatch, name):
    uniform_old_policy(monkeypatch, AGENTS[name][1])
    function = "denoising_loss" if name == "dpmd" else "weighted_error"
    settings = {"K": 8192, "alpha": ALPHA, "relative": False, "actor_batch": 4}
    agent, call = taught(monkeypatch, name, function, **settings)
    a0, weight = call[1], call[-1]
    if name != "dpmd":  # the velocity v = eps - a_0 belongs to a_t = a_0 + t v
        a0 = agent.actor.a - agent.actor.t * call[1]
    assert a0.abs().max() <= 1 + 1e-5 and weight.mean().item() == pytest.approx(1, abs=1e-5)
    mean = (weight[:, None] * a0).mean(0)
    spread = (weight[:, None] * (a0 - mean).square()).mean(0).sqrt()
    # four times 8192 uniform points, of which 2 pi s^2 * 2 / 4 = 7 % count: 4 errors of .15 / 40
    torch.testing.assert_close(mean, torch.full((2,), CENTRE), rtol=0, atol=0.015)
    torch.testing.assert_close(spread, torch.full((2,), STD), rtol=0, atol=0.015)


def test_qvpo_keeps_the_best_and_adds_uniform_actions(monkeypatch):
    uniform_old_policy(monkeypatch, AGENTS["qvpo"][1])
    settings = {"K": 16, "uniform": 4, "omega": 0.1, "actor_batch": 64}
    agent, (_, a0, _, _, _, weight) = taught(monkeypatch, "qvpo", "denoising_loss", **settings)
    assert len(a0) == len(weight) == 64 * 5
    best, uniform = a0[:64], a0[64:]
    assert normal_q(best).mean() > normal_q(uniform).mean() + 2 and (weight[:64] > 0).all()
    # together the four weigh a tenth of the best
    torch.testing.assert_close(weight[64:].view(64, 4).sum(1), 0.1 * weight[:64])
    assert uniform.min() < -0.9 and uniform.max() > 0.9  # the whole box, not its positive part
    own = agent.uniform(1, 16, 2)
    monkeypatch.setattr(type(agent), "generate", lambda self, obs, n, averaged=False: own)
    action, advantage = agent.best_own(torch.zeros(1, 3))
    q = normal_q(own[0])
    assert torch.equal(action[0], own[0, q.argmax()])
    torch.testing.assert_close(advantage[0], q.max() - q.mean())


def test_dipo_climbs(monkeypatch):
    eta, climbs = 0.02, 7
    settings = {"eta": eta, "climbs": climbs, "relative": False}
    agent, (_, a0, *_) = taught(monkeypatch, "dipo", "denoising_loss", **settings)
    start = NEAR.action[: len(a0)]
    shrink = (1 - eta * ALPHA / STD**2) ** climbs
    torch.testing.assert_close(a0, CENTRE + shrink * (start - CENTRE))
    alone = agent.climb(torch.zeros(1, 3), start[:1])  # a row's step is its own affair
    torch.testing.assert_close(alone, a0[:1])
    relative = maker("dipo")(eta=0.1, climbs=1)
    relative.critic = FixedQ(normal_q)
    inside = torch.tensor([[0.5, -0.5], [-0.6, 0.1]])
    moved = relative.climb(torch.zeros(2, 3), inside) - inside
    torch.testing.assert_close(moved.norm(dim=-1), torch.full((2,), 0.1))
    assert (moved * (CENTRE - inside)).sum(-1).min() > 0


def test_dacer2_also_teaches_a_direction(monkeypatch):
    agent = maker("dacer2")()
    calls, module = [], inspect.getmodule(type(agent))
    real = module.weighted_error
    monkeypatch.setattr(module, "weighted_error", lambda *x: calls.append(x) or real(*x))
    agent.critic, agent.actor = FixedQ(normal_q), Recorder()
    agent.actor_loss(make_batch())
    towards = CENTRE - agent.actor.a
    unit = towards / towards.norm(dim=-1, keepdim=True)
    length = torch.exp(0.4 * agent.actor.t - 1.8)
    torch.testing.assert_close(calls[0][1], length * unit, rtol=1e-4, atol=1e-5)


def test_dacers_noise_grows_where_entropy_lacks():
    for target, direction in ((-5.0, -1), (0.6, 1)):
        agent = maker("dacer")(target_entropy=target, entropy_every=1)
        agent.updates += 1
        before = agent.kappa.alpha()
        agent.actor_update(make_batch())
        # Adam's first step has the length of its step size: exp(.03) - 1
        ratio = float(agent.kappa.alpha() / before) - 1
        assert ratio == pytest.approx(direction * 0.03, rel=0.05)


@pytest.mark.parametrize("name", ["td3", "dacer"])
def test_the_loss_is_minus_q_through_the_whole_actor(name):
    """-Q at the actor's own action; its gradient against a difference of two losses."""
    agent, batch = maker(name)(actor_batch=32, steps=3) if name == "dacer" else maker(name)(), NEAR
    agent.critic = FixedQ(normal_q)
    agent.actor.double()
    batch = batch._replace(obs=batch.obs.double())
    state = agent.generator.get_state()
    agent.randn = lambda *shape, g=agent.generator: torch.randn(*shape, generator=g).double()

    def loss():
        agent.generator.set_state(state)
        return agent.actor_loss(batch)[0]

    agent.generator.set_state(state)
    if name == "td3":
        a = agent.actor(batch.obs)
    else:
        a = agent.chain(agent.actor, batch.obs[:32], 1)[:, 0]
    torch.testing.assert_close(loss(), -normal_q(a).mean())
    parameters = list(agent.actor.parameters())
    direction = [
        torch.randn(p.shape, generator=torch.Generator().manual_seed(1)).double()
        for p in parameters
    ]
    along = torch.autograd.grad(loss(), parameters)
    slope = sum((g * d).sum() for g, d in zip(along, direction, strict=True))
    ends, step = [], 1e-6
    for sign in (1, -1):
        shifted = copy.deepcopy(agent.actor)
        for p, d in zip(shifted.parameters(), direction, strict=True):
            p.data += sign * step * d
        kept, agent.actor = agent.actor, shifted
        ends.append(loss().detach())
        agent.actor = kept
    # double precision: a difference over 2e-6 keeps nine digits; a step without gradient, or a
    # clip that a point crosses, costs far more than one in ten thousand
    torch.testing.assert_close((ends[0] - ends[1]) / (2 * step), slope.detach(), rtol=1e-4, atol=0)


def test_aca_takes_out_noise_that_points_downhill(monkeypatch):
    """eps = -w s grad Q / |grad Q|, with s^2 = beta (1 - abar_r) / (1 - abar_t) of DDPM."""
    agent, asked = maker("aca")(steps=4, w=3.0), []
    uphill = torch.tensor([0.6, -0.8])
    monkeypatch.setattr(agent.critic, "uphill", lambda obs, a, t: uphill.expand_as(a))
    module = inspect.getmodule(type(agent))
    monkeypatch.setattr(module, "denoise", lambda *x: asked.append(x) or x[1])
    agent.generate(torch.zeros(2, 3), 5)
    mean, eps, _, steps, generator = asked[0]
    assert eps.shape == (2, 5, 2) and steps == 4 and generator is agent.generator
    for t in (0.5, 0.75, 1.0):
        abar, before = (math.exp(-(0.1 * s + 19.9 * s * s / 2)) for s in (t, t - 0.25))
        s = math.sqrt((1 - abar / before) * (1 - before) / (1 - abar))
        noise = -3 * s * uphill
        expected = (eps - math.sqrt(1 - abar) * noise) / math.sqrt(abar)
        found = mean(eps, torch.full((2, 5, 1), t))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_mfpo_mixes_two_estimates_of_the_posterior_mean(monkeypatch):
    """Uniform own actions of known density, and box proposals: both must give the exact mean."""
    agent = maker("mfpo")(alpha=ALPHA, own=4096, K=4096)
    agent.critic = FixedQ(normal_q)
    surprise = torch.full((3, 4096), math.log(4.0))  # -log of the density 1/4
    monkeypatch.setattr(agent, "policy", lambda obs, n: (agent.uniform(len(obs), n, 2), surprise))
    t, a = torch.tensor([[0.1], [0.5], [0.9]]), torch.tensor([[0.3, 0.1]] * 3)
    m, ess = agent.posterior_mean(torch.zeros(3, 3), a, t)
    mu = 1 - t
    exact = CENTRE + mu * STD**2 / (mu**2 * STD**2 + t**2) * (a - mu * CENTRE)
    # four times a spread of at most .15 over the root of at least 100 effective draws
    torch.testing.assert_close(m, exact, rtol=0, atol=0.04)
    assert (ess > 100).all() and (ess < 8192).all()


class ExactFlow(nn.Module):
    """Average velocity and divergence of the flow whose data are N(0, STD^2)."""

    def forward(self, x, r, t, obs):
        std_r, std_t = (((1 - s) ** 2 * STD**2 + s**2).sqrt() for s in (r, t))
        u = x[..., :-1] * (1 - std_r / std_t)
        return torch.cat([u, 2 * (std_t / std_r).log()], -1) / (t - r)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_mfpo_knows_the_density_of_its_actions(steps):
    agent = maker("mfpo")(steps=steps)
    agent.actor = ExactFlow()
    a, surprise = agent.policy(torch.zeros(5, 3), 7)
    normal = torch.distributions.Normal(0.0, STD)
    torch.testing.assert_close(surprise, -normal.log_prob(a).sum(-1), rtol=1e-4, atol=1e-4)


def test_mfpo_teaches_velocity_and_divergence(monkeypatch):
    agent, calls = maker("mfpo")(share_equal=1.0), []
    agent.critic = FixedQ(normal_q)
    agent.actor.u.forward = lambda a, r, t, _: 3 * a
    module = inspect.getmodule(type(agent))
    monkeypatch.setattr(module, "weighted_error", lambda u, target: calls.append(target) or u.sum())
    agent.actor_loss(make_batch())
    # at r = t the targets are the velocity, and the divergence of u(a, t, t) = 3 a by signs
    torch.testing.assert_close(calls[0][:, -1], torch.full((32,), 6.0))


# -- generators ----------------------------------------------------------------------------------


def test_jumps_of_an_exact_average_velocity_agree():
    data = GaussianMixture(torch.full((1, 2), CENTRE), torch.tensor([STD]), torch.ones(1))
    ends = []
    for steps in (1, 2, 4):
        agent = maker("fpmd_m")(steps=steps)
        velocity = lambda a, t: data.velocity(a, t, Linear())  # noqa: E731
        agent.actor.forward = lambda a, r, t, _, v=velocity: average_velocity(v, a, r, t)
        ends.append(agent.generate(torch.zeros(4, 3), 8))
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=1e-3)  # of the solver inside
    torch.testing.assert_close(ends[0], ends[2], rtol=0, atol=1e-3)
    one = maker("fpmd_r")()  # one Euler step of the exact velocity ends in the mean: no spread
    one.actor.forward = lambda a, r, t, _: data.velocity(a, t, Linear())
    assert one.generate(torch.zeros(4, 3), 8).std() < 1e-3


@pytest.mark.parametrize("name", ["dpmd", "fpmd_r", "fpmd_m"])
def test_mirror_descent_begins_with_a_spread(name):
    """What old actions never did, no weight can bring: one Euler step of v_G, to 0, is the end."""
    assert maker(name)().generate(torch.zeros(1, 3), 500).std() > 0.3


def test_td3_adds_noise_then_clips():
    agent, obs = maker("td3")(explore_noise=0.5), torch.zeros(1, 3)
    agent.actor.forward = agent.actor_average.forward = lambda obs: torch.full((len(obs), 2), 0.9)
    a = agent.generate(obs, 4000)
    assert a.max() == 1 and (a == 1).float().mean() == pytest.approx(0.42, abs=0.03)  # P(z > .2)
    smoothed, _ = agent.next_action(obs.expand(4000, -1))
    assert smoothed.max() == 1 and smoothed.min() >= 0.4 - 1e-6  # .9 less the clip of .5
    assert torch.equal(agent.act(obs, explore=False), torch.full((1, 2), 0.9))


def test_dacer_evaluates_without_the_added_noise():
    agent, obs = maker("dacer")(noise=10.0), torch.zeros(64, 3)
    wild, calm = agent.act(obs, explore=True), agent.act(obs, explore=False)
    assert (wild.abs() == 1).float().mean() > 0.8 > (calm.abs() == 1).float().mean() + 0.3


def test_lql_finds_the_normal():
    eta = 0.004
    agent = maker("lql")(1, 1, alpha=ALPHA, relative=False, eta=eta, steps=60)
    agent.critic = FixedQ(normal_q)
    a = agent.generate(torch.zeros(1, 1), 6000)
    # after 60 steps exp(-60 eta / 2 s^2) = .005 of the start is left; the walk's own variance is
    # s^2 / (1 - eta / 4 s^2), see langevin.py. Four standard errors are .008 and .006.
    assert a.mean().item() == pytest.approx(CENTRE, abs=0.01)
    assert a.std().item() == pytest.approx(STD / math.sqrt(1 - eta / (4 * STD**2)), abs=0.01)


def test_nc_lql_walks_down_the_levels(monkeypatch):
    w, eta = 1e5, 1e-10
    agent = maker("nc_lql")(levels=2, steps=3, w=w, eta=eta)
    times = []

    def uphill(obs, a, t):
        times.append(float(t.max()))
        return torch.ones_like(a) / math.sqrt(2)

    monkeypatch.setattr(agent.critic, "uphill", uphill)
    state = agent.generator.get_state()
    a = agent.generate(torch.zeros(1, 3), 500)
    agent.generator.set_state(state)
    start = agent.uniform(1, 500, 2)
    inside = start.abs().amax(-1) < 0.8
    # three steps of eta/2 w with eta (.1 / .001)^2 = 1e-6, three with 1e-10
    shift = 3 * (1e-6 + 1e-10) / 2 * w / math.sqrt(2)
    assert times == [1, 1, 1, 0, 0, 0]
    # the noise of three steps of .001 on 300 points
    moved = (a - start)[inside].mean().item()
    assert moved == pytest.approx(shift, abs=4e-4)


def test_a_noisy_critic_follows_the_clean_one():
    torch.manual_seed(0)
    critic, batch = NoisyTwinQ(3, 2, (16,)), make_batch()
    eps, t = torch.randn(32, 2), torch.rand(32, 1)
    loss = level_loss(critic, batch, eps, t, VE())
    clean = critic(batch.obs, batch.action, torch.zeros(32, 1)).mean(0).detach()
    noisy = critic(batch.obs, batch.action + VE().sigma(t) * eps, t)
    torch.testing.assert_close(loss, ((noisy[0] - clean) ** 2 + (noisy[1] - clean) ** 2).mean())
    torch.testing.assert_close(critic.min(batch.obs, batch.action), critic(*batch[:2]).amin(0))
    # leading dimensions broadcast as those of a plain critic
    many = critic(batch.obs[:, None], torch.zeros(32, 5, 2), t[:, None].expand(-1, 5, -1))
    assert many.shape == (2, 32, 5)
    a = torch.rand(4, 2)
    ahead = critic.uphill(batch.obs[:4], a, t[:4])
    torch.testing.assert_close(ahead.norm(dim=-1), torch.ones(4))
    gain = critic(batch.obs[:4], a + 1e-3 * ahead, t[:4]) - critic(batch.obs[:4], a, t[:4])
    assert gain.sum(0).min() > 0


# -- learning ------------------------------------------------------------------------------------

QUICK = {"hidden": (64, 64), "batch": 64}
ABSOLUTE = {"alpha": 0.2, "relative": False}
MIRROR = ABSOLUTE | {"K": 8, "actor_tau": 0.1}  # the old policy follows in ten updates
# E[Q] of uniform actions is .22, of exp(Q / .2) .71. Per agent: what is asked (and was seen in one
# run of 600 updates, or the number that follows), and its settings.
ASKED = {
    "som": (0.45, {"alpha": 0.2, "relative": False, "K": 8}),  # .609
    "sac": (0.5, {"alpha": 0.2, "alpha_lr": 1e-6}),  # .770
    "td3": (0.9, {"explore_noise": 0.05}),  # .985
    "sdac": (0.6, ABSOLUTE | {"K": 16}),  # .863: five steps lose spread
    "idem": (0.5, {"alpha": 0.05, "relative": False, "steps": 20}),  # .778: sharp: empty faces
    "qsm": (0.35, ABSOLUTE | {"steps": 20}),  # .489
    "dpmd": (0.6, MIRROR),
    "qvpo": (0.6, {"K": 8}),  # .977
    "dipo": (0.6, {}),  # .728
    "fpmd_r": (0.4, MIRROR | {"actor_batch": 32}),  # .548
    "fpmd_m": (0.36, MIRROR | {"actor_batch": 32}),  # .461
    "lql": (0.45, ABSOLUTE | {"steps": 20, "critic": "plain"}, 200),
    "nc_lql": (0.5, {"levels": 8}, 400),  # .867
    "dacer": (0.8, {"noise": 0.05}, 400),  # .977
    "dacer2": (0.8, {"noise": 0.05}, 400),  # .978
    "mfpo": (0.5, {"alpha": 0.2, "alpha_lr": 1e-6}, 400),  # .801
    "aca": (0.4, {"steps": 20, "w": 5.0}, 300),  # .530
}


@pytest.mark.parametrize("name", ASKED)
def test_the_easy_bandit_is_learnt(name):
    asked, settings, *updates = ASKED[name]
    actor = {"actor_lr": 3e-3} if issubclass(AGENTS[name][1], ActorCritic) else {}
    agent = learn_from(maker(name)(1, 2, **QUICK, **actor, **settings), EASY, *(updates or [600]))
    value = EASY(actions(agent, 500)).mean().item()
    assert value > asked


@pytest.mark.parametrize("name", ["sdac", "dacer", "mfpo", "fpmd_m", "lql", "aca"])
def test_an_action_asks_a_network_once_a_step(name):
    """And SOM's, SAC's and TD3's a single time: their actors have no steps."""
    assert network_calls(maker(name)(1, 2, steps=7)) == 7
    assert [network_calls(maker(one)(1, 2)) for one in ("som", "sac", "td3")] == [1, 1, 1]


# -- form ----------------------------------------------------------------------------------------

ORDER = (
    "__init__ build make_actor make_critic policy generate mode act next_action critic_loss "
    "actor_loss actor_update"
).split()


def test_siblings_keep_the_names_and_their_order(name):
    """First what all have, in one order, then what only this paper has."""
    own = [x for x, value in vars(AGENTS[name][1]).items() if inspect.isfunction(value)]
    shared = [x for x in own if x in ORDER]
    alone = [x for x in own if x not in ORDER]
    assert own == sorted(shared, key=ORDER.index) + alone


FILES = sorted({Path(inspect.getfile(agent)) for _, agent in AGENTS.values()})


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_files_are_laid_out_alike_and_short(file):
    """What it says, its settings, the paper's, functions, the agents; 110 lines of code at most."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    about = ast.get_docstring(tree) or ""
    assert re.search(r"\d{4}\.\d{5}", about.splitlines()[0]), "the paper's number in the first line"
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    configs = [x for x in classes if x.endswith("Config")]
    assert configs and classes[: len(configs)] == configs, "settings first"
    code, explained = set(), set()
    for node in ast.walk(tree):
        code |= set(range(getattr(node, "lineno", 1), getattr(node, "end_lineno", 0) + 1))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            explained |= set(range(node.lineno, (node.end_lineno or 0) + 1))
    lines = file.read_text(encoding="utf-8").splitlines()
    kept = [i for i in code - explained if lines[i - 1].strip() and lines[i - 1].strip()[0] != "#"]
    assert len(kept) <= 110


def test_presets_are_settings_of_the_agent(name):
    """`paper` on the class: what the paper or its code uses; none for LQL and the book's SOM."""
    config, agent = AGENTS[name]
    named = presets(name)
    assert ("paper" in named) == (name not in ("som", "lql"))
    assert all(type(settings) is config for settings in named.values())
    if paper := named.get("paper"):
        assert paper.critic == "plain" and paper != named["one_core"]
        small = replace(paper, hidden=(8,))
        assert agent(3, 2, small).generate(torch.zeros(1, 3), 1).shape == (1, 1, 2)
    # one core: two layers of 256 at most, and not more proposals than the others
    assert max(named["one_core"].hidden) <= 256 and len(named["one_core"].hidden) == 2
    assert getattr(named["one_core"], "K", 0) <= 16
