"""What a reader sees: sliders in a real JupyterLab, and pages without a kernel or a network."""

import nbformat
import pytest

pytestmark = pytest.mark.browser

KERNEL = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel"
READY = f"() => {KERNEL}?.status === 'idle'"
RUN_ALL = """() => {
    jupyterapp.commands.execute("notebook:run-all-cells").then(() => { window.finished = true; });
}"""
OUTPUTS = """() => jupyterapp.shell.currentWidget.content.widgets
    .filter(cell => cell.model.type === "code")
    .map(cell => ({
        tags: cell.model.getMetadata("tags") ?? [],
        outputs: cell.model.outputs.toJSON().map(o => [o.output_type, o.name ?? o.evalue ?? ""]),
    }))"""


def open_notebook(page, lab, notebook) -> None:
    page.goto(f"{lab}/lab/tree/{notebook.name}?reset")
    page.wait_for_selector(".jp-Notebook")
    # Earlier, running opens a dialog that asks for a kernel.
    page.wait_for_function(READY)


def test_stored_explorer_is_a_picture_with_words_before_anything_runs(page, lab, notebook):
    """A fresh copy is untrusted: no script runs, the sanitised picture and its alt text remain."""
    open_notebook(page, lab, notebook)
    picture = page.locator(".jp-OutputArea-output figure img, .jp-OutputArea-output img").first
    picture.wait_for()
    assert len(picture.get_attribute("alt")) > 40
    assert picture.evaluate("image => image.complete && image.naturalWidth") > 300


def test_slider_moves_the_picture(page, lab, notebook):
    open_notebook(page, lab, notebook)
    page.evaluate(RUN_ALL)
    page.wait_for_function("() => window.finished")
    explorer = page.locator(".som-explorer").first
    image, handle = explorer.locator("img").first, explorer.locator(".noUi-handle").first
    image.wait_for()
    before = image.get_attribute("src")
    handle.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function(
        "([image, old]) => image.src !== old", arg=[image.element_handle(), before]
    )

    assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 300
    assert "failed" not in explorer.inner_text()
    for cell in page.evaluate(OUTPUTS):
        if "raises-exception" not in cell["tags"]:
            kinds = {kind for kind, _ in cell["outputs"]}
            assert "error" not in kinds and ["stream", "stderr"] not in cell["outputs"]


def test_exported_page_moves_offline(page, notebook, tmp_path):
    exporter = pytest.importorskip("nbconvert").HTMLExporter()
    html, _ = exporter.from_notebook_node(nbformat.read(notebook, as_version=4))
    path = tmp_path / "page.html"
    path.write_text(html, encoding="utf-8")
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if is_error(message) else None)
    page.route("**/*", lambda route: route.continue_() if is_local(route) else route.abort())

    page.goto(path.as_uri())
    figure = page.locator("figure:has(input[type=range])").first
    image, handle = figure.locator("img"), figure.locator("input")
    before = image.get_attribute("src")
    caption = figure.locator("output").inner_text()
    handle.focus()
    page.keyboard.press("ArrowRight")
    assert image.get_attribute("src") != before
    assert figure.locator("output").inner_text() != caption
    assert len(image.get_attribute("alt")) > 40 and handle.get_attribute("aria-label")
    assert problems == []


def is_local(route) -> bool:
    return not route.request.url.startswith("http")


def is_error(message) -> bool:
    """An error other than that a blocked address (MathJax, for one) did not load."""
    return message.type == "error" and "Failed to load resource" not in message.text
