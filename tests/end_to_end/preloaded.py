"""Real calls of Snakemake without the time that a process takes to import it.

A process imports Snakemake and nothing of the suite, and waits. Every call is a fork of it, with
the folder, the environment and the command line of the call, and runs Snakemake's own entry point.
Calls that are to be interrupted, or are made by another user, start the command instead.
"""

import atexit
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import cycle
from pathlib import Path
from socketserver import ForkingMixIn, StreamRequestHandler, UnixStreamServer
from typing import Any

# Of two processes in turn: what depends on the order of a set must not look the same in all calls.
_SEEDS = cycle(("1", "2"))


class _Call(StreamRequestHandler):
    """One call: reads what is to be run, runs it, and answers with its exit status."""

    def handle(self) -> None:
        call = json.loads(self.rfile.readline())
        os.setsid()
        self.wfile.write(f"{os.getpid()}\n".encode())
        os.environ.clear()
        os.environ.update(call["environment"])
        os.chdir(call["folder"])
        for stream, path in ((1, call["out"]), (2, call["err"])):
            os.dup2(os.open(path, os.O_WRONLY), stream)
        sys.argv = call["command"]
        self.wfile.write(f"{_status()}\n".encode())


def _status() -> int:
    """What Snakemake's own command exits with."""
    from snakemake.cli import main

    try:
        main()
        status: Any = 0
    except SystemExit as end:
        status = end.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    if isinstance(status, str):
        print(status, file=sys.stderr)
    # what the end of a process does
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return status if isinstance(status, int) else int(status is not None)


class _Server(ForkingMixIn, UnixStreamServer):
    block_on_close = False
    max_children = 100


def _serve(path: str) -> None:
    import pandas  # noqa: F401 - by Snakemake's plugin for SLURM
    import smart_open  # noqa: F401 - by every call, as what follows
    import snakemake.cli
    import snakemake.report.html_reporter  # noqa: F401

    sys.path[0] = str(Path(sys.executable).parent)  # as for the command
    gc.freeze()
    with _Server(path, _Call) as server:
        print("ready", flush=True)
        server.serve_forever()


@cache
def _server(hash_seed: str) -> str:
    """Start the process that waits; the path of its socket."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PYTEST"))}
    environment["PYTHONHASHSEED"] = hash_seed
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name, "socket")
    process = subprocess.Popen(
        [sys.executable, __file__, str(path)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )

    def end() -> None:
        process.kill()
        process.wait()
        folder.cleanup()

    atexit.register(end)
    assert process.stdout
    if not process.stdout.readline():
        raise RuntimeError("the process that imports Snakemake has ended")
    return str(path)


def call(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], seconds: float
) -> subprocess.CompletedProcess[str]:
    """Run a command line of Snakemake and wait; its exit status and what it has said.

    Raises:
        subprocess.TimeoutExpired: it took longer, and was killed.
    """
    with (
        socket.socket(socket.AF_UNIX) as connection,
        tempfile.NamedTemporaryFile("r") as out,
        tempfile.NamedTemporaryFile("r") as err,
    ):
        connection.settimeout(seconds)
        connection.connect(_server(next(_SEEDS)))
        asked = {
            "command": list(command),
            "folder": str(folder),
            "environment": dict(environment),
            "out": out.name,
            "err": err.name,
        }
        connection.sendall(json.dumps(asked).encode() + b"\n")
        with connection.makefile("r") as answer:
            pid = int(answer.readline())
            try:
                status = answer.readline()
            except TimeoutError:
                os.killpg(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(list(command), seconds) from None
        # killed from outside: it could not answer
        returncode = int(status) if status else -signal.SIGKILL
        return subprocess.CompletedProcess(list(command), returncode, out.read(), err.read())


if __name__ == "__main__":
    _serve(sys.argv[1])
