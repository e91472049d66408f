"""IEMOCAP (Busso et al., Language Resources and Evaluation 2008): acted dialogues of two people.

Layout, below each of ``Session1`` to ``Session5``: ``dialog/EmoEvaluation/<dialogue>.txt`` with
lines ``[<start> - <end>] TAB <utterance> TAB <label> TAB [<v>, <a>, <d>]``;
``dialog/transcriptions/<dialogue>.txt`` with lines ``<utterance> [<times>]: <text>``;
``dialog/avi/DivX/<dialogue>.avi``; ``sentences/wav/<dialogue>/<utterance>.wav``.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from amst.config.run import Kind
from amst.datasets.base import Dataset, Rejected, Sample
from amst.datasets.rawfiles import RawFile, RawFolder, first_fault, lines_of, read_annotation
from amst.errors import AmstError

AudioFrom = Literal["dialogue", "sentences"]

SESSIONS = tuple(f"Session{number}" for number in range(1, 6))
EMOTIONS = ("ang", "exc", "fru", "neu", "sad")
LEFT_OUT = ("dis", "fea", "hap", "oth", "sur", "xxx")
"""Labels of the annotation that are no classes here; xxx is 'the annotators disagree'."""

_EVALUATION = re.compile(
    r"\[(?P<start>[\d.]+)\s*-\s*(?P<end>[\d.]+)\]\t(?P<id>\S+)\t(?P<label>\w+)"
)
_TRANSCRIPT = re.compile(r"(?P<id>Ses\w+)\s*\[[^\]]*\]\s*:(?P<text>.*)")


@dataclass(frozen=True)
class _Utterance:
    """One annotated utterance of a dialogue; times in seconds from the dialogue's beginning."""

    where: str
    id: str
    label: str
    start: float
    end: float


@dataclass(frozen=True)
class _Dialogue:
    """What belongs to one dialogue, besides its utterances."""

    session: str
    name: str
    video: RawFile
    sentences: RawFolder | None
    transcript: Mapping[str, str]


