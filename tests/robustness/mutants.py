"""Change the package in one place, run the tests that concern it: does one of them fail?

    python -m tests.robustness.mutants --per-file 4               four changes of every file
    python -m tests.robustness.mutants som_lite/flow/ode.py       every change of one file

A change is an operator, a comparison, a number, a sign, a switched condition, or the name of a
function (min for max, detach left out). Left alone: settings and constants, which are choices and
no formulas; the words of error messages; annotations. The tests of a file are those of the same
name, or those that TESTS names; a change that survives them all is printed. A test that takes ten
times as long as before has noticed, too.

Changes are made in a copy of the repository. Each is tried in a forked process that has torch and
pytest in memory already, so that one core does some hundred in an hour.
"""

import argparse
import ast
import contextlib
import gc
import importlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]

HEAVY = ("beartype gymnasium hypothesis.strategies imageio jaxtyping matplotlib.pyplot mujoco ot "
         "scipy.stats torch.func torchdiffeq tyro").split()  # fmt: skip

# Files whose tests have another name.
TESTS = {
    "flow/intervals": ["flow/test_sampler", "flow/test_meanflow"],
    "flow/mixtures": ["flow/test_mixtures", "flow/test_densities"],
    "rl/adapt": ["rl/test_envs"],
    "rl/agents/base": ["rl/test_agents", "rl/test_som", "rl/test_sac"],
    "rl/agents/common": ["rl/test_agents", "rl/test_checkpoint", "rl/test_family"],
    "rl/agents/sac": ["rl/test_sac", "rl/test_agents"],
    "rl/agents/som": ["rl/test_som", "rl/test_agents"],
    "rl/agents/som_paper": ["rl/test_som_paper", "rl/test_agents"],
    "rl/agents/temperature": ["rl/test_sac", "rl/test_som", "rl/test_family"],
    "rl/config": ["rl/test_runs", "rl/test_cli", "rl/test_train"],
    "rl/drawing": ["rl/test_evaluate"],
    "rl/files": ["rl/test_checkpoint", "rl/test_runs", "rl/test_policy"],
    "rl/interrupt": ["rl/test_train"],
    "rl/maze": ["rl/test_record", "rl/test_envs"],
    "rl/bandit": ["rl/test_family"],
    "rl/provenance": ["rl/test_runs"],
    "rl/training": ["rl/test_train"],
}
FOLDERS = {"rl/agents": ["rl/test_family", "rl/test_agents"], "rl/offline": ["rl/test_offline"]}

OPERATORS = {ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"),
             ast.Pow: ("**", "*"), ast.FloorDiv: ("//", "*"), ast.Mod: ("%", "*")}  # fmt: skip
COMPARISONS = {ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="),
               ast.GtE: (">=", ">"), ast.Eq: ("==", "!="), ast.NotEq: ("!=", "==")}  # fmt: skip
NAMES = {"min": "max", "max": "min", "amin": "amax", "amax": "amin", "argmax": "argmin",
         "sin": "cos", "cos": "sin", "exp": "expm1", "log": "log1p", "mean": "sum", "sum": "mean",
         "square": "abs", "sqrt": "square", "detach": "clone", "any": "all", "all": "any",
         "randn": "rand", "rand": "randn", "floor": "ceil", "argsort": "argmin"}  # fmt: skip


class Change(NamedTuple):
    """Bytes `start` to `end` of a file become `new`."""

    path: Path
    line: int
    start: int
    end: int
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}  {self.old} -> {self.new}"

    def made(self, source: bytes) -> bytes:
        return source[: self.start] + self.new.encode() + source[self.end :]


def changes_of(path: Path, root: Path = ROOT) -> list[Change]:
    """Every change of a file of the repository, in order."""
    source = (root / path).read_bytes()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    def at(line: int, column: int) -> int:
        return starts[line - 1] + column

    def between(left: ast.AST, right: ast.AST, old: str, new: str) -> Iterator[Change]:
        """The operator that stands between two expressions."""
        low, high = at(left.end_lineno, left.end_col_offset), at(right.lineno, right.col_offset)
        place = source.find(old.encode(), low, high)
        if place >= 0:
            yield Change(path, left.end_lineno, place, place + len(old.encode()), old, new)

    def here(node: ast.AST, new: str) -> Change:
        low = at(node.lineno, node.col_offset)
        high = at(node.end_lineno, node.end_col_offset)
        return Change(path, node.lineno, low, high, source[low:high].decode(), new)

    def of(node: ast.AST) -> Iterator[Change]:
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS and not is_text(node):
            yield from between(node.left, node.right, *OPERATORS[type(node.op)])
        elif isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
            yield from between(node.left, node.comparators[0], *COMPARISONS[type(node.ops[0])])
        elif isinstance(node, ast.BoolOp):
            words = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
            yield from between(node.values[0], node.values[1], *words)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Not)):
            low, old = (
                at(node.lineno, node.col_offset),
                "-" if isinstance(node.op, ast.USub) else "not",
            )
            yield Change(path, node.lineno, low, low + len(old), old, "")
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
            yield here(node, str(not node.value))
        elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
            other = node.value + 1 if isinstance(node.value, int) else 2 * node.value or 1.0
            yield here(node, repr(other))
        elif isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute)):
            old = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            if old in NAMES:
                high = at(node.func.end_lineno, node.func.end_col_offset)
                low, new = high - len(old), NAMES[old]
                yield Change(path, node.func.end_lineno, low, high, old, new)

    return [change for node in formulas(ast.parse(source)) for change in of(node)]


