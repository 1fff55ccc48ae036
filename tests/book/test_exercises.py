"""Every exercise's stub fails its check and its solution passes it.

The form of an exercise, inside the section `## Exercises` (layout of one in CONTRIBUTING.md):

1. markdown, starting `### Title · ●●○ · 10 min`: the task, its difficulty and its time;
2. one code cell tagged `exercise` and `raises-exception`: the stub, functions or classes that
   `raise NotImplementedError`, and the check that calls them;
3. markdown with `<details><summary>Hint</summary>`;
4. markdown with `<details><summary>Solution</summary>` that holds a ```python block defining the
   stub's names again.

Here each chapter runs once more with every stub replaced by its solution.
"""

import ast
import re
from itertools import pairwise

import pytest

from chapters.make import execute
from tests.book.book import CHAPTERS, code_cells, read, section, tags

TITLE = re.compile(r"### .+ · (●○○|●●○|●●●) · \d+ min")
HINT = re.compile(r"<details>\s*<summary>Hint</summary>.+</details>", re.DOTALL)
SOLUTION = re.compile(
    r"<details>\s*<summary>Solution</summary>.*?```python\n(.*?)```.*?</details>", re.DOTALL
)
DEFINITION = ast.FunctionDef | ast.ClassDef

with_exercises = pytest.mark.parametrize(
    "path",
    [path for path in CHAPTERS if section(read(path), "Exercises")],
    ids=lambda path: path.stem,
)


def exercises(notebook):
    """[(stub cell, source of its solution)] in reading order."""
    found = []
    for at, cell in enumerate(notebook.cells):
        if "exercise" in tags(cell):
            after = notebook.cells[at + 2 : at + 3]
            solution = SOLUTION.search(after[0].source) if after else None
            assert solution, f"no solution two cells after\n{cell.source}"
            found.append((cell, solution[1]))
    return found


def solve(stub, solution):
    """The stub's cell with the solution in place of the definitions that it replaces."""
    solved = {node.name for node in ast.parse(solution).body if isinstance(node, DEFINITION)}
    tree = ast.parse(stub)
    stubs = {node.name for node in tree.body if isinstance(node, DEFINITION)}
    assert stubs and stubs <= solved, f"the solution does not define {stubs - solved or 'anything'}"
    rest = [node for node in tree.body if getattr(node, "name", None) not in stubs]
    assert rest, f"no check after the stub:\n{stub}"
    return solution + "\n" + ast.unparse(ast.Module(rest, []))


@with_exercises
def test_form(path):
    cells = section(read(path), "Exercises")
    starts = [at for at, cell in enumerate(cells) if cell.source.startswith("###")]
    assert starts, "no exercise"
    for start, end in pairwise([*starts, len(cells)]):
        task, stub, hint, solution, *_ = cells[start:end] + [None] * 4
        title = task.source.splitlines()[0]
        assert TITLE.fullmatch(title), f"not of the form '### Title · ●●○ · 10 min': {title}"
        assert stub and {"exercise", "raises-exception"} <= set(tags(stub)), f"no stub: {title}"
        assert hint and HINT.search(hint.source), f"no hint: {title}"
        assert solution and SOLUTION.search(solution.source), f"no solution: {title}"
    assert len(starts) == len(exercises(read(path))), "each exercise under its own ### title"


@with_exercises
def test_stub_fails_its_check(path):
    for cell, _ in exercises(read(path)):
        errors = [o.ename for o in cell.outputs if o.output_type == "error"]
        assert errors == ["NotImplementedError"], f"{errors} from\n{cell.source}"


@with_exercises
def test_solution_passes_its_check(path):
    notebook = read(path)
    for cell, solution in exercises(notebook):
        cell.source = solve(cell.source, solution)
        # Now an error is an error.
        cell.metadata["tags"] = ["exercise"]
    execute(notebook)
    assert all(cell.execution_count for cell in code_cells(notebook))
