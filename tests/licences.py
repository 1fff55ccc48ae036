"""The packages that the book asks for and their licences, as a table in Markdown.

python -m tests.licences > THIRD_PARTY.md      those that pyproject.toml names
python -m tests.licences --all                 and all that come with them
"""

import sys
from importlib.metadata import PackageNotFoundError, metadata, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HEAD = """# Third-party packages

None of them is part of this repository; `make setup` installs all but ray. This is what
`pyproject.toml` names, with the licence that each package's own metadata states;
`python -m tests.licences` made the table, and with `--all` it lists everything that comes with
them. On Linux the usual build of PyTorch brings CUDA libraries under NVIDIA's own terms.

| package | licence |
|---|---|"""


def direct(name: str, extras: tuple[str, ...] = ()) -> set[str]:
    """The installed packages that `name` requires."""
    needs = [Requirement(text) for text in requires(name) or []]
    return {
        canonicalize_name(n.name)
        for n in needs
        if (n.marker is None or any(n.marker.evaluate({"extra": e}) for e in (*extras, "")))
        and _installed(n.name)
    }


def with_theirs(names: set[str]) -> set[str]:
    """The packages, and what they require in turn."""
    found: set[str] = set()
    while waiting := names - found:
        found |= waiting
        names = names.union(*map(direct, waiting))
    return found


def licence(name: str) -> str:
    """The licence expression, else the classifiers, else the first line of the licence field."""
    info = metadata(name)
    classes = [x.rpartition(" :: ")[2] for x in info.get_all("Classifier", []) if "License ::" in x]
    lines = (info.get("License") or "not stated").strip().splitlines()
    return info.get("License-Expression") or ", ".join(classes) or lines[0]


def _installed(name: str) -> bool:
    try:
        return bool(metadata(name))
    except PackageNotFoundError:
        return False


if __name__ == "__main__":
    packages = direct("som_lite", ("book", "offline", "tensorboard", "cluster", "dev"))
    packages = with_theirs(packages) if "--all" in sys.argv else packages
    print("\n".join([HEAD, *(f"| {name} | {licence(name)} |" for name in sorted(packages))]))
