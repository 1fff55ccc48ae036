"""Whatever is given, it works or ends in one clear line, and nothing is written elsewhere.

CASES=1000 pytest tests/robustness/test_bad_input.py makes so many cases of each kind.
"""

import contextlib
import io
import json
import os
import random
import shutil
import warnings
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from som_lite.rl import cli, load_policy, read_curve
from som_lite.rl.agents import AGENTS
from som_lite.rl.config import TrainConfig
from som_lite.rl.device import check_machine
from som_lite.rl.options import known
from som_lite.rl.train import train
from tests.rl.toys import SMALL

CASES = int(os.environ.get("CASES", "100"))
many = settings(
    max_examples=CASES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

INTEGERS = st.integers(-3, 40) | st.sampled_from([10**6, 2**31, 2**63, 10**30, -(2**63)])
FLOATS = st.floats() | st.sampled_from([0.0, 0.5, 1.0, -0.0, 1e-320])
WORDS = st.sampled_from(["", "cpu", "cuda:9", "mps", "plain", "lines", "Glider-v0", "a/b", "x:y"])
OF_TYPE = {
    int: INTEGERS, float: FLOATS | INTEGERS.map(float), bool: st.booleans(), str: WORDS,
    tuple[int, ...]: st.lists(INTEGERS, max_size=3).map(tuple), int | None: INTEGERS | st.none(),
}  # fmt: skip
ODD = (
    st.none() | st.booleans() | INTEGERS | FLOATS | st.text(max_size=5) | st.just([]) | st.just({})
)


def changes(owner, data):
    """One to three settings of `owner`, each of its own type."""
    names = [f for f in fields(owner) if f.name not in ("config", "out", "agent")]
    chosen = data.draw(st.lists(st.sampled_from(names), max_size=3, unique_by=lambda f: f.name))
    return {f.name: data.draw(OF_TYPE[f.type], label=f.name) for f in chosen}


def one_line(error):
    assert str(error).strip() and "\n" not in str(error), repr(error)


@many
@given(st.data())
def test_settings(data):
    agent = data.draw(st.sampled_from(list(AGENTS)))
    try:
        inner = AGENTS[agent][0](**changes(AGENTS[agent][0], data))
        plain = {"env": "Glider-v0", "agent": agent, "config": inner}
        config = TrainConfig(**plain | changes(TrainConfig, data))
        assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))).command()
        check_machine(config)
    except ValueError as error:
        one_line(error)


def called(words):
    """Exit code and stderr of a command, which leaves its folder as empty as it was."""
    err, code = io.StringIO(), 0
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        try:
            cli.main(words)
        except SystemExit as end:
            code = end.code
    return code, err.getvalue()


def check_said(code, said):
    assert code in (0, 2), (code, said)
    lines = [x for x in said.splitlines() if x.startswith("som-lite: ")]
    assert code == 0 or lines, said
    assert "Traceback" not in said


JUNK = st.sampled_from(
    ["--help", "--steps", "-5", "1e9", "nan", "--env", "--config.gamma", "=", "--", "--agent=", "",
     "som", "ppo", "--vary", "tau", "--jobs", "--seeds", "é", "\n", "\x00", "[]", "None", "../..",
     "--device", "--no-progress", "--restart", "--n", "--json", "--video", "--out", "--dry-run"]
) | st.text(max_size=8)  # fmt: skip


@many
@given(data=st.data())
def test_command_lines(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "train", lambda config: config.folder)
    monkeypatch.setattr(cli, "sweep", lambda *a, **k: [])
    command = data.draw(st.sampled_from(["train", "train", "evaluate", "sweep", "summary", "x"]))
    agent = data.draw(st.sampled_from(list(AGENTS)))
    option = st.sampled_from(known(agent))
    word = JUNK | option | (INTEGERS | FLOATS | WORDS).map(str)
    pairs = st.tuples(option, (INTEGERS | FLOATS | WORDS).map(str)).map(list)
    words = data.draw(st.lists(pairs | word.map(lambda w: [w]), max_size=5))
    start = ["--agent", agent] if command == "train" and data.draw(st.booleans()) else []
    code, said = called([command, *start, *(w for pair in words for w in pair)])
    check_said(code, said)
    assert said.count("\n") <= 1, said
    assert list(tmp_path.iterdir()) == []


