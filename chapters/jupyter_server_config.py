"""How `make read` serves the book: to this computer alone, with nothing fetched from outside."""

from pathlib import Path

from jupyter_server.services.kernels.websocket import KernelWebsocketHandler

c = get_config()  # defined by Jupyter where it reads this file

# Jupyter's access token stays on, and nobody outside this computer can connect.
c.ServerApp.ip = "localhost"
c.ServerApp.root_dir = str(Path(__file__).resolve().parents[1])
c.LabApp.default_url = "/lab/tree/chapters/00_start_here.ipynb"

# No news feed, no look for updates, no extension list.
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.handlers.announcements.NeverCheckForUpdate"
c.LabApp.extension_manager = "readonly"

# Saving a notebook changes that notebook only: its text pair is the authors' business.
c.ServerApp.jpserver_extensions = {"jupyterlab_jupytext": False}


def without_questions(handler, page_config):
    """Leave out the two parts of JupyterLab that would ask for news or offer to pair a notebook."""
    unwanted = ["@jupyterlab/apputils-extension:announcements", "jupyterlab-jupytext"]
    page_config["disabledExtensions"] = [*page_config["disabledExtensions"], *unwanted]
    return page_config


c.ServerApp.tornado_settings = {"page_config_hook": without_questions}

# A slider's messages are small. The system holds small messages back to gather them (Nagle's
# algorithm), which costs a slider some 25 ms of 60; Jupyter leaves that on, so it is turned off
# here.
open_with_delay = KernelWebsocketHandler.open


async def open_without_delay(self, *args, **kwargs):
    self.set_nodelay(True)
    return await open_with_delay(self, *args, **kwargs)


KernelWebsocketHandler.open = open_without_delay
