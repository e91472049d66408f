"""What `amst doctor` says of file systems that promise less than the suite needs."""

import errno
import fcntl
import time
from collections import namedtuple
from pathlib import Path

import pytest

from amst.cluster import storage
from amst.cluster.findings import Finding


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_PROBE", 1 << 20)


def examined(folder: Path) -> dict[str, Finding]:
    found = {finding.about: finding for finding in storage.examine(folder)}
    assert list(folder.iterdir()) == [], "it leaves nothing behind"
    return found


def test_this_file_system_is_sound(tmp_path: Path):
    found = examined(tmp_path)
    assert list(found) == ["space", "run locks", "rename", "flock", "clock", "speed"]
    assert {found[name].verdict for name in ("run locks", "rename", "flock", "clock")} == {"ok"}
    assert " MB/s written, " in found["speed"].text


@pytest.mark.parametrize(("free", "verdict"), [(11 << 30, "ok"), (9 << 30, "note")])
def test_little_room_is_noted(tmp_path: Path, monkeypatch, free: int, verdict: str):
    usage = namedtuple("usage", "total used free")(1 << 40, 0, free)
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda folder: usage)
    space = examined(tmp_path)["space"]
    assert (space.verdict, space.text.split(" GB")[0]) == (verdict, f"{free / 1e9:.0f}")


def test_a_file_that_two_processes_can_create_is_a_fault(tmp_path: Path, monkeypatch):
    touch = Path.touch
    monkeypatch.setattr(Path, "touch", lambda path, **given: touch(path))
    assert examined(tmp_path)["run locks"].verdict == "fault"


def test_a_rename_that_copies_is_a_fault(tmp_path: Path, monkeypatch):
    def copy(old: Path, new: Path) -> None:
        new.write_text(old.read_text())

    monkeypatch.setattr(Path, "replace", copy)
    assert examined(tmp_path)["rename"].verdict == "fault"


def test_a_file_system_without_flock_is_noted(tmp_path: Path, monkeypatch):
    def refuse(*given: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    found = examined(tmp_path)["flock"]
    assert found.verdict == "note"
    assert "(No locks available)" in found.text


@pytest.mark.parametrize("ahead", [40, -40])
def test_a_file_system_with_a_clock_of_its_own_is_noted(tmp_path: Path, monkeypatch, ahead: int):
    now = time.time()
    monkeypatch.setattr(storage.time, "time", lambda: now - ahead)
    found = examined(tmp_path)["clock"]
    assert found.verdict == "note"
    assert f"clock is {ahead:+d} s off" in found.text
