"""Every displayed formula of the chapters between the first and the last has its check near it.

In the section of a formula, which ends where a cell has the next heading, some code cell after it
calls `check(...)`. Only the opening picture, which recalls and announces, may wait for the first
check of the derivation. Formulas inside a folded hint or solution are free.

    python -m tests.book.test_formulas [04]      which check belongs to which formula
"""

import ast
import re
import sys
from itertools import groupby

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tests.book.book import CHAPTERS, read

HEADING = re.compile(r"^#{2,3} (.+)$", re.MULTILINE)
PART = re.compile(r"^##+ .+$|\$\$[^$]+\$\$", re.MULTILINE)
NO_PROSE = re.compile(r"```.*?```|<details>.*?</details>", re.DOTALL)
BETWEEN = [path for path in CHAPTERS if path.stem[:2] not in ("00", "12")]


def words_of_checks(cell):
    """The first argument of each check(...) in a cell, an f-string as its template."""
    calls = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)]
    checks = [call for call in calls if getattr(call.func, "id", None) == "check"]
    checks.sort(key=lambda call: call.lineno)
    words = [ast.unparse(call.args[0]) for call in checks]
    return [re.sub(r"""^f?(["'])(.*)\1$""", r"\2", text) for text in words]


def check_of_formula(cells, at, announced):
    """The words of the checks that belong to a formula in cell number `at`, or []."""
    for cell in cells[at + 1 :]:
        if cell.cell_type == "code":
            if words := words_of_checks(cell):
                return words
        elif HEADING.search(NO_PROSE.sub("", cell.source)) and not announced:
            break
    return []


def formulas(notebook):
    """Yield (heading, formula, words of its checks) in reading order."""
    chapter = section = ""
    for at, cell in enumerate(notebook.cells):
        if cell.cell_type != "markdown":
            continue
        for part in PART.findall(NO_PROSE.sub("", cell.source)):
            if part.startswith("$$"):
                announced = chapter == "The idea in one picture"
                tex = " ".join(part.strip("$").split())
                yield section, tex, check_of_formula(notebook.cells, at, announced)
            else:
                section = part.lstrip("# ")
                chapter = section if part.startswith("## ") else chapter


@pytest.mark.parametrize("path", BETWEEN, ids=lambda path: path.stem)
def test_every_displayed_formula_has_a_check_in_its_section(path):
    for section, formula, words in formulas(read(path)):
        assert words, f"no check(…) after the formula in {section!r}:\n{formula}"


def test_a_check_in_the_next_section_is_none():
    notebook = new_notebook(cells=[new_markdown_cell("## One\n\n$$a=b$$"), new_code_cell("b")])
    notebook.cells += [new_markdown_cell("### Two"), new_code_cell('check("f: c", c, below=1)')]
    assert list(formulas(notebook)) == [("One", "a=b", [])]
    del notebook.cells[2]
    assert list(formulas(notebook)) == [("One", "a=b", ["f: c"])]


if __name__ == "__main__":
    for path in BETWEEN:
        if path.stem.startswith(tuple(sys.argv[1:]) or ""):
            print(f"\n{path.stem}")
            for (section, words), group in groupby(formulas(read(path)), lambda row: row[::2]):
                print(f"\n  {section}")
                print("".join(f"    {formula}\n" for _, formula, _ in group), end="")
                print(f"      -> {'; '.join(words) or 'NOTHING'}")
