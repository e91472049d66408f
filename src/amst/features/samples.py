"""Raw folder -> samples and rejected samples; which samples share a shard."""

import hashlib
import math
import traceback
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from amst.datasets.base import BUILT_IN, PARTS, Dataset, Rejected, Sample
from amst.datasets.rawfiles import folders_digest, stamp, unreadable
from amst.documents import first_fault
from amst.errors import AmstError, unread
from amst.files import write_json, write_text

Line = TypeVar("Line", Sample, Rejected)


class SamplesSummary(BaseModel):
    """What the raw folder gave.

    Attributes:
        expected: samples that the complete raw folder gives; None when that is a setting.
        set_aside: reason -> annotated rows that are no samples by definition.
        raw_files: digest of the files that were there (`raw_files`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str
    raw_files: str
    samples: int
    rejected: int
    expected: int | None
    set_aside: dict[str, int] = {}


def write_samples(dataset: Dataset, raw: Path, out: Path, rejected: Path) -> SamplesSummary:
    """List what a raw folder holds: the samples, and the rows that cannot be used.

    Args:
        dataset: whose layout the raw folder has.
        raw: the raw root.
        out: the list of samples, sorted by id, one JSON object a line; beside it the summary, of
            the same name with the suffix ``.json``.
        rejected: the list of the other rows, with the reason.

    Raises:
        AmstError: as ``list_samples``.
    """
    # Before anything is read: what changes meanwhile is then looked at again.
    found = raw_files(dataset, raw)
    samples, problems = list_samples(dataset, raw)
    write_lines(rejected, problems)
    write_lines(out, samples)
    summary = SamplesSummary(
        dataset=dataset.name,
        raw_files=found,
        samples=len(samples),
        rejected=len(problems),
        expected=dataset.expected_samples,
        set_aside=dataset.set_aside(raw),
    )
    write_json(out.with_suffix(".json"), summary.model_dump(mode="json"))
    return summary


def list_samples(dataset: Dataset, raw: Path) -> tuple[list[Sample], list[Rejected]]:
    """The usable rows of a raw folder and the others, each sorted by id.

    Raises:
        AmstError: the raw folder, or an annotation file in it, is missing or cannot be read; or
            the reader gives a row with a field of a wrong type.
    """
    try:
        return _listed(dataset, raw)
    except OSError as error:
        raise unreadable(Path(error.filename or raw), error) from error


def _listed(dataset: Dataset, raw: Path) -> tuple[list[Sample], list[Rejected]]:
    if not raw.is_dir():
        remedy = f"See {dataset.page}" if dataset.page else "Set the dataset's raw folder"
        raise AmstError(f"the raw folder {raw} of {dataset.name} is missing", remedy)
    samples: dict[str, Sample] = {}
    problems: list[Rejected] = []
    for row in _rows(dataset, raw):
        problem = row if isinstance(row, Rejected) else _problem(row, dataset, raw, samples)
        if problem is not None:
            problems.append(_escaped(problem))
        elif isinstance(row, Sample):
            samples[row.id] = row if dataset.is_made else _stamped(row, raw)
    problems.sort(key=lambda row: (row.id, row.reason))
    return sorted(samples.values(), key=lambda sample: sample.id), problems


def _rows(dataset: Dataset, raw: Path) -> Iterator[Sample | Rejected]:
    """What the reader gives, with a row that it cannot mean told by its place."""
    last = ""
    try:
        for row in dataset.read(raw):
            if not isinstance(row, Sample | Rejected):
                raise AmstError(
                    f"{type(dataset).__name__}.read yields {row!r}{last}, which is neither a "
                    "Sample nor Rejected",
                    "Mend the reader",
                )
            yield row
            last = f" after {row.id}"
    except ValidationError as error:
        if error.title not in (Sample.__name__, Rejected.__name__):
            raise
        frames = traceback.extract_tb(error.__traceback__)
        place = [frame for frame in frames if "pydantic" not in Path(frame.filename).parts][-1]
        first = error.errors()[0]
        raise AmstError(
            f"{place.filename}, line {place.lineno}: the row{last} has the {error.title} field "
            f"{'.'.join(map(str, first['loc']))} = {first['input']!r}: {first['msg']}",
            "Mend the reader; labels and ids are text",
        ) from error


def raw_files(dataset: Dataset, raw: Path) -> str:
    """Digest of the raw files by name, size and time of change; the same for made ones always."""
    return "" if dataset.is_made else folders_digest(raw, dataset.folders)


def remainder(dataset: Dataset, raw: Path, now: str, listed: Path, max_lost: float) -> str:
    """Why a raw folder is but what is left of the one that was listed; empty if it is not.

    A folder that was purged by age, or is not mounted, must not replace what was made from it.

    Args:
        dataset: whose layout the raw folder has.
        raw: the raw root, which is there.
        now: its ``raw_files``.
        listed: the list of samples that was made of it.
        max_lost: share of the listed samples that may be gone.
    """
    try:
        before = read_summary(listed)
    except AmstError:
        return ""  # nothing to be lost
    if now == before.raw_files:
        return ""
    try:
        found = len(list_samples(dataset, raw)[0])
    except AmstError as error:
        return f"{before.samples} samples were listed in {raw}, and {error.message}"
    if before.samples - found <= max_lost * before.samples:
        return ""
    return f"{raw} gives {found} of the {before.samples} samples that were listed in it"


def _stamped(sample: Sample, raw: Path) -> Sample:
    """The sample with what its raw files are like now."""
    stamps = [stamp(raw / file) for file in sorted(set(sample.files.values()))]
    return sample.model_copy(update={"stamp": " ".join(stamps)})


def samples_of_shards(
    samples: Iterable[Sample], dataset: Dataset, shards: int
) -> list[list[Sample]]:
    """The samples of each shard, those of one raw file together and in order of time.

    Samples of one raw file share a shard: sha256(its relative path) mod ``shards``. What a shard
    holds depends on its own samples only, so one more raw file changes one shard.

    Args:
        samples: all samples of the dataset.
        dataset: what they belong to.
        shards: how many shards there are, at least 1.
    """
    chosen: list[list[Sample]] = [[] for _ in range(shards)]
    for sample in samples:
        digest = hashlib.sha256(main_file(sample, dataset).encode()).hexdigest()
        chosen[int(digest, 16) % shards].append(sample)
    for shard in chosen:
        shard.sort(key=lambda sample: (main_file(sample, dataset), sample.start or 0.0, sample.id))
    return chosen


def main_file(sample: Sample, dataset: Dataset) -> str:
    """The raw file that decides a sample's shard: visual before audio before text, else its id."""
    for kind in ("visual", "audio", "text"):
        for name in sorted(sample.files):
            if dataset.modalities.get(name) == kind:
                return sample.files[name]
    return sample.id


