"""Every exercise's stub fails its check and its solution passes it.

The form of an exercise, inside the section `## Exercises` (layout of one in CONTRIBUTING.md):

1. markdown, starting `### Title · ●●○ · 10 min`: the task, its difficulty and its time;
2. one code cell tagged `exercise` and `raises-exception`: the stub, functions or classes that
   `raise NotImplementedError`, and the check that calls them;
3. markdown with `<details><summary>Hint</summary>`;
4. markdown with `<details><summary>Solution</summary>` that holds a ```python block defining the
   stub's names again.

The central function of a chapter has the same form in the section that teaches it: the reader
writes it there, its check compares it with the package's, and its solution is the package's code.

Here each chapter runs once more with every stub replaced by its solution. In that same run, before
each solution, the check meets the answers of `answers/<chapter>.py`: wrong ones, which it must
reject, and right ones in another form than the solution, which it must accept:

    # %% 2 | wrong | forgets to noise the point
    def repaired_loss(v, a0, eps, t):
        ...

the number of the exercise in the chapter, `wrong` or `right`, why; then what replaces the stub's
definitions. After an answer the kernel's names and random generators are put back.
"""

import ast
import re
from dataclasses import dataclass
from itertools import pairwise

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from chapters.make import execute
from tests.book.book import CHAPTERS, ROOT, code_cells, read, section, tags

ANSWERS = ROOT / "tests" / "book" / "answers"
AT_LEAST = {"wrong": 3, "right": 2}

TITLE = re.compile(r"### (?:(\d+)\. )?.+ · (●○○|●●○|●●●) · \d+ min")
HEADER = re.compile(r"# %% (\d+) \| (wrong|right) \| (\S.*)")
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


@dataclass(frozen=True)
class Answer:
    exercise: int
    verdict: str
    why: str
    code: str

    def __str__(self):
        return f"exercise {self.exercise}, {self.verdict} answer ({self.why})"


def answers(text):
    """[Answer] of the text of an answers file; ValueError names a header that is none."""
    found = []
    first, *blocks = re.split(r"^(?=# ?%%)", text, flags=re.MULTILINE)
    if any(isinstance(node, DEFINITION) for node in ast.parse(first).body):
        raise ValueError("a definition before the first '# %% number | wrong or right | why'")
    for block in blocks:
        line, _, code = block.partition("\n")
        header = HEADER.fullmatch(line.rstrip())
        if not header:
            raise ValueError(f"not of the form '# %% number | wrong or right | why': {line}")
        found.append(Answer(int(header[1]), header[2], header[3], code))
    return found


def answers_to(path):
    file = ANSWERS / f"{path.stem}.py"
    return answers(file.read_text()) if file.exists() else []


def solve(stub, solution):
    """The stub's cell with the solution in place of the definitions that it replaces."""
    solved = {node.name for node in ast.parse(solution).body if isinstance(node, DEFINITION)}
    tree = ast.parse(stub)
    stubs = {node.name for node in tree.body if isinstance(node, DEFINITION)}
    assert stubs and stubs <= solved, f"the solution does not define {stubs - solved or 'anything'}"
    rest = [node for node in tree.body if getattr(node, "name", None) not in stubs]
    assert rest, f"no check after the stub:\n{stub}"
    return solution + "\n" + ast.unparse(ast.Module(rest, []))


# Runs in the chapter's kernel, around each answer.
REMEMBER = """
def _generators():
    import torch

    return [x for x in globals().values() if isinstance(x, torch.Generator)]


def _remember():
    import numpy, torch

    names = {k: v for k, v in globals().items() if not k.startswith("_")}
    states = [(g, g.get_state()) for g in [*_generators(), torch.default_generator]]
    return names, states, numpy.random.get_state()


def _put_back(names, states, numpys):
    import numpy

    for name in [k for k in globals() if not k.startswith("_") and k not in names]:
        del globals()[name]
    globals().update(names)
    for generator, state in states:
        generator.set_state(state)
    numpy.random.set_state(numpys)
"""


def with_answers(notebook, given):
    """Solutions in place of stubs, and each answer in cells before; [(answer, its cell)]."""
    wanted = [cell for cell, _ in exercises(notebook)]
    solutions = [solution for _, solution in exercises(notebook)]
    cells, tried = [new_code_cell(REMEMBER)] if given else [], []
    for cell in notebook.cells:
        number = next((k for k, stub in enumerate(wanted, 1) if stub is cell), None)
        if number:
            for answer in [one for one in given if one.exercise == number]:
                trial = new_code_cell(solve(cell.source, answer.code))
                trial.metadata["tags"] = ["raises-exception"]
                before = new_code_cell("_before = _remember()")
                cells += [before, trial, new_code_cell("_put_back(*_before)")]
                tried.append((answer, trial))
            cell.source = solve(cell.source, solutions[number - 1])
            cell.metadata["tags"] = ["exercise"]  # now an error is an error
        cells.append(cell)
    notebook.cells = cells
    return tried


# An answer that ends in one of these did not reach the check, or is no answer.
NO_VERDICT = {"NotImplementedError", "SyntaxError", "NameError", "ImportError"}


