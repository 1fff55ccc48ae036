"""Static figures: each file has its function, a title, and bytes that do not change."""

import re

import pytest

from figures.make import FIGURES, HERE, save

KB = 2**10


def elements(path):
    """What is drawn, in order, without the numbers: another machine may round them differently."""
    return re.findall(r"<[\w:]+", path.read_text())


def test_every_file_is_drawn_by_a_function():
    assert {path.stem for path in HERE.glob("*.svg")} == set(FIGURES), "run `make figures`"


@pytest.mark.parametrize("name", FIGURES)
def test_figure_has_a_title_and_redraws_to_the_same_bytes(name, tmp_path):
    (tmp_path / "again").mkdir()
    first, again = save(name, tmp_path), save(name, tmp_path / "again")
    assert first.read_bytes() == again.read_bytes()
    assert "<title>" in first.read_text()
    assert first.stat().st_size <= 150 * KB, "fewer levels, fewer points?"
    stored = HERE / first.name
    assert elements(first) == elements(stored), "a new figure or a new run: `make figures`"
    assert "<title>" in stored.read_text()
