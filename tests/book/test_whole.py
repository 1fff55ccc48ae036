"""The book as a whole: each text has its notebook, and the pages outside the chapters hold."""

import copy
import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from chapters import make
from chapters.make import cells, keep_timings, normalise, renew_prose
from tests.book.book import CHAPTERS, ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


def test_texts_and_notebooks_pair():
    texts = {path.stem for path in (ROOT / "chapters" / "text").glob("*.py")}
    assert texts == {path.stem for path in CHAPTERS}, "run `make book`"
    assert not (ROOT / "chapters" / "text" / "text").exists(), "a stray pair of a pair"


def test_readme_links_every_chapter():
    readme = PAGES[0].read_text()
    for chapter in CHAPTERS:
        assert f"(chapters/{chapter.name})" in readme, f"README does not link {chapter.name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for picture, words, target in re.findall(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)", text):
        assert words.strip(), f"no {'alt text' if picture else 'words'}: {target}"
        if not re.match(r"[a-z]+:|#", target):
            assert (ROOT / target.split("#")[0]).exists(), f"no such file: {target}"


def test_a_folded_cell_opens_collapsed_and_has_the_cells_of_its_text():
    text = new_notebook(cells=[new_code_cell("draw()", metadata={"tags": ["hide-input"]})])
    stored = nbformat.reads(normalise(copy.deepcopy(text)), 4)
    assert stored.cells[0].metadata.jupyter == {"source_hidden": True}
    assert cells(stored) == cells(text)
    again = nbformat.reads(normalise(copy.deepcopy(stored)), 4)
    assert again == stored


def timed(source, words, milliseconds, tags=("timing",)):
    """A notebook of one cell that shows a time in its HTML."""
    data = {"text/plain": words, "text/html": f"{words} {milliseconds}"}
    output = new_output("display_data", data)
    return new_notebook(cells=[new_code_cell(source, outputs=[output], metadata={"tags": tags})])


@pytest.mark.parametrize(
    ("new", "kept"),
    [
        (timed("f()", "fast", 2), True),
        (timed("f()", "slow", 2), False),  # the words changed: that is news
        (timed("g()", "fast", 2), False),
        (timed("f()", "fast", 2, tags=()), False),
    ],
)
def test_a_rebuild_keeps_times_but_no_news(new, kept):
    stored = timed("f()", "fast", 1)
    keep_timings(new, stored)
    assert (new.cells[0].outputs == stored.cells[0].outputs) == kept


def test_changed_prose_keeps_outputs_and_changed_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(make, "HERE", tmp_path)
    text, path = tmp_path / "text" / "01_short.py", tmp_path / "01_short.ipynb"
    text.parent.mkdir()
    code = new_code_cell("print(1)", outputs=[new_output("stream", text="1\n")])
    path.write_text(normalise(new_notebook(cells=[new_markdown_cell("old"), code])))
    text.write_text("# %% [markdown]\n# new\n\n# %%\nprint(1)\n")
    renew_prose(text)
    found = nbformat.read(path, 4).cells
    assert found[0].source == "new" and found[1].outputs[0].text == "1\n"
    before = path.read_bytes()
    text.write_text("# %% [markdown]\n# newer\n\n# %%\nprint(2)\n")
    with pytest.raises(SystemExit, match="its code has changed"):
        renew_prose(text)
    assert path.read_bytes() == before