def misjudged(tried):
    """A line for every answer whose check said the contrary, or nothing."""
    wrongly = []
    for answer, cell in tried:
        error = next((o for o in cell.outputs if o.output_type == "error"), None)
        said = f"{error.ename}: {error.evalue}" if error else "was accepted"
        if error and (answer.verdict == "right" or error.ename in NO_VERDICT):
            wrongly.append(f"{answer}: {said}")
        elif not error and answer.verdict == "wrong":
            wrongly.append(f"{answer}: {said}")
    return wrongly


@with_exercises
def test_form(path):
    notebook = read(path)
    cells = section(notebook, "Exercises")
    starts = [at for at, cell in enumerate(cells) if cell.source.startswith("###")]
    assert starts, "no exercise"
    for start, end in pairwise([*starts, len(cells)]):
        form_of_one(cells[start:end])
    # Elsewhere: the functions that the reader writes where they are taught.
    inside = {cell.id for cell in cells}
    for at, cell in enumerate(notebook.cells):
        if "exercise" in tags(cell) and cell.id not in inside:
            form_of_one(notebook.cells[at - 1 : at + 3])
    titles = [title for cell in notebook.cells if (title := TITLE.match(cell.source))]
    assert len(titles) == len(exercises(notebook)), "each exercise under its own ### title"
    for place, title in enumerate(titles, 1):
        assert title[1] in (None, str(place)), f"number {place} in the chapter: {title[0]}"


def form_of_one(cells):
    task, stub, hint, solution, *_ = cells + [None] * 4
    title = task.source.splitlines()[0]
    assert TITLE.fullmatch(title), f"not of the form '### Title · ●●○ · 10 min': {title}"
    assert stub and {"exercise", "raises-exception"} <= set(tags(stub)), f"no stub: {title}"
    assert hint and HINT.search(hint.source), f"no hint: {title}"
    assert solution and SOLUTION.search(solution.source), f"no solution: {title}"


@with_exercises
def test_stub_fails_its_check(path):
    for cell, _ in exercises(read(path)):
        errors = [o.ename for o in cell.outputs if o.output_type == "error"]
        assert errors == ["NotImplementedError"], f"{errors} from\n{cell.source}"


@with_exercises
def test_there_are_answers_to_every_exercise(path):
    given = answers_to(path)
    found = exercises(read(path))
    strangers = [str(one) for one in given if not 1 <= one.exercise <= len(found)]
    assert not strangers, f"{path.stem} has {len(found)} exercises, not {strangers}"
    for number, (stub, solution) in enumerate(found, 1):
        for verdict, least in AT_LEAST.items():
            mine = [a for a in given if (a.exercise, a.verdict) == (number, verdict)]
            codes = {ast.unparse(ast.parse(one.code)) for one in mine}
            assert len(codes) >= least, f"exercise {number}: {len(codes)} {verdict} answers"
            assert ast.unparse(ast.parse(solution)) not in codes, f"exercise {number}: {stub}"


@with_exercises
@pytest.mark.slow
def test_checks_accept_solutions_and_right_answers_and_reject_wrong_ones(path):
    notebook = read(path)
    tried = with_answers(notebook, answers_to(path))
    execute(notebook)
    assert all(cell.execution_count for cell in code_cells(notebook))
    if wrongly := misjudged(tried):
        pytest.fail("\n".join(f"{path.stem}, {line}" for line in wrongly), pytrace=False)


TOY_ANSWERS = """
# %% 1 | wrong | adds
def half(x):
    global share
    share = 1  # would let the next answer pass
    return x + share * rand()


# %% 1 | wrong | does nothing, and the check cannot see it
def half(x):
    return x


# %% 1 | right | multiplies
def half(x):
    return x * share


# %% 1 | right | is wrong
def half(x):
    return x / 3


# %% 1 | wrong | cannot run
def half(x):
    return undefined(x)
"""


def test_harness_tells_which_answer_was_misjudged_and_puts_the_kernel_back():
    first = """
import torch
share, generator = 0.5, torch.Generator().manual_seed(0)
def rand():
    return float(torch.rand(1, generator=generator))
"""
    stub = """
def half(x):
    raise NotImplementedError
helper = 3
assert half(0) == 0 and half(4) in (2, 4)
"""
    later = "assert 'helper' in globals() and share == 0.5\nprint(rand())"
    code = "```python\ndef half(x):\n    return x / 2\n```"
    solution = f"<details><summary>Solution</summary>\n\n{code}\n\n</details>"
    notebook = new_notebook(
        cells=[
            new_code_cell(first),
            new_code_cell(stub, metadata={"tags": ["exercise", "raises-exception"]}),
            new_markdown_cell("hint"),
            new_markdown_cell(solution),
            new_code_cell(later),
        ]
    )
    tried = with_answers(notebook, answers(TOY_ANSWERS))
    execute(notebook)
    found = misjudged(tried)
    assert [line.split(":")[0] for line in found] == [
        "exercise 1, wrong answer (does nothing, and the check cannot see it)",
        "exercise 1, right answer (is wrong)",
        "exercise 1, wrong answer (cannot run)",
    ]
    # The first wrong answer drew a number; the generator has forgotten it.
    assert notebook.cells[-1].outputs[0].text.startswith("0.496")


@pytest.mark.parametrize("text", ["# %% 1 | maybe | why\n", "# %% wrong\n", "def early(): ...\n"])
def test_a_header_that_is_none_is_named(text):
    with pytest.raises(ValueError, match="wrong or right"):
        answers(text)
