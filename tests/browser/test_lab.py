"""What a reader of notebooks sees: live sliders in JupyterLab, and stored ones before."""

import nbformat
import pytest

from chapters.make import FOLDED
from tests.book.book import CHAPTERS
from tests.browser.serving import READY, RUN_ALL

pytestmark = pytest.mark.browser

WITH_EXPLORER = [path.name for path in CHAPTERS if '"Explorer: ' in path.read_text("utf-8")]
OUTPUTS = """() => jupyterapp.shell.currentWidget.content.widgets
    .filter(cell => cell.model.type === "code")
    .flatMap(cell => cell.model.outputs.toJSON().map(o => [o.output_type, o.name ?? ""]))"""


def open_notebook(page, lab, name) -> None:
    page.goto(f"{lab}/lab/tree/chapters/{name}?reset")
    page.wait_for_selector(".jp-Notebook")


@pytest.mark.parametrize("name", WITH_EXPLORER)
def test_untrusted_chapter_shows_the_still_with_words(page, problems, lab, folder, name):
    """A fresh copy is untrusted: no script runs, the sanitised picture and its alt text remain."""
    stored = nbformat.read(folder / name, as_version=4)
    words = [
        output.data["text/plain"].removeprefix("Explorer: ")
        for cell in stored.cells
        for output in cell.get("outputs", [])
        if output.get("data", {}).get("text/plain", "").startswith("Explorer: ")
    ]
    open_notebook(page, lab, name)
    for alt in words:
        picture = page.get_by_alt_text(alt, exact=True).first
        picture.wait_for()
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 300
    assert page.locator(".jp-OutputArea-output canvas").count() == 0
    assert page.locator(".jp-OutputArea-output script").count() == 0


def test_code_that_only_draws_opens_collapsed(page, problems, lab, folder):
    stored = nbformat.read(folder / "01_flow_matching.ipynb", as_version=4)
    folded = [cell for cell in stored.cells if FOLDED in cell.metadata.get("tags", [])]
    open_notebook(page, lab, "01_flow_matching.ipynb")
    placeholders = page.locator(".jp-CodeCell .jp-InputPlaceholder")
    placeholders.nth(len(folded) - 1).wait_for()
    assert placeholders.count() == len(folded) > 0
    placeholders.first.click()  # as a reader does who wants to see how it is drawn
    page.wait_for_function(
        "n => document.querySelectorAll('.jp-CodeCell .jp-InputPlaceholder').length === n",
        arg=len(folded) - 1,
    )


def test_trusted_notebook_moves_before_anything_runs(page, problems, lab, stored):
    open_notebook(page, lab, stored.name)
    figure = page.locator("figure:has(canvas)")
    figure.wait_for()
    words = figure.locator("[aria-live]").inner_text
    before = words()
    figure.locator("canvas[tabindex]").press("ArrowDown")  # which elsewhere moves between cells
    assert words() != before
    assert figure.locator("canvas[tabindex]").evaluate("c => c === document.activeElement")
    book = page.locator("figure:has(img)")
    picture = book.locator("img").get_attribute("src")
    book.get_by_role("slider").press("ArrowLeft")
    assert book.locator("img").get_attribute("src") != picture


def test_every_slider_of_every_explorer_answers_the_keyboard(
    page, problems, lab, live, every_explorer
):
    open_notebook(page, lab, live.name)
    page.wait_for_function(READY)  # earlier, running opens a dialog that asks for a kernel
    page.evaluate(RUN_ALL)
    page.wait_for_function("() => window.finished")
    shown = page.locator(".som-explorer")
    assert shown.count() == len(every_explorer)
    for k in range(shown.count()):
        explorer = shown.nth(k)
        image = explorer.locator("img").first
        image.wait_for()
        handles = explorer.locator(".noUi-handle")
        for index in range(handles.count()):
            before = image.get_attribute("src")
            # From the end of a slider one of the two keys does nothing.
            handles.nth(index).press("ArrowLeft")
            handles.nth(index).press("ArrowLeft")
            handles.nth(index).press("ArrowRight")
            page.wait_for_function(
                "([image, old]) => image.src !== old", arg=[image.element_handle(), before]
            )
        assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 300
        assert "failed" not in explorer.inner_text()
    for kind, name in page.evaluate(OUTPUTS):
        assert kind != "error" and name != "stderr"
    assert_play_runs(page, shown.first)
    assert_canvas_is_live(page)


def assert_canvas_is_live(page):
    """Shown whole, the field of chapter 01 is its canvas, with a kernel as without."""
    canvas = page.locator("figure canvas[tabindex]")
    canvas.wait_for()
    words = page.locator("figure [aria-live]").inner_text
    before = words()
    canvas.press("ArrowDown")
    assert words() != before


def assert_play_runs(page, explorer):
    """The field of chapter 01 has a play button."""
    image = explorer.locator("img").first
    seen = [image.get_attribute("src")]
    explorer.locator(".widget-play button").first.press("Enter")
    for _ in range(3):
        page.wait_for_function(
            "([image, seen]) => !seen.includes(image.src)", arg=[image.element_handle(), seen]
        )
        seen.append(image.get_attribute("src"))
