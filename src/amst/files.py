"""Files that appear whole or not at all, and their checksums."""

import errno
import fcntl
import hashlib
import io
import json
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

_TEMPORARY = re.compile(r"\..+(\.[^.]+)\.[0-9a-f]{8}\1")


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """What the disk refuses within is told of ``path``: reading an open file names none."""
    try:
        yield
    except OSError as error:
        if error.errno and error.filename is None:
            error.filename = str(path)
        raise


class _Disk(io.FileIO):
    """Notes what the disk refuses."""

    refused: OSError | None = None

    def seek(self, *place: int) -> int:
        with self._noting():
            return super().seek(*place)

    def readinto(self, buffer: Any) -> int:
        with self._noting():
            return super().readinto(buffer)

    def readall(self) -> bytes:
        with self._noting():
            return super().readall()

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno != errno.EINVAL:  # for a place before the begin of a short file
                self.refused = error
            raise


@contextmanager
def opened(path: Path | str) -> Iterator[BinaryIO]:
    """A file for libraries that take it for damaged whenever the disk does not give it.

    What the disk refuses is raised as it was, in place of what the block makes of it.
    """
    with reading(path), _Disk(path) as disk, io.BufferedReader(disk) as file:
        try:
            yield file
        except Exception as error:
            if disk.refused is None:
                raise
            raise disk.refused from error


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process at a time for a folder, where its file system has such locks."""
    number = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            try:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"{folder}: waiting for another process", file=sys.stderr, flush=True)
                fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` when the block succeeds.

    The content reaches the disk before the rename, so a machine that dies leaves the old file or
    the new one. When the block raises, the temporary file goes and ``path`` stays as it was. What
    the disk refuses is told of ``path``: writing alone names no file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{path.suffix}")
    try:
        # Not by tempfile, whose files are their owner's alone: who may read a new file, the umask
        # says, or the ACL that a group gives a shared folder.
        with temporary.open("x") as new:
            mode = stat.S_IMODE(os.fstat(new.fileno()).st_mode)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(mode)  # safetensors puts a file of its own there
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        named_by = (None, str(temporary))
        # without a number, the text is all that is told of it, and a file's name would hide it
        if isinstance(error, OSError) and error.errno and error.filename in named_by:
            error.filename = str(path)
        raise


def is_temporary(path: Path) -> bool:
    """Whether a file is named as ``replacing`` names those that are not whole yet.

    Of a file without a suffix, it is not told: ``.notes.20260131`` is somebody's own.
    """
    return bool(_TEMPORARY.fullmatch(path.name))


def write_text(path: Path | str, text: str) -> None:
    """Write ``text`` as UTF-8, by rename."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Write ``value`` as indented JSON with sorted keys, by rename."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def sizes_below(folder: Path) -> list[int]:
    """Bytes of each file below a folder that may be read, without those that go meanwhile."""

    def passed_over(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | PermissionError):
            raise error

    sizes = []
    for place, _, names in os.walk(folder, onerror=passed_over):
        for name in names:
            with suppress(FileNotFoundError):
                sizes.append(Path(place, name).stat().st_size)
    return sizes


def sha256_of(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with reading(path), Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
