"""What is there of a dataset, from the raw folder to the shards, and whether it is whole.

A file's SHA-256 is worked out once: it is kept with the file's size and time of change in
``.verified.json`` beside the manifest, so that a second look takes seconds.
"""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from amst.config.run import Features
from amst.datasets.base import PARTS, Dataset, Rejected, Sample
from amst.datasets.lists import LISTS
from amst.datasets.splitfile import Split
from amst.datasets.splits import URFUNNY_TRAIN_START, make_split
from amst.errors import AmstError
from amst.features.fingerprint import features_hash
from amst.features.manifest import Manifest, read_manifest
from amst.features.samples import list_samples, read_samples
from amst.features.verification import LOST, Loss, ids_digest, read_all_samples
from amst.files import sha256_of, write_json
from amst.pretrained import LOCK, model_folder
from amst.staging import damaged

VERIFIED = ".verified.json"
URFUNNY_PARTS = (8132, 1016, 1018)
"""Sizes of train, val and test of the derived split of the complete UR-FUNNY V2."""

_SHOWN = 5
_SETTLED_SECONDS = 2.0
"""A file that changed within this time may change again without a new time stamp."""

State = Literal["ok", "noted", "missing", "wrong"]
"""`noted` is what is lost within the limit, or lies there and is not used."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at, in one line."""

    state: State
    text: str


@dataclass(frozen=True)
class Wanted:
    """What the configuration says of a dataset.

    Attributes:
        raw: the raw root.
        folder: where its features are or will be.
        features: modality name -> settings of its stored features.
        shards: how many shards there are.
        splits: names of the splits that are trained on.
        split_seed: seed of seeded splits.
        lists: folder with the published lists, there or not.
        max_lost: share of the samples that may be lost.
        unseen: of the list of samples and the shards, those that Snakemake has no note of.
    """

    raw: Path
    folder: Path
    features: Mapping[str, Features]
    shards: int
    splits: tuple[str, ...]
    split_seed: int
    lists: Path
    max_lost: float
    unseen: tuple[Path, ...] = ()


class Verified:
    """SHA-256 of files, remembered by path, size and time of change.

    Args:
        path: where they are remembered.
        forget: whether to work all of them out anew.
    """

    def __init__(self, path: Path, forget: bool = False) -> None:
        self._path = path
        self._known: dict[str, list[int | str]] = {} if forget else _read(path)
        self._changed = False

    def sha256(self, path: Path) -> str:
        """SHA-256 of a file as it is, or as it was when it had this size and time."""
        facts = path.stat()
        size, changed, *rest = self._known.get(str(path), [0, 0])
        if rest and (size, changed) == (facts.st_size, facts.st_mtime_ns):
            return str(rest[0])
        digest = sha256_of(path)
        if time.time() - facts.st_mtime > _SETTLED_SECONDS:
            self._known[str(path)] = [facts.st_size, facts.st_mtime_ns, digest]
            self._changed = True
        return digest

    def save(self) -> None:
        """Remember what was learnt, where one may write."""
        if self._changed:
            with suppress(OSError):
                write_json(self._path, self._known)


def _read(path: Path) -> dict[str, list[int | str]]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def check_dataset(
    dataset: Dataset, wanted: Wanted, media: bool = False, forget: bool = False
) -> list[Finding]:
    """Look at the raw folder, the splits, the manifest and the shards of a dataset.

    Args:
        dataset: the dataset, with its options.
        wanted: what the configuration says of it.
        media: also compare every raw file with the SHA-256 it had when it was extracted.
        forget: trust no SHA-256 from an earlier call.
    """
    verified = Verified(wanted.folder / VERIFIED, forget)
    try:
        return list(_findings(dataset, wanted, media, verified))
    finally:
        verified.save()


def check_models(names: Iterable[str], staged: Path, forget: bool = False) -> list[Finding]:
    """Look at the pretrained models that extraction and training read.

    Args:
        names: of the models.
        staged: folder of everything that was fetched.
        forget: trust no SHA-256 from an earlier call.
    """
    verified = Verified(staged / VERIFIED, forget)
    found = []
    for name in names:
        folder = model_folder(name, staged)
        if not (folder / LOCK).is_file():
            found.append(Finding("missing", f"model {name}: `amst fetch-model {name}` fetches it"))
        elif files := damaged(folder, verified.sha256):
            text = f"{folder}: {', '.join(files)}: `amst fetch-model {name}` mends it"
            found.append(Finding("wrong", text))
        else:
            found.append(Finding("ok", f"{folder}: as fetched"))
    verified.save()
    return found


