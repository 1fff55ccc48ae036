"""A browser, a JupyterLab on a copy of the chapters, and a notebook with an explorer in it."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
).split()
VIEW = "application/vnd.jupyter.widget-view+json"
# Every cell of a notebook is in the page, also those out of sight.
SETTINGS = {"@jupyterlab/notebook-extension/tracker": '{"windowingMode": "none"}'}

STAND_IN = """\
from som_lite.flow.densities import three_modes
from som_lite.flow.paths import Linear
from som_lite.view.explorers import average_velocity_explorer

target = three_modes()
explorer = average_velocity_explorer(
    lambda a, t: target.velocity(a, t, Linear()), log_prob=target.log_prob
)
explorer"""


@pytest.fixture(scope="session")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("there is no chromium on the PATH")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    # Tall, so that nothing has to be scrolled into sight.
    page = browser.new_page(viewport={"width": 1200, "height": 2000})
    page.set_default_timeout(120_000)
    yield page
    page.close()


@pytest.fixture(scope="session")
def chapters(tmp_path_factory) -> Path:
    """A copy of the chapters, which a test may run and save."""
    copy = tmp_path_factory.mktemp("book") / "chapters"
    shutil.copytree(ROOT / "chapters", copy)
    return copy


@pytest.fixture(scope="session")
def notebook(chapters) -> Path:
    """The first chapter that stores an explorer, or a small notebook that does."""
    for path in sorted(chapters.glob("*.ipynb"), key=lambda p: not p.name.startswith("02")):
        if '"Explorer: ' in path.read_text(encoding="utf-8"):
            return path
    names = {}
    exec(STAND_IN, names)
    data = names["explorer"]._repr_mimebundle_()
    del data[VIEW]  # as `make book` does
    output = nbformat.v4.new_output("execute_result", data, execution_count=1)
    cell = nbformat.v4.new_code_cell(STAND_IN, outputs=[output], execution_count=1)
    nb = nbformat.v4.new_notebook(cells=[cell])
    nb.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nb, chapters / "explorer.ipynb")
    return chapters / "explorer.ipynb"


@pytest.fixture(scope="session")
def lab(chapters, tmp_path_factory):
    """The address of a JupyterLab that serves the copy, with settings and files of its own."""
    home = tmp_path_factory.mktemp("jupyter")
    for plugin, settings in SETTINGS.items():
        file = home / "settings" / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(settings)
    folders = {"CONFIG_DIR": "config", "DATA_DIR": "data", "RUNTIME_DIR": "runtime"}
    environment = os.environ | {f"JUPYTER_{key}": str(home / folders[key]) for key in folders}
    environment |= {
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    port = free_port()
    address = f"http://localhost:{port}"
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        f"--ServerApp.root_dir={chapters}",
        "--IdentityProvider.token=",
        "--LabApp.expose_app_in_browser=True",
    ]
    config = ROOT / "chapters" / "jupyter_server_config.py"
    if config.exists():
        command.append(f"--config={config}")
    log = home / "server.log"
    with (
        open(log, "w") as out,
        subprocess.Popen(command, env=environment, stdout=out, stderr=out) as server,
    ):
        try:
            wait_for(f"{address}/api", server, log)
            yield address
        finally:
            server.terminate()  # it shuts its kernels down
            try:
                server.wait(timeout=30)
            except subprocess.TimeoutExpired:
                server.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def wait_for(address: str, server: subprocess.Popen, log: Path, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not answer at {address}:\n{log.read_text()[-3000:]}")