def formulas(node: ast.AST) -> Iterator[ast.AST]:
    """Every node below that computes: no annotations, messages, settings or constants."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            fixed = isinstance(node, (ast.Module, ast.ClassDef))
            fixed = fixed and isinstance(child, (ast.Assign, ast.AnnAssign, ast.If))
            if isinstance(child, ast.AST) and not fixed and not is_words(child):
                yield child
                yield from formulas(child)


def is_words(node: ast.AST) -> bool:
    """An error, a warning or a text with gaps."""
    if isinstance(node, ast.Call):
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        return name in ("warn", "print", "add_argument")
    return isinstance(node, (ast.Raise, ast.JoinedStr))


def is_text(node: ast.BinOp) -> bool:
    sides = (node.left, node.right)
    return any(
        isinstance(x, ast.JoinedStr) or (isinstance(x, ast.Constant) and isinstance(x.value, str))
        for x in sides
    )


def tests_of(path: Path) -> list[str]:
    """The test files that concern a file of the package."""
    name = path.relative_to("som_lite").with_suffix("").as_posix()
    same = f"{path.parent.relative_to('som_lite').as_posix()}/test_{path.stem}"
    own = [same] if (ROOT / f"tests/{same}.py").exists() else []
    names = TESTS.get(name) or FOLDERS.get(name.rpartition("/")[0]) or own
    files = [f"tests/{name}.py" for name in names]
    return [name for name in files if (ROOT / name).exists()]


def passed(copy: Path, tests: list[str], seconds: int, marked: str = "not slow") -> float | None:
    """None if a test of the copy fails, or a process of theirs computes for more than `seconds`;
    otherwise the seconds that it took."""
    pid = os.fork()
    if pid == 0:
        code = 1
        with contextlib.suppress(BaseException):
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
            signal.alarm(60 * seconds)  # if it waits for ever
            os.chdir(copy)
            sys.path.insert(0, str(copy))
            for stream in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
            options = "-x -q -p xdist.plugin -n0 -p no:cacheprovider".split()
            code = pytest.main([*options, "-m", marked, *tests])
        os._exit(0 if code in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED) else 1)
    _, status, usage = os.wait4(pid, 0)
    return usage.ru_utime + usage.ru_stime if status == 0 else None


def copied(folder: str) -> Path:
    """A copy of what git tracks, without notebooks: changes and edits do not meet."""
    names = subprocess.run(
        ["git", "ls-files", "som_lite", "tests", "chapters/recorded", "*.toml", "*.py"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    for name in names:
        (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, Path(folder) / name)
    return Path(folder)


def try_file(path: Path, chosen: list[Change], copy: Path) -> list[Change]:
    """The changes of one file that no test notices."""
    tests, source = tests_of(path), (copy / path).read_bytes()
    slow = [name for name in tests if "mark.slow" in (ROOT / name).read_text()]
    used = passed(copy, tests, 600)
    if used is None:
        raise SystemExit(f"{path}: {', '.join(tests)} fail without a change")
    survivors = []
    for change in chosen:
        (copy / path).write_bytes(change.made(source))
        most = int(20 + 10 * used)
        if passed(copy, tests, most) and (not slow or passed(copy, slow, 600, "slow")):
            survivors.append(change)
            print(f"survived  {change}", flush=True)
    (copy / path).write_bytes(source)
    print(f"{path}: {len(chosen) - len(survivors)} of {len(chosen)} noticed", flush=True)
    return survivors


def warm_up() -> None:
    """Import what the tests need, but nothing of the package: every fork inherits it."""
    sys.dont_write_bytecode = True  # a stale one would hide a change
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # it minds modules that are there before it
    for name in HEAVY:
        importlib.import_module(name)
    gc.freeze()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", help="files of som_lite; otherwise all of them")
    parser.add_argument("--per-file", type=int, help="so many changes of a file, drawn at random")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    paths = [Path(name) for name in options.files] or sorted(
        p.relative_to(ROOT) for p in (ROOT / "som_lite").rglob("*.py")
    )
    warm_up()
    tried, survivors = 0, []
    with tempfile.TemporaryDirectory() as folder:
        copy = copied(folder)
        for path in paths:
            found = changes_of(path, copy)
            if not found or not tests_of(path):
                continue
            chance = random.Random(f"{options.seed} {path}")
            number = min(options.per_file or len(found), len(found))
            chosen = sorted(chance.sample(found, number), key=lambda change: change.start)
            survivors += try_file(path, chosen, copy)
            tried += len(chosen)
    print(f"{tried - len(survivors)} of {tried} changes noticed")


if __name__ == "__main__":
    main()
