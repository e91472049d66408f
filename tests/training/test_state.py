"""What is known of a run from its files, and what its numbers depend on."""

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import pytest

from amst.files import write_json
from amst.training.state import (
    STALE_AFTER,
    State,
    digest_of,
    failed_for_good,
    run_digest,
    state_of,
)

RUN = "digits/random/naive/seed0"


def test_a_run_goes_through_its_states(tmp_path: Path):
    assert state_of(tmp_path, RUN) == State("missing")
    folder = tmp_path / "checkpoints" / RUN
    lock, saved = folder / "lock", folder / "abc" / "epoch-0001-batch-000000.pt"
    saved.parent.mkdir(parents=True)
    lock.touch()
    assert state_of(tmp_path, RUN) == State("running")
    beat = time.time() - STALE_AFTER
    os.utime(lock, (beat + 10, beat + 10))
    assert state_of(tmp_path, RUN) == State("running")
    os.utime(lock, (beat - 10, beat - 10))
    assert state_of(tmp_path, RUN) == State("missing"), "its process is gone"
    saved.touch()
    assert state_of(tmp_path, RUN) == State("missing", saved=True)
    write_json(folder / "failed.json", {"error": "no memory", "log": "a.log"})
    assert state_of(tmp_path, RUN) == State("failed", "no memory", "a.log")
    os.utime(lock, (beat - 10, beat - 10))
    write_json(folder / "failed.json", [])
    assert state_of(tmp_path, RUN) == State("missing", saved=True), "no note of a failure"
    os.utime(lock)
    assert state_of(tmp_path, RUN) == State("running"), "it is tried again"
    (tmp_path / "runs" / RUN).mkdir(parents=True)
    (tmp_path / "runs" / RUN / "run.json").touch()
    assert state_of(tmp_path, RUN) == State("done"), "its lock goes in a moment"


def test_a_run_is_running_though_this_hosts_clock_is_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    lock = tmp_path / "checkpoints" / RUN / "lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    later = time.time() + 3600
    monkeypatch.setattr(time, "time", lambda: later)
    assert state_of(tmp_path, RUN) == State("running")
    assert list(lock.parent.iterdir()) == [lock]
    # file systems count time in steps of some milliseconds, and may be behind
    os.utime(lock, (later - 3601 - STALE_AFTER,) * 2)
    assert state_of(tmp_path, RUN) == State("missing"), "its process is gone"
    lock.touch()

    def refuse(*words: object, **named: object):
        raise PermissionError

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    assert state_of(tmp_path, RUN) == State("missing"), "as far as can be told"


@pytest.mark.parametrize(
    ("changes", "for_good"),
    [
        ({}, True),
        ({"hosts": ["n1"]}, False),
        ({"hosts": ["n1", "n2"]}, True),
        ({"digest": "of other code"}, False),
    ],
)
def test_a_run_has_failed_for_good_with_what_it_has_now_and_on_more_hosts_than_one(
    tmp_path: Path, changes: dict[str, Any], for_good: bool
):
    note = tmp_path / "checkpoints" / RUN / "failed.json"
    assert not failed_for_good(tmp_path, RUN, "d")
    write_json(note, {"digest": "d", "hosts": [], **changes})
    assert failed_for_good(tmp_path, RUN, "d") is for_good
    note.write_text("{")
    assert not failed_for_good(tmp_path, RUN, "d")


def test_the_digest_of_a_run_changes_with_all_that_its_numbers_depend_on(tmp_path: Path):
    manifest, split = tmp_path / "manifest.json", tmp_path / "split.json"

    def digest(*parts: str) -> str:
        return run_digest(*parts, manifest, split)

    made = ("settings", "code", "packages")
    found = [digest(*made)]
    for path in (manifest, split):
        path.write_text("one")
        found.append(digest(*made))
    split.write_text("other")
    found.append(digest(*made))
    manifest.write_text("other")
    split.write_text("one")
    found.append(digest(*made))
    found += [digest(*("new" if place == n else made[n] for n in range(3))) for place in range(3)]
    assert len(set(found)) == len(found) == 8
    assert digest(*made) == found[4]
    known = [hashlib.sha256(text).hexdigest() for text in (b"other", b"one")]
    assert digest_of(*made, *known) == found[4]
