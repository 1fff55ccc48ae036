"""What the guards of the book share: its chapters, their cells, their sections."""

import re
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[2]
FOLDED_HELP = re.compile(r"<details>\s*<summary>(Hint|Solution)</summary>.*?</details>", re.DOTALL)
CHAPTERS = sorted((ROOT / "chapters").glob("[0-9][0-9]_*.ipynb"))


def read(path):
    return nbformat.read(path, as_version=4)


def tags(cell):
    return cell.metadata.get("tags", [])


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def uncompared_cells(notebook):
    """The code cells whose output nbval is told not to compare."""
    marker = re.compile(r"^\s*#\s*NBVAL_(IGNORE_OUTPUT|SKIP)\s*$", re.MULTILINE)
    marked = {"nbval-ignore-output", "nbval-skip"}
    return [c for c in code_cells(notebook) if marked & set(tags(c)) or marker.search(c.source)]


def markdown(notebook):
    """All prose as one string, code blocks left out."""
    prose = "\n\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    return re.sub(r"```.*?```", "", prose, flags=re.DOTALL)


def words(notebook):
    """How many words of prose: markdown without code blocks, hints, solutions and markup.

    A formula in the line counts as one word, a displayed one as none.
    """
    prose = FOLDED_HELP.sub("", markdown(notebook))
    prose = re.sub(r"\$\$.+?\$\$", "", prose, flags=re.DOTALL)
    prose = re.sub(r"\$[^$]+\$", "formula", prose)
    prose = re.sub(r"\]\([^)]*\)|<[^>]+>", " ", prose)  # addresses, tags
    return len([word for word in prose.split() if re.search(r"\w", word)])


def section(notebook, heading):
    """The cells from the one that starts with `## heading` to the next H2."""
    inside, found = False, []
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and cell.source.startswith("## "):
            inside = cell.source.splitlines()[0] == f"## {heading}"
        if inside:
            found.append(cell)
    return found
