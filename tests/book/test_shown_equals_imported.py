"""What a chapter writes out is what som_lite holds: the same syntax tree, docstrings aside.

A name that a chapter defines and som_lite has too must mean the same thing in both. Stubs of
exercises are free.
"""

import ast

import pytest

from tests.book.book import CHAPTERS, ROOT, code_cells, read, tags

DEFINITION = ast.FunctionDef | ast.ClassDef


def without_docstrings(node):
    """The tree as a string; a chapter may explain in prose what the package says in a docstring."""
    for inner in ast.walk(node):
        if isinstance(inner, DEFINITION) and ast.get_docstring(inner, clean=False) is not None:
            inner.body = inner.body[1:] or [ast.Pass()]
    return ast.dump(node)


def definitions(source):
    tree = ast.parse(source)
    return {
        node.name: without_docstrings(node) for node in tree.body if isinstance(node, DEFINITION)
    }


def package():
    """name -> {file: tree} of everything defined at the top of a module of som_lite."""
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
                for name, tree in definitions(cell.source).items():
                    if name in PACKAGE:
                        yield pytest.param(name, tree, id=f"{path.stem}::{name}")


@pytest.mark.parametrize(("name", "tree"), list(shown()))
def test_shown_equals_imported(name, tree):
    files = PACKAGE[name]
    assert tree in files.values(), f"{name} differs from the one in {', '.join(files)}"
