"""The image from the definition's own sections, and the CI grid inside it."""

import os
import re
from pathlib import Path

from amst.cluster.image import check_whole
from amst.files import sha256_of
from tests.cluster.conftest import GRID
from tests.cluster.images import INSIDE, apptainer
from tests.cluster.machines import ClusterSuite, Slurm

IN_IMAGE = ("--sdm", "apptainer")


def test_first_call_builds_the_image_in_the_working_folder(
    image_builder: ClusterSuite, image: Path
):
    """The working folder is not the checkout, and the first jobs run in the new image."""
    assert re.fullmatch(r"amst-[0-9a-f]{12}\.sif", image.name)
    noted = image.with_name(image.name + ".sha256").read_text().splitlines()
    assert noted[0] == f"{sha256_of(image)}  {image.name}"
    assert sorted(path.suffix for path in image.parent.iterdir()) == [".sha256", ".sif"]
    assert image.stat().st_uid == image_builder.user.uid != 0


def test_media_are_read_in_the_image_as_outside(image_builder: ClusterSuite, grid: ClusterSuite):
    """Raw files are made and decoded by jobs inside, and the shards have the same bytes."""
    inside, outside = (suite.file("results/features/digits") for suite in (image_builder, grid))
    shards = sorted(path.relative_to(outside) for path in outside.rglob("*.h5"))
    assert len(shards) == GRID["datasets"]["digits"]["shards"]
    for shard in shards:
        assert (inside / shard).read_bytes() == (outside / shard).read_bytes()


def test_every_section_of_the_definition_has_been_used(image: Path):
    check_whole(image)
    installed = apptainer("exec", image, "ls", INSIDE)
    assert "numpy" in installed.stdout, "the prepared packages are bound over the image's"
    bare = apptainer("exec", "--env", "A=1", image, "ls", "/opt/amst")
    assert bare.stdout.split() == ["requirements.txt"]
    assert "packages import; torch" in apptainer("test", image).stdout
    labels = apptainer("inspect", image).stdout
    assert "org.opencontainers.image.title: amst" in labels
    assert "--sdm apptainer" in apptainer("run-help", image).stdout
    names = ("HDF5_USE_FILE_LOCKING", "PYTHONNOUSERSITE", "LC_ALL")
    asked = f"import os; print(*(os.environ[name] for name in {names}))"
    assert apptainer("run", image, "-c", asked).stdout.split() == ["FALSE", "1", "C.UTF-8"]


def test_a_failing_package_fails_the_images_own_test(image: Path, tmp_path: Path):
    (tmp_path / "torch.py").write_text("raise ImportError('broken')\n")
    tested = apptainer("test", "--env", f"PYTHONPATH={tmp_path}", "--bind", tmp_path, image,
                       check=False)  # fmt: skip
    assert tested.returncode != 0


def in_image(grid: ClusterSuite, folder: Path, image_builder: ClusterSuite, image: Path):
    """The grid's features and none of its runs, to be trained in the image."""
    suite = ClusterSuite.on(grid, folder)
    suite.configure({**GRID, "container": {"image": str(image)}})
    suite.make_repository()
    suite.extra = {"APPTAINER_BIND": image_builder.extra["APPTAINER_BIND"]}
    return suite


def check(suite: ClusterSuite, grid: ClusterSuite, image: Path) -> None:
    """Same results as outside, same packages, and the record names the image."""
    assert suite.tables() == grid.tables()
    assert suite.bytes_of_runs() == grid.bytes_of_runs()
    for method in ("naive", "unimodal_audio"):
        run = f"digits/random/{method}/seed0"
        inside, outside = suite.record(run)["environment"], grid.record(run)["environment"]
        assert inside["container_digest"] == sha256_of(image)
        assert outside["container_digest"] == ""
        assert inside["package_digest"] == outside["package_digest"]
        assert inside["commit"] == suite.commit(), "no image has git"


def test_the_grid_in_the_image_on_this_machine(
    grid: ClusterSuite, folder: Path, image_builder: ClusterSuite, image: Path
):
    suite = in_image(grid, folder, image_builder, image)
    suite.snakemake("results/tables/main.csv", "--cores", "2", *IN_IMAGE)
    check(suite, grid, image)
    again = suite.snakemake("results/tables/main.csv", "--cores", "2", "-n")
    assert "nothing to be done" in (again.stdout + again.stderr).lower(), (
        "a call outside repeats nothing"
    )


def test_the_grid_in_the_image_under_slurm(
    grid: ClusterSuite, folder: Path, image_builder: ClusterSuite, image: Path, slurm: Slurm
):
    suite = in_image(grid, folder, image_builder, image)
    suite.slurm = slurm
    suite.snakemake(*suite.on_slurm("results/tables/main.csv", *IN_IMAGE))
    check(suite, grid, image)


def test_an_image_that_is_not_there_ends_the_call_before_its_first_job(folder: Path):
    """Through a stand-in for apptainer, which no job calls; torch is in the image only."""
    suite = ClusterSuite.new(folder, {**GRID, "container": {"image": "images/none.sif"}})
    program = suite.work / "bin" / "apptainer"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho apptainer version 1.4.5\n")
    program.chmod(0o755)
    suite.extra = {"PATH": f"{program.parent}:{os.environ['PATH']}"}
    workflow = suite.checkout / "workflow/grid.smk"
    workflow.write_text(workflow.read_text() + "\n\ndef find_spec(name):\n    return None\n")
    done = suite.snakemake("results/grid.json", "--cores", "1", *IN_IMAGE, check=False)
    assert done.returncode == 1
    assert f"container.image: there is no file {suite.work}/images/none.sif" in done.stderr
    assert not suite.file("results/grid.json").exists()
