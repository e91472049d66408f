"""A base image out of this machine's Python: what `containers/amst.def` is built on in tests.

The image of a test goes through every section of the definition, without a network: uv is there
already, and the requirements are one small wheel of our own, pinned by its hash. At run time the
prepared environment's packages are bound over the image's. What this leaves untested is fetching
the published base and the full list of packages from their registries.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

from tests.end_to_end.suite import ROOT

UV = ROOT / ".uv"
HOST = ("/usr/bin", "/usr/sbin", "/usr/lib", "/usr/share", "/usr/lib64")
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
INSIDE = f"/usr/local/lib/{PYTHON}/site-packages"
BINDINGS = ",".join((*HOST, f"{sysconfig.get_path('purelib')}:{INSIDE}"))
"""Value of APPTAINER_BIND with which the image has all packages."""


def base(root: Path) -> Path:
    """A root folder with this process's Python, pip and uv; the rest is bound from the host."""
    folders = (*HOST, "/usr/local/bin", "/etc", "/tmp", "/var/tmp", "/proc", "/sys", "/dev")
    for folder in (*folders, "/root", "/mnt", "/opt", "/run", "/home"):
        (root / folder.lstrip("/")).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    for name in ("passwd", "group"):
        (root / "etc" / name).write_text("")
    prefix, local = Path(sys.base_prefix), root / "usr" / "local"
    unneeded = shutil.ignore_patterns("test", "__pycache__", "config-3*", "site-packages")
    library = local / "lib" / PYTHON
    shutil.copytree(prefix / "lib" / PYTHON, library, ignore=unneeded, symlinks=True)
    for shared in (prefix / "lib").glob(f"lib{PYTHON}.so*"):
        shutil.copy2(shared, local / "lib", follow_symlinks=False)
    python = local / "bin" / PYTHON
    shutil.copy2(prefix / "bin" / PYTHON, python)
    subprocess.run(["patchelf", "--set-rpath", "$ORIGIN/../lib", python], check=True)
    for name in ("python", "python3"):
        (local / "bin" / name).symlink_to(PYTHON)
    for part in (UV / "lib" / PYTHON / "site-packages").iterdir():
        if part.name.split("-")[0] in ("uv", "pip"):
            shutil.copytree(part, library / "site-packages" / part.name)
    shutil.copy2(UV / "bin" / "uv", local / "bin" / "uv")
    return root


def wheel(folder: Path) -> str:
    """Make a wheel with one module, `amst_probe`; the line that requires it, with its hash."""
    folder.mkdir(parents=True)
    path = folder / "amst_probe-1.0-py3-none-any.whl"
    about = "amst_probe-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("amst_probe.py", "HERE = True\n")
        archive.writestr(
            f"{about}/METADATA", "Metadata-Version: 2.1\nName: amst-probe\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{about}/RECORD", "")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"amst-probe==1.0 --hash=sha256:{digest}\n"


def build_arguments(folder: Path) -> str:
    """Options for `apptainer build` that need no network."""
    wheels = folder / "wheels"
    options = "--no-index --find-links /mnt"
    return " ".join(
        (
            *(f"--bind {path}" for path in (*HOST, f"{wheels}:/mnt")),
            "--build-arg BOOTSTRAP=localimage",
            f"--build-arg BASE={folder / 'base'}",
            f"--build-arg 'INSTALL_OPTIONS={options}'",
            "--notest",  # the packages are bound afterwards; `apptainer test` follows
        )
    )


def apptainer(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Call Apptainer with the packages bound."""
    done = subprocess.run(
        ["apptainer", *arguments],
        env={**os.environ, "APPTAINER_BIND": BINDINGS},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done
