"""How the C library of this process deals with memory that has been freed."""

import ctypes
from contextlib import suppress

# Parameters of glibc's mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
# Bytes; larger blocks go back to the system when they are freed. Earlier versions of glibc take no
# more than half of one of their heaps, and refuse the first.
_LARGE = (1 << 30, 32 << 20)


def keep_freed_memory() -> bool:
    """Let this process use freed memory again instead of giving it back to the system at once.

    glibc maps every block of more than 32 MB anew, and the system clears each of its pages when it
    is first touched: a batch of pictures, or an activation, then costs as much time as it takes to
    compute. Kept, the memory of one batch serves the next. One arena for all threads, since
    others are too small for such blocks.

    To be called before the process has begun threads. Changes no numbers. The most memory that is
    held at once grows somewhat: a large block may find what was freed partly taken by smaller ones,
    or, aligned as PyTorch asks for it, not fit where one of its size has been (glibc 2.36).

    Returns:
        Whether it is so for blocks of every size.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    # Its own threshold grows by use, up to 32 MB, until any of these is set: it comes first.
    largest = next((size for size in _LARGE if mallopt(_MMAP_THRESHOLD, size)), 0)
    if not largest:
        return False
    kept = mallopt(_TRIM_THRESHOLD, (1 << 31) - 1) and mallopt(_ARENA_MAX, 1)
    return bool(kept) and largest == _LARGE[0]


def give_back_freed_memory() -> None:
    """Let the system have what this process has freed and kept; nothing with other C libraries."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
