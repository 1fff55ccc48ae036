"""pyproject.toml, constraints.txt, environment.yml and the running environment agree."""

import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
ON_DEMAND = "cluster"  # large, not for every system, and no reader on one machine needs it
DIRECT = [
    Requirement(line) for group in (PROJECT["dependencies"], *EXTRAS.values()) for line in group
]


def read_pins(name="constraints.txt"):
    lines = (ROOT / name).read_text().splitlines()
    return [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]


PINS = {canonicalize_name(name): pin for name, _, pin in (p.partition("==") for p in read_pins())}


def test_constraints_are_plain_pins():
    # A path, an address, an extra or a local version (+cpu) would bind the set to one machine.
    for line in read_pins():
        requirement = Requirement(line)
        pin = PINS[canonicalize_name(requirement.name)]
        assert line == f"{requirement.name}=={pin}", f"not a plain pin: {line}"
        assert Version(pin).local is None, f"a local version: {line}"


@pytest.mark.parametrize("requirement", DIRECT, ids=str)
def test_direct_dependency_is_pinned_within_its_range(requirement):
    pin = PINS.get(canonicalize_name(requirement.name))
    assert pin, f"{requirement.name} is missing in constraints.txt"
    assert pin in requirement.specifier, f"constraints.txt pins {pin}, pyproject says {requirement}"


def test_the_oldest_versions_are_the_lower_bounds():
    """Of the package and of what it can do with an extra; the book is tested with one set alone."""
    lines = (*PROJECT["dependencies"], *EXTRAS["offline"], *EXTRAS["tensorboard"])
    ranges = [Requirement(line) for line in lines]
    lowest = {
        f"{r.name}=={bound.version}"
        for r in ranges
        for bound in r.specifier
        if bound.operator == ">="
    }
    assert len(lowest) == len(ranges)
    assert set(read_pins("constraints-oldest.txt")) == lowest


def test_conda_installs_by_the_same_pins():
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert [d for d in dependencies if isinstance(d, str)] == [
        f"python{PROJECT['requires-python']}",
        "pip",
    ]
    extras = ",".join(extra for extra in EXTRAS if extra != ON_DEMAND)
    assert dependencies[-1] == {"pip": ["-c constraints.txt", f"-e .[{extras}]"]}


def test_every_direct_dependency_has_its_licence_listed():
    table = (ROOT / "THIRD_PARTY.md").read_text()
    for requirement in DIRECT:
        assert f"| {canonicalize_name(requirement.name)} |" in table, "python -m tests.licences"


def test_make_installs_by_the_same_pins():
    extras = ",".join(extra for extra in EXTRAS if extra != ON_DEMAND)
    assert f'-c constraints.txt -e ".[{extras}]"' in (ROOT / "Makefile").read_text()


def test_installed_versions_are_the_tested_ones():
    found = {}
    for name in PINS:
        try:
            found[name] = Version(version(name)).public  # 2.13.0+cpu is 2.13.0
        except PackageNotFoundError:
            continue  # a package of another system; the direct ones are tested below
    other = [
        f"{name} {found[name]} (tested: {PINS[name]})"
        for name in found
        if found[name] != PINS[name]
    ]
    assert not other, f"`make setup` installs the tested versions; here are {', '.join(other)}"
    on_demand = {canonicalize_name(Requirement(line).name) for line in EXTRAS[ON_DEMAND]}
    missing = {canonicalize_name(r.name) for r in DIRECT} - found.keys() - on_demand
    assert not missing, f"not installed: {', '.join(sorted(missing))}; run `make setup`"
