"""Errors that are the user's to mend: one line with what, where and what to do."""

import errno
import os
from pathlib import Path

_NOT_OF_THE_DISK = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL)
"""Numbers of errors that a file which is absent, no file, or damaged gives on any disk."""


class AmstError(Exception):
    """A mistake in input, configuration or environment, told in one line.

    The command line prints the message without a traceback (``--debug`` shows it).

    Args:
        message: what is wrong and where (file, key, sample).
        remedy: what the user can do about it.
        exit_code: the status the process leaves with.
    """

    def __init__(self, message: str, remedy: str = "", exit_code: int = 1) -> None:
        self.message = message
        self.remedy = remedy
        self.exit_code = exit_code
        super().__init__(f"{message}. {remedy}" if remedy else message)


class HostError(AmstError):
    """Something of this machine is broken: the same command may work on another one."""


def not_given(path: Path | str, error: Exception) -> HostError | None:
    """The error for a file whose disk does not give it; None where reading it fails otherwise.

    Such a file is neither absent nor damaged: it is not to be made again, nor to be passed over.
    """
    if not isinstance(error, OSError) or error.errno in _NOT_OF_THE_DISK:
        return None
    return HostError(
        f"{path} cannot be read ({os.strerror(error.errno)})",
        "Call again; where that stays so, mend its permissions or the disk",
    )


def unread(path: Path | str, error: Exception, fault: str, remedy: str) -> AmstError:
    """The error for a file that cannot be read: ``not_given``, or that the file is at fault.

    Args:
        path: the file.
        error: what reading it has raised.
        fault: what is wrong with it where the disk has given it, or has none.
        remedy: what to do about that.
    """
    return not_given(path, error) or AmstError(f"{path} {fault}", remedy)


MORE_MEMORY = (
    "Ask for more, let fewer jobs run at a time, or raise the limit of this shell (`ulimit -v`); "
    "a training job takes less with execution.residency: stream"
)


def no_memory(error: BaseException) -> HostError | None:
    """The error for memory that this machine does not give; None where ``error`` is another."""
    words, name, told = str(error).partition("DefaultCPUAllocator: ")  # PyTorch's
    if not (name or isinstance(error, MemoryError)):
        return None
    line = ((told or words).splitlines() or ["MemoryError"])[0]
    return HostError(f"there is no memory left on this machine ({line})", MORE_MEMORY)


def not_installed(package: str) -> AmstError:
    """What to say of a package that is missing: it matters whether this is in an image."""
    image = os.environ.get("APPTAINER_CONTAINER") or os.environ.get("SINGULARITY_CONTAINER")
    if image:
        return AmstError(
            f"the package {package} is not in the image {image}",
            "Jobs need one that was built from containers/amst.def: correct container.image",
        )
    return AmstError(
        f"the package {package} is not installed here",
        "This needs more than the light set-up: `make environment`",
    )


def no_python(error: SyntaxError) -> AmstError:
    """What to say of a method's or a dataset's file that Python cannot read."""
    return AmstError(f"{error.filename}, line {error.lineno}: {error.msg}", "Mend the file")
