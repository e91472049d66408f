"""The bundle for an archive: all that a claim rests on, in one file with its checksums."""

import gzip
import hashlib
import io
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from amst.errors import AmstError
from amst.files import reading, replacing
from amst.records import RECORD, WEIGHTS
from amst.results.anonymous import (
    Identities,
    anonymous_files,
    record_bytes,
    without_identities,
)
from amst.results.bundle_readme import readme
from amst.results.cells import OF_A_RUN, Collection, record_of
from amst.results.figures import write_figures
from amst.results.tables import Material, write_tables

SUMS = "SHA256SUMS"
"""The manifest: checksum and path of every other file, as ``sha256sum --check`` reads it."""
README = "README.md"
"""What is in the bundle and how to check it."""


def write_bundle(
    material: Material,
    out: Path,
    *,
    weights: bool = False,
    others: Mapping[str, Path | bytes] | None = None,
    anonymous: Identities | None = None,
) -> int:
    """Write records, histories, predictions, tables and figures as a ``.tar.gz``.

    Tables and figures are made anew, so that they are those of the records beside them. Equal
    content gives equal bytes: times, owners and the order of the disk are left out.

    Args:
        material: what tables and figures are made from; lists of samples are not in it.
        out: the bundle; its name without suffixes is the folder that it unpacks to.
        weights: whether the runs' weights are in it.
        others: path in the bundle -> further files, or what is to be in them.
        anonymous: what must not be in it, for double-blind review; None for all as it is.

    Returns:
        How many files are in it.

    Raises:
        AmstError: a file is missing or is not what it should be, a run was made again
            meanwhile, or an anonymous bundle would hold an identity.
    """
    as_made = collection = material.collection
    if anonymous:
        collection = without_identities(as_made)
        material = replace(material, collection=collection)
        others = anonymous_files(others or {}, collection)
    names = (*OF_A_RUN, WEIGHTS) if weights else OF_A_RUN
    members: dict[str, Path | bytes] = dict(others or {})
    for run in collection.finished:
        members |= {f"runs/{run.id}/{name}": run.path.with_name(name) for name in names}
    if anonymous:
        for record in collection.records:
            members[f"runs/{record.settings.run_id}/{RECORD}"] = record_bytes(record)
    with tempfile.TemporaryDirectory() as folder, replacing(out) as temporary:
        made = write_tables(material, Path(folder, "tables"))
        made += write_figures(collection, Path(folder, "figures"))
        members |= {path.relative_to(folder).as_posix(): path for path in made}
        members[README] = readme(collection, members, anonymous=bool(anonymous))
        look_into = anonymous.refuse_in if anonymous else None
        _pack(temporary, out.name.removesuffix(".tar.gz"), members, look_into)
        _refuse_changed(as_made)
    return len(members) + 1


def _refuse_changed(collection: Collection) -> None:
    """Tables and figures are of the records as they were read; the files in the bundle are later.

    A run that is made again loses its record first and gets it last.
    """
    for cell in collection.cells:
        for run in cell.runs:
            read = cell.records.get(run.seed)
            if read and record_of(run).model_dump_json() != read.model_dump_json():
                raise AmstError(f"{run.path} was written anew meanwhile", "Call it again")


def _pack(
    out: Path,
    top: str,
    members: Mapping[str, Path | bytes],
    look_into: Callable[[str, bytes], None] | None,
) -> None:
    """Write an archive whose files lie in the folder ``top``; each is looked into before."""
    sums = []
    with (
        out.open("wb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, member in sorted(members.items()):
            content = member if isinstance(member, bytes) else _content(member)
            if look_into:
                look_into(f"{top}/{name}", content)
            sums.append(f"{hashlib.sha256(content).hexdigest()}  {name}\n")
            _add(archive, f"{top}/{name}", content)
        _add(archive, f"{top}/{SUMS}", "".join(sums).encode())


def _content(path: Path) -> bytes:
    try:
        with reading(path):
            return path.read_bytes()
    except FileNotFoundError as error:
        remedy = "Delete the run's folder and run it again"
        if path.name == WEIGHTS:
            remedy = "Leave out --weights; or train the run again: snakemake without targets does"
        raise AmstError(f"{path} is missing", remedy) from error


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o644
    archive.addfile(entry, io.BytesIO(content))
