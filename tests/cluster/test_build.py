"""How the image is built, through a stand-in for apptainer; the real one is in test_image."""

import os
import struct
from pathlib import Path

import pytest

from amst.cluster import image as image_module
from amst.cluster.image import build, check_whole, image_name
from amst.errors import AmstError


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    (folder / "containers").mkdir(parents=True)
    for name in ("amst.def", "requirements.txt"):
        (folder / "containers" / name).write_text(f"the {name}")
    return folder


@pytest.fixture
def apptainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A program that says what it was called with and writes an image."""
    program = tmp_path / "bin" / "apptainer"
    program.parent.mkdir()
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)

    def ends_with(code: int, offers: str = "--mksquashfs-args string") -> Path:
        program.write_text(
            "#!/bin/sh\n"
            f'if [ "$2" = --help ]; then echo "{offers}"; exit; fi\n'
            f'{{ printf "%s\\n" "$@"; env; }} > {tmp_path}/called\n'
            'for word; do case $word in *.part) echo "an image" > "$word" ;; esac; done\n'
            f"exit {code}\n"
        )
        program.chmod(0o755)
        return tmp_path / "called"

    return ends_with


def test_an_image_is_there_when_it_is_whole(apptainer, checkout: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("APPTAINER_BIND", "/data")
    monkeypatch.setenv("SINGULARITY_BIND", "/data")
    monkeypatch.setenv("APPTAINER_BINDPATH", "/data")
    monkeypatch.setenv("SINGULARITY_BINDPATH", "/data")
    monkeypatch.setenv("APPTAINER_TMPDIR", "/scratch")
    called, image = apptainer(0), tmp_path / "images" / "amst.sif"
    build(checkout, image, "--build-arg 'base=a b'")
    assert [path.name for path in image.parent.iterdir()] == ["amst.sif"]
    lines = called.read_text().splitlines()
    assert "--fakeroot" in lines
    assert "base=a b" in lines
    assert "--mksquashfs-args" in lines
    assert "APPTAINER_TMPDIR=/scratch" in lines
    assert not [line for line in lines if "_BIND" in line], "jobs' folders are no part of it"
    apptainer(0, "--other options")
    build(checkout, image)
    assert "--mksquashfs-args" not in called.read_text()


def test_of_a_build_that_fails_nothing_is_left(apptainer, checkout: Path, tmp_path: Path):
    apptainer(3)
    image = tmp_path / "images" / "amst.sif"
    with pytest.raises(AmstError, match=r"the image was not built: .*apptainer build .* with 3"):
        build(checkout, image)
    assert list(image.parent.iterdir()) == []
    program = tmp_path / "bin" / "apptainer"
    as_file = program.read_text()
    program.write_text(as_file.replace('echo "an image" >', "mkdir"))  # with --sandbox
    with pytest.raises(AmstError):
        build(checkout, image, "--sandbox")
    assert list(image.parent.iterdir()) == []
    program.write_text(as_file)
    image.write_text("an older one")
    with pytest.raises(AmstError):
        build(checkout, image)
    assert image.read_text() == "an older one"


def test_two_calls_may_build_an_image_in_a_folder_that_they_share(
    apptainer, checkout: Path, tmp_path: Path
):
    """The second has built while the first still does; the first one's jobs run in its image."""
    image = tmp_path / "images" / "amst.sif"
    called = apptainer(0)
    program = tmp_path / "bin" / "apptainer"
    ends = program.read_text()
    other = f"mv {called} {tmp_path}/first; echo another > {image}; echo other > {image}.1.part"
    program.write_text(ends.replace("exit 0", f"{other}\nexit 0"))
    build(checkout, image)
    assert image.read_text() == "another\n"
    assert sorted(path.name for path in image.parent.iterdir()) == ["amst.sif", "amst.sif.1.part"]
    image.unlink()
    program.write_text(ends)
    build(checkout, image)
    parts = [
        next(line for line in path.read_text().splitlines() if line.endswith(".part"))
        for path in (tmp_path / "first", called)
    ]
    assert parts[0] != parts[1]


def test_of_a_build_that_is_interrupted_nothing_is_left(
    apptainer, checkout: Path, tmp_path: Path, monkeypatch
):
    apptainer(0)
    run = image_module.subprocess.run

    def interrupted(command, **how):
        run(command, **how)
        if command[-1] != "--help":
            raise KeyboardInterrupt
        return run(command, **how)

    monkeypatch.setattr(image_module.subprocess, "run", interrupted)
    image = tmp_path / "images" / "amst.sif"
    with pytest.raises(KeyboardInterrupt):
        build(checkout, image)
    assert list(image.parent.iterdir()) == []


@pytest.mark.parametrize("changed", ["amst.def", "requirements.txt"])
def test_an_image_of_another_definition_or_other_packages_has_another_name(
    checkout: Path, changed: str
):
    before = image_name(checkout)
    (checkout / "containers" / "other.txt").touch()
    assert image_name(checkout) == before
    (checkout / "containers" / changed).write_text("more")
    assert image_name(checkout) != before


def test_an_image_that_was_copied_in_part_is_refused(tmp_path: Path):
    """By where its header says that its data end; the real one is tried in test_image."""
    image = tmp_path / "amst.sif"
    header = struct.pack("<32s10s70x2q", b"#!/usr/bin/env run-singularity\n", b"SIF_MAGIC", 128, 72)
    image.write_bytes(header + bytes(72))
    check_whole(image)
    for left in (199, 130, 0):
        os.truncate(image, left)
        with pytest.raises(AmstError, match=rf"amst.sif is cut short: {left} bytes of"):
            check_whole(image)
    image.write_bytes(b"hsqs" + bytes(500))  # of another format
    check_whole(image)
    check_whole(tmp_path)
