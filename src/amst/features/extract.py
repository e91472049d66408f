"""The samples of one shard from raw files to features: a raw file is decoded for all at once."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from amst.config.run import AudioFeatures, Features, TextFeatures, VisualFeatures
from amst.datasets.base import Dataset, Rejected, Sample
from amst.errors import AmstError
from amst.features.fingerprint import features_hash
from amst.features.frames import Pictures, read_picture
from amst.features.media import UnreadableError, check_media, decoding, opened
from amst.features.recording import Cut, Sound, Take, read_recording
from amst.features.samples import main_file, read_samples, samples_of_shards, write_lines
from amst.features.shard_writer import Header, Row, ShardWriter, Source
from amst.features.text import Tokenizer, load_tokenizer, read_sentence

_SOUNDS = frozenset({".wav", ".flac", ".ogg"})
_PICTURES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp"})


class ShardSummary(BaseModel):
    """What the raw files of a shard gave."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shard: int
    samples: int
    rejected: int


def extract_shard(
    dataset: Dataset,
    raw: Path,
    samples: Path,
    shard: int,
    shards: int,
    features: Mapping[str, Features],
    out: Path,
    rejected: Path,
) -> ShardSummary:
    """Extract one shard, and list the samples of it that cannot be read.

    A sample's ``start`` and ``end`` cut its video and its sound, but for the files that it calls
    ``whole``. The shard appears last, by rename, after each row was compared with its checksum.

    Args:
        dataset: what the samples belong to.
        raw: the raw root.
        samples: the list of all samples of the dataset.
        shard: number of the shard, from 0.
        shards: how many the dataset has.
        features: modality name -> how it is stored, for every modality of the dataset.
        out: the shard.
        rejected: list of the samples that cannot be read, with the reason.

    Raises:
        AmstError: the list cannot be read, a modality has no settings, a tokenizer is missing, or
            the storage of a raw file failed.
    """
    extraction = _Extraction(dataset, raw, features)
    header = Header(
        dataset=dataset.name,
        index=shard,
        shards=shards,
        classes=dataset.classes,
        features=extraction.features,
        settings_hash=features_hash(dataset, extraction.features),
        vocabulary=extraction.vocabulary,
    )
    chosen = samples_of_shards(read_samples(samples), dataset, shards)[shard]
    lost: list[Rejected] = []
    with ShardWriter(out, header) as writer:
        for row in extraction.rows(chosen):
            if isinstance(row, Rejected):
                lost.append(row)
            else:
                writer.append(row)
        write_lines(rejected, lost)
    return ShardSummary(shard=shard, samples=len(chosen) - len(lost), rejected=len(lost))


Given = TypeVar("Given", Pictures, Sound)
Takes = Mapping[tuple[str, str, VisualFeatures | None], Take | UnreadableError]
"""(file, sample id, how pictures are stored; None: for sound) -> what a container gave."""


