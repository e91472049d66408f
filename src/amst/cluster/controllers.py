"""The calls of Snakemake that live in a working folder, and what locks they leave when they die.

Snakemake (9.27) locks files and not the folder: calls that neither make nor read what another one
makes run at once, as where one prepares a dataset while runs of another are trained. Its locks do
not say whose they are, and a call that ends removes those of all: the next one would not be told of
the one that still lives.
"""

import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from snakemake.persistence.file import FilePersistence

from amst.cluster import live
from amst.files import write_text
from amst.training.lock import Writer

NOTE = "amst-controller.json"
"""In Snakemake's own folder: a line for each call that may live, the last one last."""


def clear_locks_of_the_dead(notes: Path, me: Writer) -> bool:
    """Remove Snakemake's locks if no call lives that may hold them, and note this call.

    Args:
        notes: Snakemake's own folder, ``.snakemake``, there or not.
        me: this process.

    Returns:
        Whether no locks are left; those that are belong to calls that live.
    """
    locks = list((notes / "locks").glob("*.lock"))
    others = _others(notes, me)
    if locks and others:
        return False
    for lock in locks:
        lock.unlink(missing_ok=True)
    # Without locks: one that is seen to live has not come to them yet, all others have ended.
    seen = [each for each in others if (each.host, each.uid) == (me.host, me.uid)]
    _write(notes, [*seen, me])
    return True


def note(notes: Path, me: Writer) -> bool:
    """Note this call beside those that may live, when it holds its locks; whether it is alone."""
    others = _others(notes, me)
    _write(notes, [*others, me])
    return not others


def keep_locks_of_others() -> None:
    """Let a call that ends remove its own locks only; ``--unlock`` must not be told so."""

    def delete_own(self: Any) -> None:
        for lock in self._lockfile.values():
            Path(lock).unlink(missing_ok=True)
        self._lockfile.clear()

    FilePersistence._delete_locks = delete_own


def _others(notes: Path, me: Writer) -> list[Writer]:
    """The calls that were noted and may live, without this one."""
    try:
        lines = (notes / NOTE).read_text("utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        with suppress(ValueError, TypeError):
            who = Writer(**json.loads(line))
            if who.token != me.token and not _has_ended(who, me):
                found.append(who)
    return found


def _has_ended(who: Writer, me: Writer) -> bool:
    return who.surely_dead(me) or (who.uid == me.uid and live.has_ended(who.job, me.job))


def _write(notes: Path, callers: list[Writer]) -> None:
    write_text(notes / NOTE, "".join(f"{json.dumps(asdict(each))}\n" for each in callers))
