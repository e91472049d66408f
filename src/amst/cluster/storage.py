"""Examines a folder's file system: what locks, renames and speed it offers."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from amst.cluster.findings import Finding, fault, note, ok

_PROBE = 64 << 20  # bytes written and read to see the speed
_SCARCE = 10 << 30  # bytes free below which a grid soon ends
_SKEW = 30.0  # seconds between the clocks of this node and of the file system


def examine(folder: Path) -> Iterator[Finding]:
    """Look at the file system of a working folder; leaves nothing behind."""
    try:
        probe = Path(tempfile.mkdtemp(dir=folder, prefix=".amst-doctor-"))
    except OSError as error:
        yield fault("folder", f"{folder.resolve()} cannot be written: {error.strerror}")
        return
    try:
        yield _space(folder)
        yield _exclusive(probe)
        yield _rename(probe)
        yield _flock(probe)
        yield _clock(probe)
        yield _speed(probe)
    finally:
        shutil.rmtree(probe, ignore_errors=True)


def _space(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    text = f"{free / 1e9:.0f} GB free in {folder.resolve()}; `amst plan` says what the grid takes"
    return ok("space", text) if free > _SCARCE else note("space", text)


def _exclusive(probe: Path) -> Finding:
    """A run's lock is a file that only one process can create."""
    path = probe / "lock"
    path.touch(exist_ok=False)
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return ok("run locks", "a file is created by one process only")
    return fault("run locks", "two processes can create one file: runs cannot be protected here")


def _rename(probe: Path) -> Finding:
    old, new = probe / "old", probe / "new"
    old.write_text("old")
    new.write_text("new")
    new.replace(old)
    whole = old.read_text() == "new" and not new.exists()
    if whole:
        return ok("rename", "a file is replaced in one step")
    return fault("rename", "a rename does not replace a file: outputs cannot appear whole")


def _flock(probe: Path) -> Finding:
    with (probe / "flock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            text = f"flock does not work ({error.strerror}); runs and shards need none"
            return note("flock", text)
    return ok("flock", "works; runs and shards need none")


def _clock(probe: Path) -> Finding:
    path = probe / "clock"
    path.touch()
    skew = path.stat().st_mtime - time.time()
    if abs(skew) < _SKEW:
        return ok("clock", "the file system's clock is this node's")
    return note("clock", f"the file system's clock is {skew:+.0f} s off; heartbeats go by it")


def _speed(probe: Path) -> Finding:
    path = probe / "speed"
    block = os.urandom(1 << 20)
    began = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for _ in range(_PROBE >> 20):
            file.write(block)
        os.fsync(file.fileno())
        written = time.perf_counter() - began
    began = time.perf_counter()
    for number in range(200):
        (probe / f"small{number}").touch()
    small = (time.perf_counter() - began) / 200
    text = f"{_PROBE / written / 1e6:.0f} MB/s written, {1000 * small:.1f} ms for a small file"
    return ok("speed", text) if written < 10 else note("speed", text + ": slow")
