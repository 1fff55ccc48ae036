"""Static figures: each file has its function, a title, and bytes that do not change."""

import pytest

from figures.make import FIGURES, HERE, save


def test_every_file_is_drawn_by_a_function():
    assert {path.stem for path in HERE.glob("*.svg")} == set(FIGURES), "run `make figures`"


@pytest.mark.parametrize("name", FIGURES)
def test_figure_has_a_title_and_redraws_to_the_same_bytes(name, tmp_path):
    (tmp_path / "again").mkdir()
    first, again = save(name, tmp_path), save(name, tmp_path / "again")
    assert first.read_bytes() == again.read_bytes()
    assert "<title>" in first.read_text()
    assert "<title>" in (HERE / first.name).read_text(), "run `make figures`"
