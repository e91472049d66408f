"""CREMA-D (Cao et al., IEEE Trans. Affective Computing 2014): actors speak twelve sentences.

Layout: ``AudioWAV/<id>.wav`` and ``VideoFlash/<id>.flv``, where the id reads
``<actor>_<sentence>_<emotion>_<level>`` and is all the annotation there is.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from amst.config.run import Kind
from amst.datasets.base import Dataset, Rejected, Sample
from amst.datasets.rawfiles import RawFile, RawFolder, first_fault

EMOTIONS = {
    "ANG": "Anger",
    "DIS": "Disgust",
    "FEA": "Fear",
    "HAP": "Happy",
    "NEU": "Neutral",
    "SAD": "Sad",
}
"""Third field of an id -> class."""

_NAME = re.compile(r"\d+_[^_]*_[^_]*_[A-Z]+")
"""A level is letters, so that the copy ``1001_DFA_ANG_XX (1)`` is no clip."""


class CREMAD(Dataset):
    """7442 clips of 91 actors in 6 emotions: audio and visual."""

    name = "CREMAD"
    modalities: ClassVar[Mapping[str, Kind]] = {"audio": "audio", "visual": "visual"}
    classes = tuple(sorted(EMOTIONS.values()))
    expected_samples = 7442
    splits: ClassVar[tuple[str, ...]] = ("amst", "group", "random")
    groups = "actor"
    folders = ("AudioWAV", "VideoFlash")
    page = "docs/datasets/CREMAD.md"

    def read(self, raw: Path) -> Iterator[Sample | Rejected]:
        """Rows sorted by id; an id that has only one of its two files is rejected.

        Raises:
            AmstError: one of the two folders is missing.
        """
        audio = RawFolder(raw, "AudioWAV", ".wav", self.page)
        visual = RawFolder(raw, "VideoFlash", ".flv", self.page)
        for clip in sorted({*audio, *visual}):
            yield _row(clip, audio.file(clip), visual.file(clip))


def _row(clip: str, audio: RawFile, visual: RawFile) -> Sample | Rejected:
    if not _NAME.fullmatch(clip):
        present = visual if audio.fault == "is missing" else audio
        reason = f"{present.path} is not named <actor>_<sentence>_<emotion>_<level>"
        return Rejected(id=present.path, reason=reason, file=present.path, annotated=False)
    fields = clip.split("_")
    if fields[2] not in EMOTIONS:
        reason = f"emotion {fields[2]!r} is none of {', '.join(EMOTIONS)}"
        return Rejected(id=clip, reason=reason, file=audio.path)
    if fault := first_fault(audio, visual):
        return Rejected(id=clip, reason=fault[0], file=fault[1])
    return Sample(
        id=clip,
        label=EMOTIONS[fields[2]],
        group=fields[0],
        files={"audio": audio.path, "visual": visual.path},
    )
