"""Folders that lie elsewhere behind links: a container does not see them unless they are bound."""

import os
import stat
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path

WORKING_FOLDERS = {
    Path("results"): 3,  # results/runs/CREMAD/amst
    Path("logs"): 1,
    Path("benchmarks"): 1,
    Path(".snakemake"): 1,
}
"""What Snakemake writes to in a working folder -> how deep links in it are looked for."""
DEPTH = 6
"""How deep links in a raw folder are looked for: sessions of IEMOCAP lie five folders deep."""
_ENTRIES = 100_000  # seconds on a slow file system; no raw folder of the suite has more
_FOLDERS = 200  # each is a mount in the container and a path in one environment variable


def targets(root: Path, depth: int) -> Iterator[Path]:
    """Real folders behind a root and behind the links below it, every one once.

    Of a link to a file the file's folder. The search is wide before it is deep and ends, with a
    line where it has found too many, after so many folders or entries.

    Args:
        root: a folder or a link to one, there or not.
        depth: how many folders deep.
    """
    if not root.is_dir():
        return
    found = {root.resolve()}
    yield from found
    waiting = deque([(root.resolve(), 1)])
    seen, entries = set(found), 0
    while waiting and entries < _ENTRIES:
        folder, level = waiting.popleft()
        inside, links = _look(folder)
        entries += len(inside) + len(links)
        for target in _behind(links):
            if target not in found and len(found) == _FOLDERS:
                print(
                    f"{root}: its links lead to more than {_FOLDERS} folders; "
                    "bind the others by APPTAINER_BIND",
                    file=sys.stderr,
                )
                return
            if target not in found:
                found.add(target)
                yield target
            inside.append(target)
        new = [each for each in inside if each not in seen and level < depth]
        seen.update(new)
        waiting.extend((each, level + 1) for each in new)


def _look(folder: Path) -> tuple[list[Path], list[Path]]:
    """Folders and links in a folder."""
    try:
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError:
        return [], []
    links = [Path(entry) for entry in entries if entry.is_symlink()]
    return [Path(entry) for entry in entries if entry.is_dir(follow_symlinks=False)], links


def _behind(links: list[Path]) -> Iterator[Path]:
    """Real folders that links of one folder lead to.

    Thousands of links to files of one folder are looked at by one call each, not resolved.
    """
    known: set[Path] = set()
    for link in links:
        to = link.parent / link.readlink()
        try:
            kind = to.lstat().st_mode
        except OSError:  # leads to nothing
            continue
        if stat.S_ISREG(kind):
            if to.parent in known:
                continue
            known.add(to.parent)
        target = link.resolve()
        yield target if target.is_dir() else target.parent
