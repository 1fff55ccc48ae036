import hashlib
import json
import shutil

import numpy as np
import pytest
import torch

from som_lite.rl.agents import AGENTS
from som_lite.rl.config import TrainConfig
from som_lite.rl.evaluate import evaluate
from som_lite.rl.files import read_tensors, write_tensors
from som_lite.rl.runs import Run, load_agent
from som_lite.rl.train import train
from tests.rl.toys import SMALL


@pytest.fixture(scope="module", params=list(AGENTS))
def run(request, tmp_path_factory):
    config = TrainConfig(
        env="Glider-v0", agent=request.param, steps=200, start_steps=100, eval_every=50,
        eval_episodes=2, config=SMALL[request.param], progress=False,
        out=str(tmp_path_factory.mktemp("runs") / "run"),
    )  # fmt: skip
    return Run(train(config))


def test_config_tells_how_the_run_was_made(run):
    info = run.info()
    assert info["seed"] == 0 and info["wall_s"] > 0 and "cores" in info["hardware"]
    assert info["packages"]["torch"] == torch.__version__
    for name, digest in info["sha256"].items():
        assert hashlib.sha256((run.folder / name).read_bytes()).hexdigest() == digest
    assert set(info["sha256"]) == {"curve.csv", "policy.safetensors", "policy_best.safetensors"}
    assert str(run.folder.parent) not in json.dumps(info)  # no path of this machine


def test_the_settings_survive_the_file(run):
    config = run.config()
    assert config.config == SMALL[config.agent] and config.steps == 200
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_settings_of_another_version_are_named():
    values = TrainConfig().to_dict()
    with pytest.raises(ValueError, match=r"another version of som_lite: .*'warp'"):
        TrainConfig.from_dict(values | {"warp": 9})
    del values["config"]["actor_tau"]
    with pytest.raises(ValueError, match="another version of som_lite: no actor_tau"):
        TrainConfig.from_dict(values)


def test_the_command_names_what_is_not_a_default():
    assert TrainConfig().command() == (
        "som-lite train --env HalfCheetah-v5 --agent som --steps 1000000 --seed 0"
    )
    command = TrainConfig(agent="sac", config=SMALL["sac"], eval_every=7, progress=False).command()
    assert "--eval-every 7" in command and "--config.hidden 32 32" in command
    assert "--config.gamma" not in command and "progress" not in command


def test_the_curve_has_a_column_for_every_metric(run):
    curve = run.curve()
    assert list(curve)[:4] == ["step", "wall_s", "return_mean", "return_std"]
    assert curve["step"].tolist() == [50, 100, 150, 200]
    # Nothing is updated in the first 100 steps, so there is nothing to log.
    assert np.isnan(curve["critic_loss"]).tolist() == [True, True, False, False]


def test_a_loaded_agent_is_evaluated_alike(run):
    a, b = load_agent(run), load_agent(str(run.folder))
    env = run.config().env
    assert np.array_equal(evaluate(a, env, 3, seed=1), evaluate(b, env, 3, seed=1))


def test_a_published_run_is_small_repeatable_and_close(run, tmp_path):
    published = run.publish(tmp_path)
    config = run.config()
    assert published.folder == tmp_path / config.agent / config.env / "seed0"
    names = {p.name for p in published.folder.iterdir()}
    assert names == {"config.json", "curve.csv", "policy.safetensors"}
    sizes = [(r.folder / "policy.safetensors").stat().st_size for r in (run, published)]
    assert sizes[1] < 0.7 * sizes[0]
    for name, digest in published.info()["sha256"].items():
        assert hashlib.sha256((published.folder / name).read_bytes()).hexdigest() == digest

    returns = [evaluate(published.load_agent(), config.env, 4, seed=1) for _ in range(2)]
    assert np.array_equal(*returns)
    agents = run.load_agent(), published.load_agent()
    for full, half in zip(
        *(getattr(a, "actor", a.critic).parameters() for a in agents), strict=True
    ):
        assert half.dtype == torch.float32
        # float16 rounds to 11 bits; below 6e-5 its numbers are 6e-8 apart.
        torch.testing.assert_close(full, half, rtol=2**-11, atol=3e-8)
    with pytest.raises(FileExistsError):
        run.publish(tmp_path)


def test_a_number_too_large_for_half_precision_survives_publishing(run, tmp_path):
    """A running variance of a large robot's features lies above 65504."""
    shutil.copytree(run.folder, tmp_path / "large")
    policy = tmp_path / "large" / "policy.safetensors"
    state, sizes = read_tensors(policy)
    part, *others = (name for name, x in state.items() if x.is_floating_point())
    write_tensors(policy, state | {part: state[part] + 1e5}, sizes)
    kept, _ = read_tensors(Run(tmp_path / "large").publish(tmp_path).folder / policy.name)
    torch.testing.assert_close(kept[part], state[part] + 1e5, rtol=1e-6, atol=0)
    assert all(kept[name].dtype == torch.float16 for name in others)


def test_what_is_missing_is_named(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="not a run folder"):
        Run(tmp_path)
    (tmp_path / "config.json").write_text((run.folder / "config.json").read_text())
    with pytest.raises(FileNotFoundError, match=r"no policy\.safetensors"):
        load_agent(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no curve\.csv"):
        Run(tmp_path).curve()
    assert Run(tmp_path).checkpoints.steps() == []


def test_a_damaged_policy_is_named(run, tmp_path):
    (tmp_path / "config.json").write_text((run.folder / "config.json").read_text())
    policy = (run.folder / "policy.safetensors").read_bytes()
    (tmp_path / "policy.safetensors").write_bytes(policy[: len(policy) // 2])
    with pytest.raises(ValueError, match=r"policy\.safetensors is damaged"):
        load_agent(tmp_path)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "damaged"),
        ("{}", "holds no settings"),
        ("[1]", "no JSON object"),
        ("[" * 10**5, "damaged"),
    ],
)
def test_a_config_that_no_run_wrote_is_named(tmp_path, text, complaint):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=f"config.json.*{complaint}"):
        Run(tmp_path).config()
