"""Folders of this user alone where everybody may write, as in /tmp of a shared node."""

import errno
import os
from pathlib import Path


def make_own(folder: Path) -> None:
    """Make a folder that nobody else may enter; one that this user has made before stays.

    Its name can be guessed, so that somebody else may have made it first. What is written there
    would be theirs to read and to replace, and links of theirs would lead to files of this user.

    Raises:
        PermissionError: what is there is a link, or not this user's.
        OSError: it cannot be made.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        said = "what is there is a link, or somebody else's"
        raise PermissionError(errno.EPERM, said, str(folder))
