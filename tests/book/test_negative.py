"""The suite checks something: nbval fails when a stored number or a stored word is wrong."""

import copy
import re
import shutil
import subprocess
import sys

import nbformat
import pytest

from conftest import DECIMAL
from tests.book.book import CHAPTERS, ROOT, code_cells, read

WORD = re.compile(r"[A-Za-z]{4,}")


def printed(notebook):
    """The stored texts that nbval compares, as (holder, key)."""
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if output.output_type == "stream":
                yield output, "text"
            elif "text/plain" in output.get("data", {}):
                yield output.data, "text/plain"


def shortest():
    """Some chapter, cut off after the first cell by which a decimal and a word were printed."""
    for path in CHAPTERS:
        notebook = read(path)
        cells = notebook.cells
        for end in range(1, len(cells) + 1):
            notebook.cells = cells[:end]
            stored = [holder[key] for holder, key in printed(notebook)]
            if any(map(DECIMAL.search, stored)) and any(map(WORD.search, stored)):
                return notebook
    pytest.skip("no chapter prints a decimal and a word yet")


def corrupt(notebook, pattern, change):
    """A copy in which the first stored match of the pattern is another one."""
    wrong = copy.deepcopy(notebook)
    for holder, key in printed(wrong):
        if pattern.search(holder[key]):
            holder[key] = pattern.sub(lambda match: change(match[0]), holder[key], count=1)
            return wrong


@pytest.mark.slow
def test_nbval_notices_a_wrong_number_and_a_wrong_word(tmp_path):
    notebook = shortest()
    copies = {
        "right": notebook,
        # 1 % off: ten times the tolerance, so a laxer comparison is caught as well
        "number": corrupt(notebook, DECIMAL, lambda text: f"{1.01 * float(text) + 1e-4:.9f}"),
        "word": corrupt(notebook, WORD, lambda text: text[:-1] + ("x" if text[-1] != "x" else "y")),
    }
    book = tmp_path / "chapters"
    book.mkdir()
    (tmp_path / "tests").mkdir()
    for file in ("conftest.py", "pyproject.toml", "tests/outputs.cfg"):
        shutil.copy(ROOT / file, tmp_path / file)
    for place in ("figures", "chapters/recorded"):
        if (ROOT / place).exists():
            (tmp_path / place).symlink_to(ROOT / place)
    for name, content in copies.items():
        nbformat.write(content, book / f"{name}.ipynb")

    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbval",
        "-rA",
        "--tb=no",
        "-p",
        "no:cacheprovider",
    ]
    run = subprocess.run([*command, book], cwd=tmp_path, capture_output=True, text=True)
    failed = set(re.findall(r"^FAILED chapters/(\w+)\.ipynb", run.stdout, re.MULTILINE))
    passed = set(re.findall(r"^PASSED chapters/(\w+)\.ipynb", run.stdout, re.MULTILINE))
    assert "right" in passed, run.stdout + run.stderr
    assert failed == {"number", "word"}, run.stdout + run.stderr
