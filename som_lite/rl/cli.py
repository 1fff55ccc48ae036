"""The command line: som-lite train, som-lite evaluate, som-lite sweep."""

import argparse
import contextlib
import io
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from som_lite.rl.agents import AGENTS
from som_lite.rl.config import TrainConfig
from som_lite.rl.envs import make_env
from som_lite.rl.evaluate import evaluate, record_video
from som_lite.rl.runs import Run
from som_lite.rl.sweep import grid, script, summary, sweep
from som_lite.rl.train import train

USAGE = """usage: som-lite COMMAND [options]

  train      train an agent:            som-lite train --env HalfCheetah-v5
  evaluate   look at a trained agent:   som-lite evaluate RUN --video out.mp4
  sweep      many runs side by side:    som-lite sweep --envs Hopper-v5 Walker2d-v5 --seeds 0 1 2

som-lite COMMAND --help lists the options of a command."""

TRAIN = """Train an agent. The same command continues a run that was stopped.

--config.NAME sets an option of the agent; those of --agent are listed below."""


@dataclass(frozen=True)
class EvaluateConfig:
    """Mean and spread of the return of a trained agent, and a video if you want one."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]  # run folder
    episodes: int = 10  # episodes to average over
    seed: int = 0  # decides start states and noise; the same seed gives the same numbers
    video: str = ""  # film one episode to this .mp4 or .gif


SWEEP = """Train every agent on every task with every seed, several runs at a time.

All other options are those of `som-lite train` and hold for every run; --config.NAME needs a sweep
of one agent. Run folders are OUT/<agent>/<env>/seed<k>; the same command continues."""


def train_command(arguments: list[str]) -> None:
    """Train an agent; the options are the fields of `TrainConfig`."""
    print(train(_train_config(arguments)))


def _train_config(arguments: list[str]) -> TrainConfig:
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    early.add_argument("--agent", choices=AGENTS, default="som")
    try:
        chosen, arguments = early.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from error
    default = TrainConfig(agent=chosen.agent)
    return _parse(
        tyro.conf.AvoidSubcommands[TrainConfig],
        prog="som-lite train",
        description=TRAIN,
        args=["--agent", chosen.agent, *arguments],
        default=default,
    )


def evaluate_command(arguments: list[str]) -> None:
    """Print the mean and the standard deviation of the return, and write the video."""
    options = _parse(EvaluateConfig, prog="som-lite evaluate", args=arguments)
    run = Run(options.run)
    env, agent = run.config().env, run.load_agent()
    returns = evaluate(agent, env, options.episodes, options.seed)
    print(f"{env}: return {returns.mean():.1f} ± {returns.std():.1f}, episodes: {len(returns)}")
    if options.video:
        total = record_video(agent, env, options.video, options.seed)
        print(f"{options.video}: one episode, return {total:.1f}")


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
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time")
    parser.add_argument("--out", default="runs", help="folder of the run folders")
    parser.add_argument("--dry-run", action="store_true", help="print the commands, run nothing")
    try:
        options, rest = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from error
    base = [_train_config(["--agent", agent, *rest]) for agent in options.agents]
    configs = grid(base, options.envs, options.seeds, options.out)
    for env in options.envs:
        make_env(env).close()  # a name that cannot work stops the sweep before it starts
    if options.dry_run:
        print(script(configs))
        return
    failed = sweep(configs, options.jobs)
    print(summary([config for config in configs if config not in failed]))
    if failed:
        raise ValueError(f"{len(failed)} of {len(configs)} runs failed")


def _parse(kind: Any, **options: Any) -> Any:
    """tyro.cli, whose boxed messages become the text of a ValueError."""
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            return tyro.cli(kind, **options)
    except SystemExit as end:
        if end.code == 0:  # --help
            raise
    lines = [line.strip("│╭╮╰╯─ ") for line in box.getvalue().splitlines()]
    text = " ".join(line for line in lines[1:] if line)  # the first line is the title of the box
    raise ValueError(re.split("Argument helptext|For full helptext", text)[0].strip())


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "train": train_command,
    "evaluate": evaluate_command,
    "sweep": sweep_command,
}


def main(arguments: list[str] | None = None) -> None:
    """Run a command. A mistake of the user ends in one line on stderr and exit code 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return
    try:
        if arguments[0] not in COMMANDS:
            raise ValueError(f"unknown command {arguments[0]!r}: use {', '.join(COMMANDS)}")
        COMMANDS[arguments[0]](arguments[1:])
    except (ValueError, OSError) as error:
        print(f"som-lite: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as interrupt:
        print(f"som-lite: {interrupt or 'interrupted'}", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
