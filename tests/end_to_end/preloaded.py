"""Real calls of Snakemake and of the package without the time that a process takes to import them.

Two kinds of processes import what others made, and nothing of the suite, and wait: one has
Snakemake, one torch and what else jobs need. Every call of Snakemake is a fork of the one, with the
folder, the environment and the command line of the call, and runs Snakemake's own entry point.
Every job in it (``python -m amst ...``) is a fork of the other, and runs the package of the job's
own checkout.

Calls that are to be interrupted, or are made by another user, start commands instead, and so do
all jobs of SLURM: a module that the package uses and does not import would fail there.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import cycle
from pathlib import Path
from socketserver import ForkingMixIn, StreamRequestHandler, UnixStreamServer
from typing import Any

# What depends on the order of a set must not look the same in all calls: those of Snakemake have
# two processes in turn; jobs, whose process takes half a gigabyte, another one in every other
# worker.
_SEEDS = cycle(("1", "2"))
_SEED_OF_JOBS = "12"[int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 2]
_IMPORTED = {
    "snakemake": (
        "snakemake.cli",
        "snakemake.report.html_reporter",
        "smart_open",  # by every call
        "pandas",  # by the plugin for SLURM
    ),
    "amst": (
        "h5py", "jinja2", "matplotlib.backends.backend_agg", "matplotlib.figure", "PIL.Image",
        "pydantic", "rich.console", "safetensors.torch", "scipy.optimize", "scipy.stats",
        "tensorboard.summary", "torch", "typer", "yaml",
    ),
}  # fmt: skip
"""Module that a process runs -> what of others it takes long to import."""
_PYTHON = """#!{python} -IS
import json, os, signal, socket, sys
path = {sockets}.get(sys.argv[2]) if sys.argv[1:2] == ["-m"] else None
if not path:
    os.execv("{python}", ["{python}", *sys.argv[1:]])
connection = socket.socket(socket.AF_UNIX)
connection.connect(path)
socket.send_fds(connection, [b"."], [0, 1, 2])
asked = dict(command=sys.argv[2:], folder=os.getcwd(), environment=dict(os.environ))
asked["python"] = sys.argv[0] if sys.argv[2] == "snakemake" else "{python}"
connection.sendall(json.dumps(asked).encode() + b"\\n")
answer = connection.makefile().read().split()
if len(answer) < 2:
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(int(answer[1]))
"""
"""The Python of a forked call of Snakemake: what it is to start is forked, too."""


class _Call(StreamRequestHandler):
    """One call: reads what is to be run, runs it, and answers with its exit status."""

    def handle(self) -> None:
        # one byte comes with the descriptors of input, output and errors
        _, descriptors, _, _ = socket.recv_fds(self.connection, 1, 3)
        call = json.loads(self.rfile.readline())
        os.setsid()
        self.wfile.write(f"{os.getpid()}\n".encode())
        os.environ.clear()
        os.environ.update(call["environment"])
        os.chdir(call["folder"])
        for stream, descriptor in enumerate(descriptors):
            os.dup2(descriptor, stream)
            os.close(descriptor)
        sys.argv = call["command"]
        sys.executable = call["python"]
        self.wfile.write(f"{_status(self.server.run)}\n".encode())  # type: ignore[attr-defined]


class _Server(ForkingMixIn, UnixStreamServer):
    block_on_close = False
    max_children = 100

    def __init__(self, path: str, run: Callable[[], object], asks: int) -> None:
        super().__init__(path, _Call)
        self.run, self._asks = run, asks

    def service_actions(self) -> None:
        """Twice a second: end where the process that asks was killed, which could not see to it."""
        super().service_actions()
        if os.getppid() != self._asks:
            shutil.rmtree(Path(str(self.server_address)).parent)
            sys.exit()


def _status(run: Callable[[], object]) -> int:
    """What a process that runs this exits with, after what the end of a process does."""
    try:
        run()
        status: Any = 0
    except SystemExit as end:
        status = end.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    if isinstance(status, str):
        print(status, file=sys.stderr)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return status if isinstance(status, int) else int(status is not None)


def _snakemake() -> None:
    """What the command does, and ``python -m snakemake``."""
    from snakemake.cli import main

    main()


def _package() -> None:
    """What ``python -m amst`` does, in the checkout that PYTHONPATH names."""
    sys.path[:0] = [str(Path.cwd()), os.environ["PYTHONPATH"]]
    runpy.run_module("amst", run_name="__main__", alter_sys=True)


def _serve(kind: str, path: str) -> None:
    asks = os.getppid()
    for module in _IMPORTED[kind]:
        importlib.import_module(module)
    # the folder of this file
    del sys.path[0]
    gc.freeze()
    with _Server(path, {"snakemake": _snakemake, "amst": _package}[kind], asks) as server:
        print("ready", flush=True)
        server.serve_forever()


@cache
def _server(kind: str, hash_seed: str) -> str:
    """Start a process that waits; the path of its socket."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PYTEST"))}
    environment["PYTHONHASHSEED"] = hash_seed
    # not in TMPDIR: the path of a socket has 107 bytes at most, and Snakemake starts jobs with no
    # Python whose path has white space
    folder = tempfile.TemporaryDirectory(dir="/tmp")
    path = Path(folder.name, "socket")
    process = subprocess.Popen(
        [sys.executable, __file__, kind, str(path)],
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
        raise RuntimeError(f"the process that is to run {kind} has ended")
    return str(path)


@cache
def _python(hash_seed: str) -> str:
    """The Python that asks processes that wait."""
    seeds = {"snakemake": hash_seed, "amst": _SEED_OF_JOBS}
    sockets = {kind: _server(kind, seed) for kind, seed in seeds.items()}
    path = Path(sockets["snakemake"]).with_name("python")
    path.write_text(_PYTHON.format(python=sys.executable, sockets=sockets))
    path.chmod(0o755)
    return str(path)


def snakemake(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], jobs: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a command line of Snakemake and wait; its exit status and what it has said.

    Args:
        command: its words.
        folder: where it is called.
        environment: of the call.
        jobs: whether its jobs are forks, too.
    """
    seed = next(_SEEDS)
    python = _python(seed) if jobs else sys.executable
    return _ask(_server("snakemake", seed), command, folder, environment, python)


def amst(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m amst`` of the checkout that PYTHONPATH names, as ``snakemake`` does."""
    command = ["amst", *arguments]
    return _ask(_server("amst", _SEED_OF_JOBS), command, folder, environment, sys.executable)


def _ask(
    server: str,
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    python: str,
    seconds: float = 500,
) -> subprocess.CompletedProcess[str]:
    """Have a process that waits run a command.

    Raises:
        subprocess.TimeoutExpired: it took longer, and was killed.
    """
    asked = {
        "command": list(command),
        "folder": str(folder),
        "environment": dict(environment),
        "python": python,
    }
    with (
        socket.socket(socket.AF_UNIX) as connection,
        Path(os.devnull).open() as nothing,
        tempfile.NamedTemporaryFile("w+") as out,
        tempfile.NamedTemporaryFile("w+") as err,
    ):
        connection.settimeout(seconds)
        connection.connect(server)
        socket.send_fds(connection, [b"."], [each.fileno() for each in (nothing, out, err)])
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
        said = [Path(stream.name).read_text() for stream in (out, err)]
        return subprocess.CompletedProcess(list(command), returncode, *said)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
