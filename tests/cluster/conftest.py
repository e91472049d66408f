"""Clusters and finished grids that the tests of this folder share."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import images
from tests.cluster.longruns import DIGITS, LONG
from tests.cluster.machines import ClusterSuite, Slurm, local_grid, missing
from tests.cluster.users import OrdinaryUser, why_not
from tests.end_to_end.suite import shared

GRID: dict[str, Any] = {
    "grid": {"methods": ["naive", "unimodal_audio"], "seeds": [0]},
    "datasets": {"digits": DIGITS},
}


@pytest.fixture(scope="session")
def start_slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Slurm]]:
    """Start a cluster; every one is ended with the session, whatever happens."""
    if reason := missing("slurmctld", "SLURM"):
        pytest.skip(reason)
    started: list[Slurm] = []

    def start(folder: Path | None = None, **size: Any) -> Slurm:
        started.append(Slurm(folder or tmp_path_factory.mktemp("slurm") / "c", **size))
        return started[-1]

    yield start
    for slurm in started:
        slurm.down()


@pytest.fixture(scope="session")
def slurm(start_slurm: Callable[..., Slurm]) -> Slurm:
    """Four nodes with two made-up GPUs each."""
    return start_slurm(nodes=4, gpus=2)


@pytest.fixture(scope="session")
def grid(tmp_path_factory: pytest.TempPathFactory) -> ClusterSuite:
    """The CI grid, two variants and one seed, run to its end on this machine."""
    return ClusterSuite(shared(tmp_path_factory, "local", lambda at: local_grid(at, GRID)))


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> ClusterSuite:
    """Five longer runs on this machine, one after the other, with no fault."""
    return ClusterSuite(shared(tmp_path_factory, "long", lambda at: local_grid(at, LONG)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for a copy of the suite."""
    return tmp_path / "suite"


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put a stand-in for nvidia-smi on the path, which prints these lines."""

    def lists(lines: Sequence[str], code: int = 0) -> None:
        command = tmp_path / "nvidia-smi"
        command.write_text("\n".join(["#!/bin/sh", "cat <<END", *lines, "END", f"exit {code}", ""]))
        command.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    return lists


@pytest.fixture(scope="session")
def image_builder(tmp_path_factory: pytest.TempPathFactory) -> ClusterSuite:
    """A checkout whose definition builds without a network, by a user who is not root."""
    if reason := missing("apptainer", "Apptainer") or missing("patchelf", "patchelf"):
        pytest.skip(reason)
    if not images.UV.is_dir():
        pytest.skip("uv is not set up (`make environment` does it)")
    if reason := why_not():
        pytest.skip(reason)
    suite = ClusterSuite.new(tmp_path_factory.mktemp("image"), GRID)
    folder = suite.checkout.parent
    suite.user = OrdinaryUser(folder)
    images.base(folder / "base")
    requirement = images.wheel(folder / "wheels")
    (suite.checkout / "containers" / "requirements.txt").write_text(requirement)
    options = images.build_arguments(folder)
    suite.configure({**GRID, "container": {"build_args": options}})
    suite.extra = {"APPTAINER_BIND": images.BINDINGS, "HOME": str(suite.work)}
    # in the user's own name space nobody else's files can be unpacked
    for own in (suite.work, folder / "base"):
        suite.user.own(own)
    suite.snakemake("results/features/digits/manifest.json", "--cores", "2", "--sdm", "apptainer")
    return suite


@pytest.fixture(scope="session")
def image(image_builder: ClusterSuite) -> Path:
    """The image that the call has built."""
    (built,) = image_builder.file("containers").glob("amst-*.sif")
    return built
