"""Every function of som_lite has its annotated tensor shapes checked while the tests run."""

import sys

from jaxtyping import install_import_hook

assert "som_lite" not in sys.modules, "som_lite was imported before its shapes could be checked"
install_import_hook("som_lite", "beartype.beartype")

import torch  # noqa: E402  (som_lite and what uses it come after the hook)

# Times and the last digits of small nets depend on the number of threads.
torch.set_num_threads(1)
