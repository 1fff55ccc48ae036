"""The command line: som-lite train, evaluate, record, sweep and summary."""

import argparse
import contextlib
import io
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated, Any, NoReturn

import tyro

from som_lite.rl.agents import AGENTS, presets
from som_lite.rl.agents.common import require
from som_lite.rl.config import TrainConfig
from som_lite.rl.device import require_device
from som_lite.rl.envs import make_env
from som_lite.rl.evaluate import Episodes, play, record_video
from som_lite.rl.offline.data import load_data
from som_lite.rl.options import train_help, unknown_option
from som_lite.rl.record import RecordConfig, record
from som_lite.rl.runs import Run
from som_lite.rl.summary import find_runs, returns_table
from som_lite.rl.sweep import Engine, grid, processes, script, sweep, variants
from som_lite.rl.train import train

USAGE = """usage: som-lite COMMAND [options]

  train      train an agent:            som-lite train --env HalfCheetah-v5
  evaluate   look at a trained agent:   som-lite evaluate RUN --video out.mp4
  record     what it does, as data:     som-lite record RUN --out data/hopper-mixed-v0
  sweep      many runs side by side:    som-lite sweep --envs Hopper-v5 Walker2d-v5 --seeds 0 1 2
  summary    a table of many runs:      som-lite summary runs
  plot       their learning curves:     som-lite plot runs --out curves.png

som-lite COMMAND --help lists the options of a command."""

TRAIN = """Train an agent. The same command continues a run that was stopped.

--config.NAME sets an option of the agent; those of --agent are listed below. --preset paper starts
from the settings of the agent's paper instead, --preset one_core from those for one CPU core."""


@dataclass(frozen=True)
class EvaluateConfig:
    """Mean and spread of the return of a trained agent, and a video if you want one."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]  # run folder
    env: str = ""  # task; empty: the run's own, but one of the form MODULE:ID you have to give
    episodes: int = 10  # episodes to average over
    seed: int = 0  # decides start states and noise; the same seed gives the same numbers
    n: int | None = None  # candidates of which the critic picks one; None: the run's n_evaluate
    last: bool = False  # act with the last weights instead of their average
    best: bool = False  # the policy of the best row of the curve instead of the last one
    max_steps: int | None = None  # cut episodes after so many steps; None: the task's time limit
    device: str = "cpu"  # of the networks: cpu, cuda, cuda:1 ... or mps
    each: bool = False  # print a line for every episode
    json: bool = False  # print JSON: settings, mean, spread, and every episode
    video: str = ""  # film one episode to this .mp4 or .gif


SWEEP = """Train every agent on every task with every seed, several runs at a time.

