"""How long does a reader wait on screen, from the key press on a slider to the new picture?

    python -m tests.benchmarks.explorer_on_screen [--moves 20]

A JupyterLab with the server setting of `make read`, a headless Chromium, every explorer's first
slider. Measured in the page: from the keydown event to the new image, decoded. A line gives moves,
median and greatest milliseconds; with --without-setting, as an unchanged Jupyter server gives them.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import nbformat
from playwright.sync_api import Page, sync_playwright

from tests.benchmarks.explorer_latency import explorers
from tests.browser.serving import FLAGS, READY, RUN_ALL, chromium, jupyterlab

WATCH = """image => {
    window.waits = [];
    let pressed = null;
    document.addEventListener("keydown", () => { pressed = performance.now(); }, true);
    new MutationObserver(() => image.decode().then(() => {
        if (pressed !== null) window.waits.push(performance.now() - pressed);
        pressed = null;
    })).observe(image, { attributes: true, attributeFilter: ["src"] });
}"""


def notebook(path: Path, count: int) -> None:
    code = ["from tests.benchmarks.explorer_latency import explorers\n\nshown = explorers()"]
    code += [f"shown[{k}].box" for k in range(count)]
    cells = [nbformat.v4.new_code_cell(source) for source in code]
    made = nbformat.v4.new_notebook(cells=cells)
    made.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(made, path)


def waits(page: Page, k: int, moves: int) -> list[float]:
    """Milliseconds of every move of the k-th explorer's first slider, to and fro."""
    explorer = page.locator(".som-explorer").nth(k)
    explorer.scroll_into_view_if_needed()
    explorer.locator("img").first.evaluate(WATCH)
    handle = explorer.locator(".noUi-handle").first
    for move in range(moves):
        handle.press("ArrowRight" if move % 2 else "ArrowLeft")
        page.wait_for_function("n => window.waits.length > n", arg=move)
        page.wait_for_timeout(30)
    return page.evaluate("window.waits")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moves", type=int, default=20)
    parser.add_argument("--without-setting", action="store_true", help="an unchanged server")
    options = parser.parse_args()
    names = [explorer.name for explorer in explorers()]
    with tempfile.TemporaryDirectory() as place, sync_playwright() as driver:
        folder, home = Path(place, "book"), Path(place, "jupyter")
        folder.mkdir()
        home.mkdir()
        notebook(folder / "explorers.ipynb", len(names))
        browser = driver.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.set_default_timeout(120_000)
        with jupyterlab(folder, home, configured=not options.without_setting) as address:
            page.goto(f"{address}/lab/tree/explorers.ipynb?reset")
            page.wait_for_function(READY)
            page.evaluate(RUN_ALL)
            page.wait_for_function("() => window.finished")
            print(f"{'first slider of':50} {'n':>3} {'median':>7} {'max':>7}")
            for k, name in enumerate(names):
                times = waits(page, k, options.moves)
                print(f"{name:50} {len(times):3} {statistics.median(times):7.1f} {max(times):7.1f}")
        browser.close()


if __name__ == "__main__":
    main()
