"""How the C library of this process deals with memory that has been freed."""

import ctypes

# Parameters of glibc's mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_LARGE = 1 << 30  # bytes; larger blocks go back to the system when they are freed


def keep_freed_memory() -> bool:
    """Let this process use freed memory again instead of giving it back to the system at once.

    glibc maps every block of more than 32 MB anew, and the system clears each of its pages when it
    is first touched: a batch of pictures, or an activation, then costs as much time as it takes to
    compute. Kept, the memory of one batch serves the next. One arena for all threads, since
    others are too small for such blocks.

    To be called before the process has begun threads. Changes no numbers. The most memory that is
    held at once grows somewhat: a large block may find what was freed partly taken by smaller ones.

    Returns:
        Whether the C library can be told so.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    wanted = {_ARENA_MAX: 1, _MMAP_THRESHOLD: _LARGE, _TRIM_THRESHOLD: (1 << 31) - 1}
    done = [mallopt(parameter, value) for parameter, value in wanted.items()]
    return all(done)