class IEMOCAP(Dataset):
    """6785 utterances of the 5 classes that are used, of 10039 in all: audio and visual.

    An utterance is the part of its dialogue's recording from ``start`` to ``end``.

    Args:
        audio_from: `dialogue` takes the sound of the recording, `sentences` the utterance's own
            WAV file; start and end then hold for the video only.

    Raises:
        AmstError: ``audio_from`` is neither.
    """

    name = "IEMOCAP"
    modalities: ClassVar[Mapping[str, Kind]] = {"audio": "audio", "visual": "visual"}
    classes = EMOTIONS
    expected_samples = 6785
    splits: ClassVar[tuple[str, ...]] = (
        "amst",
        *(f"group-fold{fold}" for fold in range(1, 6)),
        "random",
    )
    groups = "sessions, each with two speakers of its own"
    folders: tuple[str, ...] = (
        "*/dialog/EmoEvaluation",
        "*/dialog/transcriptions",
        "*/dialog/avi/DivX",
    )
    page = "docs/datasets/IEMOCAP.md"

    def __init__(self, audio_from: AudioFrom = "dialogue") -> None:
        if audio_from not in get_args(AudioFrom):
            raise AmstError(
                f"option audio_from of {self.name} is {audio_from!r}",
                f"It can be {' or '.join(get_args(AudioFrom))}",
            )
        self.audio_from = audio_from
        if audio_from == "sentences":
            self.folders = (*self.folders, "*/sentences/wav/*")

    def fingerprint(self) -> dict[str, Any]:
        """Facts that features depend on: those of every dataset, and where the audio is from."""
        return {**super().fingerprint(), "audio_from": self.audio_from}

    def read(self, raw: Path) -> Iterator[Sample | Rejected]:
        """Rows by session, dialogue and time; utterances of other labels give none.

        Raises:
            AmstError: a session, or one of its folders, is missing.
        """
        for row in self._annotated(raw):
            if not isinstance(row, str):
                yield row

    def set_aside(self, raw: Path) -> dict[str, int]:
        """How many annotated utterances are no samples by definition, by reason."""
        return dict(Counter(row for row in self._annotated(raw) if isinstance(row, str)))

    def _annotated(self, raw: Path) -> Iterator[Sample | Rejected | str]:
        """A row for each utterance, or the reason why it is none by definition."""
        for session in SESSIONS:
            evaluations = RawFolder(raw, f"{session}/dialog/EmoEvaluation", ".txt", self.page)
            transcripts = RawFolder(raw, f"{session}/dialog/transcriptions", ".txt", self.page)
            videos = RawFolder(raw, f"{session}/dialog/avi/DivX", ".avi", self.page)
            for name in evaluations:
                evaluation = evaluations.file(name)
                if evaluation.is_misnamed:
                    path = evaluation.path
                    yield Rejected(id=path, reason=f"{path} {evaluation.fault}", file=path)
                    continue
                dialogue = _Dialogue(
                    session,
                    name,
                    videos.file(name),
                    self._sentences(raw, session, name),
                    _transcript(raw, transcripts.file(name), self.page),
                )
                yield from self._of_dialogue(raw, dialogue, evaluation)
            yield from videos.unannotated(evaluations, f"{session}/dialog/EmoEvaluation")

    def _sentences(self, raw: Path, session: str, dialogue: str) -> RawFolder | None:
        if self.audio_from == "dialogue":
            return None
        return RawFolder(raw, f"{session}/sentences/wav/{dialogue}", ".wav", self.page)

    def _of_dialogue(
        self, raw: Path, dialogue: _Dialogue, evaluation: RawFile
    ) -> Iterator[Sample | Rejected | str]:
        seen: dict[str, str] = {}
        for line in _utterances(raw, evaluation, self.page):
            if isinstance(line, Rejected):
                yield line
            elif line.id in seen:
                reason = f"{line.id} was annotated before ({seen[line.id]})"
                yield Rejected(id=line.where, reason=reason, file=evaluation.path)
            else:
                seen[line.id] = line.where
                yield self._row(line, dialogue, evaluation.path)

    def _row(self, line: _Utterance, dialogue: _Dialogue, source: str) -> Sample | Rejected | str:
        if line.label in LEFT_OUT:
            return f"label {line.label} is not used"
        if line.label not in EMOTIONS:
            reason = f"label {line.label!r} ({line.where}) is not known"
            return Rejected(id=line.id, reason=reason, file=source)
        if line.end <= line.start:
            reason = f"{line.where} ends at {line.end} s, before it starts"
            return Rejected(id=line.id, reason=reason, file=source)
        audio = dialogue.sentences.file(line.id) if dialogue.sentences else dialogue.video
        if fault := first_fault(dialogue.video, audio):
            return Rejected(id=line.id, reason=fault[0], file=fault[1])
        if not dialogue.transcript.get(line.id):
            source = f"{dialogue.session}/dialog/transcriptions/{dialogue.name}.txt"
            return Rejected(id=line.id, reason=f"{source} has no text for it", file=source)
        return Sample(
            id=line.id,
            label=line.label,
            group=dialogue.session,
            files={
                name: audio.path if kind == "audio" else dialogue.video.path
                for name, kind in self.modalities.items()
                if kind != "text"
            },
            start=line.start,
            end=line.end,
            whole=("audio",) if dialogue.sentences else (),
            text=dialogue.transcript[line.id] if "text" in self.modalities else None,
        )


class IEMOCAP3(IEMOCAP):
    """The same utterances with their transcripts: audio, text and visual."""

    name = "IEMOCAP3"
    modalities: ClassVar[Mapping[str, Kind]] = {
        "audio": "audio",
        "text": "text",
        "visual": "visual",
    }


def _utterances(raw: Path, evaluation: RawFile, page: str) -> Iterator[_Utterance | Rejected]:
    """The lines of an evaluation file that begin with a time; the others are single votes."""
    text = read_annotation(raw / evaluation.path, page)
    for number, line in enumerate(lines_of(text), 1):
        if not line.startswith("["):
            continue
        where = f"{evaluation.path}:{number}"
        found = _EVALUATION.match(line)
        try:
            if found is None:
                raise ValueError
            times = float(found["start"]), float(found["end"])
        except ValueError:
            reason = f"{where} is not [<start> - <end>] TAB <utterance> TAB <label>"
            yield Rejected(id=where, reason=reason, file=evaluation.path)
        else:
            yield _Utterance(where, found["id"], found["label"], *times)


def _transcript(raw: Path, file: RawFile, page: str) -> dict[str, str]:
    """Text by utterance; lines without an utterance's id are remarks, the first text counts."""
    if file.fault:
        return {}
    texts: dict[str, str] = {}
    for line in lines_of(read_annotation(raw / file.path, page)):
        if found := _TRANSCRIPT.match(line.strip()):
            texts.setdefault(found["id"], found["text"].strip())
    return texts
