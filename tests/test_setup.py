"""What sets the suite up: its files agree on packages, versions and commands."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from amst.cli import main

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def pins(name: str) -> dict[str, str]:
    """Package -> the pinned version, of a file of requirements."""
    text = (ROOT / "containers" / f"{name}.txt").read_text("utf-8")
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", text, re.MULTILINE))


def test_a_package_has_one_version_in_every_set_up():
    light, image, here = map(pins, ("requirements-light", "requirements", "requirements-dev"))
    assert light.items() <= image.items() <= here.items()


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("requirements-light", PROJECT["dependencies"]),
        ("requirements", PROJECT["dependencies"] + EXTRAS["run"]),
        ("requirements-dev", EXTRAS["dev"]),
    ],
)
def test_what_the_package_asks_for_is_pinned_within_its_bounds(name: str, asked: list[str]):
    pinned = pins(name)
    for each in map(Requirement, asked):
        assert each.specifier.contains(pinned[each.name]), each


def found(file: str, pattern: str) -> set[str]:
    """What a pattern's group finds in a file of the checkout."""
    return set(re.findall(pattern, (ROOT / file).read_text("utf-8"), re.MULTILINE))


def test_tools_have_one_version_in_all_files_that_name_it():
    (uv,) = found("Makefile", r"^UV_VERSION := (\S+)")
    assert found("containers/amst.def", r"^ +UV_VERSION=(\S+)") == {uv}
    (python,) = re.findall(r">=(\S+)", PROJECT["requires-python"])
    assert found("Makefile", r"--python-version (\S+)") == {python}
    assert found("containers/amst.def", r"^ +BASE=python:([\d.]+)") == {python}
    (snakemake,) = found("pyproject.toml", r'"snakemake>=(\S+)"')
    assert found("Snakefile", r'^min_version\("(\S+)"\)') == {snakemake}


def test_the_command_of_the_package_is_there():
    for name, value in PROJECT["scripts"].items():
        assert name == "amst"
        assert EntryPoint(name, value, "console_scripts").load() is main


def test_the_light_set_up_gets_the_package_and_its_command(tmp_path: Path):
    """All of it but the packages, which would have to be fetched."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "src").symlink_to(ROOT / "src")
    venv = [sys.executable, "-m", "venv", "--without-pip", str(tmp_path / ".venv-light")]
    subprocess.run(venv, check=True)
    fetches_nothing = tmp_path / "uv"
    fetches_nothing.write_text("#!/bin/sh\n")
    fetches_nothing.chmod(0o755)
    made = ["make", "--directory", str(tmp_path), "light", f"UV={fetches_nothing}"]
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL")}
    subprocess.run(made, env=environment, check=True, capture_output=True)
    packages = os.pathsep.join(path for path in sys.path if path.endswith("-packages"))
    done = subprocess.run(
        [tmp_path / ".venv-light/bin/amst", "--version"],
        env={**environment, "PYTHONPATH": packages},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
