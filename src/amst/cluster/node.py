"""Examines this node: processors, memory, GPU and driver, packages, container."""

import os
import pwd
import re
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from amst import compiler
from amst.cluster.findings import Finding, fault, note, ok
from amst.controlgroups import own_cores
from amst.provenance import REQUIREMENTS, installed_packages, pinned_packages

IN_IMAGE = "/opt/amst/requirements.txt"
"""The pinned packages that an image was built from; containers/amst.def puts them there."""
# Prints the version of Python, and which packages it lacks of those that every training job needs.
_WITHIN = """
import platform
from importlib.util import find_spec
print(platform.python_version())
print(*(name for name in ("h5py", "numpy", "pydantic", "torch", "typer") if not find_spec(name)))
"""
# CUDA major version -> oldest driver that runs it (CUDA release notes, minor version compatibility)
_DRIVERS = {11: 450, 12: 525, 13: 580}
# CUDA major version -> lowest compute capability of a GPU that it makes code for
_CAPABILITIES = {11: 3.5, 12: 5.0, 13: 7.5}


def examine(
    image: Path | None = None, compiles: bool = False, built: bool = True
) -> Iterator[Finding]:
    """Look at this node.

    Args:
        image: the image file that jobs use; None where it is fetched by its address.
        compiles: whether the configuration asks for compiled steps.
        built: whether the first call builds the image; not one that container.image names.
    """
    yield _processors()
    yield from _limits()
    yield _packages()
    yield _gpu()
    yield from _container(image, built)
    if compiles:
        yield from _compiling(image)


def _said(*command: str) -> str | None:
    """What a command prints; None when it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _processors() -> Finding:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return ok(
        "node", f"{os.uname().nodename}: {own_cores()} cores, {memory / 1e9:.0f} GB of memory"
    )


def _limits() -> Iterator[Finding]:
    """Limits of this shell's processes that libraries do not expect."""
    for option, kind in (("-v", resource.RLIMIT_AS), ("-d", resource.RLIMIT_DATA)):
        limit, _ = resource.getrlimit(kind)
        if limit != resource.RLIM_INFINITY:
            yield note(
                "memory",
                f"`ulimit {option}` leaves a process {limit / 1e9:.1f} GB: PyTorch wants more than "
                "it uses, and OpenBLAS stands still where it gets none; raise it for runs",
            )


def _packages() -> Finding:
    pins = pinned_packages()
    other = [f"{name} {has}" for name, has in installed_packages() if has != pins[name]]
    if other:
        shown = ", ".join(other[:5])
        return note("packages", f"not as pinned: {shown}; `make environment` installs the pins")
    return ok("packages", "as pinned")


def cuda_of_pins() -> int | None:
    """Major version of CUDA that the pinned torch brings; None for a build without it."""
    for name, pin in pinned_packages().items():
        if re.fullmatch(r"nvidia-cuda-runtime(-cu\d+)?", name):
            return int(pin.split(".")[0])
    return None


def _gpu() -> Finding:
    listed = _said("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    if not listed:
        return note(
            "GPU", "none here (a login node rarely has one); ask from a job: `srun --gpus=1`"
        )
    # Apart: an old driver knows no such field, and says nothing at all where it is asked for it.
    capabilities = _said("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader")
    told = re.findall(r"^\d+\.\d+$", capabilities or "", re.M)
    return judge_gpu(listed.splitlines(), told, cuda_of_pins())


def judge_gpu(gpus: list[str], capabilities: list[str], cuda: int | None) -> Finding:
    """Whether driver and GPUs can run the pinned torch.

    Args:
        gpus: lines 'name, driver version', one per GPU.
        capabilities: the GPUs' compute capabilities, such as '7.5'; none where they are not told.
        cuda: major version of CUDA that torch brings.
    """
    name, _, driver = (part.strip() for part in gpus[0].rpartition(","))
    text = f"{len(gpus)} x {name}, driver {driver}"
    needed, least = _DRIVERS.get(cuda or 0), _CAPABILITIES.get(cuda or 0, 0.0)
    other = (
        "the image with another CUDA build: container.build_args in config.yaml, docs/cluster.md"
    )
    if needed and int(driver.split(".")[0]) < needed:
        return fault(
            "GPU",
            f"{text}: the pinned torch (CUDA {cuda}) wants driver {needed} or later; build {other}",
        )
    if old := sorted(each for each in capabilities if float(each) < least):
        return fault(
            "GPU",
            f"{text}, compute capability {old[0]}: the pinned torch (CUDA {cuda}) has no code for "
            f"GPUs below {least}; ask for newer ones, or build {other}",
        )
    return ok("GPU", text)


def _runs(program: str, image: Path) -> Finding:
    """Whether the image that is there can be used."""
    command = [program, "exec", str(image), "python", "-c", _WITHIN]
    try:
        tried = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        return fault("image", f"{image} has not started within two minutes")
    if tried.returncode:
        said = " ".join(tried.stderr.split()[-40:])
        return fault("image", f"{image} does not run: {said}")
    version, _, lacks = tried.stdout.partition("\n")
    if lacks.strip():
        return fault(
            "image",
            f"{image} lacks {', '.join(lacks.split())}: jobs need one that was built from "
            "containers/amst.def",
        )
    return ok("image", f"{image} runs, Python {version}")


def _container(image: Path | None, built: bool) -> Iterator[Finding]:
    program = shutil.which("apptainer") or shutil.which("singularity")
    if not program:
        yield note("container", "no apptainer on PATH: load its module, or use --sdm env-modules")
        return
    yield ok("container", _said(program, "--version") or program)
    if image and image.exists():  # a file, or a folder ("sandbox")
        yield _runs(program, image)
        within = _said(program, "exec", str(image), "cat", IN_IMAGE)
        if within and within != REQUIREMENTS.read_text("utf-8").strip():
            yield note(
                "image",
                f"{image} was built from another containers/requirements.txt: runs are made with "
                "its packages, and Snakemake does not see it; build one of this checkout",
            )
        return
    if image and not built:
        yield fault("image", f"there is no file {image}, which container.image names")
        return
    if image:
        yield note("image", f"{image} is not there yet: the first call builds it")
    spaces = Path("/proc/sys/user/max_user_namespaces")
    if spaces.is_file() and int(spaces.read_text()) == 0:
        yield note("image", "no user namespaces: the image cannot be built here, only run")
        return
    user = _user()
    ranges = Path("/etc/subuid")
    if ranges.is_file() and re.search(rf"^({user}|{os.getuid()}):", ranges.read_text(), re.M):
        yield ok("image", "can be built here")
    else:
        yield note(
            "image", f"no range for {user} in /etc/subuid: build the image elsewhere if it fails"
        )


def _user() -> str:
    """Name of this user; its number where this machine knows no name for it."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _compiling(image: Path | None) -> Iterator[Finding]:
    """Whether there is what arithmetic.compile needs, here and in the image."""
    lacking = compiler.missing()
    yield (
        note("compiling", f"{lacking} is not here: compiled runs need it outside the image")
        if lacking
        else ok("compiling", "all that it needs is here")
    )
    program = shutil.which("apptainer") or shutil.which("singularity")
    if not (program and image and image.is_file()):
        return
    script = Path(compiler.__file__)
    inside = _said(program, "exec", "--bind", str(script.parent), str(image), "python", str(script))
    yield (
        ok("compiling", f"all that it needs is in {image}")
        if inside == ""
        else fault(
            "compiling",
            f"{inside or 'what it needs'} is not in {image}: build it on another base "
            "(container.build_args, docs/cluster.md), or set compile: false",
        )
    )
