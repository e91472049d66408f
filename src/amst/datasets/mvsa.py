"""MVSA-Single (Niu et al., MMM 2016): tweets with one picture and their sentiment.

Layout: ``data/<id>.jpg`` and ``data/<id>.txt`` (the caption, in an encoding of ``decode``);
``labelResultAll.txt`` with lines ``<id> TAB <label of the text>,<label of the image>`` under a
header line.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from amst.config.run import Kind
from amst.datasets.base import Dataset, Rejected, Sample
from amst.datasets.rawfiles import (
    RawFile,
    RawFolder,
    decode,
    first_fault,
    lines_of,
    read_annotation,
    unread,
)
from amst.errors import AmstError

Captions = Literal["latin-1", "gb18030"]
"""What captions are read as that are neither UTF-8 nor UTF-16."""
LABELS = "labelResultAll.txt"
SENTIMENTS = ("negative", "neutral", "positive")
CONTRADICTION = "text and image are of opposite sentiment"


class MVSA(Dataset):
    """4511 of the 4869 pairs, 3 classes: text and visual.

    A pair whose text and image are of opposite sentiment is no sample by definition; neutral gives
    way to the other label (Xu and Mao, CIKM 2017).

    Args:
        captions: what captions are read as that are neither UTF-8 nor UTF-16: `latin-1`, as in the
            released code, or `gb18030`, which is what they are.

    Raises:
        AmstError: ``captions`` is neither.
    """

    name = "MVSA"
    modalities: ClassVar[Mapping[str, Kind]] = {"text": "text", "visual": "visual"}
    classes = SENTIMENTS
    expected_samples = 4511
    splits: ClassVar[tuple[str, ...]] = ("amst", "random")
    folders = ("", "data")
    page = "docs/datasets/MVSA.md"

    def __init__(self, captions: Captions = "latin-1") -> None:
        if captions not in get_args(Captions):
            raise AmstError(
                f"option captions of {self.name} is {captions!r}",
                f"It can be {' or '.join(get_args(Captions))}",
            )
        self.captions = captions

    def fingerprint(self) -> dict[str, Any]:
        """Facts that features depend on: those of every dataset, and how captions are read.

        As published they are not named: features from before there was a choice stay.
        """
        facts = super().fingerprint()
        return facts if self.captions == "latin-1" else {**facts, "captions": self.captions}

    def read(self, raw: Path) -> Iterator[Sample | Rejected]:
        """Rows in the order of the label file; pairs left out by definition give none.

        Raises:
            AmstError: the label file or the folder ``data`` is missing.
        """
        for row in self._annotated(raw):
            if not isinstance(row, str):
                yield row

    def set_aside(self, raw: Path) -> dict[str, int]:
        """How many annotated pairs are no samples by definition, by reason."""
        return dict(Counter(row for row in self._annotated(raw) if isinstance(row, str)))

    def _annotated(self, raw: Path) -> Iterator[Sample | Rejected | str]:
        """A row for each pair, or the reason why it is none by definition."""
        pictures = RawFolder(raw, "data", ".jpg", self.page)
        captions = RawFolder(raw, "data", ".txt", self.page)
        lines: dict[str, int] = {}
        text = read_annotation(raw / LABELS, self.page)
        for number, line in enumerate(lines_of(text), 1):
            fields = [field.strip() for field in line.split("\t")]
            if not line.strip() or (number == 1 and not fields[0].isdecimal()):
                continue
            pair, sentiments = fields[0], [each.strip() for each in fields[-1].split(",")]
            if len(fields) != 2 or not pair or len(sentiments) != 2:
                reason = f"{LABELS}:{number} is not <id> TAB <text label>,<image label>"
                yield Rejected(id=f"{LABELS}:{number}", reason=reason, file=LABELS)
            elif pair in lines:
                reason = f"{pair} has a label before (line {lines[pair]})"
                yield Rejected(id=f"{LABELS}:{number}", reason=reason, file=LABELS)
            else:
                lines[pair] = number
                yield self._row(raw, pair, sentiments, pictures.file(pair), captions.file(pair))
        yield from pictures.unannotated(lines, LABELS)
        yield from captions.unannotated(lines, LABELS)

    def _row(
        self, raw: Path, pair: str, sentiments: list[str], picture: RawFile, caption: RawFile
    ) -> Sample | Rejected | str:
        unknown = [each for each in sentiments if each not in SENTIMENTS]
        if unknown:
            reason = f"label {unknown[0]!r} is none of {', '.join(SENTIMENTS)}"
            return Rejected(id=pair, reason=reason, file=LABELS)
        label = combined(*sentiments)
        if label is None:
            return CONTRADICTION
        if fault := first_fault(picture, caption):
            return Rejected(id=pair, reason=fault[0], file=fault[1])
        try:
            text = decode((raw / caption.path).read_bytes(), self.captions).strip()
        except OSError as error:
            reason = f"{caption.path} {unread(raw / caption.path, error)}"
            return Rejected(id=pair, reason=reason, file=caption.path)
        if not text:
            return Rejected(id=pair, reason=f"{caption.path} has no caption", file=caption.path)
        return Sample(
            id=pair,
            label=label,
            group=pair,
            files={"text": caption.path, "visual": picture.path},
            text=text,
        )


def combined(text: str, image: str) -> str | None:
    """The label of a pair: equal labels or the one that is not neutral; None for opposite ones."""
    if text == image or image == "neutral":
        return text
    return image if text == "neutral" else None
