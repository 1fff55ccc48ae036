"""What a chapter writes out is what som_lite holds: the same syntax tree.

A name that a chapter defines and som_lite has too must mean the same thing in both. Docstrings and
the annotations of arguments may differ: a chapter has prose for them. Stubs of exercises are free;
the solution of one is held to the package's code if it has the name of something there.
"""

import ast

import pytest

from tests.book.book import CHAPTERS, ROOT, code_cells, read, tags
from tests.book.test_exercises import exercises

DEFINITION = ast.FunctionDef | ast.ClassDef
HINT = "with_hint"  # the package's decorator that adds a line to an error and changes nothing else


def what_it_does(node):
    """The tree as plain code, without comments and without what only explains."""
    for inner in ast.walk(node):
        if isinstance(inner, DEFINITION) and ast.get_docstring(inner, clean=False) is not None:
            inner.body = inner.body[1:] or [ast.Pass()]
        if isinstance(inner, ast.FunctionDef):
            inner.returns = None
            inner.decorator_list = [d for d in inner.decorator_list if ast.unparse(d) != HINT]
        if isinstance(inner, ast.arg):
            inner.annotation = None
    return ast.unparse(node)


def definitions(source):
    tree = ast.parse(source)
    return {node.name: what_it_does(node) for node in tree.body if isinstance(node, DEFINITION)}


def package():
    """name -> {file: code} of everything defined at the top of a module of som_lite."""
    found = {}
    for file in sorted((ROOT / "som_lite").rglob("*.py")):
        for name, tree in definitions(file.read_text()).items():
            found.setdefault(name, {})[file.relative_to(ROOT).as_posix()] = tree
    return found


PACKAGE = package()


def shown():
    for path in CHAPTERS:
        for cell in code_cells(read(path)):
            if "exercise" not in tags(cell):
                yield from known(path, cell.source)
        for _, solution in exercises(read(path)):
            yield from known(path, solution)


def known(path, source):
    for name, tree in definitions(source).items():
        if name in PACKAGE:
            yield pytest.param(name, tree, id=f"{path.stem}::{name}")


@pytest.mark.parametrize(("name", "tree"), list(shown()))
def test_shown_equals_imported(name, tree):
    files = PACKAGE[name]
    if tree not in files.values():
        theirs = "\n\n".join(f"{file} has\n{code}" for file, code in files.items())
        pytest.fail(f"the chapter shows\n{tree}\n\n{theirs}", pytrace=False)
