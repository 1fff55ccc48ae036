"""The chapters in numbers: words, cells, compared outputs, checks, size, and on demand the time.

Words are those of the prose: without code, hints, solutions and displayed formulas.

    python -m tests.benchmarks.chapters [--run] [02 06 ...]

With --run each chapter is executed once and its kernel's processor seconds are shown (the wall's
in brackets); a chapter may take 90 on the wall of an idle machine. Without, nothing runs.
"""

import argparse
import resource
import time

from nbclient.exceptions import CellExecutionError

from chapters.make import execute
from tests.book.book import CHAPTERS, code_cells, read, uncompared_cells, words


def printed(cell):
    """The text of a cell's outputs that is compared."""
    outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
    return "".join(out.get("text", out.get("data", {}).get("text/plain", "")) for out in outputs)


def seconds(notebook):
    """Processor (wall) seconds of one run, start of the kernel included; or what went wrong."""

    def spent():
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before, start = spent(), time.perf_counter()
    try:
        execute(notebook)
    except CellExecutionError as error:
        return f"{error.ename}: {error.evalue}"
    return f"{spent() - before:.0f} ({time.perf_counter() - start:.0f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("numbers", nargs="*", help="chapters, such as 02 06 (default: all)")
    parser.add_argument("--run", action="store_true", help="execute each chapter and time it")
    options = parser.parse_args()
    row = "{:<26}{:>6}{:>6}{:>10}{:>10}{:>8}{:>6}   {}".format
    print(row("chapter", "words", "cells", "compared", "printing", "checks", "kB", "CPU s (wall)"))
    for path in CHAPTERS:
        if options.numbers and path.stem[:2] not in options.numbers:
            continue
        notebook = read(path)
        cells = code_cells(notebook)
        texts = [printed(cell) for cell in cells]
        compared = 1 - len(uncompared_cells(notebook)) / len(cells)
        checks, kilobytes = "".join(texts).count("✓"), path.stat().st_size // 1024
        took = seconds(notebook) if options.run else "--run"
        printing = sum(map(bool, texts))
        counts = f"{compared:.0%}", printing, checks, kilobytes
        print(row(path.stem, words(notebook), len(cells), *counts, took))


if __name__ == "__main__":
    main()
