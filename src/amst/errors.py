"""Errors that are the user's to mend: one line with what, where and what to do."""


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


def no_python(error: SyntaxError) -> AmstError:
    """What to say of a method's or a dataset's file that Python cannot read."""
    return AmstError(f"{error.filename}, line {error.lineno}: {error.msg}", "Mend the file")
