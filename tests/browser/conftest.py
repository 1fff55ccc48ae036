"""A browser, a JupyterLab on a copy of the chapters, notebooks with explorers, and static pages."""

import shutil
from pathlib import Path

import nbformat
import pytest

from som_lite.view.explorer import Explorer
from tests.benchmarks.explorer_latency import explorers
from tests.browser.serving import FLAGS, ROOT, chromium, jupyterlab, trust

VIEW = "application/vnd.jupyter.widget-view+json"
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


@pytest.fixture(scope="session")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if chromium() is None:
        pytest.skip("there is no chromium on the PATH")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium(), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    # Tall, so that nothing has to be scrolled into sight.
    page = browser.new_page(viewport={"width": 1200, "height": 2000})
    page.set_default_timeout(120_000)
    yield page
    page.close()


@pytest.fixture
def problems(page):
    """What the page complains of; the test fails if that is anything."""
    found = []
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("console", lambda m: found.append(m.text) if m.type == "error" else None)
    yield found
    assert found == []


@pytest.fixture(scope="session")
def home(tmp_path_factory) -> Path:
    """Where Jupyter keeps its own files."""
    return tmp_path_factory.mktemp("jupyter")


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """A copy of the chapters' notebooks, which a test may run and save, and their pictures."""
    copy = tmp_path_factory.mktemp("book") / "chapters"
    copy.mkdir()
    shutil.copytree(ROOT / "figures", copy.parent / "figures")
    for path in (ROOT / "chapters").glob("*.ipynb"):
        shutil.copy(path, copy)
    return copy


@pytest.fixture(scope="session")
def every_explorer() -> list[Explorer]:
    return explorers()


@pytest.fixture(scope="session")
def live(folder, every_explorer) -> Path:
    """A notebook with the sliders of every explorer of the book, and one canvas; not run yet."""
    code = ["from tests.benchmarks.explorer_latency import explorers\n\nshown = explorers()"]
    code += [f"shown[{k}].box" for k in range(len(every_explorer))] + ["shown[0]"]
    return write(folder / "live.ipynb", [nbformat.v4.new_code_cell(source) for source in code])


@pytest.fixture(scope="session")
def stored(folder, home, every_explorer) -> Path:
    """A trusted notebook with stored explorers, one of which moves on a canvas."""
    cells = []
    for explorer in (every_explorer[0], every_explorer[-1]):
        data = explorer._repr_mimebundle_()
        data.pop(VIEW, None)  # as `make book` does
        output = nbformat.v4.new_output("execute_result", data, execution_count=1)
        cells.append(nbformat.v4.new_code_cell("1 / 0", outputs=[output], execution_count=1))
    path = write(folder / "stored.ipynb", cells)
    trust(path, home)
    return path


def write(path: Path, cells: list) -> Path:
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata.kernelspec = KERNEL
    nbformat.write(notebook, path)
    return path


@pytest.fixture(scope="session")
def lab(folder, home):
    """The address of a JupyterLab that serves the copy."""
    with jupyterlab(folder.parent, home) as address:
        yield address
