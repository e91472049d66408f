"""What an examination says: one finding per thing looked at."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "note", "fault"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        about: what, in a word or two.
        verdict: 'fault' will not work; 'note' works, and the user should know.
        text: what was found, and what to do where it is not 'ok'.
    """

    about: str
    verdict: Verdict
    text: str


def ok(about: str, text: str) -> Finding:
    """All is well."""
    return Finding(about, "ok", text)


def note(about: str, text: str) -> Finding:
    """Works; the user should know."""
    return Finding(about, "note", text)


def fault(about: str, text: str) -> Finding:
    """Will not work."""
    return Finding(about, "fault", text)
