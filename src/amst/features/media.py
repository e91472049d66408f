"""Raw media files: what can be wrong with one, told in one line."""

import errno
import io
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from amst.datasets.rawfiles import LFS_START, is_of_file
from amst.errors import HostError


class UnreadableError(Exception):
    """A raw file, or a sample in it, that cannot be used; the message is the reason."""


@contextmanager
def decoding(what: str) -> Iterator[None]:
    """Turn whatever a decoder raises into a reason: broken files make them raise anything.

    Args:
        what: what is decoded, as the reason begins.

    Raises:
        UnreadableError: the block raised something else than that there is no memory.
    """
    try:
        yield
    except (UnreadableError, MemoryError):
        raise
    except Exception as error:
        raise UnreadableError(f"{what} cannot be decoded ({_told(error)})") from error


def _told(error: Exception) -> str:
    """An error in one line, without this machine's path, which errors of files hold."""
    told = getattr(error, "strerror", None) or next(iter(str(error).splitlines()), "")
    return told or type(error).__name__


class _Raw(io.RawIOBase):
    """A file that seems to end at an error of reading, or at Ctrl-C, and has that as its error."""

    def __init__(self, file: io.FileIO, name: str) -> None:
        self._file = file
        self.name = name  # a decoder may judge by its suffix
        self.error: OSError | KeyboardInterrupt | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.error is not None:
            return 0
        try:
            return os.readv(self._file.fileno(), [buffer])
        except OSError as error:
            self.error = error
            return 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self._file.seek(offset, whence)
        except OSError as error:
            if error.errno != errno.EINVAL:  # a damaged file leads to before its begin
                self.error = self.error or error
            raise

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
        super().close()


@contextmanager
def _interrupted_at_the_end(raw: _Raw) -> Iterator[None]:
    """Let Ctrl-C end the file, the second one the block.

    Decoders read by calls from C, where Python drops what its signal handler raises.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        raw.error = raw.error or KeyboardInterrupt()

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def opened(path: Path) -> "Iterator[io.BufferedReader[_Raw]]":
    """A raw file for reading.

    Decoders take an error of reading for the end of the file, or for damage. What a disk or a
    network cannot give now is no fault of the sample: it is neither rejected nor stored cut short.

    Raises:
        UnreadableError: there is no such file, or this user may not read it.
        HostError: its storage failed, whatever the block made of that.
        KeyboardInterrupt: so did Ctrl-C end the block.
    """
    try:
        raw = _Raw(io.FileIO(path), str(path))
    except OSError as error:
        if not is_of_file(error):
            raise _failed(path, error) from error
        raise UnreadableError(f"the file cannot be opened ({error.strerror})") from error
    with io.BufferedReader(raw) as file:
        try:
            with _interrupted_at_the_end(raw):
                yield file
        finally:
            if isinstance(raw.error, OSError):
                raise _failed(path, raw.error) from raw.error
            if raw.error is not None:
                raise raw.error


def _failed(path: Path, error: OSError) -> HostError:
    return HostError(
        f"{path} cannot be read ({error.strerror})",
        "Call again; where that stays so, mend the disk, or take the file away: then its samples "
        "are listed as lost",
    )


def check_media(path: Path, may_be_empty: bool = False) -> None:
    """Refuse what no decoder needs to see.

    Raises:
        UnreadableError: the file is missing, empty where it must not be, or a Git LFS pointer.
        HostError: its storage failed.
    """
    with opened(path) as file:
        head = file.read(len(LFS_START))
    if not head and not may_be_empty:
        raise UnreadableError("the file is empty")
    if head == LFS_START:
        raise UnreadableError("the file is a Git LFS pointer, not media: run 'git lfs pull'")
