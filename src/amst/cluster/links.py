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
_LINKS = 40  # as many as the kernel follows
_FOLDERS = 200  # each is a mount in the container and a path in one environment variable


def targets(root: Path, depth: int) -> Iterator[Path]:
    """Folders behind a root and behind the links below it, by every name that leads to them, once.

    A link may lead to a folder below another link, as /scratch often is one: a container needs the
    folder by the name that the link has, too. Of a link to a file the file's folder. The search is
    wide before it is deep and ends, with a line where it has found too many, after so many folders
    or entries.

    Args:
        root: a folder or a link to one, there or not.
        depth: how many folders deep.
    """
    if not root.is_dir():
        return
    found = dict.fromkeys(names(root))
    yield from found
    # with the name by which the container has the folder: relative links lead on from there
    given = Path(os.path.normpath(root.absolute()))
    inside_work = given.is_relative_to(Path.cwd())
    waiting = deque([(root.resolve(), next(iter(found)) if inside_work else given, 1)])
    seen, entries = {root.resolve()}, 0
    while waiting and entries < _ENTRIES:
        folder, called, level = waiting.popleft()
        folders, links = _look(folder)
        inside = {each: called / each.name for each in folders}
        entries += len(folders) + len(links)
        for named in _behind(links, called):
            for target in named:
                if target not in found and len(found) >= _FOLDERS:
                    print(
                        f"{root}: its links lead to more than {_FOLDERS} folders; "
                        "bind the others by APPTAINER_BIND",
                        file=sys.stderr,
                    )
                    return
                if target not in found:
                    found[target] = None
                    yield target
            inside.setdefault(named[-1], named[0])
        new = {each: name for each, name in inside.items() if each not in seen and level < depth}
        seen.update(new)
        waiting.extend((each, name, level + 1) for each, name in new.items())


def names(path: Path) -> list[Path]:
    """Names of the folder that a path leads to, one link after the other; the real one is last.

    Args:
        path: a folder or a file; of a file its folder is meant.
    """
    found, at = [], Path(os.path.normpath(path.absolute()))
    for _ in range(_LINKS):
        link = next((each for each in (*reversed(at.parents), at) if each.is_symlink()), None)
        if not link:
            break
        at = Path(os.path.normpath(link.parent / link.readlink() / at.relative_to(link)))
        found.append(at if at.is_dir() else at.parent)
    real = path.resolve()
    found.append(real if real.is_dir() else real.parent)
    return [each for each in dict.fromkeys(found) if each.is_dir()]


def _look(folder: Path) -> tuple[list[Path], list[Path]]:
    """Folders and links in a folder."""
    try:
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError:
        return [], []
    links = [Path(entry) for entry in entries if entry.is_symlink()]
    return [Path(entry) for entry in entries if entry.is_dir(follow_symlinks=False)], links


def _behind(links: list[Path], called: Path) -> Iterator[list[Path]]:
    """Folders that links of one folder lead to, each by all its names.

    Thousands of links to files of one folder are looked at by one call each, not resolved.

    Args:
        links: by the folder's real path.
        called: another name of the folder.
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
        found = names(link)
        first = Path(os.path.normpath(called / link.readlink()))
        there = first if first.is_dir() else first.parent
        yield [there, *found] if there not in found and first.resolve() == link.resolve() else found
