"""The bundle for an archive: all that a claim rests on, in one file with its checksums."""

import gzip
import hashlib
import io
import tarfile
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from amst.errors import AmstError
from amst.files import replacing
from amst.records import WEIGHTS
from amst.results.cells import OF_A_RUN, Run, collect
from amst.results.figures import write_figures
from amst.results.tables import write_tables

SUMS = "SHA256SUMS"
"""The manifest: checksum and path of every other file, as ``sha256sum --check`` reads it."""


def write_bundle(
    runs: Iterable[Run],
    out: Path,
    order: Sequence[str],
    *,
    partial: bool = False,
    weights: bool = False,
    samples: Mapping[str, Path] | None = None,
    published: Path | None = None,
    metric: str = "accuracy",
    others: Mapping[str, Path | bytes] | None = None,
) -> int:
    """Write records, histories, predictions, tables and figures as a ``.tar.gz``.

    Tables and figures are made anew, so that they are those of the records beside them. Equal
    content gives equal bytes: times, owners and the order of the disk are left out.

    Args:
        runs: every run that the grid expects, with its state.
        out: the bundle; its name without suffixes is the folder that it unpacks to.
        order: the variants in the order of the rows.
        partial: whether runs may be unfinished.
        weights: whether the runs' weights are in it.
        samples: dataset -> its ``samples.jsonl``, for the groups of the bootstrap; not in it.
        published: CSV of published figures.
        metric: of the main table.
        others: path in the bundle -> further files, or what is to be in them.

    Returns:
        How many files are in it.

    Raises:
        AmstError: a run is not done and ``partial`` is false, or a file is not what it should be.
    """
    expected = list(runs)
    collection = collect(expected, order, partial=partial)
    names = (*OF_A_RUN, WEIGHTS) if weights else OF_A_RUN
    members: dict[str, Path | bytes] = dict(others or {})
    for cell in collection.cells:
        for run in cell.runs:
            if run.seed in cell.records:
                members |= {f"runs/{run.id}/{name}": run.path.with_name(name) for name in names}
    with tempfile.TemporaryDirectory() as folder:
        tables, figures = Path(folder, "tables"), Path(folder, "figures")
        made = write_tables(
            expected,
            tables,
            order,
            partial=partial,
            samples=samples,
            published=published,
            metric=metric,
        )
        made += write_figures(expected, figures, order, partial=partial)
        members |= {path.relative_to(folder).as_posix(): path for path in made}
        _pack(out, members)
    return len(members) + 1


def _pack(out: Path, members: Mapping[str, Path | bytes]) -> None:
    top = out.name.removesuffix(".tar.gz")
    sums = []
    with (
        replacing(out) as temporary,
        temporary.open("wb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, member in sorted(members.items()):
            content = member if isinstance(member, bytes) else _content(member)
            sums.append(f"{hashlib.sha256(content).hexdigest()}  {name}\n")
            _add(archive, f"{top}/{name}", content)
        _add(archive, f"{top}/{SUMS}", "".join(sums).encode())


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise AmstError(f"{path} is missing", "Delete the run's folder and run it again") from error


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o644
    archive.addfile(entry, io.BytesIO(content))
