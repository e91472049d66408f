"""Copies of shards on a node's own disk, one for all runs of the node."""

import fcntl
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from amst.features.manifest import ShardEntry
from amst.files import replacing, sha256_of
from amst.loading.memory import available_memory, lies_in_memory
from amst.ownfolder import make_own

_CHUNK = 1 << 22
_SPARE = 64 << 20  # bytes left free for whatever else writes to the disk


def stage_folder(setting: str) -> Path | None:
    """Folder for copies as ``execution.stage`` names it; None where there shall be or is none.

    Args:
        setting: a path with environment variables ('$TMPDIR'), or ''.
    """
    if not setting:
        return None
    parent = os.path.expandvars(setting)
    if "$" in parent:
        _say(f"execution.stage is {setting}, and no such variable is set here")
        return None
    folder = Path(parent, f"amst-features-{os.getuid()}")
    try:
        make_own(folder)
    except OSError as error:
        _say(f"{folder} cannot be made ({error.strerror})")
        return None
    return folder


def staged(paths: Sequence[Path], entries: Sequence[ShardEntry], folder: Path) -> list[Path]:
    """Where to read shards from: a copy that is the file of the manifest, else the original.

    The first run of a node that wants a shard copies it, others wait for it. A copy has the
    shard's SHA-256 for a name, so it is never one of other features.

    Args:
        paths: the shards.
        entries: what the manifest says of each.
        folder: for the copies.
    """
    began, found = time.monotonic(), list(paths)
    copied = 0
    for index, (path, entry) in enumerate(zip(paths, entries, strict=True)):
        try:
            copy = folder / f"{entry.sha256}.h5"
            with _lock(copy):
                if not _is_whole(copy, entry):
                    _check_room(path, folder)
                    if not _copy(path, copy, entry):
                        continue  # the original is damaged, and its reader says how
                    copied += path.stat().st_size
            found[index] = copy
        except OSError as error:
            _say(f"{error.strerror or error} at {folder}; from {path.name} on")
            break
    if copied:
        seconds = time.monotonic() - began
        print(f"copied {copied / 1e6:.1f} MB of shards to {folder} in {seconds:.1f} s",
              file=sys.stderr, flush=True)  # fmt: skip
    return found


@contextmanager
def _lock(copy: Path) -> Iterator[None]:
    """Hold a copy's lock. The disk is this node's own, and the kernel frees what the dead held."""
    with copy.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_whole(copy: Path, entry: ShardEntry) -> bool:
    if not copy.is_file():
        return False
    if sha256_of(copy) == entry.sha256:
        return True
    print(f"{copy} is damaged; copying the shard anew", file=sys.stderr, flush=True)
    copy.unlink()
    return False


def _check_room(path: Path, folder: Path) -> None:
    size, free, kept = path.stat().st_size, shutil.disk_usage(folder).free, _SPARE
    of = "free"
    if lies_in_memory(folder) and (memory := available_memory()) // 2 < free - kept:
        # A job that takes more is killed, and training wants its part, too.
        free, kept, of = memory, memory // 2, "of memory left to this job"
    if size + kept > free:
        raise OSError(
            f"only {free / 1e6:.0f} MB {of} where {size / 1e6:.0f} MB are to be copied and "
            f"{kept / 1e6:.0f} MB to stay free"
        )


def _copy(path: Path, copy: Path, entry: ShardEntry) -> bool:
    """Copy a shard by rename; False, and no copy, if it is not the one of the manifest."""
    for left in copy.parent.glob(f".{copy.name}.*"):  # by a run that was killed
        left.unlink()
    digest = hashlib.sha256()
    with suppress(_OtherError), replacing(copy) as temporary:
        with path.open("rb") as source, temporary.open("wb") as target:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                target.write(chunk)
        if digest.hexdigest() != entry.sha256:
            raise _OtherError
        return True
    return False


class _OtherError(Exception):
    """A file is not the one of the manifest."""


def _say(reason: str) -> None:
    print(f"{reason}: shards are read where they lie", file=sys.stderr, flush=True)
