"""Raw media files: what can be wrong with one, told in one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from amst.datasets.rawfiles import LFS_START


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


def check_media(path: Path, may_be_empty: bool = False) -> None:
    """Refuse what no decoder needs to see.

    Raises:
        UnreadableError: the file is missing, empty where it must not be, or a Git LFS pointer.
    """
    try:
        with path.open("rb") as file:
            head = file.read(len(LFS_START))
    except OSError as error:
        raise UnreadableError(f"the file cannot be opened ({error.strerror})") from error
    if not head and not may_be_empty:
        raise UnreadableError("the file is empty")
    if head == LFS_START:
        raise UnreadableError("the file is a Git LFS pointer, not media: run 'git lfs pull'")
