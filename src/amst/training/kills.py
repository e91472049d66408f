"""How often a run was killed before it could save: it may need more memory. Imports no torch.

Other attempts end because a time limit or a pre-emption asked them to, and need no more than
they had.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from amst.files import write_text
from amst.training.signals import StopRequest

FILE = "kills"
"""In a run's folder of checkpoints: a number; a living attempt counts as killed."""

WHY = "killed for want of memory (see `dmesg`), for a limit (`ulimit -t`), by hand or with its node"
"""What may have ended an attempt that could not say so."""


def kills(checkpoints: Path) -> int:
    """How many attempts of a run have ended without a word, or have not ended yet."""
    try:
        return int((checkpoints / FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return 0


@contextmanager
def counted(checkpoints: Path, stop: StopRequest) -> Iterator[None]:
    """Count this attempt as killed until it ends in another way; forget all when the run is done.

    Args:
        checkpoints: the run's folder of checkpoints.
        stop: requests to stop; an attempt that leaves for one has saved.
    """
    before = kills(checkpoints)
    _note(checkpoints, before + 1)
    stop.before_leaving(lambda: _note(checkpoints, before))
    try:
        yield
    except Exception:
        _note(checkpoints, before)
        raise
    (checkpoints / FILE).unlink(missing_ok=True)


def _note(checkpoints: Path, number: int) -> None:
    if number:
        checkpoints.mkdir(parents=True, exist_ok=True)
        write_text(checkpoints / FILE, str(number))
    else:
        (checkpoints / FILE).unlink(missing_ok=True)
