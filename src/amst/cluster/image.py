"""The image that jobs run in: what it sees of the host, and which one it was."""

import hashlib
import os
import re
import secrets
import shlex
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterable, Mapping, MutableMapping
from contextlib import suppress
from pathlib import Path

from amst.cluster.links import DEPTH, WORKING_FOLDERS, names, targets
from amst.errors import AmstError
from amst.files import reading, sha256_of, write_text

DIGEST = "AMST_CONTAINER_DIGEST"
"""Environment variable with the SHA-256 of the image; a run's record keeps it."""
FILE = "AMST_CONTAINER_FILE"
"""Environment variable with the path of the image, where it is a file."""
BIND = ("APPTAINER_BIND", "SINGULARITY_BIND")
"""Where Apptainer and SingularityCE read what to bind; the second knows only its own."""
GIVEN = "AMST_BIND_GIVEN"
"""Environment variable with what was bound before a call of Snakemake has added to it."""
PART = ".part"
"""How the name of an image that is being built ends."""
_SIF = struct.Struct("<112x2q")
"""Begin of a SIF file: where its data begin, and how many bytes of them there are."""
COMPILED = "TORCHINDUCTOR_CACHE_DIR"
"""Environment variable with the folder where PyTorch keeps what it has compiled."""


def image_name(checkout: Path) -> str:
    """Name of the image that the checkout's definition and pinned packages make.

    A change of either is another image.
    """
    parts = [
        (checkout / "containers" / name).read_bytes() for name in ("amst.def", "requirements.txt")
    ]
    return f"amst-{hashlib.sha256(bytes([0]).join(parts)).hexdigest()[:12]}.sif"


def bind(
    checkout: Path, roots: Iterable[Path], environ: MutableMapping[str, str] = os.environ
) -> None:
    """Let containers that are started from here see the checkout and the folders behind roots.

    They see the folder of compiled kernels as well, if one is named: runs use those of others.
    A job inherits what its call has bound, and may run on another node, where not all of that
    exists: it takes what was given before its call, and binds for itself what is there.
    """
    values = filter(None, (environ.get(name) for name in BIND))
    given = environ.setdefault(GIVEN, ",".join(dict.fromkeys(values)))
    kernels = map(Path, filter(None, [environ.get(COMPILED)]))
    environ.update(dict.fromkeys(BIND, bindings(checkout, [*roots, *kernels], given)))


def bindings(checkout: Path, roots: Iterable[Path], given: str = "") -> str:
    """What to bind: the checkout read-only, and the folders behind all roots.

    The working folder is bound by Apptainer itself; what its links and those in the roots lead to
    is not, so these are followed (`amst.cluster.links` says how far).

    Args:
        checkout: the folder of the Snakefile.
        roots: folders of the configuration, there or not.
        given: what the user or the site has set; it comes first and stays as it is.

    Raises:
        AmstError: a folder has a comma or a colon in its path, which no binding can name, or the
            working folder a colon.
    """
    inside = Path.cwd().resolve()
    own = [Path(os.path.normpath(checkout.absolute()))]
    own += names(checkout) if checkout.is_dir() else []
    wanted: dict[Path, str] = dict.fromkeys(own, ":ro")
    for root, depth in (*WORKING_FOLDERS.items(), *((root, DEPTH) for root in roots)):
        for target in (Path(os.path.normpath(root.absolute())), *targets(root, depth)):
            if target.is_dir() and not target.is_relative_to(inside):
                wanted.setdefault(target, "")
    if inside.is_relative_to(checkout.resolve()):
        wanted |= dict.fromkeys(own, "")  # results lie in the checkout
    for path, odd in {inside: ":", **dict.fromkeys(wanted, "[,:]")}.items():
        if re.search(odd, str(path)):
            raise AmstError(
                f"{path}, which jobs in the container need, has a comma or a colon in its path",
                "Apptainer cannot bind such a folder: give it another name, or run without "
                "--sdm apptainer",
            )
    parts = [f"{path}:{path}{mode}" for path, mode in wanted.items()]
    return ",".join(filter(None, [given, *parts]))