@dataclass
class _Extraction:
    """Reads samples, the ones of one recording together."""

    dataset: Dataset
    raw: Path
    all_features: Mapping[str, Features]

    def __post_init__(self) -> None:
        missing = sorted(set(self.dataset.modalities) - set(self.all_features))
        if missing:
            raise AmstError(
                f"{self.dataset.name} has no feature settings for {', '.join(missing)}",
                "Add them to the dataset's features",
            )
        self.features = {name: self.all_features[name] for name in self.dataset.modalities}
        self.tokenizers: dict[str, Tokenizer] = {
            name: load_tokenizer(features)
            for name, features in self.features.items()
            if isinstance(features, TextFeatures)
        }

    @property
    def vocabulary(self) -> int | None:
        return max((one.vocabulary for one in self.tokenizers.values()), default=None)

    def rows(self, samples: Sequence[Sample]) -> Iterator[Row | Rejected]:
        for file, group in groupby(samples, lambda sample: main_file(sample, self.dataset)):
            rows = self._rows_of_recording(list(group))
            # Code that is called as the raw file: a stack names it, also that of a decoder's crash.
            following = compile("next(rows, None)", file, "eval")
            while row := eval(following, {"rows": rows}):
                yield row

    def _rows_of_recording(self, samples: list[Sample]) -> Iterator[Row | Rejected]:
        takes = self._takes(samples)
        checksums: dict[str, str] = {}
        for sample in samples:
            yield self._row(sample, takes, checksums)

    def _takes(self, samples: list[Sample]) -> Takes:
        takes: dict[tuple[str, str, VisualFeatures | None], Take | UnreadableError] = {}
        for file in sorted({file for sample in samples for file in sample.files.values()}):
            users = [sample for sample in samples if file in sample.files.values()]
            asked = self._asked_of(file, users)
            if Path(file).suffix.lower() in _SOUNDS | _PICTURES or not asked:
                continue
            # Sound is read along with the first of the pictures.
            first, *others = dict.fromkeys(
                one for one in asked if isinstance(one, VisualFeatures)
            ) or [None]
            audio = any(isinstance(one, AudioFeatures) for one in asked)
            results = self._read(file, users, first, audio)
            takes.update({(file, user.id, None): one for user, one in results})
            takes.update({(file, user.id, first): one for user, one in results})
            for visual in others:
                results = self._read(file, users, visual, audio=False)
                takes.update({(file, user.id, visual): one for user, one in results})
        return takes

    def _read(
        self, file: str, users: list[Sample], visual: VisualFeatures | None, audio: bool
    ) -> list[tuple[Sample, Take | UnreadableError]]:
        """What a container gives for each of the samples that lie in it."""
        cuts = [_cut(sample, file) for sample in users]
        results: Sequence[Take | UnreadableError]
        try:
            results = read_recording(self.raw / file, cuts, visual, audio)
        except UnreadableError as error:
            results = [error] * len(users)
        return list(zip(users, results, strict=True))

    def _asked_of(self, file: str, users: list[Sample]) -> list[Features]:
        """Settings of the modalities, other than text, that lie in ``file``."""
        names = {name for user in users for name, path in user.files.items() if path == file}
        found = [self.features[name] for name in sorted(names & set(self.features))]
        return [features for features in found if not isinstance(features, TextFeatures)]

    def _row(self, sample: Sample, takes: Takes, checksums: dict[str, str]) -> Row | Rejected:
        values: dict[str, Mapping[str, Any]] = {}
        sources: dict[str, Source] = {}
        for name in sorted(self.features):
            file = sample.files.get(name, "")
            try:
                values[name] = self._values(name, sample, file, takes)
                if file:
                    sources[name] = Source(file, self._checksum(file, checksums))
            except UnreadableError as error:
                return Rejected(id=sample.id, reason=f"{name}: {error}", file=file)
        label = self.dataset.classes.index(sample.label)
        return Row(sample.id, label, sample.group, values, sources)

    def _checksum(self, file: str, known: dict[str, str]) -> str:
        if file not in known:
            with opened(self.raw / file) as content:
                known[file] = hashlib.file_digest(content, "sha256").hexdigest()
        return known[file]

    def _values(self, name: str, sample: Sample, file: str, takes: Takes) -> Mapping[str, Any]:
        settings = self.features[name]
        pictures = settings if isinstance(settings, VisualFeatures) else None
        take = takes.get((file, sample.id, pictures))
        if isinstance(take, UnreadableError):
            raise take
        match settings:
            case AudioFeatures() as features:
                return self._audio(features, sample, file, take)
            case VisualFeatures() as features:
                return self._visual(features, file, take)
            case TextFeatures() as features:
                return self._text(features, name, sample, file)

    def _audio(
        self, features: AudioFeatures, sample: Sample, file: str, take: Take | None
    ) -> Mapping[str, Any]:
        # Here, so that a dataset without sound does not wait for torch.
        from amst.features.audio import log_mel, read_sound

        if take is None:
            whole, rate = read_sound(self.raw / file)
            cut = _cut(sample, file)
            if error := cut.beyond(len(whole) / rate if rate else 0.0):
                raise error
            sound = Sound(cut.of(whole, rate), rate)
        else:
            sound = _given(take.sound)
        return {
            "features": log_mel(sound.waveform, sound.rate, features),
            "seconds": len(sound.waveform) / sound.rate if sound.rate else 0.0,
            "peak": np.abs(sound.waveform).max(initial=0.0),
        }

    def _visual(self, features: VisualFeatures, file: str, take: Take | None) -> Mapping[str, Any]:
        pictures: Pictures
        pictures = (
            read_picture(self.raw / file, features) if take is None else _given(take.pictures)
        )
        return {
            "features": pictures.features,
            "size": pictures.size,
            "decoded": pictures.decoded,
            "rate": pictures.rate,
            "damaged": pictures.damaged,
        }

    def _text(
        self, features: TextFeatures, name: str, sample: Sample, file: str
    ) -> Mapping[str, Any]:
        sentence = sample.text
        if sentence is None:
            check_media(self.raw / file, may_be_empty=True)
            with opened(self.raw / file) as content, decoding("its text"):
                sentence = read_sentence(content)
        ids, mask = self.tokenizers[name].encode(sentence, features.tokens)
        return {"ids": ids, "mask": mask}


def _cut(sample: Sample, file: str) -> Cut:
    is_whole = any(sample.files[name] == file for name in sample.whole)
    return Cut() if is_whole else Cut(sample.start, sample.end)


def _given(value: Given | UnreadableError | None) -> Given:
    """The value, or the reason why there is none, raised."""
    if isinstance(value, UnreadableError):
        raise value
    assert value is not None, "asked for when the recording was read"
    return value
