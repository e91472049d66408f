"""What the container sees of the host, and the digest that a record keeps of it."""

import os

import pytest

from amst.cluster.image import bindings, digest_of
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


def test_the_checkout_is_read_only_unless_results_lie_in_it(work, tmp_path):
    elsewhere = tmp_path / "checkout"
    assert bindings(elsewhere, []) == f"{elsewhere}:{elsewhere}:ro"
    assert bindings(work, []) == f"{work}:{work}"


def test_what_the_user_binds_stays_and_missing_roots_are_left_out(work, tmp_path):
    bound = bindings(tmp_path, [tmp_path / "none"], given="/scratch")
    assert bound.split(",")[0] == "/scratch"
    assert "none" not in bound


def test_a_published_image_says_its_digest():
    assert digest_of(f"docker://example/amst@sha256:{'a' * 64}") == "a" * 64
    assert digest_of("docker://example/amst:latest") == ""


def test_a_file_is_read_once_and_again_when_it_is_newer(work):
    image = work / "amst.sif"
    image.write_bytes(b"first")
    first = digest_of(str(image))
    assert first == sha256_of(image)
    beside = work / "amst.sif.sha256"
    assert beside.read_text() == f"{first}  amst.sif\n"
    image.write_bytes(b"second")
    later = beside.stat().st_mtime + 10
    os.utime(image, (later, later))
    assert digest_of(str(image)) == sha256_of(image) != first