def digest_of(image: str, notes: Path = Path(".snakemake")) -> str:
    """SHA-256 of an image; empty where it is not known.

    A published address says it itself. A file is read once: the digest is kept beside it, or where
    that cannot be written in the folder ``notes``.
    """
    published = re.search(r"@sha256:([0-9a-f]{64})$", image)
    if published:
        return published[1]
    path = Path(image)
    if not path.is_file():
        return ""
    found = path.stat()
    # Not by which of the two is newer: an image that is copied or unpacked keeps its old time.
    of = f"# of the file with {found.st_size} bytes, mtime {found.st_mtime_ns} ns\n"
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    places = (noted_at(path), notes / f"amst-image-{name}.sha256")
    for place in places:
        with suppress(OSError):
            digest, _, rest = place.read_text("utf-8").partition("  ")
            if rest == f"{path.name}\n{of}":
                return digest
    digest = sha256_of(path)
    for place in places:
        with suppress(OSError):  # an image in a folder of somebody else
            write_text(place, f"{digest}  {path.name}\n{of}")
            break
    return digest


def noted_at(image: Path) -> Path:
    """Where an image's digest is kept, as `sha256sum --check` reads it."""
    return image.with_name(image.name + ".sha256")


def check_whole(image: Path) -> None:
    """Refuse an image file of which a part is missing, as when a copy was interrupted.

    In its header the format SIF says where its data end (github.com/apptainer/sif, type header).
    Of another format nothing is told, nor of a folder.

    Raises:
        AmstError: bytes are missing.
    """
    if not image.is_file():
        return
    with reading(image), image.open("rb") as file:
        header = file.read(_SIF.size)
    size = image.stat().st_size
    if not size:
        whole = 1
    elif len(header) == _SIF.size and header[32:].startswith(b"SIF_MAGIC"):
        whole = sum(_SIF.unpack(header))
    else:
        return
    if size < whole:
        raise AmstError(
            f"the image {image} is cut short: {size} bytes of {whole} or more are there",
            "Copy it again; or delete it where it was built here, and it is built anew",
        )


def note_digest(image: str, environ: MutableMapping[str, str] = os.environ) -> None:
    """Note the digest for all processes that begin from here, within the container too."""
    environ[DIGEST] = digest_of(image)
    environ[FILE] = str(Path(image).absolute()) if Path(image).is_file() else ""


def noted_digest(environ: Mapping[str, str] = os.environ) -> str:
    """The digest as a process in the container knows it; empty outside.

    A file may have been replaced since the call has noted it, and this process runs in what is
    there now.
    """
    file = environ.get(FILE, "")
    return (file and digest_of(file)) or environ.get(DIGEST, "")


def build(checkout: Path, target: Path, options: str = "") -> None:
    """Build the image from the checkout's definition; it appears whole or not at all.

    Calls in working folders that share their images may build at once, each to a file of its own.
    The image that is there first stays: jobs already run in it.

    Args:
        checkout: the folder with containers/amst.def.
        target: the image file.
        options: more options for `apptainer build`, as in a shell.

    Raises:
        AmstError: Apptainer is missing or the build fails.
    """
    program = shutil.which("apptainer") or shutil.which("singularity")
    if not program:
        raise AmstError("neither apptainer nor singularity is on PATH", "Load its module")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{secrets.token_hex(4)}{PART}")
    command = [program, "build", "--fakeroot", "--force"]
    # zstd is read several times faster than the default; old versions cannot choose
    known = subprocess.run([program, "build", "--help"], capture_output=True, text=True)
    if "--mksquashfs-args" in known.stdout:
        command += ["--mksquashfs-args", "-comp zstd -Xcompression-level 3"]
    command += [*shlex.split(options), str(part), "containers/amst.def"]
    # what jobs see of the host is no part of the image; build_args may bind for the build
    own = {"APPTAINER_BIND", "APPTAINER_BINDPATH", "SINGULARITY_BIND", "SINGULARITY_BINDPATH"}
    environment = {name: value for name, value in os.environ.items() if name not in own}
    try:
        ended = subprocess.run(command, cwd=checkout, env=environment, stdout=sys.stderr)
        if ended.returncode:
            raise AmstError(
                f"the image was not built: {shlex.join(command)} left with {ended.returncode}",
                "docs/cluster.md says how to build it elsewhere or to take a published one",
            )
        if not target.exists():
            part.replace(target)
    finally:
        if part.is_dir():  # with --sandbox
            shutil.rmtree(part)
        part.unlink(missing_ok=True)
