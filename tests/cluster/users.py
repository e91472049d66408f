"""An ordinary user of a cluster: not root, and not the owner of the checkout."""

import os
import pwd
import subprocess
import sys
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
NAME, GROUP = "nobody", "nogroup"


@cache
def why_not() -> str:
    """Why commands cannot be run as another user; empty where they can, or need not be."""
    if os.geteuid() != 0:
        return ""
    tried = subprocess.run([*_within(), "true"], capture_output=True, text=True, check=False)
    return f"no mounts of one's own, so it cannot be tested here: {tried.stderr}".strip() * (
        tried.returncode != 0
    )


def _within(*folders: Path) -> list[str]:
    """What runs a command where all users can reach some folders, and this Python."""
    return [
        str(HERE / "within-reach.sh"),
        *map(str, (*folders, sys.base_prefix, sys.prefix)),
        "--",
    ]


class OrdinaryUser:
    """Whoever runs the tests, unless that is root: then a user without any rights.

    Args:
        folder: everybody may reach it.

    Attributes:
        within: words before a command of a daemon, so that jobs of the user reach the folder.
        words: words before a command of the user.
        uid: the user's number.
    """

    def __init__(self, folder: Path) -> None:
        self.within: list[str] = []
        self.words: list[str] = []
        self.uid = os.geteuid()
        if self.uid == 0:
            self.uid = pwd.getpwnam(NAME).pw_uid
            folder.chmod(0o755)
            self.within = _within(folder)
            who = ("--reuid", NAME, "--regid", GROUP, "--clear-groups")
            self.words = [*self.within, "setpriv", *who, "--"]

    def own(self, folder: Path) -> None:
        """Give them a folder with all that is in it."""
        if self.words:
            subprocess.run(["chown", "-hR", f"{NAME}:{GROUP}", folder], check=True)