def read_summary(path: Path) -> SamplesSummary:
    """The summary that stands beside a list of samples.

    Args:
        path: the list of samples.

    Raises:
        AmstError: there is none, or it is damaged.
    """
    path = path.with_suffix(".json")
    try:
        return SamplesSummary.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise AmstError(
            f"{path} is no summary of a list of samples", "Run the preparation again"
        ) from error


def read_samples(path: Path) -> list[Sample]:
    """Rows of a list of samples.

    Raises:
        AmstError: a line is no sample; names file and line.
    """
    return list(_read_lines(path, Sample))


def read_rejected(path: Path) -> list[Rejected]:
    """Rows of a list of rejected samples.

    Raises:
        AmstError: a line is no such row; names file and line.
    """
    return list(_read_lines(path, Rejected))


def write_lines(path: Path, rows: Sequence[Sample] | Sequence[Rejected]) -> None:
    """Write rows as JSON lines without the values that are the default, by rename."""
    lines: Iterable[str] = (row.model_dump_json(exclude_defaults=True) for row in rows)
    write_text(path, "".join(f"{line}\n" for line in lines))


def _read_lines(path: Path, model: type[Line]) -> Iterator[Line]:
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        fault = f"cannot be read ({error.strerror})"
        raise unread(path, error, fault, "Run the preparation again") from error
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            yield model.model_validate_json(line)
        except ValidationError as error:
            raise AmstError(
                f"{path}, line {number}: {first_fault(error)}", "Run the preparation again"
            ) from error