All other options are those of `som-lite train` and hold for every run; --config.NAME needs a sweep
of one agent. --vary NAME VALUE ... tries several values of one setting, and may be repeated.
Run folders are OUT/<agent>/<env>/seed<k>, with --vary OUT/<name=value>/<agent>/<env>/seed<k>.
The same command continues what was stopped or failed and skips what is finished."""


def train_command(arguments: list[str]) -> None:
    """Train an agent; the options are the fields of `TrainConfig`."""
    print(train(_train_config(arguments)))


def _train_config(arguments: list[str]) -> TrainConfig:
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    early.add_argument("--agent", choices=AGENTS, default="som")
    early.add_argument("--preset", choices=("one_core", "paper"))
    try:
        chosen, arguments = early.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from error
    if {"-h", "--help"} & set(arguments):
        print(train_help(chosen.agent, TRAIN))
        sys.exit(0)
    named = presets(chosen.agent)
    if chosen.preset not in (None, *named):
        raise ValueError(f"preset must be one of {', '.join(named)} for agent {chosen.agent}")
    try:
        return _parse(
            tyro.conf.AvoidSubcommands[TrainConfig],
            args=["--agent", chosen.agent, *arguments],
            default=TrainConfig(agent=chosen.agent, config=named.get(chosen.preset or "")),
        )
    except ValueError as error:
        if found := re.search(r"Unrecognized options: (--[^\s,=]+)", str(error)):
            raise ValueError(unknown_option(found[1], chosen.agent)) from error
        raise


def evaluate_command(arguments: list[str]) -> None:
    """Print the mean and the standard deviation of the return, and write the video."""
    options = _parse(EvaluateConfig, prog="som-lite evaluate", args=arguments)
    require_device(options.device)
    run = Run(options.run)
    env, agent = _task(run, options.env), run.load_agent(options.device, options.best)
    averaged = False if options.last else None
    episodes = play(
        agent,
        env,
        options.episodes,
        options.seed,
        n=options.n,
        averaged=averaged,
        max_steps=options.max_steps,
    )
    print(_report(env, episodes, options))
    if options.video:
        total = record_video(agent, env, options.video, options.seed)
        print(f"{options.video}: one episode, return {total:.1f}", file=sys.stderr)


def _task(run: Run, given: str) -> str:
    """The task to act in. A run may be a stranger's: no module is imported because a run names it,
    only because the reader does."""
    own = run.config().env
    if not given and ":" in own:
        raise ValueError(
            f"{run.folder} was trained on {own}, and importing {own.rpartition(':')[0]} runs its "
            f"code: if you trust it, add --env {own}"
        )
    return given or own


def _report(env: str, episodes: Episodes, options: EvaluateConfig) -> str:
    """The episodes as JSON, or as a line or more of text."""
    x, columns = episodes.returns, {name: v.tolist() for name, v in episodes._asdict().items()}
    if options.json:
        totals = {"return_mean": float(x.mean()), "return_std": float(x.std())}
        return json.dumps(asdict(options) | {"env": env} | totals | columns)
    lines = [f"{env}: return {x.mean():.1f} ± {x.std():.1f}, episodes: {len(x)}"]
    if options.each:
        rows = zip(*columns.values(), strict=True)
        ends = {True: "ended by the task", False: "time ran out"}
        lines += [
            f"episode {i}: return {r:.1f}, {n} steps, {ends[e]}" for i, (r, n, e) in enumerate(rows)
        ]
    return "\n".join(lines)


def record_command(arguments: list[str]) -> None:
    """Write a data set and say what is in it."""
    options = _parse(RecordConfig, prog="som-lite record", args=arguments)
    data = load_data(record(options))
    returns, steps = data.returns(), len(data.batch.reward)
    spread = f"from {returns.min():.1f} to {returns.max():.1f}"
    print(f"{options.out}: {len(returns)} episodes, {steps} steps, returns {spread}")


def sweep_command(arguments: list[str]) -> None:
    """Train a grid of runs and print the final returns by task and agent."""
    parser = argparse.ArgumentParser(
        "som-lite sweep",
        description=SWEEP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        exit_on_error=False,
    )
    parser.add_argument("--envs", nargs="+", default=[], help="tasks, one or more")
    parser.add_argument("--agents", nargs="+", default=["som", "sac"], choices=AGENTS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--vary", nargs="+", action="append", default=[], help="NAME VALUE ...")
    parser.add_argument("--jobs", type=int, help="runs at a time; as many as there are cores")
    parser.add_argument("--engine", choices=("processes", "ray"), default="processes")
    parser.add_argument("--address", default="", help="of a Ray cluster; without one: this machine")
    parser.add_argument("--out", default="runs", help="folder of the run folders")
    parser.add_argument("--dry-run", action="store_true", help="print the commands, run nothing")
    options, rest = parse(parser, arguments, others=True)
    engine, configs = _engine(options.engine, options.jobs, options.address), []
    for place, extra in variants(options.vary):
        base = [_train_config(["--agent", name, *rest, *extra]) for name in options.agents]
        configs += grid(base, options.envs, options.seeds, f"{options.out}{place}")
    for env in options.envs:
        make_env(env).close()  # a name that cannot work stops the sweep before it starts
    if options.dry_run:
        print(script(configs))
        return
    failed = sweep(configs, engine, progress=True)
    if done := [Run(config.folder) for config in configs if config not in failed]:
        print(returns_table(done))
    if failed:
        names = ", ".join(config.out for config in failed)
        raise ValueError(f"{len(failed)} of {len(configs)} runs failed: {names}")


def _engine(name: str, jobs: int | None, address: str) -> Engine:
    """What trains the runs of a sweep. Raises ValueError where the options do not go together."""
    require(jobs is None or jobs >= 1, "jobs", jobs, "at least 1")
    if name == "processes":
        require(not address, "address", address, "left out unless --engine is ray")
        return partial(processes, jobs=jobs or os.cpu_count() or 1)
    try:
        from som_lite.rl.cluster import ray_tasks
    except ImportError as error:
        raise ValueError(f"--engine ray needs Ray ({error}): see README, More machines") from error
    require(not (jobs and address), "jobs", jobs, "left out: a cluster fills its own cores")
    return partial(ray_tasks, jobs=jobs or os.cpu_count() or 1, address=address)


def summary_command(arguments: list[str]) -> None:
    """Print mean and interquartile mean of the last returns, by task and agent."""
    parser = argparse.ArgumentParser(
        "som-lite summary",
        description="Last return by task and agent: mean and interquartile mean over seeds, each "
        "with its 95 % bootstrap interval. Runs that differ in length are compared where the "
        "shortest ends.",
        exit_on_error=False,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders, or folders of them")
    print(returns_table(find_runs(parse(parser, arguments).runs)))


def parse(parser: argparse.ArgumentParser, arguments: list[str], others: bool = False) -> Any:
    """argparse, whose complaints become ValueErrors; with `others`, also the options it skips."""
    if {"-h", "--help"} & set(arguments):
        parser.print_help()
        sys.exit(0)

    def complain(message: str) -> NoReturn:
        raise ValueError(message)

    parser.error = complain
    try:
        known, unknown = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from error
    if others:
        return known, unknown
    if unknown:
        raise ValueError(f"unknown option {unknown[0]}: {parser.prog} --help lists them")
    return known


def _parse(kind: Any, **options: Any) -> Any:
    """tyro.cli, whose boxed messages become the text of a ValueError."""
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            return tyro.cli(kind, **options)
    except SystemExit as end:
        if end.code == 0:  # --help
            raise
    lines = [line.strip("│╭╮╰╯─ |+") for line in box.getvalue().splitlines()]
    text = " ".join(
        line for line in lines[1:] if line.strip("-")
    )  # the first line is the title of the box
    raise ValueError(re.split("Argument helptext|For full helptext", text)[0].strip())


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "train": train_command,
    "evaluate": evaluate_command,
    "record": record_command,
    "sweep": sweep_command,
    "summary": summary_command,
}


def main(arguments: list[str] | None = None, commands: dict[str, Callable] | None = None) -> None:
    """Run a command. A mistake of the user ends in one line on stderr and exit code 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    commands = commands or COMMANDS
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return
    try:
        if arguments[0] not in commands:
            raise ValueError(f"unknown command {arguments[0]!r}: use {', '.join(commands)}")
        with _one_line_warnings():
            commands[arguments[0]](arguments[1:])
    except (ValueError, OSError) as error:
        print(f"som-lite: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as interrupt:
        print(f"som-lite: {str(interrupt) or 'interrupted'}", file=sys.stderr)
        sys.exit(130)


@contextlib.contextmanager
def _one_line_warnings() -> Iterator[None]:
    """Our warnings without the file and line that raised them."""
    plain = warnings.formatwarning

    def line(message: Any, kind: type, *place: Any, **more: Any) -> str:
        if kind is UserWarning:
            return f"som-lite: {message}\n"
        return plain(message, kind, *place, **more)

    warnings.formatwarning = line
    try:
        yield
    finally:
        warnings.formatwarning = plain


if __name__ == "__main__":
    main()
