"""Every command of som-lite: those of the first floor, and the one that draws."""

import argparse
from pathlib import Path

from som_lite.rl import cli
from som_lite.rl.summary import find_runs


def plot_command(arguments: list[str]) -> None:
    """Draw the learning curves of runs into a picture."""
    parser = argparse.ArgumentParser(
        "som-lite plot",
        description="Return over steps: a panel for each task, a line for each agent, which is the "
        "interquartile mean over seeds, in its 95 % bootstrap interval.",
        exit_on_error=False,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders, or folders of them")
    parser.add_argument("--out", default="curves.png", help="picture: .png, .svg or .pdf")
    options = cli.parse(parser, arguments)
    if Path(options.out).suffix not in (".png", ".svg", ".pdf"):
        raise ValueError(f"out must end in .png, .svg or .pdf, got {options.out!r}")
    from som_lite.view.curves import learning_curves  # matplotlib, only where something is drawn

    learning_curves(find_runs(options.runs)).savefig(options.out, dpi=150)
    print(options.out)


def main(arguments: list[str] | None = None) -> None:
    """Run a command of `som-lite`."""
    cli.main(arguments, cli.COMMANDS | {"plot": plot_command})


if __name__ == "__main__":
    main()
