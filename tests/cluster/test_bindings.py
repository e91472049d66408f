"""What the container sees of the host, and the digest that a record keeps of it."""

import os
import subprocess
from pathlib import Path

import pytest

from amst.cluster import image as image_module
from amst.cluster.image import BIND, bind, bindings, digest_of, note_digest, noted_digest
from amst.cluster.links import targets
from amst.errors import AmstError
from amst.files import sha256_of


@pytest.fixture
def work(tmp_path, monkeypatch):
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_roots_and_the_targets_of_links_are_bound(work, tmp_path):
    """Raw data on scratch behind a link, files of it behind links to an archive."""
    archive = tmp_path / "archive"
    archive.mkdir()
    (archive / "clip.mp4").write_text("")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / "clip.mp4").symlink_to(archive / "clip.mp4")
    (work / "data").symlink_to(scratch)
    bound = bindings(tmp_path / "checkout", [work / "data"]).split(",")
    assert f"{scratch}:{scratch}" in bound
    assert f"{archive}:{archive}" in bound


@pytest.mark.parametrize("name", ["2026,raw", "12:30"])
def test_a_folder_that_no_binding_can_name_is_told(work, tmp_path, name):
    """Apptainer takes it apart at the comma or colon, and every job would end."""
    odd = tmp_path / name
    odd.mkdir()
    (work / "data").symlink_to(odd)
    with pytest.raises(AmstError, match=f"^{odd}, which jobs .* give it another name"):
        bindings(tmp_path / "checkout", [work / "data"])


def test_a_working_folder_with_a_colon_is_told(tmp_path, monkeypatch):
    """Snakemake has Apptainer bind it as home, which works with a comma, but for a checkout."""
    comma, colon = tmp_path / "a,b", tmp_path / "12:30"
    comma.mkdir()
    colon.mkdir()
    monkeypatch.chdir(comma)
    bindings(tmp_path / "checkout", [])
    with pytest.raises(AmstError, match=f"^{comma}, which jobs"):
        bindings(comma, [])
    monkeypatch.chdir(colon)
    with pytest.raises(AmstError, match=f"^{colon}, which jobs"):
        bindings(tmp_path / "checkout", [])


@pytest.mark.parametrize("name", ["results", "logs", "benchmarks", ".snakemake", "results/runs"])
def test_links_of_the_working_folder_are_followed(work, tmp_path, name):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (work / name).parent.mkdir(exist_ok=True)
    (work / name).symlink_to(scratch)
    assert f"{scratch}:{scratch}" in bindings(tmp_path / "checkout", []).split(",")


def test_links_deep_in_a_raw_folder_are_followed(work, tmp_path):
    archive, other = tmp_path / "archive", tmp_path / "other"
    archive.mkdir()
    other.mkdir()
    videos = work / "data/AVE/videos"
    videos.mkdir(parents=True)
    for number in range(300):  # many files of one folder are one folder
        (archive / f"{number}.mp4").write_text("")
        (videos / f"{number}.mp4").symlink_to(archive / f"{number}.mp4")
    (archive / "more").symlink_to(other)
    (videos / "all").symlink_to(archive)
    (videos / "round").symlink_to(work / "data")
    (videos / "gone").symlink_to(tmp_path / "nothing")
    bound = bindings(tmp_path / "checkout", [Path("data/AVE")]).split(",")
    assert bound[1:] == [f"{archive}:{archive}", f"{other}:{other}"]


@pytest.fixture
def scratch(tmp_path):
    """A folder that its cluster calls by another name than its own, as /scratch often is."""
    (tmp_path / "lustre").mkdir()
    (tmp_path / "scratch").symlink_to(tmp_path / "lustre")
    return tmp_path / "scratch"


def test_a_link_that_leads_through_another_link_leads_there_in_the_container(work, scratch):
    for name in ("results/runs", "data", "features"):
        (scratch / name).mkdir(parents=True)
    (work / "results").symlink_to(Path("..", "scratch", "results"))
    (work / "data").symlink_to(scratch / "data")
    (scratch / "results/features").symlink_to(Path("..", "features"))
    bound = bindings(work, [Path("data")]).split(",")
    for name in ("results", "data", "features"):
        for place in (scratch / name, (scratch / name).resolve()):
            assert f"{place}:{place}" in bound
    assert len(bound) == 7


def test_a_link_to_a_link_to_a_file(work, scratch):
    for name in ("archive", "clips", "data"):
        (scratch / name).mkdir()
    (scratch / "archive/clip.mp4").write_text("")
    (scratch / "clips/clip.mp4").symlink_to(scratch / "archive/clip.mp4")
    (scratch / "data/clip.mp4").symlink_to(Path("..", "clips", "clip.mp4"))
    bound = bindings(work, [scratch / "data"]).split(",")
    for place in (scratch / "data", scratch / "clips", scratch / "archive"):
        assert f"{place}:{place}" in bound


def test_the_checkout_is_there_by_the_name_that_the_call_gives_it(work, scratch):
    (scratch / "checkout").mkdir()
    names = [scratch / "checkout", (scratch / "checkout").resolve()]
    given = scratch / ".." / "scratch" / "checkout"
    assert bindings(given, []) == ",".join(f"{name}:{name}:ro" for name in names)


def test_links_are_looked_for_as_deep_as_is_said(tmp_path):
    there, too_deep = tmp_path / "there", tmp_path / "too-deep"
    folder = tmp_path / "results/runs/CREMAD/amst"
    for each in (there, too_deep, folder):
        each.mkdir(parents=True)
    (folder.parent / "link").symlink_to(there)
    (folder / "link").symlink_to(too_deep)
    root = tmp_path / "results"
    assert list(targets(root, 3)) == [root, there]
    assert list(targets(root, 4)) == [root, there, too_deep]


