"""Freed memory serves again: counted by the pages that the system has to hand out anew."""

import subprocess
import sys

import pytest

BLOCK = 64 << 20  # bytes; glibc maps what is above 32 MB
FAULTS = f"""
import resource, sys, threading
from amst.allocator import keep_freed_memory
if sys.argv[1] == "kept" and not keep_freed_memory():
    raise SystemExit("not glibc")

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
    if "not glibc" in done.stderr:
        pytest.skip("the C library is not glibc: freed memory cannot be kept")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize("where", ["main", "thread"])
def test_freed_blocks_are_used_again(where: str):
    assert 10 * faults("kept", where) < faults("given back", where)
