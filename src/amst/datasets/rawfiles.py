"""Raw folders as downloaded: what lies in them, and what is wrong before anything is decoded."""

import codecs
import errno
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from amst.datasets.base import Rejected
from amst.errors import AmstError

LFS_START = b"version https://git-lfs.github.com/spec/"
"""What a pointer file of Git LFS begins with, which stands where a file was not fetched."""
_LFS_LARGEST = 1024
"""Pointer files of Git LFS are smaller than this, by its specification."""
_OF_A_FILE = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EACCES,
    errno.EPERM,
    errno.ELOOP,
    errno.ENAMETOOLONG,
}
"""Errors that say something of a file and stay; others are of its disk or network, and may pass."""


@dataclass(frozen=True)
class RawFile:
    """A file below the raw root.

    Attributes:
        path: relative to the raw root, with forward slashes.
        fault: why it cannot hold the medium it is named for; empty if nothing is wrong so far.
        is_misnamed: whether its name is the fault.
    """

    path: str
    fault: str = ""
    is_misnamed: bool = False


class RawFolder:
    """The media of one kind in one folder of the raw root, listed once.

    Hidden files (``._*`` of macOS among them) are no media and are left out. A suffix in other
    case is a fault, unless the file of the right name is there too. A name that is not UTF-8, which
    no list can hold, is a fault and is given with its bytes escaped.

    Args:
        raw: the raw root.
        folder: relative to it; '' for the root itself.
        suffix: of the media, with the dot.
        page: page of the documentation that shows the layout.
        may_be_missing: whether a folder that is not there is one without files.

    Raises:
        AmstError: there is no such folder, or it cannot be read.
    """

    def __init__(
        self, raw: Path, folder: str, suffix: str, page: str, may_be_missing: bool = False
    ) -> None:
        self.folder = folder
        self.suffix = suffix
        try:
            entries = sorted(os.scandir(raw / folder), key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            if not may_be_missing:
                raise _no_folder(raw / folder, page) from None
            entries = []
        except OSError as error:
            raise unreadable(raw / folder, error) from None
        found: dict[str, RawFile] = {}
        misnamed: dict[str, RawFile] = {}
        for entry in entries:
            name = os.fsencode(entry.name).decode("utf-8", "backslashreplace")
            stem, end = name[: -len(suffix)], name[-len(suffix) :]
            if name.startswith(".") or end.lower() != suffix.lower():
                continue
            if fault := _fault_of_name(entry.name, suffix):
                misnamed.setdefault(stem, RawFile(_below(folder, name), fault, is_misnamed=True))
            else:
                found[stem] = RawFile(_below(folder, name), _fault(entry))
        self._files = dict(sorted({**misnamed, **found}.items()))

    def __iter__(self) -> Iterator[str]:
        """Names without suffix, sorted."""
        return iter(self._files)

    def file(self, stem: str) -> RawFile:
        """The file ``stem``; one that is not there has that as its fault."""
        path = _below(self.folder, f"{stem}{self.suffix}")
        return self._files.get(stem, RawFile(path, "is missing"))

    def unannotated(self, annotated: Iterable[str], annotation: str) -> Iterator[Rejected]:
        """A row for each file that no annotation names; its id is its path, as it has no other."""
        for stem in sorted(set(self._files) - set(annotated)):
            path = self._files[stem].path
            reason = f"{path} has no row in {annotation}"
            yield Rejected(id=path, reason=reason, file=path, annotated=False)


def class_folders(
    raw: Path, folder: str, classes: Iterable[str], suffix: str, page: str
) -> dict[str, RawFolder]:
    """The folder ``<folder>/<class>`` of each class; one that is not there has no files.

    Where ``folder`` is '', they lie in the root. A class of which no file is left is thus a loss
    like any other, and does not stop the rest.

    Raises:
        AmstError: none of them is there, or one cannot be read.
    """
    paths = {label: _below(folder, label) for label in classes}
    if not any((raw / path).is_dir() for path in paths.values()):
        raise _no_folder(raw / next(iter(paths.values())), page)
    return {
        label: RawFolder(raw, path, suffix, page, may_be_missing=True)
        for label, path in paths.items()
    }


def _below(folder: str, name: str) -> str:
    """A path relative to the raw root, which the folder '' is itself."""
    return f"{folder}/{name}" if folder else name


def _no_folder(path: Path, page: str) -> AmstError:
    return AmstError(f"there is no folder {path}", _layout(page))


def _layout(page: str) -> str:
    return f"The layout it needs is in {page}" if page else "Look at `raw` in config.yaml"


def folders_digest(raw: Path, folders: Iterable[str]) -> str:
    """Digest of names, sizes and times of change of all files in folders; nothing is opened.

    What cannot be looked at counts as something else than what can. Linked folders are followed.

    Args:
        raw: the raw root.
        folders: patterns below it (see ``Dataset.folders``).
    """
    digest = hashlib.sha256()
    for pattern in folders:
        for folder in sorted(_matching(raw, pattern)):
            digest.update(f"{folder.relative_to(raw)}\n".encode(errors="surrogateescape"))
            for line in _listing(folder):
                digest.update(f"{line}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _matching(folder: Path, pattern: str) -> set[Path]:
    """What matches a pattern; unlike in ``Path.glob``, ``**`` enters linked folders too."""
    before, recursive, after = f"/{pattern}/".partition("/**/")
    before, after = before.strip("/"), after.strip("/")
    found = set(folder.glob(before)) if before else {folder}
    if not recursive:
        return found
    below = {each for top in found if top.is_dir() for each in _with_subfolders(top)}
    return {match for each in below for match in _matching(each, after)}


def _with_subfolders(top: Path) -> Iterator[Path]:
    """A folder and all below it; none is entered twice, and no link to one that it lies in."""
    entered: set[Path] = set()
    waiting = [(top, Path(os.path.realpath(top)))]
    while waiting:
        folder, real = waiting.pop()
        yield folder
        if real in entered:
            continue
        entered.add(real)
        for name in _subfolders(folder):
            target = Path(os.path.realpath(folder / name))
            if target != real and target not in real.parents:
                waiting.append((folder / name, target))


def _subfolders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if _is_folder(entry))
    except OSError:
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one; a link that leads nowhere is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _listing(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(
                f"{entry.name} {stamp(entry)}"
                for entry in entries
                if not entry.name.startswith(".") and not _is_folder(entry)
            )
    except OSError as error:
        return [str(error.strerror)]


def stamp(file: Path | os.DirEntry[str]) -> str:
    """Size and time of change of a file: what tells cheaply that it is another one."""
    try:
        facts = file.stat()
    except OSError as error:
        return str(error.strerror)
    return f"{facts.st_size}@{facts.st_mtime_ns}"


def first_fault(*files: RawFile) -> tuple[str, str] | None:
    """Reason and path of the first file with a fault."""
    for file in files:
        if file.fault:
            return f"{file.path} {file.fault}", file.path
    return None


def read_annotation(path: Path, page: str) -> str:
    """The text of an annotation file, decoded as by ``decode``.

    Where it is no UTF-8 as a whole, each line is decoded by itself, so that one odd byte garbles
    no other line.

    Raises:
        AmstError: it is missing, cannot be read, or is a Git LFS pointer.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise AmstError(f"there is no annotation file {path}", _layout(page)) from None
    except OSError as error:
        raise unreadable(path, error) from None
    if content.startswith(LFS_START):
        raise AmstError(f"{path} is a Git LFS pointer, not the file", "Run `git lfs pull` there")
    try:
        return _unicode(content)
    except UnicodeDecodeError:
        return "".join(decode(line) for line in content.splitlines(keepends=True))


def lines_of(text: str) -> list[str]:
    r"""The lines of an annotation, which end with ``\n``, ``\r\n`` or ``\r``.

    ``str.splitlines`` also ends one at U+0085, which is the Windows ellipsis read as Latin-1, and
    at other characters that stand inside sentences.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines if lines[-1] else lines[:-1]


def unreadable(path: Path, error: OSError) -> AmstError:
    """The error for a file or folder that is there and cannot be read."""
    return AmstError(
        f"{path} cannot be read ({error.strerror})", "Mend its permissions or the disk"
    )


def decode(content: bytes, otherwise: str = "latin-1") -> str:
    """Bytes as UTF-8, or as UTF-16 if its byte order mark says so, or else as told, or as Latin-1.

    The mark is dropped. Latin-1 never fails.

    Args:
        content: of a file.
        otherwise: encoding of what is no Unicode.
    """
    with suppress(UnicodeDecodeError):
        return _unicode(content)
    with suppress(UnicodeDecodeError):
        return content.decode(otherwise)
    return content.decode("latin-1")


def _unicode(content: bytes) -> str:
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if marked else "utf-8-sig")


def _fault_of_name(name: str, suffix: str) -> str:
    # Python gives bytes of a name that are not UTF-8 as characters that no UTF-8 has.
    if any("\ud800" <= letter <= "\udfff" for letter in name):
        return "has a name that is not UTF-8; rename it"
    return "" if name.endswith(suffix) else f"is not named *{suffix}; rename it"


def _fault(entry: os.DirEntry[str]) -> str:
    try:
        size = entry.stat().st_size
        if not entry.is_file():
            return "is no file"
        if size == 0:
            return "is empty"
        if size <= _LFS_LARGEST and _is_lfs_pointer(entry.path):
            return "is a Git LFS pointer, not the medium; run `git lfs pull`"
    except OSError as error:
        return unread(entry.path, error)
    return ""


def unread(path: Path | str, error: OSError) -> str:
    """The fault of a file that cannot be read.

    Raises:
        OSError: it is the fault of its storage; with the file, which reading alone does not name.
    """
    if not is_of_file(error):
        error.filename = str(path)
        raise error
    return f"cannot be read ({error.strerror})"


def is_of_file(error: OSError) -> bool:
    """Whether an error is the fault of a file, and not of the storage that it lies on."""
    return error.errno in _OF_A_FILE


def _is_lfs_pointer(path: str) -> bool:
    with Path(path).open("rb") as file:
        return file.read(len(LFS_START)) == LFS_START
