"""A JupyterLab that is set up as `make read` sets it up, and a Chromium to look at it with."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
).split()
# Every cell of a notebook is in the page, also those out of sight.
SETTINGS = {"@jupyterlab/notebook-extension/tracker": '{"windowingMode": "none"}'}

# For page.evaluate and page.wait_for_function, in a page of JupyterLab.
READY = """() => {
    const notebook = window.jupyterapp?.shell.currentWidget;
    return notebook?.sessionContext?.session?.kernel?.status === "idle";
}"""
RUN_ALL = """() => {
    jupyterapp.commands.execute("notebook:run-all-cells").then(() => { window.finished = true; });
}"""


def chromium() -> str | None:
    """The system's Chromium."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def jupyterlab(folder: Path, home: Path, configured: bool = True) -> Iterator[str]:
    """The address of a JupyterLab that serves `folder`, with settings and files in `home` alone.

    `configured` by the file that `make read` uses.
    """
    for plugin, settings in SETTINGS.items():
        file = home / "settings" / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(settings)
    port = free_port()
    address = f"http://localhost:{port}"
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        f"--ServerApp.root_dir={folder}",
        "--IdentityProvider.token=",
        "--LabApp.expose_app_in_browser=True",
    ]
    if configured:
        command.append(f"--config={ROOT / 'chapters' / 'jupyter_server_config.py'}")
    log = home / "server.log"
    with (
        open(log, "w") as out,
        subprocess.Popen(command, env=environment(home), stdout=out, stderr=out) as server,
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


def environment(home: Path) -> dict[str, str]:
    """Environment variables that keep Jupyter in `home` and let kernels import the book."""
    folders = {"CONFIG_DIR": "config", "DATA_DIR": "data", "RUNTIME_DIR": "runtime"}
    return {
        **os.environ,
        **{f"JUPYTER_{key}": str(home / folder) for key, folder in folders.items()},
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }


def trust(notebook: Path, home: Path) -> None:
    """Sign a notebook, as a reader who ran it has."""
    command = [sys.executable, "-m", "jupyter", "trust", str(notebook)]
    subprocess.run(command, env=environment(home), check=True, stdout=subprocess.DEVNULL)


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