def _findings(
    dataset: Dataset, wanted: Wanted, media: bool, verified: Verified
) -> Iterator[Finding]:
    try:
        samples, rejected = list_samples(dataset, wanted.raw)
    except AmstError as error:
        state: State = "wrong" if wanted.raw.is_dir() else "missing"
        yield Finding(state, f"raw folder: {error}")
    else:
        yield from _raw(dataset, wanted, samples, rejected)
        yield from _splits(dataset, wanted, samples, rejected)
        yield from _listed(dataset, wanted, samples)
    yield from _features(dataset, wanted, media, verified)


def _raw(
    dataset: Dataset, wanted: Wanted, samples: list[Sample], rejected: list[Rejected]
) -> Iterator[Finding]:
    expected = dataset.expected_samples
    counts = f"{len(samples)} samples" + (f" of {expected} expected" if expected else "")
    loss = Loss.of(len(samples), rejected, expected)
    lost = f", {len(loss.rejected)} rejected" if loss.rejected else ""
    if loss.gone:
        side = "within" if loss.within(wanted.max_lost) else "over"
        lost += f", {loss.gone} lost: {side} the limit of {wanted.max_lost:.2%} (max_lost)"
    left_out = sum(dataset.set_aside(wanted.raw).values())
    more = f", {left_out} rows are no samples by definition" if left_out else ""
    state: State = "ok" if loss.within(wanted.max_lost) else "wrong"
    yield Finding(state, f"raw folder {wanted.raw}: {counts}{lost}{more}")
    if expected and len(samples) > expected:
        extra = len(samples) - expected
        yield Finding("noted", f"raw folder: {extra} more than there should be: look for copies")
    yield from _rows(rejected, "raw folder", f"`amst samples {dataset.name}` lists all", state)


def _rows(
    rejected: list[Rejected], where: str, all_of_them: str, state: State
) -> Iterator[Finding]:
    """The first rejected rows, and how to see the others."""
    state = "noted" if state == "ok" else state
    for row in rejected[:_SHOWN]:
        yield Finding(state, f"{where}: {row.line}")
    if len(rejected) > _SHOWN:
        yield Finding(state, f"{where}: {len(rejected) - _SHOWN} more; {all_of_them}")


def _splits(
    dataset: Dataset, wanted: Wanted, samples: list[Sample], rejected: list[Rejected]
) -> Iterator[Finding]:
    names = list(wanted.splits)
    if dataset.name == "URFUNNY" and "amst" not in names:
        names.append("amst")
    files = LISTS.get(dataset.name, ())
    lists_missing = not all((wanted.lists / file.path).is_file() for file in files)
    for name in names:
        try:
            split = make_split(name, dataset, samples, wanted.split_seed, wanted.lists, rejected)
        except AmstError as error:
            yield Finding("missing" if name == "amst" and lists_missing else "wrong", str(error))
            continue
        sizes = tuple(len(split.parts[part]) for part in PARTS)
        text = f"split {name}: {' / '.join(map(str, sizes))}"
        if split.note:
            text += f" ({split.note})"
        if split.absent:
            text += f", {len(split.absent)} of its samples are missing or rejected"
        few = Loss.of(len(samples), rejected, dataset.expected_samples).within(wanted.max_lost)
        yield Finding("wrong" if split.absent and not few else "ok", text)
        if name == "amst" and dataset.name == "URFUNNY":
            yield _derived(dataset, split, sizes)


def _derived(dataset: Dataset, split: Split, sizes: tuple[int, ...]) -> Finding:
    """Whether the derived split is the published one, which it is when all ids are annotated.

    That it then begins as published is seen to where it is made. Ids whose files are lost take part
    in the shuffle, so they hinder nothing.
    """
    wanted = f"{' / '.join(map(str, URFUNNY_PARTS))}, train begins {', '.join(URFUNNY_TRAIN_START)}"
    lost = len(split.absent)
    if sum(sizes) + lost != dataset.expected_samples:
        return Finding("wrong", f"split amst cannot be compared with the published {wanted}")
    less = f", less {lost} lost" if lost else ""
    return Finding("ok", f"split amst as published: {wanted}{less}")


