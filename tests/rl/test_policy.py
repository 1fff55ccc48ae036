"""Policies and curves by one call, and what a stranger's folder may not do."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from som_lite.rl import load_policy, read_curve
from som_lite.rl.config import TrainConfig
from som_lite.rl.evaluate import act, own_noise
from som_lite.rl.files import write_tensors
from som_lite.rl.runs import Run, describe
from tests.rl.toys import SMALL


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A run folder as `train` leaves it, without the training."""
    from som_lite.rl.agents import SAC

    folder = tmp_path_factory.mktemp("runs") / "run"
    config = TrainConfig("Glider-v0", "sac", config=SMALL["sac"], out=str(folder))
    run = Run.create(config)
    run.save_policy(SAC(2, 1, SMALL["sac"]), 2, 1)
    run.save_policy(SAC(2, 1, SMALL["sac"], seed=1), 2, 1, "policy_best.safetensors")
    run.save_curve([{"step": 10, "return_mean": -1.5}, {"step": 20, "return_mean": 2.0, "q": 1.0}])
    return folder


@pytest.fixture
def folder(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "run"))


def test_one_observation_or_a_batch(folder):
    policy, agent = load_policy(folder), Run(folder).load_agent()
    x = np.array([[0.5, -1.0], [2.0, 3.0]])
    with own_noise(agent, 0):
        expected = act(agent, x.astype(np.float32))
    assert np.array_equal(policy(x), expected) and policy(x).shape == (2, 1)
    # one row alone is another matrix product: equal to the last bits of float32
    np.testing.assert_allclose(policy([0.5, -1]), expected[0], rtol=1e-5)
    assert policy(x.astype(np.float32)).dtype == np.float32
    assert policy(np.zeros((0, 2))).shape == (0, 1)


def test_best_is_another_policy(folder):
    x = [0.3, 0.7]
    assert load_policy(folder)(x) != load_policy(folder, best=True)(x)


def test_the_noise_belongs_to_the_seed(folder):
    config = TrainConfig("Glider-v0", "som", config=SMALL["som"])
    from som_lite.rl.agents import SOM

    (folder / "config.json").write_text(json.dumps(describe(config, None)))
    Run(folder).save_policy(SOM(2, 1, SMALL["som"]), 2, 1)
    first, again, other = (load_policy(folder, seed=seed)([0.3, 0.7]) for seed in (3, 3, 4))
    assert first == again != other


@pytest.mark.parametrize(
    ("obs", "message"),
    [
        ([1.0], r"shape \(2,\) or \(B, 2\), got \(1,\)"),
        (np.zeros((1, 1, 2)), r"got \(1, 1, 2\)"),
        (np.array(1.0), r"got \(\)"),
        ([np.nan, 0], "must be finite"),
        ([1e300, 0], "must be finite"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_an_observation_that_cannot_be(folder, obs, message):
    with pytest.raises(ValueError, match=message):
        load_policy(folder)(obs)


def test_read_curve(folder):
    curve = read_curve(folder)
    assert curve["step"].tolist() == [10, 20] and curve["return_mean"].tolist() == [-1.5, 2.0]
    assert np.isnan(curve["q"]).tolist() == [True, False]


@pytest.mark.parametrize("name", ["config.json", "policy.safetensors", "curve.csv"])
def test_links_are_not_followed(folder, tmp_path, name):
    (folder / name).rename(tmp_path / name)
    os.symlink(tmp_path / name, folder / name)
    with pytest.raises(ValueError, match=f"{name} is a link"):
        load_policy(folder), read_curve(folder)


@pytest.mark.parametrize("name", ["config.json", "policy.safetensors", "curve.csv"])
def test_absurd_sizes_are_refused(folder, name):
    """A sparse file of a terabyte takes no disk, and reading it would take all memory."""
    os.truncate(folder / name, 2**40)
    with pytest.raises(ValueError, match=f"{name} has 1,099,511,627,776 bytes, more than"):
        load_policy(folder), read_curve(folder)


def alter(folder, **changes):
    info = json.loads((folder / "config.json").read_text())
    info["config"]["config"] |= changes
    (folder / "config.json").write_text(json.dumps(info))


@pytest.mark.parametrize(
    "changes", [{"hidden": [10**5, 10**5]}, {"hidden": [1] * 10**4}, {"n_evaluate": 10**9}]
)
def test_settings_that_would_fill_the_memory(folder, changes):
    alter(folder, **changes)
    with pytest.raises(ValueError, match=r"does not fit|refused"):
        load_policy(folder)


@pytest.mark.parametrize(
    "changes", [{"hidden": "abc"}, {"gamma": "1"}, {"batch": 2.5}, {"tau": None}, {"hidden": [[1]]}]
)
def test_settings_of_another_type(folder, changes):
    alter(folder, **changes)
    with pytest.raises(ValueError, match="settings of another version"):
        load_policy(folder)


def test_a_policy_of_another_shape_or_with_nan(folder):
    alter(folder, hidden=[16, 16])
    with pytest.raises(ValueError, match="does not fit the settings"):
        load_policy(folder)
    alter(folder, hidden=[32, 32])
    agent = Run(folder).load_agent()
    next(agent.critic.parameters()).data[0] = torch.nan
    Run(folder).save_policy(agent, 2, 1)
    with pytest.raises(ValueError, match=r"critic\.\S+ is not finite"):
        load_policy(folder)


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"obs_dim": 2},
        {"obs_dim": 10**12, "act_dim": 1},
        {"obs_dim": "2", "act_dim": 1},
    ],
)
def test_sizes_that_cannot_be(folder, sizes):
    write_tensors(folder / "policy.safetensors", {"x": torch.zeros(2)}, sizes)
    with pytest.raises(ValueError, match="its sizes are"):
        load_policy(folder)


def test_a_safetensors_file_that_no_run_wrote(folder):
    save_file({"x": torch.zeros(2)}, folder / "policy.safetensors")
    with pytest.raises(ValueError, match="damaged"):
        load_policy(folder)


@pytest.mark.parametrize(
    "text",
    ["", "step\n1\n", "step,return_mean\n1\n", "step,return_mean\n1,x\n", "\x00", "a" * 10**6],
)
def test_a_curve_that_no_run_wrote(folder, text):
    (folder / "curve.csv").write_text(text)
    with pytest.raises(ValueError, match=r"curve\.csv is damaged"):
        read_curve(folder)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_whatever_is_in_the_files_it_works_or_is_one_clear_error(original, folder, data):
    """Bytes of one file are changed, cut or replaced."""
    name = data.draw(st.sampled_from(["config.json", "policy.safetensors", "curve.csv"]))
    good = (original / name).read_bytes()
    start = data.draw(st.integers(0, min(len(good) - 1, 3000)))
    length = data.draw(st.integers(0, 40))
    new = data.draw(st.binary(max_size=40))
    (folder / name).write_bytes(good[:start] + new + good[start + length :])
    try:
        load_policy(folder)([0.0, 0.0])
        read_curve(folder)
    except (ValueError, FileNotFoundError) as error:
        assert str(folder) in str(error) or "settings" in str(error) or " must be " in str(error)
    finally:
        (folder / name).write_bytes(good)