def test_links_to_very_many_folders_end_with_a_line(work, tmp_path, capsys):
    for number in range(250):
        (tmp_path / f"disk{number}").mkdir()
        (work / f"data{number}").symlink_to(tmp_path / f"disk{number}")
    bound = bindings(tmp_path / "checkout", [work])
    assert 190 < len(bound.split(",")) <= 201
    assert "its links lead to more than 200 folders" in capsys.readouterr().err


def test_the_checkout_is_read_only_unless_results_lie_in_it(work, tmp_path):
    elsewhere = tmp_path / "checkout"
    assert bindings(elsewhere, []) == f"{elsewhere}:{elsewhere}:ro"
    assert bindings(work, []) == f"{work}:{work}"


def test_what_the_user_binds_stays_and_missing_roots_are_left_out(work, tmp_path):
    bound = bindings(tmp_path, [tmp_path / "none"], given="/scratch")
    assert bound.split(",")[0] == "/scratch"
    assert "none" not in bound


def test_a_job_binds_what_exists_where_it_runs(work, tmp_path):
    """It inherits what its call has bound on another node, such as a folder of that job alone."""
    environ = {"APPTAINER_BIND": "/scratch"}
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    bind(work, [here], environ)
    assert environ["APPTAINER_BIND"] == f"/scratch,{work}:{work},{here}:{here}"
    here.rmdir()
    there.mkdir()
    bind(work, [here, there], environ)
    assert environ["APPTAINER_BIND"] == f"/scratch,{work}:{work},{there}:{there}"


def test_the_folder_of_compiled_kernels_is_bound(work, tmp_path):
    kernels = tmp_path / "kernels"
    environ = {"TORCHINDUCTOR_CACHE_DIR": str(kernels)}
    bind(work, [], environ)
    assert environ["APPTAINER_BIND"] == f"{work}:{work}"
    kernels.mkdir()
    bind(work, [], environ)
    assert environ["APPTAINER_BIND"] == f"{work}:{work},{kernels}:{kernels}"


@pytest.mark.parametrize(
    ("given", "first"),
    [
        ({}, []),
        ({"SINGULARITY_BIND": "/site"}, ["/site"]),
        ({"SINGULARITY_BIND": "/site", "APPTAINER_BIND": "/site"}, ["/site"]),
        ({"SINGULARITY_BIND": "/site", "APPTAINER_BIND": "/mine"}, ["/mine", "/site"]),
    ],
)
def test_either_program_binds_what_was_given_for_either(work, given, first):
    """SingularityCE reads its own variable only, and Apptainer that one if its own is not set."""
    environ = dict(given)
    bind(work, [], environ)
    assert {environ[name] for name in BIND} == {",".join([*first, f"{work}:{work}"])}


def test_a_published_image_says_its_digest():
    assert digest_of(f"docker://example/amst@sha256:{'a' * 64}") == "a" * 64
    assert digest_of("docker://example/amst:latest") == ""


def test_a_file_is_read_once(work):
    image = work / "amst.sif"
    image.write_bytes(b"first")
    first = digest_of(str(image))
    assert first == sha256_of(image)
    beside = work / "amst.sif.sha256"
    assert beside.read_text().splitlines()[0] == f"{first}  amst.sif"
    subprocess.run(["sha256sum", "--check", "--status", beside], check=True)
    beside.write_text(beside.read_text().replace(first, "f" * 64))
    assert digest_of(str(image)) == "f" * 64, "not read again"


def test_a_job_knows_the_image_that_was_put_in_the_place_of_its_calls(work):
    image, environ = work / "amst.sif", {}
    assert noted_digest(environ) == "", "outside of any"
    image.write_bytes(b"first")
    note_digest("amst.sif", environ)
    first = sha256_of(image)
    assert noted_digest(environ) == first
    image.write_bytes(b"another")
    assert noted_digest(environ) == sha256_of(image) != first
    image.unlink()
    assert noted_digest(environ) == first, "it is not to be seen within"
    note_digest(f"docker://example/amst@sha256:{'a' * 64}", environ)
    assert noted_digest(environ) == "a" * 64


def test_a_file_in_a_folder_of_somebody_else_is_read_once(work, tmp_path, monkeypatch):
    """Every job asks for the digest of the one image that a site has for all its users."""
    shared = tmp_path / "amst.sif"
    shared.write_bytes(b"first")
    (tmp_path / "amst.sif.sha256").mkdir()  # so that root cannot write it either
    first = digest_of(str(shared))
    assert first == sha256_of(shared)
    with monkeypatch.context() as patched:
        patched.setattr(image_module, "sha256_of", lambda path: pytest.fail("read again"))
        assert digest_of("../amst.sif") == first
    shared.write_bytes(b"another")
    assert digest_of(str(shared)) == sha256_of(shared) != first
    assert len(list((work / ".snakemake").iterdir())) == 1


@pytest.mark.parametrize("seconds", [-1000, 1000])
def test_another_file_in_its_place_is_read_whether_newer_or_older(work, seconds):
    image = work / "amst.sif"
    image.write_bytes(b"first")
    first = digest_of(str(image))
    image.write_bytes(b"other")
    then = image.stat().st_mtime + seconds
    os.utime(image, (then, then))
    assert digest_of(str(image)) == sha256_of(image) != first
