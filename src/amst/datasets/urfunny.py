"""UR-FUNNY V2 (Hasan et al., EMNLP-IJCNLP 2019): is the punchline of a talk funny?

Layout: ``urfunny2_videos/<id>.mp4``; ``language_sdk.pkl`` (id -> dict with
``punchline_sentence``), ``humor_label_sdk.pkl`` (id -> 0 or 1) and ``data_folds.pkl`` (train, dev
and test -> ids), where ids are integers.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from amst.config.run import Kind
from amst.datasets.base import Dataset, Rejected, Sample
from amst.datasets.pickles import read_pickle
from amst.datasets.rawfiles import RawFile, RawFolder
from amst.errors import AmstError

SENTENCES, LABELS, FOLDS = "language_sdk.pkl", "humor_label_sdk.pkl", "data_folds.pkl"
CLASS_OF = {0: "NOTFUNNY", 1: "FUNNY"}
PART_OF_FOLD = {"train": "train", "dev": "val", "test": "test"}


class URFUNNY(Dataset):
    """10166 clips, 2 classes: audio, text (the punchline) and visual."""

    name = "URFUNNY"
    modalities: ClassVar[Mapping[str, Kind]] = {
        "audio": "audio",
        "text": "text",
        "visual": "visual",
    }
    classes = ("FUNNY", "NOTFUNNY")
    expected_samples = 10166
    splits: ClassVar[tuple[str, ...]] = ("amst", "official", "random")
    groups = "fold"
    folders = ("", "urfunny2_videos")
    page = "docs/datasets/URFUNNY.md"

    def read(self, raw: Path) -> Iterator[Sample | Rejected]:
        """Rows in numeric order of the ids, then oddities of the pickles and the folder.

        Raises:
            AmstError: one of the pickles or the folder of videos is missing or is not what its
                name says.
        """
        videos = RawFolder(raw, "urfunny2_videos", ".mp4", self.page)
        sentences = _mapping(raw / SENTENCES)
        labels = _mapping(raw / LABELS)
        folds = _folds(raw / FOLDS)
        known = {key: value for key, value in sentences.items() if _is_id(key)}
        for key in sorted(known):
            yield _row(key, known[key], labels.get(key), folds.get(key, []), videos.file(str(key)))
        for key in sorted(map(str, sentences.keys() - known.keys())):
            reason = f"id {key!r} is no number"
            yield Rejected(id=f"{SENTENCES}:{key}", reason=reason, file=SENTENCES)
        for source, keys in ((LABELS, labels.keys()), (FOLDS, folds.keys())):
            for key in sorted(map(str, keys - sentences.keys())):
                reason = f"id {key} has no sentence in {SENTENCES}"
                yield Rejected(id=f"{source}:{key}", reason=reason, file=source)
        yield from videos.unannotated((str(key) for key in known), SENTENCES)


def _row(key: int, entry: Any, label: Any, folds: list[str], video: RawFile) -> Sample | Rejected:
    text = entry.get("punchline_sentence") if isinstance(entry, dict) else None
    if not isinstance(text, str) or not text.strip():
        return _rejected(key, "has no punchline_sentence", SENTENCES)
    if not isinstance(label, int | float) or label not in CLASS_OF:
        reason = "has no label" if label is None else f"has the label {label!r}, not 0 or 1"
        return _rejected(key, reason, LABELS)
    if len(folds) != 1:
        reason = f"is in the folds {' and '.join(folds)}" if folds else "is in no fold"
        return _rejected(key, reason, FOLDS)
    if video.fault:
        return Rejected(id=str(key), reason=f"{video.path} {video.fault}", file=video.path)
    return Sample(
        id=str(key),
        label=CLASS_OF[int(label)],
        group=folds[0],
        files={"audio": video.path, "visual": video.path},
        text=text.strip(),
        part=PART_OF_FOLD[folds[0]],
    )


def _rejected(key: int, reason: str, file: str) -> Rejected:
    return Rejected(id=str(key), reason=f"clip {key} {reason} ({file})", file=file)


def _is_id(key: object) -> bool:
    return isinstance(key, int) and key >= 0


def _mapping(path: Path) -> dict[Any, Any]:
    value = read_pickle(path)
    if not isinstance(value, dict):
        raise AmstError(
            f"{path} holds a {type(value).__name__}, not a dict by clip id",
            "Get the file again from the dataset's own page",
        )
    return value


def _folds(path: Path) -> dict[Any, list[str]]:
    """Names of the folds that each id is in."""
    folds: dict[Any, list[str]] = {}
    value = _mapping(path)
    if not set(PART_OF_FOLD) <= set(value):
        raise AmstError(
            f"{path} has the folds {', '.join(map(str, value))}, not train, dev and test",
            "Get the file again from the dataset's own page",
        )
    for fold in PART_OF_FOLD:
        for key in value[fold]:
            folds.setdefault(key, []).append(fold)
    return folds