def _listed(dataset: Dataset, wanted: Wanted, samples: list[Sample]) -> Iterator[Finding]:
    path = wanted.folder / "samples.jsonl"
    if not path.is_file():
        return
    try:
        before = read_all_samples(path)
    except AmstError as error:
        yield Finding("wrong", str(error))
        return
    if before != samples:
        # The list by its own name: where only the manifest is asked for, it is not missed.
        remedy = f"`snakemake {path} {path.with_name('manifest.json')}` takes in what changed"
        if wanted.unseen:
            gone = path if wanted.unseen == (path,) else wanted.folder
            remedy = f"delete {gone}, which Snakemake has no notes of, and {remedy}"
        if dataset.is_made:
            made = wanted.raw / f"{dataset.name}.json"
            remedy = f"delete {made}, and `snakemake {made}` makes it again"
        yield Finding("wrong", f"{path} is not what the raw folder gives now: {remedy}")


def _features(
    dataset: Dataset, wanted: Wanted, media: bool, verified: Verified
) -> Iterator[Finding]:
    path = wanted.folder / "manifest.json"
    if not path.is_file():
        yield from _unfinished(path)
        return
    try:
        manifest = read_manifest(path)
    except AmstError as error:
        yield Finding("wrong", str(error))
        return
    same = manifest.settings_hash == features_hash(dataset, wanted.features)
    if not same or len(manifest.shards) != wanted.shards:
        yield Finding("wrong", f"{path} was made with other settings: `snakemake {path}`")
    yield from _lost(manifest, path, wanted.max_lost)
    bad = list(_shards(manifest, path, verified))
    yield from bad
    if not bad:
        yield Finding("ok", f"{path}: {manifest.samples} samples in {len(manifest.shards)} shards")
        if media:
            yield from _media(manifest, path, wanted.raw, verified)


def _unfinished(path: Path) -> Iterator[Finding]:
    lost = path.with_name(LOST)
    if lost.is_file():
        yield Finding(
            "wrong",
            f"too many samples are lost, {lost} names the rejected ones: mend the raw files and "
            f"call `snakemake {path}`, or raise max_lost",
        )
    else:
        yield Finding("missing", f"no shards yet: `snakemake {path}` makes them")


def _lost(manifest: Manifest, path: Path, limit: float) -> Iterator[Finding]:
    """What extraction lost, and whether the shards are those of the list of samples."""
    listed = path.with_name("samples.jsonl")
    if not listed.is_file():
        return
    ids = {row.id for row in read_samples(listed)}
    if ids_digest(ids) != manifest.listed:
        yield Finding(
            "wrong", f"{path} was made of other samples than {listed}: `snakemake {path}`"
        )
    lost = [row for row in manifest.rejected if row.id in ids]
    state: State = "ok" if Loss.of(len(ids) - len(lost), lost, None).within(limit) else "wrong"
    yield from _rows(lost, "lost in extraction", f"{path} lists all", state)


def _shards(manifest: Manifest, path: Path, verified: Verified) -> Iterator[Finding]:
    for shard, entry in zip(manifest.paths(path), manifest.shards, strict=True):
        # by its own name: where only the manifest is asked for, a shard below it is not missed
        remedy = f"`snakemake {shard} {path}` makes it again"
        if not shard.is_file():
            yield Finding("missing", f"shard {shard}: {remedy}")
        elif verified.sha256(shard) != entry.sha256:
            yield Finding("wrong", f"{_damage(shard)}: delete it, and {remedy}")


def _damage(path: Path) -> str:
    """What is wrong with a shard that is not the manifest's, with the damaged sample if one is."""
    # Here, since HDF5 is not part of the light set-up.
    from amst.features.shards import Shard

    try:
        with Shard(path) as shard:
            shard.verify()
    except AmstError as error:
        return error.message
    return f"shard {path} is not the file that the manifest names"


def _media(manifest: Manifest, path: Path, raw: Path, verified: Verified) -> Iterator[Finding]:
    from amst.features.shards import Shard

    recorded: dict[str, str] = {}
    for shard_path in manifest.paths(path):
        with Shard(shard_path) as shard:
            for name in shard.modalities:
                files, digests = shard.texts(f"{name}/path"), shard.texts(f"{name}/sha256")
                recorded.update(zip(files, digests, strict=True))
    recorded.pop("", None)
    bad = 0
    for file, digest in sorted(recorded.items()):
        if not (raw / file).is_file():
            state: State = "missing"
            text = f"raw file {file}, which the shards were made of"
        elif verified.sha256(raw / file) != digest:
            state, text = "wrong", f"raw file {file} changed since it was extracted"
        else:
            continue
        bad += 1
        yield Finding(state, text)
    if not bad:
        yield Finding("ok", f"{len(recorded)} raw files are those that were extracted")