def config_for(out, steps=30):
    return TrainConfig(
        "Glider-v0", "sac", steps=steps, start_steps=10, eval_every=10, eval_episodes=1,
        checkpoint_every=15, progress=False, out=str(out), config=SMALL["sac"],
    )  # fmt: skip


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return train(config_for(tmp_path_factory.mktemp("runs") / "run"))


def change_json(path, data):
    """Another value at some place of a JSON file."""
    value = json.loads(path.read_text())
    at, key = value, data.draw(st.sampled_from(sorted(value)))
    while isinstance(at[key], dict) and at[key] and data.draw(st.booleans()):
        at, key = at[key], data.draw(st.sampled_from(sorted(at[key])))
    at[key] = data.draw(ODD)
    path.write_text(json.dumps(value))


def change_bytes(path, data):
    good = path.read_bytes()
    chance = random.Random(data.draw(st.integers(0, 10**6)))
    changed = bytearray(good)
    for _ in range(data.draw(st.integers(1, 8)) if good else 0):
        most = len(good) if chance.random() < 0.5 else min(len(good), 400)  # often in the header
        changed[chance.randrange(most)] = chance.randrange(256)
    path.write_bytes(changed)


def change(path, data, elsewhere):
    """One harm to a file (or to the folder that holds it)."""
    ways = ["bytes", "cut", "gone", "huge", "link", "folder", "link of the folder", "link beside"]
    way = data.draw(st.sampled_from(["json", *ways] if path.suffix == ".json" else ways))
    if way == "json":
        change_json(path, data)
    elif way == "bytes":
        change_bytes(path, data)
    elif way == "cut":
        os.truncate(path, data.draw(st.integers(0, max(0, path.stat().st_size - 1))))
    elif way == "huge":
        os.truncate(path, 2**40)  # sparse: it takes no disk
    elif way == "link beside":
        path.with_name(path.name + ".tmp").symlink_to(elsewhere / "precious")
    elif way == "link of the folder":
        shutil.rmtree(path.parent / "checkpoint", ignore_errors=True)
        (path.parent / "checkpoint").symlink_to(elsewhere)
    else:
        path.unlink()
        if way == "link":
            path.symlink_to(elsewhere / "precious")
        elif way == "folder":
            path.mkdir()


@pytest.mark.skipif("CASES" not in os.environ, reason="trains in every case: run by hand")
@many
@given(data=st.data())
def test_run_folders(data, original):
    """Read by Python, evaluated, summed up, trained further: it works, or says a line."""
    with TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a checkpoint that is not whole
        elsewhere, folder = Path(name) / "elsewhere", Path(name) / "run"
        elsewhere.mkdir()
        for precious in ("precious", "0.json", "state-1", "rows-1", "lock"):
            (elsewhere / precious).write_text("{}")
        shutil.copytree(original, folder)
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        change(data.draw(st.sampled_from(files)), data, elsewhere)
        lock = folder / "checkpoint" / "lock"
        if data.draw(st.booleans()) and lock.is_file() and not lock.parent.is_symlink():
            lock.unlink()
        for read in (load_policy, read_curve):
            try:
                read(folder)
            except (ValueError, FileNotFoundError) as error:
                one_line(error)
        evaluate = ["evaluate", str(folder), "--episodes", "1", "--max-steps", "2"]
        check_said(*called(evaluate))
        check_said(*called(["summary", str(folder)]))
        try:
            train(config_for(folder, data.draw(st.sampled_from([30, 32]))))
        except (ValueError, OSError) as error:
            one_line(error)
        assert sorted(p.name for p in Path(name).iterdir()) == ["elsewhere", "run"]
        assert {p.read_text() for p in elsewhere.iterdir()} == {"{}"}
        assert len(list(elsewhere.iterdir())) == 5
