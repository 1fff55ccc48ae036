"""`make read` serves the book to this computer's reader alone, and asks nobody anything."""

import os
import re
import socket
import subprocess
import sys
import time
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests.book.book import ROOT

TOKEN = "0123456789abcdef"


@pytest.fixture(scope="module")
def server():
    """The address of a JupyterLab started with the book's configuration."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", f"--port={port}"]
    command += [f"--config={ROOT / 'chapters' / 'jupyter_server_config.py'}"]
    command += ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env={**os.environ, "JUPYTER_TOKEN": TOKEN}, **quiet) as lab:
        address = f"http://localhost:{port}"
        for _ in range(120):
            try:
                urlopen(f"{address}/api").close()
                break
            except OSError:
                assert lab.poll() is None, "JupyterLab did not start"
                time.sleep(0.5)
        yield address
        lab.terminate()


def test_first_chapter_opens_with_the_token_only(server):
    with urlopen(f"{server}/?token={TOKEN}") as page:
        assert page.url.startswith(f"{server}/lab/tree/chapters/00_start_here.ipynb")
    with pytest.raises(HTTPError) as refused:
        urlopen(f"{server}/api/contents")
    assert refused.value.code == 403
    refused.value.close()


def test_nothing_is_asked_of_the_network(server):
    with urlopen(f"{server}/lab?token={TOKEN}") as page:
        text = page.read().decode()
    disabled = re.search(r'"disabledExtensions": (\[.*?\])', text)[1]
    assert "apputils-extension:announcements" in disabled
    assert '"can_install": false' in text
