"""AVE (Tian et al., ECCV 2018): ten-second videos of 28 audio-visual events.

Layout: ``AVE/<video>.mp4``; ``Annotations.txt`` with lines
``<category>&<video>&<quality>&<start>&<end>`` under a header line; ``trainSet.txt``, ``valSet.txt``
and ``testSet.txt`` with the same columns and no header.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from amst.config.run import Kind
from amst.datasets.base import Dataset, Rejected, Sample
from amst.datasets.rawfiles import RawFolder, lines_of, read_annotation

CATEGORIES = (
    "Accordion",
    "Acoustic guitar",
    "Baby cry, infant cry",
    "Banjo",
    "Bark",
    "Bus",
    "Cat",
    "Chainsaw",
    "Church bell",
    "Clock",
    "Female speech, woman speaking",
    "Fixed-wing aircraft, airplane",
    "Flute",
    "Frying (food)",
    "Goat",
    "Helicopter",
    "Horse",
    "Male speech, man speaking",
    "Mandolin",
    "Motorcycle",
    "Race car, auto racing",
    "Rodents, rats, mice",
    "Shofar",
    "Toilet flush",
    "Train horn",
    "Truck",
    "Ukulele",
    "Violin, fiddle",
)

OWN_LISTS = {"train": "trainSet.txt", "val": "valSet.txt", "test": "testSet.txt"}
"""Part -> the dataset's own list of it; without the lists there is no `official` split."""


@dataclass(frozen=True)
class _Line:
    """One annotated event; a video may have one for each of several categories."""

    where: str
    category: str
    video: str

    @property
    def id(self) -> str:
        return f"{self.video}:{self.category}"


class AVE(Dataset):
    """4143 samples in 4097 videos, 28 classes: audio and visual.

    A video with two categories gives two samples, ``<video>:<category>``, of one group.
    """

    name = "AVE"
    modalities: ClassVar[Mapping[str, Kind]] = {"audio": "audio", "visual": "visual"}
    classes = CATEGORIES
    expected_samples = 4143
    splits: ClassVar[tuple[str, ...]] = ("amst", "group", "official", "random")
    groups = "video"
    folders = ("", "AVE")
    page = "docs/datasets/AVE.md"

    def read(self, raw: Path) -> Iterator[Sample | Rejected]:
        """Rows in the order of Annotations.txt, then oddities of the lists and the folder.

        Raises:
            AmstError: ``Annotations.txt`` or the folder ``AVE`` is missing.
        """
        videos = RawFolder(raw, "AVE", ".mp4", self.page)
        seen: dict[str, _Line] = {}
        parts, misfits = self._parts(raw)
        for line in self._lines(raw, "Annotations.txt"):
            if isinstance(line, Rejected):
                yield line
            elif line.id in seen:
                reason = f"{line.id} was annotated before ({seen[line.id].where})"
                yield Rejected(id=line.where, reason=reason, file="Annotations.txt")
            else:
                seen[line.id] = line
                yield _row(line, videos, parts.get(line.id))
        yield from misfits
        for sample_id in sorted(set(parts) - set(seen)):
            source = OWN_LISTS[parts[sample_id]]
            reason = f"{sample_id} has no row in Annotations.txt"
            yield Rejected(id=f"{source}:{sample_id}", reason=reason, file=source)
        annotated = {line.video for line in seen.values()}
        yield from videos.unannotated(annotated, "Annotations.txt")

    def _parts(self, raw: Path) -> tuple[dict[str, str], list[Rejected]]:
        """Part by sample id from the dataset's own lists, and the lines that make no sense."""
        parts: dict[str, str] = {}
        misfits = []
        for part, name in OWN_LISTS.items():
            if not (raw / name).is_file():
                continue
            for line in self._lines(raw, name):
                if isinstance(line, Rejected):
                    misfits.append(line)
                elif line.id in parts:
                    reason = f"{line.id} is already in {OWN_LISTS[parts[line.id]]}"
                    misfits.append(Rejected(id=line.where, reason=reason, file=name))
                else:
                    parts[line.id] = part
        return parts, misfits

    def _lines(self, raw: Path, name: str) -> Iterator[_Line | Rejected]:
        for number, text in enumerate(lines_of(read_annotation(raw / name, self.page)), 1):
            fields = [field.strip() for field in text.split("&")]
            header = number == 1 and "VideoID" in fields
            if header or not text.strip():
                continue
            where = f"{name}:{number}"
            if len(fields) != 5 or not fields[1]:
                reason = f"{where} is not <category>&<video>&<quality>&<start>&<end>"
                yield Rejected(id=where, reason=reason, file=name)
            else:
                yield _Line(where, fields[0], fields[1])


def _row(line: _Line, videos: RawFolder, part: str | None) -> Sample | Rejected:
    video = videos.file(line.video)
    if line.category not in CATEGORIES:
        reason = f"category {line.category!r} ({line.where}) is none of the 28"
        return Rejected(id=line.id, reason=reason, file="Annotations.txt")
    if video.fault:
        return Rejected(id=line.id, reason=f"{video.path} {video.fault}", file=video.path)
    return Sample(
        id=line.id,
        label=line.category,
        group=line.video,
        files={"audio": video.path, "visual": video.path},
        part=part,
    )