def _problem(
    sample: Sample, dataset: Dataset, raw: Path, known: dict[str, Sample]
) -> Rejected | None:
    if sample.id in known:
        return Rejected(id=sample.id, reason="its id is taken by an earlier sample")
    files = {f"{name} file": file for name, file in sample.files.items()}
    texts = {"id": sample.id, "group": sample.group, "text": sample.text or "", **files}
    for what, text in texts.items():
        if text != _utf8(text):
            return Rejected(id=sample.id, reason=f"its {what} holds what is no character of UTF-8")
    # Shards drop it at the end of a text.
    if "\0" in sample.id + sample.group:
        return Rejected(id=sample.id, reason="its id or group holds a NUL character")
    if sample.label not in dataset.classes:
        return Rejected(id=sample.id, reason=f"unknown class {sample.label!r}")
    if sample.part not in (None, *PARTS):
        return Rejected(id=sample.id, reason=f"part {sample.part!r} is none of {', '.join(PARTS)}")
    for split, part in sample.parts.items():
        if split not in dataset.splits or split in BUILT_IN:
            names = ", ".join(each for each in dataset.splits if each not in BUILT_IN) or "none"
            reason = f"its parts name {split!r}: splits of the dataset's own are {names}"
            return Rejected(id=sample.id, reason=reason)
        if part not in PARTS:
            reason = f"part {part!r} of split {split} is none of {', '.join(PARTS)}"
            return Rejected(id=sample.id, reason=reason)
    if reason := _no_cut(sample.start, sample.end):
        return Rejected(id=sample.id, reason=reason)
    for name, kind in dataset.modalities.items():
        file = sample.files.get(name)
        if file is not None and not (raw / file).is_file():
            fault = "a folder" if file and (raw / file).is_dir() else "missing"
            return Rejected(id=sample.id, reason=f"its {name} file is {fault}", file=file)
        if file is None and (kind != "text" or sample.text is None):
            return Rejected(id=sample.id, reason=f"it has no {name}")
    own = {sample.files.get(name) for name in sample.whole}
    cut = {file for name, file in sample.files.items() if name not in sample.whole}
    if None in own or own & cut:
        reason = f"`whole` is {', '.join(sample.whole)}: not each of them has a file of its own"
        return Rejected(id=sample.id, reason=reason)
    return None


def _no_cut(start: float | None, end: float | None) -> str:
    """Why nothing lies between two times of a recording; empty if something may.

    Tables that were read with pandas have NaN for a time that is not there.
    """
    for name, time in (("start", start), ("end", end)):
        if time is not None and not math.isfinite(time):
            return f"its {name} is {time}, no time in seconds"
    if start is not None and end is not None and start >= end:
        return f"its start, {start:g} s, is not before its end, {end:g} s"
    return ""


def _utf8(text: str) -> str:
    r"""The text with what UTF-8 cannot hold escaped.

    That is half an emoji, which JSON can write (``\ud83d``), and bytes of file names that Python
    gives as such halves.
    """
    return text.encode("utf-8", "backslashreplace").decode()


def _escaped(row: Rejected) -> Rejected:
    """The row as a list can hold it."""
    texts = {"id": row.id, "reason": row.reason, "file": row.file}
    return row.model_copy(update={name: _utf8(text) for name, text in texts.items()})
