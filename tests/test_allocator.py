"""Freed memory serves again: counted by the pages that the system has to hand out anew."""

import ctypes
import subprocess
import sys

import pytest

from amst.allocator import keep_freed_memory

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # mallopt(3)
BLOCK = 64 << 20  # bytes; glibc maps what is above 32 MB
FAULTS = f"""
import resource, sys, threading
from amst.allocator import keep_freed_memory
if sys.argv[1] == "kept" and not keep_freed_memory():
    raise SystemExit("refused")

def again():
    for _ in range(5):
        bytearray({BLOCK})

def by_thread():
    thread = threading.Thread(target=again)
    thread.start()
    thread.join()

work = by_thread if sys.argv[2] == "thread" else again
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(memory: str, where: str) -> int:
    """Pages handed out while a block is taken and freed five times."""
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, memory, where], capture_output=True, text=True, check=False
    )
    if "refused" in done.stderr:
        pytest.skip("the C library is not glibc, or an early one: large blocks cannot be kept")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize("where", ["main", "thread"])
def test_freed_blocks_are_used_again(where: str):
    assert 10 * faults("kept", where) < faults("given back", where)


@pytest.mark.parametrize(
    ("most", "sizes", "kept"),
    [(1 << 30, [1 << 30], True), (32 << 20, [1 << 30, 32 << 20], False), (0, None, False)],
    ids=["all", "early glibc", "none"],
)
def test_an_early_glibc_is_asked_for_what_it_can_do(
    monkeypatch: pytest.MonkeyPatch, most: int, sizes: list[int] | None, kept: bool
):
    """A trim threshold alone would end the growth of the other one, which costs more than it saves.

    The C library here can be told once only, so that another one stands in for it.
    """
    asked: dict[int, list[int]] = {}

    class Library:
        @staticmethod
        def mallopt(parameter: int, value: int) -> int:
            asked.setdefault(parameter, []).append(value)
            return int(parameter != MMAP_THRESHOLD or value <= most)

    monkeypatch.setattr(ctypes, "CDLL", lambda _name: Library)
    assert keep_freed_memory() is kept
    assert asked[MMAP_THRESHOLD] == (sizes or [1 << 30, 32 << 20])
    assert (TRIM_THRESHOLD in asked) is (sizes is not None)
