import base64
import io
import math

import pytest
import torch
from PIL import Image

from som_lite.view import notebook


@pytest.fixture
def shown(monkeypatch):
    """What the notebook would display, as a list of MIME bundles."""
    bundles = []
    monkeypatch.setattr(notebook, "display", lambda bundle, raw: bundles.append(bundle))
    return bundles


def test_show_stores_picture_alt_text_and_stable_text(shown, plane_figure):
    notebook.show(plane_figure, 'Two "modes" & noise')
    (bundle,) = shown
    assert bundle["text/plain"] == 'Figure: Two "modes" & noise'
    assert 'alt="Two &quot;modes&quot; &amp; noise"' in bundle["text/html"]
    png = base64.b64decode(bundle["image/png"])
    picture = Image.open(io.BytesIO(png))
    assert picture.size == (300, 300)
    assert "Software" not in picture.info  # matplotlib's version would change the stored bytes


def test_show_wants_a_description(shown, plane_figure):
    with pytest.raises(ValueError, match="description"):
        notebook.show(plane_figure, "  ")


def test_measured_numbers_are_seen_and_not_compared(shown):
    notebook.measured("counts per goal", "SOM  50 < 51")
    assert shown == [
        {"text/html": "<pre>SOM  50 &lt; 51</pre>", "text/plain": "counts per goal"},
    ]
    with pytest.raises(ValueError, match="what"):
        notebook.measured(" ", "1")


def test_folded_text_is_compared(shown):
    notebook.fold("the command", "som-lite train --env A&B")
    (bundle,) = shown
    assert bundle["text/plain"] == "the command: som-lite train --env A&B"
    assert bundle["text/html"].startswith("<details><summary>the command</summary>")
    assert "A&amp;B" in bundle["text/html"]


def test_check_keeps_the_value_out_of_the_compared_text(shown):
    notebook.check("error of u", torch.tensor(0.0123), below=0.05)
    (bundle,) = shown
    assert bundle["text/plain"] == "✓ error of u < 0.05"
    assert "0.0123" in bundle["text/html"]


def test_check_with_two_bounds_and_above(shown):
    notebook.check("mass", 1.002, above=0.99, below=1.01)
    notebook.check("return", 5000, above=4000)
    assert [b["text/plain"] for b in shown] == ["✓ 0.99 < mass < 1.01", "✓ 4000 < return"]


@pytest.mark.parametrize("value", [0.2, 0.1, math.nan, math.inf])
def test_check_fails_with_the_value_and_the_bound(shown, value):
    with pytest.raises(AssertionError, match=r"error = .*expected error < 0\.1"):
        notebook.check("error", value, below=0.1)
    assert shown == []


def test_check_nan_fails_above_too(shown):
    with pytest.raises(AssertionError, match="nan"):
        notebook.check("return", math.nan, above=0.0)


def test_check_needs_a_bound():
    with pytest.raises(ValueError, match="bound"):
        notebook.check("error", 0.1)


def described(x):
    """One line."""
    y = x + 1
    return y


def test_listing_numbers_the_lines_that_have_a_note(shown):
    notebook.listing(described, {"y = x": "Add **one**.", "return": "Hand it back."})
    (bundle,) = shown
    assert bundle["text/plain"] == bundle["text/markdown"]
    lines = bundle["text/plain"].splitlines()
    assert lines[0] == "```python"
    assert lines[1] == "def described(x):"
    assert lines[3] == "    y = x + 1  # (1)"
    assert lines[4] == "    return y  # (2)"
    assert lines[-2:] == ["1. Add **one**.", "2. Hand it back."]


@pytest.mark.parametrize("piece", ["y = x + 2", "y"])
def test_listing_refuses_a_note_that_fits_no_line_or_several(shown, piece):
    with pytest.raises(ValueError, match="must fit one line of described"):
        notebook.listing(described, {piece: "?"})
    assert shown == []


def test_relative_times_take_turns_and_tell_work_apart():
    order = []

    def work(name, n):
        order.append(name)
        return sum(range(n))

    times = notebook.relative_times(
        {"one": lambda: work("one", 20_000), "three": lambda: work("three", 60_000)}, 7, 2
    )
    assert order == ["one", "one", "three", "three"] * 8
    # three times the work; the processor's clock and the loop's overhead leave some per cent
    assert times["one"] == 1 and 2 < times["three"] < 4.5
