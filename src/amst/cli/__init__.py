"""The command ``amst``: one sub-command per step, the same that the workflow's rules call."""

import errno
import faulthandler
import os
import sys
from contextlib import suppress
from typing import Annotated

import typer

from amst import __version__
from amst.cli import bench, check, checkpoints, cluster, data, fetch, grid, plan, results, runs
from amst.errors import MORE_MEMORY, AmstError, no_memory, not_installed

app = typer.Typer(
    help="Experiments on imbalanced multimodal learning, from raw media to paper tables. "
    "Every step of the workflow is one command here; settings come from config.yaml unless given.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for commands in (data, check, fetch, runs, checkpoints, results, grid, plan, cluster, bench):
    commands.register(app)

_debug = False
_NO_ROOM = "Make room (`amst clean` says what can go) and call again"
_NOT_YOURS = "Mend its permissions, or work in a folder of your own"
_FAILED = "Its file system failed: call again; where that stays so, it is to be mended"
_MEANWHILE = "Something else may work in this folder: call again when that has ended"
_REFUSED = {
    errno.ENOENT: _MEANWHILE,
    errno.ENOTEMPTY: _MEANWHILE,
    errno.EBUSY: _MEANWHILE,
    errno.ENOSPC: _NO_ROOM,
    errno.EDQUOT: _NO_ROOM,
    errno.ENOMEM: MORE_MEMORY,
    errno.EMFILE: "Raise `ulimit -n`, or cut the features into fewer shards",
    errno.EIO: _FAILED,
    errno.ESTALE: _FAILED,
    errno.ENOTCONN: _FAILED,  # of FUSE
    errno.ESHUTDOWN: _FAILED,  # of Lustre and Ceph
    errno.EROFS: _NOT_YOURS,
    errno.EACCES: _NOT_YOURS,
    errno.EPERM: _NOT_YOURS,
    errno.EISDIR: "A file is wanted here: name one",
    errno.ENOTDIR: "A folder is wanted here: part of this path is a file",
    errno.EEXIST: "A folder is wanted here: name another, or move the file away",
    errno.ENAMETOOLONG: "Choose a shorter name",
    errno.ELOOP: "Mend the links, which lead in a circle",
}
"""What a file system may refuse, whatever the program does -> what to do."""


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"amst {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option(help="show the traceback of an error")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    global _debug
    _debug = debug


def main() -> None:
    """Run the command line; a user's mistake gives one line on stderr.

    A crash of a library, as of a decoder, says where: else the log of the job would be empty.
    """
    if not faulthandler.is_enabled():
        with suppress(OSError, RuntimeError):  # where stderr is closed, or no file
            faulthandler.enable()
    if os.environ.get("COLUMNS") == "0":  # as of a terminal without a size: nothing would be shown
        del os.environ["COLUMNS"]
    # Figures are only saved, and a notebook hands on the name of a backend that is not here.
    os.environ["MPLBACKEND"] = "agg"
    try:
        app()
    except AmstError as error:
        if _debug:
            raise
        print(f"amst: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if _debug or error.errno not in _REFUSED:
            raise
        # where a file could not be renamed, the first of its names is one of ours
        name = error.filename2 or error.filename
        where = f"{name}: " if name else ""
        # not its own words, which are lines of internals where HDF5 writes
        print(f"amst: {where}{os.strerror(error.errno)}. {_REFUSED[error.errno]}", file=sys.stderr)
        sys.exit(1)
    except MemoryError as error:
        if _debug:
            raise
        print(f"amst: {no_memory(error)}", file=sys.stderr)
        sys.exit(1)
    except ModuleNotFoundError as error:
        if _debug or (error.name or "amst").partition(".")[0] == "amst":
            raise
        print(f"amst: {not_installed(str(error.name))}", file=sys.stderr)
        sys.exit(1)
